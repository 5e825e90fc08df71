"""Every number of Detectron2's RetinaNet that a golden holds, against ours.

All of them are float32 and compared to 1e-4 of the largest number; weights follow `weights_rule` in the json
(docs/specs/retinanet.md, section "Fixtures").
"""

from __future__ import annotations

import re
from typing import Any

import goldenlib
import numpy as np
import pytest
import torch
from golden_files import Golden, assert_near, assert_same_detections, find_variants
from torch import Tensor

from ymir_tmi.data.letterbox import Frame, plan_frame
from ymir_tmi.models.catalog import create_model
from ymir_tmi.models.convert.keys import from_official
from ymir_tmi.models.families.retinanet import POSTPROCESS, RetinaNet
from ymir_tmi.models.interface import HeadOutput, Targets
from ymir_tmi.models.postprocess import detect

TOLERANCE = 1e-4
CLASSES = 80
BACKGROUND, LEFT_OUT = CLASSES, -1
LEVELS = range(5)
PRESENT, ABSENT = find_variants("d2")

# Where a name of an array is none of these, no test looks at it.
CONSTANTS = r"const/cell_anchors\d"
FORWARD = r"eval/(p\d|res\d_mean_per_channel|logits\d|deltas\d)"
DECODED = r"eval/(anchors|decoded)\d"
DETECTIONS = r"eval/det_\w+"
PREDICTIONS = r"train/(logits|deltas)\d"
MATCHES = r"train/(gt_labels|gt\d_\w+|pos\d_\w+)"
GRADIENTS = r"grad/.*"


@pytest.fixture(scope="module", params=PRESENT)
def golden(request: pytest.FixtureRequest) -> Golden:
    return Golden("d2", request.param)


@pytest.fixture(scope="module")
def weights(golden: Golden) -> dict[str, Tensor]:
    """Return the weights under our names."""
    rule = golden.facts["weights_rule"]
    made = {}
    for key, shape, _ in golden.facts["state_dict"]:
        values = goldenlib.tensor_for(key, tuple(shape))
        for suffix, factor in rule["scale_by_suffix"]:
            values = values * np.float32(factor) if key.endswith(suffix) else values
        if key in rule["fill"]:
            values = np.full_like(values, rule["fill"][key])
        made[from_official("retinanet", key)] = torch.from_numpy(values)
    return made


def build(golden: Golden, weights: dict[str, Tensor]) -> RetinaNet:
    model = create_model(golden.variant, num_classes=CLASSES)
    assert isinstance(model, RetinaNet)
    model.load_state_dict(weights)
    return model.eval()


@pytest.fixture(scope="module")
def model(golden: Golden, weights: dict[str, Tensor]) -> RetinaNet:
    return build(golden, weights)


@pytest.fixture(scope="module")
def raw(golden: Golden, model: RetinaNet) -> HeadOutput:
    """Return what the head says of the evaluation input."""
    with torch.no_grad():
        return model(eval_images(golden))


def eval_images(golden: Golden) -> Tensor:
    height, width = golden.facts["eval"]["image_size"]
    return torch.from_numpy(goldenlib.image_batch(f"{golden.variant}/eval", (1, 3, height, width)))


def train_images(golden: Golden) -> Tensor:
    return torch.from_numpy(goldenlib.image_batch(f"{golden.variant}/train", (2, 3, 128, 128)))


def train_targets(golden: Golden) -> Targets:
    pairs = [
        goldenlib.boxes(f"{golden.variant}/gt{image}", count, 128, 128, CLASSES) for image, count in ((0, 5), (1, 3))
    ]
    return Targets([torch.from_numpy(boxes) for boxes, _ in pairs], [torch.from_numpy(labels) for _, labels in pairs])


def compare(golden: Golden, pattern: str, ours: dict[str, Tensor]) -> None:
    """Compare every array of the golden whose name fits."""
    names = [name for name in golden.arrays if re.fullmatch(pattern, name)]
    assert names
    for name in names:
        assert_near(ours[name].to(torch.float32), golden.arrays[name], TOLERANCE, name)


@pytest.mark.skipif(not ABSENT, reason="every variant of this schema has a model")
def test_variants_without_a_model() -> None:
    pytest.skip(f"no model for {len(ABSENT)} variants: {', '.join(ABSENT)}")


def test_every_array_is_looked_at(golden: Golden) -> None:
    patterns = [CONSTANTS, FORWARD, DECODED, DETECTIONS, PREDICTIONS, MATCHES, GRADIENTS]
    assert not [name for name in golden.arrays if not any(re.fullmatch(pattern, name) for pattern in patterns)]


def test_state_dict_has_the_keys_and_shapes_of_the_reference(golden: Golden, model: RetinaNet) -> None:
    theirs = {
        from_official("retinanet", key): (tuple(shape), dtype) for key, shape, dtype in golden.facts["state_dict"]
    }
    ours = {
        key: (tuple(value.shape), str(value.dtype).removeprefix("torch.")) for key, value in model.state_dict().items()
    }
    assert ours == theirs
    assert len(theirs) == golden.facts["num_keys"]
    assert sum(parameter.numel() for parameter in model.parameters()) == golden.facts["num_parameters"]


def test_what_is_trained_and_what_the_prefixes_freeze(golden: Golden, model: RetinaNet) -> None:
    ours = {name for name, _ in model.named_parameters()}
    frozen = {name for name in ours if name.startswith(("backbone.stem.", "backbone.res2."))}
    facts = golden.facts["parameters"]
    for names, theirs in ((frozen, facts["frozen_by_FREEZE_AT_2"]), (ours - frozen, facts["trainable"])):
        assert names == {from_official("retinanet", key) for key in theirs}


def test_constants(golden: Golden, model: RetinaNet, raw: HeadOutput) -> None:
    facts, spec = golden.facts["constants"], model.spec
    assert model.strides == tuple(facts["anchor_strides"])
    assert (spec.input.mean, spec.input.std) == (tuple(facts["pixel_mean"]), tuple(facts["pixel_std"]))
    parts = model.make_anchors(raw)
    first = np.cumsum([0, *parts.level_sizes[:-1]])  # those of the cell at the origin
    corners = parts.corners()
    compare(
        golden, CONSTANTS, {f"const/cell_anchors{level}": corners[first[level] : first[level] + 9] for level in LEVELS}
    )


def test_pictures_are_resized_to_the_same_sizes(golden: Golden, model: RetinaNet) -> None:
    facts = golden.facts["facts"]["preprocessing"]
    assert (model.spec.input.size, model.spec.input.longest) == (facts["test"]["short_edge"], facts["test"]["max_size"])
    smallest = model.spec.input.model_copy(update={"size": 640})  # in training, with the same limit
    for example in facts["resize_examples"]:
        height, width = example["in_hw"]
        for spec, expected in ((model.spec.input, "test_out_hw"), (smallest, "train640_out_hw")):
            frame = plan_frame(width, height, spec)
            assert [frame.resized_height, frame.resized_width] == example[expected]
            assert frame.input_height == -(-frame.resized_height // 32) * 32


@pytest.mark.parametrize("fused", [False, True], ids=["as trained", "fused"])
def test_forward(golden: Golden, model: RetinaNet, fused: bool) -> None:
    network = model.fuse() if fused else model
    images = eval_images(golden)
    with torch.no_grad():
        stages = network.backbone(images)
        maps = list(network.neck(stages).values())
        raw = network(images)
    compare(
        golden,
        FORWARD,
        {
            **{f"eval/res{3 + n}_mean_per_channel": x.mean((0, 2, 3)) for n, x in enumerate(stages.values())},
            **{f"eval/p{3 + level}": x for level, x in enumerate(maps)},
            **{f"eval/logits{level}": x for level, x in enumerate(raw.cls)},
            **{f"eval/deltas{level}": x for level, x in enumerate(raw.reg)},
        },
    )


def test_decode_of_the_raw_numbers_of_the_reference(golden: Golden, model: RetinaNet, raw: HeadOutput) -> None:
    """Decode theirs rather than ours: an exponential turns the rounding of a large raw number into any difference."""
    deltas = tuple(torch.from_numpy(golden.arrays[f"eval/deltas{level}"]) for level in LEVELS)
    dense = model.decode(HeadOutput(raw.cls, deltas))
    ours = {}
    for kind, rows in (("anchors", model.make_anchors(raw).corners()), ("decoded", dense.boxes[0])):
        levels = rows.split(dense.level_sizes)
        ours.update({f"eval/{kind}{level}": levels[level] for level in LEVELS})
    compare(golden, DECODED, ours)


@pytest.mark.parametrize("case", ["default", "custom", "custom_post"])
def test_detections(golden: Golden, model: RetinaNet, raw: HeadOutput, case: str) -> None:
    facts = golden.facts["eval"]["inference"]
    thresholds = facts[case.removesuffix("_post")]
    height, width = golden.facts["eval"]["image_size"]
    frame = Frame(width, height, 1.0, 1.0, 0, 0, width, height, width, height)
    changes: dict[str, Any] = {
        "score_threshold": thresholds["score_thresh"],
        "max_detections": thresholds["max_detections"],
    }
    if case == "custom_post":
        to_height, to_width = facts[case]["output_height"], facts[case]["output_width"]
        frame = Frame(to_width, to_height, width / to_width, height / to_height, 0, 0, width, height, width, height)
    else:
        changes |= {"clip": "never"}  # the reference clips boxes when it scales them to the picture
    spec = POSTPROCESS.model_copy(update=changes)
    if case == "default":
        assert {**spec.model_dump(), "clip": "after_nms"} == POSTPROCESS.model_dump()
    (ours,) = detect(model.decode(raw), [frame], spec)
    assert (np.diff(ours.scores) <= 0).all()
    assert_same_detections(ours, golden.group(f"eval/det_{case}_"), TOLERANCE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_matches(golden: Golden, model: RetinaNet, dtype: torch.dtype) -> None:
    targets = train_targets(golden)
    raw = model(train_images(golden))
    matches, left_out = model.assign_or_leave_out(HeadOutput(raw.cls, tuple(x.to(dtype) for x in raw.reg)), targets)
    labels = torch.full(left_out.shape, BACKGROUND).masked_fill(left_out, LEFT_OUT)
    labels[matches.image, matches.prior] = matches.label
    ours = {"gt_labels": labels}
    for image, (boxes, classes) in enumerate(zip(targets.boxes, targets.labels, strict=True)):
        own = matches.image == image
        ours |= {f"gt{image}_boxes": boxes, f"gt{image}_labels": classes}
        ours |= {f"pos{image}_index": matches.prior[own], f"pos{image}_matched_boxes": matches.box[own]}
    theirs = golden.group("train/")
    for name in theirs:
        if re.fullmatch(MATCHES, f"train/{name}"):
            np.testing.assert_array_equal(ours[name].numpy(), theirs[name], err_msg=name)
    facts = golden.facts["train"]
    assert (labels.numel() // 2, len(matches.prior), int(left_out.sum())) == (
        facts["num_anchors"],
        facts["num_positive"],
        facts["num_ignored"],
    )


def test_losses_and_gradients_in_float64(golden: Golden, weights: dict[str, Tensor]) -> None:
    model = build(golden, weights).double().train()
    targets, facts = train_targets(golden), golden.facts["train"]
    raw = model(train_images(golden).double())
    predicted = {f"train/logits{level}": x for level, x in enumerate(raw.cls)}
    compare(golden, PREDICTIONS, predicted | {f"train/deltas{level}": x for level, x in enumerate(raw.reg)})
    first, second = model.loss(raw, targets), model.loss(raw, targets)  # the normaliser moves in between
    for ours, theirs in ((first, facts["losses"]), (second, facts["losses_second_call_same_predictions"])):
        assert {"loss_cls": theirs["loss_cls"], "loss_bbox": theirs["loss_box_reg"]} == {
            name: pytest.approx(value.item(), rel=TOLERANCE) for name, value in ours.items()
        }
    sum(first.values()).backward()  # type: ignore[union-attr]
    gradients = {}
    for key, norm in golden.facts["grad"]["l2_norms"].items():
        gradient = model.get_parameter(from_official("retinanet", key)).grad
        assert gradient is not None
        assert gradient.norm().item() == pytest.approx(norm, rel=TOLERANCE), key
        gradients[f"grad/{key}"] = gradient
    gradients["grad/first_trainable"] = gradients[f"grad/{golden.facts['grad']['first_trainable']}"]
    compare(golden, GRADIENTS, gradients)
