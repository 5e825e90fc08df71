"""The pages in a real browser: no console message, nothing loaded, something to see."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import fake_runs
import numpy as np
import pytest

from ymir_tmi import imaging
from ymir_tmi.report.run import report

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr"),
    *("--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update"),
    "--disable-sync",
]


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("verb", ["train", "evaluate", "infer", "mine"])
def test_browser_shows_the_page(tmp_path: Path, verb: str) -> None:
    pool = fake_runs.draw_pool(tmp_path / "pool")
    getattr(fake_runs, f"write_{verb}_run")(tmp_path / "run", pool)
    page = report(tmp_path / "run")
    shot = tmp_path / "shot.png"
    command = [str(BROWSER), *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1200,2000"]
    # Whatever the page asked the network for would be a console message, as the host cannot be found.
    command += ["--host-resolver-rules=MAP * ~NOTFOUND", f"--screenshot={shot}", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "CONSOLE" not in done.stderr
    image = imaging.read_image(shot)
    assert image.shape == (2000, 1200, 3)
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 1000
    # The picture cards are where the page's own colours are not: there must be some in the lower half.
    assert image[1000:].std() > 10
