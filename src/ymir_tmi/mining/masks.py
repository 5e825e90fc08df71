"""The regions to label as pictures: white on black, of the size of the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ymir_tmi.data.threads import Threads
from ymir_tmi.files.layout import RunLayout
from ymir_tmi.imaging import read_image, write_grey
from ymir_tmi.mining.algorithm import RegionAlgorithm
from ymir_tmi.mining.ranking import RankedImage
from ymir_tmi.pool import ranks
from ymir_tmi.pool.names import relative_name


class MaskWriter:
    """Writes the masks of the first images of a ranking, and adds the regions' run lengths to it.

    A mask is named after its picture, with `.png` added, in the folders below the one that holds all pictures: so no
    two images have one name.

    Args:
        algorithm: finds the regions in the picture.
        layout: of the run.
        folder: the deepest folder that holds all pictures of the pool.
    """

    def __init__(self, algorithm: RegionAlgorithm, layout: RunLayout, folder: str) -> None:
        self._algorithm = algorithm
        self._layout = layout
        self._folder = folder

    def write(
        self, ranking: Sequence[RankedImage], sizes: Sequence[tuple[int, int] | None], workers: int
    ) -> list[RankedImage]:
        """Return the ranking with the regions of all images that have some; the processes share the pictures.

        Args:
            ranking: the images; those without regions are left as they are.
            sizes: of the pictures as annotations state them, for as many images as have regions, or more.
            workers: threads.
        """
        rows = [row for row, image in enumerate(ranking) if image.regions is not None]
        share = rows[ranks.rank() :: ranks.world_size()]
        with Threads(workers) as threads:
            written = dict(
                zip(share, threads.map(lambda row: self._write(ranking[row], sizes[row]), share), strict=True)
            )
        images = list(ranking)
        for of_rank in ranks.gather(written):
            for row, image in of_rank.items():
                images[row] = image
        return images

    def _write(self, ranked: RankedImage, size: tuple[int, int] | None) -> RankedImage:
        assert ranked.regions is not None
        image = read_image(ranked.path, annotated_size=size)
        mask, regions = self._algorithm.find_regions(image, ranked.regions)
        file = self._layout.masks / f"{relative_name(ranked.path, self._folder)}.png"
        write_grey(file, mask.astype(np.uint8) * np.uint8(255))
        return replace(ranked, regions=regions, mask=file.relative_to(self._layout.root).as_posix())
