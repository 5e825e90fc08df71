"""OpenVINO files (.xml with .bin beside it), run by OpenVINO."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ymir_tmi.config.schema import Precision
from ymir_tmi.errors import ModelError
from ymir_tmi.models.runtime.devices import Arithmetic, resolve_precision
from ymir_tmi.models.runtime.exported import ENTRY, Arrays, ExportedFile, ExportInfo, parse_info
from ymir_tmi.models.runtime.optional import optional

_PRECISIONS: dict[Arithmetic, str] = {"fp32": "f32", "bf16": "bf16"}


class OpenVinoFile(ExportedFile):
    """An OpenVINO file with an entry `ymir_tmi` in its runtime information.

    Args:
        path: the .xml file.
        threads: cores to use.
        precision: auto, fp32 or bf16.

    Raises:
        ConfigError: another precision.
        DependencyError: openvino is not installed.
        ModelError: a file is missing, is no OpenVINO file, is cut short, or was not written by `ymir-tmi export`.
    """

    def __init__(self, path: Path, *, threads: int = 1, precision: Precision = "auto") -> None:
        self.arithmetic = resolve_precision(precision, torch.device("cpu"))
        self.threads = threads
        network, self.info = _read(path)
        self._compiled = _compile(network, path, threads, self.arithmetic)
        self._requests = threading.local()
        # The first conversion of an array takes two locks in an order that depends on the thread: in two threads at
        # once, it never ends.
        self.run(_smallest_input(self.info))

    @classmethod
    def read_info(cls, path: Path) -> ExportInfo:
        """Return what a file says of itself, without preparing it to run."""
        return _read(path)[1]

    def run(self, inputs: npt.NDArray[Any]) -> Arrays:
        """Run the network on an input as `info.input` describes it; return the arrays of `info.output_names`."""
        if not hasattr(self._requests, "own"):
            self._requests.own = self._compiled.create_infer_request()
        results = self._requests.own.infer([inputs], share_inputs=True)
        return [results[name] for name in self.info.output_names]


@cache
def openvino_core() -> Any:
    """Return the one OpenVINO core of this process.

    A core gives the thread that first compiles with it a new stack for signals, and takes it away when the core goes.
    Of two cores that overlap, the second then restores the first one's, which is gone: the next signal, such as Ctrl-C,
    would end the process without a word.

    Raises:
        DependencyError: openvino is not installed.
    """
    return optional("openvino").Core()


def _read(path: Path) -> tuple[Any, ExportInfo]:
    """Return the network of a file, and what the file says of itself."""
    for file in (path, path.with_suffix(".bin")):
        if not file.is_file():
            raise ModelError("there is no such model file", where=file)
    # The one reader that is meant: others try the file as well when OpenVINO has the choice, and complain.
    frontend = optional("openvino").frontend.FrontEndManager().load_by_framework("ir")
    with _understood(path):
        network = frontend.convert(frontend.load(str(path)))
    return network, parse_info(network.get_rt_info([ENTRY]).astype(str) if network.has_rt_info([ENTRY]) else None, path)


def _compile(network: Any, path: Path, threads: int, arithmetic: Arithmetic) -> Any:
    streams = {
        "PERFORMANCE_HINT": "THROUGHPUT",
        "NUM_STREAMS": threads,
        "INFERENCE_NUM_THREADS": threads,
        "ENABLE_CPU_PINNING": False,
        "INFERENCE_PRECISION_HINT": _PRECISIONS[arithmetic],
    }
    with _understood(path):
        return openvino_core().compile_model(network, "CPU", streams)


@contextmanager
def _understood(path: Path) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise ModelError(f"this is not an OpenVINO file, or it is cut short: {reason}", where=path) from error


def _smallest_input(info: ExportInfo) -> npt.NDArray[Any]:
    height, width = info.spec.input.fixed or (4 * info.spec.input.stride,) * 2
    shape = (height, width, 3) if info.input.layout == "NHWC" else (3, height, width)
    return np.zeros((info.input.batch or 1, *shape), info.input.dtype)
