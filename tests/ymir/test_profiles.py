"""What the parameters of the five images come to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ymir_tmi.config.load import build
from ymir_tmi.config.schema import InferSettings, MineSettings, Settings, TrainSettings
from ymir_tmi.errors import ConfigError
from ymir_tmi.mining.algorithm import create_algorithm
from ymir_tmi.models.catalog import list_models
from ymir_tmi.training.distributed import Processes
from ymir_tmi.training.plan import fit_to_data, plan_run
from ymir_tmi.ymir.images import PROFILES
from ymir_tmi.ymir.orders import Machine, PassOrder, StagePolicy, TrainingOrder
from ymir_tmi.ymir.parameters import PLATFORM_KEYS, Parameter

CLASSES = ["cat", "dog"]
ALL = [
    pytest.param(name, object_type, task, id=f"{name}-{object_type}-{task}")
    for name, profile in PROFILES.items()
    for object_type in profile.object_types
    for task in ("training", "mining", "infer")
]
ONE = Machine()
FOUR = Machine(devices=4, gpu=True)
Tasks = {2: ("detection", "rotated"), 3: ("semantics",), 4: ("instances",)}


def order(
    name: str, object_type: int, task: str, config: dict[str, Any], machine: Machine = ONE
) -> TrainingOrder | PassOrder:
    read: Callable[..., TrainingOrder | PassOrder] = getattr(PROFILES[name], task)
    return read({"class_names": CLASSES, **config}, object_type, machine)


def parameters(name: str, object_type: int, task: str) -> list[Parameter]:
    return PROFILES[name].tasks[object_type].named()[task].parameters()


def settings(found: TrainingOrder | PassOrder, task: str) -> Settings:
    values = found.values
    if task == "training":
        return build(TrainSettings, values)
    kind = MineSettings if task == "mining" else InferSettings
    return build(kind, {**values, "model": "m", "data": ["pool"]})


@pytest.mark.parametrize(("name", "object_type", "task"), ALL)
@pytest.mark.parametrize("machine", [ONE, FOUR])
def test_defaults_are_a_job_that_can_be_done(name: str, object_type: int, task: str, machine: Machine) -> None:
    found = order(name, object_type, task, {}, machine)
    checked = settings(found, task)
    if isinstance(checked, TrainSettings):
        known = {model.name: model.task for model in list_models()}
        assert known[checked.model] in Tasks[object_type]
        plan = fit_to_data(plan_run(checked, Processes(0, 1, 1, ())), images=200)
        assert plan.recipe.batch % machine.devices == 0
    if isinstance(checked, MineSettings):
        assert create_algorithm(checked, CLASSES, task=Tasks[object_type][0]).name == checked.algorithm


@pytest.mark.parametrize(("name", "object_type", "task"), ALL)
def test_form_of_a_value_does_not_matter(name: str, object_type: int, task: str) -> None:
    typed = {each.key: each.default for each in parameters(name, object_type, task)}
    expected = order(name, object_type, task, typed)
    assert order(name, object_type, task, {}) == expected  # Mining and inference lose what is falsy.
    assert order(name, object_type, task, dict.fromkeys(typed)) == expected
    assert order(name, object_type, task, {key: str(value) for key, value in typed.items()}) == expected
    assert order(name, object_type, task, {key: value for key, value in typed.items() if value}) == expected


def wrong_values() -> Iterator[Any]:
    for row in ALL:
        for parameter in parameters(*row.values):
            if parameter.key not in PLATFORM_KEYS:
                text = parameter.reader.allowed.english == "text"
                wrong = [["no text"]] if text else ["no such"]
                yield from (
                    pytest.param(*row.values, parameter, value, id=f"{row.id}-{parameter.key}") for value in wrong
                )


@pytest.mark.parametrize(("name", "object_type", "task", "parameter", "wrong"), list(wrong_values()))
def test_wrong_value_is_named_with_what_is_allowed(
    name: str, object_type: int, task: str, parameter: Parameter, wrong: Any
) -> None:
    for key in parameter.keys:
        with pytest.raises(ConfigError) as caught:
            order(name, object_type, task, {key: wrong})
        assert key in str(caught.value) and repr(wrong) in str(caught.value)
        assert parameter.reader.allowed.english in str(caught.value)


@pytest.mark.parametrize(
    ("name", "object_type", "task", "config", "expected"),
    [
        ("mmdet", 2, "training", {"samples_per_gpu": "6", "workers_per_gpu": 1}, {"batch": 24, "workers": 1}),
        ("mmdet", 2, "training", {"max_epochs": "20", "val_interval": 5}, {"epochs": 20, "val_interval": 5}),
        ("mmdet", 2, "training", {"config_file": "yolox_s_8x8_300e_coco.py"}, {"model": "yolox_s_mmdet"}),
        ("mmdet", 2, "training", {"cfg_options": "runner.max_epochs=7"}, {"epochs": 7}),
        ("mmdet", 2, "training", {"cfg_options": "data.samples_per_gpu=2"}, {"batch": 8}),
        ("mmdet", 2, "training", {"args_options": "--cfg-options max_epochs=8", "max_epochs": 9}, {"epochs": 8}),
        ("mmdet", 2, "mining", {"mining_algorithm": "CALD"}, {"algorithm": "cald"}),
        ("mmdet", 2, "mining", {"class_distribution_scores": "1,0.1"}, {"class_weights": ["cat=1.0", "dog=0.1"]}),
        ("mmdet", 2, "infer", {"conf_threshold": "0.05"}, {"conf": 0.05}),
        ("mmdet", 2, "infer", {"cfg_options": "model.test_cfg.nms.iou_threshold=0.5"}, {"iou": 0.5}),
        ("mmyolo", 2, "training", {"model_name": "yolov5_s"}, {"model": "yolov5_s"}),
        (
            "mmyolo",
            2,
            "training",
            {"learning_rate": "1e-05"},
            {"set": ["optimizer.lr=1e-05", "optimizer.lr_scaling=none"]},
        ),
        ("mmyolo", 2, "mining", {"iou_threshold": 0.5}, {"algorithm": "entropy", "conf": 0.1, "iou": 0.5}),
        ("mmrotate", 2, "training", {"img_size": "1024"}, {"model": "rotated_rtmdet_tiny", "image_size": 1024}),
        ("mmrotate", 2, "training", {"img_size": 1000}, {"image_size": 1024}),
        ("detectron2", 2, "training", {"batch_size": 6}, {"batch": 8}),
        ("detectron2", 2, "training", {"max_iter": 0, "learning_rate": -1}, {"recipe": "1x", "batch": 4}),
        (
            "detectron2",
            2,
            "training",
            {"max_iter": "500", "learning_rate": 0.0},
            {"set": ["iterations=500", "val_iterations=50"]},
        ),
        ("detectron2", 2, "mining", {}, {"algorithm": "cald", "conf": 0.2}),
        (
            "all-in-one",
            2,
            "training",
            {"model": "yolov5s6", "img_size": 1000},
            {"model": "yolov5_s6", "image_size": 1024},
        ),
        ("all-in-one", 2, "training", {"args_options": "--img 1100 --cfg yolov5s6.yaml"}, {"image_size": 1152}),
        ("all-in-one", 2, "training", {"activation": "leakyrelu"}, {"activation": "leaky_relu"}),
        ("all-in-one", 2, "training", {"activate": "Hardswish"}, {"activation": "hardswish"}),
        ("all-in-one", 2, "training", {"sync_bn": "1"}, {"set": ["sync_norms=true"]}),
        ("all-in-one", 2, "training", {"sync_bn": False}, {"set": ["sync_norms=false"]}),
        ("all-in-one", 2, "training", {"args_options": "--batch-size 12 --exist-ok"}, {"batch": 12}),
        ("all-in-one", 2, "infer", {"img_size": 320, "conf_thres": 0.5}, {"image_size": 320, "conf": 0.5, "batch": 64}),
        (
            "all-in-one",
            3,
            "training",
            {"max_iters": "100", "interval": 10},
            {"set": ["iterations=100", "val_iterations=10"], "blank": "background"},
        ),
        ("all-in-one", 3, "training", {"ignore_blank_area": "True"}, {"blank": "ignore"}),
        (
            "all-in-one",
            3,
            "training",
            {"config_file": "configs/hrnet/fcn_hr48_512x1024_80k_cityscapes.py"},
            {"recipe": "80k"},
        ),
        (
            "all-in-one",
            3,
            "mining",
            {"mining_algorithm": "rsal"},
            {"algorithm": "rsal", "precision": "fp16", "kept": 5000},
        ),
        (
            "all-in-one",
            3,
            "mining",
            {"mining_algorithm": "RIPU", "ripu_region_radius": 2, "superpixel_algorithm": "slic"},
            {"algorithm": "ripu", "region_radius": 2, "top_regions": 3},
        ),
        ("all-in-one", 3, "mining", {"fp16": "f"}, {"precision": "fp32"}),
        ("all-in-one", 3, "infer", {"aug_test": True}, {"flip_test": True}),
        ("all-in-one", 4, "training", {"model": "yolov5m-seg.pt"}, {"model": "yolov5_m_seg"}),
        (
            "all-in-one",
            4,
            "mining",
            {"mining_algorithm": "MaskAL", "mcd_iterations": 5},
            {"algorithm": "maskal", "passes": 5},
        ),
    ],
)
def test_parameters_set(
    name: str, object_type: int, task: str, config: dict[str, Any], expected: dict[str, Any]
) -> None:
    found = order(name, object_type, task, config, FOUR)
    settings(found, task)
    assert {key: found.values.get(key) for key in expected} == expected


def test_what_an_algorithm_does_not_read_is_not_given_to_it() -> None:
    ripu = order("all-in-one", 3, "mining", {"mining_algorithm": "RIPU", "superpixel_algorithm": "slic"})
    apis = order("all-in-one", 4, "mining", {"class_distribution_scores": "1,1", "mcd_iterations": 7})
    assert "superpixels" not in ripu.values and not {"class_weights", "passes"} & set(apis.values)
    assert apis.notes == ("class_distribution_scores is not used: only aldd weighs classes, and the algorithm is apis",)


@pytest.mark.parametrize(
    ("name", "object_type", "config", "stages"),
    [
        ("mmdet", 2, {}, StagePolicy(keep=1, best=1)),
        ("mmdet", 2, {"max_keep_checkpoints": "3"}, StagePolicy(keep=3, best=3)),
        ("mmyolo", 2, {"max_keep_checkpoints": -1}, StagePolicy(keep=None, best=None)),
        ("mmrotate", 2, {"ymir_saved_file_patterns": r".*\.pth"}, StagePolicy(1, best=1, file_patterns=r".*\.pth")),
        ("detectron2", 2, {}, StagePolicy(best_only=True)),
        ("all-in-one", 2, {}, StagePolicy(best_only=True)),
        ("all-in-one", 2, {"save_best_only": "False"}, StagePolicy(every=10)),
        ("all-in-one", 4, {"save_best_only": "f", "save_period": -1}, StagePolicy(best_only=True)),
        ("all-in-one", 3, {"max_keep_ckpts": 2}, StagePolicy(best_only=True)),
        ("all-in-one", 3, {"max_keep_ckpts": 2, "save_least_file": "False"}, StagePolicy(keep=2, best=2)),
    ],
)
def test_stages_that_are_kept(name: str, object_type: int, config: dict[str, Any], stages: StagePolicy) -> None:
    found = order(name, object_type, "training", config)
    assert isinstance(found, TrainingOrder) and found.stages == stages


def test_onnx_file_of_a_training() -> None:
    assert PROFILES["all-in-one"].training({"opset": "13"}, 2, ONE).opset == 13
    assert PROFILES["all-in-one"].training({}, 3, ONE).opset is None


def test_keys_of_the_platform_are_nobody_s_parameters() -> None:
    config = dict.fromkeys(PLATFORM_KEYS, "anything") | {"class_names": CLASSES}
    for name, object_type, task in (row.values for row in ALL):
        assert order(name, object_type, task, config) == order(name, object_type, task, {"shm_size": "1G"})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"max_epoch": 3}, "max_epoch: there is no parameter 'max_epoch'\n  Did you mean 'max_epochs'?"),
        ({"max_keep_checkpoints": 0}, "'max_keep_checkpoints' takes a whole number of 1 or more, or -1."),
        ({"config_file": "configs/yolox/yolox_h.py"}, "Nearest: yolox_"),
        ({"cfg_options": "max_epochs"}, "cfg_options: "),
        ({"args_options": "--work-dir here"}, "args_options: "),
        ({"samples_per_gpu": "many"}, "samples_per_gpu: 'many' is not allowed"),
    ],
)
def test_mistake_is_explained(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        order("mmdet", 2, "training", config)
    assert message in str(caught.value) and next(iter(config)) == caught.value.where


def test_two_spellings_must_agree() -> None:
    same = order("all-in-one", 2, "training", {"activate": "ReLU", "activation": "ReLU"})
    assert same.values["activation"] == "relu"
    with pytest.raises(ConfigError, match=r"'activation' and 'activate' are the same parameter"):
        order("all-in-one", 2, "training", {"activate": "ReLU", "activation": "SiLU"})
    for value in (True, "True", 1):
        both = {"ignore_black_area": "False", "ignore_blank_area": value}  # a template, and what its document says
        assert order("all-in-one", 3, "training", both).values["blank"] == "ignore"


def test_class_weights_are_one_a_class() -> None:
    with pytest.raises(ConfigError, match="one number for each of the 2 classes, not 3"):
        order("all-in-one", 2, "mining", {"class_distribution_scores": "1,1,1"})


def test_one_config_serves_mining_and_inference() -> None:
    both = {"mining_algorithm": "cald", "conf_threshold": 0.3, "run_mining": True, "run_infer": True}
    assert order("mmdet", 2, "mining", both) == PassOrder({"algorithm": "cald"})
    assert order("mmdet", 2, "infer", both) == PassOrder({"conf": 0.3})
    assert order("mmyolo", 2, "mining", {"conf_threshold": 0.3}).values["conf"] == 0.3
    alone = order("mmdet", 2, "mining", both | {"run_infer": False})
    assert alone.notes == ("conf_threshold is not used: it belongs to a task that is not part of this run",)


def test_options_that_win_over_parameters_say_so() -> None:
    found = order("all-in-one", 2, "training", {"args_options": "--epochs 5", "epochs": 100})
    assert found.values["epochs"] == 5
    assert found.notes == ("args_options sets epochs to 5, in place of 100",)
    assert order("all-in-one", 2, "training", {"args_options": "--epochs 100"}).notes == ()


@pytest.mark.parametrize(
    ("name", "task", "config"),
    [
        ("mmdet", "training", {"workers_per_gpu": 8}),
        ("mmdet", "training", {"args_options": "--cfg-options data.workers_per_gpu=8"}),
        ("all-in-one", "infer", {"num_workers_per_gpu": "8"}),
    ],
)
def test_no_more_processes_read_than_there_are_cores(name: str, task: str, config: dict[str, Any]) -> None:
    machine = Machine(cores=6)
    found = order(name, 2, task, config, machine)
    assert found.values["workers"] == 6 and any("workers is 6, not 8" in note for note in found.notes)
    assert order(name, 2, task, {}, machine).values["workers"] == 4
