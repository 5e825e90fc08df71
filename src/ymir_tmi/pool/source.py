"""Pictures for a pass: decoded and letterboxed in threads ahead of the network, in order, then put into batches.

A picture that is larger than the tiles of the pass is decoded once; its windows are letterboxed when their turn comes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from ymir_tmi.data.index import DatasetIndex
from ymir_tmi.data.letterbox import Frame, InputSpec, letterbox
from ymir_tmi.data.threads import Threads
from ymir_tmi.data.tiles import Tile, Tiling, Window
from ymir_tmi.errors import ImageError
from ymir_tmi.imaging import Image, image_size, read_image

_WAITING_BATCHES = 4

Measure = Callable[[Image], Any]


@dataclass(frozen=True)
class Picture:
    """A picture, or a window of a large one, that is ready for the network.

    Attributes:
        position: row of the image in the pool.
        input: (h, w, 3) uint8 RGB, letterboxed.
        frame: where the picture lies in the input.
        image: the picture itself, where it is kept.
        tile: which window it is; None of a whole picture.
        measured: what was computed of the picture itself.
    """

    position: int
    input: Image
    frame: Frame
    image: Image | None = None
    tile: Tile | None = None
    measured: Any = None


@dataclass(frozen=True)
class LargePicture:
    """A picture that is to be cut into windows.

    Attributes:
        position: row of the image in the pool.
        image: (H, W, 3) uint8 RGB.
    """

    position: int
    image: Image

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.image.shape[1], self.image.shape[0]


@dataclass(frozen=True)
class Unreadable:
    """A picture that cannot be read, and why."""

    position: int
    error: str


def read_picture(
    index: DatasetIndex,
    position: int,
    spec: InputSpec,
    *,
    keep: bool,
    tiling: Tiling | None = None,
    measure: Measure | None = None,
) -> Picture | LargePicture | Unreadable:
    """Read, letterbox and measure one picture; `keep` the picture itself as well. A large one is only read."""
    try:
        size, label_picture = index.size(position), index.label_picture(position)
        image = read_image(index.paths[position], annotated_size=size, label_picture=label_picture)
    except ImageError as error:
        return Unreadable(position, error.what)
    if tiling is not None and not tiling.is_enough(image.shape[1], image.shape[0]):
        return LargePicture(position, image)
    framed, frame = letterbox(image, spec)
    return Picture(
        position, framed, frame, image if keep else None, measured=measure(image) if measure is not None else None
    )


class PictureSource:
    """Pictures, and windows of large ones, in the order of `positions`; threads work ahead of whoever takes them.

    Large pictures that wait to be cut have `threads.MOST_AHEAD` pixels together, or are one; besides, one is being cut.

    Args:
        index: the pool.
        positions: rows of the images to read.
        spec: how they are letterboxed.
        threads: read, letterbox and cut.
        ahead: pictures that may wait.
        keep: whether the pictures themselves are kept beside the network's input.
        tiling: how large pictures are cut; None leaves them whole.
        measure: computes something of each picture, not of windows.
    """

    def __init__(
        self,
        index: DatasetIndex,
        positions: Iterable[int],
        spec: InputSpec,
        threads: Threads,
        *,
        ahead: int,
        keep: bool,
        tiling: Tiling | None = None,
        measure: Measure | None = None,
    ) -> None:
        self._spec = spec
        self._threads = threads
        self._ahead = ahead
        self._keep = keep
        self._tiling = tiling
        self._read = threads.map(
            lambda position: read_picture(index, position, spec, keep=keep, tiling=tiling, measure=measure),
            positions,
            ahead=ahead,
            weigh=None if tiling is None else lambda position: _pixels_held(index, position, tiling),
        )

    def take(self, count: int, unreadable: list[Unreadable]) -> Iterator[Picture]:
        """Yield what the next `count` images give; those that cannot be read go to `unreadable`."""
        for read in islice(self._read, count):
            if isinstance(read, Unreadable):
                unreadable.append(read)
            elif isinstance(read, Picture):
                yield read
            else:
                yield from self._cut(read)
            del read  # a large picture must be gone before the next one is waited for

    def _cut(self, large: LargePicture) -> Iterator[Picture]:
        assert self._tiling is not None
        windows = self._tiling.windows(*large.size)
        return self._threads.map(lambda window: self._window(large, window), windows, ahead=self._ahead)

    def _window(self, large: LargePicture, window: Window) -> Picture:
        """Letterbox one window; the result holds nothing of the large picture."""
        x, y, width, height = window
        image = large.image[y : y + height, x : x + width].copy()
        framed, frame = letterbox(image, self._spec)
        return Picture(large.position, framed, frame, image if self._keep else None, Tile(window, large.size))


def _pixels_held(index: DatasetIndex, position: int, tiling: Tiling) -> int:
    """Return how many pixels of a picture are held until it is cut into windows; 0 of one that is not."""
    try:
        width, height = index.size(position) or image_size(index.paths[position])
    except ImageError:  # the reader says so when its turn comes
        return 0
    return 0 if tiling.is_enough(width, height) else width * height


def form_batches(pictures: Iterable[Picture], size: int) -> Iterator[list[Picture]]:
    """Put pictures of one input shape together, `size` at a time.

    At most four batches of pictures wait for others of their shape; then those that are most leave as a smaller batch.
    """
    waiting: dict[tuple[int, ...], list[Picture]] = {}
    count = 0
    for picture in pictures:
        waiting.setdefault(picture.input.shape, []).append(picture)
        count += 1
        most = max(waiting, key=lambda shape: len(waiting[shape]))
        if len(waiting[most]) == size or count == _WAITING_BATCHES * size:
            batch = waiting.pop(most)
            count -= len(batch)
            yield batch
    yield from waiting.values()
