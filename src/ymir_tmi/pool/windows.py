"""Large images in a pass: what was found in their windows becomes one result for each image."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from ymir_tmi.data.tiles import Tiling, Window
from ymir_tmi.geometry.nms import class_aware_nms, rotated_nms
from ymir_tmi.geometry.rotated import hulls
from ymir_tmi.models.interface import Detections, PostprocessSpec
from ymir_tmi.pool.consumer import Consumer, ImageResult, Row, WindowConsumer

_NEAR = 0.01  # of a window's size: as exactly as a network tells where an object ends


@dataclass
class _Open:
    """An image of which not all windows have come back from the network.

    Attributes:
        path: the picture file.
        size: its width and height.
        order: its windows, row by row.
        windows: what is found in each.
        rows: what the consumers that are shown windows say about each, by the name of the consumer.
    """

    path: str
    size: tuple[int, int]
    order: list[Window]
    windows: dict[Window, Detections | None] = field(default_factory=dict)
    rows: dict[str, dict[Window, Row]] = field(default_factory=dict)


class WindowJoiner:
    """Takes the results of windows as they come and shows the consumers each image once all of its windows are there.

    Of a window no more is kept than its detections and the rows of those consumers that are shown windows.

    Args:
        consumers: of the pass.
        tiling: how images are cut.
        spec: threshold and limit of the NMS that joins the windows.
        seed_of: returns the seed of an image by its path.
    """

    def __init__(
        self, consumers: Sequence[Consumer], tiling: Tiling, spec: PostprocessSpec, seed_of: Callable[[str], int]
    ) -> None:
        self._consumers = consumers
        self._tiling = tiling
        self._spec = spec
        self._seed_of = seed_of
        self._open: dict[int, _Open] = {}

    def add(self, results: Sequence[ImageResult]) -> Iterator[tuple[int, dict[str, Row]]]:
        """Take results of windows; yield the position and the rows, by consumer, of each image that is complete now."""
        if not results:
            return
        for consumer in self._consumers:
            if isinstance(consumer, WindowConsumer):
                for result, row in zip(results, consumer.consume(results), strict=True):
                    image, window = self._place(result)
                    image.rows.setdefault(consumer.name, {})[window] = row
        for result in results:
            image, window = self._place(result)
            image.windows[window] = result.detections
            if len(image.windows) == len(image.order):
                yield result.position, self._rows(result.position, self._open.pop(result.position))

    def _place(self, result: ImageResult) -> tuple[_Open, Window]:
        """Return the image that a window belongs to, and the window."""
        assert result.tile is not None
        window, size = result.tile
        if result.position not in self._open:
            self._open[result.position] = _Open(result.path, size, self._tiling.windows(*size))
        return self._open[result.position], window

    def _rows(self, position: int, image: _Open) -> dict[str, Row]:
        parts = [(window, found) for window in image.order if (found := image.windows[window]) is not None]
        whole = ImageResult(
            position=position,
            path=image.path,
            size=image.size,
            frame=None,
            seed=self._seed_of(image.path),
            detections=join_windows(parts, image.size, self._spec) if parts else None,
        )
        return {
            consumer.name: consumer.join(whole, [image.rows[consumer.name][window] for window in image.order])
            if isinstance(consumer, WindowConsumer)
            else consumer.consume([whole])[0]
            for consumer in self._consumers
        }


def join_windows(
    parts: Sequence[tuple[Window, Detections]], size: tuple[int, int], spec: PostprocessSpec
) -> Detections:
    """Return what was found in an image from what was found in its windows, best first.

    An object on a seam is found in several windows. What a window shows only a part of is dropped where another window
    shows that part and what lies around it; what is then left of an object is joined by NMS, class by class. An object
    that is smaller than the overlap of the windows is whole in one of them, and so is found once.

    Args:
        parts: the windows, with detections in pixels of the window.
        size: (width, height) of the image.
        spec: `iou_threshold` and `max_detections` are those of the image.
    """
    windows = [window for window, _ in parts]
    kept = [found[_nowhere_better(found, window, windows, size)] for window, found in parts]
    boxes = np.concatenate([_moved(found, window) for (window, _), found in zip(parts, kept, strict=True)])
    together = Detections(
        boxes,
        np.concatenate([found.scores for found in kept]),
        np.concatenate([found.labels for found in kept]),
        np.concatenate([found.class_scores for found in kept]),
    )
    suppress = rotated_nms if together.is_rotated else class_aware_nms
    places, scores, labels = map(torch.from_numpy, (boxes, together.scores, together.labels))
    rows = suppress(places, scores, labels, spec.iou_threshold, limit=spec.max_detections)
    return together[rows.numpy()]


def _moved(found: Detections, window: Window) -> npt.NDArray[np.float32]:
    """Return the boxes in pixels of the image."""
    shift = [window.x, window.y, 0, 0, 0] if found.is_rotated else [window.x, window.y] * 2
    return found.boxes + np.array(shift, np.float32)


def _nowhere_better(
    found: Detections, window: Window, windows: Sequence[Window], size: tuple[int, int]
) -> npt.NDArray[np.bool_]:
    """Return (n,) whether no other window shows more of a detection that ends at a seam of this window."""
    near = _NEAR * max(window.width, window.height)
    moved = _moved(found, window)
    boxes = hulls(torch.from_numpy(moved)).numpy() if found.is_rotated else moved
    x, y, width, height = window
    visible = np.clip(boxes, [x, y, x, y], [x + width, y + height, x + width, y + height])
    is_cut = _clearance(visible, window, size) <= near
    seen_elsewhere = np.zeros(len(found), np.bool_)
    for other in windows:
        if other != window and _meet(other, window):
            seen_elsewhere |= _clearance(visible, other, size) > near
    return ~(is_cut & seen_elsewhere)


def _meet(first: Window, second: Window) -> bool:
    return abs(first.x - second.x) < first.width and abs(first.y - second.y) < first.height


def _clearance(boxes: npt.NDArray[np.float32], window: Window, size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Return (n,) how far boxes are from the nearest seam of a window, negative where they reach beyond it."""
    x, y, width, height = window
    far = np.float32(np.inf)
    gaps = [
        boxes[:, 0] - x if x > 0 else far,
        boxes[:, 1] - y if y > 0 else far,
        x + width - boxes[:, 2] if x + width < size[0] else far,
        y + height - boxes[:, 3] if y + height < size[1] else far,
    ]
    clearance: npt.NDArray[np.float32] = np.minimum.reduce(
        [np.broadcast_to(np.asarray(gap, np.float32), len(boxes)) for gap in gaps]
    )
    return clearance
