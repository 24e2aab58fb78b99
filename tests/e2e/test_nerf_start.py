"""``--init nerf`` through the command line: on real photos, killed on the way, and with what it cannot work with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import stereo
from typer.testing import CliRunner

from splatinit import native
from splatinit.cli.app import app
from splatinit.geometry.rigid import unproject
from splatinit.io.images import write_png
from splatinit.io.pointcloud import read_ply_points
from splatinit.types import Camera

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not native.available(), reason="splat_cpu is not built in this installation"),
]
ROOT = Path(__file__).resolve().parents[2]
QUICK = ["init.fit_steps=40", "init.rays=128", "init.levels=4", "init.finest=32", "init.count=200"]


def splatinit(*arguments: object, code: int = 0) -> str:
    """Run a command in this process; what it printed, in one line."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


def psnr(folder: Path, views: Path) -> float:
    """Mean over the PNG files in ``folder``, against the photos of the same stem."""
    scores = []
    for image in sorted(folder.rglob("*.png")):
        photo = cv2.imread(str(next(views.glob(f"{image.stem}.*")))).astype(np.float64)
        render = cv2.imread(str(image)).astype(np.float64)
        photo = cv2.resize(photo, render.shape[1::-1], interpolation=cv2.INTER_AREA)
        scores.append(-10 * np.log10(((photo - render) ** 2).mean() / 255**2))
    return float(np.mean(scores))


def test_a_field_of_real_photos_and_the_points_drawn_from_it(shared_data: Path, tmp_path: Path) -> None:
    fox, out = shared_data / "fox", tmp_path / "fox"
    size = ["--max-size", "160", "--seed", "0"]
    printed = splatinit(
        "init", fox, "-i", "nerf", "-o", out, *size, "init.fit_steps=250", "init.rays=1024", "init.count=5000"
    )
    assert "5000 points from a field of" in printed
    stats = json.loads((out / "init" / "stats.json").read_text())
    assert stats["recipe"]["steps"] == 250 and stats["recipe"]["field_psnr"] > 22
    assert not (out / "init" / "work").exists()  # what an interrupted fit would go on from
    views = tmp_path / "views"
    assert "7 files" in splatinit("render", out, "--field", "-p", "test", "-o", views) or list(views.rglob("*.png"))
    # Photos have the lens's distortion, which the renders have not: 21.9 dB here, 24.6 against undistorted ones.
    assert psnr(views, fox / "images") > 19
    again = tmp_path / "again"
    drawn = splatinit(
        "init", fox, "-i", "nerf", "-o", again, *size, f"init.field={out / 'init/field.safetensors'}", "init.count=300"
    )
    assert "fit" not in drawn and len(read_ply_points(again / "init" / "points.ply")) == 300


def test_rendering_a_field_that_is_not_there(tiny_scene: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    splatinit("init", tiny_scene, "-i", "nerf", "-o", out, *QUICK)
    field = out / "init" / "field.safetensors"
    assert "field.safetensors alone cannot" not in splatinit(
        "render", field, tiny_scene, "--field", "-o", tmp_path / "a.mp4"
    )
    assert (tmp_path / "a.mp4").stat().st_size > 0
    printed = splatinit("render", field, "--field", "-p", "orbit", "-o", tmp_path / "b.mp4", code=2)
    assert "A radiance field alone cannot be orbited" in printed and "Name the scene as well" in printed
    field.unlink()
    printed = splatinit("render", out, "--field", code=2)
    assert "does not exist" in printed and "Runs with --init nerf keep one" in printed


def test_seconds_on_the_command_line(tiny_scene: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    splatinit("init", tiny_scene, "-i", "nerf", "-o", out, "--nerf-seconds", "1", *QUICK[1:])
    stats = json.loads((out / "init" / "stats.json").read_text())
    assert stats["recipe"]["steps"] > 0 and 1 <= stats["seconds"]["fit"] < 4
    both = tmp_path / "both"
    parts = [f"init.nerf.{setting.removeprefix('init.')}" for setting in QUICK[1:]]
    splatinit("init", tiny_scene, "-i", "sfm+nerf", "-o", both, "--nerf-seconds", "0.5", *parts)
    assert (both / "init" / "nerf-field.safetensors").is_file()
    printed = splatinit("init", tiny_scene, "-i", "nerf", "-o", tmp_path / "a", "--nerf-seconds", "0", code=2)
    assert "init.fit_seconds is 0; expected a positive number of seconds" in printed
    printed = splatinit("init", tiny_scene, "-i", "random", "-o", tmp_path / "a", "--nerf-seconds", "9", code=2)
    assert "--nerf-seconds: got 9 for the initializer 'random', which fits no radiance field" in printed


def test_a_killed_fit_goes_on_where_it_was(tiny_scene: Path, tmp_path: Path) -> None:
    """The same points as from a fit that nothing interrupted."""
    long = ["init.fit_steps=500", *QUICK[1:]]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    splatinit("init", tiny_scene, "-i", "nerf", "-o", whole, *long)
    code = (
        "import splatinit.nerf.fitting as fitting; fitting.CHECKPOINT_SECONDS = 0.2; "
        "from splatinit.__main__ import main; main()"
    )
    command = [sys.executable, "-c", code, "init", str(tiny_scene), "-i", "nerf", "-o", str(killed), *long]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    child = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    kept, deadline = killed / "init" / "work" / "fit.safetensors", time.monotonic() + 60
    while not kept.exists() and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert kept.exists() and not (killed / "init" / "points.ply").exists()
    splatinit("init", tiny_scene, "-i", "nerf", "-o", killed, *long)
    assert (killed / "init" / "points.ply").read_bytes() == (whole / "init" / "points.ply").read_bytes()
    assert not kept.exists()


# ------------------------------------------------------------------------------------------------------------ bad input
def scene(folder: Path, cameras: Sequence[Camera], photos: Sequence[np.ndarray]) -> Path:
    """A nerfstudio folder of posed photos."""
    frames = []
    for k, (cam, photo) in enumerate(zip(cameras, photos, strict=True)):
        write_png(folder / "images" / f"{k:02d}.png", photo)
        matrix = cam.world_from_cam @ np.diag([1.0, -1.0, -1.0, 1.0])
        frames.append({"file_path": f"images/{k:02d}.png", "transform_matrix": matrix.tolist()})
    size = {"fl_x": cam.fx, "fl_y": cam.fy, "cx": cam.K[0, 2], "cy": cam.K[1, 2], "w": cam.width, "h": cam.height}
    (folder / "transforms.json").write_text(json.dumps({**size, "frames": frames}))
    return folder


def begin(folder: Path, *settings: object, code: int = 0) -> str:
    given = {str(setting).partition("=")[0] for setting in settings}
    quick = [setting for setting in QUICK if setting.partition("=")[0] not in given]
    return splatinit("init", folder, "-i", "nerf", "-o", folder / "out", *quick, *settings, code=code)


def test_views_without_overlap(tmp_path: Path) -> None:
    """Cameras that turn their backs to each other: no second photo agrees with any point."""
    centres = [(1, 0, 0), (-1, 0, 0), (0, 0, 1), (0, 0, -1)]
    cams = [stereo.camera(centre, 9 * np.array(centre), size=(24, 18), focal=40.0) for centre in centres]
    noise = np.random.default_rng(0).integers(0, 255, (4, 18, 24, 3), np.uint8)
    printed = begin(scene(tmp_path, cams, noise), code=2)
    assert "where fewer than 2 photos agree" in printed and "Photos must overlap" in printed


def test_two_photos(tmp_path: Path) -> None:
    cams = stereo.row(2, size=(32, 24), focal=30.0)
    printed = begin(scene(tmp_path, cams, [stereo.photograph(cam) for cam in cams]), "init.fit_steps=100")
    assert "two photos hardly tell depths" in printed


def test_photos_that_are_transparent_everywhere(tmp_path: Path) -> None:
    cams = stereo.row(4, size=(32, 24), focal=30.0)
    clear = [np.dstack([stereo.photograph(cam), np.zeros((24, 32), np.uint8)]) for cam in cams]
    printed = begin(scene(tmp_path, cams, clear), code=2)
    assert "all pixels of the 3 training photos are transparent" in printed and "alpha channel" in printed


def test_cameras_inside_of_what_they_see(tmp_path: Path) -> None:
    """In a small room, nearer to its walls than the clearance that is asked for."""
    around = [(0.2 * np.cos(a), 0.05 * np.sin(2 * a), 0.2 * np.sin(a)) for a in np.arange(8) * np.pi / 4]
    cams = [stereo.camera(centre, -3 * np.array(centre), size=(32, 24), focal=16.0) for centre in around]

    def room(cam: Camera) -> np.ndarray:
        """A painted ball of radius 1, from the inside."""
        px = stereo.pixel_centers(cam.width, cam.height)
        direction = unproject(cam.K, cam.world_from_cam, px, np.ones(len(px))) - cam.center
        a, b, c = (direction**2).sum(axis=1), direction @ cam.center, cam.center @ cam.center - 1
        hit = cam.center + ((-b + np.sqrt(b**2 - a * c)) / a)[:, None] * direction
        return (stereo.paint(3 * hit) * 255).round().astype(np.uint8).reshape(cam.height, cam.width, 3)

    folder = scene(tmp_path, cams, [room(cam) for cam in cams])
    printed = begin(folder, "init.fit_steps=300", "init.rays=512")
    assert "200 points from a field of" in printed
    off = np.abs(np.linalg.norm(read_ply_points(folder / "out/init/points.ply").xyz, axis=1) - 1)
    assert np.median(off) < 0.35  # as far as a baseline of 0.4 and photos of 32 px tell depths of 1


def test_a_field_that_diverges(tiny_scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from splatinit.nerf import HashField

    whole = HashField.radiance
    monkeypatch.setattr(HashField, "radiance", lambda self, *at: tuple(each * np.nan for each in whole(self, *at)))
    printed = splatinit("init", tiny_scene, "-i", "nerf", "-o", tmp_path / "a", *QUICK, code=2)
    assert "The field diverged: its loss is nan at step 1" in printed and "splatinit check" in printed


def test_a_field_in_which_nothing_is_left(tmp_path: Path) -> None:
    """Transparent photos but for a pixel each, where no two of them agree: there is nothing to hold."""
    cams = stereo.row(6, size=(32, 24), focal=30.0)
    photos = [np.dstack([stereo.photograph(cam), np.zeros((24, 32), np.uint8)]) for cam in cams]
    for k, photo in enumerate(photos):
        photo[3 * k, 5 * k, 3] = 255
    printed = begin(scene(tmp_path, cams, photos), "init.fit_steps=150", "init.rays=512", code=2)
    assert "the field holds nothing" in printed or "where fewer than 2 photos agree" in printed


def test_a_field_of_another_kind(tiny_scene: Path, tmp_path: Path) -> None:
    (tmp_path / "field.safetensors").write_bytes(b"no field")
    setting = f"init.field={tmp_path / 'field.safetensors'}"
    printed = splatinit("init", tiny_scene, "-i", "nerf", "-o", tmp_path / "a", setting, code=2)
    assert "field.safetensors: not a saved field" in printed and "Fit the field again" in printed
