"""What images of the platform have failed at, one test each."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from ymir_files import turned_by_exif

from ymir_tmi import imaging
from ymir_tmi.data.index import CROWD
from ymir_tmi.data.read import read_dataset
from ymir_tmi.models.catalog import create_model
from ymir_tmi.models.checkpoint import save_model
from ymir_tmi.ymir.images import PROFILES
from ymir_tmi.ymir.sample_scenes import CLASS_NAMES, SampleScene, draw_scenes
from ymir_tmi.ymir.sample_task import SampleTask, TaskOrder, write_sample_task
from ymir_tmi.ymir.start import start
from ymir_tmi.ymir.trial import order_of
from ymir_tmi.ymir.verify import verify

# What a person is told on the console, and is no error.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*training goes on without this picture"),
    pytest.mark.filterwarnings("ignore:.*objects have no mask"),
]

TRAINING, INFER = ("training",), ("infer",)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that has learnt nothing; with a low threshold it finds something everywhere."""
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_model(create_model("yolov5_n", class_names=CLASS_NAMES).eval(), path)
    return path


@pytest.fixture(scope="module")
def pixel_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_model(create_model("fast_scnn", class_names=CLASS_NAMES).eval(), path)
    return path


@dataclass(frozen=True)
class Told:
    """What a run that has failed says of itself."""

    status: int
    code: str
    message: str


def order(tasks: tuple[str, ...], files: list[Path] | None = None, *, kind: int = 2, **values: Any) -> TaskOrder:
    """Return a short task of the image mmyolo, or of another kind of objects of the image all-in-one."""
    small = {"model_name": "yolov5_n"} if kind == 2 and tasks == TRAINING else {}
    return order_of(PROFILES["mmyolo" if kind == 2 else "all-in-one"], kind, tasks, files, **small, **values)


def run(task: SampleTask) -> int:
    config = yaml.safe_load((task.input / "config.yaml").read_text(encoding="utf-8"))
    return start("mmyolo" if config["object_type"] == 2 else "all-in-one", task.env_file)


def accepted(task: SampleTask) -> Path:
    assert run(task) == 0
    found = verify(task.output, task.input)
    assert found.ok, found.to_text()
    return task.output


def failed(task: SampleTask, capfd: pytest.CaptureFixture[str]) -> Told:
    """Run a task that fails; monitor, exit status and the last line say the same."""
    status = run(task)
    assert status != 0
    fields = (task.output / "monitor.txt").read_text(encoding="utf-8").splitlines()[0].split("\t")
    assert fields[3] == "4" and len(fields) == 6
    last = capfd.readouterr().err.rstrip("\n").splitlines()[-1]
    assert last.startswith(f"error {fields[4]}: {fields[5]}")  # of which the monitor has the first 500 letters
    return Told(status, fields[4], fields[5])


def change_config(task: SampleTask, **values: Any) -> None:
    path = task.input / "config.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8")) | values
    path.write_text(yaml.safe_dump(config), encoding="utf-8")


def manifest(out: Path) -> dict[str, Any]:
    """Return what the run inside of a task says of itself."""
    content: dict[str, Any] = json.loads((out / "run-1" / "run.json").read_text(encoding="utf-8"))
    return content


def objects_of(task: SampleTask, split: str, scenes: list[SampleScene]) -> None:
    """Compare what the package reads of a task with what was drawn."""
    index = read_dataset([str(task.input)], split=split)
    assert index.class_names == CLASS_NAMES
    assert len(index) == len(scenes)
    for row, scene in enumerate(scenes):
        wanted = sorted((item.label, *item.box) for item in scene.objects)
        got = sorted(
            (int(label), x1, y1, x2 - x1, y2 - y1)
            for (x1, y1, x2, y2), label in zip(
                index.boxes[index.rows(row)].tolist(), index.labels[index.rows(row)], strict=True
            )
        )
        assert [label for label, *_ in got] == [label for label, *_ in wanted]
        if index.segments is None:
            assert got == wanted
    assert not (index.flags & CROWD).any()


@pytest.mark.parametrize("form", ["ark", "voc"])
def test_last_pixels_are_inside(tmp_path: Path, form: str) -> None:
    task = write_sample_task(tmp_path, order(TRAINING, export_format=f"{form}:raw"))
    objects_of(task, "train", draw_scenes(0, 6, rotated=False))
    objects_of(task, "val", draw_scenes(1, 3, rotated=False))


def test_one_coco_file_for_both_lists_without_a_class_and_with_ids_from_0(tmp_path: Path) -> None:
    """Also `iscrowd` 1 of run lengths means nothing."""
    task = write_sample_task(tmp_path, order(TRAINING, kind=4))
    content = json.loads((task.input / "annotations" / "coco-annotations.json").read_text())
    assert [category["id"] for category in content["categories"]] == [2, 1, 0]
    assert {row["iscrowd"] for row in content["annotations"]} == {0, 1} and len(content["images"]) == 9
    objects_of(task, "train", draw_scenes(0, 6, rotated=False))
    objects_of(task, "val", draw_scenes(1, 3, rotated=False))


def test_a_box_without_mask(tmp_path: Path) -> None:
    """The platform writes `{}` for it."""
    task = write_sample_task(tmp_path, order(TRAINING, kind=4))
    path = task.input / "annotations" / "coco-annotations.json"
    content = json.loads(path.read_text())
    for row in content["annotations"][::3]:
        row["segmentation"] = {}
    path.write_text(json.dumps(content))
    accepted(task)


def test_missing_export_format_is_voc(tmp_path: Path) -> None:
    task = write_sample_task(tmp_path, order(TRAINING, export_format=""))
    assert "export_format" not in yaml.safe_load((task.input / "config.yaml").read_text(encoding="utf-8"))
    assert list((task.input / "annotations").rglob("*.xml"))
    objects_of(task, "train", draw_scenes(0, 6, rotated=False))


def test_spaces_and_any_letters_in_paths(tmp_path: Path, weights: Path) -> None:
    folder = tmp_path / "ein Ordner – 图 'x' 100%"
    accepted(write_sample_task(folder / "training", order(TRAINING)))
    both = replace(order(("mining", "infer"), [weights]), uploaded=True)
    accepted(write_sample_task(folder / "both", both))


def remove_objects(task: SampleTask, name: str, keep: int = 0) -> None:
    """Leave only the first pictures of a list with objects."""
    lines = (task.input / f"{name}-index.tsv").read_text(encoding="utf-8").splitlines()[keep:]
    for picture, annotation in (map(Path, line.split("\t")) for line in lines):
        if annotation.suffix == ".txt":
            annotation.write_text("")
            continue
        content = json.loads(annotation.read_text())
        (key,) = (image["id"] for image in content["images"] if image["file_name"] == picture.name)
        content["annotations"] = [row for row in content["annotations"] if row["image_id"] != key]
        annotation.write_text(json.dumps(content))


def test_pictures_without_objects(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """They are pictures as any others; only where none of the training set has objects, nothing can be learnt."""
    task = write_sample_task(tmp_path, order(TRAINING))
    for name in ("train", "val"):
        remove_objects(task, name, keep=1)
    accepted(task)
    remove_objects(task, "train")
    told = failed(task, capfd)
    assert told.code == "300002" and "train-index.tsv: the train split has no objects" in told.message


@pytest.mark.parametrize(("kind", "values"), [(2, {}), (3, {"ignore_black_area": True}), (4, {})])
def test_a_validation_set_without_objects(
    tmp_path: Path, kind: int, values: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    """Nothing can be measured, which is said; the model is trained all the same."""
    task = write_sample_task(tmp_path, order(TRAINING, kind=kind, **values))
    remove_objects(task, "val")
    result = yaml.safe_load((accepted(task) / "models" / "result.yaml").read_text())
    assert result[{2: "mAP", 3: "mIoU", 4: "maskAP"}[kind]] == 0.0
    assert "nothing is measured" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("tasks", "name"), [(TRAINING, "train"), (TRAINING, "val"), (INFER, "candidate"), (("mining",), "candidate")]
)
def test_an_empty_list(
    tmp_path: Path, weights: Path, tasks: tuple[str, ...], name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    task = write_sample_task(tmp_path, order(tasks, [weights]))
    (task.input / f"{name}-index.tsv").write_text("")
    told = failed(task, capfd)
    assert told.code == "300002" and f"{name}-index.tsv" in told.message


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:300])


@pytest.mark.parametrize(
    ("spoil", "column", "code"),
    [(damage, 0, "300003"), (Path.unlink, 0, "300002"), (Path.unlink, 1, "300002")],
    ids=["damaged picture", "missing picture", "missing annotation"],
)
def test_a_file_of_a_training_set_that_cannot_be_read(
    tmp_path: Path, spoil: Callable[[Path], None], column: int, code: str, capfd: pytest.CaptureFixture[str]
) -> None:
    task = write_sample_task(tmp_path, order(TRAINING))
    line = (task.input / "train-index.tsv").read_text(encoding="utf-8").splitlines()[1]
    spoil(Path(line.split("\t")[column]))
    told = failed(task, capfd)
    assert told.code == code and Path(line.split("\t")[column]).name in told.message


@pytest.mark.parametrize("tasks", [TRAINING, INFER, ("mining",)], ids="-".join)
def test_missing_weights(tmp_path: Path, tasks: tuple[str, ...], weights: Path, capfd: Any) -> None:
    task = write_sample_task(tmp_path, order(tasks, [weights]))
    shutil.rmtree(task.input / "models" / "best")
    told = failed(task, capfd)
    assert told.code == "300004" and "model_params" in told.message
    assert f"{weights.name} (which is not there)" in told.message


def test_numbers_as_text(tmp_path: Path) -> None:
    """YAML 1.1 reads what JSON writes of small numbers as text, and all that a user adds is text."""
    task = write_sample_task(tmp_path, order(TRAINING, learning_rate=1e-05, val_interval="1", samples_per_gpu="3"))
    config = yaml.safe_load((task.input / "config.yaml").read_text(encoding="utf-8"))
    assert (config["learning_rate"], config["samples_per_gpu"]) == ("1e-05", "3")
    run_of = manifest(accepted(task))
    assert run_of["recipe"]["optimizer"]["lr"] == 1e-05 and run_of["settings"]["batch"] == 3


def test_what_the_web_page_drops_has_its_default(tmp_path: Path, weights: Path) -> None:
    task = write_sample_task(tmp_path, order(INFER, [weights], conf_threshold=0.0, iou_threshold=0.0))
    assert "conf_threshold" not in yaml.safe_load((task.input / "config.yaml").read_text(encoding="utf-8"))
    settings = manifest(accepted(task))["settings"]
    assert (settings["conf"], settings["iou"]) == (0.2, 0.65)


def test_an_emptied_box_has_its_default(tmp_path: Path, weights: Path) -> None:
    task = write_sample_task(tmp_path, order(INFER, [weights]))
    change_config(task, conf_threshold=None)
    assert manifest(accepted(task))["settings"]["conf"] == 0.2


def test_a_wrong_value_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    task = write_sample_task(tmp_path, order(TRAINING, max_epochs="many"))
    told = failed(task, capfd)
    assert told.code == "300001" and "max_epochs" in told.message and "many" in told.message


def test_an_unknown_key_is_named_with_the_nearest(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    task = write_sample_task(tmp_path, order(TRAINING, max_epoch="3"))
    told = failed(task, capfd)
    assert told.code == "300001" and "max_epoch:" in told.message and "max_epochs" in told.message


def test_the_oldest_protocol(tmp_path: Path, weights: Path) -> None:
    """No version in env.yaml: one model without folders, and boxes are called annotations."""
    task = write_sample_task(tmp_path / "training", replace(order(TRAINING, [weights]), protocol=None))
    result = yaml.safe_load((accepted(task) / "models" / "result.yaml").read_text())
    assert set(result) == {"model", "map"} and all("/" not in name for name in result["model"])
    task = write_sample_task(tmp_path / "infer", replace(order(INFER, [weights]), protocol=None))
    images = json.loads((accepted(task) / "infer-result.json").read_text())["detection"]
    assert all(set(image) == {"annotations"} for image in images.values())


def test_links_in_the_input_and_pictures_of_others(tmp_path: Path, weights: Path) -> None:
    """Assets, models and events may be links; the assets hold pictures of other tasks, and damaged ones."""
    task = write_sample_task(tmp_path, order(("mining", "infer"), [weights]))
    shutil.move(task.input / "models", tmp_path / "models")
    (task.input / "models").symlink_to(tmp_path / "models")
    assert (task.input / "assets").is_symlink()
    out = accepted(task)
    assert len((out / "result.tsv").read_text().splitlines()) == 6


def test_nothing_is_written_to_the_input(tmp_path: Path, weights: Path) -> None:
    def state(task: SampleTask) -> dict[str, int]:
        roots = [task.input, *task.links[:1]]
        return {str(path): path.stat().st_mtime_ns for root in roots for path in [root, *root.rglob("*")]}

    for name, wanted in {"training": order(TRAINING, [weights]), "infer": order(INFER, [weights])}.items():
        task = write_sample_task(tmp_path / name, wanted)
        before = state(task)
        accepted(task)
        assert state(task) == before


def test_a_picture_that_exif_turns(tmp_path: Path, pixel_weights: Path) -> None:
    """The platform does not turn it: masks have the size of the stored picture, and boxes lie in it."""
    task = write_sample_task(tmp_path, replace(order(INFER, [pixel_weights], kind=3), pictures=2))
    picture = Path((task.input / "candidate-index.tsv").read_text(encoding="utf-8").splitlines()[0])
    picture.write_bytes(turned_by_exif(picture.read_bytes()))
    assert imaging.image_size(picture) == (120, 160)
    content = json.loads((accepted(task) / "infer-result.json").read_text())
    sizes = {image["file_name"]: (image["width"], image["height"]) for image in content["images"]}
    assert sizes[picture.name] == (160, 120)
    masks = [row["segmentation"]["size"] for row in content["annotations"]]
    assert masks and np.unique(masks, axis=0).tolist() == [[120, 160]]


def test_masks_where_a_picture_cannot_be_read(tmp_path: Path, pixel_weights: Path) -> None:
    """Its size is not known; it is among the images, and nothing is found in it."""
    task = write_sample_task(tmp_path, order(INFER, [pixel_weights], kind=3))
    picture = Path((task.input / "candidate-index.tsv").read_text(encoding="utf-8").splitlines()[0])
    picture.write_bytes(b"no picture")
    content = json.loads((accepted(task) / "infer-result.json").read_text())
    (image,) = (image for image in content["images"] if image["file_name"] == picture.name)
    assert image["width"] == 0 and image["id"] not in {row["image_id"] for row in content["annotations"]}


def test_results_that_cannot_be_written(tmp_path: Path, weights: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Nobody is told but by the exit status and the last line."""
    task = write_sample_task(tmp_path, order(INFER, [weights]))
    shutil.rmtree(task.output)
    task.output.write_text("a file where the folder should be")
    assert run(task) != 0
    last = capfd.readouterr().err.rstrip("\n").splitlines()[-1]
    assert last.startswith("error 160004: ") and str(task.output) in last
