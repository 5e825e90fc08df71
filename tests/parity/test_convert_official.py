"""Official checkpoints, rebuilt from the lists of their keys, come out as the models that reproduce the references."""

from __future__ import annotations

import json
import pickle
from functools import cache
from pathlib import Path

import pytest
import torch
from foreign_files import megvii_keys, save_mm, save_yolov5, weights_for
from golden_files import FOLDER, Golden, assert_near, find_variants
from torch import Tensor, nn

from ymir_tmi.errors import ModelError
from ymir_tmi.models.catalog import canonical_name, list_models
from ymir_tmi.models.checkpoint import load_model, read_model_info
from ymir_tmi.models.convert.caffe2 import from_caffe2
from ymir_tmi.models.convert.cityscapes import CITYSCAPES_CLASSES
from ymir_tmi.models.convert.coco import COCO_CLASSES
from ymir_tmi.models.convert.keys import from_official
from ymir_tmi.models.interface import Network
from ymir_tmi.weights.convert import convert_checkpoint

MM = find_variants("mmyolo")[0]
DETECTRON2 = find_variants("d2")[0]
MMROTATE = find_variants("mmrotate")[0]
MMSEG = {"fast_scnn": "fast_scnn", "fcn_hr18s": "fcn_hrnet_w18_small", "fcn_hr48": "fcn_hrnet_w48"}
MODELS = {row.name for row in list_models()}


def read_json(*place: str) -> dict:
    path = FOLDER.joinpath(*place)
    return json.loads(path.read_text()) if path.is_file() else {}


YOLOV5_KEYS = {
    name: keys for name, keys in read_json("yolov5", "state_dict_keys.json").items() if canonical_name(name) in MODELS
}


def assert_equal(model: Network, weights: dict[str, Tensor], *, half: bool = False) -> None:
    """Compare every tensor of a model with what a checkpoint under official names held."""
    own = model.state_dict()
    expected = {from_official(model.spec.family, key, model.spec.name): value for key, value in weights.items()}
    assert own.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(own[key], value.half().to(value.dtype) if half else value), key


@pytest.mark.parametrize("variant", MM)
def test_mm(variant: str, tmp_path: Path) -> None:
    golden = Golden("mmyolo", variant)
    aliases = golden.facts["aliases"]
    weights = golden.weights()
    weights |= {key: weights[first] for key, first in aliases.items()}  # one tensor, saved once, as in the original
    names = [f"kind {number}" for number in range(golden.facts["num_classes"])]
    save_mm(tmp_path / "a.pth", weights, names)
    converted = convert_checkpoint(tmp_path / "a.pth", tmp_path / "a.safetensors", model=variant)
    model = load_model(tmp_path / "a.safetensors")
    assert model.spec.class_names == converted.class_names == tuple(names)
    assert_equal(model, weights)


def test_a_converted_model_computes_what_the_reference_does(tmp_path: Path) -> None:
    golden = Golden("mmyolo", "rtmdet_tiny")
    save_mm(tmp_path / "a.pth", golden.weights(), COCO_CLASSES)
    convert_checkpoint(tmp_path / "a.pth", tmp_path / "a.safetensors", model="rtmdet_tiny")
    with torch.no_grad():
        raw = load_model(tmp_path / "a.safetensors")(golden.images("eval"))
    for number, level in enumerate(raw.cls):
        name = f"forward/{number}/cls"
        assert_near(level, golden.arrays[name], golden.tolerance(name), name)


@pytest.mark.parametrize("variant", [name for name in MM if Golden("mmyolo", name).facts["aliases"]])
def test_shared_convolutions_that_differ(variant: str, tmp_path: Path) -> None:
    golden = Golden("mmyolo", variant)
    weights = golden.weights()
    key, first = next(iter(golden.facts["aliases"].items()))
    weights[key] = weights[key] + 1
    save_mm(tmp_path / "a.pth", weights, COCO_CLASSES)
    with pytest.raises(ModelError) as caught:
        convert_checkpoint(tmp_path / "a.pth", tmp_path / "a.safetensors", model=variant)
    assert f"'{first}' and '{key}' are one tensor" in caught.value.what
    assert not (tmp_path / "a.safetensors").exists()


def mmrotate_weights(variant: str) -> tuple[dict[str, Tensor], list[list[str]]]:
    """Return generated weights, and the groups of keys that are one tensor, saved once as in the original."""
    facts = read_json("mmrotate", f"{variant}.json")
    weights = weights_for((key, shape) for key, shape, _ in facts["state_dict"])
    groups = facts["shared_parameters"]
    return weights | {key: weights[group[0]] for group in groups for key in group}, groups


@pytest.mark.parametrize("variant", MMROTATE)
@pytest.mark.parametrize("named", [True, False])
def test_mmrotate(variant: str, named: bool, tmp_path: Path) -> None:
    weights, groups = mmrotate_weights(variant)
    assert len(groups) == 4
    names = [f"kind {number}" for number in range(15)]
    save_mm(tmp_path / "a.pth", weights, names if named else [])
    converted = convert_checkpoint(tmp_path / "a.pth", tmp_path / "a.safetensors", model=variant)
    model = load_model(tmp_path / "a.safetensors")
    dota = read_json("mmrotate", f"{variant}.json")["classes"]
    assert list(model.spec.class_names) == list(converted.class_names) == (names if named else dota)
    assert any("15 of DOTA" in note for note in converted.notes) != named
    assert (model.spec.task, converted.new, converted.unused) == ("rotated", 0, 0)
    assert_equal(model, weights)


@pytest.mark.parametrize("golden", MMSEG)
@pytest.mark.parametrize("named", [True, False])
def test_mmseg(golden: str, named: bool, tmp_path: Path) -> None:
    facts = read_json("mmseg", f"{golden}.json")
    weights = weights_for((key, shape) for key, shape, _ in facts["state_dict"])
    names = [f"kind {number}" for number in range(19)] if named else []
    save_mm(tmp_path / "a.pth", weights, names, old=True, palette=[[number] * 3 for number in range(19)])
    converted = convert_checkpoint(tmp_path / "a.pth", tmp_path / "a.safetensors", model=MMSEG[golden])
    model = load_model(tmp_path / "a.safetensors")
    assert model.spec.class_names == converted.class_names == (tuple(names) or CITYSCAPES_CLASSES)
    assert any("19 of Cityscapes" in note for note in converted.notes) != named
    assert (model.spec.task, converted.new, converted.unused) == ("semantics", 0, 0)
    assert_equal(model, weights)


def test_weights_of_another_hrnet_are_refused(tmp_path: Path) -> None:
    weights = weights_for((key, shape) for key, shape, _ in read_json("mmseg", "fcn_hr18s.json")["state_dict"])
    save_mm(tmp_path / "a.pth", weights, [], old=True)
    with pytest.raises(ModelError, match="does not fit the model 'fcn_hrnet_w18'"):
        convert_checkpoint(tmp_path / "a.pth", tmp_path / "a.safetensors", model="fcn_hrnet_w18")
    assert not (tmp_path / "a.safetensors").exists()


def test_shared_convolutions_of_mmrotate_that_differ(tmp_path: Path) -> None:
    weights, groups = mmrotate_weights(MMROTATE[0])
    first, _, last = groups[0]
    save_mm(tmp_path / "a.pth", weights | {last: weights[first] + 1}, [])
    with pytest.raises(ModelError, match="are one tensor") as caught:
        convert_checkpoint(tmp_path / "a.pth", tmp_path / "a.safetensors", model=MMROTATE[0])
    assert f"'{first}' and '{last}'" in caught.value.what


@pytest.mark.parametrize(("given", "taken_for"), [("rotated", "rtmdet_tiny_mmdet"), ("upright", "rotated_rtmdet_tiny")])
def test_rotated_and_upright_rtmdet_are_not_taken_for_one_another(given: str, taken_for: str, tmp_path: Path) -> None:
    weights = mmrotate_weights("rotated_rtmdet_tiny")[0]
    if given == "upright":
        weights = {key: value for key, value in weights.items() if "rtm_ang" not in key}
    save_mm(tmp_path / "a.pth", weights, [])
    with pytest.raises(ModelError, match="rtm_ang" if given == "rotated" else "head.angle_pred"):
        convert_checkpoint(tmp_path / "a.pth", tmp_path / "a.safetensors", model=taken_for)


@pytest.mark.parametrize("variant", [name for name in MM if f"{name}_mmdet" in MODELS or "_mmdet" in name])
def test_a_file_of_one_package_is_not_taken_for_one_of_the_other(variant: str, tmp_path: Path) -> None:
    save_mm(tmp_path / "a.pth", Golden("mmyolo", variant).weights(), COCO_CLASSES)
    other = variant.removesuffix("_mmdet") if variant.endswith("_mmdet") else f"{variant}_mmdet"
    with pytest.raises(ModelError, match=f"Choose the model {variant} \\("):
        convert_checkpoint(tmp_path / "a.pth", tmp_path / "a.safetensors", model=other)


def test_mmcv_with_averaged_weights_in_the_old_form(tmp_path: Path) -> None:
    golden = Golden("mmyolo", "yolox_tiny")
    buffers = {f"ema_{key.replace('.', '_')}": value + 1 for key, value in golden.weights().items()}
    save_mm(tmp_path / "a.pth", {**golden.weights(), **buffers}, COCO_CLASSES, old=True)
    convert_checkpoint(tmp_path / "a.pth", tmp_path / "a.safetensors", model="yolox_tiny")
    assert_equal(load_model(tmp_path / "a.safetensors"), golden.weights())


def test_a_state_dict_of_a_wrapped_model(tmp_path: Path) -> None:
    weights = Golden("mmyolo", "yolox_tiny").weights()
    torch.save({f"module.{key}": value for key, value in weights.items()}, tmp_path / "a.pth")
    converted = convert_checkpoint(tmp_path / "a.pth", tmp_path / "a.safetensors", model="yolox_tiny")
    assert converted.class_names == COCO_CLASSES
    assert_equal(load_model(tmp_path / "a.safetensors"), weights)


@pytest.mark.parametrize(
    ("variant", "width", "counts"), [("yolox_tiny", 24, (1, 3, 3, 1)), ("yolox_s", 32, (1, 3, 3, 1))]
)
@pytest.mark.parametrize("form", ["", "_mmdet"])
def test_yolox_of_its_authors(variant: str, width: int, counts: tuple[int, ...], form: str, tmp_path: Path) -> None:
    weights = weights_for(megvii_keys(3, width, counts))
    torch.save({"start_epoch": 300, "model": weights, "optimizer": {}}, tmp_path / "a.pth")
    converted = convert_checkpoint(tmp_path / "a.pth", tmp_path / "a.safetensors", model=variant + form)
    assert converted.kind == "YOLOX"
    assert converted.class_names == ("class_0", "class_1", "class_2")
    state = load_model(tmp_path / "a.safetensors").state_dict()
    assert len(state) == len(weights)  # each has its place, and no two the same
    for theirs, ours in (
        ("backbone.backbone.stem.conv.conv.weight", "backbone.stem.conv.conv.weight"),
        ("backbone.backbone.dark5.1.conv2.conv.weight", "backbone.stage4.1.conv2.conv.weight"),
        ("backbone.backbone.dark3.1.m.2.conv2.bn.bias", "backbone.stage2.1.blocks.2.conv2.bn.bias"),
        ("head.obj_preds.1.bias", "bbox_head.head_module.multi_level_conv_obj.1.bias"),
    ):
        assert torch.equal(state[from_official("yolox", ours)], weights[theirs]), theirs


@cache
def weights_of_detectron2(variant: str) -> dict[str, Tensor]:
    return weights_for((key, shape) for key, shape, _ in read_json("d2", f"{variant}.json")["state_dict"])


@pytest.mark.parametrize("variant", DETECTRON2)
def test_detectron2(variant: str, tmp_path: Path) -> None:
    weights = weights_of_detectron2(variant)
    arrays = {key: value.numpy() for key, value in weights.items()}
    old = {
        "anchor_generator.cell_anchors.0": arrays["head.bbox_pred.bias"],
        "pixel_mean": arrays["head.bbox_pred.bias"],
    }
    path = tmp_path / "model_final.pkl"
    path.write_bytes(pickle.dumps({"model": {**arrays, **old}, "__author__": "somebody"}, protocol=2))
    converted = convert_checkpoint(path, tmp_path / "a.safetensors", model=variant)
    assert converted.class_names == COCO_CLASSES
    assert_equal(load_model(tmp_path / "a.safetensors"), weights)


@pytest.mark.parametrize("variant", DETECTRON2)
def test_a_training_of_detectron2(variant: str, tmp_path: Path) -> None:
    weights = weights_of_detectron2(variant)
    torch.save({"model": weights, "optimizer": {}, "scheduler": {}, "iteration": 7}, tmp_path / "model_final.pth")
    convert_checkpoint(tmp_path / "model_final.pth", tmp_path / "a.safetensors", model=variant)
    assert_equal(load_model(tmp_path / "a.safetensors"), weights)


@pytest.mark.parametrize("variant", DETECTRON2)
def test_a_backbone_of_caffe2(variant: str, tmp_path: Path) -> None:
    weights = weights_of_detectron2(variant)
    backbone = {key: value for key, value in weights.items() if key.startswith("backbone.bottom_up.")}
    caffe2 = {key: caffe2_name(key) for key in backbone}
    content = {caffe2[key]: value.numpy() for key, value in backbone.items()}
    content |= {"conv1_w_momentum": content["conv1_w"], "fc1000_b": content["res_conv1_bn_gamma"]}
    path = tmp_path / "R-50.pkl"
    path.write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(ModelError, match="--partial"):
        convert_checkpoint(path, tmp_path / "a.safetensors", model=variant)
    converted = convert_checkpoint(path, tmp_path / "a.safetensors", model=variant, allow_partial=True)
    assert (converted.loaded, converted.new, converted.unused) == (len(backbone), len(weights) - len(backbone), 1)
    state = load_model(tmp_path / "a.safetensors").state_dict()
    for key, value in backbone.items():
        assert torch.equal(state[from_official("retinanet", key)], value), key


def caffe2_name(key: str) -> str:
    """Return what Caffe2 calls a part of a ResNet."""
    parts = {"shortcut": "branch1", "conv1": "branch2a", "conv2": "branch2b", "conv3": "branch2c"}
    norms = {"weight": "gamma", "bias": "beta", "running_mean": "running_mean", "running_var": "running_var"}
    *place, last = key.removeprefix("backbone.bottom_up.").replace(".norm.", ".").split(".")
    end = f"bn_{norms[last]}" if ".norm." in key else "w"
    if place[0] == "stem":
        return "conv1_w" if end == "w" else f"res_conv1_{end}"
    return f"{place[0]}_{place[1]}_{parts[place[2]]}_{end}"


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("conv1_w", "stem.conv1.weight"),
        ("conv1_b", "stem.conv1.bias"),
        ("res_conv1_bn_s", "stem.conv1.norm.weight"),
        ("res_conv1_bn_b", "stem.conv1.norm.bias"),
        ("res5_2_branch2c_bn_riv", "res5.2.conv3.norm.running_var"),
        ("res5_2_branch2c_bn_rm", "res5.2.conv3.norm.running_mean"),
        ("res3_0_branch1_bn_running_var", "res3.0.shortcut.norm.running_var"),
        ("res3_0_branch2b_gn_s", "res3.0.conv2.norm.weight"),
        ("pred_w", "linear.weight"),
        ("fc1000_b", "fc1000.bias"),
    ],
)
def test_names_of_caffe2_one_by_one(theirs: str, ours: str) -> None:
    assert from_caffe2(theirs) == ours


@pytest.mark.parametrize("name", YOLOV5_KEYS)
def test_yolov5(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = weights_for(YOLOV5_KEYS[name])
    anchors = next(key for key in weights if key.endswith(".anchors"))
    levels = len(weights[anchors])
    weights[anchors] = torch.arange(1, levels * 6 + 1).view(levels, 3, 2) / 4
    strides = [8 * 2**level for level in range(levels)]
    save_yolov5(tmp_path / "a.pt", weights, monkeypatch, names=list(COCO_CLASSES), strides=strides)
    converted = convert_checkpoint(tmp_path / "a.pt", tmp_path / "a.safetensors", model=name)
    assert (converted.model, converted.not_called) == (canonical_name(name), ())
    model = load_model(tmp_path / "a.safetensors")
    assert model.spec.activation == "silu"
    pixels = weights.pop(anchors) * torch.tensor(strides).view(-1, 1, 1)
    assert torch.equal(torch.tensor(model.spec.anchors), pixels)
    assert_equal(model, weights, half=True)
    with torch.no_grad():
        raw = model(torch.zeros(1, 3, 128, 128))
    assert [level.shape[2] for level in raw.cls] == [128 // stride for stride in strides]


@pytest.mark.parametrize("partial", [False, True])
@pytest.mark.parametrize(
    ("given", "taken_for", "right"),
    [
        ("yolov5n", "yolov5n-seg", "yolov5_n"),
        ("yolov5n-seg", "yolov5n", "yolov5_n_seg"),
    ],
)
def test_yolov5_with_and_without_masks_are_not_taken_for_one_another(
    given: str, taken_for: str, right: str, partial: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_yolov5(tmp_path / "a.pt", weights_for(YOLOV5_KEYS[given]), monkeypatch, names=list(COCO_CLASSES))
    with pytest.raises(ModelError, match="masks") as caught:
        convert_checkpoint(tmp_path / "a.pt", tmp_path / "a.safetensors", model=taken_for, allow_partial=partial)
    assert f"Choose the model {right} " in caught.value.fix


@pytest.mark.parametrize(
    ("activation", "expected"),
    [(nn.Hardswish, "hardswish"), (nn.ReLU, "relu"), (nn.Mish, "Mish"), (nn.LeakyReLU, "slope")],
)
def test_activations_of_yolov5(
    activation: type[nn.Module], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = weights_for(YOLOV5_KEYS["yolov5n"])
    save_yolov5(tmp_path / "a.pt", weights, monkeypatch, names={0: "cat"}, activation=activation)
    if expected in ("hardswish", "relu"):
        convert_checkpoint(tmp_path / "a.pt", tmp_path / "a.safetensors", model="yolov5n")
        assert read_model_info(tmp_path / "a.safetensors").spec.activation == expected
    else:
        with pytest.raises(ModelError, match=expected):
            convert_checkpoint(tmp_path / "a.pt", tmp_path / "a.safetensors", model="yolov5n")


def test_a_yolov5_of_another_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = weights_for(YOLOV5_KEYS["yolov5n"])
    save_yolov5(tmp_path / "a.pt", weights, monkeypatch, names=list(COCO_CLASSES), strides=(4, 8, 16))
    with pytest.raises(ModelError, match="strides"):
        convert_checkpoint(tmp_path / "a.pt", tmp_path / "a.safetensors", model="yolov5_n")
