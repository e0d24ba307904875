"""Options that several commands have, and the way in which commands report an error."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from senoscope.engine.precision import FilePrecision

ModelsDir = Annotated[
    Path | None,
    typer.Option(
        envvar="SENOSCOPE_MODELS_DIR",
        help="Folder of the ensembles.  [default: models/ of the clone, else the user's data folder]",
    ),
]
JsonProgress = Annotated[
    bool, typer.Option("--json-progress", help="Print progress as JSON lines on stdout, for programs.")
]


def separated(names: str | None) -> tuple[str, ...]:
    """Return the names in an option that takes several, separated by commas."""
    return () if names is None else tuple(name.strip() for name in names.split(","))


def chosen_precisions(text: str) -> tuple[FilePrecision, ...]:
    """Return the precisions in an option; ``none`` is none."""
    names = () if text.strip() == "none" else separated(text)
    chosen: list[FilePrecision] = []
    for name in names:
        if name not in ("fp16", "int8"):
            raise typer.BadParameter(
                f"--variants takes fp16, int8, both separated by a comma, or none; got {name!r}"
            )
        if name not in chosen:
            chosen.append("fp16" if name == "fp16" else "int8")
    return tuple(chosen)


def exit_with_error(message: str, code: int = 1) -> NoReturn:
    """Print an error on stderr and exit with a status."""
    print(f"senoscope-train: {message}", file=sys.stderr)
    raise typer.Exit(code)
