"""`tile`: patches on disk show what the large pictures show, with the objects that belong there."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from ymir_tmi.cli import app
from ymir_tmi.data.formats.coco import write_coco
from ymir_tmi.data.index import DIFFICULT, DatasetIndex, Strings
from ymir_tmi.data.patches import cut_data_set
from ymir_tmi.data.read import read_dataset
from ymir_tmi.data.tiles import Tiling, objects_in
from ymir_tmi.errors import DataError, ImageError
from ymir_tmi.imaging import read_image, write_image

SIZES = ((150, 90), (40, 30), (64, 64))


def large_data_set(folder: Path) -> DatasetIndex:
    """Three pictures of noise, in two folders, with boxes in all but the last."""
    rng = np.random.default_rng(5)
    paths = [str(folder / name) for name in ("a/one.png", "b/one.png", "b/two.png")]
    for path, (width, height) in zip(paths, SIZES, strict=True):
        write_image(path, rng.integers(0, 256, (height, width, 3), np.uint8))
    boxes = np.array([[5, 5, 25, 20], [55, 40, 85, 60], [100, 70, 150, 90], [10, 10, 30, 20]], np.float32)
    return DatasetIndex(
        class_names=("car", "ship"),
        paths=Strings.pack(paths),
        sizes=np.array(SIZES, np.int32),
        image_ids=np.array([3, 5, 9]),
        starts=np.array([0, 3, 4, 4]),
        boxes=boxes,
        labels=np.array([0, 1, 1, 0], np.int32),
        areas=(boxes[:, 2:] - boxes[:, :2]).prod(1),
        flags=np.array([0, 0, 0, 0], np.uint8),
        category_ids=(4, 8),
    )


def cut(index: DatasetIndex, output: Path, *rates: float, **options: bool | int) -> DatasetIndex:
    tilings = [Tiling(64, 16).at_rate(rate) for rate in rates or (1.0,)]
    cut_data_set({"train": index}, tilings, output=output, quiet=True, **options)  # type: ignore[arg-type]
    return read_dataset([str(output / "train.json")])


def names_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))


def test_patches_are_the_windows(tmp_path: Path) -> None:
    index = large_data_set(tmp_path / "large")
    patches = cut(index, tmp_path / "cut", pad=False)
    names = names_in(tmp_path / "cut" / "images" / "train")
    corners = [(x, y) for y in (0, 26) for x in (0, 48, 86)]
    assert names == sorted(
        [f"a/one__64__{x}___{y}.png" for x, y in corners] + ["b/one__64__0___0.png", "b/two__64__0___0.png"]
    )
    assert len(patches) == 8 and patches.class_names == ("car", "ship") and patches.category_ids == (4, 8)
    large = [read_image(index.paths[image]) for image in range(3)]
    for position in range(len(patches)):
        path = Path(patches.paths[position])
        image = ["a/one", "b/one", "b/two"].index(f"{path.parent.name}/{path.name.split('__')[0]}")
        x, y = (int(part) for part in path.stem.split("__64__")[1].split("___"))
        expected = large[image][y : y + 64, x : x + 64]
        np.testing.assert_array_equal(read_image(path), expected)
        assert patches.size(position) == expected.shape[1::-1]
        window = next(one for one in Tiling(64, 16).windows(*SIZES[image]) if (one.x, one.y) == (x, y))
        objects, rows = objects_in(index, image, window), patches.rows(position)
        np.testing.assert_allclose(patches.boxes[rows], objects.boxes, atol=1e-4)
        np.testing.assert_array_equal(patches.labels[rows], objects.labels)
        np.testing.assert_array_equal(patches.flags[rows], objects.flags)
        np.testing.assert_allclose(patches.areas[rows], objects.areas, rtol=1e-5)
    assert len(patches.boxes) > 4 and DIFFICULT in patches.flags


def test_small_pictures_are_filled_up(tmp_path: Path) -> None:
    index = large_data_set(tmp_path / "large")
    patches = cut(index, tmp_path / "cut")
    assert patches.sizes.tolist() == [[64, 64]] * 8
    shown = read_image(tmp_path / "cut/images/train/b/one__64__0___0.png")
    np.testing.assert_array_equal(shown[:30, :40], read_image(index.paths[1]))
    assert (shown[30:] == (124, 116, 104)).all() and (shown[:, 40:] == (124, 116, 104)).all()


def test_several_scales_lie_side_by_side(tmp_path: Path) -> None:
    patches = cut(large_data_set(tmp_path / "large"), tmp_path / "cut", 0.5, 1, 1, 1.5)
    sizes = [Path(patches.paths[position]).name.split("__")[1] for position in range(len(patches))]
    assert {size: sizes.count(size) for size in set(sizes)} == {"128": 4, "64": 8, "42": 15 + 1 + 4}


def test_patches_without_objects_can_be_left_out(tmp_path: Path) -> None:
    index = large_data_set(tmp_path / "large")
    patches = cut(index, tmp_path / "cut", keep_empty=False)
    counted = np.bincount(patches.image_of_box()[patches.flags == 0], minlength=len(patches))
    assert (counted > 0).all()
    assert "b/two__64__0___0.png" not in names_in(tmp_path / "cut/images/train")
    everything = cut(index, tmp_path / "all")
    assert len(patches.boxes[patches.flags == 0]) == len(everything.boxes[everything.flags == 0])


def test_jpeg_of_the_given_quality(tmp_path: Path) -> None:
    index = large_data_set(tmp_path / "large")
    sizes = []
    for quality in (95, 30):
        cut(index, tmp_path / str(quality), jpeg_quality=quality)
        file = tmp_path / str(quality) / "images/train/a/one__64__0___0.jpg"
        assert file.read_bytes().startswith(b"\xff\xd8")
        sizes.append(file.stat().st_size)
    assert sizes[0] > 2 * sizes[1]


def test_rotated_boxes_become_polygons(tmp_path: Path) -> None:
    index = large_data_set(tmp_path / "large")
    rotated = np.array([[15, 12, 20, 8, 0.5], [70, 50, 30, 10, -0.8], [125, 80, 40, 12, 0], [20, 15, 9, 6, 1.2]])
    index = dataclasses.replace(index, rotated=rotated.astype(np.float32))
    cut(index, tmp_path / "cut")
    content = json.loads((tmp_path / "cut/train.json").read_text())
    names = {image["id"]: image["file_name"] for image in content["images"]}
    assert content["annotations"]
    for annotation in content["annotations"]:
        name = names[annotation["image_id"]].removeprefix("train/")
        x, y = (int(part) for part in name.removesuffix(".png").split("__64__")[1].split("___"))
        points = np.array(annotation["segmentation"]).reshape(4, 2) + np.array([x, y])
        image = 0 if name.startswith("a") else 1
        candidates = rotated[:3] if image == 0 else rotated[3:]
        cx, cy, w, h, angle = candidates[np.abs(candidates[:, :2] - points.mean(0)).sum(1).argmin()]
        centred = points - (cx, cy)
        along = centred @ (np.cos(angle), np.sin(angle))
        across = centred @ (-np.sin(angle), np.cos(angle))
        np.testing.assert_allclose(np.abs(along), w / 2, atol=1e-3)
        np.testing.assert_allclose(np.abs(across), h / 2, atol=1e-3)


def test_polygons_are_cut_as_rotated_boxes_where_it_is_asked_for(tmp_path: Path) -> None:
    index = large_data_set(tmp_path / "large")
    diamond = "[[50,50,70,40,90,50,70,60]]"
    index = dataclasses.replace(index, segments=Strings.pack(["", diamond, "", ""]))
    cut(index, tmp_path / "upright")
    cut(index, tmp_path / "rotated", rotated=True)
    upright, rotated = (json.loads((tmp_path / name / "train.json").read_text()) for name in ("upright", "rotated"))
    kept = [annotation["segmentation"] for annotation in upright["annotations"] if "segmentation" in annotation]
    assert [[2, 50, 22, 40, 42, 50, 22, 60]] in kept  # in the window from x = 48
    assert [[50, 50, 64, 43, 64, 57]] in kept  # cut by the one from x = 0
    assert all(len(annotation["segmentation"][0]) == 8 for annotation in rotated["annotations"])
    sides = [np.diff(np.reshape(one["segmentation"], (4, 2)), axis=0)[:2] for one in rotated["annotations"]]
    assert sum(bool((abs(side) > 1).all()) for side in sides) > 0  # the diamond stands on its corner


def test_nothing_is_left_of_a_run_that_fails(tmp_path: Path) -> None:
    index = large_data_set(tmp_path / "large")
    Path(index.paths[1]).write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"one\.png"):
        cut(index, tmp_path / "cut")
    assert [path.name for path in tmp_path.iterdir()] == ["large"]


def test_an_output_that_exists_and_a_split_without_objects_are_refused(tmp_path: Path) -> None:
    index = large_data_set(tmp_path / "large")
    with pytest.raises(DataError, match="exists already"):
        cut(index, tmp_path / "large")
    with pytest.raises(DataError, match="no part of these pictures has an object"):
        cut(index.take([2]), tmp_path / "cut", keep_empty=False)
    assert [path.name for path in tmp_path.iterdir()] == ["large"]


def test_the_verb(tmp_path: Path) -> None:
    index = large_data_set(tmp_path / "large")
    write_coco(index, tmp_path / "large/val.json")
    write_coco(index.take([0]), tmp_path / "large/train.json")
    (tmp_path / "large/data.yaml").write_text("train: train.json\nval: val.json\n")
    arguments = ["tile", str(tmp_path / "large/data.yaml"), "--output", str(tmp_path / "cut"), "--rates", "1,2"]
    done = CliRunner().invoke(app, [*arguments, "--size", "64", "--overlap", "16", "--classes", "ship", "--json"])
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert result["class_names"] == ["ship"]
    for split in ("train", "val"):
        patches = read_dataset([str(tmp_path / "cut/data.yaml")], split=split)
        assert result["splits"][split] == {"images": len(patches), "objects": len(patches.boxes)}
        assert (patches.labels == 0).all() and len(patches.boxes)
