"""Objects with masks in every format that has them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest
from data_folders import HEIGHT, WIDTH, coco, objects, write_coco_file, write_picture, write_text
from faster_coco_eval import mask as coco_mask

from ymir_tmi.data.convert import convert
from ymir_tmi.data.index import CROWD, DatasetIndex
from ymir_tmi.data.instances import as_instances
from ymir_tmi.data.read import read_dataset
from ymir_tmi.data.segments import image_outlines
from ymir_tmi.errors import DataError, ImageError
from ymir_tmi.imaging import read_numbers

Bitmap = npt.NDArray[np.bool_]


def block(left: int, top: int, right: int, bottom: int) -> Bitmap:
    bitmap = np.zeros((HEIGHT, WIDTH), bool)
    bitmap[top:bottom, left:right] = True
    return bitmap


FRAME = block(5, 5, 25, 25) & ~block(10, 10, 15, 15)
APART = block(30, 2, 36, 9) | block(40, 20, 55, 33)
LONE = block(50, 5, 51, 6)


def bitmaps(index: DatasetIndex, image: int = 0) -> list[Bitmap]:
    outlines = image_outlines(index, image)
    return [outlines.take([row]).bitmap(WIDTH, HEIGHT) for row in range(len(outlines))]


def compressed(bitmap: Bitmap) -> dict[str, Any]:
    entry = coco_mask.encode(np.asfortranarray(bitmap.astype(np.uint8)))
    return {"size": list(bitmap.shape), "counts": entry["counts"].decode()}


def write_values(path: Path, values: npt.NDArray[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(values).save(path)
    return path


# ----------------------------------------------------------------------------------------------------------- YOLO-seg


def test_masks_come_back_from_yolo(tmp_path: Path) -> None:
    boxed = [50, 30, 5, 5]
    annotations = [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [5, 5, 20, 20], "segmentation": compressed(FRAME)},
        {"id": 2, "image_id": 1, "category_id": 2, "bbox": [30, 2, 25, 31], "segmentation": compressed(APART)},
        {"id": 3, "image_id": 1, "category_id": 1, "bbox": [50, 5, 1, 1], "segmentation": compressed(LONE)},
        {"id": 4, "image_id": 1, "category_id": 1, "bbox": boxed},
        {
            "id": 5,
            "image_id": 1,
            "category_id": 1,
            "bbox": [0, 0, 9, 9],
            "segmentation": compressed(LONE),
            "iscrowd": 1,
        },
    ]
    picture = {"id": 1, "file_name": "a.png", "width": WIDTH, "height": HEIGHT}
    file = write_coco_file(tmp_path, coco([picture], annotations, ["cat", "dog"]))
    with pytest.warns(UserWarning, match="1 of 5 objects have no mask"):
        convert([str(file)], to="yolo-seg", output=tmp_path / "yolo")
    index = as_instances(read_dataset([str(tmp_path / "yolo" / "data.yaml")]))
    assert index.labels.tolist() == [0, 1, 0, 0]
    for bitmap, expected in zip(bitmaps(index), [FRAME, APART, LONE, block(50, 30, 55, 35)], strict=True):
        np.testing.assert_array_equal(bitmap, expected)


def test_polygons_of_four_corners_are_boxes_and_outlines(tmp_path: Path) -> None:
    write_picture(tmp_path / "images" / "a.png")
    write_text(tmp_path / "labels" / "a.txt", "0 0.1 0.1 0.5 0.2 0.6 0.9 0.2 0.5\n")  # no rectangle
    index = read_dataset([str(tmp_path)])
    assert index.rotated is not None
    outlines = image_outlines(as_instances(index), 0)
    points = np.array([[0.1, 0.1], [0.5, 0.2], [0.6, 0.9], [0.2, 0.5]]) * [WIDTH, HEIGHT]
    assert outlines.rings(0) == [[pytest.approx(points.ravel().tolist(), abs=1e-3)]]


# --------------------------------------------------------------------------------------------------------------- YMIR


def ymir_folder(folder: Path, categories: list[dict[str, Any]], annotations: list[dict[str, Any]]) -> tuple[Path, Path]:
    """Write the pictures a, b and c, one COCO file, and lists of which the first has c and a, the second b."""
    paths = {name: write_picture(folder / "assets" / f"{name}{name}" / f"{name}.png") for name in "abc"}
    images = [
        {"id": number, "file_name": f"{name}.png", "width": WIDTH, "height": HEIGHT}
        for number, name in enumerate("abc", 1)
    ]
    content = {"images": images, "categories": categories, "annotations": annotations, "licenses": []}
    file = write_text(folder / "annotations" / "coco-annotations.json", json.dumps(content))
    train, val = (
        write_text(folder / f"{split}-index.tsv", "".join(f"{paths[name]}\t{file}\n" for name in names))
        for split, names in (("train", "ca"), ("val", "b"))
    )
    return train, val


def ymir_object(image: int, category: int, **changed: Any) -> dict[str, Any]:
    plain = {"bbox": [5, 5, 20, 20], "area": 375, "iscrowd": 0, "confidence": 1.0, "segmentation": {}}
    return {"id": 1, "image_id": image, "category_id": category} | plain | changed


def test_ymir_puts_the_masks_of_all_lists_into_one_file(tmp_path: Path) -> None:
    categories = [{"id": 2, "name": "circle"}, {"id": 0, "name": "triangle"}]
    train, val = ymir_folder(
        tmp_path,
        categories,
        [
            ymir_object(1, 2, segmentation=compressed(FRAME), iscrowd=1),
            ymir_object(3, 0, segmentation=[[5, 5, 25, 5, 25, 25]], area=0),
            ymir_object(1, 0),
            ymir_object(2, 2, segmentation=[[5, 5, 25, 5, 25, 25]], iscrowd=1, area=7),
        ],
    )
    names = ["triangle", "square", "circle"]
    index = read_dataset([str(train)], class_names=names)
    assert [Path(index.paths[image]).name for image in range(2)] == ["c.png", "a.png"]
    assert index.class_names == tuple(names)
    assert index.labels.tolist() == [0, 2, 0]
    assert index.flags.tolist() == [0, 0, 0]
    assert index.areas.tolist() == [400, 375, 375]
    assert index.segments is not None and index.segments[2] == ""
    np.testing.assert_array_equal(bitmaps(index, 1)[0], FRAME)

    index = read_dataset([str(val)], class_names=names)
    assert Path(index.paths[0]).name == "b.png" and index.labels.tolist() == [2]
    assert index.flags.tolist() == [CROWD]  # of polygons that is what it says
    assert read_dataset([str(val)]).class_names == ("circle", "triangle")


def test_classes_of_ymir_that_are_called_otherwise_are_known_by_their_place(tmp_path: Path) -> None:
    train, _ = ymir_folder(tmp_path, [{"id": 1, "name": "kitten"}], [ymir_object(1, 1)])
    assert read_dataset([str(train)], class_names=["dog", "cat"]).labels.tolist() == [1]
    with pytest.raises(DataError, match="kitten"):
        read_dataset([str(train)], class_names=["dog"])


def test_pictures_that_the_file_of_ymir_lacks_are_named(tmp_path: Path) -> None:
    train, _ = ymir_folder(tmp_path, [], [])
    write_picture(tmp_path / "assets" / "dd" / "d.png")
    text = train.read_text()
    write_text(train, text + text.splitlines()[0].replace("cc/c.png", "dd/d.png"))
    with pytest.raises(DataError, match=r"coco-annotations.json: the image d.png is not in 'images'"):
        read_dataset([str(train)])


# ------------------------------------------------------------------------------------------------------------- folders


def test_a_picture_for_each_object(tmp_path: Path) -> None:
    for name in ("x/a", "x/b", "c"):
        write_picture(tmp_path / "images" / f"{name}.jpg")
    for number, bitmap in enumerate([FRAME, APART]):
        write_values(tmp_path / "masks" / "x" / "a" / f"{number}.png", bitmap.astype(np.uint8) * 255)
    write_values(tmp_path / "masks" / "x" / "b" / "0.png", np.repeat(LONE.astype(np.uint8)[..., None], 3, axis=2))
    index = read_dataset([str(tmp_path)])
    assert [Path(index.paths[image]).name for image in range(3)] == ["c.jpg", "a.jpg", "b.jpg"]
    assert np.diff(index.starts).tolist() == [0, 2, 1]
    assert index.class_names == ("object",)
    assert index.boxes.tolist() == [[5, 5, 25, 25], [30, 2, 55, 33], [50, 5, 51, 6]]
    assert index.areas.tolist() == [FRAME.sum(), APART.sum(), 1]
    for bitmap, expected in zip([*bitmaps(index, 1), *bitmaps(index, 2)], [FRAME, APART, LONE], strict=True):
        np.testing.assert_array_equal(bitmap, expected)
    assert read_dataset([str(tmp_path)], class_names=["cell"]).class_names == ("cell",)
    assert not len(read_dataset([str(tmp_path)], format="images").boxes)


def test_folders_of_masks_that_are_asked_for_by_name_are_pictures(tmp_path: Path) -> None:
    write_picture(tmp_path / "images" / "a.png")
    write_values(tmp_path / "masks" / "a" / "0.png", FRAME)
    assert len(read_dataset([str(tmp_path / "masks")])) == 1
    write_values(tmp_path / "instances" / "b.png", FRAME)
    write_picture(tmp_path / "images" / "b.png")
    with pytest.raises(DataError, match="some pictures have a mask for each object, and others one for all"):
        read_dataset([str(tmp_path)])


def test_a_folder_for_each_class(tmp_path: Path) -> None:
    write_picture(tmp_path / "images" / "a.png")
    for name, bitmap in {"dog/1": FRAME, "cat/1": APART, "cat/2": LONE}.items():
        write_values(tmp_path / "masks" / "a" / f"{name}.png", bitmap)
    index = read_dataset([str(tmp_path)])
    assert [index.class_names[label] for label in index.labels] == ["cat", "cat", "dog"]
    np.testing.assert_array_equal(bitmaps(index)[2], FRAME)


def test_a_folder_for_each_picture(tmp_path: Path) -> None:
    for name, bitmap in {"a1": FRAME, "b2": APART}.items():
        write_picture(tmp_path / name / "images" / f"{name}.png")
        write_values(tmp_path / name / "masks" / f"{name[::-1]}.png", bitmap)
    index = read_dataset([str(tmp_path)])
    assert [Path(index.paths[image]).name for image in range(len(index))] == ["a1.png", "b2.png"]
    np.testing.assert_array_equal(bitmaps(index, 0)[0], FRAME)
    np.testing.assert_array_equal(bitmaps(index, 1)[0], APART)


@pytest.mark.parametrize("values", ["numbers", "palette", "16 bits"])
def test_one_picture_of_all_objects(tmp_path: Path, values: str) -> None:
    write_picture(tmp_path / "images" / "a.jpg")
    numbers = np.select([FRAME, APART, LONE], [3, 7, 250 if values != "16 bits" else 999]).astype(np.uint16)
    if values == "palette":
        image = PIL.Image.fromarray(numbers.astype(np.uint8), "L").convert("P")
        image.putdata(numbers.ravel().tolist())
        image.putpalette([99, 1, 1] * 256)
        (tmp_path / "instances").mkdir()
        image.save(tmp_path / "instances" / "a.png")
    else:
        write_values(tmp_path / "instances" / "a.png", numbers.astype(np.uint8 if values == "numbers" else np.uint16))
    index = read_dataset([str(tmp_path)])
    for bitmap, expected in zip(bitmaps(index), [FRAME, APART, LONE], strict=True):
        np.testing.assert_array_equal(bitmap, expected)
    assert index.boxes.tolist() == [[5, 5, 25, 25], [30, 2, 55, 33], [50, 5, 51, 6]]


def test_values_may_say_the_class(tmp_path: Path) -> None:
    write_picture(tmp_path / "images" / "a.jpg")
    numbers = np.select([FRAME, APART, LONE], [2001, 1, 1017]).astype(np.uint16)
    write_values(tmp_path / "instances" / "a.png", numbers)
    index = read_dataset([str(tmp_path)])
    assert [index.class_names[label] for label in index.labels] == ["1", "2"]
    np.testing.assert_array_equal(bitmaps(index)[0], LONE)
    named = read_dataset([str(tmp_path)], class_names=["cat", "dog", "hen"])
    assert [named.class_names[label] for label in named.labels] == ["dog", "hen"]
    with pytest.raises(DataError, match="class 2, but there are classes 0 to 1 only"):
        read_dataset([str(tmp_path)], class_names=["cat", "dog"])


def test_masks_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    write_picture(tmp_path / "images" / "a.png")
    good = write_values(tmp_path / "masks" / "a" / "1.png", FRAME)
    write_values(tmp_path / "masks" / "a" / "2.png", FRAME[:-1])
    with pytest.raises(DataError, match=r"2.png: this mask is 60 x 39 pixels, others of its picture 60 x 40"):
        read_dataset([str(tmp_path)])
    write_text(good.parent / "2.png", "no picture")
    with pytest.raises(DataError, match=r"2.png: cannot read this picture"):
        read_dataset([str(tmp_path)])


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_colours_are_no_numbers(tmp_path: Path, mode: str) -> None:
    path = write_values(tmp_path / "a.png", np.zeros((4, 5, len(mode)), np.uint8))
    assert read_numbers(path).tolist() == [[0] * 5] * 4
    colours = np.zeros((4, 5, len(mode)), np.uint8)
    colours[1, 2, 1] = 9
    with pytest.raises(ImageError, match="has colours where numbers are expected"):
        read_numbers(write_values(tmp_path / "b.png", colours))


def test_masks_of_a_folder_become_a_coco_file(tmp_path: Path) -> None:
    write_picture(tmp_path / "data" / "images" / "a.png")
    for name, bitmap in {"dog/1": FRAME, "cat/1": APART}.items():
        write_values(tmp_path / "data" / "masks" / "a" / f"{name}.png", bitmap)
    convert([str(tmp_path / "data")], to="coco", output=tmp_path / "coco")
    assert objects(read_dataset([str(tmp_path / "coco" / "data.json")])) == objects(
        read_dataset([str(tmp_path / "data")])
    )
