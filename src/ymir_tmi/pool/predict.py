"""What the model says about a batch of pictures, for all consumers together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from torch import Tensor

from ymir_tmi.data.letterbox import Frame, letterbox
from ymir_tmi.data.threads import Threads
from ymir_tmi.errors import ModelError
from ymir_tmi.imaging import Image
from ymir_tmi.models.interface import Detections, HeadOutput
from ymir_tmi.models.postprocess import Found, detect, find, merge_classes
from ymir_tmi.models.runtime.interface import DetectorRuntime, RandomPasses
from ymir_tmi.pool.consumer import Consumer, ImageResult, Output, View
from ymir_tmi.pool.source import Picture

_FOUND: frozenset[Output] = frozenset({"detections", "masks", "mask_maps"})


@dataclass(frozen=True)
class Asked:
    """What all consumers of a pass ask for together; views of one name are one view."""

    outputs: frozenset[Output]
    views: Mapping[str, View]
    min_score: float
    measure: Callable[[Image], Any] | None = None
    passes: int = 0

    @classmethod
    def by(cls, consumers: Sequence[Consumer]) -> Asked:
        """Return the union of what the consumers need."""
        needs = [consumer.needs for consumer in consumers]
        measures = [need.measure for need in needs if need.measure is not None]
        assert len(measures) <= 1, "the pictures of a pass are measured in one way"
        return cls(
            outputs=frozenset[Output]().union(*(need.outputs for need in needs)),
            views={view.name: view for need in needs for view in need.views},
            min_score=min(need.min_score for need in needs),
            measure=measures[0] if measures else None,
            passes=max(need.passes for need in needs),
        )

    def require(self, runtime: DetectorRuntime) -> None:
        """Refuse what a model cannot give.

        Raises:
            ModelError: masks are asked for and the model has none, or random passes, and it cannot make them.
        """
        if self.outputs & {"masks", "mask_maps"} and runtime.spec.task != "instances":
            raise ModelError(
                f"'{runtime.spec.name}' finds no masks", fix="Use a model of task 'instances', such as yolov5_n_seg."
            )
        if self.passes and runtime.passes is None:
            raise ModelError(
                f"this form of '{runtime.spec.name}' cannot switch random parts of its network off",
                fix="Use a model of YOLOv5-seg as training wrote it, *.safetensors.",
            )


@dataclass(frozen=True)
class Subject:
    """A picture with its name and its seed."""

    picture: Picture
    path: str
    seed: int


class Looks(NamedTuple):
    """What the network says of a batch of pictures.

    Attributes:
        raw: of the pictures as they are.
        passes: what is found in each picture, for every pass with random parts switched off.
    """

    raw: HeadOutput
    passes: Sequence[Sequence[Detections]] = ()


class BatchPredictor(Protocol):
    """Runs a model on batches of pictures."""

    def forward(self, batch: Sequence[Subject]) -> tuple[Sequence[Subject], Any]:
        """Return the pictures, which have one input shape, and what the network says of them."""
        ...

    def results(self, batch: Sequence[Subject], raw: Any) -> Iterable[list[ImageResult]]:
        """Yield the results of the pictures in order, as many at a time as there is memory for."""
        ...


class Predictor:
    """Runs a detector on batches of pictures, once for each view.

    Args:
        runtime: the model.
        asked: what to compute.
        threads: make the views.

    Raises:
        ModelError: the model cannot give what is asked for.
    """

    def __init__(self, runtime: DetectorRuntime, asked: Asked, threads: Threads) -> None:
        asked.require(runtime)
        self._runtime = runtime
        self._asked = asked
        self._threads = threads
        # Boxes that score higher are the same whatever the threshold, so the lowest one serves every consumer.
        self._postprocess = runtime.spec.postprocess.model_copy(update={"score_threshold": asked.min_score})

    def forward(self, batch: Sequence[Subject]) -> tuple[Sequence[Subject], Looks]:
        """Run the network on pictures of one input shape, as they are and with random parts switched off."""
        inputs = np.stack([subject.picture.input for subject in batch])
        if not self._asked.passes:
            return batch, Looks(self._runtime.run(inputs))
        runner = self._runtime.passes
        assert runner is not None
        trunk = runner.begin(inputs)
        passes = [self._look_again(runner, trunk, batch, number) for number in range(self._asked.passes)]
        return batch, Looks(runner.finish(trunk, None), passes)

    def results(self, batch: Sequence[Subject], looks: Looks) -> Iterable[list[ImageResult]]:
        """Yield the results of all pictures together from what `forward` has returned."""
        outputs, views = self._asked.outputs, self._asked.views
        raw, passes = looks
        maps = self._class_maps(raw) if "class_maps" in outputs else None
        whole = self._find(raw, batch) if outputs & _FOUND or views else None
        found = None if whole is None else [each.detections for each in whole]
        in_views = {name: self._in_view(view, batch, found) for name, view in views.items() if found is not None}
        yield [
            ImageResult(
                position=subject.picture.position,
                path=subject.path,
                size=(subject.picture.frame.width, subject.picture.frame.height),
                frame=subject.picture.frame,
                seed=subject.seed,
                detections=found[row] if found is not None else None,
                class_maps=tuple(level[row] for level in maps) if maps is not None else None,
                raw=_rows(raw, row) if "raw" in outputs else None,
                measured=subject.picture.measured,
                mask_maps=None if whole is None else whole[row].maps,
                passes=tuple(detections[row] for detections in passes),
                views={name: detections[row] for name, detections in in_views.items()},
                tile=subject.picture.tile,
            )
            for row, subject in enumerate(batch)
        ]

    def _look_again(
        self, runner: RandomPasses, trunk: Tensor, batch: Sequence[Subject], number: int
    ) -> list[Detections]:
        """Return what is found in one pass with random parts switched off."""
        raw = runner.finish(trunk, [(subject.seed, number) for subject in batch])
        return self._detect(raw, [subject.picture.frame for subject in batch], masks=True)

    def _find(self, raw: HeadOutput, batch: Sequence[Subject]) -> list[Found]:
        """Return what is found in the pictures as they are, with what is asked for of their masks."""
        return find(
            self._runtime.decode(raw),
            [subject.picture.frame for subject in batch],
            self._postprocess,
            class_groups=self._runtime.class_groups,
            masks="masks" in self._asked.outputs,
            maps="mask_maps" in self._asked.outputs,
        )

    def _detect(self, raw: HeadOutput, frames: Sequence[Frame], *, masks: bool = False) -> list[Detections]:
        dense, groups = self._runtime.decode(raw), self._runtime.class_groups
        return detect(dense, frames, self._postprocess, class_groups=groups, masks=masks)

    def _class_maps(self, raw: HeadOutput) -> tuple[Tensor, ...]:
        maps, groups = self._runtime.class_maps(raw), self._runtime.class_groups
        if groups is None:
            return maps
        return tuple(merge_classes(level.movedim(2, -1), groups).movedim(-1, 2) for level in maps)

    def _in_view(self, view: View, batch: Sequence[Subject], plain: Sequence[Detections]) -> list[Detections]:
        """Return what is found in one view of every picture; its pictures may have several shapes."""
        framed = list(self._threads.map(lambda row: self._make_view(view, batch[row], plain[row]), range(len(batch))))
        found: dict[int, Detections] = {}
        for shape in dict.fromkeys(pixels.shape for pixels, _ in framed):
            rows = [row for row, (pixels, _) in enumerate(framed) if pixels.shape == shape]
            raw = self._runtime.run(np.stack([framed[row][0] for row in rows]))
            found.update(zip(rows, self._detect(raw, [framed[row][1] for row in rows]), strict=True))
        return [found[row] for row in range(len(batch))]

    def _make_view(self, view: View, subject: Subject, plain: Detections) -> tuple[Image, Frame]:
        image = subject.picture.image
        assert image is not None
        return letterbox(view.apply(image, plain, subject.seed), self._runtime.spec.input)


def _rows(raw: HeadOutput, row: int) -> HeadOutput:
    """Return the numbers of one picture, as a batch of one."""
    return HeadOutput(*(tuple(level[row : row + 1] for level in levels) for levels in raw))
