"""Generated pages and pictures are those in the repository, and examples do what they say."""

from __future__ import annotations

import doctest
import runpy
from pathlib import Path

import numpy as np

from ymir_tmi import imaging
from ymir_tmi.config.describe import settings_page
from ymir_tmi.weights.overview import models_page

DOCS = Path(__file__).parents[1] / "docs"


def test_settings_page_is_up_to_date() -> None:
    assert (DOCS / "settings.md").read_text(encoding="utf-8") == settings_page(), "run `make docs`"


def test_models_page_is_up_to_date() -> None:
    assert (DOCS / "models.md").read_text(encoding="utf-8") == models_page(), "run `make docs`"


def test_examples_of_rotated_boxes_are_right() -> None:
    failed, tried = doctest.testfile(str(DOCS / "rotated.md"), module_relative=False)
    assert tried > 10 and not failed


def test_picture_of_rotated_boxes_is_up_to_date() -> None:
    file = DOCS / "images" / "rotated-boxes.png"
    drawn = runpy.run_path(str(DOCS / "images" / "draw_rotated_boxes.py"))["draw"]()
    # Releases of OpenCV draw letters and the borders of lines a little differently.
    assert np.abs(imaging.read_image(file).astype(float) - drawn).mean() < 1, "run `make docs`"
    assert file.stat().st_size < 60_000
