"""What a semantic model learns from, and how large its crops are."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import PIL.Image
import pytest

from ymir_tmi.config.recipe import AugmentRecipe, Recipe
from ymir_tmi.config.schema import TrainSettings
from ymir_tmi.data.letterbox import InputSpec
from ymir_tmi.data.semantics import read_label_map
from ymir_tmi.errors import DataError
from ymir_tmi.training import datasets, plan
from ymir_tmi.training.distributed import Processes


@pytest.fixture(autouse=True)
def semantic_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "default_spec", lambda name, class_names: SimpleNamespace(task="semantics"))


@pytest.fixture
def settings(tmp_path: Path) -> TrainSettings:
    """Trains on label pictures with the classes road and sky; validates on COCO, of which half is not annotated."""
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    PIL.Image.new("RGB", (60, 40)).save(tmp_path / "images" / "a.png")
    labels = np.zeros((40, 60), np.uint8)
    labels[:20] = 1
    PIL.Image.fromarray(labels).save(tmp_path / "masks" / "a.png")
    (tmp_path / "classes.txt").write_text("road\nsky\n")
    upper = [[0, 0, 60, 0, 60, 20, 0, 20]]
    annotation = {"id": 1, "image_id": 1, "category_id": 5, "bbox": [0, 0, 60, 20], "segmentation": upper}
    image = {"id": 1, "file_name": "a.png", "width": 60, "height": 40}
    content = {"images": [image], "annotations": [annotation], "categories": [{"id": 5, "name": "sky"}]}
    (tmp_path / "val.json").write_text(json.dumps(content))
    return TrainSettings(model="rtmdet_tiny", train=[str(tmp_path)], val=[str(tmp_path / "val.json")])


def test_both_splits_have_the_same_classes(settings: TrainSettings) -> None:
    data = datasets.read_training_data(settings)
    assert data.train.class_names == data.val.class_names == ("road", "sky", "background")
    train, val = (read_label_map(index, 0, (60, 40)) for index in (data.train, data.val))
    assert (train[:20] == 1).all() and (train[20:] == 0).all()
    assert (val[:20] == 1).all() and (val[20:] == 2).all()


def test_blank_pixels_may_be_ignored(settings: TrainSettings) -> None:
    data = datasets.read_training_data(settings.model_copy(update={"blank": "ignore"}))
    assert data.val.class_names == ("road", "sky")
    assert (read_label_map(data.val, 0, (60, 40))[20:] == 255).all()


def test_a_split_in_which_nothing_counts(settings: TrainSettings, tmp_path: Path) -> None:
    PIL.Image.fromarray(np.full((40, 60), 255, np.uint8)).save(tmp_path / "masks" / "a.png")
    with pytest.raises(DataError, match="no pixel of the train split has a class"):
        datasets.read_training_data(settings)


def test_a_folder_without_label_pictures(settings: TrainSettings, tmp_path: Path) -> None:
    (tmp_path / "masks" / "a.png").unlink()
    with pytest.raises(DataError, match=r"the train split has no annotations\n.*label pictures in 'masks'") as error:
        datasets.read_training_data(settings)
    assert error.value.where == str(tmp_path)


def test_boxes_are_not_enough(settings: TrainSettings, tmp_path: Path) -> None:
    content = json.loads((tmp_path / "val.json").read_text())
    del content["annotations"][0]["segmentation"]
    (tmp_path / "val.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="do not say which class a pixel has"):
        datasets.read_training_data(settings)


@pytest.mark.parametrize(
    ("size", "changes", "crop"),
    [
        (None, [], (512, 1024)),  # the recipe's own
        (1024, [], (512, 1024)),  # the model's own size
        (640, [], None),  # squares of this size
        (640, ["augment.crop=[320,640]"], (320, 640)),  # what the user assigns wins
    ],
)
def test_crops_follow_the_image_size(monkeypatch: pytest.MonkeyPatch, size, changes: list[str], crop) -> None:
    recipe = Recipe(augment=AugmentRecipe(geometry="ratio_crop", crop=(512, 1024), mosaic=0, mixup=0))
    spec = SimpleNamespace(input=InputSpec(size=1024, resize="shorter", longest=2048), family="f", name="n")
    monkeypatch.setattr(plan, "default_spec", lambda name, **options: spec)
    monkeypatch.setattr(plan, "recipe_of", lambda *names: recipe)
    planned = plan.plan_run(TrainSettings(image_size=size, set=changes, device="cpu"), Processes(0, 1, 1, ()))
    assert planned.recipe.augment.crop == crop
    assert plan.fit_to_data(planned, 100).recipe.augment.crop == crop
