"""Memory and speed of a training on many large photos.

    python benchmarks/many_photos.py [--photos 1000] [--steps 1500] [--max-size 800] [--folder DIR] [--keep]

Photos of 12 megapixels (JPEG, about 2 MB each) are generated with true poses: a painted wall, seen by cameras that
stand before it and look at it from all sides of its middle. Then ``splatinit check`` is timed on them, and a small
model is trained in three ways, each in a process of its own: with the default memory for photos, with memory for all,
and with none and no disk, so that every photo is decoded each time. Resident memory is sampled every 0.2 s: "peak" is
the largest sample from the start of the process, "steady" the median from the second epoch on.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

WIDTH, HEIGHT = 4000, 3000  # px of a photo
FOCAL = 3600.0  # px
WALL = (8.0, 6.0)  # scene units, in the plane z = 0
SAMPLE_SECONDS = 0.2
MODES = {"default": {}, "all in memory": {"image_cache_mb": 8192}, "decoded each time": {"image_cache_mb": 0}}


def painted_wall(seed: int = 0) -> np.ndarray:
    """[h, w, 3] uint8: noise of all sizes, so that a crop has structure at any scale, and some hard edges."""
    rng = np.random.default_rng(seed)
    height, width = 5376, 7168
    wall = np.zeros((height, width, 3), np.float32)
    for cell, strength in ((512, 50), (96, 35), (16, 20), (2, 10)):
        small = rng.normal(size=(height // cell + 2, width // cell + 2, 3)).astype(np.float32)
        wall += strength * cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    wall = np.clip(wall + 128, 0, 255).astype(np.uint8)
    for _ in range(400):
        x, y, radius = rng.integers(0, width), rng.integers(0, height), rng.integers(10, 90)
        cv2.circle(wall, (int(x), int(y)), int(radius), tuple(int(c) for c in rng.integers(0, 255, 3)), -1, cv2.LINE_AA)
    return wall


def world_from_camera(rng: np.random.Generator) -> np.ndarray:
    """[4, 4] of a camera (OpenCV axes) 3 to 4 units before the wall that looks somewhere near its middle."""
    center = np.array([rng.uniform(-2.0, 2.0), rng.uniform(-1.5, 1.5), -rng.uniform(3.0, 4.0)])
    target = np.array([rng.uniform(-1.0, 1.0), rng.uniform(-0.7, 0.7), 0.0])
    z = (target - center) / np.linalg.norm(target - center)
    x = np.cross([0.0, 1.0, 0.0], z)
    x /= np.linalg.norm(x)
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = np.stack([x, np.cross(z, x), z], axis=1), center
    return pose


def make_photos(folder: Path, count: int, seed: int = 0) -> None:
    """A nerfstudio scene of ``count`` photos."""
    (folder / "images").mkdir(parents=True)
    wall, rng = painted_wall(seed), np.random.default_rng(seed)
    height, width = wall.shape[:2]
    plane_from_wall = np.array(
        [[WALL[0] / width, 0, -WALL[0] / 2], [0, WALL[1] / height, -WALL[1] / 2], [0, 0, 1.0]]
    )  # pixels of the wall → x, y, 1 in its plane
    K = np.array([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1.0]])
    half = np.array([[1, 0, -0.5], [0, 1, -0.5], [0, 0, 1.0]])  # to OpenCV's pixel centres
    poses = [world_from_camera(rng) for _ in range(count)]

    def make(index: int) -> dict:
        camera = np.linalg.inv(poses[index])
        homography = half @ K @ np.stack([camera[:3, 0], camera[:3, 1], camera[:3, 3]], axis=1) @ plane_from_wall
        photo = cv2.warpPerspective(wall, homography @ np.linalg.inv(half), (WIDTH, HEIGHT), borderValue=(90, 90, 90))
        name = f"images/{index:05d}.jpg"
        cv2.imwrite(str(folder / name), photo, [cv2.IMWRITE_JPEG_QUALITY, 88])
        return {"file_path": name, "transform_matrix": (poses[index] @ np.diag([1.0, -1.0, -1.0, 1.0])).tolist()}

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        frames = list(pool.map(make, range(count)))
    intrinsics = {"fl_x": FOCAL, "fl_y": FOCAL, "cx": WIDTH / 2, "cy": HEIGHT / 2, "w": WIDTH, "h": HEIGHT}
    (folder / "transforms.json").write_text(json.dumps({**intrinsics, "frames": frames}))


def train(scene_folder: Path, out: Path, mode: str, steps: int, max_size: int, gaussians: int) -> None:
    """One training in this process; prints what it took as JSON."""
    samples: list[tuple[float, int]] = []
    over = threading.Event()

    def watch() -> None:
        while True:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            samples.append((time.perf_counter(), pages * os.sysconf("SC_PAGE_SIZE")))
            if over.wait(SAMPLE_SECONDS):
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    import splatinit

    scene = splatinit.pose(splatinit.read(scene_folder, max_size=max_size), "given", triangulate=False)
    start = splatinit.initialize(scene, "random", count=gaussians, volume="cameras", size=2.0)
    epoch, times = len(scene.train), []

    def stop() -> bool:
        times.append(time.perf_counter())
        return False

    splatinit.train(
        scene,
        splatinit.seed(start, scale_factor=0.2),
        densify="none",
        checkpoints=None if mode == "decoded each time" else out,
        stop=stop,
        steps=steps,
        **MODES[mode],
    )
    over.set()
    watcher.join()
    later = [size for at, size in samples if at > times[min(epoch, len(times) - 1)]] or [samples[-1][1]]
    facts = {
        "peak": max(size for _, size in samples),
        "steady": statistics.median(later),
        "first": (epoch - 1) / (times[epoch - 1] - times[0]),
        "rest": (len(times) - 1 - epoch) / max(1e-9, times[-1] - times[epoch]),
    }
    print(json.dumps(facts))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=0, help="of each training; 0: one and a half epochs")
    parser.add_argument("--max-size", type=int, default=800)
    parser.add_argument("--gaussians", type=int, default=20_000)
    parser.add_argument("--folder", type=Path, help="where the photos are made (4 GB of disk for 1000)")
    parser.add_argument("--keep", action="store_true", help="leave the photos, and use those that are there")
    parser.add_argument("--no-check", action="store_true", help="do not time splatinit check")
    parser.add_argument("--modes", nargs="*", choices=list(MODES), default=list(MODES))
    parser.add_argument("--train", nargs=2, metavar=("OUT", "MODE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    steps = args.steps or round(1.5 * args.photos)
    if args.train:
        train(args.folder, Path(args.train[0]), args.train[1], steps, args.max_size, args.gaussians)
        return

    console = Console(width=120)
    folder = args.folder or Path(tempfile.mkdtemp(prefix="many-photos-"))
    scene = folder / "scene"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        began = time.perf_counter()
        if not (scene / "transforms.json").exists():
            make_photos(scene, args.photos)
            size = sum(path.stat().st_size for path in (scene / "images").iterdir()) / 1e9
            console.print(f"{args.photos} photos made in {time.perf_counter() - began:.0f} s, {size:.1f} GB")
        command = [sys.executable, "-m", "splatinit", "check", str(scene)]
        if not args.no_check:
            began = time.perf_counter()
            done = subprocess.run(command, env=environment, capture_output=True, check=False)
            console.print(f"splatinit check: {time.perf_counter() - began:.0f} s (exit {done.returncode})")
        table = Table(title=f"{args.photos} photos of 12 MP at max-size {args.max_size}, {args.gaussians} Gaussians")
        for column in ("photos kept", "peak MB", "steady MB", "steps/s, first epoch", "steps/s after"):
            table.add_column(column, justify="right")
        for mode in args.modes:
            with tempfile.TemporaryDirectory(dir=folder) as out:
                command = [sys.executable, __file__, "--folder", str(scene), "--photos", str(args.photos)]
                command += ["--steps", str(steps), "--max-size", str(args.max_size)]
                command += ["--gaussians", str(args.gaussians), "--train", out, mode]
                done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise SystemExit(done.stderr)
            facts = json.loads(done.stdout.splitlines()[-1])
            table.add_row(
                mode,
                f"{facts['peak'] / 1e6:.0f}",
                f"{facts['steady'] / 1e6:.0f}",
                f"{facts['first']:.1f}",
                f"{facts['rest']:.1f}",
            )
        console.print(table)
    finally:
        if not args.keep:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
