"""Drawn pictures with exact boxes: textured grounds with overlapping objects of several classes and sizes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ymir_tmi import imaging
from ymir_tmi.files.atomic import write_json, write_text
from ymir_tmi.imaging import Image

CLASS_NAMES = ("coin", "tile", "star", "ring")

_SIZE = (256, 192)
_HIDDEN = 0.35  # an object of which less than this is visible is not annotated

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SceneStyle:
    """What a picture is like.

    Attributes:
        objects: fewest and most objects.
        radius: smallest and largest half size of an object in pixels.
        contrast: how far an object's colour lies from the ground's, in [0, 1].
        noise: standard deviation of sensor noise, of 255.
    """

    objects: tuple[int, int] = (2, 6)
    radius: tuple[float, float] = (12, 38)
    contrast: float = 1.0
    noise: float = 4.0


PLAIN = SceneStyle()
# Many small, faint, overlapping objects: what a model trained on plain scenes is unsure about.
INFORMATIVE = SceneStyle(objects=(9, 16), radius=(10, 26), contrast=0.55, noise=10.0)
EMPTY = SceneStyle(objects=(0, 0))


@dataclass
class Scene:
    """A drawn picture: (H, W, 3) uint8, (n, 4) xyxy boxes in pixels, (n,) labels."""

    image: Image
    boxes: list[list[float]] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)


def draw_scene(rng: np.random.Generator, style: SceneStyle) -> Scene:
    """Draw one picture; later objects cover earlier ones, and boxes enclose what stays visible."""
    width, height = _SIZE
    canvas = _ground(rng, width, height)
    owner = np.full((height, width), -1)
    areas, labels = [], []
    for number in range(int(rng.integers(style.objects[0], style.objects[1] + 1))):
        label = int(rng.integers(len(CLASS_NAMES)))
        mask = _shape(rng, label, width, height, rng.uniform(*style.radius))
        canvas = _paint(rng, canvas, mask, style.contrast)
        owner[mask > 0.5] = number
        areas.append(float((mask > 0.5).sum()))
        labels.append(label)
    noisy = canvas + rng.normal(0, style.noise, canvas.shape)
    scene = Scene(np.clip(noisy, 0, 255).astype(np.uint8))
    for number, (area, label) in enumerate(zip(areas, labels, strict=True)):
        rows, columns = np.nonzero(owner == number)
        if len(rows) >= max(30.0, _HIDDEN * area):
            scene.boxes.append([float(v) for v in (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)])
            scene.labels.append(label)
    return scene


def write_data_set(folder: Path, *, seed: int, train: int, val: int, pool: int) -> Path:
    """Draw a data set: COCO files for three splits, pictures, and a data.yaml that names them.

    A third of the pool is informative, a sixth empty, the rest like most training pictures; `pool-truth.json` tells.

    Returns:
        The data.yaml.
    """
    rng = np.random.default_rng(seed)
    styles = {
        "train": [PLAIN if number % 8 else INFORMATIVE for number in range(train)],
        "val": [PLAIN if number % 8 else INFORMATIVE for number in range(val)],
        "pool": [(INFORMATIVE, PLAIN, PLAIN, INFORMATIVE, PLAIN, EMPTY)[number % 6] for number in range(pool)],
    }
    for split, wanted in styles.items():
        _write_split(folder, split, [draw_scene(rng, style) for style in wanted])
    truth = {_file_name("pool", number): style == INFORMATIVE for number, style in enumerate(styles["pool"])}
    write_json(folder / "pool-truth.json", truth)
    names = ", ".join(CLASS_NAMES)
    write_text(
        folder / "data.yaml",
        f"train: train.json\nval: val.json\npool: images/pool-*.jpg\nimages: images\nnames: [{names}]\n",
    )
    return folder / "data.yaml"


def _write_split(folder: Path, split: str, scenes: list[Scene]) -> None:
    width, height = _SIZE
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, scene in enumerate(scenes):
        name = _file_name(split, number)
        imaging.write_image(folder / "images" / name, scene.image)
        images.append({"id": number + 1, "file_name": name, "width": width, "height": height})
        for box, label in zip(scene.boxes, scene.labels, strict=True):
            annotations.append(_annotation(len(annotations) + 1, number + 1, box, label))
    categories = [{"id": label + 1, "name": name} for label, name in enumerate(CLASS_NAMES)]
    write_json(
        folder / f"{split}.json", {"images": images, "annotations": annotations, "categories": categories}, indent=None
    )


def _annotation(number: int, image: int, box: list[float], label: int) -> dict[str, Any]:
    x1, y1, x2, y2 = box
    return {
        "id": number,
        "image_id": image,
        "category_id": label + 1,
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": (x2 - x1) * (y2 - y1),
        "iscrowd": 0,
    }


def _file_name(split: str, number: int) -> str:
    return f"{split}-{number:04d}.jpg"


def _ground(rng: np.random.Generator, width: int, height: int) -> Floats:
    """Return a tinted ground of smooth patches at three scales, (H, W, 3) in 0..255."""
    base = rng.uniform(60, 190, 3)
    texture = np.zeros((height, width, 3))
    for cells, strength in ((4, 30.0), (12, 16.0), (40, 9.0)):
        patches = rng.uniform(-1, 1, (cells, cells, 3))
        coarse = ((patches + 1) * 127.5).astype(np.uint8)
        texture += strength * (imaging.resize(coarse, width, height, "bilinear") / 127.5 - 1)
    return base + texture


def _shape(rng: np.random.Generator, label: int, width: int, height: int, radius: float) -> Floats:
    """Return the soft mask (H, W) in [0, 1] of one object, given by its radius as a function of the angle."""
    x0, y0 = rng.uniform(radius * 0.6, (width - radius * 0.6, height - radius * 0.6))
    ys, xs = np.mgrid[:height, :width] + 0.5
    stretch = rng.uniform(0.75, 1.33)
    dx, dy = (xs - x0) / stretch, ys - y0
    distance = np.hypot(dx, dy)
    angle = np.arctan2(dy, dx) + rng.uniform(0, 2 * np.pi)
    edge = _edge(label, angle) * radius
    mask = np.clip(edge - distance + 0.5, 0, 1)
    if CLASS_NAMES[label] == "ring":
        mask = mask * np.clip(distance - 0.55 * edge + 0.5, 0, 1)
    return np.asarray(mask)


def _edge(label: int, angle: Floats) -> Floats:
    name = CLASS_NAMES[label]
    if name == "tile":
        corner = np.mod(angle, np.pi / 2) - np.pi / 4
        return np.asarray(0.75 / np.cos(corner))
    if name == "star":
        return np.asarray(0.68 + 0.32 * np.cos(5 * angle))
    return np.ones_like(angle)


def _paint(rng: np.random.Generator, canvas: Floats, mask: Floats, contrast: float) -> Floats:
    """Lay one object over the canvas, with a soft shadow, in a colour that differs from the ground's."""
    ground = canvas[mask > 0.5].mean(axis=0) if (mask > 0.5).any() else canvas.mean(axis=(0, 1))
    colour = ground + contrast * np.where(rng.random(3) < 0.5, -1, 1) * rng.uniform(45, 110, 3)
    shading = np.linspace(rng.uniform(0.8, 1.0), rng.uniform(1.0, 1.2), canvas.shape[1])[None, :, None]
    shadow = np.roll(mask, (3, 3), axis=(0, 1))[..., None]
    shaded = canvas * (1 - 0.25 * contrast * shadow)
    return np.asarray(shaded * (1 - mask[..., None]) + colour * shading * mask[..., None])
