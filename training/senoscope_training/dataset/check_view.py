"""What a check found, for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from senoscope_training.dataset.checking import ChannelStats, CheckReport, Leak
from senoscope_training.dataset.faults import told

_BLOCKS = " ▁▂▃▄▅▆▇█"
_MOST = 20
_MOST_SIZES = 6


def render(report: CheckReport) -> Iterator[RenderableType]:
    """Tables and lines, in the order in which they are read."""
    total = sum(report.counts.values())
    yield Text(f"{report.path}: {total} usable fields of view of {report.size} pixels", style="bold")
    if total:
        yield _counts(report)
        yield Text(f"sizes: {_list(report.sizes)}; types: {_list(report.dtypes)}")
        yield _intensities(report.channels)
        yield from _histograms(report.channels)
    for warning in report.warnings[:_MOST]:
        yield Text(f"warning, {len(warning.files)} of {total}: {warning}", style="yellow")
    if len(report.warnings) > _MOST:
        yield Text(f"and {len(report.warnings) - _MOST} more warnings; --json has them all", style="yellow")
    for note in report.notes:
        yield Text(f"note: {note}")
    yield from _leaks(report.leaks)
    if report.faults:
        yield Text(f"faults: {len(report.faults)}; training refuses this data set", style="bold red")
        yield Text(told(report.faults))
    else:
        yield Text("no faults", style="green")


def blocks(histogram: Sequence[int]) -> str:
    """A histogram as one line of block characters; whatever is not empty can be seen."""
    top = max(histogram, default=0)
    if not top:
        return _BLOCKS[0] * len(histogram)
    # The root shows the bright few beside the dark many.
    return "".join(_BLOCKS[max(bool(n), round((n / top) ** 0.5 * (len(_BLOCKS) - 1)))] for n in histogram)


def _counts(report: CheckReport) -> Table:
    table = Table(title="fields of view", title_justify="left")
    table.add_column("")
    for name in report.classes:
        table.add_column(name, justify="right")
    rows = [("all", report.counts)]
    rows += [(f"group {group}", counts) for group, counts in report.groups.items()]
    rows += list(report.splits.items())
    for title, counts in rows:
        table.add_row(Text(title), *(str(counts[name]) for name in report.classes))
    return table


def _intensities(channels: Sequence[ChannelStats]) -> Table:
    table = Table(title="intensities, in raw units", title_justify="left")
    table.add_column("")
    for one in channels:
        table.add_column(Text(one.name), justify="right")
    rows: list[tuple[str, list[str]]] = [("smallest", [f"{one.min:g}" for one in channels])]
    rows += [
        (f"{name} % are below", [f"{one.percentiles[name]:g}" for one in channels])
        for name in channels[0].percentiles
    ]
    rows += [
        ("largest", [f"{one.max:g}" for one in channels]),
        ("at the largest", [_share(one.at_max) for one in channels]),
        ("at the type's largest", [_share(one.at_type_max) for one in channels]),
        ("range for training", [f"{one.low:g} to {one.high:g}" for one in channels]),
        ("above that range", [_share(one.above_range) for one in channels]),
    ]
    for title, cells in rows:
        table.add_row(title, *cells)
    return table


def _histograms(channels: Sequence[ChannelStats]) -> Iterator[Text]:
    yield Text("histograms from the smallest to the largest value, roots of counts")
    longest = max(len(one.name) for one in channels)
    for one in channels:
        yield Text(f"  {one.name:<{longest}} |{blocks(one.histogram)}|")


def _share(fraction: float | None) -> str:
    return "-" if fraction is None else f"{fraction:.3%}"


def _leaks(leaks: Sequence[Leak]) -> Iterator[RenderableType]:
    groups = [leak for leak in leaks if leak.kind == "group"]
    if groups:
        names = ", ".join(leak.what for leak in groups[:_MOST])
        yield Text(
            f"leak: {len(groups)} groups are in training and in test ({names}); set split.by: group",
            style="yellow",
        )
    others = [leak for leak in leaks if leak.kind != "group"]
    for leak in others[:_MOST]:
        where = "in training and in test" if leak.folds else "on one side"
        word = "leak" if leak.folds else "note"
        yield Text(f"{word}: {leak.kind}, {where}: {leak.what}", style="yellow" if leak.folds else "")
    if len(others) > _MOST:
        yield Text(f"and {len(others) - _MOST} more pairs")


def _list(counts: dict[str, int]) -> str:
    """The commonest first; a data set of single cells has hundreds of sizes."""
    shown = [f"{count} x {name}" for name, count in list(counts.items())[:_MOST_SIZES]]
    more = len(counts) - len(shown)
    return ", ".join(shown) + (f" and {more} others" if more else "")
