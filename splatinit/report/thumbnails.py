"""What a page carries inside itself: small pictures, and point clouds of bounded size."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import SplatinitError
from ..io.colmap_model import read_model
from ..io.images import open_image
from ..io.ply import columns, read_vertices

SIDE = 360  # px, longer side of a picture in the page
MOST = 12_000  # bytes of one picture in the page; photos of 360 px have 3 to 10 kB at the first quality
_QUALITIES = (72, 50, 30)  # of WebP, the first that fits
_SH0 = 0.28209479177387814  # the constant spherical harmonic
_SEEN = 0.1  # opacity: Gaussians below it hardly show
_MARGIN = 0.5  # of what 98 % of the points span, beyond which points are left out: a few can lie very far away
_GRID = 65535


def small_picture(path: Path, side: int = SIDE, most: int = MOST) -> str | None:
    """The picture as a data URI (WebP) of at most ``side`` px and ``most`` bytes, or None where it cannot be read.

    What does not fit (noise) loses quality first, then pixels.
    """
    from PIL import Image

    try:
        with open_image(path) as image:
            image.draft("RGB", (side, side))
            small = image.convert("RGB")
    except (OSError, ValueError, SyntaxError, SplatinitError):
        return None
    while True:
        small.thumbnail((side, side), Image.Resampling.BOX, reducing_gap=None)
        for quality in _QUALITIES:
            buffer = io.BytesIO()
            small.save(buffer, "WEBP", quality=quality, method=2)
            if buffer.tell() <= most or side <= 16:
                return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
        side //= 2


def start_cloud(path: Path, limit: int) -> dict[str, Any] | None:
    """At most ``limit`` points of a cloud, evenly by number, for the viewer; None where it cannot be read."""
    try:
        vertices, total = _some(path, limit)
        xyz, rgb = columns(vertices, ("x", "y", "z")), columns(vertices, ("red", "green", "blue"))
    except SplatinitError:
        return None
    if xyz is None:
        return None
    rgb = np.full(xyz.shape, 160, np.uint8) if rgb is None else np.clip(rgb, 0, 255).astype(np.uint8)
    return _packed(xyz, rgb, total)


def trained_cloud(path: Path, limit: int) -> dict[str, Any] | None:
    """The centres of at most ``limit`` Gaussians that show (opacity ≥ 0.1) in their colour of degree 0."""
    try:
        vertices, total = _some(path, 2 * limit)
        table = columns(vertices, ("x", "y", "z", "opacity", "f_dc_0", "f_dc_1", "f_dc_2"))
    except SplatinitError:
        return None
    if table is None:
        return None
    table = table[1 / (1 + np.exp(-np.clip(table[:, 3], -30, 30))) >= _SEEN]
    table = table[_evenly(len(table), limit)]
    rgb = (np.clip(0.5 + _SH0 * table[:, 4:], 0, 1) * 255).astype(np.uint8)
    return _packed(table[:, :3], rgb, total)


def _some(path: Path, limit: int) -> tuple[np.ndarray, int]:
    counted: list[int] = []

    def pick(total: int) -> np.ndarray:
        counted.append(total)
        return _evenly(total, limit)

    vertices = read_vertices(path, pick)
    return vertices, counted[0]


def _evenly(total: int, limit: int) -> np.ndarray:
    return np.linspace(0, total - 1, min(total, limit)).astype(np.int64) if total else np.zeros(0, np.int64)


def _packed(xyz: np.ndarray, rgb: np.ndarray, total: int) -> dict[str, Any] | None:
    """Positions on a grid of 16 bits, little endian: 9 bytes a point."""
    finite = np.isfinite(xyz).all(axis=1)
    xyz, rgb = xyz[finite].astype(np.float64), rgb[finite]
    if not len(xyz):
        return None
    low, high = np.percentile(xyz, (1, 99), axis=0)
    room = np.maximum(_MARGIN * (high - low), 1e-9 * np.maximum(1, np.abs(high)))
    near = ((xyz >= low - room) & (xyz <= high + room)).all(axis=1)
    xyz, rgb = xyz[near], rgb[near]
    if not len(xyz):
        return None
    low = xyz.min(axis=0)
    step = np.maximum(xyz.max(axis=0) - low, 1e-12) / _GRID
    grid = np.rint((xyz - low) / step).astype("<u2")
    return {
        "low": low.tolist(),
        "step": step.tolist(),
        "n": len(xyz),
        "total": total,
        "xyz": base64.b64encode(grid.tobytes()).decode(),
        "rgb": base64.b64encode(np.ascontiguousarray(rgb).tobytes()).decode(),
    }


def first_look(model: Path, cloud: dict[str, Any]) -> dict[str, Any]:
    """Where the viewer begins: at the scene's camera in the middle of its names, looking at what lies before it.

    Up is the mean of all cameras' up. Without a readable COLMAP model, from outside along −z with y down.
    """
    grid = np.frombuffer(base64.b64decode(cloud["xyz"]), "<u2").reshape(-1, 3)
    xyz = np.asarray(cloud["low"]) + grid * np.asarray(cloud["step"])
    centre = np.median(xyz, axis=0)
    extent = float(max(np.linalg.norm(np.percentile(xyz, 90, axis=0) - np.percentile(xyz, 10, axis=0)), 1e-6))
    look = {"eye": (centre - [0, 0, 1.5 * extent]).tolist(), "target": centre.tolist(), "up": [0.0, -1.0, 0.0]}
    look |= {"fovy": 50.0, "extent": extent}
    try:
        found = read_model(model)
        images = sorted(found.images.values(), key=lambda image: image.name)
        poses = [image.cam_from_world(str(model)) for image in images]
        camera = found.cameras[images[len(images) // 2].camera_id]
        K, _ = camera.pinhole(str(model))
    except (SplatinitError, IndexError, KeyError):
        return look
    pose = poses[len(poses) // 2]
    depth = (xyz @ pose[:3, :3].T + pose[:3, 3])[:, 2]
    ahead = depth[depth > 0]
    far = float(np.median(ahead)) if len(ahead) else extent
    eye = -pose[:3, :3].T @ pose[:3, 3]
    up = -np.mean([each[1, :3] for each in poses], axis=0)
    if np.linalg.norm(up) < 0.1:  # cameras that turn about their axis have no up in common
        up = -pose[1, :3]
    return look | {
        "eye": eye.tolist(),
        "target": (eye + far * pose[2, :3]).tolist(),
        "up": (up / np.linalg.norm(up)).tolist(),
        "fovy": float(np.degrees(2 * np.arctan(camera.height / (2 * K[1, 1])))),
    }
