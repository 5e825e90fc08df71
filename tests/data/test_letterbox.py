from __future__ import annotations

import numpy as np
import pytest

from ymir_tmi.data.letterbox import InputSpec, letterbox, plan_frame

# docs/specs/detectors.md, section 13; docs/specs/retinanet.md, "Training" and "Inference".
YOLO = InputSpec(size=640)
DETECTRON2 = InputSpec(size=800, resize="shorter", longest=1333, rounding="nearest", pad="corner")
PP_YOLOE = InputSpec(size=640, resize="stretch", shrink="bicubic", enlarge="bicubic")


@pytest.mark.parametrize(
    ("spec", "picture", "resized", "padded"),
    [
        pytest.param(YOLO, (1280, 853), (640, 426), (640, 448), id="longer side"),
        pytest.param(YOLO, (200, 320), (400, 640), (416, 640), id="longer side, made larger"),
        pytest.param(DETECTRON2, (640, 480), (1067, 800), (1088, 800), id="shorter side"),
        pytest.param(DETECTRON2, (1000, 400), (1333, 533), (1344, 544), id="shorter side, too long"),
        pytest.param(DETECTRON2, (480, 640), (800, 1067), (800, 1088), id="shorter side, upright"),
        pytest.param(PP_YOLOE, (1280, 853), (640, 640), (640, 640), id="both sides"),
    ],
)
def test_how_large_a_picture_becomes(
    spec: InputSpec, picture: tuple[int, int], resized: tuple[int, int], padded: tuple[int, int]
) -> None:
    frame = plan_frame(*picture, spec)
    assert (frame.resized_width, frame.resized_height) == resized
    assert (frame.input_width, frame.input_height) == padded
    corners = np.array([[0, 0, *picture]], np.float32)
    np.testing.assert_allclose(
        frame.to_input(corners), [[frame.left, frame.top, frame.left + resized[0], frame.top + resized[1]]], rtol=1e-6
    )
    np.testing.assert_allclose(frame.to_picture(frame.to_input(corners)), corners, atol=1e-4)


def test_padding_may_have_a_colour() -> None:
    red = np.full((20, 40, 3), (200, 0, 0), np.uint8)
    image, frame = letterbox(red, InputSpec(size=32, pad="corner", fill=(1, 2, 3)))
    assert (image[: frame.resized_height] == (200, 0, 0)).all()
    assert (image[frame.resized_height :] == (1, 2, 3)).all()
    assert image.shape == (32, 32, 3) and frame.resized_height == 16


def test_enlarging_and_shrinking_each_have_their_interpolation() -> None:
    step = np.zeros((8, 8, 3), np.uint8)
    step[:, 4:] = 255
    enlarged, _ = letterbox(step, InputSpec(size=32, enlarge="nearest"))
    assert set(np.unique(enlarged)) == {0, 255}
    smooth, _ = letterbox(step, InputSpec(size=32))
    assert len(np.unique(smooth)) > 2
    stripes = np.tile(np.array([[0], [255]], np.uint8)[:, :, None], (32, 64, 3))
    mean, _ = letterbox(stripes, InputSpec(size=32))
    assert (abs(mean.astype(int) - 127) <= 1).all()  # area averages; nearest would keep one of the two


def test_another_size_keeps_the_proportion_of_the_limit() -> None:
    spec = DETECTRON2.with_size(400)
    assert (spec.size, spec.longest) == (400, 666)
    assert YOLO.with_size(320) == InputSpec(size=320)
