"""An ensemble at work, with all that is derived from it once."""

from __future__ import annotations

from dataclasses import dataclass

from senoscope.engine import Ensemble
from senoscope.results.record import ResultMaker
from senoscope_client.images.reader import FovSpec


@dataclass(frozen=True, eq=False)
class Loaded:
    """What must change together when another ensemble takes over.

    Attributes
    ----------
    ensemble : Ensemble
    maker : ResultMaker
        Makes its results.
    spec : FovSpec
        What it takes.
    """

    ensemble: Ensemble
    maker: ResultMaker
    spec: FovSpec

    @classmethod
    def of(cls, ensemble: Ensemble, deadline_ms: float) -> Loaded:
        """Put an ensemble to work in a service."""
        return cls(ensemble, ResultMaker(ensemble, deadline_ms, linked=True), fov_spec_of(ensemble))


def fov_spec_of(ensemble: Ensemble) -> FovSpec:
    """What an ensemble takes, in the image reader's terms."""
    spec = ensemble.manifest.input
    return FovSpec(channels=spec.channel_names, height=spec.height, width=spec.width)
