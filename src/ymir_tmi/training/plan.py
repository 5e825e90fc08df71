"""What a run will do, down to the last number: settings without `auto`, and the recipe that follows from them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ymir_tmi.config.load import build
from ymir_tmi.config.recipe import Recipe
from ymir_tmi.config.schema import TrainSettings
from ymir_tmi.errors import ConfigError, RunError
from ymir_tmi.files.layout import RunLayout, open_run
from ymir_tmi.files.manifest import Manifest
from ymir_tmi.models.catalog import default_spec
from ymir_tmi.models.interface import ModelSpec
from ymir_tmi.models.runtime.devices import Arithmetic, resolve_device, resolve_precision
from ymir_tmi.pool.sizing import resolve_workers
from ymir_tmi.training.anchors import AnchorFit
from ymir_tmi.training.distributed import Processes
from ymir_tmi.training.recipes import fit_recipe, recipe_of, updates_per_epoch

_VALIDATIONS = 10  # in a run that is given in iterations: its epochs may be thousands


@dataclass(frozen=True)
class TrainingPlan:
    """A run that can be carried out, or repeated, without looking anything up.

    Attributes:
        settings: every field that training reads is set; paths are absolute.
        recipe: with all changes carried out.
        folder: the run to go on with; None for a new run.
        anchors: of a model that has such; None are its own.
    """

    settings: TrainSettings
    recipe: Recipe
    folder: Path | None = None
    anchors: AnchorFit | None = None

    @property
    def device(self) -> torch.device:
        """Where this process trains."""
        return resolve_device(self.settings.device)

    @property
    def arithmetic(self) -> Arithmetic:
        """Number format of the network."""
        return resolve_precision(self.settings.precision, self.device)

    @property
    def image_size(self) -> int:
        """Width and height of the network input in training, in pixels."""
        assert self.settings.image_size is not None
        return self.settings.image_size

    @property
    def workers(self) -> int:
        """Processes that make batches for each training process."""
        assert self.settings.workers != "auto"
        return self.settings.workers

    @property
    def checkpoint(self) -> Path | None:
        """The state to go on from; None for a new run, and for one that was stopped in its first epoch."""
        path = RunLayout(self.folder).checkpoint if self.folder else None
        return path if path and path.exists() else None


def plan_run(settings: TrainSettings, processes: Processes) -> TrainingPlan:
    """Plan a new run.

    Raises:
        ConfigError: settings do not fit each other or the machine.
        ModelError: there is no such model.
    """
    spec, recipe = _spec(settings), _recipe(settings)
    device = resolve_device(settings.device)
    image_size = settings.image_size or spec.input.size
    stride = spec.input.stride
    if image_size % stride:
        raise ConfigError(
            f"image size {image_size} is not a multiple of {stride}",
            fix=f"Use --image-size {max(1, round(image_size / stride)) * stride}.",
        )
    if recipe.batch % processes.total:
        raise ConfigError(f"a batch of {recipe.batch} images cannot be shared by {processes.total} processes equally")
    resolved = {
        "epochs": None if recipe.iterations else recipe.epochs,
        "batch": recipe.batch,
        "image_size": image_size,
        "precision": resolve_precision(settings.precision, device),
        "workers": resolve_workers(settings.workers, device),
        "data": settings.data and settings.data.absolute(),
        "weights": settings.weights and settings.weights.absolute(),
        "images": [folder.absolute() for folder in settings.images],
        "train": [str(Path(source).absolute()) for source in settings.train],
        "val": [str(Path(source).absolute()) for source in settings.val],
    }
    return TrainingPlan(settings.model_copy(update=resolved), recipe)


def fit_to_data(plan: TrainingPlan, images: int) -> TrainingPlan:
    """Return the plan with the recipe, and the interval between validations, for this number of training images."""
    recipe = _recipe(plan.settings, images)
    interval = plan.settings.val_interval or _interval(recipe, images)
    settings = plan.settings.model_copy(update={"val_interval": max(1, interval)})
    return replace(plan, settings=settings, recipe=recipe)


def _interval(recipe: Recipe, images: int) -> int:
    """Return the epochs between two validations that the recipe asks for; 0 is as often as possible."""
    if recipe.val_iterations is not None:
        return round(recipe.val_iterations / updates_per_epoch(recipe, images))
    return recipe.epochs // _VALIDATIONS if recipe.iterations else 1


def read_plan(settings: TrainSettings) -> TrainingPlan:
    """Return the plan of the run that `settings.resume` names.

    Raises:
        ConfigError: other settings are given as well.
        RunError: the folder holds no training, or one that is done.
    """
    assert settings.resume is not None
    given = [name for name in settings.model_fields_set - {"resume"} if _differs(settings, name)]
    if given:
        raise ConfigError(
            f"--resume takes every setting from the run; also given: {', '.join(sorted(given))}",
            fix="Leave them out, or start a new run with --weights.",
        )
    layout = open_run(settings.resume)
    content = Manifest.read(layout.manifest).content
    if content["verb"] != "train" or "recipe" not in content:
        raise RunError("this is not the run of a training", where=layout.root)
    if content["status"] == "done":
        raise RunError(
            "this training is done",
            where=layout.root,
            fix=f"To train on, start a new run with --weights {layout.last_weights}.",
        )
    return TrainingPlan(
        build(TrainSettings, content["settings"], where=layout.manifest),
        build(Recipe, content["recipe"], where=layout.manifest),
        layout.root,
        build(AnchorFit, content["anchors"], where=layout.manifest) if "anchors" in content else None,
    )


def _recipe(settings: TrainSettings, images: int | None = None) -> Recipe:
    """Return the model's recipe with the user's changes; options of their own come last and win.

    With an image size that is not the model's own, crops are squares of that size.
    """
    own = {"epochs": settings.epochs, "batch": None if settings.batch == "auto" else settings.batch}
    changes = [*settings.set, *(f"{name}={value}" for name, value in own.items() if value is not None)]
    spec = _spec(settings)
    recipe = recipe_of(spec.family, spec.name, settings.recipe)
    if settings.image_size not in (None, spec.input.size):
        recipe = recipe.model_copy(update={"augment": recipe.augment.model_copy(update={"crop": None})})
    return fit_recipe(recipe, changes, images, new_weights=settings.weights is None)


def _spec(settings: TrainSettings) -> ModelSpec:
    return default_spec(settings.model, class_names=("object",), activation=settings.activation)


def _differs(settings: TrainSettings, name: str) -> bool:
    default: Any = TrainSettings.model_fields[name].get_default()
    return bool(getattr(settings, name) != default)
