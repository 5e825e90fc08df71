"""The packages import downwards only, and heavy libraries stay where they belong."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "ymir_tmi"

# From the ground up; names on one line may not import one another.
LAYERS = [
    {"errors"},
    {"files"},
    {"config", "imaging", "geometry"},
    {"data"},
    {"models"},
    {"pool"},
    {"evaluation"},
    {"training", "inference", "mining", "exporting", "weights"},
    {"report"},
    {"demo", "doctor", "options"},
    {"ymir"},
    {"cli"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}

ONLY_IN = {
    "cv2": {"imaging"},
    "PIL": {"imaging"},
    "lightning": {"training"},
    "pytorch_lightning": set[str](),
    "faster_coco_eval": {"evaluation", "geometry"},
    "matplotlib": {"report"},
    "onnx": {"exporting"},
    "onnxscript": set[str](),
    "onnxruntime": {"models"},
    "openvino": {"models", "exporting"},
    "jinja2": {"report"},
    "typer": {"cli.py", "options.py"},
}

MODULES = sorted(PACKAGE.rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Return every module name that a file imports, at its top or inside a function."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_downwards(path: Path) -> None:
    part = part_of(path)
    if part == "__init__":
        return
    for name in imported(path):
        root, _, rest = name.partition(".")
        other = rest.split(".")[0]
        if root == "ymir_tmi" and other in LEVEL and other != part:
            assert LEVEL[other] < LEVEL[part], f"{part} imports {other}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_heavy_libraries_have_one_home(path: Path) -> None:
    place = path.relative_to(PACKAGE).parts[0]
    for name in imported(path):
        root = name.split(".")[0]
        if root in ONLY_IN:
            assert place in ONLY_IN[root], f"{root} is imported in {path.relative_to(PACKAGE)}"


def test_every_part_has_a_layer() -> None:
    assert {part_of(path) for path in MODULES} - {"__init__"} == set(LEVEL)
