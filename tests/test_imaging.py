"""Reading pictures, against Pillow and against arrays that the files were made from."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest
import torch
import torch.nn.functional as F

from ymir_tmi import imaging
from ymir_tmi.errors import ImageError
from ymir_tmi.imaging import encode_image, image_size, read_image, reading, resize, write_image

Array = npt.NDArray[np.uint8]
ORIENTATION = 0x0112
# Pillow's names of the turns that make a stored picture upright, by EXIF orientation.
TRANSPOSES = {
    1: None,
    2: PIL.Image.Transpose.FLIP_LEFT_RIGHT,
    3: PIL.Image.Transpose.ROTATE_180,
    4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
    5: PIL.Image.Transpose.TRANSPOSE,
    6: PIL.Image.Transpose.ROTATE_270,
    7: PIL.Image.Transpose.TRANSVERSE,
    8: PIL.Image.Transpose.ROTATE_90,
}
LOSSLESS = {".webp": {"lossless": True}}


def scene(seed: int = 0, shape: tuple[int, int] = (4, 6)) -> Array:
    """Random blocks of 8 x 8 pixels, which JPEG keeps nearly as they are; no turn maps the picture to itself."""
    blocks = np.random.default_rng(seed).integers(0, 256, (*shape, 3))
    return np.kron(blocks, np.ones((8, 8, 1))).astype(np.uint8)


def save(path: Path, image: PIL.Image.Image, orientation: int | None = None) -> Path:
    options = dict(LOSSLESS.get(path.suffix, {}))
    if orientation is not None:
        exif = PIL.Image.Exif()
        exif[ORIENTATION] = orientation
        options["exif"] = exif
    image.save(path, **options)
    return path


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".webp"])
def test_colours_are_read_as_written(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / f"a{suffix}", PIL.Image.fromarray(scene()))
    np.testing.assert_array_equal(read_image(path), scene())
    assert image_size(path) == (48, 32)


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [
        ("L", ".png"),
        ("L", ".tif"),
        ("1", ".png"),  # one bit per pixel
        ("P", ".png"),  # palette
        ("P", ".bmp"),
        ("LA", ".png"),
        ("RGBA", ".png"),  # alpha is dropped, not blended
        ("RGBA", ".webp"),
        ("RGBA", ".tif"),
    ],
)
def test_every_mode_becomes_rgb_as_in_pillow(tmp_path: Path, mode: str, suffix: str) -> None:
    picture = PIL.Image.fromarray(scene()).convert(mode)
    path = save(tmp_path / f"a{suffix}", picture)
    np.testing.assert_array_equal(read_image(path), np.asarray(picture.convert("RGB")))
    assert image_size(path) == (48, 32)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_agrees_with_pillow(tmp_path: Path, mode: str, progressive: bool) -> None:
    path = tmp_path / "a.jpg"
    PIL.Image.fromarray(scene()).convert(mode).save(path, quality=95, progressive=progressive)
    expected = np.asarray(PIL.Image.open(path).convert("RGB")).astype(int)
    assert np.abs(read_image(path) - expected).max() <= 2  # the two decoders round differently
    assert image_size(path) == (48, 32)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bits_are_scaled_to_8(tmp_path: Path, suffix: str, channels: int) -> None:
    values = np.random.default_rng(1).integers(0, 65536, (5, 7, channels), np.uint16)
    values[0, 0], values[0, 1], values[0, 2] = 0, 65535, 32896
    path = tmp_path / f"a{suffix}"
    cv2.imwrite(str(path), values[..., [2, 1, 0, 3][:channels]] if channels > 1 else values)
    expected = np.round(values[..., :3] / 257).astype(np.uint8)
    np.testing.assert_array_equal(read_image(path), np.broadcast_to(expected, (5, 7, 3)))
    assert image_size(path) == (7, 5)


def test_float_pixels_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    cv2.imwrite(str(path), np.zeros((4, 4, 3), np.float32))
    with pytest.raises(ImageError, match="float32"):
        read_image(path)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_orientation(tmp_path: Path, suffix: str, orientation: int) -> None:
    stored = PIL.Image.fromarray(scene())
    turn = TRANSPOSES[orientation]
    upright = stored if turn is None else stored.transpose(turn)
    path = save(tmp_path / f"a{suffix}", stored, orientation)
    tolerance = 12 if suffix == ".jpg" else 0  # the blocks' own loss in JPEG

    def close(image: Array, picture: PIL.Image.Image) -> bool:
        expected = np.asarray(picture).astype(int)
        return image.shape == expected.shape and bool(np.abs(image - expected).mean() <= tolerance)

    assert image_size(path) == upright.size
    assert close(read_image(path), upright)
    assert close(read_image(path, annotated_size=upright.size), upright)
    if upright.size != stored.size:
        assert close(read_image(path, annotated_size=stored.size), stored)
    with pytest.raises(ImageError, match=r"says 11 x 12 pixels, the picture has"):
        read_image(path, annotated_size=(11, 12))


@pytest.mark.parametrize(
    ("suffix", "mode", "orientation"),
    [
        (".jpg", "L", None),
        (".jpg", "RGB", 6),
        (".png", "RGB", 6),
        (".png", "I;16", None),
        (".bmp", "RGB", None),
        (".tif", "RGB", 6),
        (".tif", "I;16", None),
        (".webp", "RGB", 6),
    ],
)
def test_large_pictures_are_what_they_would_be_if_they_were_small(
    tmp_path: Path, suffix: str, mode: str, orientation: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = scene()[..., 0].astype(np.uint16) * 257
    picture = PIL.Image.fromarray(deep) if mode == "I;16" else PIL.Image.fromarray(scene()).convert(mode)
    path = save(tmp_path / f"a{suffix}", picture, orientation)
    small = read_image(path)
    read: list[str] = []

    def imread(name: str, *more: object) -> object:
        read.append(name)
        return imread_of_opencv(name, *more)

    imread_of_opencv = cv2.imread
    monkeypatch.setattr(cv2, "imread", imread)
    monkeypatch.setattr(reading, "_LARGE", 1)
    np.testing.assert_array_equal(read_image(path), small)
    assert read == [str(path)]


def test_large_pictures_are_read_by_an_old_opencv_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def imread(name: str, flags: int = 1) -> object:  # as before OpenCV 4.11
        raise AssertionError("it is not called as it wants to be")

    path = save(tmp_path / "a.png", PIL.Image.fromarray(scene()), 1)
    monkeypatch.setattr(cv2, "imread", imread)
    monkeypatch.setattr(reading, "_LARGE", 1)
    np.testing.assert_array_equal(read_image(path), scene())


def test_unknown_orientation_is_none_at_all(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", PIL.Image.fromarray(scene()), 9)
    np.testing.assert_array_equal(read_image(path), scene())


def jpeg(**options: object) -> bytes:
    file = io.BytesIO()
    PIL.Image.fromarray(scene()).save(file, "JPEG", **options)
    return file.getvalue()


def jpeg_with_thumbnail() -> bytes:
    """A JPEG whose EXIF block holds a whole JPEG, with an end marker of its own."""
    body = b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0" + jpeg()
    plain = jpeg()
    return plain[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + plain[2:]


def png() -> bytes:
    return encode_image(scene(), ".png")


@pytest.mark.parametrize("kept", [0.2, 0.6, 0.95])
@pytest.mark.parametrize(
    "whole",
    [
        pytest.param(jpeg(), id="jpeg"),
        pytest.param(jpeg(progressive=True), id="progressive"),
        pytest.param(jpeg_with_thumbnail(), id="thumbnail"),
        pytest.param(png(), id="png"),
        pytest.param(encode_image(scene(), ".webp"), id="webp"),
        pytest.param(encode_image(scene(), ".bmp"), id="bmp"),
        pytest.param(encode_image(scene(), ".tif"), id="tif"),
    ],
)
def test_a_picture_that_is_cut_short_is_refused(
    tmp_path: Path, whole: bytes, kept: float, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "picture"
    path.write_bytes(whole)
    assert read_image(path).shape == (32, 48, 3)
    path.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(ImageError) as error:
        read_image(path)
    assert str(path) in str(error.value)
    assert "OpenCV" not in capfd.readouterr().err


@pytest.mark.parametrize("tail", [b"\xff\xda\0\x04ftypmp42", b"\xff\xd8\xff\xda", b"\0" * 5000])
@pytest.mark.parametrize("whole", [pytest.param(jpeg(), id="jpeg"), pytest.param(png(), id="png")])
def test_what_follows_the_end_of_a_picture_does_not_matter(tmp_path: Path, whole: bytes, tail: bytes) -> None:
    """Phones put videos and second pictures there."""
    path = tmp_path / "picture"
    path.write_bytes(whole + tail)
    assert read_image(path).shape == (32, 48, 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"<html>404 not found</html>", "not a picture"),
        (b"\xff\xd8", "cut short"),
        (png()[:20], "cut short"),
        (png().replace(b"IDAT", b"iDAT"), "not a picture"),
    ],
)
def test_what_is_no_picture(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "picture.jpg"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=message) as error:
        read_image(path)
    assert str(path) in str(error.value)
    if content != png().replace(b"IDAT", b"iDAT"):  # a sound header is all that the size needs
        with pytest.raises(ImageError, match=message):
            image_size(path)


@pytest.mark.parametrize("read", [read_image, image_size])
def test_missing_file(tmp_path: Path, read: object) -> None:
    assert callable(read)
    with pytest.raises(ImageError, match="No such file"):
        read(tmp_path / "a.jpg")
    with pytest.raises(ImageError, match="directory"):
        read(tmp_path)


def test_size_of_a_bmp_stored_from_the_top(tmp_path: Path) -> None:
    data = bytearray(encode_image(scene(), ".bmp"))
    data[22:26] = struct.pack("<i", -32)
    path = tmp_path / "a.bmp"
    path.write_bytes(data)
    assert image_size(path) == (48, 32)
    np.testing.assert_array_equal(read_image(path), scene()[::-1])


def test_size_where_the_header_does_not_tell(tmp_path: Path) -> None:
    """A kind of file whose header is not parsed is decoded."""
    path = tmp_path / "a.ppm"
    PIL.Image.fromarray(scene()).save(path)
    assert image_size(path) == (48, 32)


@pytest.mark.parametrize("name", ["图像.jpg", "ünïcødé änd space.png"])
def test_names_may_have_any_characters(tmp_path: Path, name: str) -> None:
    write_image(tmp_path / name, scene())
    assert read_image(tmp_path / name).shape == (32, 48, 3)
    assert image_size(tmp_path / name) == (48, 32)


@pytest.mark.parametrize(
    ("width", "height"), [(30, 20), (96, 64), (300, 7), (1, 1)], ids=["half", "double", "one of each", "one pixel"]
)
def test_antialiased_resizing_agrees_with_pytorch(width: int, height: int) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (40, 61, 3), np.uint8)
    ours = resize(picture, width, height, "antialias")
    channels = torch.from_numpy(picture).permute(2, 0, 1)[None].double()
    theirs = F.interpolate(channels, (height, width), mode="bilinear", antialias=True)[0].permute(1, 2, 0).numpy()
    assert np.abs(ours - theirs).max() < 1  # theirs are not rounded; Pillow rounds once for each direction
    assert ours.flags.writeable and ours.flags.c_contiguous


def grey_png(values: Array, bits: int) -> bytes:
    """Write (H, W) numbers below 2**bits with that many bits each, by the PNG specification."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width = values.shape
    digits = ((values[..., None] >> np.arange(bits - 1, -1, -1)) & 1).reshape(height, -1)
    lines = b"".join(b"\0" + np.packbits(line).tobytes() for line in digits.astype(np.uint8))
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_numbers_of_few_bits_are_those_that_are_stored(tmp_path: Path, bits: int) -> None:
    values = np.random.default_rng(bits).integers(0, 2**bits, (7, 13)).astype(np.uint8)
    (tmp_path / "a.png").write_bytes(grey_png(values, bits))
    np.testing.assert_array_equal(imaging.read_values(tmp_path / "a.png"), values)


def test_numbers_are_written_with_a_palette(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, (9, 5)).astype(np.uint8)
    palette = np.random.default_rng(1).integers(0, 256, (256, 3)).astype(np.uint8)
    imaging.write_values(tmp_path / "a.png", values, palette)
    np.testing.assert_array_equal(imaging.read_values(tmp_path / "a.png"), values)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), palette[values])


def test_resized_numbers_are_those_in_the_middle() -> None:
    """The new pixel i has its middle at (i + 0.5) * old / new."""
    values = np.arange(13 * 7).reshape(7, 13).astype(np.uint8)
    for width, height in ((13, 7), (29, 4), (5, 16)):
        rows = ((np.arange(height) + 0.5) * 7 / height).astype(int)
        columns = ((np.arange(width) + 0.5) * 13 / width).astype(int)
        np.testing.assert_array_equal(imaging.resize_values(values, width, height), values[rows][:, columns])
