"""The verb `report`: one self-contained HTML page about a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from ymir_tmi import __version__
from ymir_tmi.errors import RunError
from ymir_tmi.files.atomic import write_text
from ymir_tmi.report.evaluate import evaluate_page
from ymir_tmi.report.infer import infer_page
from ymir_tmi.report.mine import mine_page
from ymir_tmi.report.page import breakable, flatten, moment, run_time
from ymir_tmi.report.source import RunFiles
from ymir_tmi.report.train import train_page

_PAGES: dict[str, Callable[[RunFiles], dict[str, Any]]] = {
    "train": train_page,
    "evaluate": evaluate_page,
    "infer": infer_page,
    "mine": mine_page,
}


def report(run: Path, *, output: Path | None = None) -> Path:
    """Write one HTML page about a run; it needs neither a network nor any other file.

    What the run did not leave behind, and pictures or annotations that are no longer where the run found them, are
    missing from the page, which says so.

    Args:
        run: Run folder of train, evaluate, infer or mine.
        output: Page to write; by default `report.html` in the run folder.

    Returns:
        The page.

    Raises:
        RunError: `run` is not a run folder, or is one of a verb without a page.
    """
    files = RunFiles(run)
    verb = files.manifest["verb"]
    if verb not in _PAGES:
        raise RunError(f"there is no page for a run of '{verb}'", where=run, fix=f"Known: {', '.join(_PAGES)}.")
    target = output or files.layout.report
    write_text(target, _render(verb, files))
    return target


def _render(verb: str, files: RunFiles) -> str:
    environment = Environment(
        loader=PackageLoader("ymir_tmi.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"breakable": breakable, "moment": moment}
    content = _PAGES[verb](files)
    manifest = files.manifest
    return environment.get_template(f"{verb}.html").render(
        content,
        name=files.layout.root.resolve().name,
        manifest=manifest,
        run_time=run_time(manifest),
        notes=files.notes(),
        model=flatten(manifest.get("model", {})),
        settings=flatten(files.settings),
        recipe=flatten(manifest.get("recipe", {})),
        versions=flatten(manifest.get("versions", {})),
        version=__version__,
    )
