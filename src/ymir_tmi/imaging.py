"""Pictures: decode, encode, resize, warp. The only module that imports OpenCV and Pillow.

Every image in this package is RGB, `uint8`, of shape (H, W, 3).
"""

from __future__ import annotations

import importlib.metadata
import io
import math
import mmap
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import PIL.Image
from PIL.PngImagePlugin import PngImageFile

from ymir_tmi.errors import DependencyError, ImageError
from ymir_tmi.files.atomic import write_bytes

Image = npt.NDArray[np.uint8]
Values = npt.NDArray[np.uint8]
Interpolation = Literal["nearest", "bilinear", "bicubic", "area", "antialias"]
"""`antialias`: bilinear as Pillow does it, over as many pixels as become one."""

SuperpixelMethod = Literal["slico", "slic", "mslic", "seeds"]
"""`slico`: SLIC that finds its own compactness; `mslic`: smaller superpixels where there is more to see."""

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})

# What OpenCV says about a broken picture on standard error, an `ImageError` says with the picture's name.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
# Decoding runs in several threads or worker processes of ours; OpenCV's own pool would fight with them.
cv2.setNumThreads(1)

_AS_STORED = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
_LARGE = 1 << 25  # pixels, 100 megabytes
_SWAPPED_AT_ONCE = 1 << 18  # pixels

_SMALLEST_SIDE = 8  # of a picture that is cut into superpixels

_INTERPOLATION = {
    "nearest": cv2.INTER_NEAREST,
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_AREA,
}


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
    return _upright(data, path, annotated_size, file=path)


def decode_image(data: bytes, *, where: str | Path, annotated_size: tuple[int, int] | None = None) -> Image:
    """Decode the bytes of a picture file; see `read_image`. `where` names it in messages."""
    return _upright(data, where, annotated_size)


def _upright(
    data: bytes, where: str | Path, annotated_size: tuple[int, int] | None, *, file: Path | None = None
) -> Image:
    """Decode a picture and turn it as `read_image` says; `file` is what the bytes were read from."""
    problem = _truncation(data)
    if problem:
        raise ImageError(problem, where=where)
    stored, orientation = _decode(data, where, file), _header(data).orientation
    image = _turn(stored, orientation)
    if annotated_size is None or _size(image) == annotated_size:
        return image
    if _size(stored) == annotated_size:
        return stored
    width, height = _size(image)
    raise ImageError(
        f"the annotation says {annotated_size[0]} x {annotated_size[1]} pixels, the picture has {width} x {height}",
        where=where,
        fix="Correct the size in the annotation, or the picture; its boxes cannot be trusted as it is.",
    )


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
    problem = _truncation(data) if data.startswith(_PNG) or not data else "a label picture must be a PNG"
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


def write_values(path: str | Path, values: Values, palette: npt.NDArray[np.uint8]) -> None:
    """Write (H, W) numbers as a PNG with a palette of (n, 3) colours, atomically."""
    picture, file = PIL.Image.fromarray(values), io.BytesIO()
    picture.putpalette(palette.tobytes())
    picture.save(file, "png")
    write_bytes(path, file.getvalue())


def image_size(path: str | Path, *, as_stored: bool = False) -> tuple[int, int]:
    """Return (width, height) of a picture as `read_image` turns it, from the first bytes of the file where they tell.

    With `as_stored` they are those of the picture before it is turned.

    Raises:
        ImageError: the file is missing, empty or no picture. A picture that is cut short may go unnoticed.
    """
    path = Path(path)
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            header = _header(data)
    except OSError as error:
        raise ImageError(f"cannot read this picture: {error.strerror}", where=path) from error
    except ValueError as error:  # an empty file cannot be mapped
        raise ImageError("this file is empty", where=path) from error
    width, height = header.width, header.height
    if not (width and height):
        width, height = _size(_decode(path.read_bytes(), path, path))
    return (height, width) if header.orientation >= 5 and not as_stored else (width, height)


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
    if interpolation == "antialias":
        return np.array(PIL.Image.fromarray(image).resize((width, height), PIL.Image.Resampling.BILINEAR))
    return _as_image(cv2.resize(image, (width, height), interpolation=_INTERPOLATION[interpolation]))


def resize_values(values: Values, width: int, height: int) -> Values:
    """Resize (H, W) numbers to exactly `width` x `height`: each is the one whose pixel the middle of the new one is in.

    So they lie where a picture lies that is resized bilinearly; OpenCV's other kind of "nearest" moves them by up to
    half a pixel.
    """
    return _as_image(cv2.resize(values, (width, height), interpolation=cv2.INTER_NEAREST_EXACT))


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


def warp_perspective(image: Image, matrix: npt.NDArray[Any], width: int, height: int, *, fill: int) -> Image:
    """Warp by a (3, 3) matrix that maps source to output pixels in homogeneous coordinates; bilinear."""
    size = (width, height)
    return _as_image(cv2.warpPerspective(image, matrix, size, flags=cv2.INTER_LINEAR, borderValue=(fill,) * 3))


def flip_horizontal(image: Image) -> Image:
    """Mirror left and right."""
    return _as_image(cv2.flip(image, 1))


def flip_vertical(image: Image) -> Image:
    """Turn upside down, without turning left and right."""
    return _as_image(cv2.flip(image, 0))


def smallest_rectangle(points: npt.NDArray[Any]) -> tuple[float, float, float, float, float]:
    """Return (cx, cy, w, h, angle) of the smallest rectangle around (n, 2) points; radians, not in any one form."""
    origin = points.mean(axis=0)  # OpenCV computes in float32
    (x, y), (w, h), degrees = cv2.minAreaRect((points - origin).astype(np.float32))
    return x + float(origin[0]), y + float(origin[1]), w, h, math.radians(degrees)


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


def without_colour(image: Image) -> Image:
    """Return the luma of every pixel in all three channels."""
    return _as_image(cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB))


def blur(image: Image, side: int) -> Image:
    """Replace every pixel by the mean of the `side` x `side` pixels around it; `side` is odd."""
    return _as_image(cv2.blur(image, (side, side)))


def blur_by_median(image: Image, side: int) -> Image:
    """Replace every value by the median of the `side` x `side` values around it; `side` is odd."""
    return _as_image(cv2.medianBlur(image, side))


def equalize(image: Image, limit: float) -> Image:
    """Stretch the lightness in each of 8 x 8 tiles, by at most `limit` times (CLAHE, Zuiderveld 1994)."""
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    lab[..., 0] = cv2.createCLAHE(clipLimit=limit, tileGridSize=(8, 8)).apply(np.ascontiguousarray(lab[..., 0]))
    return _as_image(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB))


def simplify_outline(points: npt.NDArray[Any], tolerance: float) -> npt.NDArray[np.float32]:
    """Return (m, 2) some of the (n, 2) points of a closed line, which stays within `tolerance` of the line before."""
    return np.asarray(cv2.approxPolyDP(np.asarray(points, np.float32)[:, None], tolerance, True)[:, 0], np.float32)


def require_superpixels() -> None:
    """Raise unless the installed OpenCV has superpixels.

    Raises:
        DependencyError: it lacks its `ximgproc` module; the message names the distributions that are installed.
    """
    if hasattr(cv2, "ximgproc"):
        return
    found = sorted(set(importlib.metadata.packages_distributions().get("cv2", [])))
    raise DependencyError(
        f"superpixels need OpenCV's ximgproc module, which is missing; installed: {', '.join(found) or 'none'}",
        fix=f"Run: pip uninstall {' '.join(found)}; then: pip install opencv-contrib-python-headless",
    )


def slic_superpixels(image: Image, side: int, method: Literal["slico", "slic", "mslic"]) -> npt.NDArray[np.int32]:
    """Return (H, W) the number of the superpixel of each pixel; numbers may have gaps.

    Args:
        image: (H, W, 3) RGB.
        side: about the side of a superpixel, in pixels, 2 or more.
        method: which kind of SLIC; `mslic` only where `fits_mslic` says so.

    Raises:
        DependencyError: OpenCV lacks its `ximgproc` module.
    """
    require_superpixels()
    assert method != "mslic" or fits_mslic(image, side)
    height, width = image.shape[:2]
    if side >= max(height, width):
        return np.zeros((height, width), np.int32)
    # OpenCV reads beyond the ends of pictures that are smaller than a superpixel, and crashes.
    pixels = _with_sides_of(image, max(side, _SMALLEST_SIDE))
    kinds = {"slic": cv2.ximgproc.SLIC, "slico": cv2.ximgproc.SLICO, "mslic": cv2.ximgproc.MSLIC}
    superpixels = cv2.ximgproc.createSuperpixelSLIC(pixels, kinds[method], side, 10.0)
    superpixels.iterate(10)
    return np.asarray(superpixels.getLabels()[:height, :width], np.int32)


def fits_mslic(image: Image, side: int) -> bool:
    """Return whether a picture has room for three superpixels of this side either way; with less, OpenCV crashes."""
    return bool(3 * side <= min(image.shape[:2]))


def seeds_superpixels(image: Image, most: int) -> npt.NDArray[np.int32]:
    """Return (H, W) the number of the superpixel of each pixel, below `most`; numbers may have gaps.

    A picture of fewer than 80 pixels, or `most` below 10, is one superpixel: the method cannot make so few.

    Args:
        image: (H, W, 3) RGB.
        most: the largest number of superpixels.

    Raises:
        DependencyError: OpenCV lacks its `ximgproc` module.
    """
    require_superpixels()
    height, width = image.shape[:2]
    count = min(most, height * width // 8)
    if count < 10:
        return np.zeros((height, width), np.int32)
    # Two rows and two columns of superpixels at the least: OpenCV divides by what is below that.
    pixels = _with_sides_of(image, math.ceil(9 * max(height, width) / count))
    superpixels = cv2.ximgproc.createSuperpixelSEEDS(
        pixels.shape[1], pixels.shape[0], 3, count, 5, prior=3, histogram_bins=5, double_step=True
    )
    superpixels.iterate(pixels, 10)
    return np.asarray(superpixels.getLabels()[:height, :width], np.int32)


def _with_sides_of(image: Image, side: int) -> npt.NDArray[np.uint8]:
    """Return the picture in BGR, with its border repeated to the right and below until both sides are `side` long."""
    down, right = (max(0, side - length) for length in image.shape[:2])
    return np.asarray(cv2.copyMakeBorder(image[..., ::-1], 0, down, 0, right, cv2.BORDER_REPLICATE))


def write_grey(path: str | Path, values: npt.NDArray[np.uint8]) -> None:
    """Write (H, W) values as a grey PNG, atomically."""
    ok, buffer = cv2.imencode(".png", values)
    assert ok
    write_bytes(path, bytes(buffer))


def draw_polygon(image: Image, corners: npt.NDArray[Any], colour: tuple[int, int, int], thickness: int) -> None:
    """Draw the closed outline through (n, 2) `corners` (x, y) into `image`, in place, to a sixteenth of a pixel."""
    points = np.rint(np.asarray(corners, np.float64) * 16).astype(np.int32)
    cv2.polylines(image, [points], True, colour, thickness, cv2.LINE_AA, 4)


def draw_label(image: Image, text: str, corner: tuple[int, int], colour: tuple[int, int, int], scale: float) -> None:
    """Write `text` on a filled background whose lower left corner is `corner`, in place, kept inside the image."""
    (width, height), baseline, thickness = _text_size(text, scale)
    x = max(0, min(corner[0], image.shape[1] - width))
    y = max(height + baseline, corner[1])
    cv2.rectangle(image, (x, y - height - baseline), (x + width, y), colour, cv2.FILLED)
    ink = (0, 0, 0) if sum(colour) > 380 else (255, 255, 255)
    cv2.putText(image, text, (x, y - baseline), cv2.FONT_HERSHEY_SIMPLEX, scale, ink, thickness, cv2.LINE_AA)


def label_width(text: str, scale: float) -> int:
    """Return how many pixels wide `draw_label` draws a text."""
    return _text_size(text, scale)[0][0]


def _text_size(text: str, scale: float) -> tuple[tuple[int, int], int, int]:
    """Return (width, height), how far letters reach below the line, and the thickness of the lines, in pixels."""
    thickness = max(1, round(scale * 1.5))
    (width, height), baseline = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thickness)
    return (width, height), baseline, thickness


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
    if data[:4] in _TIFF_BYTE_ORDER:  # OpenCV turns these whatever the flags say
        image = _turn(image, _INVERSE_TURN.get(_header(data).orientation, 1))
    return _to_rgb8(image, where)


def _decode_large(data: bytes, file: Path | None) -> npt.NDArray[Any] | None:
    """Decode a large picture from its file: what OpenCV decodes from memory is in memory twice for a moment.

    Returns None for other pictures, and where OpenCV is too old (before 4.11) to take flags in this place.
    """
    header = _header(data)
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
    return _as_image(image)


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


class _Header(NamedTuple):
    """What a file says before its pixels: the stored size (0 where it does not say) and the EXIF orientation."""

    width: int = 0
    height: int = 0
    orientation: int = 1


_Buffer = bytes | mmap.mmap
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_BITS, _PNG_KIND = 24, 25  # where the header says how many bits a value has, and what it means
_PNG_GREY, _PNG_COLOURS = 0, (2, 6)
_JPEG = b"\xff\xd8"
_JPEG_MARKER = re.compile(rb"\xff[\x02-\xcf\xd8-\xfe]")  # not a restart marker, nor a stuffed 255 of the coded pixels
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_SCAN, _JPEG_END, _JPEG_APP1 = 0xDA, 0xD9, 0xE1
_TIFF_BYTE_ORDER = {b"II*\0": "<", b"MM\0*": ">"}
_TIFF_WIDTH, _TIFF_HEIGHT, _TIFF_ORIENTATION = 256, 257, 274


def _header(data: _Buffer) -> _Header:
    start = data[:16]
    try:
        if start.startswith(_JPEG):
            return _jpeg_header(data)
        if start.startswith(_PNG):
            return _png_header(data)
        if start.startswith(b"RIFF") and start[8:12] == b"WEBP":
            return _webp_header(data)
        if start[:4] in _TIFF_BYTE_ORDER:
            tags = _tiff_tags(data)
            return _Header(tags.get(_TIFF_WIDTH, 0), tags.get(_TIFF_HEIGHT, 0), _orientation(tags))
        if start.startswith(b"GIF8"):
            return _Header(*struct.unpack_from("<HH", data, 6))
        if start.startswith(b"BM") and start[14:16] >= b"\x28":  # older headers than BITMAPINFOHEADER are shorter
            width, height = struct.unpack_from("<ii", data, 18)
            return _Header(width, abs(height))
    except (struct.error, IndexError):  # cut short inside the header
        pass
    return _Header()


def _jpeg_header(data: _Buffer) -> _Header:
    width = height = 0
    orientation = 1
    for marker, start, end in _jpeg_segments(data):
        if marker == _JPEG_SCAN:
            break
        if marker in _JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", data, start + 1)
        elif marker == _JPEG_APP1 and data[start : start + 6] == b"Exif\0\0":
            orientation = _orientation(_tiff_tags(data[start + 6 : end]))
    return _Header(width, height, orientation)


def _jpeg_segments(data: _Buffer) -> Iterator[tuple[int, int, int]]:
    """Yield (marker, start, end) of each segment up to the end marker, the coded pixels between them skipped."""
    position = len(_JPEG)
    while match := _JPEG_MARKER.search(data, position):
        marker, start = data[match.end() - 1], match.end()
        length = 0 if marker == _JPEG_END else int.from_bytes(data[start : start + 2], "big")
        yield marker, start + 2, start + length
        if marker == _JPEG_END:
            return
        position = start + length


def _png_header(data: _Buffer) -> _Header:
    width, height = struct.unpack_from(">II", data, 16)
    exif = (data[start:end] for kind, start, end in _chunks(data, len(_PNG), ">") if kind == b"eXIf")
    return _Header(width, height, _orientation(_tiff_tags(next(exif, b""))))


def _webp_header(data: _Buffer) -> _Header:
    width = height = 0
    orientation = 1
    for kind, start, end in _chunks(data, 12, "<"):
        if kind == b"VP8X":
            width = 1 + int.from_bytes(data[start + 4 : start + 7], "little")
            height = 1 + int.from_bytes(data[start + 7 : start + 10], "little")
        elif kind == b"VP8 ":
            width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, start + 6))
        elif kind == b"VP8L":
            (bits,) = struct.unpack_from("<I", data, start + 1)
            width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        elif kind == b"EXIF":
            orientation = _orientation(_tiff_tags(data[start:end].removeprefix(b"Exif\0\0")))
    return _Header(width, height, orientation)


def _chunks(data: _Buffer, position: int, order: str) -> Iterator[tuple[bytes, int, int]]:
    """Yield (kind, start, end) of each chunk of a PNG (">", with a checksum) or RIFF ("<", padded to even) file."""
    while position + 8 <= len(data):
        if order == ">":
            length, kind = struct.unpack_from(">I4s", data, position)
            after = position + 12 + length
        else:
            kind, length = struct.unpack_from("<4sI", data, position)
            after = position + 8 + length + length % 2
        yield kind, position + 8, position + 8 + length
        position = after


def _tiff_tags(data: _Buffer) -> dict[int, int]:
    """Return the whole-number tags of the first directory of a TIFF file or an EXIF block."""
    order = _TIFF_BYTE_ORDER.get(data[:4])
    tags: dict[int, int] = {}
    if order is None:
        return tags
    (directory,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, directory)
    for entry in range(directory + 2, directory + 2 + 12 * count, 12):
        tag, kind = struct.unpack_from(order + "HH", data, entry)
        if kind in (3, 4):  # 16 or 32 bits
            (tags[tag],) = struct.unpack_from(order + ("H" if kind == 3 else "I"), data, entry + 8)
    return tags


def _orientation(tags: dict[int, int]) -> int:
    orientation = tags.get(_TIFF_ORIENTATION, 1)
    return orientation if orientation in _TURNS else 1


def _truncation(data: bytes) -> str | None:
    """Say how a file is cut short. Some versions of OpenCV decode such files to pictures that are partly grey."""
    if not data:
        return "this file is empty"
    if data.startswith(_JPEG) and all(marker != _JPEG_END for marker, _, _ in _jpeg_segments(data)):
        return "this JPEG is cut short or damaged"
    if data.startswith(_PNG) and all(kind != b"IEND" for kind, _, _ in _chunks(data, len(_PNG), ">")):
        return "this PNG is cut short or damaged"
    return None


def _size(image: Image) -> tuple[int, int]:
    return image.shape[1], image.shape[0]


def _as_image(array: npt.NDArray[Any]) -> Image:
    return np.ascontiguousarray(array, dtype=np.uint8)
