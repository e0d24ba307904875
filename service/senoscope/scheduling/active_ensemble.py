"""The ensemble in use, with everything that is derived from it once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from senoscope.engine import Ensemble
from senoscope.results.record import ResultMaker
from senoscope_client.images.reader import FovSpec


@dataclass(frozen=True, eq=False)
class ActiveEnsemble:
    """An ensemble in use, and what changes together with it."""

    ensemble: Ensemble
    maker: ResultMaker  # makes its results
    spec: FovSpec  # the channels and the size that it takes

    @classmethod
    def of(cls, ensemble: Ensemble, deadline_ms: float) -> ActiveEnsemble:
        """Derive what a service needs of an ensemble."""
        return cls(ensemble, ResultMaker(ensemble, deadline_ms, linked=True), fov_spec_of(ensemble))


def facts_for_log(ensemble: Ensemble) -> dict[str, Any]:
    """Return how an ensemble is computed, short enough for a line of the log."""
    facts: dict[str, Any] = {**ensemble.describe()}
    del facts["gate"]
    return facts | {"rejected": [one.text(ensemble.precision) for one in ensemble.rejected]}


def fov_spec_of(ensemble: Ensemble) -> FovSpec:
    """Return what an ensemble takes, as the image reader describes it."""
    spec = ensemble.manifest.input
    return FovSpec(channels=spec.channel_names, height=spec.height, width=spec.width)
