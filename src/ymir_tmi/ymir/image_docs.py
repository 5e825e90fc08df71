"""A page in each language about every image, made from its parameters: python -m ymir_tmi.ymir.image_docs FOLDER."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ymir_tmi.files.atomic import write_text
from ymir_tmi.ymir.command_lines import describe
from ymir_tmi.ymir.images import PROFILES
from ymir_tmi.ymir.model_names import ConfigTable
from ymir_tmi.ymir.overrides import Row, describe_overrides
from ymir_tmi.ymir.parameters import DocumentHad, Parameter, Parameters, TemplateHad
from ymir_tmi.ymir.profile import Profile, Tasks
from ymir_tmi.ymir.values import Words

_OBJECT_TYPES = {
    2: Words("Boxes (object_type 2)", "目标检测（object_type 2）"),
    3: Words("Classes of pixels (object_type 3)", "语义分割（object_type 3）"),
    4: Words("Masks of objects (object_type 4)", "实例分割（object_type 4）"),
}
_TASKS = {
    "training": Words("Training", "训练参数"),
    "mining": Words("Mining", "挖掘参数"),
    "infer": Words("Inference", "推理参数"),
}
_COLUMNS = Words("parameter | default | allowed | meaning | sets here", "超参数 | 默认值 | 可选值 | 说明 | 对应设置")
_HIDDEN = Words("Understood as well, and not in the template:", "模板中没有、但同样支持的超参数：")
_INTRODUCTION = Words(
    """\
Made from `src/ymir_tmi/ymir/images/` by `make docs`; do not edit.

A value may be a number or text (`'0.01'`, `'1e-05'`, `'True'`, `1`); one that is missing, empty or null takes its
default. A wrong one, or an unknown key, stops the run with return code 300001, and the message names the key, the value
and what is allowed.
In a run of mining and inference, one value of a key holds for both; a missing one takes each task's default.
The last column names settings of `ymir-tmi` ([settings.md](../settings.md)).
""",
    """\
本页由 `make docs` 根据 `src/ymir_tmi/ymir/images/` 生成，请勿直接修改。

数值可以写成数字或字符串（`'0.01'`、`'1e-05'`、`'True'`、`1`）；缺失、为空或为 null 时采用默认值。取值有误或超参数名
未知时，任务停止，返回码为 300001，并指出超参数名、取值与可选值。
挖掘与推理同时进行时，同名的超参数对两者都有效；缺失时各自采用默认值。
最后一列是 `ymir-tmi` 的设置（[settings.md](../settings.md)）。
""",
)

Language = Callable[[Words], str]


def english(words: Words) -> str:
    """Return the English words."""
    return words.english


def chinese(words: Words) -> str:
    """Return the Chinese words."""
    return words.chinese


def pages() -> dict[str, str]:
    """Return every page by the name of its file."""
    found = {}
    for name, profile in PROFILES.items():
        found[f"{name}.md"] = _page(profile, english)
        found[f"{name}.zh-CN.md"] = _page(profile, chinese)
    return found


def _page(profile: Profile, say: Language) -> str:
    other = Words(f"[中文]({profile.name}.zh-CN.md)", f"[English]({profile.name}.md)")
    title = Words(f"# The image {profile.name}", f"# {profile.name} 镜像")
    parts = [say(title), say(other), say(profile.title) + say(Words(".", "。")), say(_INTRODUCTION).rstrip()]
    level = "##" if len(profile.tasks) == 1 else "###"
    for object_type, tasks in profile.tasks.items():
        if len(profile.tasks) > 1:
            parts.append(f"## {say(_OBJECT_TYPES[object_type])}")
        for task, parameters in tasks.named().items():
            parts += [f"{level} {say(_TASKS[task])}", *_parameters(parameters, say)]
        parts += _names(tasks.names, level, say)
        if say is english:
            parts += _options(tasks, level)
        else:
            parts.append(f"`args_options` 与 `cfg_options` 中各选项的含义见[英文页]({profile.name}.md)。")
    return "\n\n".join(parts) + "\n"


def _parameters(parameters: type[Parameters], say: Language) -> Iterator[str]:
    """Yield the table of a template, then that of what it does not hold."""
    for hidden in (False, True):
        chosen = [each for each in parameters.parameters() if each.hidden == hidden]
        if chosen and hidden:
            yield say(_HIDDEN)
        if chosen:
            yield _table(say(_COLUMNS).split(" | "), [_cells(each, say) for each in chosen])


def _cells(parameter: Parameter, say: Language) -> list[str]:
    about = parameter.help
    keys = [f"`{key}`" for key in parameter.keys]
    allowed = say(parameter.reader.allowed)
    return [", ".join(keys), _code(parameter.default), allowed, _meaning(parameter, say), about.sets or "-"]


def _meaning(parameter: Parameter, say: Language) -> str:
    """Return the help, with a remark where documents of the original image disagree."""
    text = say(Words(parameter.help.english, parameter.help.chinese))
    template, document = parameter.mark(TemplateHad), parameter.mark(DocumentHad)
    if template is not None:
        had = _code(template.default)
        text += say(Words(f" The template of the original image had {had}.", f"原镜像的模板为 {had}。"))
    if document is not None:
        had = _code(document.default)
        remark = Words(
            f" The document of the original image names {had}, which it never had.",
            f"原镜像的文档写作 {had}，但该镜像并不支持。",
        )
        text += say(remark)
    return text


def _names(names: ConfigTable, level: str, say: Language) -> Iterator[str]:
    """Yield the models by the names that a training knows them by."""
    yield f"{level} " + say(Words(f"Values of `{names.key}`", f"`{names.key}` 的取值"))
    yield say(
        Words(
            "A path, its last part with or without suffix, and an address in the web are one; a folder stands for its "
            "first config.",
            "路径、文件名（有无后缀均可）与网址等价；目录代表其中第一个配置。",
        )
    )
    rows = [
        [f"`{name}`", f"`{choice.model}`", choice.values.get("recipe", "-")] for name, choice in names.configs.items()
    ]
    yield _table(say(Words("name | model here | recipe", "名字 | 对应模型 | 训练策略")).split(" | "), rows)


def _options(tasks: Tasks, level: str) -> Iterator[str]:
    """Yield what options in text mean; a command line may hold overrides of the config too."""
    overrides = describe_overrides(tasks.cfg_options) if tasks.cfg_options is not None else []
    yield f"{level} What is in `args_options`"
    yield _option_table([row for row in describe(tasks.args_options) if row not in overrides])
    if overrides:
        yield f"{level} What is in `cfg_options`, and behind `--cfg-options`"
        yield _option_table(overrides)


def _option_table(rows: Sequence[Row]) -> str:
    cells = [
        [f"`{row.option}`", row.kind, ", ".join(f"`{name}`" for name in row.fields) or "-", row.text] for row in rows
    ]
    return _table(["option", "is", "fields", "remark"], cells)


def _code(value: Any) -> str:
    return "`''`" if value == "" else f"`{value}`"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |" for cells in lines)


if __name__ == "__main__":
    for file, text in pages().items():
        write_text(Path(sys.argv[1]) / file, text)
