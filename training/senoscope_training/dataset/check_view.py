"""The result of a check, as tables and lines for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from senoscope_training.dataset.checking import ChannelStats, CheckReport, Leak
from senoscope_training.dataset.faults import format_faults

_BLOCKS = " ▁▂▃▄▅▆▇█"
_MAX_LISTED = 20
_MAX_SIZES = 6


def render(report: CheckReport) -> Iterator[RenderableType]:
    """Return tables and lines, in the order in which they are printed."""
    total = sum(report.counts.values())
    yield Text(f"{report.path}: {total} usable fields of view of {report.size} pixels", style="bold")
    if total:
        yield _counts(report)
        yield Text(f"sizes: {_most_common(report.sizes)}; types: {_most_common(report.dtypes)}")
        yield _intensities(report.channels)
        yield from _histograms(report.channels)
    for warning in report.warnings[:_MAX_LISTED]:
        yield Text(f"warning, {len(warning.files)} of {total}: {warning}", style="yellow")
    if len(report.warnings) > _MAX_LISTED:
        more = len(report.warnings) - _MAX_LISTED
        yield Text(f"and {more} more warnings; pass --json to list all", style="yellow")
    for note in report.notes:
        yield Text(f"note: {note}")
    yield from _leaks(report.leaks)
    if report.faults:
        yield Text(f"faults: {len(report.faults)}; training refuses this data set", style="bold red")
        yield Text(format_faults(report.faults))
    else:
        yield Text("no faults", style="green")


def blocks(histogram: Sequence[int]) -> str:
    """Return a histogram as one line of block characters, with a visible block for every non-empty bin."""
    top = max(histogram, default=0)
    if not top:
        return _BLOCKS[0] * len(histogram)
    # On a square-root scale, the few bright pixels are visible next to the many dark ones.
    return "".join(_BLOCKS[max(bool(n), round((n / top) ** 0.5 * (len(_BLOCKS) - 1)))] for n in histogram)


def _counts(report: CheckReport) -> Table:
    table = _table("fields of view", report.classes)
    groups = {f"group {group}": counts for group, counts in report.groups.items()}
    for title, counts in ({"all": report.counts} | groups | report.splits).items():
        table.add_row(Text(title), *(str(counts[name]) for name in report.classes))
    return table


def _table(title: str, columns: Iterable[str]) -> Table:
    """Return a table of numbers, with titles of its rows in the first column."""
    table = Table("", title=title, title_justify="left")
    for name in columns:
        table.add_column(Text(name), justify="right")
    return table


def _intensities(channels: Sequence[ChannelStats]) -> Table:
    table = _table("intensities, in raw units", (one.name for one in channels))
    table.add_row("smallest", *(f"{one.min:g}" for one in channels))
    for p in channels[0].percentiles:
        title = f"{p}{'st' if p == '1' else 'th'} percentile"
        table.add_row(title, *(f"{one.percentiles[p]:g}" for one in channels))
    table.add_row("largest", *(f"{one.max:g}" for one in channels))
    table.add_row("pixels at the largest", *(_percentage(one.at_max) for one in channels))
    table.add_row("pixels at the type's maximum", *(_percentage(one.at_type_max) for one in channels))
    table.add_row("range for training", *(f"{one.low:g} to {one.high:g}" for one in channels))
    table.add_row("pixels above that range", *(_percentage(one.above_range) for one in channels))
    return table


def _histograms(channels: Sequence[ChannelStats]) -> Iterator[Text]:
    yield Text("histograms from the smallest to the largest value, on a square-root scale")
    longest = max(len(one.name) for one in channels)
    for one in channels:
        yield Text(f"  {one.name:<{longest}} |{blocks(one.histogram)}|")


def _percentage(fraction: float | None) -> str:
    return "-" if fraction is None else f"{fraction:.3%}"


def _leaks(leaks: Sequence[Leak]) -> Iterator[RenderableType]:
    groups = [leak for leak in leaks if leak.kind == "group"]
    if groups:
        names = ", ".join(leak.what for leak in groups[:_MAX_LISTED])
        yield Text(
            f"leak: {len(groups)} groups are in training and in test ({names}); set split.by: group",
            style="yellow",
        )
    others = [leak for leak in leaks if leak.kind != "group"]
    for leak in others[:_MAX_LISTED]:
        where = "in training and in test" if leak.folds else "on the same side of the split"
        prefix = "leak" if leak.folds else "note"
        yield Text(f"{prefix}: {leak.kind}, {where}: {leak.what}", style="yellow" if leak.folds else "")
    if len(others) > _MAX_LISTED:
        yield Text(f"and {len(others) - _MAX_LISTED} more pairs")


def _most_common(counts: dict[str, int]) -> str:
    """List the first entries; a data set of single cells has hundreds of sizes."""
    shown = [f"{count} x {name}" for name, count in list(counts.items())[:_MAX_SIZES]]
    more = len(counts) - len(shown)
    return ", ".join(shown) + (f" and {more} others" if more else "")
