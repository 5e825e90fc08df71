"""Pictures from files: decoded, turned upright, in eight bits."""

from __future__ import annotations

import io
import mmap
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import PIL.Image
from PIL.PngImagePlugin import PngImageFile

from ymir_tmi.errors import ImageError
from ymir_tmi.imaging.arrays import Image, Values, as_image, size_of
from ymir_tmi.imaging.headers import PNG, TIFF_BYTE_ORDER, read_header, truncation

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})

_AS_STORED = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
_LARGE = 1 << 25  # pixels, 100 megabytes
_SWAPPED_AT_ONCE = 1 << 18  # pixels

_PNG_BITS, _PNG_KIND = 24, 25  # where the header says how many bits a value has, and what it means
_PNG_GREY, _PNG_COLOURS = 0, (2, 6)


def read_image(
    path: str | Path, *, annotated_size: tuple[int, int] | None = None, label_picture: str | None = None
) -> Image:
    """Read a picture as RGB `uint8` (H, W, 3).

    Grey is repeated to three channels, alpha is dropped, 16-bit values are scaled to 8 bit (65535 -> 255) and CMYK is
    converted. A picture with an EXIF orientation is turned upright, unless `annotated_size` is the size of the stored,
    unturned picture: then it is left as stored, so that its boxes fit.

    Args:
        path: The file.
        annotated_size: (width, height) that the annotation states, if it states one.
        label_picture: The file whose size this is, where the annotation is a picture itself.

    Raises:
        ImageError: the file is missing, empty, truncated, of a kind that cannot be read, or of another size than the
            annotation states.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImageError(f"cannot read this picture: {error.strerror}", where=path) from error
    return _upright(data, path, annotated_size, file=path, label_picture=label_picture)


def decode_image(data: bytes, *, where: str | Path, annotated_size: tuple[int, int] | None = None) -> Image:
    """Decode the bytes of a picture file; see `read_image`. `where` names it in messages."""
    return _upright(data, where, annotated_size)


def read_values(path: str | Path) -> Values:
    """Read a PNG whose pixels are numbers, not colours, as `uint8` (H, W).

    Numbers are those that the file stores: of a palette the positions in it, of fewer than 8 bits what is not yet
    scaled up to them. A picture in colours whose channels are all the same is read as one channel.

    Raises:
        ImageError: the file is missing, no PNG or damaged; has 16 bits per pixel; or has colours.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImageError(f"cannot read this label picture: {error.strerror}", where=path) from error
    problem = truncation(data) if data.startswith(PNG) or not data else "a label picture must be a PNG"
    if problem:
        raise ImageError(problem, where=path)
    bits, kind = data[_PNG_BITS], data[_PNG_KIND]
    if bits > 8:
        raise ImageError(
            f"its pixels have {bits} bits", where=path, fix="Save it with 8 bits, a number for each class."
        )
    try:
        with PngImageFile(io.BytesIO(data)) as picture:
            values = np.atleast_3d(np.asarray(picture)).astype(np.uint8)
    except (OSError, SyntaxError, ValueError) as error:
        raise ImageError(f"cannot decode this PNG: {error}", where=path) from error
    if kind in _PNG_COLOURS and (values[..., :3] != values[..., :1]).any():
        raise ImageError(
            "this picture has colours, so that it is unclear which class a pixel has",
            where=path,
            fix="Save it as grey or with a palette: a number for each class.",
        )
    if kind == _PNG_GREY and 1 < bits < 8:  # which the decoder scales to 255
        values //= 255 // (2**bits - 1)
    return np.ascontiguousarray(values[..., 0])


def read_numbers(path: str | Path) -> npt.NDArray[np.int32]:
    """Read a picture whose pixels are numbers, not colours, as (H, W): grey of 8 or 16 bits, or places in a palette.

    It is not turned, whatever EXIF says.

    Raises:
        ImageError: the file is missing or no picture, or has colours.
    """
    try:
        with PIL.Image.open(path) as image:
            values = np.asarray(image)
    except OSError as error:
        what = error.strerror or "this is not a picture that can be decoded, or it is cut short"
        raise ImageError(f"cannot read this picture: {what}", where=path) from error
    if values.ndim == 3:  # the last of two or four channels is alpha
        colours = values[..., : values.shape[2] - (values.shape[2] + 1) % 2]
        if (colours != colours[..., :1]).any():
            raise ImageError("this picture has colours where numbers are expected", where=path)
        values = colours[..., 0]
    return values.astype(np.int32)


def image_size(path: str | Path, *, as_stored: bool = False) -> tuple[int, int]:
    """Return (width, height) of a picture as `read_image` turns it, from the first bytes of the file where they tell.

    With `as_stored` they are those of the picture before it is turned.

    Raises:
        ImageError: the file is missing, empty or no picture. A picture that is cut short may go unnoticed.
    """
    path = Path(path)
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            header = read_header(data)
    except OSError as error:
        raise ImageError(f"cannot read this picture: {error.strerror}", where=path) from error
    except ValueError as error:  # an empty file cannot be mapped
        raise ImageError("this file is empty", where=path) from error
    swapped = header.orientation >= 5
    if header.width and header.height:
        width, height = (header.height, header.width) if swapped else (header.width, header.height)
    else:
        width, height = size_of(read_image(path))
    return (height, width) if swapped and as_stored else (width, height)


def _upright(
    data: bytes,
    where: str | Path,
    annotated_size: tuple[int, int] | None,
    *,
    file: Path | None = None,
    label_picture: str | None = None,
) -> Image:
    """Decode a picture and turn it as `read_image` says; `file` is what the bytes were read from."""
    problem = truncation(data)
    if problem:
        raise ImageError(problem, where=where)
    stored, orientation = _decode(data, where, file), read_header(data).orientation
    image = _turn(stored, orientation)
    if annotated_size is None or size_of(image) == annotated_size:
        return image
    if size_of(stored) == annotated_size:
        return stored
    (width, height), (stated_width, stated_height) = size_of(image), annotated_size
    if label_picture is not None:
        raise ImageError(
            f"the label picture {label_picture} has {stated_width} x {stated_height} pixels, its picture has "
            f"{width} x {height}",
            where=where,
            fix="Save both in one size: every pixel of the picture has its class at the same place.",
        )
    raise ImageError(
        f"the annotation says {stated_width} x {stated_height} pixels, the picture has {width} x {height}",
        where=where,
        fix="Correct the size in the annotation, or the picture; its boxes cannot be trusted as it is.",
    )


def _decode(data: bytes, where: str | Path, file: Path | None) -> Image:
    """Decode the picture as it is stored, not turned."""
    try:
        image = _decode_large(data, file)
        if image is None:
            image = cv2.imdecode(np.frombuffer(data, np.uint8), _AS_STORED)
    except cv2.error as error:
        raise ImageError(f"cannot decode this picture: {error.err}", where=where) from error
    if image is None:
        raise ImageError("this is not a picture that can be decoded", where=where)
    if data[:4] in TIFF_BYTE_ORDER:  # OpenCV turns these whatever the flags say
        image = _turn(image, _INVERSE_TURN.get(read_header(data).orientation, 1))
    return _to_rgb8(image, where)


def _decode_large(data: bytes, file: Path | None) -> npt.NDArray[Any] | None:
    """Decode a large picture from its file: what OpenCV decodes from memory is in memory twice for a moment.

    Returns None for other pictures, and where OpenCV is too old (before 4.11) to take flags in this place.
    """
    header = read_header(data)
    if file is None or header.width * header.height < _LARGE:
        return None
    try:
        return cv2.imread(str(file), None, _AS_STORED)
    except (cv2.error, TypeError):
        return None


def _to_rgb8(image: npt.NDArray[Any], where: str | Path) -> Image:
    if image.dtype == np.uint16:
        image = cv2.convertScaleAbs(image, alpha=255 / 65535)
    if image.dtype != np.uint8:
        raise ImageError(
            f"pixels of type {image.dtype} have no fixed range",
            where=where,
            fix="Convert the picture to 8 or 16 bits per channel.",
        )
    step = max(1, _SWAPPED_AT_ONCE // max(1, image.shape[1]))
    for start in range(0, len(image), step):  # in place: an aerial picture may have a gigabyte
        rows = image[start : start + step]
        rows[...] = cv2.cvtColor(rows, cv2.COLOR_BGR2RGB)
    return as_image(image)


# EXIF orientation -> how the stored picture is turned upright: transposed or not, then every n-th row and column.
_TURNS = {
    1: (False, 1, 1),
    2: (False, 1, -1),
    3: (False, -1, -1),
    4: (False, -1, 1),
    5: (True, 1, 1),
    6: (True, 1, -1),
    7: (True, -1, -1),
    8: (True, -1, 1),
}
_INVERSE_TURN = {2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}


def _turn(image: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """Turn an (H, W, 3) picture by its EXIF orientation."""
    transposed, rows, columns = _TURNS[orientation]
    if transposed:
        image = image.transpose(1, 0, 2)
    return np.ascontiguousarray(image[::rows, ::columns])
