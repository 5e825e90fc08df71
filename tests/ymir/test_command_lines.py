"""Command lines of the images' programs: what each option comes to, argparse's ways of writing, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from option_results import flat, take

from ymir_tmi.errors import ConfigError
from ymir_tmi.models.catalog import create_model
from ymir_tmi.training.freeze import freeze
from ymir_tmi.ymir.command_lines import (
    DETECTRON2,
    MMDET_TOOLS,
    MMROTATE_TOOLS,
    MMSEG_TOOLS,
    MMYOLO_TOOLS,
    YOLOV5,
    YOLOV5_SEG,
    CommandLine,
    describe,
    read_args_options,
)
from ymir_tmi.ymir.effects import RunFacts
from ymir_tmi.ymir.images import PROFILES
from ymir_tmi.ymir.orders import Machine

TABLES = {
    "yolov5": (YOLOV5, "yolov5_s"),
    "yolov5-seg": (YOLOV5_SEG, "yolov5_s_seg"),
    "mmdet": (MMDET_TOOLS, "yolox_tiny_mmdet"),
    "mmyolo": (MMYOLO_TOOLS, "yolov8_n"),
    "mmrotate": (MMROTATE_TOOLS, "rotated_rtmdet_tiny"),
    "mmseg": (MMSEG_TOOLS, "fast_scnn"),
    "detectron2": (DETECTRON2, "retinanet_r50_fpn"),
}
_YOLOV5: list[tuple[str, dict[str, Any]]] = [
    ("--hyp data/hyps/hyp.scratch-high.yaml", {"recipe": "high"}),
    ("--epochs 50", {"epochs": 50}),
    ("--batch-size 8", {"batch": 8}),
    ("--batch-size -1", {"batch": "auto"}),
    ("--imgsz 600", {"image_size": 600}),
    ("--img 320", {"image_size": 320}),
    ("--noval", {"val_interval": 100}),
    ("--noval --epochs 50", {"val_interval": 50, "epochs": 50}),
    ("--noautoanchor", {"recipe.auto_anchor": False}),
    ("--image-weights", {"recipe.image_weights": True}),
    ("--multi-scale", {"recipe.augment.multiscale": [0.5, 1.5], "recipe.augment.multiscale_interval": 1}),
    ("--optimizer AdamW", {"recipe.optimizer.name": "adamw"}),
    ("--sync-bn", {"recipe.sync_norms": True}),
    ("--workers 3", {"workers": 3}),
    ("--cos-lr", {"recipe.schedule.curve": "cosine"}),
    ("--label-smoothing 0.1", {"recipe.loss.label_smoothing": 0.1}),
    ("--patience 30", {"patience": 30}),
    ("--patience 0", {"patience": None}),
    ("--freeze 2", {"recipe.freeze": ["backbone.stem", "backbone.stages.0.0"]}),
    ("--freeze 0 3", {"recipe.freeze": ["backbone.stem", "backbone.stages.1.0"]}),
    ("--freeze 0", {"recipe.freeze": []}),
    ("--seed 7", {"seed": 7}),
]
_LARGE = ("--img 1100 --cfg yolov5s6.yaml", {"model": "yolov5_s6", "image_size": 1100})
_MM = [("--seed 7", {"seed": 7}), ("--amp", {"precision": "fp16"})]
EXAMPLES: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "yolov5": [*_YOLOV5, ("--cfg models/yolov5m.yaml", {"model": "yolov5_m"}), _LARGE],
    "yolov5-seg": [*_YOLOV5, ("--cfg models/segment/yolov5m-seg.yaml", {"model": "yolov5_m_seg"})],
    "mmdet": [
        *_MM,
        ("--cfg-options data.samples_per_gpu=4 runner.max_epochs=50 --seed=3", {"batch": 8, "epochs": 50, "seed": 3}),
        ("--options img_scale='(640, 640)'", {"image_size": 640}),
    ],
    "mmyolo": [*_MM, ("--cfg-options train_dataloader.batch_size=4", {"batch": 8})],
    "mmrotate": [*_MM, ("--cfg-options train_cfg.max_epochs=50", {"epochs": 50})],
    "mmseg": [*_MM, ("--cfg-options runner.max_iters=500", {"recipe.iterations": 500})],
    "detectron2": [
        ("SOLVER.MAX_ITER 500 SOLVER.IMS_PER_BATCH 4", {"recipe.iterations": 500, "batch": 4}),
        ("--num-gpus 2 SOLVER.IMS_PER_BATCH 4 SEED 1", {"batch": 4, "seed": 1}),
        ("--opts DATALOADER.NUM_WORKERS 2 INPUT.MIN_SIZE_TEST 640", {"workers": 2, "image_size": 640}),
    ],
}
ROWS = [(name, text, values) for name, examples in EXAMPLES.items() for text, values in examples]


def read(name: str, text: str) -> dict[str, Any]:
    table, model = TABLES[name]
    run = RunFacts(Machine(devices=2, gpu=True), model, epochs=100, iterations=1000, image_size=800)
    return read_args_options(text, table, run)


@pytest.mark.parametrize(("name", "text", "expected"), ROWS, ids=[f"{row[0]}-{row[1]}" for row in ROWS])
def test_every_option_that_means_something_takes_effect(name: str, text: str, expected: dict[str, Any]) -> None:
    values = read(name, text)
    assert flat(values) == expected
    table, model = TABLES[name]
    take(table.kind, values, values.get("model", model))


@pytest.mark.parametrize("name", TABLES)
def test_no_option_is_without_an_example(name: str) -> None:
    table, _ = TABLES[name]
    given = {word.partition("=")[0] for text, _ in EXAMPLES[name] for word in text.split()}
    for option in table.options:
        if option.effect and option.effect.kind == "sets":
            assert given & set(option.names), option.names


SPELLINGS = [
    ("yolov5", "--batch-size=8", "--batch-size 8"),
    ("yolov5", "--batch 8", "--batch-size 8"),
    ("yolov5", "--multi", "--multi-scale"),
    ("yolov5", "--hyp 'data/my hyps/hyp.scratch-low.yaml'", "--hyp hyp.scratch-low.yaml"),
    ("yolov5", "--epochs 3 --epochs 5", "--epochs 5"),
    ("mmdet", "--cfg seed=3", "--cfg-options seed=3"),
    ("detectron2", "--opts SEED 3", "SEED 3"),
]


@pytest.mark.parametrize(("name", "text", "same"), SPELLINGS, ids=[row[1] for row in SPELLINGS])
def test_options_are_written_as_argparse_reads_them(name: str, text: str, same: str) -> None:
    assert read(name, text) == read(name, same) != {}


ACCEPTED = [
    ("yolov5", ""),
    ("yolov5", "--exist-ok"),
    ("yolov5-seg", "--exist-ok --mask-ratio 4"),
    ("mmdet", "--auto-scale-lr --diff-seed --diff_seed --gpus 2"),
    ("detectron2", "--num-gpus 2 --num-machines 1 --machine-rank 0"),
]


@pytest.mark.parametrize(("name", "text"), ACCEPTED, ids=[f"{row[0]}{row[1]}" for row in ACCEPTED])
def test_what_is_so_anyway_changes_nothing(name: str, text: str) -> None:
    assert read(name, text) == {}


REFUSED = [
    ("yolov5", "--weights yolov5s.pt", "--weights='yolov5s.pt' is refused: weights are chosen with the task"),
    ("yolov5", "--resume", "^args_options: --resume is refused: a task begins anew"),
    ("yolov5", "--resume runs/last.pt", "is refused: a task begins anew"),
    ("yolov5", "--evolve 300", "is refused: hyper-parameters are not evolved"),
    ("yolov5", "--cache", "is refused: pictures are read from the disk"),
    ("yolov5", "--device 0", "is refused: the platform says which devices"),
    ("yolov5", "--hyp mine.yaml", "only hyp.scratch-low.yaml, hyp.scratch-med.yaml or hyp.scratch-high.yaml"),
    ("yolov5", "--optimizer Adam", "only SGD or AdamW"),
    ("yolov5", "--epochs many", "--epochs='many' is not possible: it must be a whole number"),
    ("yolov5", "--epochs 0", "greater than or equal to 1"),
    ("yolov5", "--epochs", "--epochs: expected one argument"),
    ("yolov5", "--exist-ok=1", "ignored explicit argument"),
    ("yolov5", "--no", "ambiguous option: --no could match --nosave, --noval"),
    ("yolov5", "--freeze 11", "which are the first 10"),
    ("yolov5", "--cfg yolov9.yaml", "'yolov9.yaml' is unknown; this image has YOLOv5"),
    ("yolov5", "--epoch-count 3", "has no option '--epoch-count'\n  Nearest: --epochs, "),
    ("yolov5", "--mask-ratio 4", "has no option '--mask-ratio'"),
    ("yolov5", "fast", "'fast' belongs to no option"),
    ("yolov5", "--name 'a", "a quote is left open"),
    ("yolov5-seg", "--mask-ratio 2", "only 4 is possible"),
    ("yolov5-seg", "--no-overlap", "is refused: where objects overlap"),
    ("mmdet", "--no-validate", "is refused: the platform wants to know"),
    ("mmdet", "--gpus 3", "the platform's gpu_id gives 2"),
    ("mmdet", "--deterministic", "is refused: the kernels"),
    ("mmdet", "--cfg-options lr=1", "'lr' is unknown"),
    ("mmyolo", "--launcher pytorch", "is refused: processes start themselves"),
    ("detectron2", "--config-file a.yaml", "is refused: give the parameter config_file"),
    ("detectron2", "SOLVER.BASE_LR", "'SOLVER.BASE_LR' has no value"),
    ("detectron2", "--nodes 2 SEED 1", "has no option '--nodes'"),
    ("detectron2", "SOLVER.BASELR 1", "Nearest: SOLVER.BASE_LR, "),
]


@pytest.mark.parametrize(("name", "text", "message"), REFUSED, ids=[f"{row[0]}-{row[1]}" for row in REFUSED])
def test_what_means_nothing_here_is_refused_with_the_reason(name: str, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        read(name, text)
    assert caught.value.where == "args_options"


RELATIVE = [
    ("mmdet", {"cfg_options": "model.random_size_range=(13,26)"}, "augment.multiscale=[1.0, 2.0]"),
    ("detectron2", {"args_options": "INPUT.MIN_SIZE_TRAIN (640,800)"}, "augment.multiscale=[0.8, 1.0]"),
    ("detectron2", {"args_options": "SOLVER.STEPS (45000,)"}, "schedule.steps=[0.5]"),
]


@pytest.mark.parametrize(("image", "config", "change"), RELATIVE, ids=[str(row[1]) for row in RELATIVE])
def test_images_tell_options_what_the_run_is(image: str, config: dict[str, str], change: str) -> None:
    order = PROFILES[image].training({"class_names": ["a"], **config}, 2, Machine())
    assert change in order.values["set"]


@pytest.mark.parametrize(("model", "layers"), [("yolov5_n", 10), ("yolov5_n6", 12), ("yolov5_n_seg", 10)])
def test_layers_of_yolov5_are_parts_of_ours(model: str, layers: int) -> None:
    values = read_args_options(f"--freeze {layers}", YOLOV5, RunFacts(model=model))
    with torch.device("meta"):
        network = create_model(model, num_classes=1)
    freeze(network, flat(values)["recipe.freeze"])
    trained = {name.split(".")[0] for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert trained == {"neck", "head"}


@pytest.mark.parametrize("table", [table for table, _ in TABLES.values()], ids=list(TABLES))
def test_documentation_has_every_option_and_its_reason(table: CommandLine) -> None:
    rows = {row.option: row for row in describe(table)}
    for option in table.options:
        if option.effect is not None:
            row = rows[", ".join(option.names)]
            assert row.fields if row.kind == "sets" else row.text
    assert ("optimizer.lr" in rows) == (table in (MMDET_TOOLS, MMSEG_TOOLS))
    assert ("SOLVER.BASE_LR" in rows) == (table is DETECTRON2)
