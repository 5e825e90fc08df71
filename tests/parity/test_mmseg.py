"""Every number of mmseg that a golden holds, against ours (docs/specs/segmentation.md, section "Goldens").

Tolerances are parts of the largest number: ten times the noise of float32 that the section states, since ours adds a
noise of its own.
"""

from __future__ import annotations

import json
from functools import cached_property
from typing import Any

import goldenlib
import numpy as np
import pytest
import torch
from golden_files import FOLDER
from torch import Tensor, nn

from ymir_tmi.data.letterbox import Frame
from ymir_tmi.models.catalog import create_model
from ymir_tmi.models.convert.keys import from_official
from ymir_tmi.models.interface import Network, PixelOutput, Targets
from ymir_tmi.models.segment import PixelTest, Window, label_map, place_patch, probabilities

MODELS = {"fast_scnn": "fast_scnn", "fcn_hr18s": "fcn_hrnet_w18_small", "fcn_hr48": "fcn_hrnet_w48"}
NUMBERS = [name for name in MODELS if (FOLDER / "mmseg" / f"{name}.npz").is_file()]
FORWARD, TRAIN = 1e-5, 5e-4
LOSS, LAST_GRADIENT, FIRST_GRADIENT = 3e-6, 3e-4, 3e-2
FIRST_CONV = "backbone.learning_to_downsample.conv.conv.weight", "backbone.conv1.weight"


class Reference:
    """What mmseg says of one network."""

    def __init__(self, variant: str) -> None:
        self.variant = variant
        self.facts: dict[str, Any] = json.loads((FOLDER / "mmseg" / f"{variant}.json").read_text())

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        with np.load(FOLDER / "mmseg" / f"{self.variant}.npz") as file:
            return {name: file[name] for name in file.files}

    def network(self) -> Network:
        """Return our network with the generated weights, without dropout, in evaluation mode."""
        network = create_model(MODELS[self.variant], num_classes=19)
        weights = ((key, tuple(shape)) for key, shape, _ in self.facts["state_dict"])
        network.load_state_dict(
            {self.ours(network, key): torch.from_numpy(goldenlib.tensor_for(key, shape)) for key, shape in weights}
        )
        for layer in network.modules():
            if isinstance(layer, nn.Dropout2d):
                layer.p = 0.0
        return network.eval()

    def calibrated(self) -> Network:
        """Return the network with the statistics of the training batch."""
        network = self.network()
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.momentum = 1.0
        with torch.no_grad():
            network.train()(self.images("train", 2))
        return network.eval()

    def ours(self, network: Network, key: str) -> str:
        return from_official(network.spec.family, key)

    def images(self, which: str, count: int = 1, size: tuple[int, int] = (128, 256)) -> Tensor:
        return torch.from_numpy(goldenlib.image_batch(f"{self.variant}/{which}", (count, 3, *size)))

    def targets(self) -> Targets:
        return Targets([], [], label_maps=torch.from_numpy(self.arrays["gt/label_map"]))


@pytest.fixture(scope="module", params=MODELS)
def names(request: pytest.FixtureRequest) -> Reference:
    return Reference(request.param)


@pytest.fixture(scope="module", params=NUMBERS)
def reference(request: pytest.FixtureRequest) -> Reference:
    return Reference(request.param)


def off(ours: Tensor, theirs: np.ndarray) -> float:
    """Return the largest difference as a part of the largest number."""
    assert ours.shape == theirs.shape
    return float(np.abs(ours.detach().numpy() - theirs).max() / np.abs(theirs).max())


def run(network: Network, images: Tensor) -> PixelOutput:
    with torch.no_grad():
        raw: PixelOutput = network(images)
        return raw


def look(logits: Tensor, width: int, height: int) -> list:
    """Return the one view of a picture of this size whose network input has 128 x 256 pixels."""
    frame = Frame(width, height, 256 / width, 128 / height, 0, 0, 256, 128, 256, 128)
    return [[place_patch(logits, Window(0, 128, 0, 256), frame, PixelTest(), mirrored=False)]]


def test_state_dict_has_the_keys_and_shapes_of_the_reference(names: Reference) -> None:
    network = create_model(MODELS[names.variant], num_classes=19)
    theirs = {names.ours(network, key): (tuple(shape), dtype) for key, shape, dtype in names.facts["state_dict"]}
    ours = {
        key: (tuple(value.shape), str(value.dtype).removeprefix("torch."))
        for key, value in network.state_dict().items()
    }
    assert ours == theirs and len(ours) == len(names.facts["state_dict"])
    assert sum(parameter.numel() for parameter in network.parameters()) == names.facts["n_parameters"]


def test_logits(reference: Reference) -> None:
    network = reference.network()
    images = reference.images("eval")
    for model in (network, network.fuse()):
        raw = run(model, images)
        assert off(raw.logits[0], reference.arrays["forward/logits"]) < FORWARD
        assert raw.auxiliary == ()


def test_logits_of_the_auxiliary_heads(reference: Reference) -> None:
    """In evaluation mode the reference has them too; ours gives them in training mode only."""
    network = reference.network()
    if "forward/aux_0/logits" not in reference.arrays:
        pytest.skip("no auxiliary heads")
    network.training = True  # of the network alone: batch norms stay in evaluation mode
    raw = run(network, reference.images("eval").expand(2, -1, -1, -1))
    for number, logits in enumerate(raw.auxiliary):
        assert off(logits[:1], reference.arrays[f"forward/aux_{number}/logits"]) < FORWARD


@pytest.mark.parametrize("state", ["forward", "calib"])
def test_pictures_of_the_size_of_the_input(reference: Reference, state: str) -> None:
    network = reference.network() if state == "forward" else reference.calibrated()
    logits = run(network, reference.images("eval")).logits[0][0]
    theirs = reference.arrays[f"{state}/logits_input_size"][0]
    patch = look(logits, 256, 128)[0][0]
    ours = (patch.rows @ patch.logits @ patch.columns.T)[:, :: 128 // theirs.shape[1]]
    assert off(ours, theirs) < (FORWARD if state == "forward" else TRAIN)
    clear = np.ones((128, 256), bool)
    if state == "calib":
        clear = reference.arrays["calib/top2_gap"][0] > 0.01
        assert clear.mean() > 0.98
    labels = label_map(look(logits, 256, 128))
    np.testing.assert_array_equal(labels[clear], reference.arrays[f"{state}/label_map"][0][clear])
    best = probabilities(look(logits, 256, 128)).argmax(0).numpy()
    np.testing.assert_array_equal(best[clear], labels[clear])


def test_pictures_of_another_size_than_the_input(reference: Reference) -> None:
    logits = run(reference.network(), reference.images("eval")).logits[0][0]
    theirs = reference.arrays["forward/label_map_ori_160x320"]
    np.testing.assert_array_equal(label_map(look(logits, 320, 160)), theirs)


def test_calibrated_networks_and_an_input_of_odd_size(reference: Reference) -> None:
    network = reference.calibrated()
    assert off(run(network, reference.images("eval")).logits[0], reference.arrays["calib/logits"]) < TRAIN
    odd = run(network, reference.images("odd", 1, (120, 200)))
    assert off(odd.logits[0], reference.arrays["calib/odd_120x200/logits"]) < TRAIN


def test_training(reference: Reference) -> None:
    arrays = reference.arrays
    network = reference.network().train()
    raw: PixelOutput = network(reference.images("train", 2))
    for number, logits in enumerate([*raw.logits, *raw.auxiliary]):
        name = f"aux_{number - 1}" if number else "decode"
        assert off(logits, arrays[f"train/{name}/logits"]) < TRAIN
        assert 100 * accuracy(logits, arrays["gt/label_map"]) == pytest.approx(arrays[f"loss/{name}.acc_seg"], abs=1e-3)
    losses = network.loss(raw, reference.targets())
    theirs = {"loss_seg": "decode", "loss_aux_0": "aux_0", "loss_aux_1": "aux_1"}
    assert len(losses) == 1 + len(raw.auxiliary)
    for name, loss in losses.items():
        assert loss.item() == pytest.approx(float(arrays[f"loss/{theirs[name]}.loss_ce"]), rel=LOSS)
    total = torch.stack(list(losses.values())).sum()
    assert total.item() == pytest.approx(float(arrays["loss/total"]), rel=LOSS)
    total.backward()
    parameters = dict(network.named_parameters())
    for part in ("weight", "bias"):
        gradient = parameters[f"head.cls_pred.{part}"].grad
        assert off(gradient, arrays[f"grad/decode_head.conv_seg.{part}"]) < LAST_GRADIENT
    first = next(parameters[name] for key in FIRST_CONV if (name := reference.ours(network, key)) in parameters)
    assert off(first.grad, arrays["grad/first_conv"]) < FIRST_GRADIENT
    norm = next(layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d))
    assert off(norm.running_mean, arrays["train_bn/first_running_mean"]) < FORWARD
    assert off(norm.running_var, arrays["train_bn/first_running_var"]) < FORWARD


def accuracy(logits: Tensor, labels: np.ndarray) -> float:
    """Return the part of the pixels that are right."""
    full = nn.functional.interpolate(logits.detach(), labels.shape[1:], mode="bilinear", align_corners=False)
    return float((full.argmax(1).numpy() == labels)[labels != 255].mean())
