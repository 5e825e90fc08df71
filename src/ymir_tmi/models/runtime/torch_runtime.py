"""A detector that PyTorch runs."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ymir_tmi.config.schema import Precision, RunSettings
from ymir_tmi.models.blocks.head import PredictionConv
from ymir_tmi.models.interface import DenseDetections, Detector, HeadOutput, ModelSpec
from ymir_tmi.models.postprocess import resolve_max_dets
from ymir_tmi.models.runtime.devices import DTYPES, Arithmetic, resolve_device, resolve_precision
from ymir_tmi.models.runtime.interface import ClassGroups
from ymir_tmi.models.runtime.memory import keep_freed_memory
from ymir_tmi.models.runtime.onednn import has_onednn, replace_conv_blocks
from ymir_tmi.models.runtime.streams import Streams


class TorchRuntime:
    """The fused copy of a detector, channels last, its weights in the arithmetic asked for.

    Attributes:
        spec: what the model is, with the user's input size and post-processing in place of the model's own.
        device: where the network runs.
        arithmetic: number format of the network.
        class_groups: the model's classes behind each class of the results; None leaves the classes as they are.
    """

    has_raw = True

    def __init__(
        self,
        model: Detector,
        spec: ModelSpec,
        *,
        device: torch.device,
        arithmetic: Arithmetic,
        class_groups: ClassGroups | None = None,
    ) -> None:
        self.spec = spec
        self.device = device
        self.arithmetic = arithmetic
        self.class_groups = class_groups
        self._dtype = DTYPES[arithmetic]
        self._network = model.fuse().requires_grad_(False).to(device)
        _cast_weights(self._network, self._dtype)
        self._network.to(memory_format=torch.channels_last)
        self._streams = Streams() if device.type == "cpu" and torch.get_num_threads() > 1 else None
        if device.type == "cpu":
            keep_freed_memory()
            if has_onednn():
                replace_conv_blocks(self._network)

    def run(self, images: npt.NDArray[np.uint8]) -> HeadOutput:
        """Run the network on letterboxed (B, H, W, 3) RGB pictures; float32, on `device`."""
        pixels = torch.from_numpy(images)
        if self._streams is not None and len(pixels) > 1:
            return self._streams.run(self._forward, pixels)
        return self._forward(pixels)

    def _forward(self, pixels: Tensor) -> HeadOutput:
        with torch.inference_mode():
            normalised = self._network.normalize(pixels.to(self.device).permute(0, 3, 1, 2))
            raw = self._network(normalised.to(self._dtype))
            return HeadOutput(*(tuple(level.float() for level in levels) for levels in raw))

    def decode(self, raw: HeadOutput) -> DenseDetections:
        """Turn raw numbers into boxes and scores for every prior."""
        with torch.inference_mode():
            return self._network.decode(raw)

    def class_maps(self, raw: HeadOutput) -> tuple[Tensor, ...]:
        """Return per level (B, A, C, h, w) class probabilities."""
        with torch.inference_mode():
            return self._network.class_maps(raw)


def load_runtime(
    model: Detector,
    *,
    device: str = "auto",
    precision: Precision = "auto",
    image_size: int | None = None,
    iou: float | None = None,
    max_dets: int | None = None,
    class_groups: ClassGroups | None = None,
) -> TorchRuntime:
    """Prepare a model for inference; the model itself is not changed.

    Args:
        model: the detector.
        device: auto, cpu, cuda, cuda:1 or cuda:0,1 (one process per GPU).
        precision: arithmetic of the network.
        image_size: side of the network input in pixels that the model's input specification speaks of, in place of it.
        iou: overlap above which NMS drops a box, in place of the model's.
        max_dets: detections kept per image, in place of the model's.
        class_groups: the model's classes behind each class of the results.

    Raises:
        ConfigError: the device or the precision cannot be used.
        DependencyError: a GPU is asked for, and PyTorch has none.
    """
    place = resolve_device(device)
    spec = adapt_spec(model.spec, image_size=image_size, iou=iou, max_dets=max_dets)
    arithmetic = resolve_precision(precision, place)
    return TorchRuntime(model, spec, device=place, arithmetic=arithmetic, class_groups=class_groups)


def adapt_spec(spec: ModelSpec, *, image_size: int | None, iou: float | None, max_dets: int | None) -> ModelSpec:
    """Return a copy of `spec` with the user's numbers in place of the model's, where the user gives some."""
    chosen = {"iou_threshold": iou, "max_detections": max_dets}
    return spec.model_copy(
        update={
            "input": spec.input if image_size is None else spec.input.with_size(image_size),
            "postprocess": spec.postprocess.model_copy(
                update={name: value for name, value in chosen.items() if value is not None}
            ),
        }
    )


def build_runtime(model: Detector, settings: RunSettings, class_groups: ClassGroups | None = None) -> TorchRuntime:
    """Prepare a model for inference as the settings of a verb say; see `load_runtime`."""
    return load_runtime(
        model,
        device=settings.device,
        precision=settings.precision,
        image_size=settings.image_size,
        iou=settings.iou,
        max_dets=resolve_max_dets(settings, rotated=model.spec.task == "rotated"),
        class_groups=class_groups,
    )


def _cast_weights(network: nn.Module, dtype: torch.dtype) -> None:
    """Cast all weights but those of the predictions, which cost next to nothing and whose digits are the result.

    Buffers, such as the constants of the normalisation, keep their digits as well.
    """
    predictions = [module for module in network.modules() if isinstance(module, PredictionConv)]
    exempt = {parameter for layer in predictions for parameter in layer.parameters()}
    for parameter in network.parameters():
        if parameter not in exempt:
            parameter.data = parameter.data.to(dtype)
