"""RSAL: superpixels in which two classes are nearly as likely as one another (docs/specs/mining.md, section 7).

Source: Cai et al., "Revisiting superpixels for active learning in semantic segmentation with realistic annotation
costs", CVPR 2021. The uncertainty of a region is the mean over its pixels of the second largest class probability by
the largest. Regions of classes that are frequent in the whole pool count less:

    w_c = exp(-(regions in which class c prevails) / (all regions))

So nothing can be chosen before the pool is known. In an image, the best regions are chosen, and those beyond them that
are above a percentile of all regions; the score is their sum. What a pass keeps of an image are six bytes a region, and
what the choice keeps of the pool does not grow with it (`mining.pool_statistics`).
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ymir_tmi.config.schema import MineSettings
from ymir_tmi.geometry.masks import Masks
from ymir_tmi.imaging import require_superpixels
from ymir_tmi.mining.algorithm import (
    Algorithm,
    HeatMapAlgorithm,
    PoolAlgorithm,
    RegionAlgorithm,
    refuse_option,
    require_finite,
)
from ymir_tmi.mining.pixels import top_two
from ymir_tmi.mining.pool_statistics import percentile
from ymir_tmi.mining.superpixels import Labels, SuperpixelMeans, SuperpixelSpec, superpixel_means
from ymir_tmi.pool.consumer import ImageResult, Needs, Row

_LOWEST_SHARE = 0.8  # regions beyond the best ones of an image are at least above this share of the pool's
_ENCODED_AT_ONCE = 16  # regions of a picture


@dataclass(frozen=True)
class Choice:
    """How regions are chosen.

    Attributes:
        top_regions: of an image, whatever their uncertainty.
        kept: images that are to be labelled, which the threshold for further regions follows from.
        class_balance: whether regions of frequent classes count less.
        normalize: whether uncertainties are spread over [0, 1] before that.
        whole_percent: whether the threshold is a whole percentile, as in the form 'mmseg'.
    """

    top_regions: int = 3
    kept: int = 5000
    class_balance: bool = True
    normalize: bool = False
    whole_percent: bool = False

    def share_below(self, regions: int) -> float:
        """Return the share of a pool's regions that lie below the threshold."""
        share = max(_LOWEST_SHARE, 1 - self.kept * self.top_regions / max(1, regions))
        return round(100 * share) / 100 if self.whole_percent else share


@dataclass(frozen=True)
class PoolOfRegions:
    """What the regions of the whole pool say about each of them.

    Attributes:
        counts: (C,) regions in which each class prevails.
        weights: (C,) float32 factors of the classes.
        low: the smallest uncertainty.
        scale: what uncertainties are multiplied with.
        threshold: regions beyond the best ones of an image are chosen from this on.
    """

    counts: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float32]
    low: float = 0.0
    scale: float = 1.0
    threshold: float = np.inf

    def weigh(self, regions: SuperpixelMeans) -> npt.NDArray[np.float32]:
        """Return the scores of regions; NaN stays NaN."""
        scores: npt.NDArray[np.float32] = (regions.values - self.low) * self.scale * self.weights[regions.classes]
        return scores

    def choose(
        self, regions: SuperpixelMeans, top_regions: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Return the numbers and scores of the regions to label, the best first; ties keep their order."""
        scores = self.weigh(regions)
        order = np.argsort(-scores, kind="stable")[: int(np.isfinite(scores).sum())]  # NaN is sorted to the end
        count = max(top_regions, int((scores[order] >= self.threshold).sum()))
        return order[:count], scores[order[:count]]


def survey(batches: Callable[[], Iterable[SuperpixelMeans]], num_classes: int, choice: Choice) -> PoolOfRegions:
    """Look at the regions of all images, three times, and return what is to be known of them.

    Args:
        batches: returns the regions of each image.
        num_classes: C.
        choice: how regions will be chosen.
    """
    counts = np.zeros(num_classes, np.int64)
    low, high = math.inf, -math.inf
    for regions in batches():
        exists = np.isfinite(regions.values)
        if exists.any():
            counts += np.bincount(regions.classes[exists], minlength=num_classes)
            low, high = min(low, float(regions.values[exists].min())), max(high, float(regions.values[exists].max()))
    total = int(counts.sum())
    if not total:
        return PoolOfRegions(counts, np.ones(num_classes, np.float32))
    weights = np.exp(-counts / total) if choice.class_balance else np.ones(num_classes)
    pool = PoolOfRegions(counts, weights.astype(np.float32))
    if choice.normalize:
        pool = PoolOfRegions(counts, pool.weights, low, 1 / max(high - low, 1e-12))

    def scores() -> Iterable[npt.NDArray[np.float32]]:
        weighed = map(pool.weigh, batches())
        return (values[np.isfinite(values)] for values in weighed)

    threshold = percentile(scores, choice.share_below(total))
    return PoolOfRegions(counts, pool.weights, pool.low, pool.scale, threshold)


class Rsal(HeatMapAlgorithm, PoolAlgorithm, RegionAlgorithm):
    """Sums the scores of the regions to label.

    Args:
        class_names: of the pixels.
        superpixels: how pictures are cut.
        choice: how regions are chosen.
        skip_last: whether the last superpixel of a picture does not count, as in the form 'mmseg'.
    """

    name = "rsal"

    def __init__(
        self, class_names: Sequence[str], superpixels: SuperpixelSpec, choice: Choice, *, skip_last: bool = False
    ) -> None:
        self._class_names = class_names
        self._superpixels = superpixels
        self._choice = choice
        self._skip_last = skip_last

    @property
    def needs(self) -> Needs:
        """The class probabilities of all pixels, and the superpixels of the picture."""
        return Needs(outputs=frozenset({"probabilities"}), min_score=1.0, measure=self._superpixels.cut)

    def consume(self, batch: Sequence[ImageResult]) -> list[Row]:
        """Return one row per image, which holds its regions; `conclude` makes scores of them."""
        return [_pack(self._regions(result)) for result in batch]

    def conclude(self, rows: Callable[[], Iterable[Row]]) -> Callable[[Row], Row]:
        """Weigh the classes of the pool, and return what chooses the regions of an image.

        `regions` of a concluded row are the superpixels to label, with class and score, the best first.
        """
        pool = survey(lambda: map(_unpack, rows()), len(self._class_names), self._choice)
        return lambda row: self._concluded(pool, _unpack(row))

    def heat_map(self, result: ImageResult) -> npt.NDArray[np.float32]:
        """Return (height, width) the uncertainty of the superpixel of each pixel, classes not weighed."""
        heat: npt.NDArray[np.float32] = self._means(result).values[result.measured]
        return heat

    def find_regions(self, measured: Labels, regions: Sequence[Row]) -> tuple[npt.NDArray[np.bool_], list[Row]]:
        """Return the chosen superpixels."""
        numbers = np.array([region["superpixel"] for region in regions], np.int64)
        entries = [
            entry
            for start in range(0, len(numbers), _ENCODED_AT_ONCE)
            for entry in Masks.encode(measured == numbers[start : start + _ENCODED_AT_ONCE, None, None]).entries()
        ]
        outlined = [
            {"rle": {**entry, "counts": entry["counts"].decode("ascii")}, **region}
            for entry, region in zip(entries, regions, strict=True)
        ]
        return np.isin(measured, numbers), outlined

    def _regions(self, result: ImageResult) -> SuperpixelMeans:
        means = self._means(result)
        if self._skip_last:
            means.values[-1] = np.nan
        return means

    def _means(self, result: ImageResult) -> SuperpixelMeans:
        assert result.probabilities is not None
        top = top_two(result.probabilities)
        require_finite(result, float(top.ratio.max()))  # NaN would pass for a superpixel that is not there
        return superpixel_means(result.measured, top.ratio, top.classes, len(self._class_names))

    def _concluded(self, pool: PoolOfRegions, regions: SuperpixelMeans) -> Row:
        numbers, scores = pool.choose(regions, self._choice.top_regions)
        if not len(numbers):
            return {"score": 0.0, "components": {"regions": 0.0}, "reason": "there are no regions", "regions": []}
        names = [self._class_names[label] for label in regions.classes[numbers]]
        values = scores.tolist()
        return {
            "score": sum(values),
            "components": {"regions": float(len(values)), "max": values[0]},
            "reason": f"{len(values)} of {np.isfinite(regions.values).sum()} regions, the best one mostly '{names[0]}'",
            "regions": [
                {"superpixel": number, "label": name, "score": value}
                for number, name, value in zip(numbers.tolist(), names, values, strict=True)
            ],
        }


def build_rsal(settings: MineSettings, class_names: Sequence[str]) -> Algorithm:
    """Return the algorithm in the form that `settings.compat` says.

    Raises:
        ConfigError: an option is set that the form or the superpixels do not have.
        DependencyError: OpenCV lacks superpixels.
    """
    require_superpixels()
    is_port = settings.compat is not None
    if is_port:
        refuse_option(settings, "normalize", f"form '{settings.compat}' does not normalise")
    if settings.superpixels == "seeds":
        refuse_option(settings, "region_size", "the size of seeds follows from max_superpixels")
    choice = Choice(
        settings.top_regions, settings.kept, settings.class_balance, settings.normalize, whole_percent=is_port
    )
    superpixels = SuperpixelSpec(settings.superpixels, settings.max_superpixels, settings.region_size)
    return Rsal(class_names, superpixels, choice, skip_last=is_port)


def _pack(regions: SuperpixelMeans) -> Row:
    return {
        "values": base64.b64encode(regions.values.astype("<f4").tobytes()).decode("ascii"),
        "classes": base64.b64encode(regions.classes.astype("<u2").tobytes()).decode("ascii"),
    }


def _unpack(row: Row) -> SuperpixelMeans:
    values, classes = (base64.b64decode(row[name]) for name in ("values", "classes"))
    return SuperpixelMeans(np.frombuffer(values, "<f4"), np.frombuffer(classes, "<u2"))
