"""The folder /img-man of an image, which the platform reads when the image is registered.

See docs/specs/ymir.md, section 9.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ymir_tmi.files.atomic import write_text
from ymir_tmi.ymir.contract import TEMPLATE_FOLDERS
from ymir_tmi.ymir.parameters import Parameters
from ymir_tmi.ymir.profile import Profile


def write_img_man(profile: Profile, folder: Path) -> list[Path]:
    """Write the manifest and the templates of an image; files of the same names are replaced.

    Returns the files.
    """
    contents = {"manifest.yaml": manifest(profile), **templates(profile)}
    for name, content in contents.items():
        write_text(folder / name, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    return [folder / name for name in contents]


def manifest(profile: Profile) -> dict[str, Any]:
    """Return the manifest of an image: its object type, or a list where it has several."""
    types = list(profile.object_types)
    return {"object_type": types if len(types) > 1 else types[0], "is_official": False, "enable_livecode": False}


def templates(profile: Profile) -> dict[str, dict[str, Any]]:
    """Return the templates of an image by the names of their files."""
    found = {}
    for object_type, tasks in profile.tasks.items():
        folder = f"{TEMPLATE_FOLDERS[object_type]}/" if len(profile.tasks) > 1 else ""
        for task, parameters in tasks.named().items():
            found[f"{folder}{task}-template.yaml"] = template(parameters)
    return found


def template(parameters: type[Parameters]) -> dict[str, Any]:
    """Return the keys of a template with their defaults, all but those that are hidden."""
    return {each.key: each.default for each in parameters.parameters() if not each.hidden}
