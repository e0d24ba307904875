"""Conversion of a Keras backbone to an ONNX graph with tf2onnx."""

from __future__ import annotations

import logging
import re
from typing import Any

import onnx

OPSET = 17
IR_VERSION = 8
SOURCE, SINK = "preprocessed", "activation"
_NUMBER = re.compile(r"__\d+(?=(:\d+)?$)")

# The optimiser passes of tf2onnx that are needed; the other dozen change nothing in these networks.
_PASSES = ("optimize_transpose", "fold_constants", "remove_identity", "remove_back_to_back")


def convert_backbone(backbone: Any) -> onnx.ModelProto:
    """Convert a backbone in inference mode.

    ``tf2onnx.convert.from_function`` gives the same graph, but copies the whole graph with its weights
    before each optimiser pass, so that a failed pass can be undone; for the larger networks this takes
    minutes. Here the same steps are called without the copies, and a failed pass is an error.

    The input ``preprocessed`` of the result is [N, C, H, W], and its output ``activation`` [N, F, h, w].
    """
    import tensorflow as tf
    from tf2onnx import optimizer, tf_loader
    from tf2onnx.tfonnx import process_tf_graph

    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    signature = [tf.TensorSpec(backbone.input.shape, tf.float32, name=SOURCE)]
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
    return _renumbered(converted.make_model(backbone.name))


def _renumbered(model: onnx.ModelProto) -> onnx.ModelProto:
    """Renumber names in the order of their first use, so that the same network gives the same file.

    tf2onnx numbers them consecutively within a process, and in the order of sets.
    """
    graph = model.graph
    names: dict[str, str] = {}
    for node in graph.node:
        for name in (*node.input, *node.output):
            if name not in names:
                names[name] = _NUMBER.sub(f"__{len(names) + 1}", name)
    for node in graph.node:
        node.input[:] = [names[name] for name in node.input]
        node.output[:] = [names[name] for name in node.output]
        node.name = ""
    del graph.value_info[:]
    places = {name: place for place, name in enumerate(names)}
    graph.initializer.sort(key=lambda tensor: places[tensor.name])
    for tensor in graph.initializer:
        tensor.name = names[tensor.name]
    return model
