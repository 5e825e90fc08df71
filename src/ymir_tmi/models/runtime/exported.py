"""Files that `ymir-tmi export` wrote: what they say of themselves, and how they stand in for a model."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from ymir_tmi.config.schema import ExportOutputs
from ymir_tmi.errors import ConfigError, ModelError
from ymir_tmi.models.catalog import find_family
from ymir_tmi.models.dense import flatten_levels
from ymir_tmi.models.interface import DenseDetections, Detector, HeadOutput, ModelSpec, PixelOutput
from ymir_tmi.models.runtime.devices import Arithmetic
from ymir_tmi.models.runtime.interface import ClassGroups, RandomPasses
from ymir_tmi.models.segment import PixelTest

FORMAT = 1
ENTRY = "ymir_tmi"
"""Name of the metadata entry that holds an `ExportInfo` as JSON."""

MASK_OUTPUTS = ("coefficients", "prototypes")
"""Decoded outputs besides boxes and scores, of models of instances."""
LOGITS = "logits"
"""Name of the output of a model that gives every pixel a class."""

Arrays = Sequence[npt.NDArray[Any]]


class ExportedInput(BaseModel):
    """The one input of an exported file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = "images"
    dtype: Literal["float32", "uint8"] = "float32"
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    channels: Literal["rgb", "bgr"] = "rgb"
    normalised: bool = False
    """Whether `mean` and `std` must have been applied; else the values are 0..255."""
    batch: int | None = 1
    """Pictures in every input; null takes any number."""


class ExportInfo(BaseModel):
    """What an exported file says of itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = FORMAT
    version: str
    """Version of ymir-tmi that wrote the file."""
    spec: ModelSpec
    """The model. `spec.input` says how a picture becomes an input; where its `fixed` is null, any size will do."""
    licence: str | None
    """Licence of the weights, as whoever saved them stated it."""
    outputs: ExportOutputs
    output_names: tuple[str, ...]
    """In the order of the file."""
    input: ExportedInput
    strides: tuple[int, ...]
    """Pixels per cell, finest level first; none of a model that finds no boxes."""
    anchors: int
    """Boxes per cell."""

    def level_sizes(self, height: int, width: int) -> list[tuple[int, int]]:
        """Return (height, width) of every level in cells, for an input of this size in pixels."""
        return [(math.ceil(height / stride), math.ceil(width / stride)) for stride in self.strides]


def parse_info(text: str | None, path: Path) -> ExportInfo:
    """Read the metadata entry of a file.

    Raises:
        ModelError: there is none, it is damaged, or a newer version wrote it.
    """
    if text is None:
        raise ModelError(
            "this file was not written by `ymir-tmi export`, so it does not say which model it belongs to", where=path
        )
    try:
        content = json.loads(text)
        if isinstance(content, dict) and isinstance(content.get("format"), int) and content["format"] > FORMAT:
            raise ModelError(
                f"this file has format {content['format']}, and this version reads formats up to {FORMAT}",
                where=path,
                fix="Update ymir-tmi.",
            )
        return ExportInfo.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise ModelError(f"the description in this file is damaged: {reason}", where=path) from error
    except ValueError as error:
        raise ModelError(f"the description in this file is damaged: {error}", where=path) from error


class ExportedFile(ABC):
    """An exported file that is ready to run, on a processor.

    Attributes:
        info: what it says of itself.
        arithmetic: number format of the network.
        threads: cores that it may use; `run` takes one and may be called in so many threads at once.
    """

    info: ExportInfo
    arithmetic: Arithmetic
    threads: int

    @classmethod
    @abstractmethod
    def read_info(cls, path: Path) -> ExportInfo:
        """Return what a file says of itself, without preparing it to run."""

    @property
    def spec(self) -> ModelSpec:
        """The model that was exported."""
        return self.info.spec

    @abstractmethod
    def run(self, inputs: npt.NDArray[Any]) -> Arrays:
        """Run the network on an input as `info.input` describes it; return the arrays of `info.output_names`."""


def as_input(pictures: npt.NDArray[np.uint8], wanted: ExportedInput) -> npt.NDArray[Any]:
    """Return letterboxed (B, H, W, 3) RGB pictures as a file wants them, if it normalises them itself."""
    assert wanted.channels == "rgb" and not wanted.normalised
    arranged = pictures.transpose(0, 3, 1, 2) if wanted.layout == "NCHW" else pictures
    return np.ascontiguousarray(arranged, dtype=wanted.dtype)


class ExportedNetwork:
    """What stands in for a detector and for a segmenter has in common; see `Runtime`.

    Args:
        file: gives what `run` returns.
        spec: what the model is, with the user's input size and post-processing in place of the model's own.
        class_groups: the model's classes behind each class of the results.
    """

    device = torch.device("cpu")

    def __init__(self, file: ExportedFile, spec: ModelSpec, class_groups: ClassGroups | None = None) -> None:
        self.spec = spec
        self.class_groups = class_groups
        self.arithmetic = file.arithmetic
        self.has_raw = file.info.outputs == "raw"
        self._file = file
        self._executor = ThreadPoolExecutor(file.threads, "exported")

    def _run(self, images: npt.NDArray[np.uint8]) -> dict[str, Tensor]:
        """Return the outputs of the file, by name, for (B, H, W, 3) RGB inputs."""
        info, count = self._file.info, len(images)
        step = info.input.batch or math.ceil(count / self._file.threads)
        parts = [images[start : start + step] for start in range(0, count, step)]
        results = list(self._executor.map(self._run_part, parts))
        arrays = [torch.from_numpy(np.concatenate(part)[:count]) for part in zip(*results, strict=True)]
        return dict(zip(info.output_names, arrays, strict=True))

    def _run_part(self, images: npt.NDArray[np.uint8]) -> Arrays:
        wanted = self._file.info.input
        missing = (wanted.batch or 0) - len(images)
        if missing > 0:
            images = np.concatenate([images, np.zeros((missing, *images.shape[1:]), np.uint8)])
        return self._file.run(as_input(images, wanted))


class ExportedSegmenter(ExportedNetwork):
    """Stands in for a network that gives every pixel a class; see `SegmenterRuntime`.

    Attributes:
        test: how it looks at a picture.
    """

    test = PixelTest()

    def run(self, images: npt.NDArray[np.uint8]) -> PixelOutput:
        """Run the network on (B, H, W, 3) RGB inputs."""
        return PixelOutput((self._run(images)[LOGITS],))


class ExportedRuntime(ExportedNetwork):
    """Stands in for a detector that PyTorch runs; see `DetectorRuntime`. The file gives raw or decoded numbers."""

    passes: RandomPasses | None = None

    def __init__(self, file: ExportedFile, spec: ModelSpec, class_groups: ClassGroups | None = None) -> None:
        super().__init__(file, spec, class_groups)
        self._family = _without_weights(spec) if self.has_raw else None

    def run(self, images: npt.NDArray[np.uint8]) -> HeadOutput:
        """Run the network on letterboxed (B, H, W, 3) RGB pictures.

        Of a file with decoded outputs, `reg` are boxes, and `cls` is one (B, P, C) tensor of scores: to take that apart
        into levels and put it together again would cost as much as NMS. So is `coefficients`, where there are masks.
        """
        named, info = self._run(images), self._file.info
        if self.has_raw:
            return raw_from_names(named)
        sizes = info.level_sizes(*images.shape[1:3])
        masks = {name: (named[name],) for name in MASK_OUTPUTS if name in named}
        return HeadOutput(cls=(named["scores"],), reg=_as_maps(named["boxes"], sizes, info.anchors), **masks)

    @torch.inference_mode()
    def decode(self, raw: HeadOutput) -> DenseDetections:
        """Turn raw numbers into boxes and scores for every prior."""
        if self._family is not None:
            return self._family.decode(raw)
        anchors = self._file.info.anchors
        sizes = tuple(anchors * level.shape[2] * level.shape[3] for level in raw.reg)
        made_of = {name: levels[0] for name in MASK_OUTPUTS if (levels := getattr(raw, name))}
        return DenseDetections(flatten_levels(raw.reg, anchors), raw.cls[0], sizes, **made_of)

    @torch.inference_mode()
    def class_maps(self, raw: HeadOutput) -> tuple[Tensor, ...]:
        """Return per level (B, A, C, h, w) class probabilities."""
        if self._family is not None:
            return self._family.class_maps(raw)
        anchors, sizes = self._file.info.anchors, [(level.shape[2], level.shape[3]) for level in raw.reg]
        maps = _as_maps(raw.cls[0], sizes, anchors)
        return tuple(level.reshape(len(level), anchors, -1, *level.shape[2:]) for level in maps)


def check_runnable(info: ExportInfo, path: Path) -> None:
    """Refuse a file that cannot stand in for a model.

    Raises:
        ModelError: it is for other programs.
    """
    if info.outputs not in ("raw", "decoded"):
        raise ModelError(
            f"this file has the outputs '{info.outputs}', which are for other programs",
            where=path,
            fix="Export the model with --outputs decoded or raw.",
        )


def check_image_size(info: ExportInfo, image_size: int | None, path: Path) -> None:
    """Refuse an input size that the file cannot take.

    Raises:
        ConfigError: the file has inputs of one size, and this is another.
    """
    fixed = info.spec.input.fixed
    if image_size is not None and fixed is not None and image_size != max(fixed):
        raise ConfigError(
            f"image_size is {image_size}, and this file takes only inputs of {fixed[0]} x {fixed[1]} pixels "
            "(height x width)",
            where=path,
            fix="Leave it out, or export the model with that --image-size, or with --dynamic-size.",
        )


def raw_names(raw: HeadOutput | PixelOutput) -> list[str]:
    """Return a name for every tensor of a head, in order: cls_0, cls_1, ..., reg_0, ...; or logits."""
    if isinstance(raw, PixelOutput):
        return [LOGITS]
    return [f"{kind}_{level}" for kind, levels in raw._asdict().items() for level in range(len(levels))]


def raw_from_names(named: dict[str, Tensor]) -> HeadOutput:
    """Put tensors that are named by `raw_names` into a `HeadOutput`."""
    levels: dict[str, list[Tensor]] = {kind: [] for kind in HeadOutput._fields}
    for name, tensor in named.items():
        levels[name.rpartition("_")[0]].append(tensor)
    return HeadOutput(**{kind: tuple(tensors) for kind, tensors in levels.items()})


def _as_maps(rows: Tensor, sizes: Sequence[tuple[int, int]], anchors: int) -> tuple[Tensor, ...]:
    """Turn (B, P, K) rows of all priors into (B, A * K, h, w) per level: the inverse of `flatten_levels`."""
    parts = torch.split(rows, [anchors * height * width for height, width in sizes], dim=1)
    return tuple(
        part.reshape(len(rows), height, width, -1).permute(0, 3, 1, 2)
        for part, (height, width) in zip(parts, sizes, strict=True)
    )


def _without_weights(spec: ModelSpec) -> Detector:
    """Build a network for its `decode` and `class_maps`, which use no weights, and give their memory back."""
    network = find_family(spec.name)(spec).eval()
    assert isinstance(network, Detector)
    for parameter in network.parameters():
        parameter.data = torch.empty(0)
    return network
