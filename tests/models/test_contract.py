"""What every detector promises, on the smallest variant of each family and form."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed
import torch.multiprocessing
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from ymir_tmi.data.letterbox import InputSpec, letterbox, plan_frame
from ymir_tmi.geometry.boxes import aligned_iou
from ymir_tmi.geometry.masks import Masks
from ymir_tmi.geometry.rotated import aligned_rotated_iou, from_upright, points_inside, regularize
from ymir_tmi.models.blocks.conv import ConvBlock
from ymir_tmi.models.blocks.head import PredictionConv
from ymir_tmi.models.catalog import create_model, list_models
from ymir_tmi.models.checkpoint import load_model, save_model
from ymir_tmi.models.interface import Detector, HeadOutput, Targets
from ymir_tmi.models.postprocess import detect

# The smallest of each family and form, and what differs in larger ones.
NAMES = [
    "ppyoloe_plus_s",
    "retinanet_r50_fpn",
    "rtmdet_tiny",
    "rtmdet_tiny_mmdet",
    "rtmdet_m_mmdet",
    "rotated_rtmdet_tiny",
    "yolov5_n",
    "yolov5_n6",
    "yolov5_n_seg",
    "yolov6_n",
    "yolov6_v3_n",
    "yolov7_tiny",
    "yolov8_n",
    "yolox_tiny",
    "yolox_tiny_mmdet",
]
# All others that are not large, and the blocks of which only larger ones are made.
CHEAP = [
    row.name for row in list_models() if row.parameters < 13e6 and row.name not in NAMES and row.task != "semantics"
]
LARGER = [pytest.param(name, marks=pytest.mark.slow) for name in (*CHEAP, "yolov6_l", "yolov6_v3_m", "yolov7_l")]
SIDE = 64
BATCH_NORMS = (nn.BatchNorm2d, FrozenBatchNorm2d)


@pytest.fixture(params=[*NAMES, *LARGER])
def name(request: pytest.FixtureRequest) -> str:
    value: str = request.param
    return value


def build(name: str, classes: int = 3) -> Detector:
    """Return a model whose batch norms are not the identity, so that folding and averaging them shows.

    Families whose predictions start from weights of 0 get others, so that what comes before matters.
    """
    torch.manual_seed(0)
    model = create_model(name, num_classes=classes)
    for module in model.modules():
        if isinstance(module, BATCH_NORMS):
            assert module.running_mean is not None and module.running_var is not None
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.1, 0.1)
        elif isinstance(module, PredictionConv) and not module.weight.any():
            nn.init.normal_(module.weight, std=0.01)
    return model


def some_images(count: int = 2, height: int = SIDE, width: int = SIDE) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1


def some_targets(model: Detector, counts: tuple[int, ...] = (3, 1), classes: int = 3, *, side: int = SIDE) -> Targets:
    """Return objects in the upper left of pictures of `side` x `side` pixels."""
    random = torch.Generator().manual_seed(2)
    boxes, labels = [], []
    for count in counts:
        corners = torch.rand(count, 2, 2, generator=random) * SIDE
        upright = torch.cat([corners.amin(1) - 2, corners.amax(1) + 2], dim=1).clamp(0, SIDE)
        boxes.append(as_targets(model, upright))
        labels.append(torch.randint(0, classes, (count,), generator=random))
    return Targets(boxes, labels, drawn_masks(boxes, side) if model.spec.task == "instances" else None)


def drawn_masks(boxes: list[Tensor], side: int) -> Tensor:
    """Return masks at a quarter of the input that fill the left half of each box; later ones lie on top."""
    masks = torch.zeros(len(boxes), side // 4, side // 4, dtype=torch.int64)
    for own, corners in zip(masks, boxes, strict=True):
        for number, (x1, y1, x2, y2) in enumerate((corners / 4).round().long().tolist(), 1):
            own[y1:y2, x1 : (x1 + x2) // 2] = number
    return masks


def as_targets(model: Detector, upright: Tensor) -> Tensor:
    """Return (n, 4) boxes as the model is shown them: rotated ones lie askew, each by another angle."""
    if model.spec.box_length == 4:
        return upright
    boxes = from_upright(upright)
    return regularize(boxes + torch.arange(len(boxes)).unsqueeze(1) * torch.tensor([0, 0, 0, 0, 0.7]))


def tensors_of(raw: HeadOutput) -> list[Tensor]:
    return [level for levels in raw for level in levels]


def anchors_of(raw: HeadOutput) -> int:
    return raw.reg[0].shape[1] // 4


def cells_of(height: int, width: int, stride: int) -> tuple[int, int]:
    """Return the height and width of a map; where the input is no multiple of the stride, the last cell is cut."""
    return math.ceil(height / stride), math.ceil(width / stride)


def assert_close(ours: HeadOutput, theirs: HeadOutput, tolerance: float) -> None:
    for left, right in zip(tensors_of(ours), tensors_of(theirs), strict=True):
        torch.testing.assert_close(left, right, rtol=tolerance, atol=tolerance * right.abs().max().item())


def first_weight(model: nn.Module) -> nn.Parameter:
    layer = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    return layer.weight


@pytest.mark.parametrize(
    ("counts", "classes"),
    [
        pytest.param((3, 1), 3, id="objects in every image"),
        pytest.param((0, 2), 3, id="one image without"),
        pytest.param((0, 0), 3, id="no object at all"),
        pytest.param((2, 2), 1, id="one class"),
        pytest.param((2,), 2, id="a batch of one"),
    ],
)
@pytest.mark.parametrize("phase", ["warmup", "main", "final"])
def test_loss_is_finite_and_its_gradient_reaches_the_first_layer(
    name: str, counts: tuple[int, ...], classes: int, phase: str
) -> None:
    model = build(name, classes).train()
    side = 2 * model.strides[-1]  # of a single cell, batch norms have no statistics
    raw = model(some_images(len(counts), side, side))
    losses = model.loss(raw, some_targets(model, counts, classes), phase)  # type: ignore[arg-type]
    assert all(value.ndim == 0 and value.isfinite() and value >= 0 for value in losses.values())
    sum(losses.values(), torch.tensor(0.0)).backward()
    gradient = first_weight(model).grad
    assert gradient is not None and gradient.isfinite().all() and gradient.abs().sum() > 0
    assert all(parameter.grad is not None for parameter in model.parameters()), "DDP waits for every gradient"


@pytest.mark.parametrize("phase", ["warmup", "main"])
def test_objects_that_hold_no_prior_leave_the_loss_finite(name: str, phase: str) -> None:
    model = build(name).train()
    masks = torch.zeros(2, SIDE // 4, SIDE // 4, dtype=torch.int64)
    specks = Targets([as_targets(model, torch.tensor([[1.0, 1.0, 2.0, 2.0]]))] * 2, [torch.tensor([1])] * 2, masks)
    losses = model.loss(model(some_images()), specks, phase)  # type: ignore[arg-type]
    sum(losses.values(), torch.tensor(0.0)).backward()
    assert all(value.isfinite() for value in losses.values())
    gradients = [parameter.grad for parameter in model.parameters()]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)


def loss_of_images(name: str, start: int, stop: int) -> dict[str, Tensor]:
    """Return the loss of some of four images; batch norms see nothing of their neighbours."""
    model = build(name).eval()
    targets = some_targets(model, (3, 1, 0, 4))
    masks = None if targets.masks is None else targets.masks[start:stop]
    part = Targets(targets.boxes[start:stop], targets.labels[start:stop], masks)
    with torch.no_grad():
        return model.loss(model(some_images(4)[start:stop]), part)


def _loss_in_a_process(rank: int, folder: str, names: list[str]) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    losses = [loss_of_images(name, rank * 2, rank * 2 + 2) for name in names]
    torch.save(losses, f"{folder}/{rank}")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_losses_of_two_processes_average_to_the_loss_of_the_whole_batch(tmp_path: Path) -> None:
    """All families but RetinaNet, which divides by a running mean."""
    names = ["ppyoloe_plus_s", "rtmdet_tiny", "rotated_rtmdet_tiny", "yolov5_n", "yolov5_n_seg", "yolov6_n"]
    names += ["yolov7_tiny", "yolov8_n", "yolox_tiny"]
    torch.multiprocessing.spawn(_loss_in_a_process, args=(str(tmp_path), names), nprocs=2)
    first, second = (torch.load(tmp_path / str(rank)) for rank in (0, 1))
    for name, *parts in zip(names, first, second, strict=True):
        for term, whole in loss_of_images(name, 0, 4).items():
            mean = (parts[0][term] + parts[1][term]) / 2
            torch.testing.assert_close(mean, whole, rtol=1e-4, atol=0, msg=f"{name} {term}: {mean} {whole}")


def test_the_final_phase_adds_a_term_to_yolox_only(name: str) -> None:
    model = build(name)
    raw, targets = model(some_images()), some_targets(model)
    added = model.loss(raw, targets, "final").keys() - model.loss(raw, targets).keys()
    assert added == ({"loss_l1"} if model.spec.family == "yolox" else set())


def test_bfloat16_computes_nearly_the_same(name: str) -> None:
    model = build(name).eval().to(memory_format=torch.channels_last)
    images = some_images(4, 128, 128)
    exact = model(images)
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(images)
        losses = model.loss(rough, some_targets(model, (3, 1, 0, 2), side=128))
    for left, right in zip(tensors_of(rough), tensors_of(exact), strict=True):
        assert left.dtype == torch.float32
        assert (left - right).std() < 0.1 * right.std()
    assert all(value.dtype == torch.float32 and value.isfinite() for value in losses.values())


@pytest.mark.parametrize(("width", "height"), [(131, 77), (40, 200), (1, 1)])
def test_pictures_of_any_size(name: str, width: int, height: int) -> None:
    model = build(name).eval()
    spec = model.spec.input.model_copy(update={"size": 96})
    picture = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    image, frame = letterbox(picture, spec)
    with torch.no_grad():
        raw = model(model.normalize(torch.from_numpy(image).permute(2, 0, 1)[None]))
    dense = model.decode(raw)
    priors = dense.boxes.shape[1]
    assert dense.boxes.shape == (1, priors, model.spec.box_length)
    assert dense.scores.shape == (1, priors, 3)
    cells = [cells_of(frame.input_height, frame.input_width, stride) for stride in model.strides]
    assert dense.level_sizes == tuple(anchors_of(raw) * height * width for height, width in cells)
    assert priors == sum(dense.level_sizes)
    postprocess = model.spec.postprocess.model_copy(update={"clip": "after_nms", "score_threshold": 0.0})
    (found,) = detect(dense, [frame], postprocess)
    assert len(found) > 0
    if found.is_rotated:  # never cut
        assert (found.boxes[:, 2] >= found.boxes[:, 3]).all() and (found.boxes[:, 3] > 0).all()
        assert (found.boxes[:, 4] >= -np.pi / 2).all() and (found.boxes[:, 4] < np.pi / 2).all()
    else:
        assert (found.boxes >= 0).all() and (found.boxes <= [width, height, width, height]).all()


def test_class_maps_are_the_scores_of_decode(name: str) -> None:
    model = build(name).eval()
    with torch.no_grad():
        raw = model(some_images(2, 64, 128))
        maps = model.class_maps(raw)
    anchors = anchors_of(raw)
    assert [level.shape for level in maps] == [(2, anchors, 3, *cells_of(64, 128, s)) for s in model.strides]
    flat = torch.cat([level.permute(0, 3, 4, 1, 2).reshape(2, -1, 3) for level in maps], dim=1)
    torch.testing.assert_close(flat, model.decode(raw).scores)


def test_a_second_call_gives_the_same(name: str) -> None:
    model = build(name).eval()
    with torch.no_grad():
        first, second = model(some_images()), model(some_images())
        decoded = model.decode(first)
        again = model.decode(first)
    assert all(torch.equal(left, right) for left, right in zip(tensors_of(first), tensors_of(second), strict=True))
    assert torch.equal(decoded.boxes, again.boxes) and torch.equal(decoded.scores, again.scores)


def test_save_and_load_give_the_same(name: str, tmp_path: Path) -> None:
    model = build(name).eval()
    save_model(model, tmp_path / "model.safetensors")
    again = load_model(tmp_path / "model.safetensors")
    with torch.no_grad():
        ours, theirs = again(some_images()), model(some_images())
    assert all(torch.equal(left, right) for left, right in zip(tensors_of(ours), tensors_of(theirs), strict=True))


def test_fused_equals_unfused(name: str) -> None:
    model = build(name).eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    fused = model.fuse()
    assert not [module for module in fused.modules() if isinstance(module, BATCH_NORMS)]
    assert {type(module.bn) for module in fused.modules() if isinstance(module, ConvBlock)} <= {nn.Identity}
    with torch.no_grad():
        assert_close(fused(some_images()), model(some_images()), 1e-5)
    assert model.state_dict().keys() == before.keys(), "the model itself is unchanged"
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_fusing_twice_is_fusing_once(name: str) -> None:
    fused = build(name).eval().fuse()
    with torch.no_grad():
        assert_close(fused.fuse()(some_images()), fused(some_images()), 1e-6)


def test_channels_last_equals_contiguous(name: str) -> None:
    model = build(name).eval()
    with torch.no_grad():
        plain = model(some_images())
        model.to(memory_format=torch.channels_last)
        last = model(some_images().to(memory_format=torch.channels_last))
    assert all(level.stride(1) == 1 for level in tensors_of(last)), "the numbers of a cell lie side by side"
    assert_close(last, plain, 1e-5)


def test_new_models_find_next_to_nothing(name: str) -> None:
    torch.manual_seed(0)
    model = create_model(name, num_classes=3).eval()
    with torch.no_grad():
        scores = model.decode(model(some_images())).scores
    assert scores.max() < 0.1


def drawn_pictures(count: int, side: int = 96) -> tuple[Tensor, Targets]:
    """Return grey (count, 3, side, side) uint8 pictures with a red (class 0) and a blue (class 1) rectangle each."""
    random = np.random.default_rng(0)
    pictures = np.full((count, side, side, 3), 114, np.uint8)
    boxes = []
    for picture in pictures:
        for half, colour in enumerate([(200, 30, 30), (30, 30, 200)]):
            width, height = random.integers(16, side // 2 - 4, 2)
            x, y = random.integers(0, side // 2 - width) + half * side // 2, random.integers(0, side - height)
            picture[y : y + height, x : x + width] = colour
            boxes.append([x, y, x + width, y + height])
    corners = torch.tensor(boxes, dtype=torch.float32).view(count, 2, 4)
    targets = Targets(list(corners), [torch.tensor([0, 1])] * count, drawn_masks(list(corners), side))
    return torch.from_numpy(pictures).permute(0, 3, 1, 2), targets


def drawn_rotated_pictures(count: int, side: int = 96) -> tuple[Tensor, Targets]:
    """Return such pictures in which the rectangles, a third as wide as long, lie askew."""
    random = np.random.default_rng(0)
    x, y = torch.meshgrid(torch.arange(side) + 0.5, torch.arange(side) + 0.5, indexing="xy")
    pixels = torch.stack([x, y], dim=-1).flatten(0, 1)
    pictures, boxes = torch.full((count, side * side, 3), 114, dtype=torch.uint8), []
    for picture in pictures:
        for half, colour in enumerate([(200, 30, 30), (30, 30, 200)]):
            long = random.uniform(24, side // 2 - 6)
            centre = [random.uniform(side * 0.2, side * 0.3) + half * side / 2, random.uniform(side * 0.3, side * 0.7)]
            boxes.append([*centre, long, long / 3, random.uniform(-1.5, 1.5)])
            picture[points_inside(pixels, torch.tensor(boxes[-1]))] = torch.tensor(colour, dtype=torch.uint8)
    rows = torch.tensor(boxes, dtype=torch.float32).view(count, 2, 5)
    planes = pictures.view(count, side, side, 3).permute(0, 3, 1, 2)
    return planes, Targets(list(rows), [torch.tensor([0, 1])] * count)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "rate"),
    [
        ("ppyoloe_plus_s", 2e-3),
        ("retinanet_r50_fpn", 3e-4),
        ("rtmdet_tiny", 2e-3),
        ("rtmdet_tiny_mmdet", 2e-3),
        ("rotated_rtmdet_tiny", 2e-3),
        ("yolov5_n", 5e-3),
        ("yolov5_n_seg", 8e-3),
        ("yolov6_n", 5e-3),
        ("yolov7_tiny", 5e-3),
        ("yolov8_n", 5e-3),
        ("yolox_tiny", 2e-3),
    ],
)
def test_eight_pictures_can_be_learnt_by_heart(name: str, rate: float) -> None:
    torch.manual_seed(0)
    model = create_model(name, num_classes=2).to(memory_format=torch.channels_last)
    is_rotated = model.spec.task == "rotated"
    pictures, targets = (drawn_rotated_pictures if is_rotated else drawn_pictures)(8)
    images = model.normalize(pictures)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=rate, total_steps=150)
    for _ in range(150):
        optimizer.zero_grad()
        sum(model.loss(model(images), targets).values(), torch.tensor(0.0)).backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        for _ in range(80):  # the running statistics catch up with the final weights
            model(images)
        dense = model.eval().decode(model(images))
    frames = [plan_frame(96, 96, InputSpec(size=96))] * 8
    has_masks = model.spec.task == "instances"
    pairs = zip(detect(dense, frames, model.spec.postprocess, masks=has_masks), targets.boxes, strict=True)
    for picture, (found, boxes) in enumerate(pairs):
        for label, box in enumerate(boxes):
            best = int(np.flatnonzero(found.labels == label)[0])
            assert found.scores[best] > 0.5
            overlap = (aligned_rotated_iou if is_rotated else aligned_iou)(torch.from_numpy(found.boxes[best]), box)
            assert overlap > 0.75
            if found.masks is not None and targets.masks is not None:
                cells = targets.masks[picture].numpy() == label + 1
                truth = Masks.encode(np.kron(cells, np.ones((4, 4), bool))[None])
                assert found.masks[[best]].iou(truth)[0, 0] > 0.6  # cells of 4 pixels, some 3 of them across
