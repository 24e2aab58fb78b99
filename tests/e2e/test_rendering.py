"""``splatinit render`` of a splat without a scene: what it writes, what it says, and what an interrupt leaves."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from typer.testing import CliRunner

from splatinit import native
from splatinit.cli.app import app
from splatinit.cli.rendering import _png_names
from splatinit.io.splat import write_splat_ply
from splatinit.types import Camera, Gaussians

pytestmark = pytest.mark.e2e

BACKEND = "cpu" if native.available() else "reference"
ROOT = Path(__file__).resolve().parents[2]


def splatinit(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [*map(str, arguments), "--backend", BACKEND], env={"COLUMNS": "300"})
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.output


def balls(n: int) -> Gaussians:
    random = torch.Generator().manual_seed(1)
    return Gaussians(
        means=torch.randn(n, 3, generator=random),
        quats=torch.randn(n, 4, generator=random),
        log_scales=0.4 * torch.randn(n, 3, generator=random) - 1.5,
        logit_opacities=torch.randn(n, generator=random) + 1,
        sh0=torch.randn(n, 1, 3, generator=random),
        shN=torch.zeros(n, 0, 3),
    )


@pytest.fixture(scope="module")
def splat(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("splat") / "balls.ply"
    write_splat_ply(path, balls(200))
    return path


def read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def path_file(path: Path, cameras: list[Camera]) -> Path:
    rows = [
        {"width": c.width, "height": c.height, "K": c.K.tolist(), "cam_from_world": c.cam_from_world.tolist()}
        for c in cameras
    ]
    path.write_text(json.dumps({"cameras": rows}))
    return path


def test_png_files_are_the_bits_of_drawing_one_after_the_other(splat, tmp_path):
    from splatinit.io.splat import read_splat_ply

    cameras = [tiny.camera(0.4 * k, 49, 33) for k in range(8)]
    printed = splatinit("render", splat, "-p", path_file(tmp_path / "path.json", cameras), "-o", tmp_path / "out")
    assert "8 frames of 49×33, " in printed and " frames/s" in printed and "8 files" in printed
    gaussians, rasterizer = read_splat_ply(splat), tiny.rasterizer()
    for k, camera in enumerate(cameras):
        with torch.no_grad():
            rgb = rasterizer.render(gaussians, camera).rgb
        plain = (rgb.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
        assert plain.std() > 20  # something is seen
        np.testing.assert_array_equal(read(tmp_path / "out" / f"{k:05d}.png"), plain)


@pytest.mark.parametrize(("count", "size", "film_size"), [(1, (49, 33), (48, 32)), (5, (48, 32), (48, 32))])
def test_films_of_odd_sizes_and_of_one_frame(splat, tmp_path, count, size, film_size):
    path = path_file(tmp_path / "path.json", [tiny.camera(0.2 * k, *size) for k in range(count)])
    printed = splatinit("render", splat, "-p", path, "-o", tmp_path / "film.mp4")
    assert f"{count} frames of {size[0]}×{size[1]}, " in printed and "video codec" in printed
    assert ("last row or column of 49×33 px is left out" in printed) == (size != film_size)
    film = cv2.VideoCapture(str(tmp_path / "film.mp4"))
    found = [film.get(p) for p in (cv2.CAP_PROP_FRAME_COUNT, cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)]
    assert found == [count, *film_size]


def test_a_film_of_one_pixel_is_refused(splat, tmp_path):
    path = path_file(tmp_path / "path.json", [tiny.camera(0.0, 48, 1)])
    assert "48×1 px; expected at least 2×2" in splatinit("render", splat, "-p", path, "-o", tmp_path / "a.mp4", code=2)


def test_views_of_several_sizes_are_no_film(splat, tmp_path):
    path = path_file(tmp_path / "path.json", [tiny.camera(0.0, 48, 32), tiny.camera(0.0, 32, 32)])
    assert "a video has one" in splatinit("render", splat, "-p", path, "-o", tmp_path / "film.mp4", code=2)
    splatinit("render", splat, "-p", path, "-o", tmp_path / "out")
    assert [read(tmp_path / "out" / f"0000{k}.png").shape for k in range(2)] == [(32, 48, 3), (32, 32, 3)]


def test_an_empty_splat_can_be_drawn_and_not_be_orbited(tmp_path):
    empty = tmp_path / "empty.ply"
    write_splat_ply(empty, balls(0))
    path = path_file(tmp_path / "path.json", [tiny.camera(0.0)])
    splatinit("render", empty, "-p", path, "-o", tmp_path / "out")
    assert read(tmp_path / "out" / "00000.png").max() == 0
    assert "There are no Gaussians to look at" in splatinit("render", empty, "-p", "orbit", code=2)


def test_a_splat_that_is_not_finite_is_refused(tmp_path):
    broken = balls(5)
    broken.means[3, 1] = float("nan")
    write_splat_ply(tmp_path / "broken.ply", broken)
    printed = splatinit("render", tmp_path / "broken.ply", "-p", "orbit", "-o", tmp_path / "film.mp4", code=2)
    assert "1 of 5 Gaussians have non-finite numbers" in printed and not (tmp_path / "film.mp4").exists()


def test_views_that_differ_in_their_suffix_alone_do_not_write_over_each_other():
    assert _png_names(["a/1.jpg", "b/1.jpg"]) == [Path("a/1.png"), Path("b/1.png")]
    assert _png_names(["1.jpg", "1.png", "2.jpg"]) == [Path("1.jpg.png"), Path("1.png.png"), Path("2.jpg.png")]


@pytest.mark.skipif(os.name != "posix", reason="sends signals")
@pytest.mark.parametrize("out", ["film.mp4", "frames"])
def test_an_interrupt_ends_the_command_and_leaves_no_half_file(splat, tmp_path, out):
    camera = dataclasses.replace(tiny.camera(0.0), K=np.array([[200.0, 0, 160], [0, 200, 90], [0, 0, 1]]))
    path = path_file(tmp_path / "path.json", [camera.resized(320, 180)] * 20000)
    (tmp_path / "out").mkdir()
    command = [sys.executable, "-m", "splatinit", "render", str(splat), "-p", str(path)]
    command += ["-o", str(tmp_path / "out" / out), "--backend", BACKEND]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])}
    with subprocess.Popen(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as child:
        deadline = time.monotonic() + 60
        while not list((tmp_path / "out").rglob("*.[mp]*")) and time.monotonic() < deadline and child.poll() is None:
            time.sleep(0.05)
        os.killpg(child.pid, signal.SIGINT)  # as a terminal does it: to all processes of the command
        told, _ = child.communicate(timeout=30)
    assert child.returncode == 130 and "Stopped by SIGINT during 'render'" in told, told
    assert "No half file is left; the same command starts again." in told
    left = [file for file in (tmp_path / "out").rglob("*") if file.is_file()]
    assert out == "frames" or left == []
    for file in left:
        assert not file.name.startswith(".")
        with Image.open(file) as image:
            image.load()
