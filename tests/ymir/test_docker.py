"""Every step of the Dockerfile is carried out in a folder with Debian in it, and the platform's command run there."""

from __future__ import annotations

import ast
import dataclasses
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import dockerfiles
import pytest
import yaml

from ymir_tmi.ymir.sample_task import TaskOrder, write_sample_task
from ymir_tmi.ymir.verify import verify

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "docker" / "Dockerfile"
PROFILE = "mmyolo"
ANYBODY = "12345:12345"  # no user of this number is known inside
_DEBIAN = "http://deb.debian.org/debian"
_ROOM = 20 << 30  # bytes: torch's CUDA build twice over, and what pip unpacks


def test_steps_are_read() -> None:
    steps = dockerfiles.read_steps(DOCKERFILE)
    assert {step.name for step in steps} == {"ARG", "FROM", "WORKDIR", "COPY", "RUN", "ENV", "CMD"}
    assert steps[-1] == dockerfiles.Step("CMD", '["bash", "/usr/bin/start.sh"]')
    # Without an entry point the platform can also read files: docker run --rm IMAGE cat /img-man/manifest.yaml
    assert not any("\\" in step.text or step.text.startswith("#") for step in steps)


def test_everything_that_is_copied_is_in_the_context() -> None:
    allowed = {line.strip("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for step in dockerfiles.read_steps(DOCKERFILE):
        if step.name == "COPY" and not step.text.startswith("--from="):
            for source in step.text.split()[:-1]:
                assert (ROOT / source).exists()
                assert source in allowed


def test_image_installs_the_versions_of_the_lock_file() -> None:
    installs = [step.text for step in dockerfiles.read_steps(DOCKERFILE) if "pip install" in step.text]
    assert len(installs) == 3
    for text in installs:
        assert "--constraint" in text and "--no-cache-dir" in text


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dockerfiles.Stage]:
    """The image, as a folder."""
    work = tmp_path_factory.mktemp("docker")
    _require_what_it_takes(work)
    try:
        _install_base(work / "base")
        settings = _index_settings()
        build = dockerfiles.Build(ROOT, work / "base", work, {"PROFILE": PROFILE}, settings, _folders_in(settings))
        yield build.carry_out(dockerfiles.read_steps(DOCKERFILE))
    finally:
        shutil.rmtree(work)  # several gigabytes


@pytest.mark.slow
def test_platform_reads_the_templates(image: dockerfiles.Stage) -> None:
    printed = image.run(["cat", "/img-man/manifest.yaml"])
    assert yaml.safe_load(printed.stdout)["object_type"] == 2
    found = verify(image.root / "img-man")
    assert found.ok, found.to_text()


@pytest.mark.slow
def test_anybody_runs_every_task(image: dockerfiles.Stage, tmp_path: Path) -> None:
    training = _order(image, "training", model_name="yolov5_n", max_epochs="1", samples_per_gpu=2, workers_per_gpu=0)
    out = _run_task(image, tmp_path / "training", training)
    stages = yaml.safe_load((out / "models" / "result.yaml").read_text())
    files = sorted((out / "models" / stages["best_stage_name"]).iterdir())
    for tasks in (("mining",), ("infer",), ("mining", "infer")):
        order = dataclasses.replace(_order(image, tasks[0]), tasks=tasks, files=files)
        _run_task(image, tmp_path / "-".join(tasks), order)


def _order(image: dockerfiles.Stage, task: str, **values: object) -> TaskOrder:
    template = yaml.safe_load((image.root / "img-man" / f"{task}-template.yaml").read_text(encoding="utf-8"))
    return TaskOrder((task,), template=template | values, pictures=4)


def _run_task(image: dockerfiles.Stage, folder: Path, order: TaskOrder) -> Path:
    """Run the image's command as the platform does; return where its output is."""
    task = write_sample_task(folder, order, mounted=True)
    for place in (task.output, task.output / "models", *task.links):
        place.chmod(0o777)
    mounts = {task.input: "/in:ro", task.output: "/out"} | {link: str(link) for link in task.links}
    result = image.run(image.command, user=ANYBODY, mounts=mounts)
    assert result.returncode == 0, result.stdout[-4000:]
    found = verify(task.output, task.input)
    assert found.ok, found.to_text()
    return task.output


def _require_what_it_takes(work: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, for mounts and chroot")
    if not shutil.which("debootstrap") or not shutil.which("unshare"):
        pytest.skip("needs debootstrap and unshare")
    if shutil.disk_usage(work).free < _ROOM:
        pytest.skip(f"needs {_ROOM >> 30} GiB of disk")
    try:
        socket.getaddrinfo("deb.debian.org", 80)
    except OSError:
        pytest.skip("needs Debian's packages from the network")


def _install_base(base: Path) -> None:
    """Install what stands for python:3.11-slim-bookworm: Debian 12 with its Python 3.11 as /usr/local/bin/python."""
    packages = "--include=ca-certificates,python3,python3-venv"
    _call("debootstrap", "--variant=minbase", packages, "bookworm", str(base), _DEBIAN)
    _call("chroot", str(base), "python3", "-m", "venv", "/usr/local")
    for name in ("resolv.conf", "hosts"):
        shutil.copy(f"/etc/{name}", base / "etc" / name)


def _call(*command: str) -> None:
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert result.returncode == 0, result.stdout[-4000:]


def _index_settings() -> dict[str, str]:
    """Return how this machine's pip is set up, as environment variables."""
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    settings = {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}
    for line in listed.stdout.splitlines():
        name, _, value = line.partition("=")
        key = name.rpartition(".")[2].replace("-", "_").upper()
        settings[f"PIP_{key}"] = ast.literal_eval(value)
    return settings


def _folders_in(settings: Mapping[str, str]) -> dict[Path, str]:
    """Return the folders of this machine that settings name, to be mounted where they are."""
    paths = [Path(word.removeprefix("file://")) for value in settings.values() for word in value.split()]
    there = [path for path in paths if path.is_absolute() and path.exists()]
    # The pages of an index, in a folder "simple", name files in folders beside it.
    folders = {path if path.is_dir() and path.name != "simple" else path.parent for path in there}
    return {folder: f"{folder}:ro" for folder in folders}
