"""The memory that a training is predicted to take is what it takes, and a run that cannot fit says so at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny

import splatinit
from splatinit import native
from splatinit.densify.adc import Adc, AdcConfig
from splatinit.errors import OutOfMemory
from splatinit.io.checkpoints import digest, load_latest
from splatinit.io.pointcloud import write_ply_points
from splatinit.training import TrainConfig, train
from splatinit.types import PointCloud

TESTS = Path(__file__).resolve().parents[1]

MEASURE = """
import gc, sys, threading
import numpy as np, torch
import scenes, tiny
from pathlib import Path
from splatinit import memory
from splatinit.densify.adc import Adc, AdcConfig
from splatinit.raster.native import CpuRasterizer
from splatinit.training import TrainConfig, memory_needs, train
from splatinit.types import Pixels, Scene, View

torch.set_num_threads(1)
peak, over = [0], threading.Event()

def watch():
    while not over.wait(0.002):
        peak[0] = max(peak[0], memory.resident())

threading.Thread(target=watch, daemon=True).start()
for count in (100, int(sys.argv[1])):
    gaussians, camera = scenes.random_scene(count, 320, 240, blended=30.0)
    photo = tiny.MemoryPhoto("a", Pixels(np.zeros((240, 320, 3), np.uint8)))
    scene = Scene(Path("."), (View("a", camera, photo),), ())
    config = TrainConfig(steps=3, sh_interval=0.0)
    densifier = Adc(AdcConfig(begin=0.0, end=1.0, every=0.5, min_every_steps=1, grow_gradient=1e9))
    gc.collect()
    before = peak[0] = memory.resident()
    train(scene, gaussians, rasterizer=CpuRasterizer(), settings=tiny.SETTINGS, densifier=densifier, config=config)
    print(count, peak[0] - before, memory_needs(scene, 3, config).per_gaussian * count)
"""


@pytest.mark.parametrize("count", [100_000, 300_000])
def test_the_prediction_is_what_a_training_takes(count: int) -> None:
    if sys.platform != "linux" or not native.available():
        pytest.skip("needs the native engine, and Linux to measure its memory")
    paths = [str(TESTS), str(TESTS.parent / "benchmarks"), *filter(None, sys.path)]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "SPLATINIT_THREADS": "1"}
    command = [sys.executable, "-c", MEASURE, str(count)]
    done = subprocess.run(command, capture_output=True, text=True, env=environ, check=False)
    assert done.returncode == 0, done.stderr
    _, taken, predicted = (int(word) for word in done.stdout.splitlines()[-1].split())
    assert 0.85 < predicted / taken < 1.2, (
        f"{taken / count:.0f} bytes taken for each, {predicted / count:.0f} predicted"
    )


@pytest.fixture(scope="module")
def one_thread():
    with tiny.threads(1):
        yield


def run(checkpoints: Path | None = None):
    adc = AdcConfig(begin=0.1, end=0.9, every=0.1, min_every_steps=1, grow_gradient=1e-5, max_count=90)
    return train(
        tiny.scene(alpha=True),
        tiny.random_model(30, seed=1),
        rasterizer=tiny.rasterizer(),
        settings=tiny.SETTINGS,
        densifier=Adc(adc),
        config=TrainConfig(steps=60),
        seed=2,
        checkpoints=checkpoints,
    )


def test_growth_that_does_not_fit_stops_with_a_checkpoint_and_goes_on_from_it(tmp_path, monkeypatch, one_thread):
    """Refused between the update and its refinement, which is then made up for: the numbers are the same."""
    undisturbed = digest(run().gaussians.tensors())
    refused = []

    def refuse(self, count, new, *, step, photos):
        refused.append((count, new, step, photos))
        if new > 60:
            raise OutOfMemory("It would not fit.", hint="Use less.")

    monkeypatch.setattr("splatinit.memory.TrainingMemory.require_growth", refuse)
    with pytest.raises(OutOfMemory) as caught:
        run(tmp_path)
    count, new, step, photos = refused[-1]
    assert 30 <= count <= 60 < new and photos == 0  # all photos are in memory by then
    assert caught.value.hint == f"Use less. Nothing is lost: the same command goes on after step {step}."
    saved = load_latest(tmp_path).checkpoint
    assert saved.step == step and saved.meta["refinement_waits"] and len(saved.tensors["gaussians.means"]) == count
    with pytest.raises(OutOfMemory):  # nothing has changed: refused again, before another step
        run(tmp_path)
    assert refused[-1] == (count, new, step, refused[-1][3])
    monkeypatch.undo()
    resumed = run(tmp_path)
    assert digest(resumed.gaussians.tensors()) == undisturbed


def test_a_start_that_does_not_fit_is_refused_before_anything_is_taken(monkeypatch):
    monkeypatch.setattr("splatinit.memory.available", lambda: 10**9)
    monkeypatch.setattr("splatinit.optim.GaussianAdam.__init__", None)  # would fail otherwise
    monkeypatch.setattr("splatinit.memory.TrainingMemory.per_gaussian", 10**8)
    with pytest.raises(OutOfMemory, match="Training 30 Gaussians at 28×24 needs .* 8 would fit") as caught:
        run()
    assert "Start from at most 8 Gaussians." in caught.value.hint


def test_a_run_that_cannot_fit_is_refused_before_its_start_is_made(tmp_path, monkeypatch):
    from splatinit.io.images import write_png

    frames = []
    for view in tiny.scene().views:
        write_png(tmp_path / "scene" / view.name, view.pixels().rgb)
        pose = view.camera.world_from_cam @ np.diag([1.0, -1.0, -1.0, 1.0])
        frames.append({"file_path": view.name, "transform_matrix": pose.tolist()})
    intrinsics = {"fl_x": 30.0, "fl_y": 30.0, "cx": 14.0, "cy": 12.0, "w": 28, "h": 24}
    (tmp_path / "scene" / "transforms.json").write_text(json.dumps({**intrinsics, "frames": frames}))
    monkeypatch.setattr("splatinit.memory.available", lambda: 10**10)
    out = tmp_path / "out"
    with pytest.raises(OutOfMemory, match="Training 40 000 000 Gaussians at 28×24 needs about 61.8 GB") as caught:
        splatinit.run(tmp_path / "scene", out, init="random", settings={"init.count": 40_000_000})
    assert f"Use init.count={caught.value.fits} or fewer." in caught.value.hint
    assert not (out / "init").exists()
    points = out / "points.ply"
    write_ply_points(points, PointCloud(np.random.default_rng(0).normal(size=(50, 3)), np.full((50, 3), 0.5)))
    monkeypatch.setattr("splatinit.memory.TrainingMemory.per_gaussian", 10**9)
    with pytest.raises(OutOfMemory, match="Training 50 Gaussians") as caught:
        splatinit.run(tmp_path / "scene", tmp_path / "file", init="file", settings={"init.path": str(points)})
    assert f"Start from at most {caught.value.fits} points." in caught.value.hint
