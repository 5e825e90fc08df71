"""ONNX files."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch

from ymir_tmi.errors import ConfigError, ModelError
from ymir_tmi.exporting.graph import CandidateGraph, ExportGraph
from ymir_tmi.exporting.nms import append_nms
from ymir_tmi.exporting.plan import ExportPlan
from ymir_tmi.models.runtime.exported import ENTRY, ExportInfo
from ymir_tmi.models.runtime.optional import optional

_FIRST_OF_NEW_EXPORTER = 18
"""PyTorch's exporter on top of torch.export writes this opset where an earlier one is asked for."""


def write_onnx(graph: ExportGraph, plan: ExportPlan, info: ExportInfo, path: Path) -> None:
    """Write a network as an ONNX file; see `build_onnx`."""
    model = build_onnx(graph, plan, path)
    model.metadata_props.add(key=ENTRY, value=info.model_dump_json())
    model.producer_name, model.producer_version = "ymir-tmi", info.version
    optional("onnx").save(model, path)


def build_onnx(graph: ExportGraph, plan: ExportPlan, path: Path) -> Any:
    """Trace a network and return it as a loaded ONNX model; `path` is a file that may be written over.

    Raises:
        ConfigError: the opset is newer than the installed onnx.
        DependencyError: onnx or, from opset 18 on, onnxscript is missing.
        ModelError: PyTorch cannot export this network so, or has written another opset than it was asked for.
    """
    onnx = optional("onnx")
    newest = onnx.defs.onnx_opset_version()
    if plan.opset > newest:
        raise ConfigError(f"opset is {plan.opset}, and onnx {onnx.__version__} knows opsets up to {newest}")
    _trace(graph, plan, path)
    model = onnx.load(path)
    written = opset_of(model)
    if written != plan.opset:
        raise ModelError(
            f"PyTorch {torch.__version__} has written opset {written} in place of {plan.opset}",
            fix=f"Ask for --opset {written}, or for an earlier one.",
        )
    _forget_sources(model)
    _name_weights(model)
    if isinstance(graph, CandidateGraph):
        append_nms(model, graph.names, plan.spec.postprocess)
    return model


def opset_of(model: Any) -> int:
    """Return the version of the standard operators that a loaded ONNX model uses."""
    return next(int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx"))


def _trace(graph: ExportGraph, plan: ExportPlan, path: Path) -> None:
    shape = plan.traced_shape
    options: dict[str, Any] = {"opset_version": plan.opset, "verbose": False}
    if plan.opset >= _FIRST_OF_NEW_EXPORTER:
        optional("onnxscript")
        options.update(dynamo=True, external_data=False, dynamic_shapes=(_dimensions(plan),))
    else:
        options.update(dynamo=False, dynamic_axes=_axes(graph, plan))
    try:
        with torch.no_grad(), warnings.catch_warnings():
            # The exporter for early opsets is deprecated, and warns of every Python number that it meets. What it
            # writes is compared with the model all the same.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                graph,
                (torch.zeros(shape),),
                str(path),
                input_names=[plan.input.name],
                output_names=list(graph.names),
                **options,
            )
    except Exception as error:  # the exporters raise whatever the tracers and converters below them do
        reason = str(error).strip().partition("\n")[0]
        raise ModelError(
            f"PyTorch {torch.__version__} cannot export this model to opset {plan.opset}: {reason}",
            fix="Try another --opset, or an input of fixed size.",
        ) from error


def _dimensions(plan: ExportPlan) -> dict[int, Any]:
    """Return what may vary of the input, for the exporter on top of torch.export."""
    dimensions: dict[int, Any] = {}
    if plan.input.batch is None:
        dimensions[0] = torch.export.Dim("batch")
    if plan.spec.input.fixed is None:
        stride = plan.spec.input.stride
        dimensions[2] = stride * torch.export.Dim("rows")
        dimensions[3] = stride * torch.export.Dim("columns")
    return dimensions


def _axes(graph: ExportGraph, plan: ExportPlan) -> dict[str, dict[int, str]]:
    """Return what may vary of the input and the outputs, for the earlier exporter."""
    batch = {0: "batch"} if plan.input.batch is None else {}
    free = plan.spec.input.fixed is None
    axes = {plan.input.name: {**batch, **({2: "height", 3: "width"} if free else {})}}
    for name in graph.names:
        per_prior = name.endswith(("boxes", "scores", "coefficients"))
        sizes = {1: "priors"} if per_prior else {2: f"height_{name}", 3: f"width_{name}"}
        axes[name] = {**batch, **(sizes if free else {})}
    return {name: its_axes for name, its_axes in axes.items() if its_axes}


def _name_weights(model: Any) -> None:
    """Let nodes name their weights: the exporter puts a node that copies them between, where two tensors are equal."""
    weights = {tensor.name for tensor in model.graph.initializer}
    copies = {
        node.output[0]: node.input[0]
        for node in model.graph.node
        if node.op_type == "Identity" and node.input[0] in weights
    }
    nodes = [node for node in model.graph.node if node.output[0] not in copies]
    for node in nodes:
        node.input[:] = [copies.get(name, name) for name in node.input]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _forget_sources(model: Any) -> None:
    """Remove what the exporter notes of the source files that the network came from, their paths on this machine."""
    for node in model.graph.node:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    for value in [*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer]:
        value.ClearField("metadata_props")
    model.ClearField("metadata_props")
    model.graph.ClearField("metadata_props")
