"""Outlines of objects as columns of edges, for moving, cutting and filling all objects of a picture at once.

An outline is kept as the set of its edges, not as rings of points: what lies inside (even-odd rule), how far it reaches
and what is left of it at a border follow from the edges alone, without a loop over objects. Straight edges stay
straight under every map that a picture goes through, so moving their ends is exact, and so is cutting them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from ymir_tmi.geometry.ragged import offsets, spans
from ymir_tmi.geometry.runs import Counts, column_runs, outline_edges

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Polygons:
    """The outlines of n objects of one picture.

    An object is the union of its parts. A part is bounded by closed lines and filled by the even-odd rule, so that it
    may have holes. Of neighbouring edges one ends exactly where the other begins.

    Attributes:
        edges: (E, 2, 2) float32, from and to (x, y) in pixels of the picture; pixel i covers [i, i + 1).
        parts: (P + 1,) where the edges of each part start.
        objects: (n + 1,) where the parts of each object start.
    """

    edges: Floats
    parts: Ints
    objects: Ints

    def __len__(self) -> int:
        return len(self.objects) - 1

    @classmethod
    def from_rings(cls, objects: Sequence[Sequence[Sequence[float]]]) -> Polygons:
        """Return the outlines of objects that are given by polygons [x1, y1, x2, y2, ...], each of which is a part.

        Polygons of fewer than three corners are left out.
        """
        parts = [[ring for ring in rings if len(ring) >= 6] for rings in objects]
        rings = list(chain.from_iterable(parts))
        flat = np.fromiter(chain.from_iterable(rings), np.float32, sum(map(len, rings)))
        sizes = np.array([len(ring) // 2 for ring in rings], np.int64)
        return cls(_closed(flat.reshape(-1, 2), sizes), offsets(sizes), offsets(list(map(len, parts))))

    @classmethod
    def from_corners(cls, corners: npt.NDArray[Any]) -> Polygons:
        """Return the outlines of n objects with p corners each, (n, p, 2)."""
        count, sides, _ = corners.shape
        sizes = np.full(count, sides, np.int64)
        points = corners.reshape(-1, 2).astype(np.float32)
        return cls(_closed(points, sizes), offsets(sizes), np.arange(count + 1))

    @classmethod
    def from_run_lengths(cls, counts: Counts, heights: npt.ArrayLike) -> Polygons:
        """Return the outlines of masks along the sides of their pixels, holes included: filled, they are the masks.

        Args:
            counts: the run lengths of n masks.
            heights: of their pictures in pixels, one or (n,).
        """
        heights = np.broadcast_to(np.asarray(heights, np.int64), counts.numbers.shape)
        edges, owners = outline_edges(column_runs(counts, heights))
        count = len(counts.numbers)
        return cls(edges.astype(np.float32), offsets(np.bincount(owners, minlength=count)), np.arange(count + 1))

    @classmethod
    def concatenate(cls, pieces: Sequence[Polygons]) -> Polygons:
        """Return the objects of several lists, in order."""
        edges = np.concatenate([piece.edges for piece in pieces])
        parts = offsets(np.concatenate([np.diff(piece.parts) for piece in pieces]))
        return cls(edges, parts, offsets(np.concatenate([np.diff(piece.objects) for piece in pieces])))

    def take(self, rows: Any) -> Polygons:
        """Return the chosen objects (a slice, a mask or row numbers)."""
        rows = np.arange(len(self))[rows]
        parts = spans(self.objects[rows], self.objects[rows + 1])
        edges = spans(self.parts[parts], self.parts[parts + 1])
        return Polygons(self.edges[edges], offsets(np.diff(self.parts)[parts]), offsets(np.diff(self.objects)[rows]))

    def with_edges(self, edges: npt.NDArray[Any]) -> Polygons:
        """Return the same objects with other (E, 2, 2) edges: what a map of the picture makes of them."""
        return dataclasses.replace(self, edges=edges.astype(np.float32))

    def hulls(self) -> Floats:
        """Return (n, 4) the smallest upright boxes around the objects, xyxy; zeros for one without edges."""
        hulls = np.zeros((len(self), 4), np.float32)
        starts = self.parts[self.objects]
        rows = np.flatnonzero(np.diff(starts))
        if len(rows):
            one, other = self.edges[:, 0], self.edges[:, 1]
            hulls[rows, :2] = np.minimum.reduceat(np.minimum(one, other), starts[rows])
            hulls[rows, 2:] = np.maximum.reduceat(np.maximum(one, other), starts[rows])
        return hulls

    def areas(self) -> npt.NDArray[np.float64]:
        """Return (n,) the areas of the objects; of one that crosses or overlaps itself it is another number."""
        (x1, y1), (x2, y2) = self.edges.astype(np.float64).transpose(1, 2, 0)
        parts = np.abs(np.bincount(self._part_of_edge(), x1 * y2 - x2 * y1, len(self.parts) - 1)) / 2
        return np.asarray(np.bincount(self._object_of_part(), parts, len(self)), np.float64)

    def clip(self, width: float, height: float) -> Polygons:
        """Return what of the objects lies in a picture; what is cut off is closed along the border."""
        clipped = self
        for axis, limit in enumerate((width, height)):
            values = clipped.edges[:, :, axis]
            if values.min(initial=0) < 0:
                clipped = clipped._clip_side(axis, 0.0, 1)
            if values.max(initial=0) > limit:
                clipped = clipped._clip_side(axis, limit, -1)
        return clipped

    def pixels(self, width: int, height: int) -> tuple[Ints, Ints]:
        """Return the pixels of a picture whose centres lie inside.

        Returns:
            Their places in a flat picture, and their objects, ascending. Where objects overlap a pixel occurs for each,
            and where parts of one do, it may occur for this several times.
        """
        part, row, left, right = self._rows_inside(width, height)
        places = spans(row * width + left, row * width + right)
        return places, np.repeat(self._object_of_part()[part], right - left)

    def bitmap(self, width: int, height: int) -> npt.NDArray[np.bool_]:
        """Return (height, width) which pixels lie inside of any of the objects by their centres."""
        inside = np.zeros(height * width, np.bool_)
        inside[self.pixels(width, height)[0]] = True
        return inside.reshape(height, width)

    def index_map(self, width: int, height: int) -> tuple[Ints, Ints]:
        """Return a picture of all objects in which small ones lie on top.

        An object that has no pixel's centre inside is the pixel in its middle.

        Returns:
            (height, width) k + 1 where the k-th largest object is seen, else 0; and (n,) the objects, the one with most
            pixels first.
        """
        places, owners = self.pixels(width, height)
        areas = np.bincount(owners, minlength=len(self))
        missed = np.flatnonzero(areas == 0)
        order = np.argsort(-areas, kind="stable")
        rank = np.empty(len(self), np.int64)
        rank[order] = np.arange(len(self))
        hulls = self.hulls()[missed]
        x, y = np.clip((hulls[:, :2] + hulls[:, 2:]) // 2, 0, (width - 1, height - 1)).astype(np.int64).T
        places, ranks = np.concatenate([places, y * width + x]), rank[np.concatenate([owners, missed])]
        seen = np.zeros(height * width, np.int64)
        by_rank = np.argsort(ranks, kind="stable")
        seen[places[by_rank]] = ranks[by_rank] + 1  # of several for one place the last one stays
        return seen.reshape(height, width), order

    def rings(self, row: int) -> list[list[list[float]]]:
        """Return the closed lines [x1, y1, x2, y2, ...] of each part of an object, for writing them down."""
        parts = range(self.objects[row], self.objects[row + 1])
        return [_stitch(self.edges[self.parts[part] : self.parts[part + 1]]) for part in parts]

    def joined(self, row: int) -> Floats:
        """Return (k, 2) one closed line around all parts of an object and the holes in them.

        Each is joined to those before it where they are nearest to one another, by a line that is gone over there and
        back.
        """
        first, *rest = [np.array(ring, np.float32).reshape(-1, 2) for part in self.rings(row) for ring in part]
        for ring in rest:
            distances = np.square(first[:, None] - ring).sum(axis=2)
            here, there = np.unravel_index(distances.argmin(), distances.shape)
            around = np.concatenate([ring[there:], ring[: there + 1]])
            first = np.concatenate([first[: here + 1], around, first[here:]])
        return first

    def _part_of_edge(self) -> Ints:
        return np.repeat(np.arange(len(self.parts) - 1), np.diff(self.parts))

    def _object_of_part(self) -> Ints:
        return np.repeat(np.arange(len(self)), np.diff(self.objects))

    def _clip_side(self, axis: int, limit: float, sign: int) -> Polygons:
        """Keep what lies on one side of a line, which is part of it.

        The line runs inside a part between its first and its second crossing with it, the third and the fourth, and so
        on: these are the edges that close what is left.
        """
        from_depth, to_depth = (sign * (self.edges[:, end, axis].astype(np.float64) - limit) for end in (0, 1))
        from_inside, to_inside = from_depth >= 0, to_depth >= 0
        part = self._part_of_edge()
        crossing = np.flatnonzero(from_inside != to_inside)
        start, end = self.edges[crossing].astype(np.float64).swapaxes(0, 1)
        share = from_depth[crossing] / (from_depth[crossing] - to_depth[crossing])
        points = start + share[:, None] * (end - start)
        points[:, axis] = limit
        leaves = from_inside[crossing]
        edges = self.edges.copy()
        edges[crossing, leaves.astype(np.int64)] = points
        order = np.lexsort((points[:, 1 - axis], part[crossing]))
        along = points.astype(np.float32)[order].reshape(-1, 2, 2)
        along = np.where(leaves[order][::2, None, None], along, along[:, ::-1])
        kept = from_inside | to_inside
        return self._of_parts(
            np.concatenate([edges[kept], along]), np.concatenate([part[kept], part[crossing][order][::2]])
        )

    def _of_parts(self, edges: Floats, part: Ints) -> Polygons:
        """Return outlines with other edges, given with the part of each in any order; those without length go."""
        differs = edges[:, 0] != edges[:, 1]
        long = differs[:, 0] | differs[:, 1]
        edges, part = edges[long], part[long]
        parts = offsets(np.bincount(part, minlength=len(self.parts) - 1))
        return Polygons(edges[np.argsort(part, kind="stable")], parts, self.objects)

    def _rows_inside(self, width: int, height: int) -> tuple[Ints, Ints, Ints, Ints]:
        """Return part, row, first and last + 1 column of each run of pixels whose centres lie inside."""
        (x1, y1), (x2, y2) = self.edges.astype(np.float64).transpose(1, 2, 0)
        # An edge has its upper end and not its lower one, so that every line through pixel centres meets a closed
        # outline in an even number of places.
        first, last = (np.ceil(end(y1, y2) - 0.5).clip(0, height).astype(np.int64) for end in (np.minimum, np.maximum))
        edge = np.repeat(np.arange(len(self.edges)), last - first)
        row = spans(first, last)
        x = x1[edge] + (row + 0.5 - y1[edge]) * ((x2 - x1)[edge] / (y2 - y1)[edge])
        line = self._part_of_edge()[edge] * height + row
        order = np.lexsort((x, line))
        column = np.ceil(x[order] - 0.5).clip(0, width).astype(np.int64).reshape(-1, 2)
        part, row = np.divmod(line[order][::2], height) if height else (line, row)
        seen = column[:, 0] < column[:, 1]
        return part[seen], row[seen], column[seen, 0], column[seen, 1]


def warp_points(points: npt.NDArray[Any], matrix: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Map points (..., 2) by a (3, 3) matrix in homogeneous coordinates.

    Equal points stay equal to the last digit, which a matrix product does not promise.
    """
    x, y = np.moveaxis(points.astype(np.float64), -1, 0)
    x, y, depth = (row[0] * x + row[1] * y + row[2] for row in matrix.tolist())
    return np.stack([x / depth, y / depth], axis=-1)


def _closed(points: Floats, sizes: Ints) -> Floats:
    """Return the edges of rings of points, of which each has `sizes` many: from every point to the next one."""
    following = np.arange(1, len(points) + 1)
    ends = np.cumsum(sizes)
    following[ends - 1] = ends - sizes
    return np.stack([points, points[following]], axis=1)


def _stitch(edges: Floats) -> list[list[float]]:
    """Join edges to rings of points."""
    following: dict[tuple[float, float], list[tuple[float, float]]] = {}
    for start, end in edges.tolist():
        following.setdefault(tuple(start), []).append(tuple(end))
    rings = []
    for start in list(following):
        while following[start]:
            ring, point = list(start), following[start].pop()
            while point != start and following.get(point):
                ring.extend(point)
                point = following[point].pop()
            rings.append(ring)
    return rings
