"""The command ``senoscope-train import-zenodo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from senoscope_training.commands.shared import exit_with_error


def import_zenodo(
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder to make.", show_default=False)],
    sources: Annotated[
        list[Path] | None,
        typer.Argument(metavar="SOURCE...", help="Pickles of the record, or folders of them."),
    ] = None,
    download: Annotated[
        bool, typer.Option("--download", help="Fetch the record from Zenodo first, into OUT.download.")
    ] = False,
) -> None:
    """Turn the pickled arrays of the paper's Zenodo record into a data set folder.

    Pickles are read without executing them; one that holds more than arrays is refused.
    """
    from senoscope_training.dataset.model import DataSetError
    from senoscope_training.dataset.zenodo import import_pickles
    from senoscope_training.workers.progress import TextReporter

    if not sources and not download:
        exit_with_error("name the pickles, or pass --download to fetch them from Zenodo", 2)
    try:
        if out.exists():
            raise DataSetError(f"{out} is there already; name another folder, or delete it first")
        paths = list(sources or ())
        if download:
            paths.append(_download(out.with_name(f"{out.name}.download")))
        with TextReporter(()) as report:
            count = import_pickles(paths, out, report=report)
    except DataSetError as error:
        exit_with_error(str(error))
    except KeyboardInterrupt:
        exit_with_error("interrupted; no data set was made", 130)
    typer.echo(f"{out}: {count} fields of view; look at them with `senoscope-train check {out}`")


def _download(folder: Path) -> Path:
    from rich.console import Console
    from rich.progress import (
        DownloadColumn,
        Progress,
        TaskID,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    from senoscope_training.dataset.download import download_record

    tasks: dict[str, TaskID] = {}
    columns = (
        TextColumn("{task.description}"),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:

        def step(name: str, there: int, size: int) -> None:
            if name not in tasks:
                tasks[name] = progress.add_task(name, total=size)
            progress.update(tasks[name], completed=there)

        download_record(folder, step)
    return folder
