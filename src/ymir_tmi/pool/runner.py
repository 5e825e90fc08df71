"""One pass over a pool: every image is decoded once and the model runs once per view, for all consumers together.

Under torchrun process r of W takes the shards r, r + W, ...; the consumers and the model know nothing of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import cast

import torch

from ymir_tmi.data.index import DatasetIndex
from ymir_tmi.data.threads import Threads
from ymir_tmi.data.tiles import Tiling
from ymir_tmi.files.progress import ProgressReporter
from ymir_tmi.models.runtime.interface import DetectorRuntime, Runtime, SegmenterRuntime
from ymir_tmi.models.runtime.streams import one_core
from ymir_tmi.pool import ranks
from ymir_tmi.pool.consumer import Consumer, ImageResult, Row, works_with_windows
from ymir_tmi.pool.names import common_folder, image_seed, relative_name
from ymir_tmi.pool.pixels import PixelPredictor
from ymir_tmi.pool.predict import Asked, BatchPredictor, Predictor, Subject
from ymir_tmi.pool.shards import RowStore, shards_of
from ymir_tmi.pool.source import Picture, PictureSource, Unreadable, form_batches
from ymir_tmi.pool.windows import WindowJoiner


def run_pool(
    index: DatasetIndex,
    consumers: Sequence[Consumer],
    rows: RowStore,
    *,
    runtime: Runtime | None = None,
    batch: int = 4,
    workers: int = 2,
    seed: int = 0,
    tiling: Tiling | None = None,
    progress: ProgressReporter | None = None,
) -> None:
    """Show every image of a pool to the consumers and store their rows; shards that are finished already are left out.

    The row of an image that cannot be read is `{"error": why}`.

    With `tiling`, an image that is larger than a tile is decoded once and cut into windows, which are batched like
    images. The consumers then see one result of the image; those that are a `WindowConsumer` see the windows.

    Args:
        index: the pool.
        consumers: who wants to know what about each image; their names differ.
        rows: where their rows go.
        runtime: the model; None if no consumer needs one. Then no picture is opened.
        batch: images that the network is given at once, where so many have one shape.
        workers: threads that decode ahead; with 0 decoding and the network take turns.
        seed: of the run; every image has one of its own that follows from it.
        tiling: how large images are cut; None leaves them whole.
        progress: is told how far all processes are; only rank 0 gives one.
    """
    assert tiling is None or all(map(works_with_windows, consumers))
    shards = shards_of(len(index))
    mine = [number for number in range(ranks.rank(), len(shards), ranks.world_size()) if not rows.is_finished(number)]
    positions = chain.from_iterable(shards[number] for number in mine)
    share = _Share(progress, sum(len(shards[number]) for number in mine))
    at_once = _batches_at_once(runtime, batch)
    # Every thread computes on one core: the network's (see `Streams`), those that decode, this one with the consumers.
    with one_core(), Threads(workers) as threads, Threads(at_once) as network:
        visit = _Pass(index, consumers, runtime, threads, network, positions, batch=batch, seed=seed, tiling=tiling)
        for number in mine:
            rows.write(number, visit.run_shard(shards[number], share))
    rows.merge()


def _batches_at_once(runtime: Runtime | None, batch: int) -> int:
    """Return how many batches the network works on: on a processor so many that every core has a picture."""
    if runtime is None or runtime.device.type != "cpu":
        return 1
    return max(1, torch.get_num_threads() // batch)


def _make_predictor(runtime: Runtime, asked: Asked, threads: Threads) -> BatchPredictor:
    if runtime.spec.task == "semantics":
        return PixelPredictor(cast(SegmenterRuntime, runtime), asked, threads)
    return Predictor(cast(DetectorRuntime, runtime), asked, threads)


def _is_rescaled(runtime: Runtime) -> bool:
    """Return whether pictures themselves are needed, for inputs of other sizes."""
    return runtime.spec.task == "semantics" and cast(SegmenterRuntime, runtime).test.scales != (1.0,)


class _Pass:
    """The work of one process, which takes the images in the order of `positions`."""

    def __init__(
        self,
        index: DatasetIndex,
        consumers: Sequence[Consumer],
        runtime: Runtime | None,
        threads: Threads,
        network: Threads,
        positions: Iterable[int],
        *,
        batch: int,
        seed: int,
        tiling: Tiling | None,
    ) -> None:
        self._index = index
        self._consumers = consumers
        self._batch = batch
        self._seed = seed
        self._folder = common_folder(index.paths)
        self._network = network
        self._predictor: BatchPredictor | None = None
        self._joiner: WindowJoiner | None = None
        if runtime is not None:
            asked = Asked.by(consumers)
            self._predictor = _make_predictor(runtime, asked, threads)
            # One source for all shards: the threads read on while the last batch of a shard is computed.
            self._pictures = PictureSource(
                index,
                positions,
                runtime.spec.input,
                threads,
                ahead=2 * batch,
                keep=bool(asked.views) or _is_rescaled(runtime),
                tiling=tiling,
                measure=asked.measure,
            )
            if tiling is not None:
                self._joiner = WindowJoiner(consumers, tiling, runtime.spec.postprocess, self._seed_of)

    def run_shard(self, shard: range, share: _Share) -> dict[str, list[Row]]:
        """Return the rows of the next shard, by the name of the consumer."""
        table: dict[int, dict[str, Row]] = {}
        unreadable: list[Unreadable] = []
        names = [consumer.name for consumer in self._consumers]
        for results in self._results(shard, unreadable):
            before = len(table)
            table.update(self._rows(results))
            share.advance(len(table) - before)
        for failure in unreadable:
            table[failure.position] = {name: {"error": failure.error} for name in names}
        share.advance(len(unreadable))
        return {name: [table[position][name] for position in shard] for name in names}

    def _rows(self, results: Sequence[ImageResult]) -> Iterator[tuple[int, dict[str, Row]]]:
        """Yield the position and the rows, by consumer, of each image that is complete with these results."""
        whole = [result for result in results if result.tile is None]
        rows = [consumer.consume(whole) for consumer in self._consumers] if whole else []
        for result, *its_rows in zip(whole, *rows, strict=True):
            yield result.position, {consumer.name: row for consumer, row in zip(self._consumers, its_rows, strict=True)}
        if self._joiner is not None:
            yield from self._joiner.add([result for result in results if result.tile is not None])

    def _results(self, shard: range, unreadable: list[Unreadable]) -> Iterator[list[ImageResult]]:
        """Yield results batch by batch; pictures that cannot be read go to `unreadable`."""
        if self._predictor is None:
            yield [self._result_without_model(position) for position in shard]
            return
        pictures = self._pictures.take(len(shard), unreadable)
        batches = (list(map(self._subject, batch)) for batch in form_batches(pictures, self._batch))
        # While the consumers look at one batch the network is at the next.
        for batch, raw in self._network.map(self._predictor.forward, batches):
            yield from self._predictor.results(batch, raw)

    def _subject(self, picture: Picture) -> Subject:
        path = self._index.paths[picture.position]
        part = "" if picture.tile is None else "\0{},{}".format(*picture.tile.window)
        return Subject(picture, path, self._seed_of(path, part))

    def _result_without_model(self, position: int) -> ImageResult:
        path = self._index.paths[position]
        return ImageResult(position, path, self._index.size(position) or (0, 0), None, self._seed_of(path))

    def _seed_of(self, path: str, part: str = "") -> int:
        return image_seed(self._seed, relative_name(path, self._folder) + part)


class _Share:
    """Tells how far all processes are, which is about as far as this one.

    Args:
        progress: of all images; None says nothing.
        images: that this process has to do.
    """

    def __init__(self, progress: ProgressReporter | None, images: int) -> None:
        self._progress = progress
        self._before = 0 if progress is None else progress.done
        self._images = images
        self._done = 0

    def advance(self, images: int) -> None:
        """Count `images` more of this process."""
        self._done += images
        if self._progress is not None and images:
            left = self._progress.total - self._before
            self._progress.advance(self._before + left * self._done // self._images - self._progress.done)
