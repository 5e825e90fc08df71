"""Passes with random parts of the network switched off."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from ymir_tmi.models.catalog import create_model
from ymir_tmi.models.families.yolov5_seg import YOLOv5Seg
from ymir_tmi.models.interface import HeadOutput
from ymir_tmi.models.random_passes import DropBlock
from ymir_tmi.models.runtime.torch_runtime import TorchRuntime, load_runtime

SEEDS = [(7, 0), (8, 0), (9, 0)]


@pytest.fixture(scope="module")
def model(instance_model: YOLOv5Seg) -> YOLOv5Seg:
    return instance_model


@pytest.fixture(scope="module")
def runtime(model: YOLOv5Seg) -> TorchRuntime:
    return load_runtime(model, device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def images() -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (3, 256, 320, 3), np.uint8)


def tensors_of(raw: HeadOutput) -> list[Tensor]:
    return [level for levels in raw for level in levels]


def assert_close(ours: HeadOutput, theirs: HeadOutput) -> None:
    for one, other in zip(tensors_of(ours), tensors_of(theirs), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-4 * float(other.abs().max()))


def test_squares_are_switched_off_in_all_channels_and_the_rest_makes_up() -> None:
    x = torch.rand(4, 5, 40, 60) + 1
    dropped = DropBlock([(number,) for number in range(4)])(x)
    off = (dropped == 0).all(1)
    assert torch.equal(off, (dropped == 0).any(1))
    for picture, before, its_off in zip(dropped, x, off, strict=True):
        factors = (picture / before)[:, ~its_off]
        torch.testing.assert_close(factors, torch.full_like(factors, 2400 / (2400 - int(its_off.sum()))))
        # What is off is a union of squares: every such pixel lies in one, which may reach beyond the border.
        wide = nn.functional.pad(its_off[None].float(), (6, 6, 6, 6), value=1)
        whole = 1 - nn.functional.max_pool2d(1 - wide, 7, stride=1)
        assert torch.equal(nn.functional.max_pool2d(whole, 7, stride=1)[0] > 0, its_off)


def test_a_tenth_is_the_expected_number_of_squares() -> None:
    dropped = DropBlock([(number,) for number in range(400)])(torch.ones(400, 1, 50, 50))
    # A pixel is on if none of 49 places is a middle of a square; at the border fewer count.
    on = (1 - 0.1 / 49) ** 49
    assert (dropped[:, :, 3:-3, 3:-3] > 0).float().mean().item() == pytest.approx(on, abs=0.003)


def test_of_a_small_map_all_may_be_off() -> None:
    dropped = DropBlock([(number,) for number in range(3000)])(torch.ones(3000, 1, 2, 2))
    assert dropped.isfinite().all() and (dropped == 0).flatten(1).all(1).any()


def test_a_picture_s_squares_are_its_own_whatever_its_neighbours() -> None:
    x = torch.ones(3, 2, 30, 30)
    together, alone = DropBlock([(1,), (2,), (3,)]), DropBlock([(2,)])
    for _ in range(3):  # layers
        assert torch.equal(together(x)[1:2], alone(x[:1]))
    assert not torch.equal(DropBlock([(1,)])(x[:1]), DropBlock([(2,)])(x[:1]))


def test_a_pass_with_nothing_switched_off_is_an_ordinary_one(
    model: YOLOv5Seg, runtime: TorchRuntime, images: npt.NDArray[np.uint8]
) -> None:
    assert runtime.passes is not None
    trunk = runtime.passes.begin(images)
    plain = runtime.run(images)
    for _ in range(2):  # what `begin` has returned is still there
        assert_close(runtime.passes.finish(trunk, None), plain)
    normalised = model.normalize(torch.from_numpy(images).permute(0, 3, 1, 2))
    with torch.no_grad():
        assert_close(model.finish(model.begin(normalised), torch.clone), model(normalised))


def test_a_pass_is_what_hooks_before_the_activations_make_of_the_network(
    model: YOLOv5Seg, runtime: TorchRuntime, images: npt.NDArray[np.uint8]
) -> None:
    assert runtime.passes is not None
    ours = runtime.passes.finish(runtime.passes.begin(images), SEEDS)
    drop = DropBlock(SEEDS)
    norms = [model.get_submodule(f"backbone.stages.{stage}.0.bn") for stage in (1, 2, 3)]
    hooks = [norm.register_forward_hook(lambda _, __, out: drop(out)) for norm in norms]
    with torch.no_grad():
        theirs = model(model.normalize(torch.from_numpy(images).permute(0, 3, 1, 2)))
    for hook in hooks:
        hook.remove()
    assert_close(ours, theirs)
    assert (ours.cls[0] - runtime.run(images).cls[0]).abs().max() > 0.1


def test_passes_depend_on_the_seed_of_each_picture_only(runtime: TorchRuntime, images: npt.NDArray[np.uint8]) -> None:
    assert runtime.passes is not None
    trunk = runtime.passes.begin(images)
    first, again = (runtime.passes.finish(trunk, SEEDS) for _ in range(2))
    assert_close(first, again)
    alone = runtime.passes.finish(runtime.passes.begin(images[1:2]), SEEDS[1:2])
    assert_close(alone, HeadOutput(*(tuple(level[1:2] for level in levels) for levels in first)))
    other = runtime.passes.finish(trunk, [(7, 1), (8, 0), (9, 0)])
    assert not torch.equal(other.cls[0][0], first.cls[0][0])
    torch.testing.assert_close(other.cls[0][1:], first.cls[0][1:], rtol=0, atol=1e-4)


def test_several_cores_compute_the_same(
    model: YOLOv5Seg, runtime: TorchRuntime, images: npt.NDArray[np.uint8], set_threads: Callable[[int], None]
) -> None:
    set_threads(2)
    wide = load_runtime(model, device="cpu", precision="fp32")
    assert wide.passes is not None and runtime.passes is not None
    ours = wide.passes.finish(wide.passes.begin(images), SEEDS)
    assert_close(ours, runtime.passes.finish(runtime.passes.begin(images), SEEDS))


def test_other_families_have_no_passes() -> None:
    assert load_runtime(create_model("yolov5_n", num_classes=2), device="cpu").passes is None
