"""Triangle meshes as ground truth: exact distances to the surface, and even samples of it."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from ..errors import BadPoints, ShapeError

_LEAF = 4  # triangles in a leaf of the tree, at most
_CHUNK = 8192  # points that go down the tree together
# (point, box) pairs that are looked at together, for one point at least: what bounds the memory, to about 200 MB.
_PAIRS = 300_000
# Relative; the bound and the exact distance may be of the same point of the surface, rounded differently.
_SLACK = 1e-9


class Surface:
    """The surface of a triangle mesh, in scene units. Triangles need not be oriented, connected or of positive area.

    Args:
        vertices: [n, 3], finite. Those that no triangle uses do not count.
        triangles: [m, 3] integers, m ≥ 1: vertex numbers of the corners.

    Raises:
        ShapeError: an array of another shape, or a corner that is no vertex.
        BadPoints: no triangles, or a vertex that is not finite.
    """

    def __init__(self, vertices: np.ndarray, triangles: np.ndarray) -> None:
        vertices, triangles = np.asarray(vertices, np.float64), np.asarray(triangles)
        if vertices.ndim != 2 or vertices.shape[1] != 3 or triangles.ndim != 2 or triangles.shape[1] != 3:
            raise ShapeError(
                f"A mesh needs vertices [n, 3] and triangles [m, 3], got {list(vertices.shape)} and "
                f"{list(triangles.shape)}."
            )
        if len(triangles) == 0:
            raise BadPoints(f"The mesh has {len(vertices)} vertices and no triangles; a surface needs at least one.")
        if triangles.dtype.kind not in "iu" or triangles.min() < 0 or triangles.max() >= len(vertices):
            raise ShapeError(
                f"The triangles name vertices {triangles.min()} to {triangles.max()}; expected whole numbers from 0 to "
                f"{len(vertices) - 1}."
            )
        finite = np.isfinite(vertices).all(axis=1)
        if not finite.all():
            raise BadPoints(
                f"{int((~finite).sum())} of the {len(vertices)} vertices of the mesh are not finite (the first is "
                f"number {int(np.argmin(finite))}).",
                hint="Remove them from the mesh.",
            )
        self.corners = vertices[triangles]  # [m, 3, 3]: triangle, corner, axis

    @cached_property
    def areas(self) -> np.ndarray:
        """[m] of the triangles."""
        a, b, c = np.moveaxis(self.corners, 1, 0)
        return 0.5 * np.linalg.norm(np.cross(b - a, c - a), axis=1)

    def sample(self, count: int, seed: int = 0) -> np.ndarray:
        """Points [count, 3] on the surface, uniform by area; the same for the same ``seed`` (see :meth:`places`)."""
        triangle, weights = self.places(count, seed)
        return np.einsum("nc,nca->na", weights, self.corners[triangle])

    def places(self, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Where the points of :meth:`sample` lie: triangle [count], and barycentric weights [count, 3] of its corners.

        Stratified over the triangles, so that each gets its share of ``count`` within one point. A point in a triangle
        by Osada et al. 2002 (Shape distributions), eq. 1. A mesh without area is sampled at its corners.
        """
        rng = np.random.default_rng(seed)
        ends = np.cumsum(self.areas)
        if not ends[-1] > 0:
            triangle, corner = np.divmod(rng.integers(0, 3 * len(self.corners), count), 3)
            return triangle, np.eye(3)[corner]
        place = (np.arange(count) + rng.random(count)) / count * ends[-1]
        triangle = np.minimum(np.searchsorted(ends, place, side="right"), len(ends) - 1)
        root, along = np.sqrt(rng.random(count)), rng.random(count)
        return triangle, np.stack([1 - root, root * (1 - along), root * along], axis=1)

    def distance(self, xyz: np.ndarray) -> np.ndarray:
        """Distance [n] from each point [n, 3], finite, to the nearest point of the surface; exact but for rounding.

        A tree of boxes over the triangles; a box is opened where it is nearer than a surface point that is known, the
        nearest of many samples (a k-d tree). A point within reach of the surface opens about six leaves.
        """
        xyz = np.asarray(xyz, np.float64)
        bounds, _ = self._near.query(xyz, workers=-1)
        result = np.empty(len(xyz))
        for start in range(0, len(xyz), _CHUNK):
            part = slice(start, start + _CHUNK)
            result[part] = self._descend(xyz[part], bounds[part])
        return result

    @cached_property
    def _near(self):
        """k-d tree of surface points. The corners alone would bound badly where triangles are large."""
        from scipy.spatial import cKDTree

        corners = np.unique(self.corners.reshape(-1, 3), axis=0)
        return cKDTree(np.concatenate([corners, self.sample(2 * len(self.corners) + 10_000)]))

    @cached_property
    def _tree(self) -> tuple[np.ndarray, list[tuple[np.ndarray, np.ndarray]]]:
        """Corners by leaf [2ᵈ, k, 3, 3], and per level the least and largest coordinates of its boxes [2ˡ, 3].

        Box i of a level holds boxes 2 i and 2 i + 1 of the next: halves by the median of the centres along the longest
        side. All leaves are of one size; the last triangle is repeated to fill them, which changes no distance.
        """
        m = len(self.corners)
        depth = max(0, int(np.ceil(np.log2(m / _LEAF))))
        leaf = -(-m // 2**depth)
        order = np.minimum(np.arange(leaf * 2**depth), m - 1)[None]
        centres = self.corners.mean(axis=1)
        for _ in range(depth):
            here = centres[order]
            axis = (here.max(axis=1) - here.min(axis=1)).argmax(axis=1)
            keys = np.take_along_axis(here, axis[:, None, None], axis=2)[..., 0]
            order = np.take_along_axis(order, keys.argsort(axis=1, kind="stable"), axis=1)
            order = order.reshape(2 * len(order), -1)
        leaves = self.corners[order]
        boxes = [(leaves.min(axis=(1, 2)), leaves.max(axis=(1, 2)))]
        while len(boxes[0][0]) > 1:
            low, high = boxes[0]
            boxes.insert(0, (np.minimum(low[::2], low[1::2]), np.maximum(high[::2], high[1::2])))
        return leaves, boxes

    def _descend(self, xyz: np.ndarray, bounds: np.ndarray) -> np.ndarray:
        """Distances [n] of points [n, 3] of which a surface point is known at the distances ``bounds`` [n]."""
        leaves, boxes = self._tree
        best = bounds**2
        # Levels that wait, each with pairs of a point and a box: a stack, so that few pairs are open at a time.
        waiting = [(0, np.arange(len(xyz)), np.zeros(len(xyz), np.int64))]
        while waiting:
            level, point, box = waiting.pop()
            if len(point) > _PAIRS:
                half = len(point) // 2
                waiting += [(level, point[half:], box[half:]), (level, point[:half], box[:half])]
                continue
            low, high = boxes[level]
            p = xyz[point]
            apart = np.maximum(np.maximum(low[box] - p, p - high[box]), 0.0)
            keep = np.einsum("na,na->n", apart, apart) <= best[point] * (1 + _SLACK)
            point, box = point[keep], box[keep]
            if level + 1 < len(boxes):
                waiting.append((level + 1, np.repeat(point, 2), np.stack([2 * box, 2 * box + 1], axis=1).reshape(-1)))
                continue
            for each in range(leaves.shape[1]):
                squared = _squared_distances(xyz[point], leaves[box, each])
                np.minimum.at(best, point, squared)
        return np.sqrt(best)


def _squared_distances(p: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """[n] from points [n, 3] to triangles [n, 3, 3], pair by pair: to the plane above a triangle, else to an edge."""
    # einsum, because numpy's sums over an axis of three are several times slower.
    edges = corners[:, [1, 2, 0]] - corners
    offsets = p[:, None] - corners
    normal = np.cross(edges[:, 0], edges[:, 1])
    length = np.einsum("na,na->n", normal, normal)
    # Above the triangle: on the inner side of the planes that stand on its edges.
    sides = np.einsum("nea,na->ne", np.cross(edges, offsets), normal)
    above = (sides[:, 0] >= 0) & (sides[:, 1] >= 0) & (sides[:, 2] >= 0) & (length > 0)
    edge_lengths = np.einsum("nea,nea->ne", edges, edges)
    along = np.einsum("nea,nea->ne", offsets, edges) / np.where(edge_lengths > 0, edge_lengths, 1.0)
    feet = offsets - np.clip(along, 0.0, 1.0)[..., None] * edges
    squared = np.einsum("nea,nea->ne", feet, feet)
    result = np.minimum(np.minimum(squared[:, 0], squared[:, 1]), squared[:, 2])
    height = np.einsum("na,na->n", offsets[:, 0], normal)
    result[above] = height[above] ** 2 / length[above]
    return result
