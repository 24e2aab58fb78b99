"""The demo scene as files: a nerfstudio folder that any reader of ours, and of others, reads, and the truth beside it.

    transforms.json        poses (OpenGL axes, metres), one pinhole lens
    images/view_00.png …   320×240
    gt/depth/view_00.png … 16 bit, millimetres along z at the pixel centres, 0 = the dome
    gt/points.ply          samples of the true surface inside the yard: what at least one view sees, with normals
    gt/scene.json          version, size and units; written last: a folder without it is not complete
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from ..errors import SceneError
from ..io.atomic import write_json
from ..io.images import write_png
from ..io.pointcloud import read_ply_points, write_ply_points
from ..io.runs import read_json
from ..progress import Progress, Silent
from ..types import Camera, PointCloud
from .layout import YARD_FLOOR, YARD_RADIUS, YARD_TOP, build_cameras
from .render import DemoRenderer

VERSION = 1  # raise it when the scene changes, so that a folder of an older one is drawn again
TRUTH_SPACING = 0.025  # metres: at most one true point per cube of this side
MAX_DEPTH_MM = 65535
GL_FROM_CV = np.diag([1.0, -1.0, -1.0, 1.0])


def in_yard(xyz: np.ndarray) -> np.ndarray:
    """[n] bool: which points [n, 3] lie in the upright cylinder in which clouds are scored (the yard)."""
    near = np.hypot(xyz[:, 0], xyz[:, 1]) < YARD_RADIUS
    return near & (xyz[:, 2] > YARD_FLOOR) & (xyz[:, 2] < YARD_TOP)


def make_demo_scene(folder: Path, *, progress: Progress = Silent()) -> Path:
    """Draw the scene into ``folder`` and return it; a complete scene of this version that is already there is kept.

    Takes about twenty seconds on two cores.

    Raises:
        SceneError: the folder holds something else, which is not written over.
    """
    folder = Path(folder)
    marker = folder / "gt" / "scene.json"
    cameras = build_cameras()
    facts = _facts(cameras)
    found = read_json(marker) if marker.exists() else None
    if found == facts:
        return folder
    if found is None and (folder / "transforms.json").exists():
        raise SceneError(
            f"{folder} holds a transforms.json that is not of the demo scene.", hint="Give another or an empty folder."
        )
    progress.start("demo scene", len(cameras))
    renderer = DemoRenderer()
    names = [f"view_{k:02d}.png" for k in range(len(cameras))]
    truth = []
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        for done, (name, picture) in enumerate(zip(names, pool.map(renderer.render, cameras), strict=True), 1):
            write_png(folder / "images" / name, picture.rgb)
            millimetres = np.rint(picture.depth * 1000)
            known = millimetres <= MAX_DEPTH_MM
            write_png(folder / "gt" / "depth" / name, np.where(known, millimetres, 0).astype(np.uint16))
            xyz, normal = picture.xyz.reshape(-1, 3), picture.normal.reshape(-1, 3)
            inside = in_yard(xyz)
            truth.append((xyz[inside], picture.rgb.reshape(-1, 3)[inside] / 255.0, normal[inside]))
            progress.advance(done)
    xyz, rgb, normal = (np.concatenate(parts) for parts in zip(*truth, strict=True))
    points = _thin(PointCloud(xyz=xyz, rgb=rgb, normal=normal))
    write_ply_points(folder / "gt" / "points.ply", points)
    write_json(folder / "transforms.json", _transforms(cameras, names))
    write_json(marker, facts)
    progress.finish(f"{len(cameras)} views, {len(points)} true points")
    return folder


def read_truth(folder: Path) -> PointCloud:
    """The true surface points of a scene that :func:`make_demo_scene` wrote."""
    return read_ply_points(Path(folder) / "gt" / "points.ply")


def _thin(points: PointCloud) -> PointCloud:
    """The first point of every occupied cube of side TRUTH_SPACING, in the order of the points."""
    cells = np.floor(points.xyz / TRUTH_SPACING).astype(np.int64) + 4096
    keys = (cells[:, 0] << 40) | (cells[:, 1] << 20) | cells[:, 2]
    return points.select(np.sort(np.unique(keys, return_index=True)[1]))


def _facts(cameras: list[Camera]) -> dict:
    return {
        "scene": "splatinit demo",
        "version": VERSION,
        "views": len(cameras),
        "size": [cameras[0].width, cameras[0].height],
        "unit": "metre",
        "yard": {"radius": YARD_RADIUS, "floor": YARD_FLOOR, "top": YARD_TOP},
        "true_point_spacing": TRUTH_SPACING,
    }


def _transforms(cameras: list[Camera], names: list[str]) -> dict:
    """nerfstudio's description: intrinsics in px, ``transform_matrix`` = world from camera with OpenGL axes."""
    first = cameras[0]
    return {
        "camera_model": "PINHOLE",
        "w": first.width,
        "h": first.height,
        "fl_x": first.fx,
        "fl_y": first.fy,
        "cx": float(first.K[0, 2]),
        "cy": float(first.K[1, 2]),
        "frames": [
            {
                "file_path": f"images/{name}",
                "depth_file_path": f"gt/depth/{name}",
                "transform_matrix": (camera.world_from_cam @ GL_FROM_CV).tolist(),
            }
            for camera, name in zip(cameras, names, strict=True)
        ],
    }
