"""splatinit: start 3D Gaussian Splatting from any point cloud, train all starts with one trainer, and compare them.

    import splatinit

    result = splatinit.run("photos/", init="sfm", out="runs/photos", settings={"train.steps": 3000})
    print(result.report.psnr, len(result.gaussians), result.folder.splat)

or stage by stage:

    scene = splatinit.pose(splatinit.read("photos/", max_size=800))
    start = splatinit.initialize(scene, "random", count=50_000)
    trained = splatinit.train(scene, splatinit.seed(start), steps=3000).gaussians
    print(splatinit.evaluate(scene, trained).psnr)

or several starts of one scene, side by side:

    compared = splatinit.compare("photos/", ["sfm", "dense", "nerf"], seeds=3, budget="7000steps")
    print(compared.page, compared.outcome.failed)

Importing this package imports neither torch nor any part: names below are fetched when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .checks import check as check
    from .comparing import compare as compare
    from .config import build_config as build_config
    from .errors import SplatinitError as SplatinitError
    from .io.pointcloud import read_ply_points as read_ply_points
    from .io.pointcloud import write_ply_points as write_ply_points
    from .io.splat import read_splat_ply as read_splat_ply
    from .io.splat import write_splat_ply as write_splat_ply
    from .pipeline import evaluate as evaluate
    from .pipeline import initialize as initialize
    from .pipeline import pose as pose
    from .pipeline import read as read
    from .pipeline import render as render
    from .pipeline import run as run
    from .pipeline import seed as seed
    from .pipeline import train as train
    from .types import Camera as Camera
    from .types import Gaussians as Gaussians
    from .types import ImageSet as ImageSet
    from .types import Initialization as Initialization
    from .types import PointCloud as PointCloud
    from .types import Scene as Scene

_HOMES = {
    "checks": ("check",),
    "comparing": ("compare",),
    "pipeline": ("run", "read", "pose", "initialize", "seed", "train", "evaluate", "render"),
    "types": ("Camera", "Gaussians", "ImageSet", "Initialization", "PointCloud", "Scene"),
    "errors": ("SplatinitError",),
    "config": ("build_config",),
    "io.pointcloud": ("read_ply_points", "write_ply_points"),
    "io.splat": ("read_splat_ply", "write_splat_ply"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = ["__version__", *_HOME_OF]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'splatinit' has no attribute '{name}'")
    value = getattr(importlib.import_module(f".{_HOME_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
