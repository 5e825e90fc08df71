"""Charts as SVG inside the page."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest

import ymir_tmi.report
from ymir_tmi.report.charts import SERIES, Chart, Line, histogram, line_chart

STYLE_SHEET = Path(ymir_tmi.report.__file__).parent / "templates" / "style.css"


def draw(*lines: Line) -> Chart:
    return line_chart("Loss", lines, x_label="epoch", y_label="loss", whole_x=True)


def test_chart_holds_no_address_and_no_rule_for_the_page() -> None:
    svg = draw(Line("a", [1, 2, 3], [3, 2, 1])).svg
    assert "xmlns" not in svg and "http" not in svg and "<style" not in svg and "<metadata" not in svg
    assert set(re.findall(r"url\((.)", svg)) <= {"#"}


def test_every_colour_is_one_of_both_themes() -> None:
    lines = [Line(f"line {number}", [1, 2, 3], [number, 2, 1]) for number in range(SERIES)]
    svg = draw(*lines, Line("", [1, 2], [1, 1])).svg
    assert not re.search(r"#[0-9a-f]{6}\b(?!\))", re.sub(r'(id|href|clip-path)="[^"]*"', "", svg))
    used = set(re.findall(r"var\((--[\w-]+)\)", svg))
    assert {f"--series-{number}" for number in range(SERIES)} <= used
    css = STYLE_SHEET.read_text(encoding="utf-8")
    for theme in css.split("prefers-color-scheme")[:2]:
        assert all(f"{name}:" in theme for name in used)


def test_legend_shows_the_colours_and_dashes_of_the_lines() -> None:
    chart = draw(Line("a", [1, 2], [3, 2]), Line("", [1, 2], [2, 2]), Line("b", [1, 2], [1, 2]))
    assert [key.name for key in chart.legend] == ["a", "b"]
    assert chart.legend[0].dashes == ""
    assert f"stroke-dasharray: {chart.legend[1].dashes.replace(' ', ',')}" in chart.svg


def test_names_stay_out_of_the_drawing() -> None:
    chart = draw(Line(r"$\frac{<b>", [1, 2], [3, 2]), Line("b", [1, 2], [1, 2]))
    assert "frac" not in chart.svg
    assert chart.legend[0].name == r"$\frac{<b>"


def test_line_is_where_its_numbers_are() -> None:
    svg = draw(Line("a", [0, 1, 2], [0.0, 5.0, 10.0])).svg
    path = re.search(r'd="([^"]*)" clip-path="[^"]*" style="fill: none; stroke: var\(--series-0\)', svg)
    assert path
    points = np.array([[float(value) for value in pair] for pair in re.findall(r"([\d.]+) ([\d.]+)", path[1])])
    assert np.all(np.diff(points[:, 0]) > 0)
    assert points[1] == pytest.approx((points[0] + points[2]) / 2, abs=0.01)
    assert points[0, 1] > points[2, 1]  # y points down


def test_missing_numbers_interrupt_a_line() -> None:
    assert draw(Line("a", [1, 2, 3, 4], [1, 2, math.nan, 3])).svg
    with_gap = draw(Line("a", [1, 2, 3, 4, 5], [1, 2, math.nan, 3, 1])).svg
    path = re.search(r'd="([^"]*)" clip-path="[^"]*" style="fill: none; stroke: var\(--series-0\)', with_gap)
    assert path and path[1].count("M") == 2


@pytest.mark.parametrize(
    "values", [[0.5], [0.0, 0.0, 0.0], [0.05] * 3 + [0.31] * 6 + [0.99]], ids=["one", "equal", "several"]
)
def test_bars_are_as_high_as_the_counts(values: list[float]) -> None:
    svg = histogram("Scores", values, x_label="score", y_label="images", x_range=(0, 1), cut=("cut", values[0])).svg
    bars = re.findall(r'd="([^"]*)" clip-path="[^"]*" style="fill: var\(--series-0\)"', svg)
    ys = [[float(y) for _, y in re.findall(r"([\d.]+) ([\d.]+)", bar)] for bar in bars]
    heights = np.array([max(bar) - min(bar) for bar in ys])
    counts = np.histogram(values, 20, (0, 1))[0]
    assert heights / heights.max() == pytest.approx(counts / counts.max(), abs=1e-3)
    assert "stroke: var(--series-1)" in svg
