"""Options of commands that read a labelled data set without a configuration file."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from senoscope_training.commands.shared import separated

if TYPE_CHECKING:
    from senoscope_training.config import DataConfig


class Accept(StrEnum):
    """Kinds of findings that can be accepted."""

    per_channel = "per-channel"
    zero_level = "zero-level"
    channel_names = "channel-names"
    types = "types"


Fit = Literal["refuse", "pad", "resize"]
FitOption = Annotated[Fit, typer.Option("--fit", help="Treatment of FOVs of another size.")]
GreyOption = Annotated[bool, typer.Option("--grey", help="Repeat grey images in all channels.")]
PerChannelOption = Annotated[
    str | None,
    typer.Option(
        "--per-channel",
        metavar="PART,PART,...",
        help="For data sets with one file per channel: the part of the file names that identifies each "
        "channel, in the ensemble's order.",
    ),
]
AcceptOption = Annotated[
    list[Accept] | None,
    typer.Option(
        "--accept",
        help="Finding in the data set that is not a mistake; repeat the option for more. See data.accept.",
    ),
]


def data_config(
    folder: Path, fit: Fit, grey: bool, per_channel: str | None, accept: list[Accept]
) -> DataConfig:
    """Return the configuration of a data set from the options; raise ConfigError if they are invalid."""
    from pydantic import ValidationError

    from senoscope_training.config import ConfigError, DataConfig

    try:
        return DataConfig(
            path=folder,
            fit=fit,
            grey="repeat" if grey else "refuse",
            per_channel=separated(per_channel),
            accept=tuple(accept),
        )
    except ValidationError as error:
        raise ConfigError("; ".join(fault["msg"] for fault in error.errors(include_url=False))) from error


def as_options(message: str) -> str:
    """Replace keys of the configuration in a message by options of this command, which has no configuration.

    The size is always that of the ensemble.
    """
    from senoscope_training.dataset.pixels import SIZE_REMEDY

    message = message.replace(SIZE_REMEDY, "Pass --fit pad or --fit resize, or crop the file")
    message = re.sub(
        r"data\.per_channel: \[([^\]]*)\]", lambda m: f"--per-channel {m[1].replace(', ', ',')}", message
    )
    message = re.sub(r"data\.accept: \[([^\]]*)\]", r"--accept \1", message)
    message = message.replace("data.grey: repeat", "--grey")
    return message.replace("Set --", "Pass --").replace("set --", "pass --")
