"""Scenes that several end-to-end tests share."""

from __future__ import annotations

import json
from pathlib import Path

import kill_points
import numpy as np
import pytest
import tiny
import torch

from splatinit.io.colmap_model import write_model
from splatinit.io.images import write_png
from splatinit.io.pointcloud import write_ply_points
from splatinit.raster import make_rasterizer
from splatinit.types import PointCloud, View


@pytest.fixture(scope="session")
def tiny_scene(tmp_path_factory) -> Path:
    """A COLMAP folder of 10 photos of 28×24 px, and a point cloud near the truth."""
    folder = tmp_path_factory.mktemp("data") / "tiny"
    posed = tiny.scene(views=10)
    views = [View(view.name, view.camera, view.photo) for view in posed.views]
    for view in views:
        write_png(folder / "images" / view.name, view.photo.pixels.rgb)
    truth = tiny.random_model(12, 5)
    means = truth.means.numpy().repeat(6, axis=0)
    jitter = np.random.default_rng(0).normal(scale=0.08, size=means.shape)
    rgb = (truth.sh0[:, 0].numpy() * 0.282 + 0.5).clip(0, 1).repeat(6, axis=0)
    points = PointCloud(xyz=means + jitter, rgb=rgb)
    write_model(folder / "sparse" / "0", views, points)
    write_ply_points(folder.parent / "points.ply", points)
    return folder


@pytest.fixture(scope="session")
def deep_scene(tiny_scene, tmp_path_factory) -> Path:
    """The same photos as a nerfstudio folder with depth maps in millimetres."""
    folder = tmp_path_factory.mktemp("data") / "deep"
    truth, oracle = tiny.random_model(12, 5), make_rasterizer("reference")
    frames = []
    for view in tiny.scene(views=10).views:
        camera = view.camera
        write_png(folder / "images" / view.name, view.photo.pixels.rgb)
        with torch.no_grad():
            render = oracle.render(truth, camera, settings=tiny.SETTINGS, with_depth=True)
        depth = np.where(render.alpha > 0.5, render.depth * 1000, 0).round().astype(np.uint16)
        write_png(folder / "depth" / view.name, depth)
        matrix = camera.world_from_cam @ np.diag([1.0, -1.0, -1.0, 1.0])
        frames.append({"file_path": f"images/{view.name}", "depth_file_path": f"depth/{view.name}"})
        frames[-1]["transform_matrix"] = matrix.tolist()
    settings = {"fl_x": camera.fx, "fl_y": camera.fy, "frames": frames}
    (folder / "transforms.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture(scope="session")
def drawn_photos(tmp_path_factory) -> Path:
    """Nine photos of 240×180 px without poses, which structure from motion registers all."""
    return kill_points.draw_photos(tmp_path_factory.mktemp("drawn") / "photos")


@pytest.fixture(scope="session")
def plain(drawn_photos, tmp_path_factory) -> kill_points.Undisturbed:
    """A whole run on them that nobody killed."""
    pytest.importorskip("pycolmap")
    return kill_points.undisturbed(drawn_photos, tmp_path_factory.mktemp("plain"))
