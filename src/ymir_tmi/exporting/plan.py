"""What an export is to be, with everything checked that can be wrong before work begins."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ymir_tmi import __version__
from ymir_tmi.config.schema import ExportFormat, ExportOutputs, ExportSettings
from ymir_tmi.data.letterbox import InputSpec
from ymir_tmi.errors import ConfigError
from ymir_tmi.exporting.graph import ExportGraph
from ymir_tmi.models.interface import Detector, ModelSpec, Network, PostprocessSpec, Task
from ymir_tmi.models.runtime.exported import ExportedInput, ExportInfo

SUFFIXES: dict[ExportFormat, str] = {"onnx": ".onnx", "openvino": ".xml", "torchscript": ".torchscript"}

DEFAULT_OPSET = 17
_CONF, _MAX_DETS = 0.25, 100  # of the outputs `detections`

# Why a file for a model of this task cannot hold NMS.
_WITHOUT_NMS: dict[Task, str] = {
    "rotated": "no form has an NMS for rotated boxes",
    "instances": "masks are made from what NMS leaves, in pixels of the picture",
}

# Strides of the input that is traced where any size will do: two numbers that no level's size equals by chance.
_TRACED = (10, 14)
_COARSEST = 32  # pixels; inputs of some networks may have any size, their maps are as coarse as others'


@dataclass(frozen=True)
class ExportPlan:
    """What is written, and where.

    Attributes:
        settings: what the user asked for.
        path: the file; OpenVINO writes a second one beside it.
        opset: version of the ONNX operators.
        spec: the model, with the input and post-processing of the file in place of its own.
        input: the file's one input.
    """

    settings: ExportSettings
    path: Path
    opset: int
    spec: ModelSpec
    input: ExportedInput

    @property
    def outputs(self) -> ExportOutputs:
        """What comes out of the file."""
        assert self.settings.outputs is not None
        return self.settings.outputs

    @property
    def traced_shape(self) -> tuple[int, int, int, int]:
        """Shape (B, 3, H, W) of the input that PyTorch traces."""
        stride = max(self.spec.input.stride, _COARSEST)
        height, width = self.spec.input.fixed or (_TRACED[0] * stride, _TRACED[1] * stride)
        return self.input.batch or 2, 3, height, width  # PyTorch takes a batch of 1 for one that is always 1

    def describe(self, model: Network, graph: ExportGraph, anchors: int, licence: str | None) -> ExportInfo:
        """Return what the file says of itself."""
        detections = self.outputs == "detections"
        return ExportInfo(
            version=__version__,
            spec=self.spec,
            licence=licence,
            outputs=self.outputs,
            output_names=("boxes", "scores", "labels", "count") if detections else graph.names,
            input=self.input,
            strides=model.strides if isinstance(model, Detector) else (),
            anchors=anchors,
        )


def plan_export(settings: ExportSettings, spec: ModelSpec) -> ExportPlan:
    """Work out what the settings mean for a model.

    Raises:
        ConfigError: settings contradict each other or do not suit the model.
    """
    default = "raw" if spec.task == "semantics" else "decoded"
    settings = settings.model_copy(update={"outputs": settings.outputs or default})
    _refuse_contradictions(settings)
    if spec.task == "semantics" and settings.outputs not in ("raw", "plain"):
        raise ConfigError(
            f"the outputs '{settings.outputs}' are not for '{spec.name}', which finds no boxes",
            where="outputs",
            fix="Write --outputs raw: the logits of the classes.",
        )
    if settings.outputs == "detections" and spec.task in _WITHOUT_NMS:
        raise ConfigError(
            f"the outputs 'detections' are not for '{spec.name}': {_WITHOUT_NMS[spec.task]}",
            where="outputs",
            fix="Write --outputs decoded, whose boxes `ymir-tmi infer` suppresses itself, or raw.",
        )
    own = {
        "input": _input_spec(settings, spec.input, spec.task),
        "postprocess": _postprocess(settings, spec.postprocess),
    }
    return ExportPlan(
        settings=settings,
        path=_path(settings),
        opset=settings.opset or DEFAULT_OPSET,
        spec=spec.model_copy(update=own),
        input=_input(settings, spec.input),
    )


def _refuse_contradictions(settings: ExportSettings) -> None:
    if settings.dynamic_batch and settings.batch != 1:
        raise ConfigError("both 'batch' and 'dynamic_batch' are given", fix="Leave one of them out.")
    if settings.dynamic_size and len(settings.image_size) == 2:
        raise ConfigError(
            "both a height and width and 'dynamic_size' are given",
            where="image_size",
            fix="Give one number, the longer side that pictures are scaled to; or leave out --dynamic-size.",
        )
    if settings.opset is not None and settings.to != "onnx":
        raise ConfigError("'opset' is for ONNX files", fix="Leave it out, or write --to onnx.")
    if settings.fp16 and settings.to != "openvino":
        raise ConfigError("'fp16' is for OpenVINO files", fix="Leave it out, or write --to openvino.")
    if settings.outputs == "plain" and settings.to != "onnx":
        raise ConfigError(
            "the outputs 'plain' are for ONNX files, which the converters of small chips read", fix="Write --to onnx."
        )
    for name in ("conf", "iou", "max_dets"):
        if getattr(settings, name) is not None and settings.outputs != "detections":
            raise ConfigError(
                f"'{name}' is for the outputs 'detections'", fix="Leave it out, or write --outputs detections."
            )


def _path(settings: ExportSettings) -> Path:
    suffix, output = SUFFIXES[settings.to], settings.output
    if output is None:
        return settings.model.with_suffix(suffix)
    if output.is_dir() or not output.suffix:
        return output / settings.model.with_suffix(suffix).name
    if output.suffix != suffix:
        raise ConfigError(
            f"'{output.name}' is no name for a file in this form",
            where="output",
            fix=f"Give a name that ends in {suffix}, or a folder.",
        )
    return output


def _input_spec(settings: ExportSettings, spec: InputSpec, task: Task) -> InputSpec:
    sides = settings.image_size
    if settings.dynamic_size:
        return spec.with_size(sides[0]) if sides else spec
    if not sides:
        sides = [_round_up(spec.size, spec.stride)]
        if task == "semantics" and spec.longest is not None:
            sides.append(spec.longest)
    height, width = sides[0], sides[-1]
    if height % spec.stride or width % spec.stride:
        nearest = f"{_round_up(height, spec.stride)},{_round_up(width, spec.stride)}"
        raise ConfigError(
            f"image_size is {height},{width}, and both must be multiples of {spec.stride} for this model",
            fix=f"For example {nearest}.",
        )
    return spec.model_copy(update={"size": max(height, width), "fixed": (height, width)})


def _postprocess(settings: ExportSettings, spec: PostprocessSpec) -> PostprocessSpec:
    """Return the post-processing that the file carries out, or that is left to its user."""
    if settings.outputs != "detections":
        return spec
    return spec.model_copy(
        update={
            "score_threshold": _CONF if settings.conf is None else settings.conf,
            "inclusive": False,
            "iou_threshold": spec.iou_threshold if settings.iou is None else settings.iou,
            "max_detections": settings.max_dets or _MAX_DETS,
        }
    )


def _input(settings: ExportSettings, spec: InputSpec) -> ExportedInput:
    batch = None if settings.dynamic_batch else settings.batch
    if settings.outputs == "plain":
        return ExportedInput(batch=batch, channels=spec.channels, normalised=True)
    if settings.to == "openvino":
        return ExportedInput(batch=batch, dtype="uint8", layout="NHWC")
    return ExportedInput(batch=batch)


def _round_up(side: int, stride: int) -> int:
    return -(-side // stride) * stride
