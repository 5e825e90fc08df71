"""One annotated picture on its way to the network."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ymir_tmi.geometry.outlines import bounds
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
    """

    image: Image
    boxes: Boxes
    labels: npt.NDArray[np.int64]

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
        return self if mask.all() else Sample(self.image, self.boxes[mask], self.labels[mask])


def move(boxes: Boxes, offset: npt.ArrayLike, scale: npt.ArrayLike = 1) -> Boxes:
    """Return boxes, upright or by their corners, whose every point p comes to lie at `scale * p + offset`."""
    points = boxes.reshape(-1, 2) * np.asarray(scale, np.float32) + np.asarray(offset, np.float32)
    return points.reshape(boxes.shape)
