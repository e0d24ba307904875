"""Correction of the head for the mean error of the features in a lower precision.

Rounded weights shift the mean of the pooled features. The head is small and stays in fp32, so that the shift
of the inputs of its hidden units, measured on calibration fields of view, can be removed by their biases.
Networks differ in whether the correction helps, so it is decided by measurement.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from senoscope_training.networks.head import B1, W1
from senoscope_training.variants.half import copy_of

Float32 = npt.NDArray[np.float32]


def correct_head(model: onnx.ModelProto, fp32: Float32, found: Float32) -> onnx.ModelProto | None:
    """Return a network whose head is corrected, or None if it has no head of this package.

    Parameters
    ----------
    fp32, found : float32 arrays [N, F]
        Features of calibration fields of view in fp32, and as computed by ``model``.
    """
    corrected = copy_of(model)
    tensors = {tensor.name: tensor for tensor in corrected.graph.initializer}
    if W1 not in tensors or B1 not in tensors:
        return None
    error = (fp32.astype(np.float64) - found).mean(axis=0) @ numpy_helper.to_array(tensors[W1])
    bias = numpy_helper.to_array(tensors[B1]) + error
    tensors[B1].CopyFrom(numpy_helper.from_array(bias.astype(np.float32), B1))
    return corrected
