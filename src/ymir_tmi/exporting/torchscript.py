"""TorchScript files, for programs that hold libtorch."""

from __future__ import annotations

import tempfile
import warnings
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy.typing as npt
import torch
import torchvision  # noqa: F401, brings the operator torchvision::nms
from torch import Tensor, nn

from ymir_tmi.errors import ModelError
from ymir_tmi.exporting.graph import ExportGraph
from ymir_tmi.exporting.plan import ExportPlan
from ymir_tmi.models.interface import PostprocessSpec
from ymir_tmi.models.runtime.exported import ENTRY, Arrays, ExportedFile, ExportInfo, parse_info

_EXTRA_FILE = f"{ENTRY}.json"


def write_torchscript(graph: ExportGraph, plan: ExportPlan, info: ExportInfo, path: Path) -> None:
    """Trace a network and write it as a TorchScript file; what it says of itself is the extra file ymir_tmi.json.

    Raises:
        ModelError: PyTorch cannot export this network.
    """
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # TorchScript is deprecated, and tracing warns of every Python number
            script: Any = torch.jit.trace(  # type: ignore[no-untyped-call]
                graph, torch.zeros(plan.traced_shape), check_trace=False
            )
            if info.outputs == "detections":
                script = torch.jit.script(_WithNms(script, info.spec.postprocess))
            with tempfile.TemporaryFile() as file:
                torch.jit.save(script, file, _extra_files={_EXTRA_FILE: info.model_dump_json()})
                _copy_without_sources(file, path)
    except RuntimeError as error:
        reason = str(error).strip().partition("\n")[0]
        raise ModelError(f"PyTorch {torch.__version__} cannot export this model to TorchScript: {reason}") from error


class TorchScriptFile(ExportedFile):
    """A TorchScript file, to compare it with its model."""

    def __init__(self, path: Path) -> None:
        self.arithmetic = "fp32"
        self.threads = 1
        self.info, self._script = _load(path)

    @classmethod
    def read_info(cls, path: Path) -> ExportInfo:
        """Return what a file says of itself."""
        return _load(path)[0]

    def run(self, inputs: npt.NDArray[Any]) -> Arrays:
        """Run the network on an input as `info.input` describes it; return the arrays of `info.output_names`."""
        with torch.inference_mode():
            return [tensor.numpy() for tensor in self._script(torch.from_numpy(inputs))]


class _WithNms(nn.Module):
    """Appends class-aware NMS to a traced `CandidateGraph`; its results are those of `nms.append_nms`."""

    def __init__(self, candidates: Any, spec: PostprocessSpec) -> None:
        super().__init__()
        assert spec.max_detections is not None, "the results have a fixed shape"
        self.candidates = candidates
        self.score: float = spec.score_threshold
        self.iou: float = spec.iou_threshold
        self.limit: int = spec.max_detections

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return boxes (B, K, 4), scores (B, K), labels (B, K) and their number (B,)."""
        boxes, scores = self.candidates(images)
        size = boxes.shape[0]
        best_boxes = torch.zeros(size, self.limit, 4)
        best_scores = torch.zeros(size, self.limit)
        best_labels = torch.zeros(size, self.limit, dtype=torch.int64)
        count = torch.zeros(size, dtype=torch.int64)
        for row in range(size):
            prior, label = torch.where(scores[row] > self.score)
            score, found = scores[row][prior, label], boxes[row][prior]
            # Each class in a region of its own, in float64 so that no overlap changes.
            wide = found.double().clamp(-1e7, 1e7)
            apart = wide + (label * 2.1e7).unsqueeze(1)
            kept = torch.ops.torchvision.nms(apart, score.double(), self.iou)[: self.limit]
            number = kept.shape[0]
            best_boxes[row, :number] = found[kept]
            best_scores[row, :number] = score[kept]
            best_labels[row, :number] = label[kept]
            count[row] = number
        return best_boxes, best_scores, best_labels, count


def _copy_without_sources(archive: IO[bytes], path: Path) -> None:
    """Leave out what PyTorch notes of the source files that the network came from, their paths on this machine."""
    with zipfile.ZipFile(archive) as whole, zipfile.ZipFile(path, "w") as rest:
        for name in whole.namelist():
            if not name.endswith(".debug_pkl"):
                rest.writestr(name, whole.read(name))


def _load(path: Path) -> tuple[ExportInfo, Any]:
    extra = {_EXTRA_FILE: ""}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        script = torch.jit.load(str(path), _extra_files=extra)  # type: ignore[no-untyped-call]
    return parse_info(extra[_EXTRA_FILE], path), script
