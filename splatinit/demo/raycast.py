"""A small ray caster in numpy: four solids, each placed by an affine map, with textures, a sun, sky light and shadows.

Rays are intersected in the unit space of each solid, and only inside the rectangle of the picture that its box covers,
so that a scene of hundreds of small solids costs little more than its pixels. Ray parameters are camera depths z, in
scene units, because every ray direction has z = 1 in camera axes (orthographic ones have unit length).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from ..types import Camera
from .textures import Texture

RayPieces = tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]  # x, y, z of origins, and of directions
NEAR = 0.05  # scene units: nothing of the demo scene comes closer to a camera
_BOX = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float)


def affine(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """[m, k] points mapped by a [k, 4] matrix. Not by BLAS, whose threads lose more than they gain on so thin a matrix
    and whose sums depend on their number."""
    x, y, z = points[:, 0], points[:, 1], points[:, 2]
    return np.stack([row[0] * x + row[1] * y + row[2] * z + row[3] for row in matrix], axis=1)


def dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """[m] scalar products of [m, 3] with [3] or [m, 3]."""
    return a[:, 0] * b[..., 0] + a[:, 1] * b[..., 1] + a[:, 2] * b[..., 2]


def normalised(vectors: np.ndarray) -> np.ndarray:
    """[m, 3] at unit length."""
    return vectors / np.maximum(np.sqrt(dot(vectors, vectors)), 1e-12)[:, None]


@dataclass(frozen=True)
class Solid:
    """A unit solid placed in the world.

    Attributes:
        kind: "sphere" x² + y² + z² ≤ 1; "dome" the same seen from inside; "box" [−1, 1]³; "cylinder" x² + y² ≤ 1,
            |z| ≤ 1; "cone" the same with the radius shrinking to 0 at z = 1.
        place: [3, 4] affine map, world from unit space.
        texture: name of the texture.
        tile: [2] size of one texture repeat in scene units (on a sphere: in turns), or None to fit one onto each face.
        tint: [3] factor on the albedo.
        gloss: strength of the mirror-like highlight of the sun.
    """

    kind: Literal["sphere", "dome", "box", "cylinder", "cone"]
    place: np.ndarray
    texture: str
    tile: tuple[float, float] | None = None
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    gloss: float = 0.0

    @cached_property
    def inverse(self) -> tuple[np.ndarray, np.ndarray]:
        """([3, 3], [3]): linear part and offset of the map from the world to unit space."""
        linear = np.linalg.inv(self.place[:, :3])
        return linear, -linear @ self.place[:, 3]


@dataclass(frozen=True)
class Rays:
    """A grid of rays [h, w]: origin and direction as functions of the pixel, and how to find a solid's rectangle.

    Point of ray (row, column) at depth t: ``origin + column·origin_u + row·origin_v + t · (axis + column·axis_u +
    row·axis_v)``: with constant origin a pinhole camera, with constant axis an orthographic one.
    """

    h: int
    w: int
    origin: np.ndarray
    origin_u: np.ndarray
    origin_v: np.ndarray
    axis: np.ndarray
    axis_u: np.ndarray
    axis_v: np.ndarray
    project: np.ndarray  # [3, 4] maps world points to (column·s, row·s, s) with s = z (pinhole) or 1 (orthographic)
    depth: np.ndarray  # [4] maps world points to depth
    spread: float  # width of a sample: times t for a pinhole camera, absolute for an orthographic one
    pinhole: bool

    @classmethod
    def of_camera(cls, camera: Camera, subdivide: int = 1) -> Rays:
        """Rays through a grid of ``subdivide`` × ``subdivide`` samples in each pixel; 1 gives the pixel centres."""
        w, h = camera.width * subdivide, camera.height * subdivide
        fx, fy = camera.fx * subdivide, camera.fy * subdivide
        cx, cy = camera.K[0, 2] * subdivide, camera.K[1, 2] * subdivide
        R = camera.world_from_cam[:3, :3]
        K = np.array([[fx, 0, cx - 0.5], [0, fy, cy - 0.5], [0, 0, 1.0]])
        zero = np.zeros(3)
        return cls(
            h=h,
            w=w,
            origin=camera.center,
            origin_u=zero,
            origin_v=zero,
            axis=R @ np.array([(0.5 - cx) / fx, (0.5 - cy) / fy, 1.0]),
            axis_u=R[:, 0] / fx,
            axis_v=R[:, 1] / fy,
            project=K @ camera.cam_from_world[:3],
            depth=camera.cam_from_world[2],
            spread=1.0 / fx,
            pinhole=True,
        )

    @classmethod
    def of_light(cls, towards: np.ndarray, center: np.ndarray, radius: float, size: int) -> Rays:
        """Parallel rays that arrive from direction ``towards`` over a square of half side ``radius`` around center."""
        z = -towards / np.linalg.norm(towards)
        x = np.cross(z, [0.31, 0.59, 0.74])
        x /= np.linalg.norm(x)
        y = np.cross(z, x)
        step = 2 * radius / size
        start = center - 3 * radius * z
        half = (size - 1) / 2
        zero = np.zeros(3)
        affine = np.stack([np.append(x / step, half - x @ start / step), np.append(y / step, half - y @ start / step)])
        return cls(
            h=size,
            w=size,
            origin=start - half * step * (x + y),
            origin_u=step * x,
            origin_v=step * y,
            axis=z,
            axis_u=zero,
            axis_v=zero,
            project=np.concatenate([affine, [[0, 0, 0, 1.0]]]),
            depth=np.append(z, -z @ start),
            spread=step,
            pinhole=False,
        )

    def rectangles(self, solids: list[Solid]) -> np.ndarray:
        """[n, 4] top, bottom, left, right of the part of the grid that may show each solid (bottom ≤ top: none).

        A solid that reaches behind the camera may show everywhere.
        """
        corners = np.concatenate([affine(_BOX, solid.place) for solid in solids])
        z = affine(corners, self.depth[None])[:, 0].reshape(-1, 8)
        q = affine(corners, self.project)
        q = (q[:, :2] / q[:, 2:]).reshape(-1, 8, 2)
        limit = np.array([self.w, self.h], float)
        low, high = np.clip(q.min(axis=1) - 1, 0, limit), np.clip(q.max(axis=1) + 3, 0, limit)
        around = z.min(axis=1) < NEAR
        low[around], high[around] = 0, limit
        high[z.max(axis=1) < NEAR] = 0
        return np.stack([low[:, 1], high[:, 1], low[:, 0], high[:, 0]], axis=1).astype(int)

    def seen_from(self, linear: np.ndarray, offset: np.ndarray, row: np.ndarray, column: np.ndarray) -> RayPieces:
        """Origins and directions of the rays at ``row`` and ``column``, mapped by x → linear x + offset.

        What all rays share stays three numbers, and broadcasts.
        """
        origin, axis = linear @ self.origin + offset, linear @ self.axis
        if self.pinhole:
            u, v = linear @ self.axis_u, linear @ self.axis_v
            return tuple(origin), tuple(axis[k] + column * u[k] + row * v[k] for k in range(3))
        u, v = linear @ self.origin_u, linear @ self.origin_v
        return tuple(origin[k] + column * u[k] + row * v[k] for k in range(3)), tuple(axis)


# ----------------------------------------------------------------------------------------------------- intersections
def _quadric(a: np.ndarray, half_b: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both roots of a t² + 2 half_b t + c = 0, nan where there are none."""
    root = np.sqrt(half_b * half_b - a * c)
    return (-half_b - root) / a, (-half_b + root) / a


def _first(*candidates: np.ndarray) -> np.ndarray:
    """The smallest candidate beyond NEAR, +inf where there is none; nan is no candidate."""
    best = np.where(candidates[0] > NEAR, candidates[0], np.inf)
    for t in candidates[1:]:
        best = np.where((t > NEAR) & (t < best), t, best)
    return best


def _intersect(kind: str, origin: Sequence[np.ndarray], direction: Sequence[np.ndarray]) -> np.ndarray:
    """Depth of the first hit of rays o + t d with a unit solid; inf or nan where there is none."""
    (ox, oy, oz), (dx, dy, dz) = origin, direction
    if kind in ("sphere", "dome"):
        near, far = _quadric(dx * dx + dy * dy + dz * dz, ox * dx + oy * dy + oz * dz, ox * ox + oy * oy + oz * oz - 1)
        return far if kind == "dome" else _first(near)
    if kind == "box":
        enter, leave = -np.inf, np.inf
        for o, d in zip(origin, direction, strict=True):
            t0, t1 = (-1 - o) / d, (1 - o) / d
            enter, leave = np.maximum(enter, np.minimum(t0, t1)), np.minimum(leave, np.maximum(t0, t1))
        return np.where((enter <= leave) & (enter > NEAR), enter, np.inf)
    base = (-1 - oz) / dz
    base = np.where((ox + base * dx) ** 2 + (oy + base * dy) ** 2 <= 1, base, np.inf)
    if kind == "cylinder":
        walls = _quadric(dx * dx + dy * dy, ox * dx + oy * dy, ox * ox + oy * oy - 1)
        lid = (1 - oz) / dz
        ends = (base, np.where((ox + lid * dx) ** 2 + (oy + lid * dy) ** 2 <= 1, lid, np.inf))
    else:  # cone: x² + y² = ((1 − z) / 2)²
        s, sd = (1 - oz) / 2, -dz / 2
        walls = _quadric(dx * dx + dy * dy - sd * sd, ox * dx + oy * dy - s * sd, ox * ox + oy * oy - s * s)
        ends = (base,)
    return _first(*(np.where(np.abs(oz + t * dz) <= 1, t, np.inf) for t in walls), *ends)


def cast(rays: Rays, solids: list[Solid]) -> tuple[np.ndarray, np.ndarray]:
    """Depth [h, w] of the first hit (+inf if none) and the index [h, w] of the solid that was hit (−1 if none)."""
    depth = np.full((rays.h, rays.w), np.inf)
    index = np.full((rays.h, rays.w), -1, np.int32)
    rows, columns = np.arange(rays.h, dtype=float)[:, None], np.arange(rays.w, dtype=float)[None, :]
    # Rays that miss a quadric, or run parallel to a face, come out as nan or inf, which no comparison below accepts.
    with np.errstate(invalid="ignore", divide="ignore"):
        for number, (top, bottom, left, right) in enumerate(rays.rectangles(solids).tolist()):
            if top >= bottom or left >= right:
                continue
            solid = solids[number]
            t = _intersect(solid.kind, *rays.seen_from(*solid.inverse, rows[top:bottom], columns[:, left:right]))
            window = depth[top:bottom, left:right]
            closer = t < window
            np.copyto(window, t, where=closer)
            index[top:bottom, left:right][closer] = number
    return depth, index


# ----------------------------------------------------------------------------------------------------------- surface
@dataclass
class Surface:
    """What m rays hit: ``xyz`` and outward unit ``normal`` [m, 3], linear ``albedo`` [m, 3], ``gloss`` [m]."""

    xyz: np.ndarray
    normal: np.ndarray
    albedo: np.ndarray
    gloss: np.ndarray


def _unwrap(solid: Solid, p: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit-space normals [m, 3], uv [m, 2] in texture repeats, and scene units per texture repeat [m]."""
    length = np.linalg.norm(solid.place[:, :3], axis=0)  # half extents along the unit axes
    if solid.kind in ("sphere", "dome"):
        n = normalised(p)
        turn = np.arctan2(n[:, 1], n[:, 0]) / (2 * np.pi)
        uv = np.stack([turn, 0.5 - np.arcsin(np.clip(n[:, 2], -1, 1)) / np.pi], axis=1)
        repeats = np.array([1.0, 1.0]) if solid.tile is None else 1 / np.array(solid.tile)
        return n, uv * repeats, np.full(len(p), np.pi * length.max() / repeats[1])
    if solid.kind == "box":
        axis = np.argmax(np.abs(p), axis=1)
        rows = np.arange(len(p))
        n = np.zeros_like(p)
        n[rows, axis] = np.sign(p[rows, axis])
        u_axis, v_axis = np.array([1, 0, 0])[axis], np.array([2, 2, 1])[axis]
        u, v = p[rows, u_axis] * length[u_axis], -p[rows, v_axis] * length[v_axis]
        u_span, v_span = 2 * length[u_axis], 2 * length[v_axis]
    else:
        side = np.hypot(p[:, 0], p[:, 1])
        cap = np.abs(p[:, 2]) > 1 - 1e-6 if solid.kind == "cylinder" else p[:, 2] < -1 + 1e-6
        n = np.stack([p[:, 0], p[:, 1], np.where(solid.kind == "cone", side * 0.5, 0.0) * np.ones(len(p))], axis=1)
        n[cap] = np.stack([np.zeros(cap.sum()), np.zeros(cap.sum()), np.sign(p[cap, 2])], axis=1)
        n = normalised(n)
        around = 2 * np.pi * length[0]
        u = np.where(cap, p[:, 0] * length[0], np.arctan2(p[:, 1], p[:, 0]) / (2 * np.pi) * around)
        v = np.where(cap, p[:, 1] * length[1], -p[:, 2] * length[2])
        u_span, v_span = np.where(cap, 2 * length[0], around), np.where(cap, 2 * length[1], 2 * length[2])
    if solid.tile is None:
        return n, np.stack([u / u_span + 0.5, v / v_span + 0.5], axis=1), v_span * np.ones(len(p))
    # A shift that depends on the place keeps equal solids from wearing equal patches of their texture.
    shift = (solid.place[:2, 3] * 0.37) % 1
    uv = np.stack([u / solid.tile[0], v / solid.tile[1]], axis=1) + shift
    return n, uv, np.full(len(p), solid.tile[1])


def surface(
    rays: Rays, solids: list[Solid], textures: dict[str, Texture], depth: np.ndarray, index: np.ndarray
) -> Surface:
    """The surface that each ray of the grid hit, in row order; every ray must have hit something."""
    flat, t = index.ravel(), depth.ravel()
    m = len(flat)
    out = Surface(np.empty((m, 3)), np.empty((m, 3)), np.empty((m, 3), np.float32), np.zeros(m, np.float32))
    order = np.argsort(flat, kind="stable")
    cuts = np.flatnonzero(np.diff(flat[order])) + 1
    for pixels in np.split(order, cuts):
        solid = solids[flat[pixels[0]]]
        row, column = (pixels // rays.w).astype(float), (pixels % rays.w).astype(float)
        o, d = rays.seen_from(np.eye(3), np.zeros(3), row, column)
        xyz = np.stack([o[k] + t[pixels] * d[k] for k in range(3)], axis=1)
        inverse, offset = solid.inverse
        normal, uv, repeat = _unwrap(solid, affine(xyz, np.column_stack([inverse, offset])))
        normal = normalised(affine(normal, np.column_stack([inverse.T, np.zeros(3)])))
        width = rays.spread * (t[pixels] if rays.pinhole else 1.0)
        out.xyz[pixels], out.normal[pixels] = xyz, normal
        out.albedo[pixels] = textures[solid.texture].sample(uv, width / repeat) * np.array(solid.tint, np.float32)
        out.gloss[pixels] = solid.gloss
    return out


# ------------------------------------------------------------------------------------------------------------- light
class ShadowMap:
    """Depths seen from a light; says what of a set of points the light reaches."""

    def __init__(self, solids: list[Solid], towards: np.ndarray, center: np.ndarray, radius: float, size: int) -> None:
        self.rays = Rays.of_light(towards, center, radius, size)
        self.depth = cast(self.rays, solids)[0]
        self.bias = 2.5 * self.rays.spread

    def lit(self, xyz: np.ndarray, normal: np.ndarray, soft: bool = True) -> np.ndarray:
        """[m] in [0, 1]; points outside of the map are lit. ``soft`` averages the four nearest cells."""
        lifted = xyz + self.bias * normal
        q = affine(lifted, self.rays.project[:2])
        z = affine(lifted, self.rays.depth[None])[:, 0] - 0.5 * self.bias
        size = self.rays.w
        if not soft:
            cell = np.clip(np.rint(q), 0, size - 1).astype(np.int64)
            reached = z <= self.depth[cell[:, 1], cell[:, 0]]
            outside = (np.abs(q - (size - 1) / 2) > size / 2).any(axis=1)
            return (reached | outside).astype(np.float32)
        corner = np.floor(q).astype(np.int64)
        fraction = (q - corner).astype(np.float32)
        total = np.zeros(len(q), np.float32)
        for dx in (0, 1):
            for dy in (0, 1):
                x, y = np.clip(corner[:, 0] + dx, 0, size - 1), np.clip(corner[:, 1] + dy, 0, size - 1)
                weight = np.abs(1 - dx - fraction[:, 0]) * np.abs(1 - dy - fraction[:, 1])
                total += weight * (z <= self.depth[y, x])
        outside = (np.abs(q - (size - 1) / 2) > size / 2).any(axis=1)
        return np.where(outside, np.float32(1), total)
