"""Pictures to files, each written whole or not at all."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import PIL.Image

from ymir_tmi.files.atomic import write_bytes
from ymir_tmi.imaging.arrays import Image, Values


def write_image(path: str | Path, image: Image, *, jpeg_quality: int = 90) -> None:
    """Write an RGB picture in the format of the path's suffix, atomically."""
    write_bytes(path, encode_image(image, Path(path).suffix, jpeg_quality=jpeg_quality))


def encode_image(image: Image, suffix: str, *, jpeg_quality: int = 90) -> bytes:
    """Return the bytes of an RGB picture in the format of `suffix` (".jpg", ".png", ...)."""
    options = [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality] if suffix.lower() in {".jpg", ".jpeg"} else []
    ok, buffer = cv2.imencode(suffix, image[..., ::-1], options)
    assert ok, f"OpenCV cannot write {suffix}"
    return bytes(buffer)


def write_grey(path: str | Path, values: npt.NDArray[np.uint8]) -> None:
    """Write (H, W) values as a grey PNG, atomically."""
    ok, buffer = cv2.imencode(".png", values)
    assert ok
    write_bytes(path, bytes(buffer))


def write_values(path: str | Path, values: Values, palette: npt.NDArray[np.uint8]) -> None:
    """Write (H, W) numbers as a PNG with a palette of (n, 3) colours, atomically."""
    picture, file = PIL.Image.fromarray(values), io.BytesIO()
    picture.putpalette(palette.tobytes())
    picture.save(file, "png")
    write_bytes(path, file.getvalue())
