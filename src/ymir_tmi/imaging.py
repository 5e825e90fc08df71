"""Pictures: decode, encode, resize, warp. The only module that imports OpenCV.

Every image in this package is RGB, `uint8`, of shape (H, W, 3).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from ymir_tmi.errors import ImageError
from ymir_tmi.files.atomic import write_bytes

Image = npt.NDArray[np.uint8]
Interpolation = Literal["nearest", "bilinear", "area"]

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})

# Decoding runs in several threads or worker processes of ours; OpenCV's own pool would fight with them.
cv2.setNumThreads(1)

_INTERPOLATION = {"nearest": cv2.INTER_NEAREST, "bilinear": cv2.INTER_LINEAR, "area": cv2.INTER_AREA}


def read_image(path: str | Path, *, annotated_size: tuple[int, int] | None = None) -> Image:
    """Read a picture as RGB `uint8` (H, W, 3).

    Grey is repeated to three channels, alpha is dropped, 16-bit values are scaled to 8 bit (65535 -> 255) and CMYK is
    converted. A picture with an EXIF orientation is turned upright, unless `annotated_size` is the size of the stored,
    unturned picture: then it is left as stored, so that its boxes fit.

    Args:
        path: The file.
        annotated_size: (width, height) that the annotation states, if it states one.

    Raises:
        ImageError: the file is missing, empty, truncated, of a kind that cannot be read, or of another size than the
            annotation states.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImageError(f"cannot read this picture: {error.strerror}", where=path) from error
    return decode_image(data, where=path, annotated_size=annotated_size)


def decode_image(data: bytes, *, where: str | Path, annotated_size: tuple[int, int] | None = None) -> Image:
    """Decode the bytes of a picture file; see `read_image`. `where` names it in messages."""
    problem = _truncation(data)
    if problem:
        raise ImageError(problem, where=where)
    image = _decode(data, where, upright=True)
    if annotated_size is None or _size(image) == annotated_size:
        return image
    stored = _decode(data, where, upright=False)
    if _size(stored) == annotated_size:
        return stored
    width, height = _size(image)
    raise ImageError(
        f"the annotation says {annotated_size[0]} x {annotated_size[1]} pixels, the picture has {width} x {height}",
        where=where,
        fix="Correct the size in the annotation, or the picture; its boxes cannot be trusted as it is.",
    )


def write_image(path: str | Path, image: Image, *, jpeg_quality: int = 90) -> None:
    """Write an RGB picture in the format of the path's suffix, atomically."""
    write_bytes(path, encode_image(image, Path(path).suffix, jpeg_quality=jpeg_quality))


def encode_image(image: Image, suffix: str, *, jpeg_quality: int = 90) -> bytes:
    """Return the bytes of an RGB picture in the format of `suffix` (".jpg", ".png", ...)."""
    options = [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality] if suffix.lower() in {".jpg", ".jpeg"} else []
    ok, buffer = cv2.imencode(suffix, image[..., ::-1], options)
    assert ok, f"OpenCV cannot write {suffix}"
    return bytes(buffer)


def resize(image: Image, width: int, height: int, interpolation: Interpolation) -> Image:
    """Resize to exactly `width` x `height` pixels."""
    if _size(image) == (width, height):
        return image
    return _as_image(cv2.resize(image, (width, height), interpolation=_INTERPOLATION[interpolation]))


def warp_affine(image: Image, matrix: npt.NDArray[Any], width: int, height: int, *, fill: int | None) -> Image:
    """Warp by a (2, 3) matrix that maps source to output pixels; bilinear.

    Outside is `fill`, or the nearest pixel of the border where `fill` is None.
    """
    return _as_image(
        cv2.warpAffine(
            image,
            np.asarray(matrix, np.float64)[:2],
            (width, height),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE if fill is None else cv2.BORDER_CONSTANT,
            borderValue=(fill or 0,) * 3,
        )
    )


def flip_horizontal(image: Image) -> Image:
    """Mirror left and right."""
    return _as_image(cv2.flip(image, 1))


def blend(first: Image, second: Image, ratio: float) -> Image:
    """Return `ratio * first + (1 - ratio) * second`, rounded."""
    return _as_image(cv2.addWeighted(first, ratio, second, 1 - ratio, 0))


def map_values(image: Image, tables: npt.NDArray[np.uint8]) -> Image:
    """Replace every value by its entry in the channel's table; `tables` is (3, 256)."""
    return _as_image(cv2.LUT(image, np.ascontiguousarray(tables.T[None])))


def rgb_to_hsv(image: Image) -> Image:
    """Return hue in [0, 180), saturation and value in [0, 255]."""
    return _as_image(cv2.cvtColor(image, cv2.COLOR_RGB2HSV))


def hsv_to_rgb(image: Image) -> Image:
    """Invert `rgb_to_hsv`."""
    return _as_image(cv2.cvtColor(image, cv2.COLOR_HSV2RGB))


def draw_rectangle(image: Image, box: npt.NDArray[Any], colour: tuple[int, int, int], thickness: int) -> None:
    """Draw the outline of an xyxy `box` into `image`, in place."""
    x1, y1, x2, y2 = (round(float(value)) for value in box)
    cv2.rectangle(image, (x1, y1), (x2, y2), colour, thickness, cv2.LINE_AA)


def draw_label(image: Image, text: str, corner: tuple[int, int], colour: tuple[int, int, int], scale: float) -> None:
    """Write `text` on a filled background whose lower left corner is `corner`, in place, kept inside the image."""
    thickness = max(1, round(scale * 1.5))
    (width, height), baseline = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thickness)
    x = max(0, min(corner[0], image.shape[1] - width))
    y = max(height + baseline, corner[1])
    cv2.rectangle(image, (x, y - height - baseline), (x + width, y), colour, cv2.FILLED)
    ink = (0, 0, 0) if sum(colour) > 380 else (255, 255, 255)
    cv2.putText(image, text, (x, y - baseline), cv2.FONT_HERSHEY_SIMPLEX, scale, ink, thickness, cv2.LINE_AA)


def _decode(data: bytes, where: str | Path, *, upright: bool) -> Image:
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
    if not upright:
        flags |= cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise ImageError(f"cannot decode this picture: {error.err}", where=where) from error
    if image is None:
        raise ImageError("this is not a picture that can be decoded", where=where)
    return _to_rgb8(image, where)


def _to_rgb8(image: npt.NDArray[Any], where: str | Path) -> Image:
    if image.dtype == np.uint16:
        image = cv2.convertScaleAbs(image, alpha=255 / 65535)
    if image.dtype != np.uint8:
        raise ImageError(
            f"pixels of type {image.dtype} have no fixed range",
            where=where,
            fix="Convert the picture to 8 or 16 bits per channel.",
        )
    return _as_image(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))


def _truncation(data: bytes) -> str | None:
    """Say how a file is cut short. OpenCV decodes such files to pictures that are grey from somewhere on."""
    if not data:
        return "this file is empty"
    if data.startswith(b"\xff\xd8"):  # JPEG: the end marker must follow the last scan (a thumbnail has its own)
        if data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda"):
            return "this JPEG is cut short"
    elif data.startswith(b"\x89PNG") and b"IEND" not in data[-4096:]:
        return "this PNG is cut short"
    return None


def _size(image: Image) -> tuple[int, int]:
    return image.shape[1], image.shape[0]


def _as_image(array: npt.NDArray[Any]) -> Image:
    return np.ascontiguousarray(array, dtype=np.uint8)
