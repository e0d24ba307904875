"""The span of a network's graph that a variant computes in lower precision: its backbone."""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from senoscope_training.export.simplify import Graph
from senoscope_training.variants.errors import VariantError

_POOLING = ("GlobalMaxPool", "ReduceMax")


@dataclass(frozen=True)
class Span:
    """Nodes from the first convolutions to the activation that is pooled into the features.

    Attributes
    ----------
    nodes : list of NodeProto
        In the order of the graph.
    entering, leaving : tuple of str
        Tensors that the span takes from nodes before it, and those of its outputs that others use.
    """

    nodes: list[onnx.NodeProto]
    entering: tuple[str, ...]
    leaving: tuple[str, ...]

    @property
    def convolutions(self) -> list[onnx.NodeProto]:
        """The convolutions in it."""
        return [node for node in self.nodes if node.op_type == "Conv"]


def find_span(graph: Graph) -> Span:
    """Return the backbone of a network; intensity scaling, head and Grad-CAM are not in it.

    Raises
    ------
    VariantError
        If the graph does not pool an activation into ``features``, or has no convolution before it.
    """
    before = _ancestors(graph, _pooled_activation(graph))
    nodes: list[onnx.NodeProto] = []
    inside: set[str] = set()
    for node in graph.nodes:
        follows = node.op_type == "Conv" or any(name in inside for name in node.input)
        if follows and node.output[0] in before:
            nodes.append(node)
            inside.update(node.output)
    if not nodes:
        raise VariantError("its graph has no convolution")
    own = {id(node) for node in nodes}
    used = {name for node in nodes for name in node.input if name and name not in graph.values}
    others = {name for node in graph.nodes if id(node) not in own for name in node.input} | graph.outputs
    return Span(nodes, tuple(sorted(used - inside)), tuple(sorted(inside & others)))


def _pooled_activation(graph: Graph) -> str:
    node = graph.producers.get("features")
    while node is not None and node.op_type in {"Reshape", "Flatten", "Squeeze"}:
        node = graph.producers.get(node.input[0])
    if node is None or node.op_type not in _POOLING:
        found = "nothing" if node is None else node.op_type
        raise VariantError(f"its features are computed by {found}, expected {' or '.join(_POOLING)}")
    return str(node.input[0])


def _ancestors(graph: Graph, name: str) -> set[str]:
    """Return a tensor and all tensors that it is computed from."""
    found, waiting = set(), [name]
    while waiting:
        current = waiting.pop()
        if current not in found:
            found.add(current)
            producer = graph.producers.get(current)
            waiting += [] if producer is None else producer.input
    return found
