"""Every number of mmyolo and mmdet that a golden holds, against ours.

What is computed in float64 there is computed in float64 here and compared to 1e-6; the rest to 1e-4, or to what the
json of the golden states (docs/specs/detectors.md, section 1).
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from golden_files import Golden, assert_near, find_variants, use_batch_statistics

from ymir_tmi.data.letterbox import Frame
from ymir_tmi.models.convert.keys import from_official
from ymir_tmi.models.dense import flatten_levels, make_priors
from ymir_tmi.models.families.rtmdet import RTMDet
from ymir_tmi.models.interface import DenseDetections, Detections, Detector, HeadOutput, Phase
from ymir_tmi.models.postprocess import detect

EXACT = 1e-6
PRESENT, ABSENT = find_variants("mmyolo")
TASK_ALIGNED = ("yolov6", "yolov8", "ppyoloe")

# The same loss under the name that one of the two packages gives it.
LOSS_NAMES = {"loss_bbox_aux": "loss_l1"}

# How the groups of a phase of training end. `_alt` is what the reference meant to compute where it computes something
# else (docs/specs/detectors.md, section 15).
PHASES: dict[Phase, tuple[str, ...]] = {"main": ("_alt", ""), "warmup": ("_alt_warmup", "_warmup"), "final": ("_l1",)}


@pytest.fixture(scope="module", params=PRESENT)
def golden(request: pytest.FixtureRequest) -> Golden:
    return Golden("mmyolo", request.param)


@pytest.fixture(scope="module")
def model(golden: Golden) -> Detector:
    return golden.model()


@pytest.mark.skipif(not ABSENT, reason="every variant of this schema has a model")
def test_variants_without_a_model() -> None:
    pytest.skip(f"no model for {len(ABSENT)} variants: {', '.join(ABSENT)}")


def test_state_dict_has_the_keys_and_shapes_of_the_reference(golden: Golden, model: Detector) -> None:
    theirs = {
        from_official(model.spec.family, key): (tuple(shape), dtype) for key, shape, dtype in golden.facts["state_dict"]
    }
    ours = {
        key: (tuple(value.shape), str(value.dtype).removeprefix("torch.")) for key, value in model.state_dict().items()
    }
    assert ours == theirs
    assert len(theirs) == len(golden.facts["state_dict"]) - len(golden.facts["aliases"])


def test_shared_tensors_map_to_one(golden: Golden, model: Detector) -> None:
    for key, first in golden.facts["aliases"].items():
        assert from_official(model.spec.family, key) == from_official(model.spec.family, first)


def test_forward(golden: Golden, model: Detector) -> None:
    with torch.no_grad():
        _compare_forward(golden, model, model(golden.images("eval")), "", None)


def test_decode_of_the_raw_numbers_of_the_reference(golden: Golden, model: Detector) -> None:
    """Decode theirs rather than ours: an exponential turns the rounding of a large raw number into any difference."""
    levels = range(len(model.strides))
    raw = {
        kind: tuple(torch.from_numpy(golden.arrays[f"forward/{level}/{kind}"]) for level in levels)
        for kind in HeadOutput._fields
        if f"forward/0/{kind}" in golden.arrays
    }
    if _reports_pixels(golden, model):
        cells = [level / stride for level, stride in zip(raw["reg"], model.strides, strict=True)]
        raw["reg"] = tuple(level.log() if model.exp else level for level in cells)
    _compare_decoded(golden, model, HeadOutput(**raw), "", None)


def test_detections(golden: Golden, model: Detector) -> None:
    if golden.facts["predict"]["eval"] is None:
        pytest.skip("no threshold separates the detections of the evaluation input reliably")
    with torch.no_grad():
        dense = model.decode(model(golden.images("eval")))
    _compare_detections(golden, model, dense, "", 1e-4)


def test_forward_decode_and_detections_with_batch_statistics_in_float64(golden: Golden) -> None:
    model = golden.model().double()
    use_batch_statistics(model)
    with torch.no_grad():
        raw = model(golden.images("train").double())
    first = HeadOutput(*(tuple(level[:1] for level in levels) for levels in raw))
    _compare_forward(golden, model, first, "bnbatch/", EXACT)
    _compare_decoded(golden, model, first, "bnbatch/", EXACT)
    _compare_detections(golden, model, model.decode(first), "bnbatch/", EXACT)


def test_assignment_and_losses_in_float64(golden: Golden) -> None:
    model = golden.model().double().train()
    raw = model(golden.images("train").double())
    for phase, suffixes in PHASES.items():
        if f"assign{suffixes[-1]}/pos_index_0" in golden.arrays:
            _compare_assignment(golden, model, raw, phase, f"assign{suffixes[-1]}/")
        suffix = next((suffix for suffix in suffixes if golden.group(f"f64/loss{suffix}/")), None)
        if suffix is None:
            continue
        expected = golden.group(f"f64/loss{suffix}/")
        losses = model.loss(raw, golden.targets(), phase)
        assert losses.keys() == {LOSS_NAMES.get(name, name) for name in expected}
        for name, value in expected.items():  # mmdet states RTMDet's losses level by level
            assert_near(losses[LOSS_NAMES.get(name, name)], value.sum(), EXACT, name)
        weight = model.get_parameter(from_official(model.spec.family, golden.facts["first_conv"]))
        (gradient,) = torch.autograd.grad(sum(losses.values()), weight, retain_graph=True)
        assert_near(gradient.norm(), golden.arrays[f"f64/grad{suffix}/first_conv"], EXACT, "gradient")


def _compare_forward(golden: Golden, model: Detector, raw: HeadOutput, prefix: str, exact: float | None) -> None:
    compared = 0
    reg = raw.reg
    if _reports_pixels(golden, model):
        cells = [level.exp() if model.exp else level for level in raw.reg]
        reg = tuple(level * stride for level, stride in zip(cells, model.strides, strict=True))
    for kind, levels in raw._replace(reg=reg)._asdict().items():
        for number, level in enumerate(levels):
            name = f"{prefix}forward/{number}/{kind}"
            assert_near(level, golden.arrays[name], exact or golden.tolerance(name), name)
            compared += 1
    assert compared == len(golden.group(f"{prefix}forward/"))


def _reports_pixels(golden: Golden, model: Detector) -> bool:
    """Return whether the head of the reference turns its raw numbers into pixels itself, as mmdet's RTMDet does."""
    return golden.variant.endswith("_mmdet") and isinstance(model, RTMDet)


def _compare_decoded(golden: Golden, model: Detector, raw: HeadOutput, prefix: str, exact: float | None) -> None:
    dense = model.decode(raw)
    for kind, values in (("boxes", dense.boxes), ("scores", dense.scores)):
        name = f"{prefix}decoded/{kind}"
        assert_near(values[0], golden.arrays[name], exact or golden.tolerance(name), name)


def _compare_detections(golden: Golden, model: Detector, dense: DenseDetections, prefix: str, tolerance: float) -> None:
    facts = golden.facts["predict"]
    spec = model.spec.postprocess.model_copy(
        update={"score_threshold": facts[prefix.removesuffix("/") or "eval"]["score_thr"]}
    )
    height, width = golden.facts["inputs"]["train" if prefix else "eval"]["shape"][2:]
    (ours,) = detect(dense, [_whole(width, height)], spec)
    theirs = golden.group(f"{prefix}predict/")
    assert len(ours) == len(theirs["scores"])
    assert (np.diff(ours.scores) <= 0).all()
    _assert_same_set(ours, theirs, tolerance)


def _assert_same_set(ours: Detections, theirs: dict[str, np.ndarray], tolerance: float) -> None:
    """Find for every detection of theirs another one of ours; their order may differ where scores nearly tie."""
    free = np.ones(len(ours), bool)
    scale = np.abs(theirs["boxes"]).max()
    for box, score, label in zip(theirs["boxes"], theirs["scores"], theirs["labels"], strict=True):
        same = free & (ours.labels == label) & np.isclose(ours.scores, score, rtol=tolerance, atol=0)
        same &= np.isclose(ours.boxes, box, rtol=tolerance, atol=tolerance * scale / 10).all(1)
        assert same.any(), (box, score, label)
        free[same.argmax()] = False


def _whole(width: int, height: int) -> Frame:
    """Return the frame of a picture that is the whole network input."""
    return Frame(width, height, 1.0, 1.0, 0, 0, width, height, width, height)


def _compare_assignment(golden: Golden, model: Detector, raw: HeadOutput, phase: Phase, prefix: str) -> None:
    matches = model.assign(raw, golden.targets(), phase)
    for image in range(len(raw.cls[0])):
        own = matches.image == image
        ours = [column[own].numpy() for column in (matches.prior, matches.gt, matches.quality)]
        theirs = [golden.arrays[f"{prefix}{name}_{image}"] for name in ("pos_index", "gt_index")]
        theirs.append(golden.arrays.get(f"f64/{prefix}score_{image}", np.ones(len(theirs[0]))))
        if golden.variant.startswith(TASK_ALIGNED):  # a positive without score is a tie among pairs that do not fit
            ours, theirs = ([column[columns[2] > 0] for column in columns] for columns in (ours, theirs))
        for name, left, right in zip(("pos_index", "gt_index"), _sorted(ours), _sorted(theirs), strict=False):
            np.testing.assert_array_equal(left, right, err_msg=f"{prefix}{name}_{image}")
        if f"f64/{prefix}score_{image}" in golden.arrays:
            assert_near(_sorted(ours)[2], _sorted(theirs)[2], EXACT, f"{prefix}score_{image}")


def _sorted(columns: list[np.ndarray]) -> list[np.ndarray]:
    """Return positives ordered by prior, then object: a prior with anchors may serve several objects."""
    order = np.lexsort((columns[1], columns[0]))
    return [column[order] for column in columns]


def test_priors_are_those_of_the_reference(golden: Golden, model: Detector) -> None:
    if golden.facts["anchors"] is not None:
        pytest.skip("decoding compares the anchors")
    sizes = [(height // stride, width // stride) for stride in model.strides for height, width in [_eval_size(golden)]]
    expected = golden.arrays["constants/priors"]
    offset = float(expected[0, 0] / expected[0, 2])
    priors = make_priors([torch.zeros(1, 4, *size) for size in sizes], model.strides, offset=offset)
    np.testing.assert_array_equal(priors.points.numpy(), expected[:, :2])
    np.testing.assert_array_equal(priors.strides.numpy(), expected[:, 2])
    assert len(flatten_levels([torch.zeros(1, 4, *size) for size in sizes])[0]) == len(expected)


def _eval_size(golden: Golden) -> tuple[int, int]:
    height, width = golden.facts["inputs"]["eval"]["shape"][2:]
    return height, width
