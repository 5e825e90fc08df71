"""The regions to label as pictures: white on black, of the size of the image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ymir_tmi.data.threads import Threads
from ymir_tmi.files.layout import RunLayout
from ymir_tmi.imaging import read_image, write_grey
from ymir_tmi.mining.algorithm import RegionAlgorithm
from ymir_tmi.mining.ranking import RankedImage
from ymir_tmi.pool import ranks
from ymir_tmi.pool.consumer import Consumer, ImageResult, Needs, Row
from ymir_tmi.pool.names import relative_name


class MaskWriter(Consumer):
    """Writes the masks of the first images of a ranking, and finds the run lengths of their regions.

    It can take part in a pass over the first of these images, in the order of the ranking, beside a consumer that asks
    for what the algorithm measures; a row is what `write` adds to the image in the ranking.

    A mask is named after its picture, with `.png` added, in the folders below the one that holds all pictures: so no
    two images have one name.

    Args:
        algorithm: finds the regions in what it measures of the picture.
        ranking: the images; those without regions are left as they are.
        layout: of the run.
        folder: the deepest folder that holds all pictures of the pool.
    """

    name = "masks"

    def __init__(
        self, algorithm: RegionAlgorithm, ranking: Sequence[RankedImage], layout: RunLayout, folder: str
    ) -> None:
        self._algorithm = algorithm
        self._ranking = ranking
        self._layout = layout
        self._folder = folder

    @property
    def needs(self) -> Needs:
        """Nothing of the model."""
        return Needs(outputs=frozenset(), min_score=1.0)

    def consume(self, batch: Sequence[ImageResult]) -> list[Row]:
        """Write a mask for each image that has regions; its row has them, and the file."""
        return [self._draw(self._ranking[result.position], result.measured) for result in batch]

    def write(self, rows: Sequence[int], sizes: Sequence[tuple[int, int] | None], workers: int) -> dict[int, Row]:
        """Read and measure pictures and write their masks; the processes share them.

        Args:
            rows: of the ranking.
            sizes: of these pictures as annotations state them.
            workers: threads.

        Returns:
            `regions` and `mask` of each image that has regions.
        """
        share = slice(ranks.rank(), None, ranks.world_size())
        with Threads(workers) as threads:
            own = list(zip(rows[share], sizes[share], strict=True))
            written = dict(zip(rows[share], threads.map(lambda image: self._read(*image), own), strict=True))
        return {row: drawn for of_rank in ranks.gather(written) for row, drawn in of_rank.items()}

    def _read(self, row: int, size: tuple[int, int] | None) -> Row:
        measure = self._algorithm.needs.measure
        assert measure is not None
        return self._draw(self._ranking[row], measure(read_image(self._ranking[row].path, annotated_size=size)))

    def _draw(self, ranked: RankedImage, measured: Any) -> Row:
        if ranked.regions is None:
            return {}
        mask, regions = self._algorithm.find_regions(measured, ranked.regions)
        file = self._layout.masks / f"{relative_name(ranked.path, self._folder)}.png"
        write_grey(file, mask.astype(np.uint8) * np.uint8(255))
        return {"regions": regions, "mask": file.relative_to(self._layout.root).as_posix()}
