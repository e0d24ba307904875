"""Options that several commands have, and the settings that they change."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from senoscope.engine.devices import Device

if TYPE_CHECKING:
    from senoscope.settings import Settings

ModelOption = Annotated[
    str | None, typer.Option("--model", help="Ensemble: a name in --models-dir, or a folder.")
]
ModelsDirOption = Annotated[Path | None, typer.Option("--models-dir", help="Folder of the named ensembles.")]
DeviceOption = Annotated[
    Device | None, typer.Option("--device", help="auto uses a GPU if there is one that works, else the CPU.")
]


def settings_with(**options: Any) -> Settings:
    """Return the settings with the options that were given; the others have their variables or defaults."""
    from senoscope.settings import Settings

    return Settings(**{name: value for name, value in options.items() if value is not None})
