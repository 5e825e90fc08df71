"""Showing more often what is learnt badly (docs/specs/yolov5.md, section 10)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from lightning.pytorch import Callback, LightningModule, Trainer

from ymir_tmi.data.index import DatasetIndex
from ymir_tmi.evaluation.semantic_results import SemanticResult
from ymir_tmi.training.callbacks import Validate
from ymir_tmi.training.module import NetworkModule


def image_weights(index: DatasetIndex, class_ap: Mapping[str, float]) -> npt.NDArray[np.float64]:
    """Return (N,) how likely each image is to be drawn; they add up to 1.

    An object of class c counts `(1 - AP_c)^2 / objects of c`, and an image as much as its objects together. Crowd
    regions and difficult objects do not count, and an image without others is not drawn.

    Args:
        index: the training images.
        class_ap: AP of each class in [0, 1]; a class that is not there has 0.
    """
    ordinary = index.flags == 0
    labels, images = index.labels[ordinary], index.image_of_box()[ordinary]
    counts = np.bincount(labels, minlength=index.num_classes)
    errors = np.array([1 - class_ap.get(name, 0.0) for name in index.class_names])
    # An AP of 1 is rounded: a class is never forgotten altogether.
    weights = np.maximum(errors, 1e-3) ** 2 / np.maximum(counts, 1)
    sums = np.bincount(images, weights[labels], minlength=len(index))
    shares: npt.NDArray[np.float64] = sums / sums.sum()
    return shares


class WeighImages(Callback):
    """Gives the loader the weights that follow from the latest validation, before each epoch.

    Args:
        index: the training images.
        validate: comes earlier in the trainer's list.
    """

    def __init__(self, index: DatasetIndex, validate: Validate) -> None:
        self._index = index
        self._validate = validate
        self._class_ap: dict[str, float] = {}

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set the weights of the epoch that begins."""
        assert isinstance(pl_module, NetworkModule)
        pl_module.loader.set_weights(image_weights(self._index, self._class_ap))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the AP of each class; one without objects to measure it by has the mean of the others."""
        result = self._validate.result
        assert not isinstance(result, SemanticResult), "recipes of label maps have no image weights"
        if result is not None:
            mean = result.means.AP or 0.0
            self._class_ap = {row.name: mean if row.AP is None else row.AP for row in result.classes}

    def state_dict(self) -> dict[str, Any]:
        """Return the AP of each class, for the checkpoint."""
        return {"class_ap": self._class_ap}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the AP of each class from a checkpoint."""
        self._class_ap = state_dict["class_ap"]
