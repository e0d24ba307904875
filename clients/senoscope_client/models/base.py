"""The base class of every data model that crosses a process boundary."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class StrictModel(BaseModel):
    """A frozen record that rejects unknown keys, so that a misspelt field is an error and not ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class OpenModel(BaseModel):
    """A frozen record that ignores unknown keys, so that an older client can read a newer service."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)
