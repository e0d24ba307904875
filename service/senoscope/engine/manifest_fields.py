"""Types of the fields of ``ensemble.json``: texts, names and numbers, each with its limits."""

from __future__ import annotations

import struct
from pathlib import PurePosixPath
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


class ManifestModel(BaseModel):
    """Base of all models of the manifest: immutable, without unknown fields, and with finite numbers only."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _require_plain_name(name: str) -> str:
    if PurePosixPath(name).name != name or "\\" in name or name in {"", ".", ".."}:
        raise ValueError(f"{name!r} must be a plain file name, without a folder")
    return name


FileName = Annotated[str, Field(max_length=255), AfterValidator(_require_plain_name)]
# Names are used in URLs, headers, and names of tensors and metrics.
Name = Annotated[str, Field(max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Version = Annotated[str, Field(max_length=64, pattern=r"^[A-Za-z0-9]([A-Za-z0-9._+() -]*[A-Za-z0-9.)])?$")]
# Labels and channels are columns of tables: no line breaks, no tabs.
_ONE_LINE = r"^[^\t\n\r\u2028\u2029]+$"
Label = Annotated[str, Field(min_length=1, max_length=255, pattern=_ONE_LINE)]
ChannelName = Annotated[str, Field(min_length=1, max_length=64, pattern=_ONE_LINE)]
# Limited because every result of an ensemble that is not for science contains its intended use.
Text = Annotated[str, Field(max_length=2000)]
Title = Annotated[str, Field(max_length=200)]
Unit = Annotated[str, Field(max_length=64)]
Extent = Annotated[int, Field(ge=1, le=65536)]
Probability = Annotated[float, Field(ge=0, le=1)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def to_single_precision(value: float) -> float:
    """Return the nearest number of single precision.

    Raises
    ------
    ValueError
        If the value exceeds its range.
    """
    try:
        return float(struct.unpack("<f", struct.pack("<f", value))[0])
    except OverflowError:
        raise ValueError(f"{value:g} exceeds the range of single precision") from None
