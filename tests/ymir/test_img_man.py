"""The templates and pages made from the parameters."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from ymir_tmi.cli import app
from ymir_tmi.errors import ConfigError
from ymir_tmi.ymir.image_docs import pages
from ymir_tmi.ymir.images import PROFILES, find_profile
from ymir_tmi.ymir.img_man import write_img_man
from ymir_tmi.ymir.parameters import DocumentHad, Parameter, TemplateHad

DOCUMENTED = Path(__file__).with_name("documented_parameters.tsv")
DOCS = Path(__file__).parents[2] / "docs" / "images"
FOLDERS = {2: "det", 3: "semantic-seg", 4: "instance-seg"}
ABSENT = "-"


def documented() -> dict[tuple[str, int, str], dict[str, tuple[Any, Any]]]:
    """Return the defaults in template and document of the original images, by image, object type and task."""
    tables: dict[tuple[str, int, str], dict[str, tuple[Any, Any]]] = {}
    with DOCUMENTED.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
            table = tables.setdefault((row["image"], int(row["object_type"]), row["task"]), {})
            template, document = (
                value if value == ABSENT else yaml.safe_load(value) for value in (row["template"], row["document"])
            )
            table[row["parameter"]] = template, document
    return tables


def template_file(name: str, object_type: int, task: str) -> str:
    return f"{FOLDERS[object_type]}/{task}-template.yaml" if name == "all-in-one" else f"{task}-template.yaml"


@pytest.mark.parametrize(("name", "object_type", "task"), documented())
def test_template_has_what_was_documented(name: str, object_type: int, task: str, tmp_path: Path) -> None:
    write_img_man(PROFILES[name], tmp_path)
    found = yaml.safe_load((tmp_path / template_file(name, object_type, task)).read_text(encoding="utf-8"))
    parameters = {
        key: each for each in PROFILES[name].tasks[object_type].named()[task].parameters() for key in each.keys
    }
    for key, (template, document) in documented()[name, object_type, task].items():
        check_default(parameters[key], found.pop(key, None), key, template, document)
    assert not found, "in no document"


def check_default(parameter: Parameter, found: Any, key: str, template: Any, document: Any) -> None:
    """The document's default counts; where the template has another one, or another key for it, the help says so."""
    if key != parameter.key:
        assert found is None and document == ABSENT
        had = parameter.mark(TemplateHad)
        assert template == (parameter.default if had is None else had.default)
    elif parameter.mark(DocumentHad) is not None:
        assert (key, found, template, document) == ("model_name", "rtmdet_tiny", "rtmdet_tiny", "yolov8_n")
    else:
        expected = template if document == ABSENT else document
        assert (found, type(found)) == (expected, type(expected))
        if template not in (document, ABSENT) and document != ABSENT:
            assert parameter.mark(TemplateHad) == TemplateHad(template)


@pytest.mark.parametrize("name", PROFILES)
def test_manifest_lists_the_object_types(name: str, tmp_path: Path) -> None:
    files = write_img_man(PROFILES[name], tmp_path)
    assert sorted(files) == sorted(path for path in tmp_path.rglob("*") if path.is_file())
    manifest = yaml.safe_load((tmp_path / "manifest.yaml").read_text(encoding="utf-8"))
    assert manifest == {
        "object_type": [2, 3, 4] if name == "all-in-one" else 2,
        "is_official": False,
        "enable_livecode": False,
    }


def test_every_parameter_is_explained_in_both_languages() -> None:
    for profile in PROFILES.values():
        for tasks in profile.tasks.values():
            for parameters in tasks.named().values():
                for each in parameters.parameters():
                    assert each.help.english.endswith("."), each.key
                    assert re.search(r"[一-鿿]", each.help.chinese) and each.help.chinese.endswith("。"), each.key


@pytest.mark.parametrize("name", pages())
def test_page_is_up_to_date(name: str) -> None:
    assert (DOCS / name).read_text(encoding="utf-8") == pages()[name], "run `make docs`"


def test_command_writes_the_folder(tmp_path: Path) -> None:
    command = ["ymir", "img-man", "--output", str(tmp_path), "--profile", "detectron2"]
    assert CliRunner().invoke(app, command).exit_code == 0
    assert yaml.safe_load((tmp_path / "mining-template.yaml").read_text()) == {"conf_threshold": 0.2}


def test_unknown_image_is_named() -> None:
    with pytest.raises(ConfigError, match="there is no image 'mmpose'"):
        find_profile("mmpose")
