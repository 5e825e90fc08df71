"""What a network that gives every pixel a class says about a batch of pictures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ymir_tmi.data.letterbox import Frame, letterbox
from ymir_tmi.data.threads import Threads
from ymir_tmi.imaging import Image
from ymir_tmi.models.runtime.interface import SegmenterRuntime
from ymir_tmi.models.segment import Look, Patch, Window, label_map, place_patch, probabilities
from ymir_tmi.pool.consumer import ImageResult
from ymir_tmi.pool.predict import Asked, Subject


@dataclass(frozen=True)
class _Glance:
    """One input of the network: a window of one view of a picture.

    Attributes:
        view: the picture's row in the batch, and which of its views this is.
        pixels: (h, w, 3) uint8 RGB.
        frame: where the picture lies in the whole view.
    """

    view: tuple[int, int]
    pixels: Image
    window: Window
    frame: Frame
    mirrored: bool


class PixelPredictor:
    """Runs a segmenter on batches of pictures: whole or by windows, mirrored and at several scales as well.

    Args:
        runtime: the model, which knows how it looks at pictures.
        asked: what to compute.
        threads: turn what the network says into label maps.
    """

    def __init__(self, runtime: SegmenterRuntime, asked: Asked, threads: Threads) -> None:
        assert asked.outputs <= {"probabilities", "label_map"} and not asked.views
        self._runtime = runtime
        self._asked = asked
        self._threads = threads

    def forward(self, batch: Sequence[Subject]) -> tuple[Sequence[Subject], list[list[Look]]]:
        """Return the pictures, which have one input shape, and the looks at each."""
        glances = [glance for row, subject in enumerate(batch) for glance in self._glances(row, subject)]
        views: dict[tuple[int, int], list[Patch]] = {glance.view: [] for glance in glances}
        for shape in dict.fromkeys(glance.pixels.shape for glance in glances):
            alike = [glance for glance in glances if glance.pixels.shape == shape]
            for start in range(0, len(alike), len(batch)):
                for glance, patch in self._look(alike[start : start + len(batch)]):
                    views[glance.view].append(patch)
        return batch, [[patches for (row, _), patches in views.items() if row == own] for own in range(len(batch))]

    def results(self, batch: Sequence[Subject], raw: Sequence[Sequence[Look]]) -> Iterable[list[ImageResult]]:
        """Yield one result at a time, since a map of all probabilities may take a gigabyte."""
        outputs, groups = self._asked.outputs, self._runtime.class_groups
        wanted = raw if "label_map" in outputs else ()
        labels = iter(self._threads.map(lambda looks: label_map(looks, groups), wanted))
        for subject, looks in zip(batch, raw, strict=True):
            frame = subject.picture.frame
            yield [
                ImageResult(
                    position=subject.picture.position,
                    path=subject.path,
                    size=(frame.width, frame.height),
                    frame=frame,
                    seed=subject.seed,
                    measured=subject.picture.measured,
                    probabilities=probabilities(looks, groups) if "probabilities" in outputs else None,
                    label_map=next(labels) if "label_map" in outputs else None,
                )
            ]

    def _glances(self, row: int, subject: Subject) -> Iterator[_Glance]:
        """Yield what the network is to look at of one picture."""
        test, view = self._runtime.test, 0
        for scale in test.scales:
            pixels, frame = self._scaled(subject, scale)
            for mirrored in (False, True) if test.flip else (False,):
                seen = pixels[:, ::-1] if mirrored else pixels
                for window in test.windows(*pixels.shape[:2]):
                    part = seen[window.top : window.bottom, window.left : window.right]
                    yield _Glance((row, view), part, window, frame, mirrored)
                view += 1

    def _scaled(self, subject: Subject, scale: float) -> tuple[Image, Frame]:
        """Return the network input at a multiple of its own size, and where the picture lies in it."""
        picture, spec = subject.picture, self._runtime.spec.input
        if scale == 1:
            return picture.input, picture.frame
        assert picture.image is not None
        return letterbox(picture.image, spec.with_size(max(1, round(spec.size * scale))))

    def _look(self, glances: Sequence[_Glance]) -> Iterator[tuple[_Glance, Patch]]:
        """Run the network on inputs of one shape."""
        (logits,) = self._runtime.run(np.stack([glance.pixels for glance in glances])).logits
        for glance, own in zip(glances, logits, strict=True):
            test = self._runtime.test
            yield glance, place_patch(own, glance.window, glance.frame, test, mirrored=glance.mirrored)
