"""Libraries that not every installation has."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

from ymir_tmi.errors import DependencyError

# Library: the extra of this package that brings it.
_EXTRAS = {"onnx": "export", "onnxscript": "export", "onnxruntime": "export", "openvino": "openvino"}


def optional(name: str) -> ModuleType:
    """Import a library.

    Raises:
        DependencyError: it is not installed.
    """
    if name == "openvino":
        # Importing it tells Google Analytics so, in a thread of its own, unless its telemetry cannot be imported.
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise DependencyError(
            f"the library {name} is missing", fix=f"Install it: pip install 'ymir-tmi[{_EXTRAS[name]}]'"
        ) from error
