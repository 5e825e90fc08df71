"""Numbers that reference implementations computed ("goldens"), and how they are found.

A golden is a json file, which says what was computed, with the numbers in an npz file beside it. The sub-folder says
by which rules to read it (the schema). `YMIR_TMI_GOLDENS` names a folder with more of them than this repository holds;
a new golden is found by itself.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import goldenlib
import numpy as np
import torch
from torch import Tensor, nn

from ymir_tmi.models.catalog import canonical_name, create_model, list_models
from ymir_tmi.models.convert.keys import from_official
from ymir_tmi.models.interface import Detections, Detector, Targets

_REPOSITORY = Path(__file__).parents[2]
FOLDER = _REPOSITORY / os.environ.get("YMIR_TMI_GOLDENS", "tests/goldens")


def find_variants(schema: str) -> tuple[list[str], list[str]]:
    """Return the variants of this schema that have a model here, and those that have none."""
    named = sorted(
        content["variant"]
        for path in (FOLDER / schema).glob("*.json")
        if "variant" in (content := json.loads(path.read_text()))
    )
    known = {row.name for row in list_models()}
    has_model = {name: canonical_name(name) in known for name in named}
    return [name for name in named if has_model[name]], [name for name in named if not has_model[name]]


@dataclass(frozen=True)
class Golden:
    """One variant: what the json says, and the arrays."""

    schema: str
    variant: str

    @cached_property
    def facts(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((FOLDER / self.schema / f"{self.variant}.json").read_text())
        return content

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        with np.load(FOLDER / self.schema / f"{self.variant}.npz") as file:
            return {name: file[name] for name in file.files}

    def group(self, prefix: str) -> dict[str, np.ndarray]:
        """Return the arrays of one group, by the rest of their names."""
        return {name.removeprefix(prefix): array for name, array in self.arrays.items() if name.startswith(prefix)}

    def weights(self) -> dict[str, Tensor]:
        """Return the generated weights under the reference's names; keys that share a tensor get equal values."""
        aliases = self.facts["aliases"]
        return {
            key: torch.from_numpy(goldenlib.tensor_for(aliases.get(key, key), tuple(shape)))
            for key, shape, _ in self.facts["state_dict"]
        }

    def model(self) -> Detector:
        """Return our model with these weights, in evaluation mode, float32."""
        model = create_model(self.variant, num_classes=self.facts["num_classes"])
        model.load_state_dict({from_official(model.spec.family, key): value for key, value in self.weights().items()})
        return model.eval()

    def images(self, which: str) -> Tensor:
        """Return the normalised float32 images of the "eval" or "train" input."""
        entry = self.facts["inputs"][which]
        return torch.from_numpy(goldenlib.image_batch(entry["name"], tuple(entry["shape"])))

    def targets(self) -> Targets:
        """Return the objects of the "train" input."""
        height, width = self.facts["inputs"]["gt_image"]
        pairs = [
            goldenlib.boxes(entry["name"], entry["n"], height, width, self.facts["num_classes"])
            for entry in self.facts["inputs"]["gt"]
        ]
        return Targets(
            [torch.from_numpy(boxes) for boxes, _ in pairs], [torch.from_numpy(labels) for _, labels in pairs]
        )

    def tolerance(self, name: str) -> float:
        """Return how far a float32 result may be off, relative to the largest number: 1e-4, or what the json states."""
        stated: float = self.facts["float32_vs_float64_max_relative_difference"].get(name, 0.0)
        return max(1e-4, stated)


def assert_near(ours: Tensor | np.ndarray, golden: np.ndarray, tolerance: float, name: str) -> None:
    """Compare shapes, where numbers are infinite, and finite numbers relative to the largest of them."""
    values = ours.detach().numpy() if isinstance(ours, Tensor) else ours
    assert values.shape == golden.shape, name
    finite = np.isfinite(golden)
    np.testing.assert_array_equal(values[~finite].astype(np.float32), golden[~finite], err_msg=name)
    scale = np.abs(golden[finite]).max(initial=0.0)
    np.testing.assert_allclose(
        values[finite], golden[finite], rtol=tolerance, atol=tolerance * scale / 10, err_msg=name
    )


def use_batch_statistics(model: nn.Module) -> nn.Module:
    """Let batch norms, and nothing else, behave as in training."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train()
    return model


def assert_same_detections(ours: Detections, theirs: dict[str, np.ndarray], tolerance: float) -> None:
    """Find for every detection of theirs another one of ours; their order may differ where scores nearly tie."""
    assert len(ours) == len(theirs["scores"])
    free = np.ones(len(ours), bool)
    scale = np.abs(theirs["boxes"]).max()
    for box, score, label in zip(theirs["boxes"], theirs["scores"], theirs["labels"], strict=True):
        same = free & (ours.labels == label) & np.isclose(ours.scores, score, rtol=tolerance, atol=0)
        same &= np.isclose(ours.boxes, box, rtol=tolerance, atol=tolerance * scale / 10).all(1)
        assert same.any(), (box, score, label)
        free[same.argmax()] = False
