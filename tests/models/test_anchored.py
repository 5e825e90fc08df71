"""What users may change of YOLOv5 and YOLOv7: activation, anchors, classes, and the numbers of the loss."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ymir_tmi.config.recipe import LossRecipe
from ymir_tmi.config.schema import Activation
from ymir_tmi.errors import ModelError
from ymir_tmi.models import anchored
from ymir_tmi.models.anchored import AnchoredDetector
from ymir_tmi.models.blocks.conv import ConvBlock
from ymir_tmi.models.blocks.repvgg import RepVGGBlock
from ymir_tmi.models.catalog import create_model, default_spec, find_family
from ymir_tmi.models.checkpoint import load_model, save_model, transfer_weights
from ymir_tmi.models.interface import HeadOutput, Targets
from ymir_tmi.models.losses import weighted_cross_entropy

FORMS = ["yolov5_n", "yolov5_n6", "yolov7_tiny"]


def build(name: str, classes: int = 3) -> AnchoredDetector:
    torch.manual_seed(0)
    model = create_model(name, num_classes=classes)
    assert isinstance(model, AnchoredDetector)
    return model


def some_raw(model: AnchoredDetector, images: int = 2, side: int = 128) -> HeadOutput:
    """Return random numbers of the head, in float64."""
    random = torch.Generator().manual_seed(1)
    numbers = 3 * model.spec.num_classes, 12, 3
    levels = [
        [
            torch.randn(images, count, side // stride, side // stride, generator=random, dtype=torch.float64)
            for count in numbers
        ]
        for stride in model.strides
    ]
    return HeadOutput(*(tuple(maps) for maps in zip(*levels, strict=True)))


def some_targets(images: int = 2) -> Targets:
    random = torch.Generator().manual_seed(2)
    boxes = []
    for _ in range(images):
        centres = torch.rand(4, 2, generator=random) * 80 + 24
        sizes = torch.rand(4, 2, generator=random) * 40 + 8
        boxes.append(torch.cat([centres - sizes / 2, centres + sizes / 2], dim=1))
    return Targets(boxes, [torch.tensor([0, 1, 2, 1])] * images)


def cross_entropy(logit: float, target: float, positive_weight: float, gamma: float) -> float:
    """The binary cross entropy of docs/specs/yolov5.md, section 8, for one number."""
    p = 1 / (1 + math.exp(-logit))
    entropy = -(positive_weight * target * math.log(p) + (1 - target) * math.log(1 - p))
    if gamma == 0:
        return entropy
    p_t = target * p + (1 - target) * (1 - p)
    return entropy * (0.25 * target + 0.75 * (1 - target)) * (1 - p_t) ** gamma


@pytest.mark.parametrize(("positive_weight", "gamma"), [(1.0, 0.0), (2.5, 0.0), (0.5, 1.5), (1.0, 0.5)])
def test_weighted_cross_entropy(positive_weight: float, gamma: float) -> None:
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(30, generator=random, dtype=torch.float64) * 3
    targets = torch.cat([torch.zeros(10), torch.ones(10), torch.rand(10, generator=random)]).double()
    ours = weighted_cross_entropy(logits, targets, positive_weight=positive_weight, focal_gamma=gamma)
    expected = [
        cross_entropy(logit, target, positive_weight, gamma)
        for logit, target in zip(logits.tolist(), targets.tolist(), strict=True)
    ]
    torch.testing.assert_close(ours, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.5])
def test_weighted_cross_entropy_of_extreme_logits_has_a_finite_gradient(gamma: float) -> None:
    logits = torch.tensor([100.0, -100.0, 100.0, -100.0, 0.0], requires_grad=True)
    loss = weighted_cross_entropy(logits, torch.tensor([1.0, 0.0, 0.0, 1.0, 0.3]), focal_gamma=gamma)
    loss.sum().backward()
    assert loss.isfinite().all() and logits.grad is not None and logits.grad.isfinite().all()


def test_label_smoothing_moves_both_targets() -> None:
    """One object, three classes: the mean over its matches of the mean over classes."""
    model = build("yolov5_n")
    raw, targets = some_raw(model, images=1), Targets([torch.tensor([[40.0, 40.0, 70.0, 80.0]])], [torch.tensor([2])])
    model.loss_recipe = LossRecipe(label_smoothing=0.1, cls_positive=2.0, cls=1.0)
    matches = model.assign(raw, targets)
    rows = torch.cat([level.view(1, 3, 3, -1).permute(0, 3, 1, 2).flatten(1, 2) for level in raw.cls], dim=1)[0]
    sizes = torch.tensor([level[0, 0].numel() * 3 for level in raw.cls])
    levels = torch.bucketize(matches.prior, sizes.cumsum(0), right=True)
    expected = 0.0
    for level in levels.unique():
        losses = [
            sum(cross_entropy(x, 0.95 if c == 2 else 0.05, 2.0, 0.0) for c, x in enumerate(rows[prior].tolist())) / 3
            for prior in matches.prior[levels == level]
        ]
        expected += sum(losses) / len(losses)
    assert model.loss(raw, targets)["loss_cls"].item() == pytest.approx(expected * 3 / 80, rel=1e-9)


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("yolov5_s", (0.05, 1.0, 0.5)),
        ("yolov5_m", (0.05, 0.7, 0.3)),
        ("yolov5_s6", (0.0375, 3.0, 0.375)),
        ("yolov5_m6", (0.0375, 2.1, 0.225)),
        ("yolov7_tiny", (0.05, 1.0, 0.5)),
        ("yolov7_l", (0.05, 0.7, 0.3)),
    ],
)
def test_gains_for_80_classes_are_the_published_ones(name: str, published: tuple[float, float, float]) -> None:
    """The weights after scaling that the configurations of the reference state."""
    assert build(name, 80)._scaled_gains() == pytest.approx(published)


@pytest.mark.parametrize("name", FORMS)
def test_gains_follow_recipe_classes_and_image_size(name: str) -> None:
    model = build(name, 40)
    raw, targets = some_raw(model), some_targets()
    plain = model.loss(raw, targets)

    def ratios() -> list[float]:
        changed = model.loss(raw, targets)
        return [float(changed[key] / plain[key]) for key in ("loss_bbox", "loss_obj", "loss_cls")]

    own = model._gains
    model.loss_recipe = LossRecipe(box=3 * own.box, obj=2 * own.obj, cls=0.0)
    assert ratios() == pytest.approx([3, 2, 0])
    model.loss_recipe = LossRecipe()
    larger = model.spec.input.model_copy(update={"size": 2 * model.spec.input.size})
    model.spec = model.spec.model_copy(update={"input": larger})
    assert ratios() == pytest.approx([1, 4, 1])
    model.spec = model.spec.model_copy(update={"class_names": tuple(map(str, range(80)))})
    assert ratios() == pytest.approx([1, 4, 2])


@pytest.mark.parametrize("name", ["yolov5_n", "yolov7_tiny"])
def test_two_processes_together_compute_what_one_computes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(name)
    raw, targets = some_raw(model, images=4), some_targets(images=4)
    targets.boxes[1][:], targets.boxes[3][:] = targets.boxes[1] / 3, targets.boxes[3] / 2  # other levels than the rest
    whole = model.loss(raw, targets)
    halves = [
        (
            HeadOutput(*(tuple(level[part] for level in maps) for maps in raw)),
            Targets(targets.boxes[part], targets.labels[part]),
        )
        for part in (slice(0, 2), slice(2, 4))
    ]
    counts: list[Tensor] = []
    monkeypatch.setattr(anchored, "mean_over_processes", lambda value, at_least: counts.append(value) or value)
    for half in halves:
        model.loss(*half)
    mean = (counts[0] + counts[1]).clamp(min=1) / 2
    assert not torch.equal(counts[0], counts[1])
    monkeypatch.setattr(anchored, "mean_over_processes", lambda value, at_least: mean)
    monkeypatch.setattr(anchored, "process_count", lambda: 2)
    parts = [model.loss(*half) for half in halves]
    for key, value in whole.items():
        torch.testing.assert_close((parts[0][key] + parts[1][key]) / 2, value)


@pytest.mark.parametrize("name", FORMS)
def test_one_class_needs_no_class_loss(name: str) -> None:
    model = build(name, 1)
    targets = some_targets()
    losses = model.loss(some_raw(model), Targets(targets.boxes, [torch.zeros(4, dtype=torch.int64)] * 2))
    assert losses["loss_cls"] == 0 and losses["loss_bbox"] > 0


@pytest.mark.parametrize("logit", [-200.0, -60.0, 60.0])
def test_boxes_that_vanish_keep_the_gradient_finite(logit: float) -> None:
    """The height of a box may be 1e-22 cells, where the arctangent of the CIoU has no slope left."""
    model = build("yolov5_n")
    raw = some_raw(model)
    reg = [level.float() for level in raw.reg]
    for level in reg:
        level.view(2, 3, 4, *level.shape[2:])[:, :, 3] = logit
        level.requires_grad_()
    losses = model.loss(raw._replace(reg=tuple(reg)), some_targets())
    losses["loss_bbox"].backward()
    assert all(level.grad is not None and level.grad.isfinite().all() for level in reg)


@pytest.mark.parametrize("activation", ["relu", "relu6", "leaky_relu", "prelu", "elu", "hardswish", "silu"])
def test_the_activation_is_chosen_and_stored(activation: Activation, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = create_model("yolov5_n", num_classes=2, activation=activation).eval()
    blocks = [module for module in model.modules() if isinstance(module, ConvBlock)]
    assert {block.activation for block in blocks} == {activation}
    save_model(model, tmp_path / "model.safetensors")
    again = load_model(tmp_path / "model.safetensors")
    assert again.spec.activation == activation
    other = build("yolov5_n", 2).eval()
    other.load_state_dict(model.state_dict(), strict=activation != "prelu")
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        ours, theirs, default = (network(images).cls[0] for network in (again, model, other))
    assert torch.equal(ours, theirs)
    assert torch.equal(ours, default) == (activation == "silu")


def test_yolov7_leaves_no_choice_of_its_activation() -> None:
    with pytest.raises(ModelError, match="only YOLOv5 leaves a choice"):
        create_model("yolov7_tiny", num_classes=2, activation="relu")
    activations = {
        name: {module.activation for module in build(name).modules() if isinstance(module, ConvBlock)}
        for name in ("yolov7_tiny", "yolov7_l")
    }
    assert activations == {"yolov7_tiny": {"leaky_relu"}, "yolov7_l": {"silu", None}}  # None: branches that are added


@pytest.mark.parametrize("name", FORMS)
def test_anchors_come_from_the_specification(name: str, tmp_path: Path) -> None:
    spec = default_spec(name, class_names=["a", "b", "c"])
    assert spec.anchors is not None
    doubled = tuple(tuple((2 * width, 2 * height) for width, height in level) for level in spec.anchors)
    torch.manual_seed(0)
    model = find_family(name)(spec.model_copy(update={"anchors": doubled}))
    save_model(model, tmp_path / "model.safetensors")
    assert load_model(tmp_path / "model.safetensors").spec.anchors == doubled
    plain = build(name)
    raw = some_raw(plain)
    sizes = [boxes[..., 2:] - boxes[..., :2] for boxes in (plain.decode(raw).boxes, model.decode(raw).boxes)]
    torch.testing.assert_close(2 * sizes[0], sizes[1])
    large = Targets([torch.tensor([[0.0, 0.0, 125.0, 120.0]])], [torch.tensor([0])])
    one = HeadOutput(*(tuple(level[:1] for level in maps) for maps in raw))
    assert plain.assign(one, large).prior.tolist() != model.assign(one, large).prior.tolist()


@pytest.mark.parametrize(
    ("anchors", "words"),
    [
        pytest.param(None, "not none", id="none"),
        pytest.param((((10, 10), (20, 20)),) * 3, r"not \[2, 2, 2\]", id="two in a cell"),
        pytest.param((((10, 10), (20, 20), (30, 30)),) * 4, r"not \[3, 3, 3, 3\]", id="four levels"),
    ],
)
def test_anchors_that_do_not_fit_are_refused(anchors: object, words: str) -> None:
    spec = default_spec("yolov5_n", class_names=["a"]).model_copy(update={"anchors": anchors})
    with pytest.raises(ModelError, match=f"'yolov5_n' has 3 anchors on each of 3 levels, {words}"):
        find_family("yolov5_n")(spec)


@pytest.mark.parametrize("name", ["yolov5_n", "yolov7_tiny"])
def test_rows_of_classes_follow_their_names(name: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    source = create_model(name, class_names=["cat", "dog", "cow"])
    save_model(source, tmp_path / "model.safetensors")
    torch.manual_seed(2)
    model = create_model(name, class_names=["dog", "horse", "cat"])
    fresh = {key: value.clone() for key, value in model.state_dict().items()}
    report = transfer_weights(model, tmp_path / "model.safetensors")
    assert report.classes == ("dog", "cat") and not report.skipped
    given, now = source.state_dict(), model.state_dict()
    special = [key for key in now if key.startswith(("head.pred.", "head.multiply."))]
    assert len(special) == {"yolov5_n": 6, "yolov7_tiny": 9}[name]
    for key in now:
        if key not in special:
            assert torch.equal(now[key], given[key]), key
            continue
        theirs, ours, before = (state[key].flatten(0, 1 if "multiply" in key else 0) for state in (given, now, fresh))
        theirs, ours, before = (
            rows.view(3, 8, -1) for rows in (theirs, ours, before)
        )  # anchor, 5 others and 3 classes
        assert torch.equal(ours[:, :5], theirs[:, :5])
        assert torch.equal(ours[:, [5, 7]], theirs[:, [6, 5]])
        assert torch.equal(ours[:, 6], before[:, 6])


def test_fused_yolov7_l_is_made_of_plain_convolutions() -> None:
    model = build("yolov7_l").eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.1, 0.1)
            assert module.running_mean is not None
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
    for parameter in model.get_submodule("head.add").parameters():
        nn.init.normal_(parameter, std=0.5)
    fused = model.fuse()
    blocks = [module for module in fused.modules() if isinstance(module, RepVGGBlock)]
    assert len(blocks) == 3 and all(len(list(block.parameters())) == 2 for block in blocks)
    kinds = {type(module) for module in fused.modules() if not list(module.children()) and list(module.parameters())}
    assert kinds <= {nn.Conv2d, *{type(layer) for layer in fused.get_submodule("head.pred").children()}}
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        for ours, expected in zip(fused(images), model(images), strict=True):
            for level, other in zip(ours, expected, strict=True):
                torch.testing.assert_close(level, other, rtol=1e-4, atol=1e-4 * other.abs().max().item())
