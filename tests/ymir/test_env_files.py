"""env.yaml and config.yaml, as every platform since the first has written them."""

from __future__ import annotations

from pathlib import Path

import pytest
from packaging.version import Version
from typer.testing import CliRunner

from ymir_tmi.cli import app
from ymir_tmi.errors import ConfigError
from ymir_tmi.ymir.contract import read_config, read_env, require_task


def env_file(folder: Path, text: str) -> Path:
    path = folder / "env.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_an_empty_file_has_the_defaults_of_the_oldest_platform(tmp_path: Path) -> None:
    env = read_env(env_file(tmp_path, ""))
    assert env.protocol == Version("0.0.1") and env.task_id == "default-task"
    assert not (env.training or env.mining or env.infer)
    assert env.inputs.config == Path("/in/config.yaml") and env.inputs.models == Path("/in/models")
    assert env.inputs.lists == {}
    assert env.outputs.training_result_file == Path("/out/models/result.yaml")
    assert env.outputs.monitor_file == Path("/out/monitor.txt")


def test_what_the_file_says_counts(tmp_path: Path) -> None:
    text = """
    protocol_version: 1.10.0
    task_id: t1
    run_mining: true
    run_infer: 'True'
    input: {root_dir: /a, candidate_index_file: /b/Bilder 图.tsv, training_index_file: '', config_file: c.yaml}
    output: {root_dir: /o, mining_result_file: /p/r.tsv, monitor_file: m.txt}
    """
    env = read_env(env_file(tmp_path, text))
    assert env.protocol > Version("1.9.0"), "versions are no texts"
    assert (env.training, env.mining, env.infer) == (False, True, True)
    assert env.inputs.lists == {"pool": Path("/b/Bilder 图.tsv")}
    assert env.inputs.config == Path("/a/c.yaml") and env.inputs.assets == Path("/a/assets")
    assert env.outputs.mining_result_file == Path("/p/r.tsv") and env.outputs.monitor_file == Path("/o/m.txt")
    assert env.outputs.infer_result_file == Path("/o/infer-result.json")


def test_files_that_the_surroundings_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEFAULT_CONFIG_FILE_PATH", "/elsewhere/c.yaml")
    assert read_env(env_file(tmp_path, "input: {config_file: ''}")).inputs.config == Path("/elsewhere/c.yaml")
    assert read_env(env_file(tmp_path, "input: {config_file: /a/c.yaml}")).inputs.config == Path("/a/c.yaml")
    monkeypatch.setenv("DEFAULT_ENV_FILE_PATH", str(env_file(tmp_path, f"output: {{root_dir: {tmp_path}}}")))
    ended = CliRunner().invoke(app, ["ymir", "start"])
    assert ended.exit_code == 2 and f"{tmp_path}/env.yaml: there is nothing to do" in ended.output


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("input: /in", "'input' is not a section"),
        ("protocol_version: newest", "no version"),
        ("run_mining: perhaps", "not true or false"),
        ("- a", "does not hold 'key: value' lines"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_env(env_file(tmp_path, text))


@pytest.mark.parametrize("text", ["", "{run_training: true, run_infer: true}"])
def test_tasks_that_there_are_not(tmp_path: Path, text: str) -> None:
    path = env_file(tmp_path, text)
    with pytest.raises(ConfigError):
        require_task(read_env(path), path)


def test_code_from_elsewhere_is_refused(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("git_url: https://example.com/a.git\n")
    with pytest.raises(ConfigError, match="runs no code from elsewhere"):
        read_config(config)
    config.write_text("git_url: ''\nepochs: '1e-05'\n")
    assert read_config(config)["epochs"] == "1e-05"
