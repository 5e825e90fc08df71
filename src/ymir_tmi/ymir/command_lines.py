"""The command lines of the images' programs, as `args_options` holds them: one table each, one parser for all.

They are parsed as argparse does: `--option value`, `--option=value`, and any beginning of a name that fits one only.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NoReturn

from ymir_tmi.config.schema import Settings, TrainSettings
from ymir_tmi.errors import ConfigError
from ymir_tmi.ymir.detectron2_overrides import DETECTRON2_TRAINING
from ymir_tmi.ymir.effects import Effect, RunFacts, accepted, carry_out, choice, computes, nearest, refused, sets, whole
from ymir_tmi.ymir.mm_overrides import (
    DATA,
    DEVICES,
    FOLDER,
    HALF,
    LAUNCHER,
    MMDET_TRAINING,
    MMROTATE_TRAINING,
    MMSEG_TRAINING,
    MMYOLO_TRAINING,
    RESUME,
    SCALED_RATE,
    SEEDS,
    WEIGHTS,
)
from ymir_tmi.ymir.model_names import YOLOV5_MODELS, YOLOV5_SEG_MODELS, ConfigTable, find_config
from ymir_tmi.ymir.overrides import (
    OverrideTable,
    Row,
    describe_overrides,
    find_effects,
    read_pairs,
    read_yacs,
    split_words,
)

_KEY = "args_options"
_WORDS: dict[str, Any] = {"flag": None, "one": None, "optional": "?", "several": "+", "rest": argparse.REMAINDER}


@dataclass(frozen=True)
class Option:
    """An option.

    Attributes:
        names: of it.
        words: that follow it: none (`flag`), one, none or one (`optional`), some (`several`), all others (`rest`).
        effect: what it does; None where its words are overrides of the config.
    """

    names: tuple[str, ...]
    words: Literal["flag", "one", "optional", "several", "rest"]
    effect: Effect | None


@dataclass(frozen=True)
class CommandLine:
    """A program.

    Attributes:
        program: what it is called.
        kind: settings of the verb that it stands for.
        options: all that it has.
        overrides: of its config, where it takes such.
        read: reads overrides.
        loose: whether words without an option are overrides.
    """

    program: str
    kind: type[Settings]
    options: tuple[Option, ...]
    overrides: OverrideTable | None = None
    read: Callable[[Sequence[str], str], list[tuple[str, Any]]] = read_pairs
    loose: bool = False


def read_args_options(text: str, table: CommandLine, run: RunFacts | None = None) -> dict[str, Any]:
    """Return what a command line comes to: fields of the table's settings; changes of the recipe stand in `set`.

    Args:
        text: options and their values, as in a shell.
        table: of the program.
        run: what the other parameters say of the run.

    Raises:
        ConfigError: an option is unknown or refused, or its value is missing or not allowed.
    """
    given, others = _parser(table).parse_known_args(split_words(text, _KEY))
    unknown = next((word for word in others if word.startswith("--") or not table.loose), None)
    if unknown is not None:
        raise _unknown(unknown, table)
    words = others
    options: list[tuple[str, Any, Effect]] = []
    for option in table.options:
        value = getattr(given, option.names[0], None)
        if value is None:
            continue
        if option.effect is None:
            words = [*words, *value]
        else:
            options.append((option.names[0], value, option.effect))
    changes = find_effects(table.read(words, _KEY), table.overrides) if table.overrides else []
    return carry_out([*changes, *options], table.kind, run or RunFacts(), _KEY)


def describe(table: CommandLine) -> list[Row]:
    """Return the table as lines of documentation: options, then overrides of the config."""
    options = [
        Row(", ".join(option.names), option.effect.kind, option.effect.fields, option.effect.text)
        for option in table.options
        if option.effect is not None
    ]
    return [*options, *(describe_overrides(table.overrides) if table.overrides else [])]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(message, where=_KEY)


def _parser(table: CommandLine) -> _Parser:
    parser = _Parser(prog=table.program, add_help=False, argument_default=argparse.SUPPRESS)
    for option in table.options:
        kind: dict[str, Any] = {"action": "store_const", "const": True}
        if option.words != "flag":
            kind = {"nargs": _WORDS[option.words], "const": True if option.words == "optional" else None}
        parser.add_argument(*option.names, dest=option.names[0], **kind)
    return parser


def _unknown(word: str, table: CommandLine) -> ConfigError:
    name = word.partition("=")[0]
    if not name.startswith("-"):
        return ConfigError(f"'{word}' belongs to no option", where=_KEY, fix="Options begin with '--'.")
    known = [name for option in table.options for name in option.names]
    return ConfigError(f"{table.program} has no option '{name}'", where=_KEY, fix=nearest(name, known))


def _batch_of_yolov5(value: Any) -> Any:
    return "auto" if whole(value) == -1 else whole(value)


def _last_epoch_only(value: Any, run: RunFacts) -> dict[str, Any]:
    if run.epochs is None:
        raise ValueError("the number of epochs is not known")
    return {"val_interval": run.epochs}


def _frozen_layers(value: Any, run: RunFacts) -> dict[str, Any]:
    """Translate numbers of YOLOv5's layers, of which those of the backbone are known: one number N is the first N."""
    convs = 10 if (run.model or "").endswith("6") else 8
    pairs = [f"backbone.stages.{number // 2}.{number % 2}" for number in range(convs)]
    layers = ["backbone.stem", *pairs, f"backbone.stages.{convs // 2 - 1}.2"]
    numbers = [whole(number) for number in value]
    chosen = range(numbers[0]) if len(numbers) == 1 else numbers
    if any(not 0 <= number < len(layers) for number in chosen):
        raise ValueError(f"the layers of the backbone are possible, which are the first {len(layers)}")
    return {"recipe.freeze": [layers[number] for number in chosen]}


def _hyper_parameters(value: Any) -> Any:
    sets_of_yolov5 = {f"hyp.scratch-{name}.yaml": name for name in ("low", "med", "high")}
    return choice(sets_of_yolov5)(str(value).rpartition("/")[2])


def _model_of(models: ConfigTable) -> Callable[[Any], str]:
    return lambda value: find_config(value, replace(models, key=_KEY)).model


def _all_devices(value: Any, run: RunFacts) -> dict[str, Any]:
    if whole(value) != run.machine.devices:
        raise ValueError(f"the platform's gpu_id gives {run.machine.devices}")
    return {}


_ALL_DEVICES = Effect("accepted", (), "if it is the number of devices that the platform's gpu_id gives", _all_devices)
_SAVING = refused("give the parameters save_period and save_best_only")
_CLOUD = refused("nothing is sent to other servers")


_YOLOV5_OPTIONS = (
    Option(("--weights",), "one", WEIGHTS),
    Option(("--data",), "one", DATA),
    Option(("--hyp",), "one", sets("recipe", _hyper_parameters, text="hyp.scratch-low.yaml, -med, -high")),
    Option(("--epochs",), "one", sets("epochs", whole)),
    Option(("--batch-size",), "one", sets("batch", _batch_of_yolov5, text="over all devices; -1 is auto")),
    Option(("--imgsz", "--img", "--img-size"), "one", sets("image_size", whole, text="rounded up to the stride")),
    Option(("--rect",), "flag", refused("batches of a training are square")),
    Option(("--resume",), "optional", RESUME),
    Option(("--nosave",), "flag", _SAVING),
    Option(("--noval",), "flag", computes("val_interval", by=_last_epoch_only, text="after the last epoch only")),
    Option(("--noautoanchor",), "flag", sets("recipe.auto_anchor", choice({"True": False}))),
    Option(("--noplots",), "flag", refused("the report always has its charts")),
    Option(("--evolve",), "optional", refused("hyper-parameters are not evolved")),
    Option(("--bucket",), "one", _CLOUD),
    Option(("--cache",), "optional", refused("pictures are read from the disk while the network works")),
    Option(("--image-weights",), "flag", sets("recipe.image_weights")),
    Option(("--device",), "one", DEVICES),
    Option(
        ("--multi-scale",),
        "flag",
        sets("recipe.augment.multiscale", choice({"True": (0.5, 1.5)}), augment__multiscale_interval=1),
    ),
    Option(("--single-cls",), "flag", refused("the classes are those of the task")),
    Option(("--optimizer",), "one", sets("recipe.optimizer.name", choice({"SGD": "sgd", "AdamW": "adamw"}))),
    Option(("--sync-bn",), "flag", sets("recipe.sync_norms")),
    Option(("--workers",), "one", sets("workers", whole, text="for each device")),
    Option(("--project",), "one", FOLDER),
    Option(("--name",), "one", FOLDER),
    Option(("--exist-ok",), "flag", accepted("results lie where the platform wants them")),
    Option(("--quad",), "flag", refused("there is no loader that puts four pictures together")),
    Option(("--cos-lr",), "flag", sets("recipe.schedule.curve", choice({"True": "cosine"}))),
    Option(("--label-smoothing",), "one", sets("recipe.loss.label_smoothing")),
    Option(("--patience",), "one", sets("patience", lambda value: whole(value) or None, text="0 never stops early")),
    Option(
        ("--freeze",),
        "several",
        computes("recipe.freeze", by=_frozen_layers, text="of the backbone: the first N layers, or several numbers"),
    ),
    Option(("--save-period",), "one", _SAVING),
    Option(("--seed",), "one", sets("seed", whole)),
    Option(("--local_rank",), "one", LAUNCHER),
    Option(("--entity",), "one", _CLOUD),
    Option(("--upload_dataset",), "optional", _CLOUD),
    Option(("--bbox_interval",), "one", _CLOUD),
    Option(("--artifact_alias",), "one", _CLOUD),
)


def _yolov5(program: str, models: ConfigTable, *more: Option) -> CommandLine:
    model = Option(("--cfg",), "one", sets("model", _model_of(models)))
    return CommandLine(program, TrainSettings, (model, *_YOLOV5_OPTIONS, *more))


_MM_OPTIONS = (
    Option(("--work-dir",), "one", FOLDER),
    Option(("--resume-from",), "one", RESUME),
    Option(("--resume",), "optional", RESUME),
    Option(("--auto-resume",), "flag", RESUME),
    Option(("--load-from",), "one", WEIGHTS),
    Option(("--no-validate",), "flag", refused("the platform wants to know how good a model is")),
    Option(("--gpus",), "one", _ALL_DEVICES),
    Option(("--gpu-ids",), "several", DEVICES),
    Option(("--gpu-id",), "one", DEVICES),
    Option(("--seed",), "one", sets("seed", whole)),
    Option(("--diff-seed", "--diff_seed"), "flag", SEEDS),
    Option(
        ("--deterministic",), "flag", refused("the kernels of a GPU are not made deterministic; draws follow the seed")
    ),
    Option(("--options",), "several", None),
    Option(("--cfg-options",), "several", None),
    Option(("--launcher",), "one", LAUNCHER),
    Option(("--local_rank", "--local-rank"), "one", LAUNCHER),
    Option(("--auto-scale-lr",), "flag", SCALED_RATE),
    Option(("--amp",), "flag", HALF),
)


def _mm_tools(overrides: OverrideTable) -> CommandLine:
    return CommandLine("tools/train.py", TrainSettings, _MM_OPTIONS, replace(overrides, key=_KEY))


YOLOV5 = _yolov5("train.py", YOLOV5_MODELS)
YOLOV5_SEG = _yolov5(
    "segment/train.py",
    YOLOV5_SEG_MODELS,
    Option(("--mask-ratio",), "one", accepted("masks are a quarter of the picture's size", 4)),
    Option(("--no-overlap",), "flag", refused("where objects overlap, the pixels are the smaller one's")),
)
MMDET_TOOLS = _mm_tools(MMDET_TRAINING)
MMYOLO_TOOLS = _mm_tools(MMYOLO_TRAINING)
MMROTATE_TOOLS = _mm_tools(MMROTATE_TRAINING)
MMSEG_TOOLS = _mm_tools(MMSEG_TRAINING)
DETECTRON2 = CommandLine(
    "train_net.py",
    TrainSettings,
    (
        Option(("--config-file",), "one", refused("give the parameter config_file")),
        Option(("--resume",), "flag", RESUME),
        Option(("--eval-only",), "flag", refused("this is a training")),
        Option(("--num-gpus",), "one", _ALL_DEVICES),
        Option(("--num-machines",), "one", accepted("a task runs on one machine", 1)),
        Option(("--machine-rank",), "one", accepted("a task runs on one machine", 0)),
        Option(("--dist-url",), "one", LAUNCHER),
        Option(("--opts",), "rest", None),
    ),
    DETECTRON2_TRAINING,
    read_yacs,
    loose=True,
)
