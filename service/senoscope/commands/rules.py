"""``senoscope rules``: describe a rule file, and replay it on a logged series."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

# The run log, and with it SQLAlchemy, is imported only for a replay.
if TYPE_CHECKING:
    from senoscope.decisions.rules import RuleSet
    from senoscope.runlog.store import RunLog
    from senoscope_client.models.decision import Decision

rules = typer.Typer(no_args_is_help=True, add_completion=False, help="Check rules that decide on results.")
_MAX_SERIES_SEARCHED = 1000


@rules.callback()
def _rules() -> None:
    """Make this a group, although it has only one command."""


@rules.command("check")
def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Rule file, as for `serve --rules`.")],
    replay: Annotated[
        str | None,
        typer.Option(metavar="SERIES", help="Apply the rules to this logged series and print the decisions."),
    ] = None,
    database_url: Annotated[
        str | None,
        typer.Option(envvar="SENOSCOPE_DATABASE_URL", help="Run log, as for `serve`."),
    ] = None,
) -> None:
    """Describe a rule file and, with --replay, its decisions on a logged series; changes nothing."""
    from senoscope.decisions.rules import read_rules

    found = read_rules(file)
    limits = found.limits
    print(f"{file}: " + ("dry run" if found.dry_run else "decisions take effect (dry_run is false)"))
    for rule in found.rules:
        print(f"  {rule.describe()}")
    print(
        f"  at most {limits.max_revisits} revisits per series and {limits.max_revisits_per_place} per place "
        f"(positions within {limits.place_radius_um:g} um)"
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
    file = log.database.dialect.file
    if file is not None and not file.is_file():
        raise NotFound(f"there is no run log at {file}; select another with --database-url")
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
    """Return the uid of a series that is given by its uid or by its name; of several, the newest."""
    from senoscope_client.errors import NotFound

    try:
        return UUID(series)
    except ValueError:
        snapshots = [one.snapshot for one in log.series(_MAX_SERIES_SEARCHED)]
        named = [one.series_uid for one in snapshots if one.series_id == series]
    if not named:
        known = ", ".join(str(one.series_id) for one in snapshots[:5])
        raise NotFound(f"the run log has no series {series!r}; the newest are {known or 'none'}")
    return named[0]
