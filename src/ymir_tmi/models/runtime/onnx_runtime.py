"""ONNX files, run by ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy.typing as npt

from ymir_tmi.config.schema import Precision
from ymir_tmi.errors import ConfigError, ModelError
from ymir_tmi.models.runtime.exported import ENTRY, Arrays, ExportedFile, ExportInfo, parse_info
from ymir_tmi.models.runtime.optional import optional

_FATAL_ONLY = 4  # what goes wrong is raised as well


class OnnxFile(ExportedFile):
    """An ONNX file with an entry `ymir_tmi` in its metadata.

    Args:
        path: the file.
        threads: cores to use.
        precision: auto or fp32; ONNX Runtime computes what the file says, and that is fp32.

    Raises:
        ConfigError: another precision.
        DependencyError: onnxruntime is not installed.
        ModelError: the file is missing, is no ONNX file, is cut short, or was not written by `ymir-tmi export`.
    """

    def __init__(self, path: Path, *, threads: int = 1, precision: Precision = "auto") -> None:
        if precision not in ("auto", "fp32"):
            raise ConfigError(
                f"precision {precision} is not for ONNX files", where=path, fix="Use fp32 or auto, or an OpenVINO file."
            )
        self.arithmetic = "fp32"
        self.threads = threads
        self._session = _open_session(path, optimise=True)
        self.info = _info_of(self._session, path)

    @classmethod
    def read_info(cls, path: Path) -> ExportInfo:
        """Return what a file says of itself, without preparing it to run."""
        return _info_of(_open_session(path, optimise=False), path)

    def run(self, inputs: npt.NDArray[Any]) -> Arrays:
        """Run the network on an input as `info.input` describes it; return the arrays of `info.output_names`."""
        arrays: Arrays = self._session.run(list(self.info.output_names), {self.info.input.name: inputs})
        return arrays


def _info_of(session: Any, path: Path) -> ExportInfo:
    return parse_info(session.get_modelmeta().custom_metadata_map.get(ENTRY), path)


def _open_session(path: Path, *, optimise: bool) -> Any:
    if not path.is_file():
        raise ModelError("there is no such model file", where=path)
    runtime = optional("onnxruntime")
    options = runtime.SessionOptions()
    # Inputs are computed side by side, one core each (see `models.runtime.streams`).
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL_ONLY
    if not optimise:
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no base class of their own
        reason = str(error).strip().partition("\n")[0].rpartition("failed:")[2]
        raise ModelError(f"this is not an ONNX file, or it is cut short: {reason}", where=path) from error
