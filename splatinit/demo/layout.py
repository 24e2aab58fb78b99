"""What stands where in the demo scene, and where the cameras are. Scene units are metres, z is up.

A paved yard with a globe on a brick plinth, crates, a barrel with a bicycle wheel, a trellis, a lamp post with
bunting, a small tree, a bench and balls; beyond it grass, a fence, houses and trees, and a dome with clouds and hills.
Thin things (wires, spokes, slats) are a pixel or two wide in the pictures.
"""

from __future__ import annotations

import numpy as np

from ..types import Camera
from .raycast import Solid

WIDTH, HEIGHT = 320, 240
VIEWS = 48
FIELD_OF_VIEW = 62.0  # degrees, horizontal
SUN = np.array([0.52, -0.42, 0.74]) / np.linalg.norm([0.52, -0.42, 0.74])
DOME_RADIUS = 90.0
# Points are scored inside this upright cylinder: the yard, without the far surroundings.
YARD_RADIUS, YARD_FLOOR, YARD_TOP = 3.0, -0.1, 3.0

Vector = tuple[float, float, float]


# --------------------------------------------------------------------------------------------------------- placement
def _turn(z: float = 0.0, x: float = 0.0, y: float = 0.0) -> np.ndarray:
    """Rotation about x, then y, then z, in degrees."""
    (cx, sx), (cy, sy), (cz, sz) = ((np.cos(np.radians(a)), np.sin(np.radians(a))) for a in (x, y, z))
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def _at(center: Vector, half: Vector, rotation: np.ndarray | None = None) -> np.ndarray:
    """[3, 4] placement of a unit solid: scaled by the half extents, rotated, moved."""
    R = np.eye(3) if rotation is None else rotation
    return np.concatenate([R * np.array(half), np.array(center, float)[:, None]], axis=1)


def _rod(start: Vector, end: Vector, radius: float, texture: str, **look) -> Solid:
    """A round rod between two points."""
    a, b = np.array(start, float), np.array(end, float)
    axis = b - a
    length = np.linalg.norm(axis)
    z = axis / length
    x = np.cross(z, [0.0, 0.0, 1.0] if abs(z[2]) < 0.9 else [1.0, 0.0, 0.0])
    x /= np.linalg.norm(x)
    R = np.stack([x, np.cross(z, x), z], axis=1)
    return Solid("cylinder", _at(tuple((a + b) / 2), (radius, radius, length / 2), R), texture, (0.25, 0.25), **look)


def _ring(center: Vector, radius: float, thickness: float, normal: np.ndarray, texture: str, **look) -> list[Solid]:
    """A torus of 40 short rods."""
    angles = np.linspace(0, 2 * np.pi, 41)
    helper = np.array([0.0, 0.0, 1.0]) if abs(normal[2]) < 0.9 else np.array([1.0, 0.0, 0.0])
    u = np.cross(normal, helper)
    u /= np.linalg.norm(u)
    v = np.cross(normal, u)
    points = np.array(center) + radius * (np.cos(angles)[:, None] * u + np.sin(angles)[:, None] * v)
    return [_rod(tuple(a), tuple(b), thickness, texture, **look) for a, b in zip(points, points[1:], strict=False)]


# ---------------------------------------------------------------------------------------------------------- the yard
def _globe() -> list[Solid]:
    tilt = np.array([0.39, 0.1, 0.92])
    axis = tilt / np.linalg.norm(tilt)
    side = np.cross(axis, [0.6, -0.8, 0.0])
    side /= np.linalg.norm(side)
    R = np.stack([np.cross(side, axis), side, axis], axis=1)
    return [
        Solid("cylinder", _at((0, 0, 0.22), (0.55, 0.55, 0.22)), "brick", (0.864, 0.6)),
        Solid("cylinder", _at((0, 0, 0.47), (0.62, 0.62, 0.03)), "stone", (0.5, 0.5)),
        Solid("cone", _at((0, 0, 0.66), (0.30, 0.30, 0.16)), "brass", (0.3, 0.3)),
        Solid("sphere", _at((0, 0, 1.16), (0.42, 0.42, 0.42), R), "globe", gloss=0.5),
        _rod(tuple(np.array([0, 0, 1.16]) - 0.53 * axis), tuple(np.array([0, 0, 1.16]) + 0.53 * axis), 0.014, "brass"),
        *_ring((0, 0, 1.16), 0.52, 0.018, side, "brass"),
    ]


def _crates() -> list[Solid]:
    return [
        Solid("box", _at((1.45, -0.75, 0.32), (0.32, 0.32, 0.32), _turn(12)), "crate"),
        Solid("box", _at((1.98, -0.20, 0.26), (0.26, 0.26, 0.26), _turn(-24)), "crate", tint=(0.86, 0.92, 1.0)),
        Solid("box", _at((1.50, -0.70, 0.86), (0.22, 0.22, 0.22), _turn(41)), "crate", tint=(1.0, 0.94, 0.84)),
        Solid("box", _at((1.10, -1.34, 0.09), (0.20, 0.14, 0.09), _turn(-35)), "quilt"),
    ]


def _barrel_and_wheel() -> list[Solid]:
    solids = [Solid("cylinder", _at((-1.35, 1.0, 0.42), (0.30, 0.30, 0.42)), "staves", (0.63, 0.84))]
    solids += [
        Solid("cylinder", _at((-1.35, 1.0, z), (0.308, 0.308, 0.028)), "metal", (0.3, 0.3)) for z in (0.12, 0.42, 0.74)
    ]
    center = np.array([-1.28, 0.555, 0.46])
    normal = _turn(z=10, x=14) @ np.array([0.0, 1.0, 0.0])
    solids += _ring(tuple(center), 0.45, 0.022, normal, "metal")
    solids += _ring(tuple(center), 0.415, 0.008, normal, "white")
    u = np.cross(normal, [0.0, 0.0, 1.0])
    u /= np.linalg.norm(u)
    v = np.cross(normal, u)
    hub = [tuple(center - 0.05 * normal), tuple(center + 0.05 * normal)]
    for k in range(18):
        angle = 2 * np.pi * k / 18
        rim = center + 0.415 * (np.cos(angle) * u + np.sin(angle) * v)
        solids.append(_rod(hub[k % 2], tuple(rim), 0.006, "white", tint=(0.85, 0.87, 0.9)))
    solids.append(_rod(*hub, 0.03, "metal"))
    return solids


def _trellis(rng: np.random.Generator) -> list[Solid]:
    """A frame with slats and wires, and a creeper on its left half."""
    a, b = np.array([-1.95, -0.75]), np.array([-0.75, -1.75])
    along = (b - a) / np.linalg.norm(b - a)
    across = np.array([-along[1], along[0]])
    length = float(np.linalg.norm(b - a))

    def place(s: float, z: float, out: float = 0.0) -> Vector:
        x, y = a + s * along + out * across
        return (float(x), float(y), z)

    solids = [_rod(place(s, 0), place(s, 1.62), 0.035, "bark") for s in (0.0, length / 2, length)]
    solids += [_rod(place(-0.1, z), place(length + 0.1, z), 0.025, "bark") for z in (0.25, 1.55)]
    count = 11
    for k in range(1, count):
        s = length * k / count
        solids.append(_rod(place(s, 0.25, 0.025), place(s, 1.55, 0.025), 0.010, "planks"))
    for z in np.linspace(0.45, 1.35, 5):
        solids.append(_rod(place(0, z, -0.02), place(length, z, -0.02), 0.007, "white"))
    for _ in range(110):
        s, z = length * 0.55 * rng.beta(1.2, 2.0), rng.uniform(0.05, 1.6)
        center = place(s, z, rng.normal(0, 0.05))
        half = rng.uniform(0.04, 0.075)
        R = _turn(*rng.uniform(0, 360, 3))
        shade = rng.uniform(0.7, 1.15)
        solids.append(
            Solid("sphere", _at(center, (half, half * 0.75, 0.012), R), "leaf", (0.5, 0.5), tint=(shade, shade, shade))
        )
    return solids


def _tree(rng: np.random.Generator) -> list[Solid]:
    trunk = [(0.95, 1.45, 0.0), (0.90, 1.42, 0.55), (1.00, 1.50, 1.05), (0.93, 1.46, 1.5)]
    solids = [_rod(p, q, r, "bark") for p, q, r in zip(trunk, trunk[1:], (0.085, 0.065, 0.045), strict=False)]
    crown = np.array([0.95, 1.46, 1.72])
    for _ in range(11):
        tip = crown + rng.normal(0, 1, 3) * np.array([0.36, 0.36, 0.24])
        solids.append(_rod(trunk[2], tuple(tip), 0.014, "bark"))
    directions = rng.normal(0, 1, (210, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    for direction in directions:
        center = crown + direction * np.array([0.60, 0.60, 0.42]) * rng.uniform(0.45, 1.0)
        half = rng.uniform(0.06, 0.11)
        shade = rng.uniform(0.65, 1.2)
        tint = (shade * rng.uniform(0.85, 1.25), shade, shade * 0.9)
        R = _turn(*rng.uniform(0, 360, 3))
        solids.append(Solid("sphere", _at(tuple(center), (half, half * 0.7, 0.015), R), "leaf", (0.5, 0.5), tint=tint))
    for direction in directions[::19]:
        center = crown + direction * np.array([0.58, 0.58, 0.40])
        solids.append(
            Solid("sphere", _at(tuple(center), (0.05, 0.05, 0.05)), "spots", tint=(0.95, 0.3, 0.2), gloss=0.3)
        )
    return solids


def _bench() -> list[Solid]:
    R = _turn(-8)
    base = np.array([0.15, -2.05, 0.0])

    def part(x: float, y: float, z: float, half: Vector, tilt: float = 0.0) -> Solid:
        return Solid("box", _at(tuple(base + R @ [x, y, z]), half, R @ _turn(x=tilt)), "painted", (0.5, 0.7))

    seat = [part(0, 0.10 * k - 0.1, 0.42, (0.62, 0.042, 0.015)) for k in range(4)]
    back = [part(0, -0.20 - 0.03 * k, 0.56 + 0.12 * k, (0.62, 0.014, 0.045), 12) for k in range(3)]
    legs = [part(x, y, 0.2, (0.03, 0.03, 0.2)) for x in (-0.52, 0.52) for y in (-0.12, 0.2)]
    struts = [part(x, -0.20, 0.60, (0.025, 0.02, 0.26), 12) for x in (-0.52, 0.52)]
    return seat + back + legs + struts


def _lamp_and_bunting() -> list[Solid]:
    foot, top = np.array([-2.15, 0.15]), 2.35
    solids = [
        _rod((*foot, 0), (*foot, 0.14), 0.10, "metal"),
        _rod((*foot, 0.14), (*foot, top), 0.028, "metal"),
        Solid("sphere", _at((*foot, top + 0.13), (0.13, 0.13, 0.13)), "white", (0.5, 0.5), tint=(1.0, 0.93, 0.72)),
        Solid("cone", _at((*foot, top + 0.30), (0.17, 0.17, 0.07)), "metal", (0.3, 0.3)),
        _rod((*foot, 1.95), (foot[0] + 0.05, foot[1] + 0.55, 1.95), 0.012, "metal"),
        Solid("box", _at((foot[0] + 0.025, foot[1] + 0.29, 1.58), (0.008, 0.24, 0.36), _turn(-5)), "quilt"),
    ]
    start, end = np.array([*foot, 2.25]), np.array([0.93, 1.46, 1.95])
    s = np.linspace(0, 1, 19)
    rope = start + s[:, None] * (end - start)
    rope[:, 2] -= 0.32 * 4 * s * (1 - s)
    solids += [_rod(tuple(p), tuple(q), 0.008, "white") for p, q in zip(rope, rope[1:], strict=False)]
    heading = float(np.degrees(np.arctan2(end[1] - start[1], end[0] - start[0])))
    tints = ((0.95, 0.25, 0.2), (1.0, 0.85, 0.25), (0.25, 0.5, 0.9), (0.3, 0.75, 0.4))
    for k in range(1, 18):
        x, y, z = rope[k]
        pennant = _at((x, y, z - 0.09), (0.065, 0.006, 0.09), _turn(heading, x=180))
        solids.append(Solid("cone", pennant, "dots" if k % 3 == 0 else "white", (0.2, 0.2), tint=tints[k % 4]))
    return solids


def _toys() -> list[Solid]:
    return [
        Solid("sphere", _at((0.35, -1.05, 0.20), (0.20, 0.20, 0.20), _turn(30, 50)), "ball", gloss=0.35),
        Solid("sphere", _at((-0.55, -0.95, 0.13), (0.13, 0.13, 0.13), _turn(80, 20)), "dots", (0.5, 0.5), gloss=0.25),
        Solid("sphere", _at((0.62, 0.95, 0.11), (0.11, 0.11, 0.11), _turn(10, 70)), "spots", (0.5, 0.5), gloss=0.25),
        Solid("cone", _at((2.05, 0.75, 0.27), (0.17, 0.17, 0.27)), "quilt", (0.6, 0.6)),
        Solid("box", _at((2.05, 0.75, 0.012), (0.23, 0.23, 0.012), _turn(20)), "metal", (0.4, 0.4)),
        # An easel with a picture.
        Solid("box", _at((-0.35, 1.85, 0.86), (0.45, 0.018, 0.34), _turn(-14, 10)), "poster"),
        _rod((-0.72, 1.78, 0.0), (-0.48, 1.88, 1.35), 0.018, "planks"),
        _rod((0.06, 1.60, 0.0), (-0.14, 1.80, 1.35), 0.018, "planks"),
        _rod((-0.22, 2.32, 0.0), (-0.32, 1.90, 1.25), 0.018, "planks"),
    ]


# --------------------------------------------------------------------------------------------------- the surroundings
def _surroundings(rng: np.random.Generator) -> list[Solid]:
    solids = [
        Solid("dome", _at((0, 0, 0), (DOME_RADIUS,) * 3), "sky"),
        Solid("box", _at((0, 0, -1.03), (DOME_RADIUS, DOME_RADIUS, 1.0)), "grass", (3.1, 3.1)),
        Solid("box", _at((0, 0, -0.1), (3.4, 3.4, 0.1), _turn(20)), "paving", (1.7, 1.7)),
    ]
    # A fence behind the cameras, seen across the yard.
    posts, radius = 72, 8.2
    ring = [(radius * np.cos(a), radius * np.sin(a)) for a in 2 * np.pi * np.arange(posts) / posts]
    for k, (x, y) in enumerate(ring):
        heading = 360 * k / posts
        solids.append(Solid("box", _at((x, y, 0.5), (0.05, 0.05, 0.55), _turn(heading)), "bark", (0.6, 0.6)))
        nx, ny = ring[(k + 1) % posts]
        for z in (0.35, 0.8):
            solids.append(_rod((x, y, z), (nx, ny, z), 0.03, "planks"))
    for k in range(11):
        angle = 2 * np.pi * (k + rng.uniform(-0.18, 0.18)) / 11
        distance, heading = rng.uniform(15, 24), np.degrees(angle) + rng.uniform(-25, 25)
        x, y = distance * np.cos(angle), distance * np.sin(angle)
        half = (rng.uniform(1.5, 2.2), rng.uniform(2.0, 3.4), rng.uniform(1.6, 2.6))
        tint = tuple(rng.uniform(0.72, 1.05, 3))
        solids.append(Solid("box", _at((x, y, half[2] - 0.1), half, _turn(heading)), "facade", (4.2, 4.0), tint=tint))
        # A box standing on its edge, sunk into the walls, is a gable roof.
        roof = _at((x, y, 2 * half[2] - 0.1), (half[0] * 0.76, half[1] * 1.06, half[0] * 0.76), _turn(heading, y=45))
        solids.append(Solid("box", roof, "roof", (2.4, 2.4)))
    for k in range(20):
        angle = 2 * np.pi * (k + rng.uniform(0.1, 0.9)) / 20
        distance, size = rng.uniform(10, 26), rng.uniform(0.9, 1.7)
        x, y = distance * np.cos(angle), distance * np.sin(angle)
        solids.append(_rod((x, y, -0.1), (x, y, 1.6 * size), 0.13 * size, "bark"))
        for _ in range(4):
            dx, dy, dz = rng.normal(0, 0.42 * size, 3)
            half = size * rng.uniform(0.55, 0.95)
            shade = rng.uniform(0.75, 1.2)
            place = _at((x + dx, y + dy, 2.3 * size + dz), (half, half, half * 0.85))
            solids.append(Solid("sphere", place, "foliage", (0.25, 0.5), tint=(shade, shade, shade)))
    return solids


def build_solids() -> list[Solid]:
    """All solids of the scene, the same at every call; the dome is number 0."""
    rng = np.random.default_rng(7)
    return [
        *_surroundings(rng),
        *_globe(),
        *_crates(),
        *_barrel_and_wheel(),
        *_trellis(rng),
        *_tree(rng),
        *_bench(),
        *_lamp_and_bunting(),
        *_toys(),
    ]


def build_cameras() -> list[Camera]:
    """One round of cameras about the yard, 4.1 to 4.9 away and 0.8 to 2.5 high, looking inwards."""
    focal = WIDTH / 2 / np.tan(np.radians(FIELD_OF_VIEW) / 2)
    K = np.array([[focal, 0, WIDTH / 2], [0, focal, HEIGHT / 2], [0, 0, 1.0]])
    cameras = []
    for k in range(VIEWS):
        angle = 2 * np.pi * k / VIEWS
        distance = 4.5 + 0.4 * np.cos(5 * angle)
        height = 1.65 + 0.85 * np.sin(3 * angle + 0.4)
        eye = np.array([distance * np.cos(angle), distance * np.sin(angle), height])
        target = np.array([0.25 * np.cos(3 * angle), 0.25 * np.sin(4 * angle), 0.82])
        forward = (target - eye) / np.linalg.norm(target - eye)
        right = np.cross(forward, [0.0, 0.0, 1.0])
        right /= np.linalg.norm(right)
        pose = np.eye(4)
        pose[:3, :3] = np.stack([right, np.cross(forward, right), forward])
        pose[:3, 3] = -pose[:3, :3] @ eye
        cameras.append(Camera(K, pose, WIDTH, HEIGHT))
    return cameras
