"""Generated pages are those in the repository."""

from __future__ import annotations

from pathlib import Path

from ymir_tmi.config.describe import settings_page
from ymir_tmi.weights.overview import models_page

DOCS = Path(__file__).parents[1] / "docs"


def test_settings_page_is_up_to_date() -> None:
    assert (DOCS / "settings.md").read_text(encoding="utf-8") == settings_page(), "run `make docs`"


def test_models_page_is_up_to_date() -> None:
    assert (DOCS / "models.md").read_text(encoding="utf-8") == models_page(), "run `make docs`"
