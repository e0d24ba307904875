"""``senoscope bench``: measure this machine, the real service wire to wire and the engine alone."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from senoscope.commands.command_line import exiting_on_sigterm
from senoscope.commands.options import (
    DeviceOption,
    ModelOption,
    ModelsDirOption,
    PrecisionOption,
    ensemble_folder,
    settings_with,
)

# NumPy, ONNX Runtime and the HTTP client are imported only after the arguments were checked.
if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from senoscope.bench.passport import Passport, Spread, StreamTimes

_REDRAW_S = 1.0  # drawing delays the receipt of results


@exiting_on_sigterm()  # ends the child processes too
def bench(
    model: ModelOption = None,
    models_dir: ModelsDirOption = None,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    deadline_ms: Annotated[
        float | None, typer.Option("--deadline-ms", help="Deadline of the service; default: its own.")
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            help="FOVs per second of the stream; default: the highest rate that keeps the deadline at p99, "
            "or without a deadline drops no frame.",
        ),
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(min=1, help="Length of each stream; default: 15, with --quick 3.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="A rough measurement in a fraction of the time.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(help="Folder for bench.json and bench.svg; default: the user's data folder."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the passport as JSON instead of a table.")
    ] = False,
) -> None:
    """Measure this machine: the service from a frame's sending to its result, and the engine."""
    from rich.console import Console

    settings = settings_with(
        model=model, models_dir=models_dir, device=device, precision=precision, deadline_ms=deadline_ms
    )
    console = Console(stderr=True)

    from senoscope.bench.histogram import write_histogram
    from senoscope.bench.measurement import Effort, measure_machine
    from senoscope.bench.passport import default_folder
    from senoscope.commands.process import collect_garbage

    folder = output or default_folder()
    folder.mkdir(parents=True, exist_ok=True)  # an unusable folder is reported before the measurement
    ensemble = ensemble_folder(settings, console)
    collect_garbage()  # later collections would delay the receipt of results
    with _Steps(console) as steps:
        passport = measure_machine(settings, ensemble, Effort.of(quick, seconds), rate, steps)
    path, picture = passport.write(folder), write_histogram(passport, folder)
    if as_json:
        print(passport.model_dump_json(indent=2))
    else:
        out = Console()
        out.print(_table(passport))
        out.print(_verdict(passport), highlight=False)
    console.print(f"passport: {path}\nhistogram: {picture}", soft_wrap=True, highlight=False)


class _Steps:
    """Shows the step of the measurement: one line each, and on a terminal how far it is."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._drawn_s = 0.0
        self._step = ""

    def __enter__(self) -> _Steps:
        return self

    def __exit__(self, *_: object) -> None:
        self._clear()

    def begin(self, step: str) -> None:
        """Show that a step begins."""
        self._clear()
        self._step, self._drawn_s = step, time.monotonic()
        self._console.print(step, highlight=False, soft_wrap=True)

    def count(self, done: int, total: int | None) -> None:
        """Show how far the step is; on a terminal only."""
        if not self._console.is_terminal or time.monotonic() - self._drawn_s < _REDRAW_S:
            return
        self._drawn_s = time.monotonic()
        self._console.print(f"  {done} of {total}" if total else f"  {done}", end="\r", highlight=False)

    def _clear(self) -> None:
        if self._console.is_terminal:
            self._console.print(" " * 24, end="\r")


def _table(passport: Passport) -> Table:
    from rich import box
    from rich.table import Table

    title = (
        f"{passport.ensemble.name} {passport.ensemble.version}, {passport.device}, {passport.precision}"
        f"{', quick' if passport.quick else ''}; times in ms"
    )
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("measured", no_wrap=True)
    for heading in ("FOVs", "p50", "p95", "p99", "max", "per s", "late", "lost"):
        table.add_column(heading, justify="right")
    for batch in passport.batches:
        fovs = str(batch.batch_size * batch.latency_ms.count)
        cells = (*_cells(batch.latency_ms), f"{batch.fovs_per_second:.3g}")
        table.add_row(f"engine, batch {batch.batch_size}", fovs, *cells, "", "")
    for stream in passport.streams:
        table.add_section()
        lost = str(stream.dropped + stream.failed)
        cells = (*_cells(stream.latency_ms), f"{stream.sent_hz:.3g}")
        name = "stream" if stream.stacks is None else "stream and stacks"
        table.add_row(name, str(stream.sent), *cells, _late(passport, stream), lost)
        table.add_row("  without engine", "", *_cells(stream.overhead_ms), "", "", "")
        if stream.stacks is not None:
            stacks = stream.stacks
            fovs = str(stacks.succeeded * stacks.fovs_per_stack)
            times = (_ms(stacks.p50_ms), "", "", _ms(stacks.max_ms))
            row = (fovs, *times, f"{stacks.fovs_per_second:.3g}", "", str(stacks.failed))
            table.add_row(f"  stacks of {stacks.fovs_per_stack}", *row)
    return table


def _late(passport: Passport, stream: StreamTimes) -> str:
    return "" if passport.deadline_ms is None else str(stream.late)


def _cells(spread: Spread | None) -> tuple[str, str, str, str]:
    if spread is None:
        return "", "", "", ""
    return _ms(spread.p50), _ms(spread.p95), _ms(spread.p99), _ms(spread.max)


def _ms(time_ms: float | None) -> str:
    if time_ms is None:
        return ""
    return f"{time_ms:.1f}" if time_ms < 100 else f"{time_ms:.0f}"


def _verdict(passport: Passport) -> str:
    alone = passport.streams[0]
    if passport.deadline_ms is None:
        return f"No deadline; {alone.rate_hz:.3g} FOVs per second were streamed, {alone.dropped} dropped."
    verb = "keeps" if passport.deadline_kept else "does not keep"
    return (
        f"At {alone.rate_hz:.3g} FOVs per second this machine {verb} the deadline of "
        f"{passport.deadline_ms:g} ms at p99."
    )
