"""What picture files say before and after their pixels: size, orientation, whether they are complete."""

from __future__ import annotations

import mmap
import re
import struct
from collections.abc import Iterator
from typing import NamedTuple


class Header(NamedTuple):
    """What a file says before its pixels: the stored size (0 where it does not say) and the EXIF orientation."""

    width: int = 0
    height: int = 0
    orientation: int = 1


_Buffer = bytes | mmap.mmap
PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8"
_JPEG_MARKER = re.compile(rb"\xff[\x02-\xcf\xd8-\xfe]")  # not a restart marker, nor a stuffed 255 of the coded pixels
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_SCAN, _JPEG_END, _JPEG_APP1 = 0xDA, 0xD9, 0xE1
TIFF_BYTE_ORDER = {b"II*\0": "<", b"MM\0*": ">"}
_TIFF_WIDTH, _TIFF_HEIGHT, _TIFF_ORIENTATION = 256, 257, 274


def read_header(data: _Buffer) -> Header:
    """Return what a picture file says of itself; what it does not say, or cannot be read, is as `Header` has it."""
    start = data[:16]
    try:
        if start.startswith(_JPEG):
            return _jpeg_header(data)
        if start.startswith(PNG):
            return _png_header(data)
        if start.startswith(b"RIFF") and start[8:12] == b"WEBP":
            return _webp_header(data)
        if start[:4] in TIFF_BYTE_ORDER:
            tags = _tiff_tags(data)
            return Header(tags.get(_TIFF_WIDTH, 0), tags.get(_TIFF_HEIGHT, 0), _orientation(tags))
        if start.startswith(b"GIF8"):
            return Header(*struct.unpack_from("<HH", data, 6))
        if start.startswith(b"BM") and start[14:16] >= b"\x28":  # older headers than BITMAPINFOHEADER are shorter
            width, height = struct.unpack_from("<ii", data, 18)
            return Header(width, abs(height))
    except (struct.error, IndexError):  # cut short inside the header
        pass
    return Header()


def _jpeg_header(data: _Buffer) -> Header:
    width = height = 0
    orientation = 1
    for marker, start, end in _jpeg_segments(data):
        if marker == _JPEG_SCAN:
            break
        if marker in _JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", data, start + 1)
        elif marker == _JPEG_APP1 and data[start : start + 6] == b"Exif\0\0":
            orientation = _orientation(_tiff_tags(data[start + 6 : end]))
    return Header(width, height, orientation)


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


def _png_header(data: _Buffer) -> Header:
    width, height = struct.unpack_from(">II", data, 16)
    exif = (data[start:end] for kind, start, end in _chunks(data, len(PNG), ">") if kind == b"eXIf")
    return Header(width, height, _orientation(_tiff_tags(next(exif, b""))))


def _webp_header(data: _Buffer) -> Header:
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
    return Header(width, height, orientation)


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
    order = TIFF_BYTE_ORDER.get(data[:4])
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
    return orientation if 1 <= orientation <= 8 else 1


def truncation(data: bytes) -> str | None:
    """Say how a file is cut short. Some versions of OpenCV decode such files to pictures that are partly grey."""
    if not data:
        return "this file is empty"
    if data.startswith(_JPEG) and all(marker != _JPEG_END for marker, _, _ in _jpeg_segments(data)):
        return "this JPEG is cut short or damaged"
    if data.startswith(PNG) and all(kind != b"IEND" for kind, _, _ in _chunks(data, len(PNG), ">")):
        return "this PNG is cut short or damaged"
    return None
