"""The command line: one short function per verb. Nothing heavy is imported before a verb runs."""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any, Protocol

import typer

from ymir_tmi import __version__
from ymir_tmi.config.schema import (
    CheckSettings,
    ConvertSettings,
    ConvertWeightsSettings,
    DownloadSettings,
    EvaluateSettings,
    ExportSettings,
    InferSettings,
    MineSettings,
    SplitSettings,
    TileSettings,
    TrainSettings,
    VerifySettings,
)
from ymir_tmi.errors import TmiError
from ymir_tmi.options import add_verb

app = typer.Typer(
    name="ymir-tmi",
    help="Train, mine and infer with vision models: which unlabelled images should be labelled next, and why.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
weights_app = typer.Typer(
    help="List, download, verify and convert official weights.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(weights_app, name="weights")
ymir_app = typer.Typer(help="Serve as an image of the YMIR platform.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(ymir_app, name="ymir")


class Result(Protocol):
    """What every verb returns."""

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able values."""
        ...

    def to_text(self) -> str:
        """Return what a person wants to read."""
        ...


def main() -> None:
    """Run the command line: a user's mistake prints one message and exits with 2."""
    warnings.formatwarning = lambda message, *_: f"warning: {message}\n"  # without a line of our code
    try:
        app()
    except TmiError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # the reader of our output (head, less) has gone
        sys.stderr.close()
        sys.exit(141)


def _show(result: Result, as_json: bool) -> None:
    if os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) != "0":
        return  # of several processes the first one speaks
    print(json.dumps(result.to_dict(), ensure_ascii=False) if as_json else result.to_text())


def _train(settings: TrainSettings, as_json: bool) -> None:
    from ymir_tmi.training.run import train

    _show(train(settings), as_json)


def _evaluate(settings: EvaluateSettings, as_json: bool) -> None:
    from ymir_tmi.evaluation.run import evaluate

    _show(evaluate(settings), as_json)


def _infer(settings: InferSettings, as_json: bool) -> None:
    from ymir_tmi.inference.run import infer

    _show(infer(settings), as_json)


def _mine(settings: MineSettings, as_json: bool) -> None:
    from ymir_tmi.mining.run import mine

    _show(mine(settings), as_json)


def _export(settings: ExportSettings, as_json: bool) -> None:
    from ymir_tmi.exporting.run import export

    _show(export(settings), as_json)


def _check(settings: CheckSettings, as_json: bool) -> None:
    from ymir_tmi.data.check import check_dataset
    from ymir_tmi.data.read import list_splits

    found = check_dataset(
        list_splits(settings.data, settings.format),
        images=settings.images,
        format=settings.format,
        fast=settings.fast,
        quiet=as_json,
    )
    _show(found, as_json)
    if not found.ok:
        sys.exit(1)


def _convert(settings: ConvertSettings, as_json: bool) -> None:
    from ymir_tmi.data.convert import convert

    conversion = convert(
        settings.data,
        to=settings.to,
        output=settings.output,
        split=settings.split,
        images=settings.images,
        format=settings.format,
        classes=settings.classes,
        rotated=settings.rotated,
        blank=settings.blank,
        copy=settings.copy_pictures,
    )
    _show(conversion, as_json)


def _split(settings: SplitSettings, as_json: bool) -> None:
    from ymir_tmi.data.classes import ClassSelection
    from ymir_tmi.data.convert import write_data_set
    from ymir_tmi.data.read import read_dataset
    from ymir_tmi.data.split import parse_shares, split_dataset

    shares = parse_shares(settings.parts)
    whole = read_dataset(settings.data, split=settings.split, images=settings.images, format=settings.format)
    chosen = ClassSelection.parse(settings.classes).apply(whole)
    parts = split_dataset(chosen, shares, seed=settings.seed, group=settings.group)
    written = write_data_set(
        parts,
        to=settings.to,
        output=settings.output,
        rotated=settings.rotated,
        blank=settings.blank,
        copy=settings.copy_pictures,
    )
    _show(written, as_json)


def _tile(settings: TileSettings, as_json: bool) -> None:
    from ymir_tmi.data.convert import read_splits
    from ymir_tmi.data.patches import cut_data_set
    from ymir_tmi.data.tiles import Tiling

    tiling = Tiling(settings.size, settings.overlap)
    tilings = [tiling.at_rate(rate) for rate in settings.rates]
    splits = read_splits(
        settings.data,
        split=settings.split,
        images=settings.images,
        format=settings.format,
        classes=settings.classes,
    )
    written = cut_data_set(
        splits,
        tilings,
        output=settings.output,
        rotated=settings.rotated,
        pad=settings.pad,
        keep_empty=settings.empty,
        jpeg_quality=settings.jpeg_quality,
        quiet=as_json,
    )
    _show(written, as_json)


def _download(settings: DownloadSettings, as_json: bool) -> None:
    from ymir_tmi.weights.download import download

    _show(download(settings.names, cache=settings.cache, mirror=settings.mirror, quiet=as_json), as_json)


def _verify(settings: VerifySettings, as_json: bool) -> None:
    from ymir_tmi.weights.cache import verify

    found = verify(settings.names, cache=settings.cache)
    _show(found, as_json)
    if not found.ok:
        sys.exit(1)


def _convert_weights(settings: ConvertWeightsSettings, as_json: bool) -> None:
    from ymir_tmi.weights.convert import convert_checkpoint

    converted = convert_checkpoint(
        settings.source,
        settings.output,
        model=settings.model,
        class_names=settings.classes,
        allow_partial=settings.partial,
        cache=settings.cache,
    )
    _show(converted, as_json)


add_verb(app, "train", TrainSettings, _train)
add_verb(app, "evaluate", EvaluateSettings, _evaluate)
add_verb(app, "infer", InferSettings, _infer, inherits=True)
add_verb(app, "mine", MineSettings, _mine, inherits=True)
add_verb(app, "export", ExportSettings, _export, argument="model")
add_verb(app, "check", CheckSettings, _check, argument="data")
add_verb(app, "convert", ConvertSettings, _convert, argument="data")
add_verb(app, "split", SplitSettings, _split, argument="data")
add_verb(app, "tile", TileSettings, _tile, argument="data")


@weights_app.command("list")
def list_weights(as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False) -> None:
    """List the official weights that are known, with their licences."""
    from ymir_tmi.weights.table import WeightsList, official_weights

    _show(WeightsList(official_weights()), as_json)


add_verb(weights_app, "download", DownloadSettings, _download, argument="names")
add_verb(weights_app, "verify", VerifySettings, _verify, argument="names")
add_verb(weights_app, "convert", ConvertWeightsSettings, _convert_weights, argument="source")


@ymir_app.command("start")
def start_task(
    profile: Annotated[
        str | None, typer.Option(help="Which image this is; by default $YMIR_TMI_PROFILE, else all-in-one.")
    ] = None,
    env: Annotated[Path, typer.Option(help="The platform's env.yaml.", envvar="DEFAULT_ENV_FILE_PATH")] = Path(
        "/in/env.yaml"
    ),
) -> None:
    """Do what the platform asks for in /in, and leave in /out what it expects."""
    from ymir_tmi.ymir.start import start

    sys.exit(start(profile, env))


@ymir_app.command("img-man")
def write_templates(
    profile: Annotated[str, typer.Option(help="mmdet, mmyolo, mmrotate, detectron2 or all-in-one.")],
    output: Annotated[Path, typer.Option(help="Folder to write; files of the same names are replaced.")],
) -> None:
    """Write the folder /img-man of an image: its manifest and the templates of its parameters."""
    from ymir_tmi.ymir.images import find_profile
    from ymir_tmi.ymir.img_man import write_img_man

    print("\n".join(map(str, write_img_man(find_profile(profile), output))))


@ymir_app.command("verify")
def verify_output(
    path: Annotated[Path | None, typer.Argument(help="What an image left in /out, or a copy of its /img-man.")] = None,
    task: Annotated[Path | None, typer.Option("--in", help="The /in that belongs to it, to compare with.")] = None,
    profile: Annotated[
        str | None, typer.Option(help="In place of PATH: run every task of this image on drawn pictures.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Tell what the platform would reject, each in a line; exits with 1 if there is something."""
    from ymir_tmi.ymir.verify import verify_or_try

    found = verify_or_try(path, task, profile)
    _show(found, as_json)
    if not found.ok:
        sys.exit(1)


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="Run folder of train, evaluate, infer or mine.")],
    output: Annotated[Path | None, typer.Option(help="Page to write; by default report.html in the run.")] = None,
) -> None:
    """Write one self-contained HTML page about a run."""
    from ymir_tmi.report.run import report as write_report

    print(write_report(run, output=output))


@app.command()
def models(as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False) -> None:
    """List the models, their sizes and their official weights."""
    from ymir_tmi.weights.overview import model_table

    _show(model_table(), as_json)


@app.command()
def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False) -> None:
    """Tell versions, processor and GPU, and what is wrong with them."""
    from ymir_tmi.doctor import diagnose

    diagnosis = diagnose()
    _show(diagnosis, as_json)
    if diagnosis.problems:
        sys.exit(1)


@app.command()
def demo(
    output: Annotated[Path | None, typer.Option(help="Folder to make; by default runs/demo-N.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the drawn pictures and of the runs.")] = 0,
) -> None:
    """Generate pictures, train, evaluate, infer, mine and report: the main job in a few minutes."""
    from ymir_tmi.demo.run import run_demo

    print(run_demo(output, seed=seed).to_text())


@app.command()
def version() -> None:
    """Print the version."""
    print(__version__)


if __name__ == "__main__":
    main()
