"""Large images in a pass: what was found in their windows becomes one result for each image."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from ymir_tmi.config.schema import PassSettings
from ymir_tmi.data.tiles import Tiling, Window
from ymir_tmi.errors import ConfigError
from ymir_tmi.models.interface import Detections, PostprocessSpec, Task
from ymir_tmi.pool.consumer import Consumer, ImageResult, Row, WindowConsumer
from ymir_tmi.pool.seams import join_windows


def tiling_for(settings: PassSettings, task: Task) -> Tiling | None:
    """Return how a verb cuts large images for a model of this task; None if it takes them whole.

    Raises:
        ConfigError: windows are asked for, and what is found in them cannot be joined.
    """
    tiling = Tiling.of(settings)
    if tiling is not None and task == "instances":
        raise ConfigError("'tile' is for models that find boxes alone: masks are not joined", where="tile")
    return tiling


@dataclass
class _Open:
    """An image of which not all windows have come back from the network.

    Attributes:
        path: the picture file.
        size: its width and height.
        order: its windows, row by row.
        windows: what is found in each.
        rows: what the consumers that are shown windows say about each, by the name of the consumer.
    """

    path: str
    size: tuple[int, int]
    order: list[Window]
    windows: dict[Window, Detections | None] = field(default_factory=dict)
    rows: dict[str, dict[Window, Row]] = field(default_factory=dict)


class WindowJoiner:
    """Takes the results of windows as they come and shows the consumers each image once all of its windows are there.

    Of a window no more is kept than its detections and the rows of those consumers that are shown windows.

    Args:
        consumers: of the pass.
        tiling: how images are cut.
        spec: threshold and limit of the NMS that joins the windows.
        seed_of: returns the seed of an image by its path.
    """

    def __init__(
        self, consumers: Sequence[Consumer], tiling: Tiling, spec: PostprocessSpec, seed_of: Callable[[str], int]
    ) -> None:
        self._consumers = consumers
        self._tiling = tiling
        self._spec = spec
        self._seed_of = seed_of
        self._open: dict[int, _Open] = {}

    def add(self, results: Sequence[ImageResult]) -> Iterator[tuple[int, dict[str, Row]]]:
        """Take results of windows; yield the position and the rows, by consumer, of each image that is complete now."""
        if not results:
            return
        for consumer in self._consumers:
            if isinstance(consumer, WindowConsumer):
                for result, row in zip(results, consumer.consume(results), strict=True):
                    image, window = self._place(result)
                    image.rows.setdefault(consumer.name, {})[window] = row
        for result in results:
            image, window = self._place(result)
            image.windows[window] = result.detections
            if len(image.windows) == len(image.order):
                yield result.position, self._rows(result.position, self._open.pop(result.position))

    def _place(self, result: ImageResult) -> tuple[_Open, Window]:
        """Return the image that a window belongs to, and the window."""
        assert result.tile is not None
        window, size = result.tile
        if result.position not in self._open:
            self._open[result.position] = _Open(result.path, size, self._tiling.windows(*size))
        return self._open[result.position], window

    def _rows(self, position: int, image: _Open) -> dict[str, Row]:
        parts = [(window, found) for window in image.order if (found := image.windows[window]) is not None]
        whole = ImageResult(
            position=position,
            path=image.path,
            size=image.size,
            frame=None,
            seed=self._seed_of(image.path),
            detections=join_windows(parts, image.size, self._spec) if parts else None,
        )
        return {
            consumer.name: consumer.join(whole, [image.rows[consumer.name][window] for window in image.order])
            if isinstance(consumer, WindowConsumer)
            else consumer.consume([whole])[0]
            for consumer in self._consumers
        }
