"""The ensemble of a command; the starter ensemble is built, with a progress bar, if it is missing."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from senoscope.settings import Settings
from senoscope.starter.locate import locate_ensemble


def ensemble_folder(settings: Settings, console: Console) -> Path:
    """Return the folder of the ensemble that the settings select.

    Parameters
    ----------
    console : Console
        Shows the notice and the progress of a build of the starter ensemble.

    Raises
    ------
    EnsembleError
        If there is no such ensemble, or the starter cannot be built.
    """
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as view:
        task = view.add_task("starter ensemble", total=None, visible=False)
        return locate_ensemble(
            settings.model,
            settings.models_dir,
            lambda line: console.print(line, soft_wrap=True),
            lambda done, total: view.update(task, completed=done, total=total, visible=True),
        )
