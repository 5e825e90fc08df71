"""Names of models: those in the images' documents (documented_models.csv), and those that no image has."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from ymir_tmi.errors import ConfigError
from ymir_tmi.models.catalog import default_spec, list_models
from ymir_tmi.training.recipes import recipe_of
from ymir_tmi.weights.table import OfficialWeights, official_weights
from ymir_tmi.ymir.model_names import (
    DETECTRON2_CONFIGS,
    MMDET_CONFIGS,
    MMROTATE_MODELS,
    MMSEG_CONFIGS,
    MMYOLO_MODELS,
    YOLOV5_MODELS,
    YOLOV5_SEG_MODELS,
    ConfigTable,
    find_config,
)

TABLES = {
    "mmdet": MMDET_CONFIGS,
    "mmyolo": MMYOLO_MODELS,
    "mmrotate": MMROTATE_MODELS,
    "detectron2": DETECTRON2_CONFIGS,
    "mmseg": MMSEG_CONFIGS,
    "yolov5": YOLOV5_MODELS,
    "yolov5-seg": YOLOV5_SEG_MODELS,
}
with (Path(__file__).parent / "documented_models.csv").open(encoding="utf-8") as file:
    DOCUMENTED = list(csv.DictReader(file))
CATALOG = {info.name: info for info in list_models()}


@pytest.mark.parametrize("row", DOCUMENTED, ids=lambda row: f"{row['image']}-{row['name'].rpartition('/')[2]}")
def test_documented_names_mean_a_model_and_a_schedule(row: dict[str, str]) -> None:
    table, path = TABLES[row["image"]], row["name"]
    choice = find_config(path, table)
    assert (choice.model, choice.values.get("recipe", ""), choice.note) == (row["model"], row["recipe"], "")
    assert default_spec(choice.model, class_names=["a"]).input.size == choice.image_size
    recipe_of(CATALOG[choice.model].family, choice.model, choice.values.get("recipe"))
    name = path.rpartition("/")[2]
    stem = name.removesuffix(".py").removesuffix(".yaml")
    for other in (name, stem, stem.upper(), f" ./{name} ", f"https://example.org/tree/{name}?raw=true#top"):
        assert find_config(other, table) == choice, other


@pytest.mark.parametrize("weights", [row for row in official_weights() if row.url], ids=lambda row: row.id)
def test_the_config_of_official_weights_means_their_model(weights: OfficialWeights) -> None:
    config, table = weights.url.split("/")[-2], TABLES[weights.source]
    if weights.source == "detectron2":
        config = weights.url.split("/")[-3]
    assert find_config(config, table).model == weights.model


@pytest.mark.parametrize("name", TABLES)
def test_every_row_means_a_model_of_the_catalog(name: str) -> None:
    for config, choice in TABLES[name].configs.items():
        assert choice.model in CATALOG, config
        assert find_config(choice.model, TABLES[name]).model == choice.model


SHORT = [
    (MMYOLO_MODELS, "yolov8_n", "yolov8_n"),
    (MMYOLO_MODELS, "yolov5_s", "yolov5_s"),
    (MMYOLO_MODELS, "yolov5_m-p6", "yolov5_m6"),
    (MMYOLO_MODELS, "yolov6_t", "yolov6_t"),
    (MMYOLO_MODELS, "yolov7_tiny", "yolov7_tiny"),
    (MMYOLO_MODELS, "yolox_tiny", "yolox_tiny"),
    (MMYOLO_MODELS, "ppyoloe_plus_s", "ppyoloe_plus_s"),
    (MMYOLO_MODELS, "rtmdet_l", "rtmdet_l"),
    (MMROTATE_MODELS, "rtmdet_tiny", "rotated_rtmdet_tiny"),
    (YOLOV5_MODELS, "yolov5s.pt", "yolov5_s"),
    (YOLOV5_MODELS, "models/hub/yolov5x6.yaml", "yolov5_x6"),
    (YOLOV5_SEG_MODELS, "models/segment/yolov5l-seg.yaml", "yolov5_l_seg"),
]


@pytest.mark.parametrize(("table", "name", "model"), SHORT, ids=[row[1] for row in SHORT])
def test_short_names(table: ConfigTable, name: str, model: str) -> None:
    assert find_config(name, table).model == model


FOLDERS = [
    (MMDET_CONFIGS, "configs/yolox", "yolox_tiny_mmdet", None),
    (MMDET_CONFIGS, "https://github.com/open-mmlab/mmdetection/tree/master/configs/yolox/", "yolox_tiny_mmdet", None),
    (DETECTRON2_CONFIGS, "configs/COCO-Detection/", "retinanet_r50_fpn", "1x"),
    (MMSEG_CONFIGS, "configs/fastscnn", "fast_scnn", None),
    (MMSEG_CONFIGS, "hrnet", "fcn_hrnet_w18_small", "40k"),
    (MMYOLO_MODELS, "yolov8", "yolov8_n", None),
]


@pytest.mark.parametrize(("table", "name", "model", "recipe"), FOLDERS, ids=[row[1] for row in FOLDERS])
def test_a_folder_means_its_first_config_and_says_so(
    table: ConfigTable, name: str, model: str, recipe: str | None
) -> None:
    choice = find_config(name, table)
    assert (choice.model, choice.values.get("recipe")) == (model, recipe)
    assert name in choice.note and "is a folder of" in choice.note


REFUSED = [
    (MMDET_CONFIGS, "configs/yolox/yolox_nano_8x8_300e_coco.py", "no published weights", "the next is yolox_tiny"),
    (MMDET_CONFIGS, "configs/yolox/yolox_q_8x8_300e_coco.py", "this image has YOLOX", "yolox_s_8x8_300e_coco.py"),
    (MMROTATE_MODELS, "yolov8_n", "rotated RTMDet only", "rtmdet_tiny"),
    (MMYOLO_MODELS, "yolov7_w", "is unknown", "yolov7_l"),
    (DETECTRON2_CONFIGS, "faster_rcnn_R_50_FPN_1x.yaml", "has RetinaNet", "retinanet_R_50_FPN_1x.yaml"),
    (YOLOV5_SEG_MODELS, "yolov5s", "has YOLOv5-seg", "yolov5s-seg"),
    (MMSEG_CONFIGS, "configs", "folder of several", "configs/fastscnn or configs/hrnet"),
]


@pytest.mark.parametrize(("table", "name", "reason", "near"), REFUSED, ids=[row[1] for row in REFUSED])
def test_unknown_names_say_what_there_is(table: ConfigTable, name: str, reason: str, near: str) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        find_config(name, replace(table, key="my_key"))
    assert caught.value.where == "my_key"
    assert near in str(caught.value)
