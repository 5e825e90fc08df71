"""Every number of YOLOv5 7.0 that a golden holds, against ours, from the official names of the parameters on.

All of it was computed in float32 (docs/specs/yolov5.md, section 1, states the tolerances).
"""

from __future__ import annotations

import json
from typing import Any

import goldenlib
import numpy as np
import pytest
import torch
from golden_files import FOLDER, Golden, assert_near, find_variants
from torch import Tensor

from ymir_tmi.config.recipe import LossRecipe
from ymir_tmi.data.letterbox import Frame
from ymir_tmi.geometry.boxes import aligned_ciou
from ymir_tmi.models.anchored import AnchoredDetector, objectness_targets
from ymir_tmi.models.blocks.head import PredictionConv
from ymir_tmi.models.catalog import canonical_name, create_model
from ymir_tmi.models.convert.keys import from_official
from ymir_tmi.models.dense import AnchorPriors, flatten_levels, make_anchor_priors
from ymir_tmi.models.interface import Detector, HeadOutput, Matches, Targets
from ymir_tmi.models.postprocess import detect

CLASSES = 80
ANCHORS = 3
CLOSE = 1e-4
GRADIENT = 1e-3
PRESENT, ABSENT = find_variants("yolov5")

# The loss of the reference's first recipe, and what its numbers are called here.
GAINS = {"box": 0.05, "obj": 1.0, "cls": 0.5}
TERMS = {"box": "loss_bbox", "obj": "loss_obj", "cls": "loss_cls", "seg": "loss_mask"}
FIELDS = {
    "label_smoothing": "label_smoothing",
    "fl_gamma": "focal_gamma",
    "anchor_t": "anchor_ratio",
    "cls_pw": "cls_positive",
    "obj_pw": "obj_positive",
}


def read(name: str) -> dict[str, Any]:
    path = FOLDER / "yolov5" / name
    content: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return content


FACTS = read("facts.json")
KEYS = read("state_dict_keys.json")
EXPORTS = {name.split()[1]: facts for name, facts in read("onnx_facts.json").items() if name.endswith(" 640x640")}


@pytest.fixture(scope="module", params=PRESENT)
def golden(request: pytest.FixtureRequest) -> Golden:
    return Golden("yolov5", request.param)


def load(golden: Golden, which: str) -> AnchoredDetector:
    """Return our model with the weights of "eval" or "train"."""
    name, rule = canonical_name(golden.variant), golden.facts["weights_rule"]
    weights = {}
    for key, shape, _ in golden.facts["state_dict"]:
        if key not in rule["constants"]:
            values = torch.from_numpy(goldenlib.tensor_for(key, tuple(shape)))
            weights[key] = values * rule[f"scale_{which}"].get(key, 1)
    model = create_model(name, num_classes=CLASSES)
    assert isinstance(model, AnchoredDetector)
    model.load_state_dict({own_name(model, key): values for key, values in weights.items()})
    return model


def own_name(model: Detector, key: str) -> str:
    return from_official(model.spec.family, key, model.spec.name)


@pytest.fixture(scope="module")
def evaluated(golden: Golden) -> tuple[AnchoredDetector, HeadOutput]:
    model = load(golden, "eval").eval()
    height, width = golden.facts["eval"]["raw_shapes"][0][2:4]
    images = goldenlib.image_batch(f"{golden.variant}/eval", (1, 3, height * 8, width * 8))
    with torch.no_grad():
        return model, model(torch.from_numpy(images))


@pytest.fixture(scope="module")
def trained(golden: Golden) -> tuple[AnchoredDetector, HeadOutput]:
    """The model after one forward pass in training, with the reference's loss for images of 640 pixels."""
    model = load(golden, "train").train()
    model.spec = model.spec.model_copy(update={"input": model.spec.input.model_copy(update={"size": 640})})
    images = goldenlib.image_batch(f"{golden.variant}/train", (2, 3, 128, 128))
    raw: HeadOutput = model(torch.from_numpy(images))
    model.loss_recipe = LossRecipe(**GAINS)
    return model, raw


def targets_of(golden: Golden, side: float | None = None) -> Targets:
    """Return the objects, or squares in their places."""
    rows = torch.from_numpy(golden.arrays["train/targets"])
    centres, sizes = rows[:, 2:4], rows[:, 4:6] if side is None else torch.full_like(rows[:, 4:6], side)
    boxes = torch.cat([centres - sizes / 2, centres + sizes / 2], dim=1) * 128
    images = [rows[:, 0] == image for image in range(2)]
    masks = golden.arrays.get("train/masks_overlap")
    return Targets(
        [boxes[own] for own in images],
        [rows[own, 1].long() for own in images],
        None if masks is None else torch.from_numpy(masks).long(),
    )


def priors_of(model: AnchoredDetector, raw: HeadOutput) -> AnchorPriors:
    return make_anchor_priors(raw.reg, model.strides, torch.tensor(model.spec.anchors))


def rearranged(raw: HeadOutput, level: int) -> Tensor:
    """Return (B, 3, h, w, 85) x, y, width, height, objectness, classes (and coefficients), in the reference's order."""
    kinds = [maps for maps in (raw.reg, raw.obj, raw.cls, raw.coefficients) if maps]
    parts = [torch.stack(maps[level].detach().chunk(ANCHORS, dim=1), dim=1) for maps in kinds]
    return torch.cat(parts, dim=2).permute(0, 1, 3, 4, 2)


@pytest.mark.skipif(not ABSENT, reason="every variant of this schema has a model")
def test_variants_without_a_model() -> None:
    pytest.skip(f"no model for {len(ABSENT)} variants: {', '.join(ABSENT)}")


@pytest.mark.parametrize("name", KEYS)
def test_official_names_and_shapes(name: str) -> None:
    model = create_model(name, num_classes=CLASSES)
    theirs = {own_name(model, key): tuple(shape) for key, shape in KEYS[name] if not key.endswith(".anchors")}
    assert theirs == {key: tuple(value.shape) for key, value in model.state_dict().items()}
    assert len(theirs) == len(KEYS[name]) - 1
    assert sum(parameter.numel() for parameter in model.parameters()) == FACTS["models"][name]["parameters"]
    assert list(model.strides) == FACTS["models"][name]["strides"]
    assert model.spec.anchors is not None
    anchors = [[side for anchor in level for side in anchor] for level in model.spec.anchors]
    assert anchors == FACTS["models"][name]["anchors_pixels"]


def test_forward(golden: Golden, evaluated: tuple[AnchoredDetector, HeadOutput]) -> None:
    _, raw = evaluated
    for level in range(len(raw.cls)):
        assert_near(rearranged(raw, level), golden.arrays[f"eval/raw{level}"], CLOSE, f"eval/raw{level}")
    for prototypes in raw.prototypes:
        assert_near(prototypes, golden.arrays["eval/proto"], CLOSE, "eval/proto")


def test_decode(golden: Golden, evaluated: tuple[AnchoredDetector, HeadOutput]) -> None:
    model, raw = evaluated
    dense = model.decode(raw)
    columns = [part for part in (dense.boxes, dense.scores, dense.coefficients) if part is not None]
    levels = torch.split(torch.cat(columns, dim=2), dense.level_sizes, dim=1)
    shapes = golden.facts["eval"]["raw_shapes"]
    # Rows of a level are y, x, anchor here and anchor, y, x there.
    rows = [
        level.view(1, shape[2], shape[3], ANCHORS, -1).permute(0, 3, 1, 2, 4).flatten(1, 3)
        for level, shape in zip(levels, shapes, strict=True)
    ]
    expected = golden.arrays["eval/decoded"]
    centres, sizes = expected[..., :2], expected[..., 2:4]
    boxes = np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=2)
    assert_near(torch.cat(rows, 1)[..., :4], boxes, CLOSE, "boxes")
    ends = 4 + CLASSES, 5 + CLASSES
    scores = expected[..., 5 : ends[1]] * expected[..., 4:5]
    assert_near(torch.cat(rows, 1)[..., 4 : ends[0]], scores, CLOSE, "scores")
    assert_near(torch.cat(rows, 1)[..., ends[0] :], expected[..., ends[1] :], CLOSE, "coefficients")


@pytest.mark.parametrize("kind", ["single", "multi"])
def test_detections(golden: Golden, evaluated: tuple[AnchoredDetector, HeadOutput], kind: str) -> None:
    model, raw = evaluated
    facts = golden.facts["eval"]["nms"][kind]
    spec = model.spec.postprocess.model_copy(
        update={
            "score_threshold": facts["conf_thres"],
            "iou_threshold": facts["iou_thres"],
            "multi_label": facts["multi_label"],
            "max_detections": facts["max_det"],
            "clip": "never",
        }
    )
    height, width = (8 * side for side in golden.facts["eval"]["raw_shapes"][0][2:4])
    (ours,) = detect(model.decode(raw), [Frame(width, height, 1.0, 1.0, 0, 0, width, height, width, height)], spec)
    expected = golden.arrays[f"eval/nms_{kind}"]
    assert len(ours) == len(expected) == facts["detections"]
    np.testing.assert_allclose(ours.scores, expected[:, 4], rtol=CLOSE)
    free = np.ones(len(ours), bool)
    for row in expected:
        same = free & (ours.labels == row[5]) & np.isclose(ours.scores, row[4], rtol=CLOSE, atol=0)
        same &= np.isclose(ours.boxes, row[:4], rtol=CLOSE, atol=1e-2).all(1)
        assert same.any(), row
        free[same.argmax()] = False


def test_training_forward(golden: Golden, trained: tuple[AnchoredDetector, HeadOutput]) -> None:
    model, raw = trained
    for name, values in golden.group("train/raw").items():
        assert_near(rearranged(raw, int(name)), values, CLOSE, f"train/raw{name}")
    for prototypes in raw.prototypes:
        assert_near(prototypes, golden.arrays["train/proto"], CLOSE, "train/proto")
    state = model.state_dict()
    statistics = golden.group("train/after_one_forward/")
    assert statistics
    for key, values in statistics.items():
        assert_near(state[own_name(model, key)], values, CLOSE, key)


def test_assignment(golden: Golden, trained: tuple[AnchoredDetector, HeadOutput]) -> None:
    """Rows are in the order of the reference: of two that share a prior, the later one counts for objectness."""
    model, raw = trained
    matches = model.assign(raw, targets_of(golden))
    priors = priors_of(model, raw).take(matches.prior)
    first = [0, *np.cumsum(priors.level_sizes)]
    for level, stride in enumerate(model.strides):
        own = priors.levels == level
        part = Matches(*(column[own] for column in matches))
        local = part.prior - first[level]
        width = raw.cls[level].shape[3]
        columns = [part.image, local % ANCHORS, local // ANCHORS // width, local // ANCHORS % width, part.label]
        rows = torch.stack(columns, dim=1).numpy()
        np.testing.assert_array_equal(rows, golden.arrays[f"train/assign{level}"])
        centres = (part.box[:, :2] + part.box[:, 2:]) / 2 - priors.cells[own]
        boxes = torch.cat([centres, part.box[:, 2:] - part.box[:, :2]], dim=1) / stride
        np.testing.assert_allclose(boxes, golden.arrays[f"train/assign_box{level}"], rtol=CLOSE, atol=1e-5)
        np.testing.assert_allclose(priors.sizes[own] / stride, golden.arrays[f"train/assign_anchor{level}"], rtol=CLOSE)
        overlap = golden.arrays.get(f"train/assign_ciou{level}", np.zeros(0))  # left out where there is no row
        np.testing.assert_allclose(part.quality, overlap, rtol=CLOSE, atol=1e-5)


def test_objectness_targets(golden: Golden, trained: tuple[AnchoredDetector, HeadOutput]) -> None:
    model, raw = trained
    matches = model.assign(raw, targets_of(golden))
    logits = flatten_levels(raw.obj, ANCHORS).squeeze(-1)
    targets = objectness_targets(logits, matches, matches.quality.clamp(min=0))
    for level, part in enumerate(torch.split(targets, priors_of(model, raw).level_sizes, dim=1)):
        expected = golden.arrays[f"train/objectness_target{level}"]  # (B, 3, h, w)
        ours = part.view(2, *expected.shape[2:], ANCHORS).permute(0, 3, 1, 2)
        np.testing.assert_allclose(ours, expected, rtol=CLOSE, atol=1e-5)


def test_losses(golden: Golden, trained: tuple[AnchoredDetector, HeadOutput]) -> None:
    model, raw = trained
    masks = targets_of(golden).masks
    nothing = Targets([torch.zeros(0, 4)] * 2, [torch.zeros(0, dtype=torch.int64)] * 2, masks)
    special = {"large_targets": targets_of(golden, 1.3), "no_targets": nothing}
    for name, facts in golden.facts["train"]["losses"].items():
        if name.startswith("no_overlap"):
            continue  # objects share pixels there, which `Targets.masks` does not express
        changed = facts.get("changed", {}) if name not in special else {}
        model.loss_recipe = LossRecipe(**GAINS, **{FIELDS[field]: value for field, value in changed.items()})
        losses = model.loss(raw, special.get(name, targets_of(golden)))
        assert len(losses) == len(facts["items"])
        for kind, item in facts["items"].items():
            expected = 2 * item  # the items leave out the size of the batch
            assert losses[TERMS[kind]].item() == pytest.approx(expected, rel=CLOSE, abs=1e-7), (name, kind)
        assert sum(losses.values()).item() == pytest.approx(facts["total"], rel=CLOSE), name
    model.loss_recipe = LossRecipe(**GAINS)


def test_gradients(golden: Golden, trained: tuple[AnchoredDetector, HeadOutput]) -> None:
    model, raw = trained
    parameters = dict(model.named_parameters())
    total = sum(model.loss(raw, targets_of(golden)).values(), torch.tensor(0.0))
    gradients = dict(
        zip(parameters, torch.autograd.grad(total, list(parameters.values()), retain_graph=True), strict=True)
    )
    norms = golden.facts["grad"]["l2_norms"]
    assert len(norms) == len(parameters)
    for key, norm in norms.items():
        ours = gradients[own_name(model, key)]
        assert ours.norm().item() == pytest.approx(norm, rel=GRADIENT), key
    for key, values in golden.group("grad/").items():
        key = golden.facts["grad"]["first_conv"] if key == "first_conv" else key
        assert_near(gradients[own_name(model, key)], values, GRADIENT, key)


@pytest.mark.parametrize("name", [name for name in EXPORTS if not name.endswith("-seg")])
def test_number_of_priors(name: str) -> None:
    model = create_model(name, num_classes=CLASSES)
    maps = tuple(torch.zeros(1, 12, 640 // stride, 640 // stride) for stride in model.strides)
    raw = HeadOutput(
        cls=tuple(level.repeat(1, 20, 1, 1) for level in maps), reg=maps, obj=tuple(m[:, :3] for m in maps)
    )
    dense = model.decode(raw)
    assert [1, dense.boxes.shape[1], 5 + dense.scores.shape[2]] == EXPORTS[name]["outputs"][0][1]


def test_complete_iou() -> None:
    facts = FACTS["bbox_iou_xywh"]
    boxes = []
    for rows in (torch.tensor(facts["a"]), torch.tensor(facts["b"])):
        boxes.append(torch.cat([rows[:, :2] - rows[:, 2:] / 2, rows[:, :2] + rows[:, 2:] / 2], dim=1))
    torch.testing.assert_close(aligned_ciou(boxes[0], boxes[1]), torch.tensor(facts["ciou"]), rtol=CLOSE, atol=1e-6)


def test_initial_biases() -> None:
    """New networks differ from PyTorch's own initialisation by these."""
    torch.manual_seed(0)
    model = create_model("yolov5_n", num_classes=CLASSES)
    facts = FACTS["initial_detect_bias"]
    for layer, stride in zip(model.get_submodule("head.pred").children(), (8, 16, 32), strict=True):
        assert isinstance(layer, PredictionConv) and layer.bias is not None
        bias = layer.bias.detach().view(ANCHORS, 5 + CLASSES)
        reach = layer.in_channels**-0.5  # of PyTorch's uniform distribution
        assert ((bias[:, 4] - facts["obj_offset_per_stride"][str(stride)]).abs() <= reach + 1e-6).all()
        assert ((bias[:, 5:] - facts["cls_offset_nc80"]).abs() <= reach + 1e-6).all()
        assert (bias[:, :4].abs() <= reach).all()
