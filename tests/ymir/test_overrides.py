"""Overrides of mm's and Detectron2's configs: their syntax, what each key comes to, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from option_results import flat, take

from ymir_tmi.errors import ConfigError
from ymir_tmi.models.catalog import create_model
from ymir_tmi.training.freeze import freeze
from ymir_tmi.ymir.detectron2_overrides import DETECTRON2_TRAINING
from ymir_tmi.ymir.effects import RunFacts
from ymir_tmi.ymir.mm_overrides import (
    MMDET_INFER,
    MMDET_MINING,
    MMDET_TRAINING,
    MMROTATE_TRAINING,
    MMSEG_TRAINING,
    MMYOLO_TRAINING,
)
from ymir_tmi.ymir.orders import Machine
from ymir_tmi.ymir.overrides import (
    OverrideTable,
    apply_overrides,
    describe_overrides,
    find_effects,
    read_cfg_options,
    read_yacs,
)

TWO_GPUS = Machine(devices=2, gpu=True)
TRAININGS = {
    "mmdet": (MMDET_TRAINING, "yolox_tiny_mmdet"),
    "mmyolo": (MMYOLO_TRAINING, "yolov8_n"),
    "mmrotate": (MMROTATE_TRAINING, "rotated_rtmdet_tiny"),
    "mmseg": (MMSEG_TRAINING, "fast_scnn"),
    "detectron2": (DETECTRON2_TRAINING, "retinanet_r50_fpn"),
}

SYNTAX = [
    ("", []),
    ("optimizer.lr=0.01", [("optimizer.lr", 0.01)]),
    ("a=1 b.c=-2.5e-3", [("a", 1), ("b.c", -0.0025)]),
    ("a=True b=false c=None d=text", [("a", True), ("b", False), ("c", None), ("d", "text")]),
    ("a=1,2", [("a", [1, 2])]),
    ("a=[1,2]", [("a", [1, 2])]),
    ("a=(1,2)", [("a", (1, 2))]),
    ("a=[(1,2),(x,y)]", [("a", [(1, 2), ("x", "y")])]),
    ("a=(640, 640) b=3", [("a", (640, 640)), ("b", 3)]),
    ("a='[1, 2]' b=\"x=y\"", [("a", [1, 2]), ("b", "x=y")]),
    ("a=[]", [("a", [])]),
]


@pytest.mark.parametrize(("text", "pairs"), SYNTAX, ids=[row[0] for row in SYNTAX])
def test_syntax_of_mm(text: str, pairs: list[tuple[str, Any]]) -> None:
    assert read_cfg_options(text) == pairs


def test_syntax_of_detectron2() -> None:
    words = ["SOLVER.STEPS", "(60, 80)", "A", "[1,", "2]", "B", "True", "C", "choice", "D", "'x'", "E", "-1"]
    expected = [("SOLVER.STEPS", (60, 80)), ("A", [1, 2]), ("B", True), ("C", "choice"), ("D", "x"), ("E", -1)]
    assert read_yacs(words, "args_options") == expected


BROKEN = [
    ("optimizer.lr", "'optimizer.lr' is not of the form name=value"),
    ("a = 1", "'a' is not of the form"),
    ("=1", "is not of the form"),
    ("a='1", "a quote is left open"),
    ("a=(1", "brackets"),
]


@pytest.mark.parametrize(("text", "message"), BROKEN, ids=[row[0] for row in BROKEN])
def test_broken_syntax_is_named(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        read_cfg_options(text)
    assert caught.value.where == "cfg_options"


_LR = {"recipe.optimizer.lr_scaling": "none"}
_OPTIMIZER: list[tuple[str, dict[str, Any]]] = [
    ("type=AdamW", {"recipe.optimizer.name": "adamw"}),
    ("lr=0.002", {"recipe.optimizer.lr": 0.002, **_LR}),
    ("momentum=0.8", {"recipe.optimizer.momentum": 0.8}),
    ("nesterov=False", {"recipe.optimizer.nesterov": False}),
]
_DECAYS: list[tuple[str, dict[str, Any]]] = [
    ("norm_decay_mult=1", {"recipe.optimizer.decay_norms": True}),
    ("bias_decay_mult=0.", {"recipe.optimizer.decay_biases": False}),
]
_TEST: list[tuple[str, dict[str, Any]]] = [
    ("model.test_cfg.score_thr=0.05", {"conf": 0.05}),
    ("model.test_cfg.nms.iou_threshold=0.6", {"iou": 0.6}),
    ("model.test_cfg.nms.iou_thr=0.1", {"iou": 0.1}),
    ("model.test_cfg.max_per_img=300", {"max_dets": 300}),
]
_FROZEN = ("model.backbone.frozen_stages=1", {"recipe.freeze": ["backbone.stem", "backbone.stage1"]})
_MMCV = [
    *((f"optimizer.{text}", values) for text, values in _OPTIMIZER),
    *((f"optimizer.paramwise_cfg.{text}", values) for text, values in _DECAYS),
    ("optimizer.weight_decay=5e-4", {"recipe.optimizer.weight_decay": 5e-4, "recipe.optimizer.decay_scaling": "none"}),
    ("optimizer_config.grad_clip=None", {"recipe.optimizer.clip_norm": None}),
    ("optimizer_config.grad_clip.max_norm=35", {"recipe.optimizer.clip_norm": 35}),
    ("optimizer_config.cumulative_iters=4", {"recipe.optimizer.accumulate": 4}),
    ("fp16=None", {"precision": "fp32"}),
    ("fp16.loss_scale=512.", {"precision": "fp16"}),
    ("data.samples_per_gpu=4", {"batch": 8}),
    ("data.workers_per_gpu=3", {"workers": 3}),
    ("data.train_dataloader.samples_per_gpu=4", {"batch": 8}),
    ("data.train_dataloader.workers_per_gpu=3", {"workers": 3}),
    ("norm_cfg.type=BN", {"recipe.sync_norms": False}),
    ("seed=7", {"seed": 7}),
]
_MMENGINE = [
    *((f"optim_wrapper.optimizer.{text}", values) for text, values in _OPTIMIZER),
    *((f"optim_wrapper.paramwise_cfg.{text}", values) for text, values in _DECAYS),
    ("optim_wrapper.type=AmpOptimWrapper", {"precision": "fp16"}),
    ("optim_wrapper.clip_grad=None", {"recipe.optimizer.clip_norm": None}),
    ("optim_wrapper.clip_grad.max_norm=35", {"recipe.optimizer.clip_norm": 35}),
    ("optim_wrapper.accumulative_counts=2", {"recipe.optimizer.accumulate": 2}),
    ("base_lr=0.002", {"recipe.optimizer.lr": 0.002, **_LR}),
    ("max_epochs=50", {"epochs": 50}),
    ("train_cfg.max_epochs=50", {"epochs": 50}),
    ("train_cfg.val_interval=5", {"val_interval": 5}),
    ("interval=5", {"val_interval": 5}),
    ("train_dataloader.batch_size=4", {"batch": 8}),
    ("train_dataloader.num_workers=3", {"workers": 3}),
    ("model.backbone.norm_cfg.type=SyncBN", {"recipe.sync_norms": True}),
    ("randomness.seed=7", {"seed": 7}),
    *_TEST,
    _FROZEN,
]
EXAMPLES: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "mmdet": [
        *_MMCV,
        *_TEST,
        _FROZEN,
        ("img_scale=(640,640)", {"image_size": 640}),
        ("model.input_size=(640,640)", {"image_size": 640}),
        ("model.random_size_range=(10,20)", {"recipe.augment.multiscale": [320 / 416, 640 / 416]}),
        ("model.random_size_interval=5", {"recipe.augment.multiscale_interval": 5}),
        ("runner.max_epochs=50", {"epochs": 50}),
        ("total_epochs=50", {"epochs": 50}),
        ("max_epochs=50", {"epochs": 50}),
        ("evaluation.interval=5", {"val_interval": 5}),
        ("interval=5", {"val_interval": 5}),
        ("lr_config.policy=YOLOX", {"recipe.schedule.curve": "cosine"}),
        ("lr_config.warmup=exp", {"recipe.schedule.warmup": "quadratic"}),
        ("lr_config.warmup_iters=3", {"recipe.schedule.warmup_epochs": 3}),
        ("lr_config.min_lr_ratio=0.01", {"recipe.schedule.final_factor": 0.01}),
        ("lr_config.num_last_epochs=5", {"recipe.closing_epochs": 5}),
        ("custom_hooks.0.num_last_epochs=5", {"recipe.closing_epochs": 5}),
        ("num_last_epochs=5", {"recipe.closing_epochs": 5}),
        ("custom_hooks.2.momentum=0.001", {"recipe.ema.momentum": 0.001}),
    ],
    "mmrotate": [
        *_MMENGINE,
        (
            "optim_wrapper.optimizer.weight_decay=0.1",
            {"recipe.optimizer.weight_decay": 0.1, "recipe.optimizer.decay_scaling": "none"},
        ),
        ("weight_decay=0.1", {"recipe.optimizer.weight_decay": 0.1, "recipe.optimizer.decay_scaling": "none"}),
    ],
    "mmyolo": [
        *_MMENGINE,
        ("optim_wrapper.optimizer.weight_decay=0.1", {"recipe.optimizer.weight_decay": 0.1}),
        ("weight_decay=0.1", {"recipe.optimizer.weight_decay": 0.1}),
        ("img_scale=(320,320)", {"image_size": 320}),
        ("train_batch_size_per_gpu=4", {"batch": 8}),
        ("train_num_workers=3", {"workers": 3}),
        ("lr_factor=0.1", {"recipe.schedule.final_factor": 0.1}),
        ("close_mosaic_epochs=5", {"recipe.closing_epochs": 5}),
        ("num_last_epochs=5", {"recipe.closing_epochs": 5}),
        ("default_hooks.param_scheduler.lr_factor=0.1", {"recipe.schedule.final_factor": 0.1}),
        ("default_hooks.param_scheduler.min_lr_ratio=0.1", {"recipe.schedule.final_factor": 0.1}),
        ("default_hooks.param_scheduler.warmup_epochs=2", {"recipe.schedule.warmup_epochs": 2}),
        ("default_hooks.param_scheduler.warmup_mim_iter=500", {"recipe.schedule.warmup_iterations": 500}),
        ("default_hooks.param_scheduler.scheduler_type=cosine", {"recipe.schedule.curve": "cosine"}),
        *((text.replace("model.test_cfg", "model_test_cfg"), values) for text, values in _TEST),
    ],
    "mmseg": [
        *_MMCV,
        ("img_scale=(1024,512)", {"image_size": 512}),
        ("crop_size=(256,512)", {"recipe.augment.crop": [256, 512]}),
        ("runner.max_iters=500", {"recipe.iterations": 500}),
        ("total_iters=500", {"recipe.iterations": 500}),
        ("evaluation.interval=50", {"recipe.val_iterations": 50}),
        ("lr_config.policy=poly", {"recipe.schedule.curve": "poly"}),
        ("lr_config.power=0.5", {"recipe.schedule.power": 0.5}),
        ("lr_config.min_lr=1e-5", {"recipe.schedule.final_lr": 1e-5}),
        ("lr_config.warmup=linear", {"recipe.schedule.warmup": "linear"}),
        ("lr_config.warmup_iters=50", {"recipe.schedule.warmup_iterations": 50}),
        ("lr_config.warmup_ratio=0.1", {"recipe.schedule.warmup_start": 0.1}),
    ],
    "detectron2": [
        ("SOLVER.BASE_LR=0.002", {"recipe.optimizer.lr": 0.002, **_LR}),
        ("SOLVER.MAX_ITER=500", {"recipe.iterations": 500}),
        ("SOLVER.IMS_PER_BATCH=4", {"batch": 4}),
        ("SOLVER.STEPS=(600,800)", {"recipe.schedule.steps": [0.6, 0.8], "recipe.schedule.curve": "steps"}),
        ("SOLVER.GAMMA=0.5", {"recipe.schedule.step_factor": 0.5}),
        ("SOLVER.WARMUP_ITERS=50", {"recipe.schedule.warmup_iterations": 50}),
        ("SOLVER.WARMUP_FACTOR=0.1", {"recipe.schedule.warmup_start": 0.1}),
        ("SOLVER.WARMUP_METHOD=linear", {"recipe.schedule.warmup": "linear"}),
        (
            "SOLVER.LR_SCHEDULER_NAME=WarmupCosineLR",
            {"recipe.schedule.curve": "cosine", "recipe.schedule.final_factor": 0},
        ),
        ("SOLVER.BASE_LR_END=1e-5", {"recipe.schedule.final_lr": 1e-5}),
        ("SOLVER.MOMENTUM=0.8", {"recipe.optimizer.momentum": 0.8}),
        ("SOLVER.NESTEROV=True", {"recipe.optimizer.nesterov": True}),
        ("SOLVER.WEIGHT_DECAY=0.001", {"recipe.optimizer.weight_decay": 0.001}),
        ("SOLVER.WEIGHT_DECAY_BIAS=0.", {"recipe.optimizer.decay_biases": False}),
        ("SOLVER.AMP.ENABLED=True", {"precision": "fp16"}),
        ("INPUT.MIN_SIZE_TRAIN=(640,672,800)", {"recipe.augment.multiscale": [0.8, 1]}),
        ("INPUT.MIN_SIZE_TEST=640", {"image_size": 640}),
        ("INPUT.RANDOM_FLIP=vertical", {"recipe.augment.flip": 0, "recipe.augment.flip_vertical": 0.5}),
        ("MODEL.RETINANET.SCORE_THRESH_TEST=0.1", {"conf": 0.1}),
        ("MODEL.RETINANET.NMS_THRESH_TEST=0.6", {"iou": 0.6}),
        ("MODEL.RESNETS.DEPTH=101", {"model": "retinanet_r101_fpn"}),
        ("MODEL.BACKBONE.FREEZE_AT=1", {"recipe.freeze": ["backbone.stem"]}),
        ("DATALOADER.NUM_WORKERS=3", {"workers": 3}),
        ("DATALOADER.FILTER_EMPTY_ANNOTATIONS=False", {"recipe.with_objects": False}),
        ("TEST.DETECTIONS_PER_IMAGE=300", {"max_dets": 300}),
        ("TEST.EVAL_PERIOD=50", {"recipe.val_iterations": 50}),
        ("SEED=7", {"seed": 7}),
    ],
}
ROWS = [(name, text, values) for name, examples in EXAMPLES.items() for text, values in examples]


def facts(name: str) -> RunFacts:
    _, model = TRAININGS[name]
    size = {"mmdet": 416, "detectron2": 800}.get(name)
    return RunFacts(TWO_GPUS, model, epochs=100, iterations=1000, image_size=size)


@pytest.mark.parametrize(("name", "text", "expected"), ROWS, ids=[f"{row[0]}-{row[1]}" for row in ROWS])
def test_every_key_that_means_something_takes_effect(name: str, text: str, expected: dict[str, Any]) -> None:
    table, model = TRAININGS[name]
    values = apply_overrides(read_cfg_options(text), table, facts(name))
    assert flat(values) == expected
    recipe = take(table.kind, values, model)
    for path, value in expected.items():
        if path.startswith("recipe.") and not isinstance(value, list):
            found: Any = recipe
            for part in path.split(".")[1:]:
                found = getattr(found, part)
            assert found == value, path


@pytest.mark.parametrize("name", TRAININGS)
def test_no_row_is_without_an_example(name: str) -> None:
    keys = {text.partition("=")[0] for text, _ in EXAMPLES[name]}
    found = {pattern for pattern, kind in _kinds(TRAININGS[name][0]).items() if kind == "sets" and "*" not in pattern}
    assert found <= keys


def _kinds(table: OverrideTable) -> dict[str, str]:
    return {row.option: row.kind for row in reversed(describe_overrides(table))}


def test_what_other_keys_are_relative_to_may_stand_behind_them() -> None:
    text = "model.random_size_range=(10,20) img_scale=(640,640)"
    values = apply_overrides(read_cfg_options(text), MMDET_TRAINING, facts("mmdet"))
    assert flat(values)["recipe.augment.multiscale"] == [0.5, 1]
    pairs = read_yacs(["SOLVER.STEPS", "(60,90)", "SOLVER.MAX_ITER", "100"], "args_options")
    values = apply_overrides(pairs, DETECTRON2_TRAINING, facts("detectron2"))
    assert flat(values)["recipe.schedule.steps"] == [0.6, 0.9]


def test_later_keys_win_and_processors_have_no_fp16() -> None:
    text = "data.samples_per_gpu=4 optimizer.lr=1 optimizer.lr=0.5 fp16.loss_scale=dynamic data.samples_per_gpu=3"
    values = apply_overrides(read_cfg_options(text), MMDET_TRAINING)
    assert flat(values) == {"batch": 3, "recipe.optimizer.lr": 0.5, **_LR, "precision": "auto"}


@pytest.mark.parametrize("table", [MMDET_INFER, MMDET_MINING], ids=["infer", "mining"])
def test_passes_know_what_is_not_training(table: OverrideTable) -> None:
    text = "model.test_cfg.score_thr=0.1 model.test_cfg.nms.iou_threshold=0.5 data.samples_per_gpu=2 img_scale=640"
    values = apply_overrides(read_cfg_options(text), table, facts("mmdet"))
    assert values == {"conf": 0.1, "iou": 0.5, "batch": 4, "image_size": 640}
    take(table.kind, values, "yolox_tiny_mmdet")
    with pytest.raises(ConfigError, match=r"optimizer.lr=0.1 is refused: only a training uses it"):
        apply_overrides([("optimizer.lr", 0.1)], table)


ACCEPTED = [
    ("mmdet", "evaluation.metric=bbox lr_config.warmup_by_epoch=True find_unused_parameters=False"),
    ("mmyolo", "train_cfg.max_epochs=50 default_hooks.param_scheduler.max_epochs=50"),
    ("mmseg", "runner.type=IterBasedRunner lr_config.by_epoch=False"),
    ("detectron2", "VERSION=2 SOLVER.BIAS_LR_FACTOR=1.0 INPUT.CROP.ENABLED=False"),
]


@pytest.mark.parametrize(("name", "text"), ACCEPTED, ids=[row[1] for row in ACCEPTED])
def test_what_is_so_anyway_changes_nothing(name: str, text: str) -> None:
    values = apply_overrides(read_cfg_options(text), TRAININGS[name][0], facts(name))
    assert set(values) <= {"epochs"}


REFUSED = [
    ("mmdet", "model.bbox_head.num_classes=3", "is refused: the number of classes follows"),
    ("mmyolo", "model.bbox_head.head_module.num_classes=3", "is refused: the number of classes follows"),
    ("mmdet", "load_from=a.pth", "load_from='a.pth' is refused: weights are chosen with the task"),
    ("mmdet", "model.backbone.widen_factor=1", "is refused: what a model is made of follows from its name"),
    ("mmdet", "data.train.pipeline.0.type=X", "is refused: the platform gives the data"),
    ("mmdet", "checkpoint_config.interval=1", "is refused: which stages are kept"),
    ("mmdet", "runner.max_iters=5", "is refused: the length of a run is in epochs"),
    ("mmdet", "optimizer.type=Adam", "is not possible: only SGD or AdamW is possible here"),
    ("mmdet", "optimizer.lr=fast", "optimizer.lr='fast' is not possible: input should be a valid number"),
    ("mmdet", "optimizer.lr=-1", "greater than 0"),
    ("mmdet", "runner.max_epochs=1.5", "it must be a whole number"),
    ("mmdet", "model.test_cfg.nms.iou_threshold=1.5", "less than or equal to 1"),
    ("mmdet", "img_scale=(640,480)", "must be equal"),
    ("mmdet", "evaluation.metric=segm", "only bbox is possible, since it is the AP of boxes"),
    ("mmdet", "model.backbone.frozen_stages=5", "1 to 4"),
    ("mmyolo", "default_hooks.param_scheduler.max_epochs=50", "which has 100 epochs"),
    ("mmrotate", "param_scheduler.0.end=5", "is refused: its positions mean other things"),
    ("detectron2", "SOLVER.STEPS=(80,60)", "a rising list"),
    ("detectron2", "SOLVER.CLIP_GRADIENTS.ENABLED=True", "only False is possible"),
    ("detectron2", "MODEL.RETINANET.NUM_CLASSES=3", "is refused: the number of classes"),
    ("mmdet", "optimizer.lrr=1", r"'optimizer.lrr' is unknown\n  Nearest: optimizer.lr, "),
    ("mmyolo", "model.test_cfg.score_th=0.1", "Nearest: model.test_cfg.score_thr, "),
    ("detectron2", "MODEL.RETINANET.SCORE_THRESH=1", "Nearest: MODEL.RETINANET.SCORE_THRESH_TEST, "),
    ("detectron2", "SOLVER.BASELR=1", "Nearest: SOLVER.BASE_LR, "),
]


@pytest.mark.parametrize(("name", "text", "message"), REFUSED, ids=[f"{row[0]}-{row[1]}" for row in REFUSED])
def test_what_means_nothing_here_is_refused_with_the_reason(name: str, text: str, message: str) -> None:
    table, _ = TRAININGS[name]
    with pytest.raises(ConfigError, match=message) as caught:
        apply_overrides(read_cfg_options(text), table, facts(name))
    assert caught.value.where == table.key


# The keys that Detectron2's "Config References" list, but for those of parts that RetinaNet has not.
DETECTRON2_KEYS = """
VERSION OUTPUT_DIR SEED CUDNN_BENCHMARK VIS_PERIOD
MODEL.LOAD_PROPOSALS MODEL.MASK_ON MODEL.KEYPOINT_ON MODEL.DEVICE MODEL.META_ARCHITECTURE MODEL.WEIGHTS MODEL.PIXEL_MEAN
MODEL.PIXEL_STD MODEL.BACKBONE.NAME MODEL.BACKBONE.FREEZE_AT MODEL.FPN.IN_FEATURES MODEL.FPN.OUT_CHANNELS MODEL.FPN.NORM
MODEL.ANCHOR_GENERATOR.SIZES MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS MODEL.RETINANET.NUM_CLASSES
MODEL.RETINANET.IN_FEATURES MODEL.RETINANET.NUM_CONVS MODEL.RETINANET.IOU_THRESHOLDS MODEL.RETINANET.IOU_LABELS
MODEL.RETINANET.PRIOR_PROB MODEL.RETINANET.SCORE_THRESH_TEST MODEL.RETINANET.TOPK_CANDIDATES_TEST
MODEL.RETINANET.NMS_THRESH_TEST MODEL.RETINANET.BBOX_REG_WEIGHTS MODEL.RETINANET.FOCAL_LOSS_GAMMA
MODEL.RETINANET.FOCAL_LOSS_ALPHA MODEL.RETINANET.SMOOTH_L1_LOSS_BETA MODEL.RETINANET.BBOX_REG_LOSS_TYPE
MODEL.RETINANET.NORM MODEL.RESNETS.DEPTH MODEL.RESNETS.OUT_FEATURES MODEL.RESNETS.NORM MODEL.RESNETS.STRIDE_IN_1X1
INPUT.MIN_SIZE_TRAIN INPUT.MIN_SIZE_TRAIN_SAMPLING INPUT.MAX_SIZE_TRAIN INPUT.MIN_SIZE_TEST INPUT.MAX_SIZE_TEST
INPUT.RANDOM_FLIP INPUT.CROP.ENABLED INPUT.CROP.TYPE INPUT.CROP.SIZE INPUT.FORMAT INPUT.MASK_FORMAT
DATASETS.TRAIN DATASETS.TEST DATALOADER.NUM_WORKERS DATALOADER.ASPECT_RATIO_GROUPING DATALOADER.SAMPLER_TRAIN
DATALOADER.REPEAT_THRESHOLD DATALOADER.FILTER_EMPTY_ANNOTATIONS SOLVER.LR_SCHEDULER_NAME SOLVER.MAX_ITER SOLVER.BASE_LR
SOLVER.BASE_LR_END SOLVER.MOMENTUM SOLVER.NESTEROV SOLVER.WEIGHT_DECAY SOLVER.WEIGHT_DECAY_NORM SOLVER.WEIGHT_DECAY_BIAS
SOLVER.GAMMA SOLVER.STEPS SOLVER.NUM_DECAYS SOLVER.WARMUP_FACTOR SOLVER.WARMUP_ITERS SOLVER.WARMUP_METHOD
SOLVER.CHECKPOINT_PERIOD SOLVER.IMS_PER_BATCH SOLVER.REFERENCE_WORLD_SIZE SOLVER.BIAS_LR_FACTOR
SOLVER.CLIP_GRADIENTS.ENABLED SOLVER.CLIP_GRADIENTS.CLIP_TYPE SOLVER.CLIP_GRADIENTS.CLIP_VALUE SOLVER.AMP.ENABLED
TEST.EXPECTED_RESULTS TEST.EVAL_PERIOD TEST.DETECTIONS_PER_IMAGE TEST.AUG.ENABLED TEST.PRECISE_BN.ENABLED
"""


@pytest.mark.parametrize("key", DETECTRON2_KEYS.split())
def test_no_key_of_detectron2_is_unknown(key: str) -> None:
    assert find_effects([(key, None)], DETECTRON2_TRAINING)


FREEZABLE = ["yolov5_n", "yolov6_n", "yolov7_tiny", "yolov8_n", "yolox_tiny", "ppyoloe_plus_s", "rotated_rtmdet_tiny"]


@pytest.mark.parametrize("model", FREEZABLE)
def test_frozen_stages_are_parts_of_the_models(model: str) -> None:
    values = apply_overrides([("model.backbone.frozen_stages", 4)], MMYOLO_TRAINING, RunFacts(model=model))
    with torch.device("meta"):
        network = create_model(model, num_classes=1)
    freeze(network, flat(values)["recipe.freeze"])
    trained = {name.split(".")[0] for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert trained == {"neck", "head"}
