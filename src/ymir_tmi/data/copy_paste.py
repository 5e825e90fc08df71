"""Objects of a picture pasted into it once more, mirrored.

Sources: Ghiasi et al., "Simple Copy-Paste is a Strong Data Augmentation Method for Instance Segmentation" (CVPR 2021),
in the form that YOLOv5 trains with (docs/specs/yolov5.md, section 11).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ymir_tmi.data.sample import Boxes, Sample, objects_together
from ymir_tmi.data.transforms import flip_horizontal

_MOST_HIDDEN = 0.3


def copy_paste(sample: Sample, share: float, rng: np.random.Generator) -> Sample:
    """Paste a random share of the objects where the mirrored picture has them.

    An object is pasted if its box covers less than 30 % of the box of every other one, those pasted before among them.

    Args:
        sample: a picture whose objects have outlines; others are returned as they are.
        share: of the objects, rounded to a whole number of them.
        rng: where random draws come from.
    """
    chosen = rng.choice(len(sample.boxes), round(share * len(sample.boxes)), replace=False)
    if sample.outlines is None or not len(chosen):
        return sample
    mirrored = flip_horizontal(sample)
    pasted: list[int] = []
    free = chosen[(_hidden(sample.boxes, mirrored.boxes[chosen]) < _MOST_HIDDEN).all(axis=1)]
    for row in free.tolist():
        if (_hidden(mirrored.boxes[pasted], mirrored.boxes[[row]]) < _MOST_HIDDEN).all():
            pasted.append(row)
    copies = mirrored.keep(np.isin(np.arange(len(sample.boxes)), pasted))
    assert copies.outlines is not None
    places, _ = copies.outlines.pixels(*sample.size)
    image = sample.image.copy()
    image.reshape(-1, 3)[places] = mirrored.image.reshape(-1, 3)[places]
    return objects_together(image, [sample, copies])


def _hidden(boxes: Boxes, above: Boxes) -> npt.NDArray[np.float32]:
    """Return (m, n) which part of each of n boxes is covered by each of m boxes above them."""
    corners = np.maximum(boxes[:, :2], above[:, None, :2]), np.minimum(boxes[:, 2:], above[:, None, 2:])
    shared = (corners[1] - corners[0]).clip(0).prod(axis=2)
    hidden: npt.NDArray[np.float32] = shared / (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return hidden
