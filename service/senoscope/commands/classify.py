"""``senoscope classify``: classify files without a server."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from senoscope.commands.options import (
    DeviceOption,
    ModelOption,
    ModelsDirOption,
    PrecisionOption,
    ensemble_folder,
    settings_with,
)

# The engine and OpenCV are imported only after the arguments were checked: mistakes are reported at once.
if TYPE_CHECKING:
    from senoscope.engine import Ensemble
    from senoscope.results.record import Record, ResultMaker
    from senoscope_client.images.reader import OpenStack
    from senoscope_client.models.result import Result


def classify(
    files: Annotated[
        list[Path], typer.Argument(help="TIFF stacks or NPY arrays, or folders of them.", show_default=False)
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON result per line.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print a CSV table.")] = False,
    cam: Annotated[
        Path | None, typer.Option(help="Folder for Grad-CAM overlays, one per FOV and channel.")
    ] = None,
    axes: Annotated[str | None, typer.Option(help="Axes of the files, for example PCYX.")] = None,
    channels: Annotated[
        str | None, typer.Option(help="Channels of the files, in order, for example TPEF,SRS,Transmission.")
    ] = None,
    model: ModelOption = None,
    models_dir: ModelsDirOption = None,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
) -> None:
    """Classify the fields of view of files; a file that cannot be read does not stop the others."""
    if as_json and as_csv:
        raise typer.BadParameter("--json and --csv cannot be combined")

    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress

    from senoscope_client.errors import SenoscopeError

    settings = settings_with(model=model, models_dir=models_dir, device=device, precision=precision)
    messages = Console(stderr=True)
    directory = ensemble_folder(settings, messages)

    from senoscope.engine import Ensemble
    from senoscope.results.record import ResultMaker
    from senoscope.scheduling.active_ensemble import fov_spec_of
    from senoscope_client.images.reader import open_fovs
    from senoscope_client.tables import results_csv

    def notify(colour: str, subject: object, text: object) -> None:
        messages.print(f"[{colour}]{escape(f'{subject}')}[/{colour}]: {escape(f'{text}')}", highlight=False)

    found, failed = _with_folders(files, notify)
    results: list[Result] = []
    names = channels.split(",") if channels else None
    with Ensemble.load(
        directory,
        device=settings.device,
        precision=settings.precision,
        gate=settings.gate_limits,
        threads=settings.threads,
    ) as ensemble:
        for warning in ensemble.warnings:
            notify("yellow", directory.name, warning)
        spec = fov_spec_of(ensemble)
        maker = ResultMaker(ensemble, settings.deadline_ms, linked=False)
        with Progress(console=messages, disable=not messages.is_terminal) as progress:
            overall = progress.add_task("files", total=len(found))
            for path, stem in zip(found, _unique_stems(found), strict=True):
                try:
                    with open_fovs(path, spec, axes=axes, channels=names, name=path.name) as stack:
                        for warning in stack.warnings:
                            notify("yellow", path, warning)
                        task = progress.add_task(path.name, total=len(stack))
                        for record in _classify_stack(ensemble, maker, stack, str(path)):
                            if as_json:
                                print(record.json("grid").decode(), flush=True)
                            else:
                                results.append(record.result)
                            if cam is not None:
                                _write_overlays(record, cam, stem, spec.channels)
                            progress.advance(task)
                except (SenoscopeError, OSError) as error:
                    failed += 1
                    notify("red", path, getattr(error, "strerror", None) or error)
                progress.advance(overall)
    if as_csv:
        sys.stdout.write(results_csv(results))
    elif not as_json:
        _print_table(results)
    if failed:
        raise typer.Exit(1)


def _with_folders(files: list[Path], notify: Callable[[str, object, object], None]) -> tuple[list[Path], int]:
    """Return the files, folders replaced by the files in them, and the number of folders without any."""
    from senoscope_client.images.folders import list_images

    found: list[Path] = []
    empty = 0
    for path in files:
        if not path.is_dir():
            found.append(path)
            continue
        listing = list_images(path)
        found += listing.files
        for text in listing.skipped:
            notify("yellow", path, text)
        if not listing.files:
            empty += 1
            notify("red", path, "the folder has no TIFF or NPY files")
    return found, empty


def _classify_stack(ensemble: Ensemble, maker: ResultMaker, stack: OpenStack, name: str) -> Iterator[Record]:
    """Read and classify one field of view at a time, so that a file may be larger than memory."""
    from senoscope.fov import Fov
    from senoscope.scheduling.active_ensemble import fov_spec_of
    from senoscope_client.models.result import Source

    for n in range(len(stack)):
        pixels = stack.read(n)
        fov = Fov(pixels, Source(kind="file", file=name, frame=n), spec=fov_spec_of(ensemble))
        started_s = time.perf_counter()
        (prediction,) = ensemble.predict(pixels)
        compute_ms = (time.perf_counter() - started_s) * 1e3
        yield maker.make(fov, prediction, ensemble.model_range, started_s, compute_ms)


def _unique_stems(files: list[Path]) -> list[str]:
    """Return a unique name per file for its overlays: the stem, with a number where a stem repeats."""
    stems: list[str] = []
    for path in files:
        stem, n = path.stem, 1
        while stem in stems:
            n += 1
            stem = f"{path.stem}-{n}"
        stems.append(stem)
    return stems


def _write_overlays(record: Record, folder: Path, stem: str, channels: tuple[str, ...]) -> None:
    from senoscope.results.pictures import overlay_png, scale_channel

    folder.mkdir(parents=True, exist_ok=True)
    source, bounds = record.result.source, record.result.normalization
    gradcam = record.prediction.map()
    for c, channel in enumerate(channels):
        scaled = scale_channel(record.fov.pixels[c], bounds.low[c], bounds.high[c])
        name = f"{stem}_{source.frame:04d}_{channel}.png"
        (folder / name).write_bytes(overlay_png(gradcam, scaled))


def _print_table(results: list[Result]) -> None:
    from rich.console import Console
    from rich.table import Table

    from senoscope.commands.demo_view import bar
    from senoscope_client.tables import flag_words

    table = Table()
    for heading in ("file", "FOV", "label", "probability", "agreement", "flags"):
        table.add_column(heading)
    for r in results:
        colour = "magenta" if r.probability > 0.5 else "cyan"
        table.add_row(
            r.source.file,
            str(r.source.frame),
            f"[{colour}]{r.label}[/{colour}]",
            f"{bar(r.probability, 12)} {r.probability:.3f}",
            f"{r.uncertainty.agreement:.0%}",
            flag_words(r.flags),
        )
    Console().print(table)
