"""From a Keras backbone to a plain ONNX graph, by way of tf2onnx."""

from __future__ import annotations

import logging
from typing import Any

import onnx

OPSET = 17
IR_VERSION = 8
SOURCE, SINK = "preprocessed", "activation"

# What tf2onnx' optimiser has to do here; the rest of its dozen passes find nothing in these networks.
_PASSES = ("optimize_transpose", "fold_constants", "remove_identity", "remove_back_to_back")


def convert_backbone(backbone: Any, height: int, width: int) -> onnx.ModelProto:
    """Convert a backbone, in inference mode.

    ``tf2onnx.convert.from_function`` does the same, but copies the whole graph, weights and all, before
    each of its optimiser's passes, dozens of times: minutes for the larger networks. So its steps are
    taken one by one here, without the copies, which exist only to undo a failed pass; here a failed pass
    fails the export.

    Parameters
    ----------
    backbone : keras.Model
        Takes [N, height, width, 3].

    Returns
    -------
    onnx.ModelProto
        Takes ``preprocessed`` [N, 3, height, width], returns ``activation`` [N, C, h, w].
    """
    import tensorflow as tf
    from tf2onnx import optimizer, tf_loader
    from tf2onnx.tfonnx import process_tf_graph

    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    signature = [tf.TensorSpec([None, height, width, 3], tf.float32, name=SOURCE)]
    function = tf.function(lambda x: backbone(x, training=False), input_signature=signature)
    concrete = function.get_concrete_function()
    inputs = [tensor.name for tensor in concrete.inputs if tensor.dtype != tf.resource]
    outputs = [tensor.name for tensor in concrete.outputs]
    if len(inputs) != 1 or len(outputs) != 1:
        raise ValueError(f"{backbone.name}: expected one input and one output, got {inputs} and {outputs}")
    with tf.device("/cpu:0"):
        frozen = tf_loader.from_function(concrete, inputs, outputs)
        with tf.Graph().as_default() as graph:
            tf.import_graph_def(frozen, name="")
            converted = process_tf_graph(
                graph,
                opset=OPSET,
                input_names=inputs,
                output_names=outputs,
                inputs_as_nchw=[SOURCE],
                outputs_as_nchw=[SINK],
                tensors_to_rename={inputs[0]: SOURCE, outputs[0]: SINK},
            )
            known = optimizer._get_optimizers()
            passes = type(known)((name, known[name]) for name in _PASSES)
            converted = optimizer.optimize_graph(converted, catch_errors=False, optimizers=passes)
    return converted.make_model(backbone.name)
