"""The style sheet: text and lines can be seen in both themes (WCAG 2, level AA)."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import ymir_tmi.report
from ymir_tmi.report.pictures import CLASS_COLOURS, OUTCOME_COLOURS

STYLE_SHEET = (Path(ymir_tmi.report.__file__).parent / "templates" / "style.css").read_text(encoding="utf-8")
LIGHT, DARK = (
    dict(re.findall(r"(--[\w-]+): (#[0-9a-f]{6})", block))
    for block in re.findall(r":root \{(.*?)\}", STYLE_SHEET, re.S)
)


def luminance(colour: str) -> float:
    channels = np.array([int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)])
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(first: str, second: str) -> float:
    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_text_and_lines_can_be_seen(theme: dict[str, str]) -> None:
    assert theme.keys() == LIGHT.keys()
    for ground in ("--page", "--card"):
        for text in ("--ink", "--muted", "--accent", "--good", "--bad"):
            assert contrast(theme[text], theme[ground]) >= 4.5, (text, ground)
    for number in range(6):
        assert contrast(theme[f"--series-{number}"], theme["--card"]) >= 3
    assert contrast(theme["--ink"], theme["--warn-page"]) >= 4.5


def test_black_labels_can_be_read_on_every_colour_of_a_box() -> None:
    for colour in {*CLASS_COLOURS, *OUTCOME_COLOURS.values()}:
        assert contrast("#000000", colour) >= 4.5


def test_classes_of_the_templates_have_a_style() -> None:
    styled = set(re.findall(r"\.([a-z][\w-]*)", STYLE_SHEET))
    used: set[str] = set()
    for template in Path(ymir_tmi.report.__file__).parent.glob("templates/*.html"):
        for value in re.findall(r'class="([^"{]*)', template.read_text(encoding="utf-8")):
            used |= set(value.split())
    assert used - {"state-"} <= styled
