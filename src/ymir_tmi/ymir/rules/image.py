"""What the platform asks of the files in /img-man when an image is registered."""

from __future__ import annotations

from pathlib import Path

import yaml

from ymir_tmi.ymir.contract import TEMPLATE_FOLDERS
from ymir_tmi.ymir.rules.findings import Findings, read_mapping

_TEMPLATES = ("training-template.yaml", "mining-template.yaml", "infer-template.yaml")
_SWITCHES = ("is_official", "enable_livecode")
_LONGEST_KEY, _LONGEST_TEXT = 50, 100


def is_image_folder(folder: Path) -> bool:
    """Tell whether a folder is an /img-man: one with a manifest, or with a template."""
    return any((folder / name).is_file() for name in ("manifest.yaml", *_TEMPLATES))


def check_image(folder: Path, found: Findings) -> None:
    """Check the manifest and the templates of an image."""
    file = folder / "manifest.yaml"
    manifest = (read_mapping(file, yaml.safe_load, "YAML", found) if file.exists() else None) or {}
    kinds = manifest.get("object_type", 2)
    for key in _SWITCHES:
        if not isinstance(manifest.get(key, False), bool):
            found.add(file, key, f"{manifest[key]!r} is neither true nor false")
    if isinstance(kinds, int) and not isinstance(kinds, bool):
        _check_templates(folder, found)
    elif isinstance(kinds, list):
        for kind in kinds:
            if kind in TEMPLATE_FOLDERS:
                _check_templates(folder / TEMPLATE_FOLDERS[kind], found)
            else:
                found.add(file, "object_type", f"{kind!r} is none of {', '.join(map(str, TEMPLATE_FOLDERS))}")
    else:
        found.add(file, "object_type", f"{kinds!r} is neither a whole number nor a list")


def _check_templates(folder: Path, found: Findings) -> None:
    files = [folder / name for name in _TEMPLATES if (folder / name).is_file()]
    if not files:
        found.add(folder, "", f"there is none of {', '.join(_TEMPLATES)}")
    for file in files:
        values = read_mapping(file, yaml.safe_load, "YAML", found) or {}
        for key, value in values.items():
            if not isinstance(key, str) or len(key) > _LONGEST_KEY:
                found.add(file, str(key), f"the key is not text of at most {_LONGEST_KEY} characters")
            if isinstance(value, list | dict):
                found.add(file, str(key), "a template has one level of keys and values")
            if isinstance(value, str) and len(value) > _LONGEST_TEXT:
                found.add(file, str(key), f"the text is longer than {_LONGEST_TEXT} characters")
        found.checked.append(f"{file}: {len(values)} parameters")
