"""One annotated picture on its way to the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ymir_tmi.geometry.outlines import bounds
from ymir_tmi.geometry.polygons import Polygons
from ymir_tmi.imaging import Image

Boxes = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Sample:
    """A picture and its objects.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        boxes: (n, 4) float32, x1, y1, x2, y2 in pixels of `image`; or (n, 4, 2) float32, the corners (x, y) of rotated
            boxes in their order around the box. Rotated boxes may reach out of the picture.
        labels: (n,) int64, 0-based.
        outlines: of the n objects, for instance segmentation; their boxes are then the smallest around them. None where
            boxes are all there is to learn.
        label_map: (H, W) uint8 class of every pixel, 255 where it does not count, for semantic segmentation, where
            there are no boxes; else None.
    """

    image: Image
    boxes: Boxes
    labels: npt.NDArray[np.int64]
    outlines: Polygons | None = None
    label_map: npt.NDArray[np.uint8] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.image.shape[1], self.image.shape[0]

    @property
    def is_rotated(self) -> bool:
        """Whether `boxes` are corners."""
        return self.boxes.ndim == 3

    @property
    def upright(self) -> Boxes:
        """(n, 4) the boxes, or the smallest upright ones around rotated ones."""
        return bounds(self.boxes) if self.is_rotated else self.boxes

    @property
    def shorter_sides(self) -> Boxes:
        """(n,) shorter side of each box in pixels."""
        if self.is_rotated:
            sides = np.linalg.norm(self.boxes[:, 1:3] - self.boxes[:, 0:2], axis=2)
        else:
            sides = self.boxes[:, 2:] - self.boxes[:, :2]
        shorter: Boxes = np.minimum(sides[:, 0], sides[:, 1])
        return shorter

    def keep(self, mask: npt.NDArray[np.bool_]) -> Sample:
        """Return the sample with the objects where `mask` (n,) is true."""
        if mask.all():
            return self
        outlines = None if self.outlines is None else self.outlines.take(mask)
        return Sample(self.image, self.boxes[mask], self.labels[mask], outlines)

    def moved(self, image: Image, offset: npt.ArrayLike, scale: npt.ArrayLike = 1) -> Sample:
        """Return the objects in another picture, in which every point p of this one lies at `scale * p + offset`."""
        outlines = self.outlines
        if outlines is not None:
            outlines = outlines.with_edges(move(outlines.edges, offset, scale))
        return Sample(image, move(self.boxes, offset, scale), self.labels, outlines)


def objects_together(image: Image, samples: Sequence[Sample]) -> Sample:
    """Return one picture with the objects of several samples, which are given in its pixels."""
    outlines = [sample.outlines for sample in samples if sample.outlines is not None]
    return Sample(
        image,
        np.concatenate([sample.boxes for sample in samples]),
        np.concatenate([sample.labels for sample in samples]),
        Polygons.concatenate(outlines) if len(outlines) == len(samples) else None,
    )


def move(points: Boxes, offset: npt.ArrayLike, scale: npt.ArrayLike = 1) -> Boxes:
    """Return points of any shape, x and y in turns in memory, each of which comes to lie at `scale * p + offset`."""
    moved = points.reshape(-1, 2) * np.asarray(scale, np.float32) + np.asarray(offset, np.float32)
    return moved.reshape(points.shape)
