"""The command ``senoscope-train import-zenodo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from senoscope_training.commands.shared import exit_with_error


def import_zenodo(
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder to create.", show_default=False)],
    sources: Annotated[
        list[Path] | None,
        typer.Argument(metavar="SOURCE...", help="Pickles of the record, or folders of them."),
    ] = None,
    download: Annotated[
        bool, typer.Option("--download", help="Download the record from Zenodo first, into OUT.download.")
    ] = False,
    trust: Annotated[
        bool,
        typer.Option(
            "--trust",
            help="Accept pickles other than the published ones; without it, their MD5 sums are compared with "
            "those that Zenodo lists.",
        ),
    ] = False,
) -> None:
    """Convert the pickled arrays of the paper's Zenodo record into a data set folder.

    Only the published files are read, unless --trust is given. Nothing in a pickle is executed; one that
    contains anything but arrays is refused.
    """
    from senoscope_training.dataset.model import DataSetError
    from senoscope_training.dataset.zenodo import import_pickles
    from senoscope_training.workers.progress import TextReporter

    if not sources and not download:
        exit_with_error("pass the pickles, or --download to download them from Zenodo", 2)
    try:
        if out.exists():
            raise DataSetError(f"{out} already exists; choose another folder, or delete it first")
        paths = list(sources or ())
        if download:
            paths.append(_download(out.with_name(f"{out.name}.download")))
        with TextReporter(()) as report:
            count = import_pickles(paths, out, trust=trust, report=report)
    except DataSetError as error:
        exit_with_error(str(error))
    except KeyboardInterrupt:
        exit_with_error("interrupted; no data set was created", 130)
    typer.echo(f"{out}: {count} fields of view; check them with `senoscope-train check {out}`")


def _download(folder: Path) -> Path:
    from rich.console import Console
    from rich.progress import DownloadColumn, Progress, TaskID, TimeRemainingColumn, TransferSpeedColumn

    from senoscope_training.dataset.download import download_record

    tasks: dict[str, TaskID] = {}
    columns = (DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress("{task.description}", *columns, console=Console(stderr=True)) as progress:

        def step(name: str, received: int, size: int) -> None:
            if name not in tasks:
                tasks[name] = progress.add_task(name, total=size)
            progress.update(tasks[name], completed=received)

        download_record(folder, step)
    return folder
