"""Sample files of every container, byte for byte as the programs that own the formats wrote them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from golden_files import FOLDER

from ymir_tmi.errors import ModelError
from ymir_tmi.models.convert.caffe2 import from_caffe2
from ymir_tmi.models.convert.containers import read_checkpoint

EXPECTED = json.loads((FOLDER / "containers" / "expected.json").read_text())
SAMPLES = [name for name in EXPECTED if (FOLDER / name).is_file()]
HOSTILE = [name for name in SAMPLES if "must" in EXPECTED[name]]
FRIENDLY = [name for name in SAMPLES if name not in HOSTILE]

KINDS = {
    "yolov5/yolov5n_2cls.pt": "yolov5",
    "yolov5/yolov5_train_state_2cls.pt": "yolov5",
    "containers/mm_style.pth": "mm",
    "containers/mm_legacy_nonzip.pth": "mm",
    "containers/d2_style.pkl": "detectron2",
    "containers/d2_heuristics.pkl": "detectron2",
    "containers/d2_caffe2_py2.pkl": "caffe2",
}


@pytest.mark.parametrize("name", FRIENDLY)
def test_tensors_are_those_that_were_saved(name: str) -> None:
    checkpoint = read_checkpoint(FOLDER / name)
    assert checkpoint.kind == KINDS[name]
    assert checkpoint.tensors.keys() == {key for key, *_ in EXPECTED[name]["tensors"]}
    for key, shape, dtype, total in EXPECTED[name]["tensors"]:
        tensor = checkpoint.tensors[key]
        assert list(tensor.shape) == shape
        assert str(tensor.dtype) == ("torch.float32" if dtype.startswith("float") else f"torch.{dtype}")
        assert tensor.double().sum().item() == pytest.approx(total, rel=1e-6, abs=1e-6)


def test_what_yolov5_notes_on_its_modules() -> None:
    checkpoint = read_checkpoint(FOLDER / "yolov5" / "yolov5_train_state_2cls.pt")
    assert checkpoint.class_names == ("helmet", "vest")
    assert checkpoint.strides == (8, 16, 32)
    assert checkpoint.activations == {"SiLU"}


def test_the_averaged_weights_of_a_training_are_taken() -> None:
    name = "yolov5/yolov5_train_state_2cls.pt"
    plain = {key: total for key, _, _, total in EXPECTED[name]["tensors_model"]}
    averaged = {key: total for key, _, _, total in EXPECTED[name]["tensors"]}
    key = "model.0.conv.weight"
    assert plain[key] != pytest.approx(averaged[key], rel=1e-2)
    tensors = read_checkpoint(FOLDER / name).tensors
    assert tensors[key].double().sum().item() == pytest.approx(averaged[key], rel=1e-6)


@pytest.mark.parametrize("name", ["containers/mm_style.pth", "containers/mm_legacy_nonzip.pth"])
def test_class_names_of_mm(name: str) -> None:
    assert read_checkpoint(FOLDER / name).class_names == ("helmet", "vest")


def test_calls_that_mmengine_asks_for_are_not_made() -> None:
    assert read_checkpoint(FOLDER / "containers" / "mm_style.pth").not_called == ("__builtin__.getattr",)


def test_which_names_are_short() -> None:
    short = {name for name in FRIENDLY if read_checkpoint(FOLDER / name).short_names}
    assert short == {"containers/d2_heuristics.pkl", "containers/d2_caffe2_py2.pkl"}


def test_names_of_caffe2() -> None:
    for theirs, ours in EXPECTED["containers/d2_caffe2_py2.pkl"]["renamed"].items():
        assert from_caffe2(theirs) == ours


@pytest.mark.skipif(not HOSTILE, reason="the hostile samples are only in the full set of reference numbers")
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_samples_do_nothing(name: str) -> None:
    traces = [re.search(r"(\S+) must not exist", entry.get("must", "")) for entry in EXPECTED.values()]
    (trace,) = [Path(found[1]) for found in traces if found]
    assert not trace.exists()
    try:
        assert read_checkpoint(FOLDER / name).not_called == ("posix.system",)
    except ModelError:
        assert EXPECTED[name]["must"].startswith("be refused")
    assert not trace.exists()
