"""The pages: they hold all they need, say what the files say, and survive what is missing or hostile."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import fake_runs
import numpy as np
import pytest
import torch
from fake_runs import AWKWARD_CLASS, AWKWARD_NAME, Pool

from ymir_tmi import imaging
from ymir_tmi.data.rotated import as_rotated
from ymir_tmi.errors import RunError
from ymir_tmi.evaluation.detected import Detected, measure
from ymir_tmi.evaluation.results import CocoNumbers, DotaNumbers, EvaluationSettings, write_evaluation
from ymir_tmi.files.layout import RunLayout
from ymir_tmi.geometry.rotated import from_upright
from ymir_tmi.models.interface import Detections
from ymir_tmi.pool.predictions import write_predictions
from ymir_tmi.report.run import report

VERBS: dict[str, Callable[[Path, Pool], Any]] = {
    "train": fake_runs.write_train_run,
    "evaluate": fake_runs.write_evaluate_run,
    "infer": fake_runs.write_infer_run,
    "mine": fake_runs.write_mine_run,
}
VOID = {"meta", "img", "br", "wbr", "input", "link", "hr"}


class Page(HTMLParser):
    """A page as a browser reads it: elements with their attributes, tables, and the text outside of style sheets."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.source = path.read_text(encoding="utf-8")
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.style = ""
        self.rows: list[list[str]] = []
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            self.style += data
            return
        self.text += data
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data.strip()

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def row(self, first: str) -> list[str]:
        return next(row for row in self.rows if row and row[0] == first)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    return fake_runs.draw_pool(tmp_path_factory.mktemp("pool"))


@pytest.fixture(scope="module")
def pages(pool: Pool, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Any]]:
    """The page of every verb, and what the run's main file holds."""
    root = tmp_path_factory.mktemp("runs")
    made = {}
    for verb, write in VERBS.items():
        content = write(root / verb, pool)
        made[verb] = report(root / verb), content
    return made


@pytest.mark.parametrize("verb", VERBS)
def test_page_holds_all_it_needs(pages: dict[str, tuple[Path, Any]], verb: str) -> None:
    path, _ = pages[verb]
    page = Page(path)
    assert path.name == "report.html"
    assert not page.open
    assert not page.all("script") and not page.all("link") and not page.all("iframe") and not page.all("object")
    for tag, attributes in page.elements:
        for name, value in attributes.items():
            if name in ("src", "href", "srcset", "data", "action", "xlink:href"):
                assert value and value.startswith(("data:image/jpeg;base64,", "#")), (tag, name, (value or "")[:60])
            elif value:
                assert "//" not in value or name in ("alt", "title"), (tag, name, value)
                assert not re.search(r"url\((?!#)", value), (tag, name, value)
    assert "url(" not in page.style and "@import" not in page.style and "//" not in page.style
    assert not re.search(r"https?:", page.source)


@pytest.mark.parametrize("verb", VERBS)
def test_pictures_are_thumbnails_with_words(pages: dict[str, tuple[Path, Any]], verb: str) -> None:
    images = Page(pages[verb][0]).all("img")
    assert len(images) >= 6
    for image in images:
        data = base64.b64decode((image["src"] or "").split(",", 1)[1], validate=True)
        height, width = imaging.decode_image(data, where="page").shape[:2]
        assert (str(width), str(height)) == (image["width"], image["height"])
        assert max(width, height) <= 480
        assert image["alt"]


@pytest.mark.parametrize("verb", VERBS)
def test_charts_and_tables_are_accessible(pages: dict[str, tuple[Path, Any]], verb: str) -> None:
    page = Page(pages[verb][0])
    for drawing in page.all("svg"):
        assert drawing.get("aria-label") or drawing.get("aria-hidden") == "true"
    assert all(header.get("scope") in ("col", "row") for header in page.all("th"))
    assert page.all("html")[0]["lang"] == "en"
    assert len(page.all("h1")) == 1


@pytest.mark.parametrize("verb", VERBS)
def test_text_of_files_is_escaped(pages: dict[str, tuple[Path, Any]], verb: str) -> None:
    page = Page(pages[verb][0])
    assert not page.all("b") and "bold" not in dict(page.elements)
    if verb != "mine":  # no detection has the class, and only detections are named there
        assert AWKWARD_CLASS in page.text
    assert AWKWARD_NAME in page.text


def test_evaluation_shows_the_numbers_of_its_file(pages: dict[str, tuple[Path, Any]]) -> None:
    for verb in ("evaluate", "train"):
        path, result = pages[verb]
        page = Page(path)
        shown = {"AP": "AP", "AP50": "AP50", "AP75": "AP75", "AP_small": "AP small", "AR_1": "AR 1", "AR_max": "AR 100"}
        for field, name in shown.items():
            assert page.row(name)[-1] == f"{getattr(result.coco, field):.3f}"
        assert page.row("AP large")[-1] == "–"  # no object is that large
        for row in result.classes[:-1]:
            numbers = (row.AP, row.AP50, row.precision, row.recall, row.f1, row.threshold)
            assert page.row(row.name)[1:] == [str(row.objects), str(row.images), *(f"{value:.3f}" for value in numbers)]
        assert page.row(AWKWARD_CLASS)[3].startswith("no objects in the data")
        for text in ("at most 100 detections per image", "score above 0.001", "NMS at IoU 0.65"):
            assert text in page.text


def test_training_shows_its_course(pages: dict[str, tuple[Path, Any]]) -> None:
    page = Page(pages["train"][0])
    charts = [attributes["aria-label"] for attributes in page.all("svg") if attributes.get("role") == "img"]
    assert charts[:3] == ["Loss in training", "AP in validation", "Learning rate"]
    assert "4.9 million parameters" in page.text
    assert "1 h 12 min" in page.text
    assert "in epoch 30" in page.text
    for value in ("0123456789abcdef", "Apache-2.0", "torch", "optimizer.lr"):
        assert value in page.text


def test_measures_are_no_losses(pool: Pool, tmp_path: Path) -> None:
    fake_runs.write_train_run(tmp_path, pool, epochs=1)
    measures = [*CocoNumbers.model_fields, *DotaNumbers.model_fields, "precision", "recall", "f1"]
    names = ["epoch", "lr", "images_per_second", *measures, "loss_first", "loss_last"]
    RunLayout(tmp_path).history.write_text(f"{','.join(names)}\n{','.join(['1'] * len(names))}\n")
    page = Page(report(tmp_path))
    assert "loss_last" in page.text
    assert "11points" not in page.text and "AR_max" not in page.text


def test_confusion_counts_what_the_file_counts(pages: dict[str, tuple[Path, Any]]) -> None:
    path, result = pages["evaluate"]
    matrix = Page(path).rows
    header = next(row for row in matrix if row[0] == "Object" and row[-1] == "missed")
    start = matrix.index(header) + 1
    shown = [[int(cell) for cell in row[1:]] for row in matrix[start : start + len(result.confusion.matrix)]]
    assert shown == result.confusion.matrix


def test_outcomes_agree_with_the_counts_of_the_evaluation(pages: dict[str, tuple[Path, Any]]) -> None:
    path, result = pages["evaluate"]
    groups = [attributes["class"] for attributes in Page(path).all("g") if attributes.get("class")]
    shown = [*result.ranking[:6], *result.ranking[-6:]]  # 14 images: none is in both
    assert groups.count("found") == sum(image.true_positives for image in shown)
    assert groups.count("missed") == sum(image.missed for image in shown)
    assert groups.count("false") == sum(image.false_positives for image in shown)


def test_evaluation_in_which_nothing_was_found_says_so(pool: Pool, tmp_path: Path) -> None:
    nothing = tuple(Detections.empty(len(pool.class_names)) for _ in pool.found)
    fake_runs.write_evaluate_run(tmp_path, dataclasses.replace(pool, found=nothing))
    page = Page(report(tmp_path))
    assert "No detection found an object" in page.text
    assert page.row("AP")[-1] == "0.000"
    assert [attributes["class"] for attributes in page.all("g") if attributes.get("class")].count("found") == 0


def test_evaluation_of_rotated_boxes(pool: Pool, tmp_path: Path) -> None:
    """Its page has DOTA's numbers, and its pictures show what was found by the rotated boxes."""
    layout = RunLayout(tmp_path)
    fake_runs.write_evaluate_run(tmp_path, pool)
    index = as_rotated(fake_runs.index_of(pool))
    rows = [
        {
            "size": list(pool.size),
            "boxes": from_upright(torch.from_numpy(found.boxes)).tolist(),
            "scores": found.scores.tolist(),
            "labels": found.labels.tolist(),
        }
        for found in pool.found
    ]
    result = measure(index, Detected(rows, pool.class_names, EvaluationSettings(conf=0.001), rotated=True))
    write_evaluation(layout.evaluation, result)
    categories = list(enumerate(pool.class_names, 1))
    write_predictions(layout.predictions, index, categories, lambda: rows, description="found by a test")

    page, means = Page(report(tmp_path)), result.dota
    assert means is not None and means.AP is not None and 0.1 < means.AP < 0.9
    every = [row[2] for row in page.rows if row[0] == "mAP50:95"]
    assert every == [f"{means.AP:.3f}", f"{means.AP_11points:.3f}"]
    assert "by DOTA's rules" in page.text and "COCO's twelve" not in page.text
    row = result.classes[0]
    assert row.dota is not None
    averages = (row.dota.AP, row.dota.AP50, row.dota.AP75, row.dota.AP50_11points)
    assert page.row(row.name)[3:] == [
        f"{value:.3f}" for value in (*averages, row.precision, row.recall, row.f1, row.threshold)
    ]
    groups = [attributes["class"] for attributes in page.all("g") if attributes.get("class")]
    shown = [*result.ranking[:6], *result.ranking[-6:]]
    assert groups.count("found") == sum(image.true_positives for image in shown) > 5
    assert groups.count("false") == sum(image.false_positives for image in shown)


def test_inference_counts_classes(pages: dict[str, tuple[Path, Any]]) -> None:
    path, content = pages["infer"]
    page = Page(path)
    for category in content["categories"]:
        rows = [row for row in content["annotations"] if row["category_id"] == category["id"]]
        shown = page.row(category["name"])
        assert shown[1] == str(len(rows))
        assert shown[3] == str(len({row["image_id"] for row in rows}))
        if rows:
            assert shown[4] == f"{sum(row['score'] for row in rows) / len(rows):.3f}"
    assert "this JPEG is cut short" in page.text


def test_gallery_follows_the_ranking(pages: dict[str, tuple[Path, Any]]) -> None:
    path, content = pages["mine"]
    text = Page(path).text
    places = [text.index(row["path"]) for row in content["ranking"]]
    assert places == sorted(places)
    for row in content["ranking"]:
        assert row["reason"] in text
        assert f"{row['score']:#.4g}" in text
    assert "label it sooner" in text
    assert "this file is empty" in text


EXPLAINED = [
    # algorithm, compat, what the page says
    ("entropy", None, "Higher means: label it sooner."),
    ("random", None, "Higher means: label it sooner."),
    ("aldd", "yolov5", "Higher means: label it sooner."),
    ("cald", None, "Higher means: label it sooner."),
    ("cald", "mmdet", "the images that teach least come first"),
]


@pytest.mark.parametrize(("algorithm", "compat", "said"), EXPLAINED)
def test_page_says_what_a_score_means(
    pool: Pool, tmp_path: Path, algorithm: str, compat: str | None, said: str
) -> None:
    content = fake_runs.write_mine_run(tmp_path, pool)
    (tmp_path / "ranking.json").write_text(json.dumps({**content, "algorithm": algorithm, "compat": compat}))
    text = Page(report(tmp_path)).text
    assert said in text
    assert ("Higher means" in text) == (said.startswith("Higher"))


def test_gallery_is_as_long_as_asked_for(pool: Pool, tmp_path: Path) -> None:
    content = fake_runs.write_mine_run(tmp_path, pool, gallery=3)
    page = Page(report(tmp_path))
    assert len(page.all("img")) == 3
    assert content["ranking"][2]["path"] in page.text and content["ranking"][3]["path"] not in page.text


def test_chart_of_a_cut_ranking_shows_the_whole_pool(pool: Pool, tmp_path: Path) -> None:
    whole = fake_runs.write_mine_run(tmp_path / "whole", pool)
    cut = fake_runs.write_mine_run(tmp_path / "cut", pool, top_k=5)
    without = shutil.copytree(tmp_path / "cut", tmp_path / "without")
    (without / "scores.csv").unlink()
    pages = [Page(report(tmp_path / name)) for name in ("whole", "cut", "without")]
    bars = [re.findall(r'<path d="([^"]*)"[^>]*style="fill: var\(--series-0\)"', page.source) for page in pages]
    assert bars[0] == bars[1] != bars[2]  # the same histogram; without the scores only that of the ranking
    said = f"the ranking ends at {cut['ranking'][-1]['score']:#.4g}"
    assert [said in page.text for page in pages] == [False, True, False]
    assert len(whole["ranking"]) == 14 and len(cut["ranking"]) == 5


def test_heat_maps_stand_beside_their_pictures(pool: Pool, tmp_path: Path) -> None:
    fake_runs.write_mine_run(tmp_path, pool, algorithm="aldd")
    page = Page(report(tmp_path))
    assert len(page.all("img")) == 2 * len(pool.paths)
    assert sum((image["alt"] or "").startswith("Heat map of image") for image in page.all("img")) == len(pool.paths)


def test_gallery_of_photographs_stays_small(tmp_path: Path) -> None:
    pool = fake_runs.draw_pool(tmp_path / "pool", images=8)
    rng = np.random.default_rng(0)
    for path in pool.paths:  # larger than a thumbnail, and as grainy as a photograph
        image = imaging.resize(imaging.read_image(path), 640, 480, "bilinear")
        imaging.write_image(path, np.clip(image + rng.normal(0, 15, image.shape), 0, 255).astype(np.uint8))
    fake_runs.write_mine_run(tmp_path / "run", dataclasses.replace(pool, size=(640, 480)), algorithm="aldd")
    assert report(tmp_path / "run").stat().st_size < 3e6 / 24 * 8


GONE: list[tuple[str, str, str]] = [
    # verb, file that is gone, what the page says
    ("train", "evaluation.json", "No measures: the run has no evaluation.json"),
    ("train", "metrics.csv", "No curves over epochs: the run has no metrics.csv"),
    ("train", "samples", "No pictures of what the network was shown"),
    ("evaluate", "evaluation.json", "No measures"),
    ("infer", "predictions.json", "No detections: the run has no predictions.json"),
    ("mine", "ranking.json", "No ranking: the run has no ranking.json"),
]


@pytest.mark.parametrize(("verb", "gone", "said"), GONE)
def test_page_says_what_is_missing(pool: Pool, tmp_path: Path, verb: str, gone: str, said: str) -> None:
    VERBS[verb](tmp_path, pool)
    path = tmp_path / gone
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    page = Page(report(tmp_path))
    assert said in page.text
    assert not page.open


@pytest.mark.parametrize("verb", ["train", "evaluate"])
def test_annotations_that_moved_leave_a_note(pool: Pool, tmp_path: Path, verb: str) -> None:
    moved = dataclasses.replace(pool, folder=tmp_path / "moved")
    VERBS[verb](tmp_path / "run", moved)
    page = Page(report(tmp_path / "run"))
    assert "No boxes of annotations: they cannot be read again" in page.text
    assert "missed" not in {attributes.get("class") for attributes in page.all("g")}
    assert len(page.all("img")) >= 12


def test_annotations_that_changed_are_not_drawn(tmp_path: Path) -> None:
    pool = fake_runs.draw_pool(tmp_path / "pool", images=4)
    fake_runs.write_evaluate_run(tmp_path / "run", pool)
    content = json.loads(pool.annotations.read_text())
    content["annotations"].pop()
    pool.annotations.write_text(json.dumps(content))
    page = Page(report(tmp_path / "run"))
    assert "they have changed since" in page.text
    assert "missed" not in {attributes.get("class") for attributes in page.all("g")}


def test_training_without_detections_shows_the_annotations(pool: Pool, tmp_path: Path) -> None:
    result = fake_runs.write_train_run(tmp_path, pool)
    (tmp_path / "predictions.json").unlink()
    page = Page(report(tmp_path))
    shown = [*result.ranking[:6], *result.ranking[-6:]]
    groups = [attributes["class"] for attributes in page.all("g") if attributes.get("class")]
    assert groups == ["detection"] * sum(image.true_positives + image.missed for image in shown)
    assert "The boxes are the annotations" in page.text
    assert "Not everything could be shown" not in page.text


@pytest.mark.parametrize("verb", VERBS)
def test_run_that_failed_at_once_has_a_page(tmp_path: Path, verb: str) -> None:
    manifest = {
        "verb": verb,
        "status": "failed",
        "started": "2026-03-01T08:00:00+00:00",
        "finished": None,
        "settings": {},
        "error": "no <space> left",
    }
    (tmp_path / "run.json").write_text(json.dumps(manifest))
    page = Page(report(tmp_path))
    assert "failed" in page.text
    assert "no <space> left" in page.text
    assert "Not everything could be shown" in page.text


@pytest.mark.parametrize("verb", VERBS)
def test_broken_files_are_named(pool: Pool, tmp_path: Path, verb: str) -> None:
    VERBS[verb](tmp_path, pool)
    for path in tmp_path.glob("*.json"):
        if path.name != "run.json":
            path.write_text('{"images": [')
    assert re.search(r"(evaluation|predictions|ranking)\.json", Page(report(tmp_path)).text)


@pytest.mark.parametrize("verb", VERBS)
def test_pictures_that_moved_leave_a_note(tmp_path: Path, verb: str) -> None:
    pool = fake_runs.draw_pool(tmp_path / "pool", images=4)
    VERBS[verb](tmp_path / "run", pool)
    pool.paths[2].unlink()
    page = Page(report(tmp_path / "run"))
    assert "1 picture is not shown, since moved, deleted or unreadable, such as" in page.text
    assert "picture not available" in page.text
    assert len(page.all("img")) >= 3


def test_page_can_be_written_elsewhere(pool: Pool, tmp_path: Path) -> None:
    fake_runs.write_mine_run(tmp_path / "run", pool)
    target = tmp_path / "new" / "page.html"
    assert report(tmp_path / "run", output=target) == target
    assert target.is_file() and not (tmp_path / "run" / "report.html").exists()


def test_page_is_the_same_when_written_again(pool: Pool, tmp_path: Path) -> None:
    fake_runs.write_train_run(tmp_path, pool)
    first = report(tmp_path).read_bytes()
    assert report(tmp_path).read_bytes() == first


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        (None, "no run.json"),
        ("{}", "not the manifest"),
        ('{"verb": "export"}', "no page for a run of 'export'"),
    ],
)
def test_folder_that_is_no_run_is_refused(tmp_path: Path, manifest: str | None, message: str) -> None:
    if manifest is not None:
        (tmp_path / "run.json").write_text(manifest)
    with pytest.raises(RunError, match=message):
        report(tmp_path)


def bars_of(page: Page) -> list[float]:
    widths = [attributes["style"] or "" for attributes in page.all("span") if attributes.get("class") == "bar"]
    return [float(width.removeprefix("width: ").removesuffix("%")) for width in widths]


def test_of_many_parts_the_largest_are_shown_on_one_scale(pool: Pool, tmp_path: Path) -> None:
    content = fake_runs.write_mine_run(tmp_path, pool, gallery=2)
    names = [f"class {number}" for number in range(9)]
    for rank, row in enumerate(content["ranking"]):
        row["components"] = {name: number / 2**rank for number, name in enumerate(names)}
        row["score"] = sum(row["components"].values())
    (tmp_path / "ranking.json").write_text(json.dumps(content))
    page = Page(report(tmp_path))
    assert [name in page.text for name in names] == [False] * 4 + [True] * 5
    assert "and 4 smaller" in page.text and "add up to the score" in page.text
    assert bars_of(page) == pytest.approx([100, 87.5, 75, 62.5, 50, 50, 43.75, 37.5, 31.25, 25], abs=0.06)


def test_parts_of_different_kinds_are_compared_with_their_own_kind(pool: Pool, tmp_path: Path) -> None:
    content = fake_runs.write_mine_run(tmp_path, pool, gallery=2)
    for rank, row in enumerate(content["ranking"]):
        row["components"] = {"detections": 40 - 20 * rank, "bits": 0.5 + 0.5 * rank}
    (tmp_path / "ranking.json").write_text(json.dumps(content))
    page = Page(report(tmp_path))
    assert bars_of(page) == [100, 50, 50, 100]
    assert "largest of its name" in page.text
