"""What a pass says about pixels, against the slow way: every step of docs/specs/segmentation.md, section "Test"."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pixel_fakes import CLASSES, FakeSegmenter, Keeping
from pool_fakes import index_of
from torch import Tensor

from ymir_tmi import imaging
from ymir_tmi.data.letterbox import InputSpec, letterbox
from ymir_tmi.imaging import Image
from ymir_tmi.models.segment import PixelTest
from ymir_tmi.pool.runner import run_pool
from ymir_tmi.pool.shards import MemoryRows

WHOLE = InputSpec(size=64, resize="shorter", longest=128, stride=1, rounding="nearest", shrink="bilinear", pad="corner")
FIXED = WHOLE.model_copy(update={"fixed": (64, 96), "pad": "center"})
SIZES = [(160, 90), (40, 70), (301, 280), (160, 90)]  # width, height; larger and smaller than the input


def stretch(maps: Tensor, height: int, width: int) -> Tensor:
    return F.interpolate(maps.unsqueeze(0), size=(height, width), mode="bilinear", align_corners=False)[0]


def slow_probabilities(picture: Image, model: FakeSegmenter) -> Tensor:
    """Return (C, height, width), one step after the other."""
    test, views = model.test, []
    for scale in test.scales:
        pixels, frame = letterbox(picture, model.spec.input.with_size(round(model.spec.input.size * scale)))
        height, width = pixels.shape[:2]
        for mirrored in [False, True] if test.flip else [False]:
            seen = pixels[:, ::-1] if mirrored else pixels
            total, count = torch.zeros(len(CLASSES), height, width), torch.zeros(height, width)
            down, across = test.window or (height, width)
            for top in range(max(height - down + test.stride[0] - 1, 0) // test.stride[0] + 1):
                for left in range(max(width - across + test.stride[1] - 1, 0) // test.stride[1] + 1):
                    y2, x2 = min(top * test.stride[0] + down, height), min(left * test.stride[1] + across, width)
                    y1, x1 = max(y2 - down, 0), max(x2 - across, 0)
                    logits = model.logits(seen[None, y1:y2, x1:x2])[0]
                    total[:, y1:y2, x1:x2] += stretch(logits, y2 - y1, x2 - x1)
                    count[y1:y2, x1:x2] += 1
            whole = (total / count).flip(2) if mirrored else total / count
            inside = whole[:, frame.top :, frame.left :][:, : frame.resized_height, : frame.resized_width]
            views.append(stretch(inside, frame.height, frame.width).softmax(0))
    return torch.stack(views).mean(0)


def pictures_in(folder: Path) -> list[Path]:
    random = np.random.default_rng(0)
    paths = []
    for number, (width, height) in enumerate(SIZES):
        rough = random.integers(0, 256, (height // 8, width // 8, 3), np.uint8)
        paths.append(folder / f"{number}.png")
        imaging.write_image(paths[-1], imaging.resize(rough, width, height, "bilinear"))
    return paths


def run(paths: list[Path], model: FakeSegmenter, *outputs: str, batch: int = 2) -> Keeping:
    consumer = Keeping(*outputs)  # type: ignore[arg-type]
    run_pool(index_of([str(path) for path in paths]), [consumer], MemoryRows(), runtime=model, batch=batch)
    return consumer


TESTS = {
    "whole": PixelTest(),
    "mirrored": PixelTest(flip=True),
    "scales": PixelTest(scales=(0.5, 1.0, 1.3)),
    "windows": PixelTest(window=(40, 48), stride=(25, 32)),
    "windows that touch": PixelTest(window=(32, 32), stride=(32, 32)),
    "a window larger than the input": PixelTest(window=(400, 300), stride=(100, 100)),
    "all together": PixelTest(window=(40, 48), stride=(25, 32), flip=True, scales=(0.75, 1.25)),
}


@pytest.mark.parametrize("spec", [WHOLE, FIXED], ids=["of any size", "of one size"])
@pytest.mark.parametrize("test", TESTS.values(), ids=TESTS)
def test_probabilities_and_label_maps(spec: InputSpec, test: PixelTest, tmp_path: Path) -> None:
    model = FakeSegmenter(spec, test)
    paths = pictures_in(tmp_path)
    results = run(paths, model, "probabilities", "label_map").results
    for path, (width, height) in zip(paths, SIZES, strict=True):
        expected = slow_probabilities(imaging.read_image(path), model)
        result = results[str(path)]
        assert result.probabilities is not None and result.label_map is not None
        assert result.size == (width, height) and result.label_map.dtype == np.uint8
        torch.testing.assert_close(result.probabilities, expected, rtol=1e-4, atol=1e-5)
        best = expected.topk(2, dim=0).values
        clear = (best[0] - best[1] > 1e-4).numpy()
        np.testing.assert_array_equal(result.label_map[clear], expected.argmax(0).numpy()[clear])
        assert clear.mean() > 0.99 and len(np.unique(result.label_map)) > 1


def test_only_what_is_asked_for(tmp_path: Path) -> None:
    paths = pictures_in(tmp_path)
    labels = run(paths, FakeSegmenter(WHOLE, PixelTest()), "label_map").results[str(paths[0])]
    assert labels.probabilities is None and labels.label_map is not None and labels.detections is None
    maps = run(paths, FakeSegmenter(WHOLE, PixelTest()), "probabilities").results[str(paths[0])]
    assert maps.probabilities is not None and maps.label_map is None


def test_inputs_of_one_shape_share_a_batch(tmp_path: Path) -> None:
    model = FakeSegmenter(WHOLE, PixelTest())
    run(pictures_in(tmp_path), model, "label_map")
    assert sorted(shape[0] for shape in model.shapes) == [1, 1, 2]


GROUPS = {
    "another order": [[2], [0], [3], [1]],
    "two of four": [[3], [1]],
    "merged": [[0, 2], [1], [3]],
    "merged, one left out": [[0, 2], [1]],
}


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("groups", GROUPS.values(), ids=GROUPS)
def test_chosen_and_merged_classes(groups: list[list[int]], flip: bool, tmp_path: Path) -> None:
    paths = pictures_in(tmp_path)
    test = PixelTest(flip=flip)
    results = run(paths, FakeSegmenter(WHOLE, test, groups), "probabilities", "label_map").results
    plain = slow_probabilities(imaging.read_image(paths[0]), FakeSegmenter(WHOLE, test))
    merged = torch.stack([plain[group].sum(0) for group in groups])
    result = results[str(paths[0])]
    assert result.probabilities is not None and result.label_map is not None
    torch.testing.assert_close(result.probabilities, merged, rtol=1e-4, atol=1e-5)
    left_out = [label for label in range(len(CLASSES)) if not any(label in group for group in groups)]
    rivals = torch.cat([merged, plain[left_out]])
    expected = torch.where(rivals.argmax(0) < len(groups), rivals.argmax(0), 255).numpy()
    best = rivals.topk(2, dim=0).values
    clear = (best[0] - best[1] > 1e-4).numpy()
    np.testing.assert_array_equal(result.label_map[clear], expected[clear])
    assert (255 in result.label_map) == bool(left_out)
