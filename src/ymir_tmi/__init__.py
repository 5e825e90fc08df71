"""Train, mine and infer with vision models.

The public names are resolved on first use, so that `import ymir_tmi` costs nothing and imports no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from ymir_tmi.config.schema import EvaluateSettings as EvaluateSettings
    from ymir_tmi.config.schema import ExportSettings as ExportSettings
    from ymir_tmi.config.schema import InferSettings as InferSettings
    from ymir_tmi.config.schema import MineSettings as MineSettings
    from ymir_tmi.config.schema import TrainSettings as TrainSettings
    from ymir_tmi.evaluation.run import evaluate as evaluate
    from ymir_tmi.exporting.run import export as export
    from ymir_tmi.inference.run import infer as infer
    from ymir_tmi.mining.run import mine as mine
    from ymir_tmi.models.catalog import create_model as create_model
    from ymir_tmi.models.catalog import list_models as list_models
    from ymir_tmi.models.checkpoint import load_model as load_model
    from ymir_tmi.training.run import train as train
    from ymir_tmi.weights.convert import convert_checkpoint as convert_checkpoint

_HOME = {
    "create_model": "ymir_tmi.models.catalog",
    "list_models": "ymir_tmi.models.catalog",
    "load_model": "ymir_tmi.models.checkpoint",
    "train": "ymir_tmi.training.run",
    "evaluate": "ymir_tmi.evaluation.run",
    "infer": "ymir_tmi.inference.run",
    "mine": "ymir_tmi.mining.run",
    "convert_checkpoint": "ymir_tmi.weights.convert",
    "export": "ymir_tmi.exporting.run",
    "TrainSettings": "ymir_tmi.config.schema",
    "EvaluateSettings": "ymir_tmi.config.schema",
    "InferSettings": "ymir_tmi.config.schema",
    "MineSettings": "ymir_tmi.config.schema",
    "ExportSettings": "ymir_tmi.config.schema",
}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'ymir_tmi' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
