"""Class-aware NMS as nodes of an ONNX graph, with results of fixed shape.

The nodes are written by hand, since neither of PyTorch's exporters has NMS for a batch. They are the same in all opsets
from 11 on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ymir_tmi.models.interface import PostprocessSpec
from ymir_tmi.models.runtime.optional import optional


def append_nms(model: Any, candidates: Sequence[str], spec: PostprocessSpec) -> None:
    """Replace the outputs `candidates` of a model, boxes (B, P, 4) and scores (B, P, C), by detections.

    Of K = `spec.max_detections` rows the first `count` are detections, best first; the others are 0:

        boxes (B, K, 4) float32 xyxy, scores (B, K) float32, labels (B, K) int64, count (B,) int64

    Args:
        model: the loaded ONNX model; it is changed.
        candidates: names of the two outputs.
        spec: thresholds and the number of detections.
    """
    onnx = optional("onnx")
    batch = model.graph.output[0].type.tensor_type.shape.dim[0]
    size: int | str = batch.dim_value or batch.dim_param
    nodes = _Nodes(model.graph)
    boxes, scores = candidates
    _suppress(nodes, boxes, scores, spec)
    del model.graph.output[:]
    limit = spec.max_detections
    for name, kind, shape in (
        ("boxes", onnx.TensorProto.FLOAT, [size, limit, 4]),
        ("scores", onnx.TensorProto.FLOAT, [size, limit]),
        ("labels", onnx.TensorProto.INT64, [size, limit]),
        ("count", onnx.TensorProto.INT64, [size]),
    ):
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, kind, shape))


class _Nodes:
    """Appends nodes and constants to a graph."""

    def __init__(self, graph: Any) -> None:
        self._graph = graph
        self._onnx = optional("onnx")

    def add(self, operator: str, *inputs: str, name: str | None = None, **attributes: Any) -> str:
        """Append a node with one output and return its name."""
        return self.add_many(operator, *inputs, names=[name], **attributes)[0]

    def add_many(self, operator: str, *inputs: str, names: Sequence[str | None], **attributes: Any) -> list[str]:
        """Append a node and return the names of its outputs."""
        outputs = [name or f"nms_{len(self._graph.node)}_{place}" for place, name in enumerate(names)]
        self._graph.node.append(self._onnx.helper.make_node(operator, list(inputs), outputs, **attributes))
        return outputs

    def constant(self, values: npt.ArrayLike, kind: type[np.generic]) -> str:
        """Store an array and return its name."""
        name = f"nms_constant_{len(self._graph.initializer)}"
        self._graph.initializer.append(self._onnx.numpy_helper.from_array(np.asarray(values, kind), name))
        return name

    def zeros(self, shape: str) -> str:
        """Append float32 zeros of the shape that a tensor holds."""
        return self.add("ConstantOfShape", shape, value=self._onnx.numpy_helper.from_array(np.zeros(1, np.float32)))


def _suppress(nodes: _Nodes, boxes: str, scores: str, spec: PostprocessSpec) -> None:
    limit, kinds = spec.max_detections, optional("onnx").TensorProto
    assert limit is not None, "the results have a fixed shape"
    by_class = nodes.add("Transpose", scores, perm=[0, 2, 1])  # (B, C, P)
    picked = nodes.add(  # (N, 3): picture, class, prior
        "NonMaxSuppression",
        _without_swapped_corners(nodes, boxes),
        by_class,
        nodes.constant([limit], np.int64),
        nodes.constant([spec.iou_threshold], np.float32),
        nodes.constant([spec.score_threshold], np.float32),
    )
    nothing = nodes.zeros(nodes.add("Shape", by_class))
    kept = nodes.add("ScatterND", nothing, picked, nodes.add("GatherND", by_class, picked))
    best, places = _best(nodes, kept, limit)
    priors = nodes.add("Gather", nodes.add("Shape", boxes), nodes.constant([1], np.int64))

    found = nodes.add("Greater", best, nodes.constant([0], np.float32))
    as_float, as_int = (nodes.add("Cast", found, to=kind) for kind in (kinds.FLOAT, kinds.INT64))
    nodes.add("Identity", best, name="scores")
    nodes.add("Mul", nodes.add("Div", places, priors), as_int, name="labels")
    rows = nodes.add("Reshape", nodes.add("Mod", places, priors), nodes.constant([0, limit, 1], np.int64))
    their = nodes.add("GatherElements", boxes, nodes.add("Tile", rows, nodes.constant([1, 1, 4], np.int64)), axis=1)
    real = nodes.add("Reshape", as_float, nodes.constant([0, limit, 1], np.int64))
    nodes.add("Mul", their, real, name="boxes")
    number = nodes.add("MatMul", as_float, nodes.constant(np.ones((limit, 1)), np.float32))
    flat = nodes.add("Reshape", number, nodes.constant([-1], np.int64))
    nodes.add("Cast", flat, to=kinds.INT64, name="count")


def _without_swapped_corners(nodes: _Nodes, boxes: str) -> str:
    """Take the area of boxes with swapped corners: they overlap nothing, but the operator would sort their corners."""
    first, second, end = (nodes.constant([place], np.int64) for place in (0, 2, 4))
    axis = nodes.constant([2], np.int64)
    upper_left = nodes.add("Slice", boxes, first, second, axis)
    lower_right = nodes.add("Max", nodes.add("Slice", boxes, second, end, axis), upper_left)
    return nodes.add("Concat", upper_left, lower_right, axis=2)


def _best(nodes: _Nodes, kept: str, limit: int) -> tuple[str, str]:
    """Return the K best of (B, C, P) scores, and where each is in (C * P)."""
    flat = nodes.add("Reshape", kept, nodes.constant([0, -1], np.int64))
    batch = nodes.add("Gather", nodes.add("Shape", flat), nodes.constant([0], np.int64))
    # A small input may have fewer than K candidates.
    padding = nodes.zeros(nodes.add("Concat", batch, nodes.constant([limit], np.int64), axis=0))
    padded = nodes.add("Concat", flat, padding, axis=1)
    best, places = nodes.add_many("TopK", padded, nodes.constant([limit], np.int64), names=[None, None], axis=1)
    return best, places
