"""``senoscope rules``: what a rule file says, and what it would have decided."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

# The run log, and with it SQLAlchemy, is imported where a logged series is to be judged.
if TYPE_CHECKING:
    from senoscope.decisions.rules import RuleSet
    from senoscope.runlog.store import RunLog
    from senoscope_client.models.decision import Decision

rules = typer.Typer(no_args_is_help=True, add_completion=False, help="Rules that decide on results.")
_MANY = 1000


@rules.callback()
def _rules() -> None:
    """A group, although there is only one command in it."""


@rules.command("check")
def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The rule file, as of `serve --rules`.")],
    replay: Annotated[
        str | None,
        typer.Option(metavar="SERIES", help="Show what it would have decided on this logged series."),
    ] = None,
    database_url: Annotated[
        str | None,
        typer.Option(envvar="SENOSCOPE_DATABASE_URL", help="The run log, as of `serve`."),
    ] = None,
) -> None:
    """Tell a rule file in words and, with --replay, what it would have decided; changes nothing."""
    from senoscope.decisions.rules import read_rules

    found = read_rules(file)
    limits = found.limits
    print(f"{file}: " + ("a dry run" if found.dry_run else "in earnest: dry_run is false"))
    for rule in found.rules:
        print(f"  {rule.describe()}")
    print(
        f"  at most {limits.max_revisits} revisits in a series, {limits.max_revisits_per_place} of one place "
        f"(all within {limits.place_radius_um:g} um)"
    )
    if replay is not None:
        _replay(found, replay, database_url)


def _replay(found: RuleSet, series: str, url: str | None) -> None:
    from senoscope.decisions.judge import Judge, summary
    from senoscope.runlog.entries import ResultFilter
    from senoscope.runlog.places import checked_database_url, default_database_url
    from senoscope.runlog.store import RunLog
    from senoscope_client.errors import InvalidRequest, NotFound

    try:
        log = RunLog(checked_database_url(url or default_database_url()))
    except ValueError as error:
        raise InvalidRequest(f"--database-url: {error}") from None
    file = log.database.url.database
    if log.database.is_sqlite and not Path(str(file)).is_file():
        raise NotFound(f"there is no run log at {file}; --database-url names another")
    try:
        judge = Judge(found)
        fovs = 0
        decisions: list[Decision] = []
        for result in log.oldest_first(ResultFilter(series=_uid(log, series))):
            fovs += 1
            for decision in judge.judge(result):
                decisions.append(decision)
                place = decision.position_um
                where = f" at {place.x:g}, {place.y:g} um" if place else ""
                print(
                    f"frame {decision.frame}{where}: {decision.action} ({decision.rule}): {decision.reason}"
                )
    finally:
        log.close()
    if not fovs:
        raise NotFound(f"the run log holds no results of series {series!r}")
    counts = ", ".join(f"{count} {action}" for action, count in summary(decisions).items())
    print(f"{fovs} fields of view: {counts}; {judge.withheld} revisits withheld", file=sys.stderr)


def _uid(log: RunLog, series: str) -> UUID:
    """By its uid, or the newest of that name."""
    from senoscope_client.errors import NotFound

    try:
        return UUID(series)
    except ValueError:
        named = [one.snapshot for one in log.series(_MANY) if one.snapshot.get("series_id") == series]
    if not named:
        known: Iterator[str] = (str(one.snapshot.get("series_id")) for one in log.series(5))
        raise NotFound(f"the run log knows no series {series!r}; the newest are {', '.join(known) or 'none'}")
    return UUID(named[0]["series_uid"])
