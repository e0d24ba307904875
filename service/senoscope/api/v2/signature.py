"""The inputs and outputs of the loaded ensemble, in the terms of the Open Inference Protocol."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from senoscope.engine import Ensemble
from senoscope.results.record import Record
from senoscope.scheduling.active_ensemble import ActiveEnsemble
from senoscope_client.errors import NotReady

INPUT = "image"
DATATYPES: dict[str, np.dtype[Any]] = {
    "FP32": np.dtype("<f4"),
    "UINT16": np.dtype("<u2"),
    "UINT8": np.dtype("u1"),
}
"""Datatypes of the input; the first is the one that the networks compute with."""

_PLATFORM = "onnxruntime_onnx"


@dataclass(frozen=True)
class Output:
    """A tensor that clients can request.

    Attributes
    ----------
    shape : tuple of int
        Of the values of one field of view; the tensor is [N, *shape].
    read : callable
        Returns the values of a record: float or array for FP32, str for BYTES.
    default : bool
        Whether the output is sent to clients that name no outputs.
    """

    name: str
    datatype: Literal["FP32", "BYTES"]
    shape: tuple[int, ...]
    read: Callable[[Record], Any]
    default: bool = True

    def values(self, records: Sequence[Record]) -> npt.NDArray[Any] | list[str]:
        """Return the tensor: a float32 array [N, *shape], or N strings."""
        if self.datatype == "BYTES":
            return [self.read(record) for record in records]
        array = np.empty((len(records), *self.shape), "<f4")
        for n, record in enumerate(records):
            array[n] = self.read(record)
        return array


class Signature:
    """The inputs and outputs of an ensemble.

    Attributes
    ----------
    name, version : str
        Of the ensemble.
    spec : FovSpec
        Of one field of view.
    outputs : dict of str to Output
        By name, in the order of the metadata.
    """

    def __init__(self, active: ActiveEnsemble, max_fovs: int) -> None:
        ensemble = active.ensemble
        self.name = ensemble.manifest.name
        self.version = ensemble.manifest.version
        self.spec = active.spec
        self.outputs = {output.name: output for output in _outputs(ensemble)}
        self._ensemble = ensemble
        self._model = active.maker.model
        self._max_fovs = max_fovs

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, rows and columns of a field of view."""
        return len(self.spec.channels), self.spec.height, self.spec.width

    def require_same(self, records: Sequence[Record]) -> None:
        """Raise if an ensemble that was loaded while the request waited computed the records.

        Raises
        ------
        NotReady
        """
        if any(record.result.model != self._model for record in records):
            raise NotReady(
                "another ensemble, or precision, was loaded while this request waited; send it again"
            )

    def metadata(self) -> dict[str, Any]:
        """Return the protocol's model metadata."""
        return {
            "name": self.name,
            "versions": [self.version],
            "platform": _PLATFORM,
            "inputs": [{"name": INPUT, "datatype": next(iter(DATATYPES)), "shape": [-1, *self.shape]}],
            "outputs": [
                {"name": output.name, "datatype": output.datatype, "shape": [-1, *output.shape]}
                for output in self.outputs.values()
            ],
        }

    def config(self) -> dict[str, Any]:
        """Return the model configuration of Triton's extension, as far as it applies to an ensemble."""
        named = {
            "networks": self._ensemble.names,
            "classes": self._ensemble.manifest.ensemble.classes,
            "channels": self.spec.channels,
            "datatypes": DATATYPES,
        }
        return {
            "name": self.name,
            "platform": _PLATFORM,
            "backend": "onnxruntime",
            "version_policy": {"latest": {"num_versions": 1}},
            "max_batch_size": self._max_fovs,
            "input": [
                {
                    "name": INPUT,
                    "data_type": f"TYPE_{next(iter(DATATYPES))}",
                    "format": "FORMAT_NCHW",
                    "dims": list(self.shape),
                }
            ],
            "output": [
                {
                    "name": output.name,
                    "data_type": "TYPE_STRING" if output.datatype == "BYTES" else f"TYPE_{output.datatype}",
                    "dims": list(output.shape),  # without the batch, like all dims here
                }
                for output in self.outputs.values()
            ],
            "parameters": {key: {"string_value": ",".join(values)} for key, values in named.items()},
        }


def _outputs(ensemble: Ensemble) -> list[Output]:
    spec = ensemble.manifest.input
    networks = ensemble.manifest.networks
    return [
        Output("probability", "FP32", (), lambda record: record.result.probability),
        Output("label", "BYTES", (), lambda record: record.result.label),
        Output("network_probabilities", "FP32", (len(networks),), lambda r: r.prediction.probabilities),
        *(
            Output(f"gradcam_{network.name}", "FP32", network.gradcam_grid, partial(_grid, k))
            for k, network in enumerate(networks)
        ),
        Output(
            "gradcam",
            "FP32",
            (spec.height, spec.width),
            lambda record: record.prediction.map(),
            default=False,
        ),
    ]


def _grid(k: int, record: Record) -> npt.NDArray[np.float32]:
    return record.prediction.gradcams[k]
