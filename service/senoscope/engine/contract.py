"""What the graph of a network must be like: its inputs and outputs, compared with the manifest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime as ort

from senoscope.engine.errors import EnsembleError
from senoscope.engine.executor import INPUT_NAMES, OUTPUT_NAMES, NetworkFile, NetworkOutput

_FLOAT = "tensor(float)"
_BATCH = "N"


def check_graph(session: ort.InferenceSession, network: NetworkFile) -> None:
    """Compare what a graph declares with what the manifest says.

    Raises
    ------
    EnsembleError
        Where they differ; sizes that the graph leaves open are checked when it has run.
    """
    inputs, outputs = session.get_inputs(), session.get_outputs()
    names = tuple(entry.name for entry in inputs), tuple(entry.name for entry in outputs)
    if names != (INPUT_NAMES, OUTPUT_NAMES):
        raise EnsembleError(
            network.path,
            f"has inputs {names[0]} and outputs {names[1]}; expected {INPUT_NAMES} and {OUTPUT_NAMES}",
        )
    channels = network.input_shape[0]
    expected = [(_BATCH, *network.input_shape), (channels,), (channels,), *_output_shapes(network)]
    for entry, wanted in zip([*inputs, *outputs], expected, strict=True):
        if entry.type != _FLOAT:
            raise EnsembleError(network.path, f"{entry.name} is {entry.type}; it must be {_FLOAT}")
        if not _agree(entry.shape, wanted):
            raise EnsembleError(
                network.path,
                f"{entry.name} has shape {_told(entry.shape)}; ensemble.json says {_told(wanted)}",
            )


def check_outputs(outputs: Sequence[NetworkOutput], networks: Sequence[NetworkFile], count: int) -> None:
    """Compare what networks answered to so many fields of view with what the manifest says.

    Raises
    ------
    EnsembleError
    """
    for output, network in zip(outputs, networks, strict=True):
        for name, array, (_, *rest) in zip(OUTPUT_NAMES, output, _output_shapes(network), strict=True):
            if array.shape != (count, *rest):
                raise EnsembleError(
                    network.path,
                    f"{name} has shape {_told(array.shape)}; ensemble.json says {_told((count, *rest))}",
                )
        problem = problem_of_values(output)
        if problem is not None:
            raise EnsembleError(network.path, problem)


def mean_nothing(output: NetworkOutput) -> bool:
    """Whether an answer is none: `problem_of_values` tells why. Quick, since every frame's is asked."""
    probability = output.probability
    total = output.logit.sum() + output.gradcam.sum() + output.features.sum()
    return not (np.isfinite(total) and probability.min() >= 0 and probability.max() <= 1)


def problem_of_values(output: NetworkOutput) -> str | None:
    """Why an answer means nothing, or None if it is one."""
    probability = output.probability
    if not ((probability >= 0) & (probability <= 1)).all():  # which NaN is not
        return "probability is not between 0 and 1"
    if not np.isfinite(output.logit).all():
        return "logit is not finite"
    # Sums of infinities or NaN are not finite either, and a sum takes less time than a mask.
    if not np.isfinite(output.gradcam.sum()) or output.gradcam.min(initial=0.0) < 0:
        return "gradcam is negative or not finite"
    if not np.isfinite(output.features.sum()):
        return "features are not finite"
    return None


def _output_shapes(network: NetworkFile) -> tuple[tuple[Any, ...], ...]:
    return (_BATCH,), (_BATCH,), (_BATCH, *network.gradcam_grid), (_BATCH, network.feature_size)


def _agree(shape: Sequence[Any], wanted: Sequence[Any]) -> bool:
    """Whether sizes are equal where both are numbers; the number of fields of view must be left open."""
    if len(shape) != len(wanted):
        return False
    return all(
        not isinstance(size, int) or (size == want and want != _BATCH)
        for size, want in zip(shape, wanted, strict=True)
    )


def _told(shape: Sequence[Any]) -> str:
    return f"[{', '.join('?' if size is None else str(size)[:20] for size in shape)}]"
