"""Every number of mmrotate's rotated RTMDet that a golden holds, against ours.

Their numbers are float32, ours float64: they may differ by what the reference differs from its own float64 run, which
float64_noise.json states relative to the largest number, and by 1e-6 (docs/specs/rotated.md, section "Tolerances").
"""

from __future__ import annotations

import json
import math
import re
from functools import cached_property
from typing import Any

import goldenlib
import numpy as np
import pytest
import torch
from golden_files import FOLDER, Golden, find_variants
from torch import Tensor, nn

from ymir_tmi.data.letterbox import Frame
from ymir_tmi.geometry.rotated import points_inside, regularize
from ymir_tmi.models.catalog import create_model
from ymir_tmi.models.convert.keys import from_official
from ymir_tmi.models.dense import flatten_levels, make_priors
from ymir_tmi.models.families.rotated_rtmdet import RotatedRTMDet
from ymir_tmi.models.interface import DenseDetections, Detections, HeadOutput, Targets
from ymir_tmi.models.losses import quality_focal_loss, rotated_iou_loss
from ymir_tmi.models.postprocess import detect

FAMILY = "rotated_rtmdet"
EXACT = 1e-6
PRESENT, ABSENT = find_variants("mmrotate")
NOISE = json.loads((FOLDER / "mmrotate" / "float64_noise.json").read_text())
# What the text states for all outputs of a model.
LARGEST_NOISE = {
    "forward": dict.fromkeys(NOISE, 1e-5),
    "train": {f"{FAMILY}_{size}": noise for size, noise in (("tiny", 1e-4), ("s", 1e-4), ("m", 5e-4), ("l", 2e-3))},
}
LEVELS = range(3)
STRIDES = (8, 16, 32)
MAPS = {"cls": "cls_score", "reg": "bbox_pred", "angle": "angle_pred"}
LOOKED_AT = (
    r"(forward|train)/\d/(cls_score|bbox_pred|angle_pred|neck)|decoded/(priors|boxes|scores)"
    r"|predict(_exact)?/(boxes|scores|labels)|gt/\d/(boxes_raw|boxes|labels)|loss/(total|loss_(cls|bbox)(/\d)?)"
    r"|grad/(first_conv|bbox_head\.rtm_(cls|reg|ang)\.\d\.bias)|assign/(\d/(gt_index|iou)|priors)"
    r"|train_bn/stem_running_(mean|var)"
)


class RotatedGolden(Golden):
    """A golden of mmrotate, whose json names some things in another way."""

    def __init__(self, variant: str) -> None:
        super().__init__("mmrotate", variant)

    @cached_property
    def first_keys(self) -> dict[str, str]:
        """Return for each key of a shared tensor the one that its values are made from."""
        return {key: group[0] for group in self.facts["shared_parameters"] for key in group}

    def weights(self) -> dict[str, Tensor]:
        made = {}
        for key, shape, _ in self.facts["state_dict"]:
            array = goldenlib.tensor_for(self.first_keys.get(key, key), tuple(shape))
            for prefix, factor in self.facts["weight_rescale"].items():
                if key.startswith(prefix):
                    array = array * np.float32(factor)
            made[key] = torch.from_numpy(array)
        return made

    def build(self) -> RotatedRTMDet:
        """Return our model with these weights, in evaluation mode, float64."""
        model = create_model(self.variant, num_classes=self.facts["num_classes"])
        assert isinstance(model, RotatedRTMDet)
        model.load_state_dict({from_official(FAMILY, key): value for key, value in self.weights().items()})
        return model.eval().double()

    def images(self, which: str) -> Tensor:
        shape = (1, 3, 128, 160) if which == "eval" else (2, 3, 128, 128)
        return torch.from_numpy(goldenlib.image_batch(f"{self.variant}/{which}", shape)).double()

    def targets(self) -> Targets:
        boxes = [torch.from_numpy(self.arrays[f"gt/{image}/boxes"]) for image in (0, 1)]
        return Targets(boxes, [torch.from_numpy(self.arrays[f"gt/{image}/labels"]) for image in (0, 1)])

    def theirs(self, group: str) -> HeadOutput:
        """Return their head's numbers, in float64, as our head would give them."""
        levels = {
            own: [torch.from_numpy(self.arrays[f"{group}/{level}/{name}"]).double() for level in LEVELS]
            for own, name in MAPS.items()
        }
        cells = [level / stride for level, stride in zip(levels["reg"], STRIDES, strict=True)]
        reg = tuple(level.log() if self.facts["exp_on_reg"] else level for level in cells)
        return HeadOutput(tuple(levels["cls"]), reg, angle=tuple(levels["angle"]))

    def assert_near(self, ours: Tensor, name: str, stated: str | float) -> None:
        """Compare with an array relative to its largest number; `stated` is a tolerance or the name of a noise."""
        theirs = torch.from_numpy(self.arrays[name]).double()
        noise = NOISE[self.variant][stated] if isinstance(stated, str) else stated
        assert ours.shape == theirs.shape, name
        difference = float((ours.detach() - theirs).abs().max() / theirs.abs().max().clamp(min=1e-30))
        assert difference <= noise + EXACT, f"{name}: {difference:.2e} of the largest number"


@pytest.fixture(scope="module", params=PRESENT)
def golden(request: pytest.FixtureRequest) -> RotatedGolden:
    return RotatedGolden(request.param)


@pytest.fixture(scope="module")
def model(golden: RotatedGolden) -> RotatedRTMDet:
    return golden.build()


def pixels(golden: RotatedGolden, raw: HeadOutput) -> dict[str, tuple[Tensor, ...]]:
    """Return our numbers under the names of theirs; their head turns sides into pixels itself."""
    cells = [level.exp() if golden.facts["exp_on_reg"] else level for level in raw.reg]
    sides = tuple(level * stride for level, stride in zip(cells, STRIDES, strict=True))
    return {"cls_score": raw.cls, "bbox_pred": sides, "angle_pred": raw.angle}


def compare_maps(golden: RotatedGolden, raw: HeadOutput, group: str) -> None:
    for name, levels in pixels(golden, raw).items():
        stated = max(NOISE[golden.variant][f"{group}/{name}"], LARGEST_NOISE[group][golden.variant])
        for level in LEVELS:
            golden.assert_near(levels[level], f"{group}/{level}/{name}", stated)


def whole(width: int, height: int, scale: float = 1.0) -> Frame:
    """Return the frame of a picture that, scaled, is the whole network input."""
    return Frame(round(width / scale), round(height / scale), scale, scale, 0, 0, width, height, width, height)


def assert_same_rotated(ours: Detections, theirs: dict[str, np.ndarray]) -> None:
    """Find for every detection of theirs, brought into le90, another one of ours."""
    assert len(ours) == len(theirs["labels"])
    boxes = regularize(torch.from_numpy(theirs["boxes"]).double()).numpy()
    away = np.abs(ours.boxes[:, None] - boxes)
    away[..., :4] /= np.abs(boxes[:, :4]).max()
    away[..., 4] = np.minimum(away[..., 4], math.pi - away[..., 4])
    away[ours.labels[:, None] != theirs["labels"]] = np.inf
    distance = away.max(-1)
    if "scores" in theirs:
        distance = np.maximum(distance, np.abs(ours.scores[:, None] - theirs["scores"]))
    assert sorted(distance.argmin(0).tolist()) == list(range(len(ours)))
    assert distance.min(0).max(initial=0) < 1e-4


@pytest.mark.skipif(not ABSENT, reason="every variant of this schema has a model")
def test_variants_without_a_model() -> None:
    pytest.skip(f"no model for {len(ABSENT)} variants: {', '.join(ABSENT)}")


def test_every_array_is_looked_at(golden: RotatedGolden) -> None:
    assert [name for name in golden.arrays if not re.fullmatch(LOOKED_AT, name)] == []


def test_state_dict_has_the_keys_and_shapes_of_the_reference(golden: RotatedGolden) -> None:
    model = create_model(golden.variant, num_classes=golden.facts["num_classes"])
    theirs = {from_official(FAMILY, key): (tuple(shape), dtype) for key, shape, dtype in golden.facts["state_dict"]}
    ours = {
        key: (tuple(value.shape), str(value.dtype).removeprefix("torch.")) for key, value in model.state_dict().items()
    }
    assert ours == theirs
    for key, first in golden.first_keys.items():
        assert from_official(FAMILY, key) == from_official(FAMILY, first)
    assert sum(parameter.numel() for parameter in model.parameters()) == golden.facts["n_parameters"]


def test_specification(golden: RotatedGolden, model: RotatedRTMDet) -> None:
    facts, spec = golden.facts, model.spec
    assert (model.exp, model.strides) == (facts["exp_on_reg"], tuple(facts["strides"]))
    assert (list(spec.input.mean), list(spec.input.std)) == (facts["preprocess"]["mean"], facts["preprocess"]["std"])
    assert (spec.input.channels, spec.input.size) == ("bgr", 1024)
    test = facts["test_cfg"]
    assert spec.postprocess.model_dump(
        include={"score_threshold", "candidates", "max_detections", "iou_threshold"}
    ) == {
        "score_threshold": test["score_thr"],
        "candidates": test["nms_pre"],
        "max_detections": test["max_per_img"],
        "iou_threshold": test["nms"]["iou_threshold"],
    }
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {
        (facts["batch_norm"]["eps"], facts["batch_norm"]["momentum"])
    }


def test_forward(golden: RotatedGolden, model: RotatedRTMDet) -> None:
    with torch.no_grad():
        neck = model.neck(model.backbone(golden.images("eval")))
        compare_maps(golden, model.head(neck), "forward")
    for level in LEVELS:
        golden.assert_near(neck[level], f"forward/{level}/neck", 1e-5)


def test_decode(golden: RotatedGolden, model: RotatedRTMDet) -> None:
    raw = golden.theirs("forward")
    dense = model.decode(raw)
    golden.assert_near(dense.boxes[0], "decoded/boxes", 1e-5)
    golden.assert_near(dense.scores[0], "decoded/scores", 1e-5)
    angles = dense.boxes[0, :, 4] - torch.from_numpy(golden.arrays["decoded/boxes"])[:, 4]
    assert angles.abs().max() < 1e-5
    assert torch.equal(make_priors(raw.cls, STRIDES).points, torch.from_numpy(golden.arrays["decoded/priors"]).double())


def predict(golden: RotatedGolden, dense: DenseDetections, model: RotatedRTMDet) -> Detections:
    spec = model.spec.postprocess.model_copy(update={"score_threshold": golden.facts["predict"]["score_thr"]})
    (found,) = detect(dense, [whole(160, 128)], spec)
    return found


def test_detections(golden: RotatedGolden, model: RotatedRTMDet) -> None:
    with torch.no_grad():
        found = predict(golden, model.decode(model(golden.images("eval"))), model)
    assert_same_rotated(found, golden.group("predict/"))
    assert_same_rotated(found, golden.group("predict_exact/"))


def test_detections_of_the_raw_numbers_of_the_reference(golden: RotatedGolden, model: RotatedRTMDet) -> None:
    assert_same_rotated(predict(golden, model.decode(golden.theirs("forward")), model), golden.group("predict/"))


def test_objects_in_le90(golden: RotatedGolden) -> None:
    for image in (0, 1):
        raw = torch.from_numpy(golden.arrays[f"gt/{image}/boxes_raw"])
        golden.assert_near(regularize(raw).double(), f"gt/{image}/boxes", 0.0)


def test_batch_norms_in_training(golden: RotatedGolden) -> None:
    model = golden.build().train()
    with torch.no_grad():
        compare_maps(golden, model(golden.images("train")), "train")
    state = model.state_dict()
    for name in ("running_mean", "running_var"):
        golden.assert_near(state[f"backbone.stem.0.bn.{name}"], f"train_bn/stem_{name}", 0.0)


def test_assignment(golden: RotatedGolden, model: RotatedRTMDet) -> None:
    raw = golden.theirs("train")
    count = len(golden.arrays["assign/priors"])
    assert np.array_equal(make_priors(raw.cls, STRIDES).points.numpy(), golden.arrays["assign/priors"][:, :2])
    matches = model.assign(raw, golden.targets())
    for image in (0, 1):
        own = matches.image == image
        gt = torch.full((count,), -1).scatter(0, matches.prior[own], matches.gt[own])
        quality = torch.zeros(count, dtype=torch.float64).scatter(0, matches.prior[own], matches.quality[own])
        np.testing.assert_array_equal(gt.numpy(), golden.arrays[f"assign/{image}/gt_index"])
        golden.assert_near(quality, f"assign/{image}/iou", 1e-4)
        assert torch.equal(matches.label[own], golden.targets().labels[image][matches.gt[own]])


def test_losses_and_their_gradient_at_the_first_layer(golden: RotatedGolden) -> None:
    model = golden.build().train()
    raw = model(golden.images("train"))
    losses = model.loss(raw, golden.targets())
    assert losses.keys() == {"loss_cls", "loss_bbox"}
    for name, value in losses.items():
        golden.assert_near(value, f"loss/{name}", f"loss/{name}")
    total = losses["loss_cls"] + losses["loss_bbox"]
    golden.assert_near(total, "loss/total", "loss/loss_cls")
    total.backward()
    gradient = model.get_parameter("backbone.stem.0.conv.weight").grad
    assert gradient is not None
    golden.assert_near(gradient, "grad/first_conv", "grad/first_conv")


def test_losses_and_gradients_of_the_raw_numbers_of_the_reference(golden: RotatedGolden, model: RotatedRTMDet) -> None:
    raw = golden.theirs("train")
    for level in (*raw.cls, *raw.reg, *raw.angle):
        level.requires_grad_()
    losses = model.loss(raw, golden.targets())
    for name, value in losses.items():
        golden.assert_near(value, f"loss/{name}", 1e-5)
    sum(losses.values(), torch.tensor(0.0)).backward()
    for kind, levels in (("cls", raw.cls), ("reg", raw.reg), ("ang", raw.angle)):
        for number, level in enumerate(levels):
            assert level.grad is not None
            golden.assert_near(level.grad.sum((0, 2, 3)), f"grad/bbox_head.rtm_{kind}.{number}.bias", 1e-4)


def test_losses_of_each_level(golden: RotatedGolden, model: RotatedRTMDet) -> None:
    """The parts of the two losses, put together here from the functions that `loss` uses."""
    raw = golden.theirs("train")
    matches, priors, logits = (
        model.assign(raw, golden.targets()),
        make_priors(raw.cls, STRIDES),
        flatten_levels(raw.cls),
    )
    boxes = model.decode(raw).boxes[matches.image, matches.prior]
    total = matches.quality.sum().clamp(min=1)
    start = 0
    for level, size in enumerate(priors.level_sizes):
        own = (matches.prior >= start) & (matches.prior < start + size)
        places = (matches.image[own], matches.prior[own] - start, matches.label[own])
        focal = quality_focal_loss(logits[:, start : start + size], places, matches.quality[own])
        misfit = 2 * (matches.quality[own] * rotated_iou_loss(boxes[own], matches.box[own])).sum()
        golden.assert_near(focal / total, f"loss/loss_cls/{level}", 1e-5)
        golden.assert_near(misfit / total, f"loss/loss_bbox/{level}", 1e-5)
        start += size


POSTPROCESS: dict[str, Any] = json.loads((FOLDER / "mmrotate" / "postprocess.json").read_text())["cases"]
CASES = [name for name, case in POSTPROCESS.items() if isinstance(case, dict)]


@pytest.mark.parametrize("case", CASES)
def test_post_processing(case: str) -> None:
    """Maps in which many boxes overlap, as the head of rotated RTMDet-tiny would give them."""
    with np.load(FOLDER / "mmrotate" / "postprocess.npz") as file:
        arrays = {name: file[name] for name in file.files}
    maps = {
        own: [torch.from_numpy(arrays[f"in/{level}/{name}"]).double() for level in LEVELS] for own, name in MAPS.items()
    }
    cells = tuple(level / stride for level, stride in zip(maps["reg"], STRIDES, strict=True))
    model = create_model("rotated_rtmdet_tiny", num_classes=15)
    dense = model.decode(HeadOutput(tuple(maps["cls"]), cells, angle=tuple(maps["angle"])))
    facts = POSTPROCESS[case]["test_cfg"]
    spec = model.spec.postprocess.model_copy(
        update={
            "score_threshold": facts["score_thr"],
            "candidates": facts["nms_pre"],
            "max_detections": facts["max_per_img"],
            "iou_threshold": facts["nms"]["iou_threshold"],
        }
    )
    scale = (POSTPROCESS[case]["scale_factor"] or [1.0])[0] if POSTPROCESS[case]["rescale"] else 1.0
    (found,) = detect(dense, [whole(256, 256, scale)], spec)
    assert len(found) == POSTPROCESS[case]["n"]
    assert_same_rotated(found, {name: arrays[f"{case}/{name}"] for name in ("boxes", "scores", "labels")})


def test_points_inside() -> None:
    with np.load(FOLDER / "mmrotate" / "geometry.npz") as file:
        points, inside = (torch.from_numpy(file[f"transform/{name}"]) for name in ("points", "points_inside"))
        boxes = torch.from_numpy(file["convert/rbox"])[: inside.shape[1]]
    assert torch.equal(points_inside(points, boxes, margin=0.01).T, inside)
