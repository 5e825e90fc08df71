"""OpenVINO files: an .xml with the network, a .bin beside it with the weights."""

from __future__ import annotations

from pathlib import Path

from ymir_tmi.exporting.graph import ExportGraph
from ymir_tmi.exporting.onnx import build_onnx
from ymir_tmi.exporting.plan import ExportPlan
from ymir_tmi.models.runtime.exported import ENTRY, ExportInfo
from ymir_tmi.models.runtime.openvino_runtime import openvino_core
from ymir_tmi.models.runtime.optional import optional


def write_openvino(graph: ExportGraph, plan: ExportPlan, info: ExportInfo, path: Path) -> None:
    """Trace a network and write it as an OpenVINO file that takes pictures as they are: uint8, NHWC.

    Raises:
        DependencyError: openvino or onnx is missing.
        ModelError: PyTorch cannot export this network.
    """
    openvino = optional("openvino")
    between = path.with_suffix(".onnx")
    optional("onnx").save(build_onnx(graph, plan, between), between)
    network = openvino_core().read_model(between)
    steps = openvino.preprocess.PrePostProcessor(network)
    steps.input().tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
    steps.input().model().set_layout(openvino.Layout("NCHW"))
    network = steps.build()
    network.set_rt_info(info.model_dump_json(), [ENTRY])
    openvino.save_model(network, path, compress_to_fp16=plan.settings.fp16)
    between.unlink()
