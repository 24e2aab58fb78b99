"""From a video to a splat, and out again to other tools; processes that are killed on the way."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from splatinit import native
from splatinit.io.colmap_model import write_model
from splatinit.io.read import ReadConfig, read_images
from splatinit.types import Camera, View

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).resolve().parents[2]
BACKEND = "cpu" if native.available() else "reference"
SHARP = (2, 3, 7, 11, 12, 15, 20, 22, 24, 29)


@pytest.fixture
def surroundings(tmp_path) -> dict[str, str]:
    """Variables of a process with its own cache, without weights, and with one thread."""
    own = {"SPLATINIT_CACHE": str(tmp_path / "cache"), "SPLATINIT_WEIGHTS": str(tmp_path / "none")}
    return {**os.environ, **own, "SPLATINIT_THREADS": "1", "PYTHONPATH": str(ROOT), "COLUMNS": "200"}


def splatinit(env: dict[str, str], *arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "splatinit", *map(str, arguments)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def film(path: Path, frames: list[np.ndarray]) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 6, frames[0].shape[1::-1])
    for frame in frames:
        writer.write(frame)
    writer.release()
    return path


def digests(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.real
def test_from_a_video_to_a_splat_and_to_other_tools(shared_data, tmp_path, surroundings):
    """Ten photos of fox as a video of 30 frames, of which all but ten are blurred."""
    photos = [cv2.imread(str(path)) for path in sorted((shared_data / "fox" / "images").iterdir())[:20:2]]
    assert len(photos) == len(SHARP) == 10
    frames = [photos[k // 3] if k in SHARP else cv2.blur(photos[k // 3], (9, 3)) for k in range(30)]
    clip = film(tmp_path / "the fox.avi", frames)
    options = ["--frames", 10, "--max-size", 120, "--steps", 30, "--backend", BACKEND, "eval.lpips=none"]
    done = splatinit(surroundings, "run", clip, *options, "-o", tmp_path / "run")
    assert "read as video: the fox.avi, 10 of 30 frames (the sharpest of each 0.5 s), 450×800 px" in done.stderr
    (cache,) = (tmp_path / "cache" / "frames").iterdir()
    assert sorted(cache.glob("*.png")) == [cache / f"frame_{k:06d}.png" for k in SHARP]
    assert "registered 10 of 10 photos" in done.stderr
    shutil.rmtree(tmp_path / "cache")  # it can be made again
    again = splatinit(surroundings, "run", clip, *options, "-o", tmp_path / "run")
    assert "Re-used from an earlier run: pose, init, train, eval." in again.stdout
    splatinit(surroundings, "render", tmp_path / "run", "--path", "test", "-o", tmp_path / "drawn")
    assert len(list((tmp_path / "drawn").glob("*.png"))) == 2

    done = splatinit(surroundings, "convert", tmp_path / "run", tmp_path / "model", "--to", "nerfstudio")
    found = read_images(tmp_path / "model")
    assert len(found.cameras) == 10 and len(found.points) > 50 and len(found.test_names) == 2
    assert set(found.sizes.values()) == {(68, 120)}
    done = splatinit(surroundings, "convert", clip, tmp_path / "x", "--to", "colmap", "--frames", 10, code=2)
    assert "10 photos but no poses" in done.stderr and "--pose" in done.stderr
    assert not (tmp_path / "x").exists()


def test_a_file_that_is_no_video_is_told_in_one_sentence(tmp_path, surroundings):
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(b"\0\0\0\x18ftypisom" + bytes(64))
    lines = splatinit(surroundings, "run", clip, code=2).stderr.strip().splitlines()
    # Neither OpenCV nor ffmpeg add theirs.
    assert len(lines) == 2 and lines[0].startswith("error ") and "not a video that can be read" in lines[0]


KILLED_READING = """
import os, signal, sys
from pathlib import Path
from splatinit.io import video_frames
from splatinit.io.read import ReadConfig, read_images

write = video_frames._write
def killed(stream, frame, path):
    if len(list(path.parent.glob("*.png"))) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return write(stream, frame, path)
video_frames._write = killed
read_images(Path(sys.argv[1]), ReadConfig(frames=8))
"""

KILLED_CONVERTING = """
import os, signal, sys
from splatinit import convert
from splatinit.cli import main

write = convert.write_model
def killed(*arguments):
    write(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)
convert.write_model = killed
sys.argv[1:] = ["convert", *sys.argv[1:], "--to", "colmap"]
main()
"""


def kill(script: str, env: dict[str, str], *arguments: object) -> None:
    done = subprocess.run([sys.executable, "-c", script, *map(str, arguments)], env=env, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr


def test_killed_extraction_and_conversion_leave_nothing_that_is_believed(tmp_path, surroundings, monkeypatch):
    rng = np.random.default_rng(0)
    wide = cv2.resize(rng.uniform(0, 255, (12, 30, 3)), None, fx=5, fy=5).astype(np.uint8)
    clip = film(tmp_path / "clip.avi", [wide[:48, k : k + 64] for k in range(24)])
    monkeypatch.setenv("SPLATINIT_CACHE", str(tmp_path / "undisturbed"))
    expected = read_images(clip, ReadConfig(frames=8))
    kill(KILLED_READING, surroundings, clip)
    (left,) = (tmp_path / "cache" / "frames").iterdir()
    assert left.name.startswith(".") and len(list(left.glob("*.png"))) == 3
    monkeypatch.setenv("SPLATINIT_CACHE", str(tmp_path / "cache"))
    found = read_images(clip, ReadConfig(frames=8))
    assert digests(found.photos[0].path.parent) == digests(expected.photos[0].path.parent)

    scene = tmp_path / "scene"
    shutil.copytree(found.photos[0].path.parent, scene / "images", ignore=shutil.ignore_patterns("*.json"))
    lens = np.array([[60.0, 0, 32], [0, 60, 24], [0, 0, 1]])
    write_model(scene / "sparse" / "0", [View(p.name, Camera(lens, np.eye(4), 64, 48), p) for p in found.photos], None)
    kill(KILLED_CONVERTING, surroundings, scene, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    splatinit(surroundings, "convert", scene, tmp_path / "out", "--to", "colmap")
    splatinit(surroundings, "convert", scene, tmp_path / "undisturbed out", "--to", "colmap")
    assert digests(tmp_path / "out") == digests(tmp_path / "undisturbed out")
