"""From a file that holds a model to the model, ready to run: what PyTorch runs, and what was exported."""

from __future__ import annotations

from pathlib import Path

import torch

from ymir_tmi.config.schema import RunSettings
from ymir_tmi.data.classes import ClassSelection
from ymir_tmi.errors import ConfigError, ModelError
from ymir_tmi.models.checkpoint import ModelFileInfo, load_model, read_model_info
from ymir_tmi.models.interface import Network
from ymir_tmi.models.postprocess import resolve_max_dets
from ymir_tmi.models.runtime.exported import (
    ExportedFile,
    ExportedRuntime,
    ExportedSegmenter,
    check_image_size,
    check_runnable,
)
from ymir_tmi.models.runtime.interface import ClassGroups, Runtime
from ymir_tmi.models.runtime.onnx_runtime import OnnxFile
from ymir_tmi.models.runtime.openvino_runtime import OpenVinoFile
from ymir_tmi.models.runtime.torch_runtime import adapt_spec, build_runtime
from ymir_tmi.models.segment import PixelTest

_EXPORTED: dict[str, type[OnnxFile | OpenVinoFile]] = {".onnx": OnnxFile, ".xml": OpenVinoFile}


def open_model(path: Path, settings: RunSettings) -> tuple[Runtime, tuple[str, ...]]:
    """Load a model for inference as the settings of a verb say; return it and the names of the results' classes.

    Raises:
        ConfigError: a class, the device, the precision or the image size cannot be used.
        DependencyError: a GPU is asked for, and PyTorch has none; or the library that runs the file is missing.
        ModelError: the file is missing, damaged or for other programs.
    """
    source = open_file(path, settings)
    selection = ClassSelection.parse(settings.classes)
    class_names, groups = selection.groups(source.spec.class_names)
    return prepare(source, settings, groups if selection.renames else None), class_names


def open_file(path: Path, settings: RunSettings) -> Network | ExportedFile:
    """Open a model file or an exported file as the settings of a verb say; see `open_model`."""
    if path.suffix == ".torchscript":
        raise ModelError("TorchScript files are for other programs", where=path, fix="Give the model file.")
    kind = _EXPORTED.get(path.suffix.lower())
    if kind is None:
        return load_model(path)
    if settings.device not in ("auto", "cpu"):
        raise ConfigError(
            f"device '{settings.device}' is not for exported files, which run on the processor",
            where=path,
            fix="Leave it out, or give the model file.",
        )
    file = kind(path, threads=torch.get_num_threads(), precision=settings.precision)
    check_runnable(file.info, path)
    check_image_size(file.info, settings.image_size, path)
    return file


def prepare(source: Network | ExportedFile, settings: RunSettings, class_groups: ClassGroups | None = None) -> Runtime:
    """Return what `open_file` has opened, ready to run, with the input size and post-processing of the settings."""
    if isinstance(source, Network):
        return build_runtime(source, settings, class_groups)
    max_dets = resolve_max_dets(settings, rotated=source.spec.task == "rotated")
    spec = adapt_spec(source.spec, image_size=settings.image_size, iou=settings.iou, max_dets=max_dets)
    test = PixelTest.of(settings, spec)
    if spec.task != "semantics":
        return ExportedRuntime(source, spec, class_groups)
    if spec.input.fixed is not None and (test.window is not None or test.scales != (1.0,)):
        height, width = spec.input.fixed
        raise ConfigError(
            f"this file takes only inputs of {height} x {width} pixels (height x width), so that neither 'window' nor "
            "'scales' can be used with it",
            fix="Leave them out, or export the model with --dynamic-size.",
        )
    runtime = ExportedSegmenter(source, spec, class_groups)
    runtime.test = test
    return runtime


def describe_file(path: Path) -> ModelFileInfo:
    """Return what a model file or an exported file says of itself.

    Raises:
        DependencyError: the library that reads the file is missing.
        ModelError: the file is missing or damaged.
    """
    kind = _EXPORTED.get(path.suffix.lower())
    if kind is None:
        return read_model_info(path)
    info = kind.read_info(path)
    return ModelFileInfo(info.spec, info.licence, {})


def files_of(path: Path) -> list[Path]:
    """Return the files that a model consists of: weights of OpenVINO's lie beside their .xml."""
    return [path, path.with_suffix(".bin")] if path.suffix.lower() == ".xml" else [path]
