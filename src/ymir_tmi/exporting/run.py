"""`ymir-tmi export`: from a model file to a file that other programs run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ymir_tmi.config.schema import ExportFormat, ExportSettings
from ymir_tmi.errors import ConfigError
from ymir_tmi.exporting.check import ALLOWED, ALLOWED_FP16, Agreement, check_file, check_pictures
from ymir_tmi.exporting.graph import GRAPHS, ExportGraph
from ymir_tmi.exporting.onnx import write_onnx
from ymir_tmi.exporting.openvino import write_openvino
from ymir_tmi.exporting.plan import ExportPlan, plan_export
from ymir_tmi.exporting.torchscript import TorchScriptFile, write_torchscript
from ymir_tmi.files.atomic import atomic_files
from ymir_tmi.models.checkpoint import load_model, read_model_info
from ymir_tmi.models.interface import Detector, Network
from ymir_tmi.models.runtime.exported import ExportedFile, ExportInfo
from ymir_tmi.models.runtime.onnx_runtime import OnnxFile
from ymir_tmi.models.runtime.openvino_runtime import OpenVinoFile

Writer = Callable[[ExportGraph, ExportPlan, ExportInfo, Path], None]

_WRITERS: Mapping[ExportFormat, Writer] = {
    "onnx": write_onnx,
    "openvino": write_openvino,
    "torchscript": write_torchscript,
}
_OPENERS: Mapping[ExportFormat, Callable[[Path], ExportedFile]] = {
    "onnx": OnnxFile,
    "openvino": lambda path: OpenVinoFile(path, precision="fp32"),
    "torchscript": TorchScriptFile,
}


@dataclass(frozen=True)
class ExportResult:
    """What was written.

    Attributes:
        path: the file; OpenVINO's weights lie in a .bin beside it.
        info: what the file says of itself.
        opset: version of the operators of an ONNX file, else None.
        agreement: how near it comes to the model.
        seconds: that it took.
    """

    path: Path
    info: ExportInfo
    opset: int | None
    agreement: Agreement
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able values."""
        return {
            "path": str(self.path),
            "info": self.info.model_dump(mode="json"),
            "opset": self.opset,
            "agreement": asdict(self.agreement),
            "seconds": self.seconds,
        }

    def to_text(self) -> str:
        """Return lines for a person."""
        wanted, agreement = self.info.input, self.agreement
        sides = dict(zip("NHW", [wanted.batch, *(self.info.spec.input.fixed or (None, None))], strict=True), C=3)
        shape = ", ".join(str(sides[side] or "any") for side in wanted.layout)
        kind = "normalised" if wanted.normalised else "0..255"
        found = "" if agreement.detections is None else f" with {agreement.detections} detections"
        return "\n".join(
            [
                f"input   {wanted.name} ({shape}) {wanted.layout} {wanted.dtype} {wanted.channels} {kind}",
                f"outputs {', '.join(self.info.output_names)}",
                f"checked on {agreement.pictures} pictures{found}: differs from the model by "
                f"{max(agreement.largest.values()):.1g} of the largest number ({agreement.allowed:g} allowed)",
                str(self.path),
            ]
        )


def export(settings: ExportSettings) -> ExportResult:
    """Write a model in a form that other programs run. The file is there only if it computes what the model computes.

    Raises:
        ConfigError: settings contradict each other or do not suit the model.
        DataError: the pictures to check with cannot be read.
        DependencyError: a library that the form needs is missing.
        ModelError: the model file is missing or damaged, PyTorch cannot export the model so, or the written file
            computes something else.
    """
    start = time.perf_counter()
    model, licence = load_model(settings.model), read_model_info(settings.model).licence
    plan = plan_export(settings, model.spec)
    pictures = check_pictures(settings.data)
    graph = GRAPHS[plan.outputs](_fused(model, plan)).eval()
    info = plan.describe(model, graph, _anchors(model), licence)
    try:
        with atomic_files(plan.path.parent) as folder:
            written = folder / plan.path.name
            _WRITERS[settings.to](graph, plan, info, written)
            allowed = ALLOWED_FP16 if settings.fp16 else ALLOWED
            agreement = check_file(_OPENERS[settings.to](written), model, graph, pictures, allowed)
    except OSError as error:
        raise ConfigError(f"cannot write this file: {error.strerror or error}", where=plan.path) from error
    opset = plan.opset if settings.to == "onnx" else None
    return ExportResult(plan.path, info, opset, agreement, time.perf_counter() - start)


def _fused(model: Network, plan: ExportPlan) -> Network:
    """Return the network without batch norms, with the post-processing that the file is to have."""
    fused = model.fuse()
    fused.spec = plan.spec
    return fused.requires_grad_(False)


def _anchors(model: Network) -> int:
    """Return the number of boxes per cell; 0 of a model that finds none."""
    if not isinstance(model, Detector):
        return 0
    side = 4 * model.spec.input.stride
    with torch.no_grad():
        raw = model(torch.zeros(1, 3, side, side))
        height, width = raw.cls[0].shape[2:]
        return model.decode(raw).level_sizes[0] // int(height * width)
