"""Checks of a network's graph: its inputs and outputs must match the manifest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from senoscope.engine.errors import EnsembleError
from senoscope.engine.executor import INPUT_NAMES, OUTPUT_NAMES, NetworkFile, NetworkOutput

_FLOAT = "tensor(float)"
_BATCH = "N"


class Port(NamedTuple):
    """A declared input or output of a graph, like those of a session of ONNX Runtime."""

    name: str
    type: str
    shape: list[Any]
    """A size that is not fixed is a name or None."""


def check_graph(inputs: Sequence[Port], outputs: Sequence[Port], network: NetworkFile) -> None:
    """Compare the declared inputs and outputs of a graph with the manifest.

    Raises
    ------
    EnsembleError
        If they differ. Sizes that the graph does not declare are checked after a run.
    """
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
        if not _shapes_match(entry.shape, wanted):
            raise EnsembleError(
                network.path,
                f"{entry.name} has shape {_format_shape(entry.shape)}; "
                f"ensemble.json says {_format_shape(wanted)}",
            )


def check_outputs(outputs: Sequence[NetworkOutput], networks: Sequence[NetworkFile], count: int) -> None:
    """Raise EnsembleError if outputs for a batch of ``count`` fields of view do not match the manifest."""
    for output, network in zip(outputs, networks, strict=True):
        for name, array, (_, *rest) in zip(OUTPUT_NAMES, output, _output_shapes(network), strict=True):
            if array.shape != (count, *rest):
                raise EnsembleError(
                    network.path,
                    f"{name} has shape {_format_shape(array.shape)}; "
                    f"ensemble.json says {_format_shape((count, *rest))}",
                )
        problem = problem_of_values(output)
        if problem is not None:
            raise EnsembleError(network.path, problem)


def check_batch(
    alone: Sequence[Sequence[NetworkOutput]],
    batch: Sequence[NetworkOutput],
    networks: Sequence[NetworkFile],
    tolerance: float,
    gradcam_tolerance: float,
) -> None:
    """Compare the outputs for fields of view in one batch with those for each one alone.

    Parameters
    ----------
    alone : sequence of outputs
        Outputs of all networks for each field of view of the batch.
    tolerance : float
        Largest deviation of a probability.
    gradcam_tolerance : float
        Largest deviation of a Grad-CAM map, as a fraction of its maximum.

    Raises
    ------
    EnsembleError
        If they differ: the graph mixes the fields of view of a batch, or omits some.
    """
    for k, (network, together) in enumerate(zip(networks, batch, strict=True)):
        problem = _problem_of_batch([one[k] for one in alone], together, tolerance, gradcam_tolerance)
        if problem is not None:
            raise EnsembleError(
                network.path,
                f"gives different outputs in a batch: {problem}. The output for a field of view must not "
                "depend on the others of its batch; was a batch normalization exported in training mode?",
            )


def _problem_of_batch(
    alone: Sequence[NetworkOutput], together: NetworkOutput, tolerance: float, gradcam_tolerance: float
) -> str | None:
    if not has_count(together, len(alone)):
        return "outputs are missing for some fields of view"
    for n, one in enumerate(alone):
        apart = abs(float(together.probability[n]) - float(one.probability[0]))
        if not apart <= tolerance:
            return f"its probability differs by {apart:.3g}"
        peak = float(one.gradcam.max(initial=0))
        apart = float(np.abs(together.gradcam[n] - one.gradcam[0]).max(initial=0))
        if not apart <= gradcam_tolerance * peak + np.finfo(np.float32).tiny:
            return f"its Grad-CAM map differs by {apart:.3g}"
    return None


def has_count(output: NetworkOutput, count: int) -> bool:
    """Return whether the output is for a batch of ``count`` fields of view."""
    return all(array.shape[:1] == (count,) for array in output)


def has_invalid_values(output: NetworkOutput) -> bool:
    """Return whether values are invalid, fast enough for every frame; `problem_of_values` returns why."""
    probability = output.probability
    total = output.logit.sum() + output.gradcam.sum() + output.features.sum()
    return not (np.isfinite(total) and probability.min() >= 0 and probability.max() <= 1)


def problem_of_values(output: NetworkOutput) -> str | None:
    """Return why the values of an output are invalid, or None."""
    probability = output.probability
    if not ((probability >= 0) & (probability <= 1)).all():  # also false for NaN
        return "probability is not between 0 and 1"
    if not np.isfinite(output.logit).all():
        return "logit is not finite"
    # A sum with infinities or NaN is not finite, and takes less time than a mask.
    if not np.isfinite(output.gradcam.sum()) or output.gradcam.min(initial=0.0) < 0:
        return "gradcam is negative or not finite"
    if not np.isfinite(output.features.sum()):
        return "features are not finite"
    return None


def _output_shapes(network: NetworkFile) -> tuple[tuple[Any, ...], ...]:
    return (_BATCH,), (_BATCH,), (_BATCH, *network.gradcam_grid), (_BATCH, network.feature_size)


def _shapes_match(shape: Sequence[Any], wanted: Sequence[Any]) -> bool:
    """Return whether declared sizes are equal; the number of fields of view must not be fixed."""
    if len(shape) != len(wanted):
        return False
    return all(
        not isinstance(size, int) or (size == want and want != _BATCH)
        for size, want in zip(shape, wanted, strict=True)
    )


def _format_shape(shape: Sequence[Any]) -> str:
    return f"[{', '.join('?' if size is None else str(size)[:20] for size in shape)}]"
