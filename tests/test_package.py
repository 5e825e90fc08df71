"""What the package promises as a whole: its public names, cheap imports, and a README that is true."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import ymir_tmi

ROOT = Path(__file__).parents[1]

PUBLIC = {
    "EvaluateSettings",
    "ExportSettings",
    "InferSettings",
    "MineSettings",
    "TrainSettings",
    "__version__",
    "convert_checkpoint",
    "create_model",
    "evaluate",
    "export",
    "infer",
    "list_models",
    "load_model",
    "mine",
    "train",
}


def modules_after(code: str) -> set[str]:
    """Run code in a fresh interpreter and return the names of the modules it has loaded."""
    script = f"{code}\nimport sys\nprint(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split("\n")[-2].split())


def test_public_names_are_these() -> None:
    assert set(ymir_tmi.__all__) == PUBLIC
    for name in PUBLIC:
        assert getattr(ymir_tmi, name) is not None


def test_import_is_cheap() -> None:
    loaded = modules_after("import ymir_tmi, ymir_tmi.cli")
    assert not loaded & {"torch", "numpy", "cv2", "lightning", "matplotlib"}


def test_inference_and_mining_import_no_lightning() -> None:
    loaded = modules_after("from ymir_tmi import evaluate, infer, mine, load_model")
    assert "torch" in loaded
    assert not {name for name in loaded if name.split(".")[0] in ("lightning", "pytorch_lightning")}


def test_readme_names_files_that_exist() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:src|docs|tests|benchmarks|examples)/[\w./-]+)`", readme)
    assert len(named) >= 6
    for name in named:
        assert (ROOT / name).exists(), name


def test_no_tracked_file_names_a_machine_path() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode:  # an unpacked source archive is no checkout
        return
    for name in tracked.stdout.split():
        path = ROOT / name
        if path.suffix in {".py", ".md", ".toml", ".yaml", ".yml", ""} and path.is_file():
            text = path.read_text(encoding="utf-8", errors="ignore")
            assert not re.search(r"(?<![\w.])/(?:work|home|root)/\w", text), name
