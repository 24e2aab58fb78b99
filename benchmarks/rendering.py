"""``splatinit render`` of a camera path: frames a second of the whole command, and where the time goes.

    python benchmarks/rendering.py [SPLAT] [--path FILE.json] [--gaussians 200000] [--frames 200] [--png]

Runs the command itself, in this process, on a drawn-up room of 200 000 Gaussians at 960×540, or on SPLAT (a .ply) along
a JSON file of cameras. Drawing, encoding and waiting go on at the same time, so their sums need not add up to the wall
time; the CPU seconds do, and they are what remains comparable where other programs use the same cores. The engine and
the encoder are then timed alone.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from unittest import mock

import numpy as np
from rich.console import Console
from rich.table import Table

from splatinit import environment


class Clock:
    """Wall seconds spent in named functions, summed over their calls."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def add(self, name: str, since: float) -> None:
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - since

    def timed(self, name: str, function):
        def call(*arguments, **keywords):
            since = time.perf_counter()
            try:
                return function(*arguments, **keywords)
            finally:
                self.add(name, since)

        return call

    def split(self, images: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """The images, with the time until each was there, and the time until the next was asked for."""
        images = iter(images)
        while True:
            since = time.perf_counter()
            image = next(images, None)
            self.add("waited for a frame", since)
            if image is None:
                return
            since = time.perf_counter()
            yield image
            self.add("handing it to the encoder", since)


def cpu_seconds(who: int) -> float:
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("splat", nargs="?", type=Path)
    parser.add_argument("--path", type=Path, help="JSON of cameras; needed with SPLAT")
    parser.add_argument("--gaussians", type=int, default=200_000)
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--png", action="store_true", help="PNG files in place of a video")
    args = parser.parse_args()
    if (args.splat is None) != (args.path is None):
        parser.error("SPLAT and --path belong together")
    console = Console(width=120)
    environment.shorten_thread_spin()  # as the command line does, before torch is imported
    from scenes import room, walk

    from splatinit.io.cameras import read_cameras
    from splatinit.io.splat import write_splat_ply

    with tempfile.TemporaryDirectory(prefix="splatinit-rendering-") as folder:
        splat, path = args.splat, args.path
        if splat is None:
            splat, path = Path(folder, "room.ply"), Path(folder, "walk.json")
            write_splat_ply(splat, room(args.gaussians))
            rows = [
                {"width": c.width, "height": c.height, "K": c.K.tolist(), "cam_from_world": c.cam_from_world.tolist()}
                for c in walk(args.frames, 960, 540)
            ]
            path.write_text(json.dumps({"cameras": rows}))
        cameras = read_cameras(path)
        measure(console, splat, path, len(cameras), Path(folder, "frames" if args.png else "film.mp4"))
        alone(console, splat, cameras, Path(folder, "alone.mp4"))


def measure(console: Console, splat: Path, path: Path, count: int, out: Path) -> None:
    from splatinit import frames
    from splatinit.cli.app import app
    from splatinit.raster.native import CpuRasterizer

    clock = Clock()
    drawn_ahead = frames.drawn_ahead
    words = ["render", str(splat), "--path", str(path), "--out", str(out)]
    with (
        mock.patch.object(CpuRasterizer, "render", clock.timed("engine", CpuRasterizer.render)),
        mock.patch.object(frames, "quantised", clock.timed("conversion to 8 bit", frames.quantised)),
        mock.patch.object(frames, "drawn_ahead", lambda *a: clock.split(drawn_ahead(*a))),
    ):
        cpu = {who: cpu_seconds(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)}
        began = time.perf_counter()
        app(words, standalone_mode=False)
        wall = time.perf_counter() - began
        cpu = {who: cpu_seconds(who) - before for who, before in cpu.items()}
    written = [out] if out.is_file() else list(out.iterdir())
    table = Table(title=f"splatinit render, {count} frames: {count / wall:.1f} frames/s with reading and start")
    for column in ("what", "ms a frame", "seconds"):
        table.add_column(column, justify="left" if column == "what" else "right")
    rows = {"wall": wall, **clock.seconds}
    rows["CPU of the engine's process"] = cpu[resource.RUSAGE_SELF]
    rows["CPU of the encoder's process"] = cpu[resource.RUSAGE_CHILDREN]
    for what, seconds in rows.items():
        table.add_row(what, f"{1e3 * seconds / count:.2f}", f"{seconds:.2f}")
    console.print(table)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    size = sum(file.stat().st_size for file in written) / 2**20
    console.print(f"{size:.1f} MB written; peak memory {peak:.0f} MB; load of the machine {os.getloadavg()[0]:.1f}\n")


def alone(console: Console, splat: Path, cameras: list, out: Path) -> None:
    """The engine without anything else, and the encoder on frames that are already there."""
    from splatinit import frames, native, pipeline
    from splatinit.io.splat import read_splat_ply
    from splatinit.io.video import write_video
    from splatinit.raster.base import RasterSettings
    from splatinit.raster.native import CpuRasterizer

    gaussians, rasterizer = read_splat_ply(splat), CpuRasterizer()
    some = cameras[:: max(1, len(cameras) // 40)]
    every = list(pipeline.render(gaussians, some))
    settings = RasterSettings()
    table = Table(title=f"Alone, {len(some)} frames; {native.build_info()['simd']}")
    for column in ("what", "frames/s", "wall ms", "CPU ms"):
        table.add_column(column, justify="left" if column == "what" else "right")

    def row(what: str, run, who: int) -> None:
        cpu, began = cpu_seconds(who), time.perf_counter()
        run()
        wall, cpu = time.perf_counter() - began, cpu_seconds(who) - cpu
        n = len(some)
        table.add_row(what, f"{n / wall:.1f}", f"{1e3 * wall / n:.1f}", f"{1e3 * cpu / n:.1f}")

    def draw() -> None:
        for camera in some:
            frames.draw(gaussians, camera, rasterizer=rasterizer, settings=settings, background=None)

    threads = native.build_info()["threads"]
    row(f"engine and conversion, {threads} threads", draw, resource.RUSAGE_SELF)
    native.set_threads(1)
    row("engine and conversion, 1 thread", draw, resource.RUSAGE_SELF)
    native.set_threads(threads)
    row("encoder", lambda: write_video(out, every, 30, threads=threads), resource.RUSAGE_CHILDREN)
    console.print(table)


if __name__ == "__main__":
    main()
