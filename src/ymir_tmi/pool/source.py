"""Pictures for a pass: decoded and letterboxed in threads ahead of the network, in order, then put into batches.

OpenCV leaves Python's lock while it decodes, so threads are enough, and pictures need not be sent between processes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from ymir_tmi.data.index import DatasetIndex
from ymir_tmi.data.letterbox import Frame, InputSpec, letterbox
from ymir_tmi.errors import ImageError
from ymir_tmi.imaging import Image, read_image

Item = TypeVar("Item")
Result = TypeVar("Result")

_WAITING_BATCHES = 4


@dataclass(frozen=True)
class Picture:
    """A picture that is ready for the network.

    Attributes:
        position: row of the image in the pool.
        input: (h, w, 3) uint8 RGB, letterboxed.
        frame: where the picture lies in the input.
        image: the picture itself, where it is kept.
    """

    position: int
    input: Image
    frame: Frame
    image: Image | None = None


@dataclass(frozen=True)
class Unreadable:
    """A picture that cannot be read, and why."""

    position: int
    error: str


def read_picture(index: DatasetIndex, position: int, spec: InputSpec, *, keep: bool) -> Picture | Unreadable:
    """Read and letterbox one picture; `keep` the picture itself as well."""
    try:
        image = read_image(index.paths[position], annotated_size=index.size(position))
    except ImageError as error:
        return Unreadable(position, error.what)
    framed, frame = letterbox(image, spec)
    return Picture(position, framed, frame, image if keep else None)


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


class Threads:
    """Threads that work ahead of whoever takes their results. Use as a context manager.

    Args:
        count: number of threads; with 0 the work is done where the results are taken.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._executor = ThreadPoolExecutor(count, "pictures") if count else None

    def __enter__(self) -> Threads:
        return self

    def __exit__(self, *error: object) -> None:
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)

    def map(self, function: Callable[[Item], Result], items: Iterable[Item], *, ahead: int = 0) -> Iterator[Result]:
        """Yield `function(item)` in the order of the items; `ahead` of them and one per thread are in the making."""
        if self._executor is None:
            yield from map(function, items)
            return
        making: deque[Future[Result]] = deque()
        for item in items:
            making.append(self._executor.submit(function, item))
            if len(making) > ahead + self._count:
                yield making.popleft().result()
        while making:
            yield making.popleft().result()
