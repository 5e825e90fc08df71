"""Each thing that the platform rejects is found, by file and key; what it accepts is not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner
from ymir_files import (
    RUN_LENGTHS,
    boxes_result,
    masks_result,
    monitor_line,
    training_result,
    turned_by_exif,
    write_out,
)

from ymir_tmi import imaging
from ymir_tmi.cli import app
from ymir_tmi.errors import ConfigError, DataError
from ymir_tmi.geometry.masks import Masks
from ymir_tmi.ymir.sample_task import TaskOrder, write_sample_task
from ymir_tmi.ymir.verify import Verification, verify, verify_or_try

Change = Callable[[Any], Any]


def keys(found: Verification) -> list[str]:
    return [problem.key for problem in found.findings.problems]


def stage(**values: Any) -> Change:
    """Change the first stage; None removes a key."""

    def change(content: dict[str, Any]) -> None:
        target = content["model_stages"]["epoch_1"]
        for key, value in values.items():
            if value is None:
                del target[key]
            else:
                target[key] = value

    return change


def top(**values: Any) -> Change:
    return lambda content: content.update(values)


TRAINING: list[tuple[Change, str]] = [
    (top(model_stages={}), "model_stages"),
    (top(model_stages=["epoch_1"]), "model_stages"),
    (top(best_stage_name="epoch_9"), "best_stage_name"),
    (stage(stage_name=None), "model_stages.epoch_1.stage_name"),
    (stage(stage_name="epoch_2"), "model_stages.epoch_1.stage_name"),
    (stage(timestamp=None), "model_stages.epoch_1.timestamp"),
    (stage(timestamp="now"), "model_stages.epoch_1.timestamp"),
    (stage(files=None), "model_stages.epoch_1.files"),
    (stage(files=[]), "model_stages.epoch_1.files"),
    (stage(files=["model.safetensors", "gone.pth"]), "model_stages.epoch_1.files"),
    # COCO's -1 without ground truth, percentages, NaN, text, numpy's true
    (stage(mAP=-1.0), "model_stages.epoch_1.mAP"),
    (stage(mAP=38.5), "model_stages.epoch_1.mAP"),
    (stage(mAP=float("nan")), "model_stages.epoch_1.mAP"),
    (stage(mAP="0.5"), "model_stages.epoch_1.mAP"),
    (stage(mAP=True), "model_stages.epoch_1.mAP"),
    (stage(tp=1.5), "model_stages.epoch_1.tp"),
    (stage(fn=-1), "model_stages.epoch_1.fn"),
    (top(evaluate_config={"iou_thr": "0.5:0.95:0.05"}), "evaluate_config.iou_thr"),
    (top(attachments={"report": ["gone.html"]}), "attachments.report"),
    (top(model=["model.safetensors"], map=0.5), "model"),  # the stages are ignored, and this file is not there
]


@pytest.mark.parametrize(("change", "key"), TRAINING)
def test_wrong_result_of_training_is_found(tmp_path: Path, change: Change, key: str) -> None:
    content = training_result()
    change(content)
    write_out(tmp_path, training=content)
    found = verify(tmp_path)
    assert key in keys(found), found.to_text()
    assert str(tmp_path / "models" / "result.yaml") in found.to_text()


def test_right_results_are_accepted(tmp_path: Path) -> None:
    write_out(
        tmp_path, training=training_result(), mining="/in/a b.jpg\t2.5\n/in/é.jpg\t-1e-05\n", infer=boxes_result()
    )
    found = verify(tmp_path)
    assert found.ok, found.to_text()
    assert "2 stages, best epoch_2" in found.to_text() and "2 images" in found.to_text()
    assert "1 boxes in 2 images" in found.to_text()
    assert found.to_dict()["ok"]


def test_more_stages_than_the_platform_keeps(tmp_path: Path) -> None:
    write_out(tmp_path, training=training_result(range(1, 13)))
    assert keys(verify(tmp_path)) == ["model_stages"]


def test_stage_is_no_link_and_shares_no_file(tmp_path: Path) -> None:
    write_out(tmp_path, training=training_result())
    first, second = (tmp_path / "models" / name / "model.safetensors" for name in ("epoch_1", "epoch_2"))
    first.unlink()
    first.symlink_to(second)
    assert "is a link" in verify(tmp_path).to_text()
    second.rename(tmp_path / "models" / "model.safetensors")
    first.unlink()
    assert "epoch_1, epoch_2 share one file" in verify(tmp_path).to_text()


def test_numbers_of_numpy_are_found(tmp_path: Path) -> None:
    write_out(tmp_path, training=training_result())
    text = yaml.dump({"mAP": np.float64(0.5)})  # which safe loading refuses
    (tmp_path / "models" / "result.yaml").write_text(text)
    assert "it is not plain YAML" in verify(tmp_path).to_text()


def test_old_form_of_training(tmp_path: Path) -> None:
    content = {"model": ["model.safetensors"], "map": 0.25}
    write_out(tmp_path, training=content)
    assert keys(verify(tmp_path)) == ["model"]
    (tmp_path / "models" / "model.safetensors").write_bytes(b"weights")
    assert verify(tmp_path).ok
    write_out(tmp_path, training=content | {"map": 25.0})
    assert keys(verify(tmp_path)) == ["map"]


def test_training_without_events_is_found(tmp_path: Path) -> None:
    write_out(tmp_path, training=training_result())
    next((tmp_path / "tensorboard").iterdir()).unlink()
    assert "no event file" in verify(tmp_path).to_text()


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("/in/a.jpg\t0.5\n/in/b.jpg\t0.9\n", "line 2"),  # rising
        ("/in/a.jpg\t0.5\n/in/b.jpg\tnan\n", "line 2"),
        ("/in/a.jpg\thigh\n", "line 1"),
        ("/in/a.jpg 0.5\n", "line 1"),  # no TAB
        ("/in/a.jpg\t0.5\n/in/a.jpg\t0.5\n", "/in/a.jpg"),
        ("\n", ""),
    ],
)
def test_wrong_ranking_is_found(tmp_path: Path, text: str, key: str) -> None:
    write_out(tmp_path, mining=text)
    assert keys(verify(tmp_path)) == [key]


def box(**values: Any) -> Change:
    return lambda content: content["detection"]["a b.jpg"]["boxes"][0]["box"].update(values)


def entry(**values: Any) -> Change:
    return lambda content: content["detection"]["a b.jpg"]["boxes"][0].update(values)


def image(value: Any, name: str = "a b.jpg") -> Change:
    return lambda content: content["detection"].update({name: value})


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (lambda content: content.update(detection=[]), "detection"),
        (image([]), "detection.a b.jpg"),
        (image({"boxes": {"0": 1}}), "detection.a b.jpg"),
        (image({}, "assets/c.jpg"), "detection.assets/c.jpg"),
        (box(x=30.5), "detection.a b.jpg.boxes[0].box.x"),
        (box(w="30"), "detection.a b.jpg.boxes[0].box.w"),
        (box(x=1 << 31), "detection.a b.jpg.boxes[0].box.x"),
        (box(h=0), "detection.a b.jpg.boxes[0].box"),
        (box(angle=0.5), "detection.a b.jpg.boxes[0].box.angle"),
        (box(rotate_angle="0.5"), "detection.a b.jpg.boxes[0].box.rotate_angle"),
        (entry(score=None), "detection.a b.jpg.boxes[0].score"),
        (entry(class_name=1), "detection.a b.jpg.boxes[0].class_name"),
    ],
)
def test_wrong_box_is_found(tmp_path: Path, change: Change, key: str) -> None:
    content = boxes_result()
    change(content)
    write_out(tmp_path, infer=content)
    assert keys(verify(tmp_path)) == [key]


@pytest.mark.parametrize(
    "change", [box(x=30.0), box(rotate_angle=0.3), box(rotateAngle=-9.0), image({}), image({"annotations": []})]
)
def test_what_the_platform_takes_of_boxes_is_accepted(tmp_path: Path, change: Change) -> None:
    content = boxes_result()
    change(content)
    write_out(tmp_path, infer=content)
    assert verify(tmp_path).ok


def test_nan_is_no_json(tmp_path: Path) -> None:
    content = boxes_result()
    entry(score=float("nan"))(content)
    write_out(tmp_path, infer=content)
    assert "NaN" in verify(tmp_path).to_text()


def annotation(**values: Any) -> Change:
    return lambda content: content["annotations"][0].update(values)


def without(name: str) -> Change:
    return lambda content: content["annotations"][0].pop(name)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (lambda content: content.pop("categories"), "categories"),
        (lambda content: content["images"][0].update(file_name="aa/1.jpg"), "images.aa/1.jpg"),
        (lambda content: content["images"].append(dict(content["images"][0], file_name="2.jpg")), "images"),
        (annotation(image_id=7), "annotations.1"),
        (annotation(category_id=7), "annotations.1"),
        (annotation(bbox=[0, 0, 0.9, 2]), "annotations.1.bbox"),
        (annotation(bbox=[0, 0, 2]), "annotations.1.bbox"),
        (without("area"), "annotations.1.area"),
        (annotation(iscrowd=2), "annotations.1.iscrowd"),
        (annotation(confidence="high"), "annotations.1.confidence"),
        (annotation(segmentation=[]), "annotations.1.segmentation"),
        (annotation(segmentation=[[0, 0, 1, 1, 2, 0], [0, 0, 1, 1, 2, 0]]), "annotations.1.segmentation"),
        (annotation(segmentation={"size": [2, 3], "counts": [6]}), "annotations.1.segmentation"),
        (annotation(segmentation={"size": [3, 2], "counts": RUN_LENGTHS}), "annotations.1.segmentation"),  # turned
        (annotation(segmentation={"size": [2, 3], "counts": "1"}), "annotations.1.segmentation"),  # too short
    ],
)
def test_wrong_mask_is_found(tmp_path: Path, change: Change, key: str) -> None:
    content = masks_result()
    change(content)
    write_out(tmp_path, infer=content)
    assert key in keys(verify(tmp_path)), verify(tmp_path).to_text()


def test_same_box_twice_is_found(tmp_path: Path) -> None:
    content = masks_result()
    content["annotations"].append(dict(content["annotations"][0], id=2))
    write_out(tmp_path, infer=content)
    assert keys(verify(tmp_path)) == ["images.1"]
    write_out(tmp_path, infer=masks_result())
    assert verify(tmp_path).ok


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("task\t1.5\t1.0\n", "line 1"),
        ("task 1.5 1.0 2\n", "line 1"),  # no TAB
        ("task\tnow\t1.0\t2\n", "time"),
        ("task\t1.5\t100\t2\n", "percent"),
        ("task\t1.5\t0.99\t2\n", "state"),  # it has not come to its end
        ("task\t1.5\t1.0\t7\n", "state"),
        ("task\t1.5\t1.0\t2.5\n", "state"),
        ("task\t1.5\t1.0\t4\t300002\tno images\n", "state"),
        ("task\t1.5\t1.0\t2\tnone\n", "return code"),
        ("task\t1.5\t1.0\t2\n" + "more\n" * 100, ""),
    ],
)
def test_wrong_monitor_is_found(tmp_path: Path, line: str, key: str) -> None:
    write_out(tmp_path, mining="/in/a.jpg\t0.5\n", monitor=line)
    assert key in keys(verify(tmp_path))


def test_results_are_compared_with_the_task(tmp_path: Path) -> None:
    task = write_sample_task(tmp_path, TaskOrder(("mining", "infer"), pictures=3))
    paths = (task.input / "candidate-index.tsv").read_text().splitlines()
    names = [Path(path).name for path in paths]
    monitor = monitor_line(yaml.safe_load(task.env_file.read_text())["task_id"])
    found = {"box": {"x": 100, "y": 0, "w": 60, "h": 120}, "class_name": "Circle", "score": 0.5}
    detection = {name: {"boxes": [found]} for name in names}
    ranking = "".join(f"{path}\t1.0\n" for path in paths)
    write_out(task.output, mining=ranking, infer={"detection": detection}, monitor=monitor)
    assert verify(task.output, task.input).ok

    found["class_name"] = "dog"
    detection[names[0]] = {"boxes": [found | {"box": {"x": 101, "y": 0, "w": 60, "h": 120}}]}
    del detection[names[1]]
    ranking = ranking.replace(paths[2], "/elsewhere/c.jpg")
    write_out(task.output, mining=ranking, infer={"detection": detection}, monitor=monitor_line("other"))
    text = verify(task.output, task.input).to_text()
    for part in (
        f"{paths[2]}: this candidate is missing",
        "/elsewhere/c.jpg: this path is not in the list",
        f"the candidate '{names[1]}' is missing",
        "reaches out of 160 x 120 pixels",
        "'dog' is none of the classes",
        "task: 'other' is not",
    ):
        assert part in text


def test_masks_have_the_size_of_the_stored_picture(tmp_path: Path) -> None:
    # Stored as 3 x 2 pixels with an EXIF orientation that turns it; the platform does not turn it.
    task = write_sample_task(tmp_path, TaskOrder(("infer",), object_type=3, pictures=2))
    picture = task.input / "assets" / "1.jpg"
    picture.write_bytes(turned_by_exif(imaging.encode_image(np.zeros((2, 3, 3), np.uint8), ".jpg")))
    assert imaging.read_image(picture).shape == (3, 2, 3)
    (task.input / "candidate-index.tsv").write_text(f"{picture}\n")
    content = masks_result()
    monitor = monitor_line(yaml.safe_load(task.env_file.read_text())["task_id"])
    write_out(task.output, infer=content, monitor=monitor)
    assert verify(task.output, task.input).ok
    content["images"][0] |= {"width": 2, "height": 3}
    write_out(task.output, infer=content, monitor=monitor)
    assert "those of the picture (3, 2)" in verify(task.output, task.input).to_text()


def test_label_map_has_one_class_a_pixel(tmp_path: Path) -> None:
    task = write_sample_task(tmp_path, TaskOrder(("infer",), object_type=3, pictures=1))
    (name,) = [Path(line).name for line in (task.input / "candidate-index.tsv").read_text().splitlines()]
    layers = np.zeros((2, 120, 160), np.bool_)
    layers[0, :60], layers[1, 60:] = True, True
    monitor = monitor_line(yaml.safe_load(task.env_file.read_text())["task_id"])

    def check() -> Verification:
        content = masks_result()
        content["images"][0] |= {"file_name": name, "width": 160, "height": 120}
        content["categories"] = [{"id": 0, "name": "circle"}, {"id": 1, "name": "square"}]
        content["annotations"] = [
            dict(
                content["annotations"][0],
                id=label,
                category_id=label,
                bbox=[0, 60 * label, 160, 60],
                segmentation={"size": [120, 160], "counts": counts.decode()},
            )
            for label, counts in enumerate(Masks.encode(layers).counts)
        ]
        write_out(task.output, infer=content, monitor=monitor)
        return verify(task.output, task.input)

    assert check().ok
    layers[0, 60] = True
    assert "masks of two classes overlap" in check().to_text()


@pytest.mark.parametrize(
    ("manifest", "files", "what"),
    [
        ({"object_type": "2"}, ["training-template.yaml"], "object_type: '2' is neither"),
        ({"object_type": [2, 1]}, ["det/infer-template.yaml"], "object_type: 1 is none of"),
        ({"object_type": [2, 3]}, ["det/infer-template.yaml"], "semantic-seg: there is none of"),
        ({"object_type": 2, "is_official": "yes"}, ["infer-template.yaml"], "is_official"),
        ({"object_type": 2}, [], "there is none of"),
    ],
)
def test_wrong_image_folder_is_found(tmp_path: Path, manifest: dict[str, Any], files: list[str], what: str) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("epochs: 3\n")
    (tmp_path / "manifest.yaml").write_text(yaml.safe_dump(manifest))
    assert what in verify(tmp_path).to_text()


def test_templates_are_flat_and_short(tmp_path: Path) -> None:
    (tmp_path / "infer-template.yaml").write_text(yaml.safe_dump({"conf": 0.5, "size": 640, "note": "n" * 100}))
    assert verify(tmp_path).ok  # without a manifest it is an image for boxes
    (tmp_path / "infer-template.yaml").write_text(yaml.safe_dump({"sizes": [1, 2], "note": "n" * 101, "k" * 51: 1}))
    assert sorted(keys(verify(tmp_path))) == ["k" * 51, "note", "sizes"]


def test_nothing_to_check_is_said(tmp_path: Path) -> None:
    assert "no result of any task" in verify(tmp_path).to_text()
    with pytest.raises(DataError, match="not a folder"):
        verify(tmp_path / "gone")
    with pytest.raises(ConfigError, match=r"env\.yaml"):
        verify(tmp_path, tmp_path)
    for wrong in ((None, None, None), (tmp_path, None, "mmdet")):
        with pytest.raises(ConfigError, match="either a folder"):
            verify_or_try(*wrong)


def test_findings_are_json(tmp_path: Path) -> None:
    content = json.loads(json.dumps(verify(tmp_path).to_dict()))
    assert not content["ok"] and content["problems"][0]["what"]


def test_command_line_prints_problems_and_exits_with_1(tmp_path: Path) -> None:
    write_out(tmp_path, mining="/in/a.jpg\t0.5\n/in/b.jpg\t0.9\n")
    done = CliRunner().invoke(app, ["ymir", "verify", str(tmp_path)])
    assert done.exit_code == 1
    (line,) = done.stdout.splitlines()
    assert line == f"{tmp_path / 'result.tsv'}: line 2: its score is higher than that of the line before"
    write_out(tmp_path, mining="/in/b.jpg\t0.9\n/in/a.jpg\t0.5\n")
    done = CliRunner().invoke(app, ["ymir", "verify", str(tmp_path), "--json"])
    assert done.exit_code == 0 and json.loads(done.stdout)["ok"]
