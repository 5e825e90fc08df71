"""A model that PyTorch runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ymir_tmi.config.schema import Precision, RunSettings
from ymir_tmi.models.blocks.head import PredictionConv
from ymir_tmi.models.interface import DenseDetections, Detector, HeadOutput, ModelSpec, Network, PixelOutput
from ymir_tmi.models.postprocess import resolve_max_dets
from ymir_tmi.models.random_passes import DropBlock, PartlyRandom
from ymir_tmi.models.runtime.devices import DTYPES, Arithmetic, resolve_device, resolve_precision
from ymir_tmi.models.runtime.interface import ClassGroups, RandomPasses, Runtime, Seeds
from ymir_tmi.models.runtime.memory import keep_freed_memory
from ymir_tmi.models.runtime.onednn import has_onednn, replace_conv_blocks
from ymir_tmi.models.runtime.streams import Raw, Streams
from ymir_tmi.models.segment import PixelTest


class TorchNetwork(Generic[Raw]):
    """The fused copy of a network, channels last, its weights in the arithmetic asked for.

    Attributes:
        spec: what the model is, with the user's input size and post-processing in place of the model's own.
        device: where the network runs.
        arithmetic: number format of the network.
        class_groups: the model's classes behind each class of the results; None leaves the classes as they are.
    """

    has_raw = True

    def __init__(
        self,
        model: Network,
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

    @property
    def passes(self) -> RandomPasses | None:
        """Runs the network with random parts switched off; None if it cannot."""
        return None

    def run(self, images: npt.NDArray[np.uint8]) -> Raw:
        """Run the network on letterboxed (B, H, W, 3) RGB pictures; float32, on `device`."""
        return self._split(self._forward, torch.from_numpy(images))

    def _split(self, forward: Callable[[Tensor], Raw], rows: Tensor) -> Raw:
        """Return `forward(rows)`, on a processor computed side by side."""
        if self._streams is not None and len(rows) > 1:
            return self._streams.run(forward, rows)
        return forward(rows)

    def _forward(self, pixels: Tensor) -> Raw:
        with torch.inference_mode():
            raw: Raw = self._network(self._normalised(pixels))
            return _as_float(raw)

    def _normalised(self, pixels: Tensor) -> Tensor:
        return self._network.normalize(pixels.to(self.device).permute(0, 3, 1, 2)).to(self._dtype)


class TorchRuntime(TorchNetwork[HeadOutput]):
    """A detector that is ready to run; see `DetectorRuntime`."""

    _network: Detector

    @property
    def passes(self) -> RandomPasses | None:
        """The runtime itself, if parts of the network can be switched off at random."""
        return self if isinstance(self._network, PartlyRandom) else None

    def begin(self, images: npt.NDArray[np.uint8]) -> Tensor:
        """Compute for letterboxed (B, H, W, 3) RGB pictures what is the same in every pass; see `RandomPasses`."""
        pixels = torch.from_numpy(images)
        if self._streams is None:
            return self._begin(pixels)
        return torch.cat(self._streams.map(self._begin, pixels))

    def finish(self, trunk: Tensor, seeds: Seeds | None) -> HeadOutput:
        """Return the raw numbers of one pass; without seeds nothing is switched off."""
        return self._split(lambda rows: self._finish(trunk, seeds, rows), torch.arange(len(trunk)))

    def _begin(self, pixels: Tensor) -> Tensor:
        assert isinstance(self._network, PartlyRandom)
        with torch.inference_mode():
            return self._network.begin(self._normalised(pixels))

    def _finish(self, trunk: Tensor, seeds: Seeds | None, rows: Tensor) -> HeadOutput:
        assert isinstance(self._network, PartlyRandom)
        drop = torch.clone if seeds is None else DropBlock([seeds[row] for row in rows])
        with torch.inference_mode():
            return _as_float(self._network.finish(trunk[rows], drop))

    def decode(self, raw: HeadOutput) -> DenseDetections:
        """Turn raw numbers into boxes and scores for every prior."""
        with torch.inference_mode():
            return self._network.decode(raw)

    def class_maps(self, raw: HeadOutput) -> tuple[Tensor, ...]:
        """Return per level (B, A, C, h, w) class probabilities."""
        with torch.inference_mode():
            return self._network.class_maps(raw)


class TorchSegmenter(TorchNetwork[PixelOutput]):
    """A network that gives every pixel a class and is ready to run; see `SegmenterRuntime`.

    Attributes:
        test: how it looks at a picture.
    """

    test = PixelTest()


def load_runtime(
    model: Network,
    *,
    device: str = "auto",
    precision: Precision = "auto",
    image_size: int | None = None,
    iou: float | None = None,
    max_dets: int | None = None,
    class_groups: ClassGroups | None = None,
) -> TorchRuntime | TorchSegmenter:
    """Prepare a model for inference; the model itself is not changed.

    Args:
        model: a detector or a segmenter.
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
    kind = TorchRuntime if isinstance(model, Detector) else TorchSegmenter
    return kind(model, spec, device=place, arithmetic=arithmetic, class_groups=class_groups)


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


def build_runtime(model: Network, settings: RunSettings, class_groups: ClassGroups | None = None) -> Runtime:
    """Prepare a model for inference as the settings of a verb say; see `load_runtime` and `PixelTest.of`."""
    test = PixelTest.of(settings, model.spec)
    runtime = load_runtime(
        model,
        device=settings.device,
        precision=settings.precision,
        image_size=settings.image_size,
        iou=settings.iou,
        max_dets=resolve_max_dets(settings, rotated=model.spec.task == "rotated"),
        class_groups=class_groups,
    )
    if isinstance(runtime, TorchSegmenter):
        runtime.test = test
    return runtime


def _as_float(raw: Raw) -> Raw:
    return type(raw)(*(tuple(level.float() for level in levels) for levels in raw))


def _cast_weights(network: nn.Module, dtype: torch.dtype) -> None:
    """Cast all weights but those of the predictions, which cost next to nothing and whose digits are the result.

    Buffers, such as the constants of the normalisation, keep their digits as well.
    """
    predictions = [module for module in network.modules() if isinstance(module, PredictionConv)]
    exempt = {parameter for layer in predictions for parameter in layer.parameters()}
    for parameter in network.parameters():
        if parameter not in exempt:
            parameter.data = parameter.data.to(dtype)
