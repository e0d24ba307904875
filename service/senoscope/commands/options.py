"""Options that several commands have, and what follows from them: the settings, and the ensemble."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from senoscope.engine.devices import Device
from senoscope.engine.precision import PrecisionChoice

if TYPE_CHECKING:
    from rich.console import Console

    from senoscope.settings import Settings

ModelOption = Annotated[
    str | None, typer.Option("--model", help="Ensemble: a name in --models-dir, or a folder.")
]
ModelsDirOption = Annotated[Path | None, typer.Option("--models-dir", help="Folder of the named ensembles.")]
DeviceOption = Annotated[
    Device | None, typer.Option("--device", help="auto uses CUDA if there is a GPU that works, else the CPU.")
]
PrecisionOption = Annotated[
    PrecisionChoice | None,
    typer.Option(
        "--precision",
        help="auto uses the fastest of fp16, tf32 and fp32 that passes the gate on this machine.",
    ),
]


def settings_with(**options: Any) -> Settings:
    """Return the settings with the options that were given; the others have their variables or defaults."""
    from senoscope.settings import Settings

    return Settings(**{name: value for name, value in options.items() if value is not None})


def ensemble_folder(settings: Settings, console: Console) -> Path:
    """Return the folder of the ensemble that the settings select; builds the starter if it is missing.

    Parameters
    ----------
    console : Console
        Shows the notice and the progress of a build.

    Raises
    ------
    EnsembleError
        If there is no such ensemble, or the starter cannot be built.
    """
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    from senoscope.starter.locate import locate_ensemble

    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as view:
        task = view.add_task("starter ensemble", total=None, visible=False)
        return locate_ensemble(
            settings.model,
            settings.models_dir,
            lambda line: console.print(line, soft_wrap=True),
            lambda done, total: view.update(task, completed=done, total=total, visible=True),
        )
