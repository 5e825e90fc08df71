"""Training batches, epoch by epoch, that depend on nothing but the seed.

The main process plans which images make which step; workers turn a plan into a batch. Every random draw belongs to
(seed, epoch, position in the epoch's order), whichever process makes it, and caches are empty when an epoch begins. So
an epoch can be repeated exactly with the same number of workers and processes; without caches, with any number.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from ymir_tmi.config.recipe import AugmentRecipe
from ymir_tmi.data.batch import MASK_STRIDE, Phase, Targets, TrainingBatch
from ymir_tmi.data.index import DatasetIndex
from ymir_tmi.data.letterbox import InputSpec
from ymir_tmi.data.pipeline import Augmenter
from ymir_tmi.data.rotated import rectangles
from ymir_tmi.data.sample import Boxes, Sample
from ymir_tmi.data.semantic_pipeline import SemanticAugmenter
from ymir_tmi.data.shapes import batch_sizes, draw_interpolation
from ymir_tmi.errors import DataError, ImageError
from ymir_tmi.imaging import Interpolation

_LARGEST_FAILED_PART = 0.1

# What a random draw is for; part of its key, so that no two purposes share a stream.
_ORDER, _SAMPLE, _SIZE = range(3)


def training_loader(
    index: DatasetIndex,
    augment: AugmentRecipe,
    *,
    spec: InputSpec,
    batch: int,
    workers: int,
    seed: int,
    rank: int = 0,
    world_size: int = 1,
    pin_memory: bool = False,
    masks: bool = False,
    epochs_per_pass: int = 1,
) -> TrainingLoader:
    """Return a loader of training batches.

    Args:
        index: The training images.
        augment: What is done to them.
        spec: What the network sees; its size is a multiple of its stride.
        batch: Images per step of this process.
        workers: Processes that make batches, with one thread each; 0 makes them in this process.
        seed: Seed of every random draw.
        rank: Number of this process among those that train together.
        world_size: How many processes train together. Each takes its part of a common batch.
        pin_memory: Whether to put batches where a GPU copies them from fast.
        masks: Whether batches have masks, which every object then has (`data.instances`).
        epochs_per_pass: How many epochs it takes to show every image once; no more than steps.

    Raises:
        DataError: there are no images.
    """
    if not len(index):
        raise DataError("there are no images to train on")
    plan = EpochPlan(
        images=len(index),
        batch=batch,
        seed=seed,
        rank=rank,
        world_size=world_size,
        augment=augment,
        sizes=batch_sizes(augment, spec),
        wide=index.sizes[:, 0] > index.sizes[:, 1] if augment.geometry == "shorter_side" else None,
        epochs_per_pass=epochs_per_pass,
    )
    loader = DataLoader(
        _BatchMaker(_augmenter(index, augment, spec, masks=masks), seed, masks=masks),
        batch_size=None,  # a plan is a whole batch
        sampler=plan,
        num_workers=workers,
        collate_fn=_unchanged,
        pin_memory=pin_memory,
        persistent_workers=workers > 0,
        # Forked workers share the pages of the index. Elsewhere than on Linux forking is unsafe or impossible.
        multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
        generator=torch.Generator(),  # else it would draw from the process-wide one
    )
    return TrainingLoader(plan, loader)


class TrainingLoader:
    """Iterates over the batches of one epoch; `set_epoch` chooses which.

    The choice takes effect when the first batch is asked for, not when the iterator is made.

    Attributes:
        failed: what was wrong with each picture that could not be read so far, by its path.
    """

    def __init__(self, plan: EpochPlan, loader: DataLoader[_Message | ImageError]) -> None:
        self.failed: dict[str, str] = {}
        self._plan = plan
        self._loader = loader

    def set_epoch(self, epoch: int, phase: Phase) -> None:
        """Choose the epoch (0-based) and whether it has mosaic and mixup (`main`) or not (`final`)."""
        self._plan.epoch = epoch
        self._plan.phase = phase

    def set_weights(self, weights: npt.NDArray[np.float64]) -> None:
        """Choose how likely each image is to be drawn, with replacement, in the epochs from now on."""
        self._plan.weights = weights

    def __len__(self) -> int:
        """Return the steps of an epoch, which are equally many in every process."""
        return len(self._plan)

    def __iter__(self) -> Iterator[TrainingBatch]:
        """Yield the batches of the epoch.

        Warns once of every picture that cannot be read; another one is shown in its place.

        Raises:
            ImageError: more than a tenth of the images cannot be read.
        """
        for message in self._loader:
            if isinstance(message, ImageError):
                raise message
            self._note_failures(message.failed)
            yield _unpack(message)

    def close(self) -> None:
        """End the workers. Where the garbage collector ends them, it waits five seconds for each."""
        shut_down = getattr(self._loader._iterator, "_shutdown_workers", None)  # which is not there without workers
        if shut_down is not None:
            shut_down()
            self._loader._iterator = None

    def _note_failures(self, failed: dict[str, str]) -> None:
        for path, problem in failed.items():
            if path not in self.failed:
                warnings.warn(f"training goes on without a picture: {problem}", stacklevel=3)
        self.failed |= failed
        if len(self.failed) > _LARGEST_FAILED_PART * self._plan.images:
            raise ImageError(
                f"{len(self.failed)} of {self._plan.images} training images cannot be read, among them: "
                f"{next(iter(self.failed.values()))}",
                fix="Repair these pictures, or remove them from the training set.",
            )


@dataclass(frozen=True)
class BatchPlan:
    """Which images make one batch of one process.

    Attributes:
        pass_number: counts the passes over the loader; a worker that sees another number empties its caches.
        epoch: 0-based.
        phase: of the epoch.
        positions: (B,) places in the epoch's order, which draws belong to.
        rows: (B,) rows of the index.
        size: width and height of the batch in pixels.
        interpolation: how samples come to this size; None where it depends on each alone.
    """

    pass_number: int
    epoch: int
    phase: Phase
    positions: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    size: int
    interpolation: Interpolation | None


@dataclass
class EpochPlan(Sampler[BatchPlan]):
    """Plans the batches of an epoch for one process of several.

    Images are shuffled anew for each time that all are shown, which takes an epoch or several. A common batch is
    `world_size * batch` images in that order, of which each process takes a contiguous part. What is left over at the
    end is not used this time; a set that is smaller than a common batch is one step.

    Attributes:
        images: number of training images.
        batch: images per step of one process.
        seed: seed of the order and of the batch sizes.
        rank: number of this process.
        world_size: number of processes.
        augment: says how long a batch size stays, and whether an interpolation is drawn.
        sizes: widths and heights in pixels that a batch may have.
        wide: (images,) whether an image is wider than high; then a common batch has images of one kind. None mixes.
        weights: (images,) how likely each image is to be drawn, with replacement. None takes each once.
        epochs_per_pass: how many epochs it takes to show all images; each has equally many steps.
        epoch: the epoch that the next pass is.
        phase: its phase.
    """

    images: int
    batch: int
    seed: int
    rank: int
    world_size: int
    augment: AugmentRecipe
    sizes: tuple[int, ...]
    wide: npt.NDArray[np.bool_] | None = None
    weights: npt.NDArray[np.float64] | None = None
    epochs_per_pass: int = 1
    epoch: int = 0
    phase: Phase = "main"
    _passes: int = field(default=0, init=False)

    def __len__(self) -> int:
        """Return the number of steps."""
        return max(1, self.images // (self.batch * self.world_size)) // self.epochs_per_pass

    def __iter__(self) -> Iterator[BatchPlan]:
        """Yield one plan per step."""
        self._passes += 1
        # At least one image for each process, if need be the same one for several.
        common = max(min(self.batch * self.world_size, self.images), self.world_size)
        turn, part_of_turn = divmod(self.epoch, self.epochs_per_pass)
        order, first = self._order(turn, common), part_of_turn * len(self)
        for step in range(len(self)):
            place = (first + step) * common
            part = np.array_split(np.arange(place, place + common), self.world_size)[self.rank]
            rows = order[part % len(order)]
            yield BatchPlan(self._passes, self.epoch, self.phase, part, rows, *self._shape(step))

    def _order(self, turn: int, common: int) -> npt.NDArray[np.int64]:
        """Return the rows in the order in which they are shown, the first time for `turn` 0."""
        rng = _generator(self.seed, _ORDER, turn)
        if self.weights is None:
            order = rng.permutation(self.images)
        else:
            order = rng.choice(self.images, self.images, p=self.weights)
        return order if self.wide is None else group_alike(order, self.wide[order], common, rng)

    def _shape(self, step: int) -> tuple[int, Interpolation | None]:
        interval = (self.epoch * len(self) + step) // self.augment.multiscale_interval
        rng = _generator(self.seed, _SIZE, interval)
        return int(rng.choice(self.sizes)), draw_interpolation(self.augment, rng)


def group_alike(
    order: npt.NDArray[np.int64], kind: npt.NDArray[np.bool_], count: int, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Return `order` in groups of one kind each, as many groups as there would be without kinds.

    Each kind has its share of the groups, rounded up or down at random, so that over many epochs a rare kind has its
    share as well. A kind that has too few members for its groups shows the first of them again.

    Args:
        order: (n,) images.
        kind: (n,) kind of each.
        count: size of a group.
        rng: where random draws come from.
    """
    steps = max(1, len(order) // count)
    first = int(steps * kind.mean() + rng.random())
    groups = [np.resize(order[kind], (first, count)), np.resize(order[~kind], (steps - first, count))]
    return np.concatenate(groups)[rng.permutation(steps)].ravel()


class _Message(NamedTuple):
    """A batch on its way from a worker: a few arrays, since each tensor costs an open file."""

    images: Tensor
    boxes: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    counts: list[int]
    rows: list[int]
    failed: dict[str, str]
    masks: Tensor | None
    label_maps: Tensor | None


class _BatchMaker(Dataset["_Message | ImageError"]):
    """Turns plans into batches, in a worker or in the main process."""

    def __init__(self, augmenter: Augmenter | SemanticAugmenter, seed: int, *, masks: bool) -> None:
        self._augmenter = augmenter
        self._seed = seed
        self._masks = masks
        self._pass_number = 0

    def __getitem__(self, plan: BatchPlan) -> _Message | ImageError:
        """Return the batch, or what the user has to put right: raised here, it would lose its form on the way."""
        if plan.pass_number != self._pass_number:
            self._augmenter.empty_caches()
            self._pass_number = plan.pass_number
        try:
            samples = [
                self._augmenter.sample(int(row), plan.phase, _generator(self._seed, _SAMPLE, plan.epoch, int(position)))
                for row, position in zip(plan.rows, plan.positions, strict=True)
            ]
        except ImageError as error:
            return error
        failed, self._augmenter.failed = self._augmenter.failed, {}
        samples = self._augmenter.join(samples, plan.size, plan.interpolation)
        samples, masks = _draw_masks(samples) if self._masks else (samples, None)
        return _Message(
            images=torch.from_numpy(np.stack([sample.image for sample in samples])).permute(0, 3, 1, 2),
            boxes=_target_boxes(np.concatenate([sample.boxes for sample in samples])),
            labels=np.concatenate([sample.labels for sample in samples]),
            counts=[len(sample.labels) for sample in samples],
            rows=plan.rows.tolist(),
            failed=failed,
            masks=masks,
            label_maps=_stack_label_maps(samples),
        )


def _augmenter(
    index: DatasetIndex, augment: AugmentRecipe, spec: InputSpec, *, masks: bool
) -> Augmenter | SemanticAugmenter:
    if augment.geometry == "ratio_crop":
        return SemanticAugmenter(index, augment, spec)
    return Augmenter(index, augment, spec, masks=masks)


def _draw_masks(samples: Sequence[Sample]) -> tuple[list[Sample], Tensor]:
    """Return the samples with their objects in order, largest first, and what `Targets.masks` says is seen of each."""
    maps, ordered = [], []
    for sample in samples:
        assert sample.outlines is not None
        small = sample.outlines.with_edges(sample.outlines.edges / MASK_STRIDE)
        seen, order = small.index_map(*(side // MASK_STRIDE for side in sample.size))
        maps.append(seen)
        ordered.append(Sample(sample.image, sample.boxes[order], sample.labels[order]))
    return ordered, torch.from_numpy(np.stack(maps))


def _stack_label_maps(samples: Sequence[Sample]) -> Tensor | None:
    maps = [sample.label_map for sample in samples if sample.label_map is not None]
    return torch.from_numpy(np.stack(maps)) if maps else None


def _target_boxes(boxes: Boxes) -> Boxes:
    """Return upright boxes as they are, and (n, 5) in le90 of corners."""
    return boxes if boxes.ndim == 2 else rectangles(boxes).astype(np.float32)


def _unpack(message: _Message) -> TrainingBatch:
    boxes = torch.split(torch.from_numpy(message.boxes), message.counts)
    labels = torch.split(torch.from_numpy(message.labels), message.counts)
    targets = Targets(boxes, labels, message.masks, message.label_maps)
    return TrainingBatch(message.images, targets, tuple(message.rows))


def _generator(seed: int, *key: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def _unchanged(message: Any) -> Any:
    return message
