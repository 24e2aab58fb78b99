"""A sweep's folder made of random numbers with a known effect: the four tables, and small run folders with pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from splatinit.io.atomic import write_text
from splatinit.io.colmap_model import write_model
from splatinit.io.images import probe_image, write_png
from splatinit.io.ply import write_vertices
from splatinit.io.pointcloud import write_ply_points
from splatinit.types import PointCloud, View

GAINS = {"sfm": 0.0, "dense": 0.62, "random": -2.0, "nerf": 0.1}  # dB, of the scene's own level
VIEWS = 4
MEASURED = (2, 5, 10, 15)  # hundreds of steps after which all test views were measured


def make_sweep(
    root: Path,
    *,
    scenes: Sequence[str] = ("fox", "chair"),
    labels: Sequence[str] = ("sfm", "dense", "random"),
    seeds: Sequence[int] = (0, 1),
    failed: Sequence[tuple[str, str, int]] = (),
    only: Mapping[str, str] | None = None,
    size: tuple[int, int] = (120, 160),
    points: int = 600,
    gaussians: int = 1500,
) -> Path:
    """A sweep of all scenes × labels × seeds in ``root``; pictures hold noise, splats a ball.

    Args:
        only: label → the one scene that it has.
    """
    rng = np.random.default_rng(0)
    tables: dict[str, list[dict[str, Any]]] = {"runs": [], "views": [], "steps": [], "starts": []}
    for i, scene in enumerate(scenes):
        level = 24.0 + 2 * (i % 5)
        for j, label in enumerate(labels):
            for seed in seeds if (only or {}).get(label, scene) == scene else ():
                name = f"{i * 997 + j * 31 + seed + 1:012x}"
                done = (scene, label, seed) not in failed
                row = _run(name, scene, label, seed, done)
                tables["runs"].append(row)
                if not done:
                    continue
                gain = GAINS.get(label, -0.3 * j) + rng.normal(0, 0.05)
                row["psnr"] = level + gain
                row["gaussians"] = int(gaussians * (0.5 + j))
                tables["views"] += _pictures(root, row, i, 0.09 - 0.015 * gain, size, rng)
                tables["steps"] += [
                    {"run": name, "step": 100 * k, "seconds": 2.0 * k * (1 + 0.2 * j), "loss": 0.3 / k}
                    | {"psnr": row["psnr"] - 8 / k + 8 / 15 if k in MEASURED else None}
                    | {"preview_psnr": row["psnr"] - 8 / k, "gaussians": 500 + 100 * j * k}
                    for k in range(1, 16)
                ]
                start = {"run": name, "points": points * (j + 1), "filled": 0.5, "coverage": 0.3 + 0.1 * gain}
                start |= {"photoconsistency": 0.08} | dict.fromkeys(("accuracy", "completeness", "fscore"))
                tables["starts"].append(start)
                _clouds(root / row["folder"], points, gaussians, seed)
    write_tables(root, tables)
    return root


def write_tables(root: Path, tables: dict[str, list[dict[str, Any]]]) -> None:
    import pyarrow
    from pyarrow import parquet

    (root / "results").mkdir(parents=True, exist_ok=True)
    for name, rows in tables.items():
        parquet.write_table(pyarrow.Table.from_pylist(rows), root / "results" / f"{name}.parquet")


def _run(name: str, scene: str, label: str, seed: int, done: bool) -> dict[str, Any]:
    return {
        "run": name,
        "sweep": "known",
        "scene": scene,
        "label": label,
        "init": label,
        "densify": "adc",
        "seed": seed,
        "settings": json.dumps({"init": {"name": label}, "train": {"steps": 1500}, "seed": seed}),
        "status": "done" if done else "failed",
        "error": None if done else "TooFewMatches: 3 of 40 photos could be registered",
        **dict.fromkeys(("psnr", "lpips_vgg", "seconds_read"), None),
        "ssim": 0.9 if done else None,
        "lpips_alex": 0.1 if done else None,
        "points": 600,
        "gaussians": None,
        "steps": 1500,
        "seconds_pose": 10.0 if label == "sfm" else 0.0,
        "seconds_init": 1.5,
        "seconds_train": 30.0,
        "peak_memory_mb": 900.0,
        "backend": "cpu",
        "splatinit": "0.1.0",
        "git": "0123456789ab",
        "torch": "2.13.0",
        "machine": "test",
        "cores": 2,
        "threads": 1,
        "started": "2026-11-21T09:25:53+00:00",
        "folder": f"runs/{name}",
        "renders_hash": f"r{name}",
        "truth_hash": f"t-{scene}",
    }


def _pictures(
    root: Path, row: dict[str, Any], scene: int, noise: float, size: tuple[int, int], rng: np.random.Generator
) -> list[dict[str, Any]]:
    h, w = size
    rows = []
    for view in range(VIEWS):
        y, x = np.mgrid[0:h, 0:w] / max(size)
        waves = [np.sin(9 * x * (k + 1) + 7 * y + view + scene) * np.cos(11 * y - k) for k in range(3)]
        truth = 0.5 + 0.4 * np.stack(waves, axis=2)
        render = truth + rng.normal(0, noise, truth.shape)
        error = np.abs(render - truth) / 0.2
        paths = {key: f"{row['folder']}/eval/{key}s/{view} #1.png" for key in ("render", "truth", "error")}
        for key, values in (("render", render), ("truth", truth), ("error", error)):
            write_png(root / paths[key], (255 * np.clip(values, 0, 1)).astype(np.uint8), level=1)
        numbers = {"psnr": row["psnr"] + 0.3 * view, "ssim": 0.9, "lpips_alex": 0.1, "lpips_vgg": None}
        rows.append({"run": row["run"], "view": f"view {view}.jpg"} | numbers | paths)
    return rows


def _clouds(run: Path, points: int, gaussians: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    ball = rng.normal(size=(gaussians, 3))
    ball /= np.linalg.norm(ball, axis=1, keepdims=True)
    cube = rng.uniform(-1, 1, (points, 3))
    write_ply_points(run / "init" / "points.ply", PointCloud(cube, 0.5 + 0.5 * cube))
    names = ("x", "y", "z", "f_dc_0", "f_dc_1", "f_dc_2", "opacity")
    table = np.zeros(gaussians, [(name, "<f4") for name in names])
    for k, axis in enumerate("xyz"):
        table[axis] = ball[:, k]
        table[f"f_dc_{k}"] = 1.7 * ball[:, k]
    table["opacity"] = 2.0
    write_vertices(run / "splat.ply", table)
    write_text(run / "config.yaml", f"seed: {seed}\n")
    write_text(run / "env.json", json.dumps({"inputs": {"scene": "photos of a fox"}}))
    _model(run / "scene" / "sparse" / "0", run / "eval" / "truths" / "0 #1.png")


def _model(folder: Path, photo: Path) -> None:
    import tiny

    image = probe_image(photo)
    views = [View(f"{k}.png", tiny.camera(0.2 * k - 0.2), image) for k in range(3)]
    write_model(folder, views, PointCloud(np.zeros((1, 3)), np.zeros((1, 3))))
