"""Whether an exported file computes what its model computes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ymir_tmi.data.letterbox import letterbox
from ymir_tmi.data.read import read_dataset
from ymir_tmi.errors import ModelError
from ymir_tmi.exporting.detections import Found, MismatchError, compare_detections
from ymir_tmi.exporting.graph import ExportGraph, NormalisingGraph, PlainGraph
from ymir_tmi.imaging import Image, read_image, resize
from ymir_tmi.models.interface import Network
from ymir_tmi.models.runtime.exported import Arrays, ExportedFile, ExportInfo, as_input

ALLOWED = 1e-3  # float32 sums in another order differ by 1e-7, which untrained layers can amplify a thousandfold
ALLOWED_FP16 = 5e-3  # weights have 11 bits, and their roundings add up over some hundred layers

_MOST_PICTURES = 4
_DRAWN = ((640, 480), (375, 500), (1280, 720), (97, 64))  # width, height


@dataclass(frozen=True)
class Agreement:
    """How near a file comes to its model.

    Attributes:
        pictures: how many were compared.
        detections: how many were found in them, where the file gives detections; else None.
        largest: the largest difference of each output, as a part of its largest number, or of 1 where that is smaller.
        allowed: what none of them exceeds.
    """

    pictures: int
    detections: int | None
    largest: dict[str, float]
    allowed: float


def check_pictures(sources: Sequence[str]) -> list[Image]:
    """Return the first pictures of the sources, or drawn ones of several shapes where there are no sources.

    Raises:
        DataError: a source is missing, has no pictures, or a picture cannot be read.
    """
    if not sources:
        random = np.random.default_rng(0)
        patches = [random.integers(0, 256, (18, 24, 3), np.uint8) for _ in _DRAWN]
        return [resize(patch, *size, "bilinear") for patch, size in zip(patches, _DRAWN, strict=True)]
    paths = read_dataset(sources, split="val").paths
    return [read_image(paths[row]) for row in range(min(_MOST_PICTURES, len(paths)))]


@torch.no_grad()
def check_file(
    file: ExportedFile, model: Network, graph: ExportGraph, pictures: Sequence[Image], allowed: float
) -> Agreement:
    """Run a file and its model on pictures and compare what they give.

    Args:
        file: what was exported.
        model: what it was exported from, as it was loaded.
        graph: what was traced.
        pictures: of any size.
        allowed: the largest difference that counts as none; see `Agreement`.

    Raises:
        ModelError: they differ, or the model's outputs are not numbers.
    """
    largest: dict[str, float] = {}
    detections = 0
    for number, inputs in enumerate(_inputs(file.info, pictures), 1):
        try:
            given, expected = _run_both(file, model, graph, inputs)
            differences = _compare(file.info, given, expected, allowed)
        except MismatchError as mismatch:
            height, width = inputs.shape[1:3]
            raise ModelError(
                f"what was exported does not compute what the model computes: on picture {number} of {len(pictures)} "
                f"(input of {height} x {width} pixels, height x width) {mismatch}",
                fix="Nothing was written. Try another --opset or --outputs, and tell the authors of ymir-tmi.",
            ) from None
        largest = {name: max(value, largest.get(name, 0.0)) for name, value in differences.items()}
        detections += int(given[-1].sum()) if file.info.outputs == "detections" else 0
    return Agreement(len(pictures), detections if file.info.outputs == "detections" else None, largest, allowed)


def _inputs(info: ExportInfo, pictures: Sequence[Image]) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield a batch (B, H, W, 3) for each picture: the picture, and copies of it that are moved to the side."""
    for number, picture in enumerate(pictures, 1):
        framed, _ = letterbox(picture, info.spec.input)
        size = info.input.batch or 1 + number % 2
        yield np.stack([np.roll(framed, 24 * copy, axis=1) for copy in range(size)])


def _run_both(
    file: ExportedFile, model: Network, graph: ExportGraph, inputs: npt.NDArray[np.uint8]
) -> tuple[Arrays, tuple[Tensor, ...]]:
    """Return what the file and the model make of letterboxed (B, H, W, 3) pictures."""
    pixels = torch.from_numpy(inputs).permute(0, 3, 1, 2)
    normalised = model.normalize(pixels)
    if isinstance(graph, NormalisingGraph):
        expected = graph.finish(model(normalised), pixels)
        arranged = as_input(inputs, file.info.input)
    else:
        expected = PlainGraph(model)(normalised)
        arranged = normalised.contiguous().numpy()
    try:
        given = file.run(arranged)
    except Exception as error:  # the libraries' errors have no base class of their own
        reason = str(error).strip().partition("\n")[0]
        raise MismatchError(f"it fails: {reason}") from error
    if not all(tensor.isfinite().all() for tensor in expected):
        raise ModelError("the outputs of this model are not numbers", fix="Export a model that has been trained well.")
    return given, expected


def _compare(info: ExportInfo, given: Arrays, expected: tuple[Tensor, ...], allowed: float) -> dict[str, float]:
    if info.outputs == "detections":
        return _compare_detections(info, given, expected, allowed)
    if info.outputs == "decoded" and info.spec.task == "rotated":
        given = [_turn_alike(given[0], expected[0]), *given[1:]]
    outputs = zip(info.output_names, given, expected, strict=True)
    return {name: _difference(name, theirs, ours, allowed) for name, theirs, ours in outputs}


def _turn_alike(boxes: npt.NDArray[Any], expected: Tensor) -> npt.NDArray[Any]:
    """Return (B, P, 5) rotated boxes with the angles, of all that mean the same, that come nearest to the expected.

    Rounding may turn an angle near the border of its range by half a circle.
    """
    if boxes.shape != tuple(expected.shape):
        return boxes
    turned = boxes.copy()
    turned[..., 4] += np.pi * np.round((expected[..., 4].numpy() - boxes[..., 4]) / np.pi)
    return turned


def _difference(name: str, given: npt.NDArray[Any], expected: Tensor, allowed: float) -> float:
    if given.shape != tuple(expected.shape):
        raise MismatchError(f"'{name}' has the shape {list(given.shape)} in place of {list(expected.shape)}")
    scale = max(1.0, float(expected.abs().max()))
    difference = float((torch.from_numpy(given) - expected).abs().max()) / scale
    if not difference <= allowed:
        raise MismatchError(f"'{name}' differs by {difference:.2g} of its largest number, and {allowed:g} is allowed")
    return difference


def _compare_detections(
    info: ExportInfo, given: Arrays, expected: tuple[Tensor, ...], allowed: float
) -> dict[str, float]:
    spec, limit = info.spec.postprocess, info.spec.postprocess.max_detections
    boxes, scores, labels, count = map(torch.from_numpy, given)
    if [list(tensor.shape) for tensor in (boxes, scores, labels, count)] != [
        [len(expected[0]), limit, 4], [len(expected[0]), limit], [len(expected[0]), limit], [len(expected[0])],
    ]:  # fmt: skip
        raise MismatchError("the outputs have other shapes")
    largest = {"boxes": 0.0, "scores": 0.0}
    for row, number in enumerate(count.tolist()):
        found = Found(boxes[row, :number], scores[row, :number], labels[row, :number])
        for name, value in compare_detections(found, expected[0][row], expected[1][row], spec, allowed).items():
            largest[name] = max(largest[name], value)
    return largest
