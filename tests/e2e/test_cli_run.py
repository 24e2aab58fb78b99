"""The command line on a tiny scene: every initializer, every command, kill and resume, bad input."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from typer.testing import CliRunner

import splatinit as splatinit_api
from splatinit import native
from splatinit.cli.app import app
from splatinit.initializers import INITIALIZERS
from splatinit.io.colmap_model import read_model
from splatinit.io.images import write_png
from splatinit.io.pointcloud import read_ply_points
from splatinit.io.splat import read_splat_ply

pytestmark = pytest.mark.e2e

BACKEND = "cpu" if native.available() else "reference"
ROOT = Path(__file__).resolve().parents[2]
VIEWS = 10  # every 8th is a test view: 2 of them
# Learns the scene in a second: the schedules' fractions of so few steps would refine at every step.
SETTINGS = ["--steps", "120", "--backend", BACKEND, "eval.lpips=none", "seeding.sh_degree=1"]
SETTINGS += ["densify.every=0.2", "densify.reset=1", "densify.max_count=400"]
NEEDED = {
    "random": ["init.count=300", "init.volume=points"],
    "file": ["init.path={points}"],
    "union": ["init.of=sfm,file", "init.file.path={points}"],
    "depth": ["init.count=300", "init.prior=true"],
    "rain": ["init.count=50", "init.size=1", "train.low_pass=300"],
    "acui": ["init.count=300"],
    "nerf": ["init.count=300", "init.fit_steps=150", "init.rays=256", "init.levels=4", "init.prior=true"],
    "sgpose": ["init.count=300"],
}


# dB on the test views after 120 steps; measured 31.4, 31.4, 29.0 and 34.1. Black is 10, an untrained start below 15.
FLOOR = {"sfm": 28.0, "file": 28.0, "random": 25.0, "depth": 30.0}


@pytest.fixture(autouse=True, scope="module")
def surroundings(tmp_path_factory):
    """No LPIPS weights, so that nothing is fetched; one thread, as more wait for each other on a scene so small."""
    threads = torch.get_num_threads(), native.build_info()["threads"] if native.available() else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPLATINIT_WEIGHTS", str(tmp_path_factory.mktemp("no-weights")))
        patch.setenv("SPLATINIT_THREADS", "1")
        yield
    torch.set_num_threads(threads[0])
    if threads[1] is not None:
        native.set_threads(threads[1])


def splatinit(*arguments: object, code: int = 0) -> str:
    """Run a command in this process; what it printed (stderr and stdout)."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.output


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def snapshot(folder: Path) -> dict[str, tuple[int, str]]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, digest(path)) for path in files}


@pytest.fixture(scope="module")
def finished(tiny_scene, tmp_path_factory) -> Path:
    """A finished sfm run that tests may read."""
    out = tmp_path_factory.mktemp("runs") / "sfm"
    splatinit("run", tiny_scene, "-o", out, *SETTINGS)
    return out


# ------------------------------------------------------------------------------------------------------------ the line
@pytest.mark.parametrize("name", INITIALIZERS.names())
def test_every_initializer_runs_the_whole_line(tiny_scene, deep_scene, tmp_path, name):
    scene = deep_scene if name == "depth" else tiny_scene
    if INITIALIZERS.spec(name).missing():
        pytest.skip(f"{name} needs {INITIALIZERS.spec(name).missing()}")
    needed = [setting.format(points=tiny_scene.parent / "points.ply") for setting in NEEDED.get(name, [])]
    out = tmp_path / "run"
    printed = splatinit("run", scene, "--init", name, "-o", out, *SETTINGS, *needed)
    assert "PSNR" in printed and {"union": "sfm+file"}.get(name, name) in printed and "contact_sheet.png" in printed
    metrics = json.loads((out / "eval" / "metrics.json").read_text())
    assert len(metrics["images"]) == 2
    assert metrics["mean"]["psnr"] > FLOOR.get(name, 15.0)
    assert metrics["gaussians"] == len(read_splat_ply(out / "splat.ply"))
    assert yaml.safe_load((out / "config.yaml").read_text())["init"]["name"] == name
    env = json.loads((out / "env.json").read_text())
    assert env["sessions"][0]["seed"] == 0 and env["inputs"]["scene"] == str(scene)
    assert len(read_model(out / "scene" / "sparse" / "0").images) == VIEWS
    assert [json.loads(line)["step"] for line in (out / "train.jsonl").read_text().splitlines()][-1] == 120
    assert len(read_ply_points(out / "init" / "points.ply")) > 0


def test_a_start_from_depth_says_that_there_is_none(tiny_scene, tmp_path):
    printed = splatinit("init", tiny_scene, "-i", "depth", "-o", tmp_path / "start", code=2)
    assert "none of the 8 training photos has a depth map" in " ".join(printed.split())
    assert "depth_file_path" in printed


def test_the_preset_edgs_keeps_what_the_photos_ask_for(tiny_scene, tmp_path):
    out, common = tmp_path / "run", SETTINGS[: SETTINGS.index("densify.every=0.2")]
    sparing = ["densify.every=0.1", "densify.min_every_steps=1", "densify.prune_opacity=0.4"]
    splatinit("run", tiny_scene, "-o", out, "-c", "edgs", *common, *sparing)
    changes = [row for row in map(json.loads, (out / "train.jsonl").read_text().splitlines()) if "pruned" in row]
    assert [row["step"] for row in changes] == [12, 24, 36, 48, 59]
    metrics = json.loads((out / "eval" / "metrics.json").read_text())
    started = len(read_ply_points(out / "init" / "points.ply"))
    assert 0 < metrics["gaussians"] == started - sum(row["pruned"] for row in changes) < started
    assert metrics["mean"]["psnr"] > 20.0  # measured 24.3, and an untrained start is below 15


def test_a_finished_run_is_re_used_and_another_config_refused(tiny_scene, finished):
    before = snapshot(finished)
    again = splatinit("run", tiny_scene, "-o", finished, *SETTINGS)
    assert "Re-used from an earlier run: pose, init, train, eval" in again
    after = snapshot(finished)
    assert {k: v for k, v in after.items() if k != "env.json"} == {k: v for k, v in before.items() if k != "env.json"}
    refused = splatinit("run", tiny_scene, "-o", finished, *SETTINGS, "seed=5", "train.lr_sh0=0.1", code=2)
    assert "belongs to another config: train.lr_sh0 was 0.0025, is now 0.1, seed was 0, is now 5" in refused
    assert snapshot(finished) == after


def test_the_same_seed_gives_the_same_splat_and_another_one_does_not(tiny_scene, tmp_path):
    hashes = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        splatinit("run", tiny_scene, "-i", "random", "init.count=50", "-o", tmp_path / name, *SETTINGS, "--seed", seed)
        hashes.append(digest(tmp_path / name / "splat.ply"))
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_run_s_config_is_a_preset(tiny_scene, finished, tmp_path):
    splatinit("run", tiny_scene, "-o", tmp_path / "again", "-c", finished / "config.yaml")
    assert digest(tmp_path / "again" / "splat.ply") == digest(finished / "splat.ply")


def test_init_writes_what_other_trainers_start_from(tiny_scene, tmp_path):
    out = tmp_path / "start"
    printed = splatinit("init", tiny_scene, "-i", "random", "init.count=70", "-o", out, "--images")
    assert "70 points" in printed
    points = read_ply_points(out / "init" / "points.ply")
    model = read_model(out / "init" / "sparse" / "0")
    np.testing.assert_allclose(model.points.xyz, points.xyz)
    assert len(read_ply_points(out / "init" / "sparse" / "0" / "points3D.ply")) == 70
    names = sorted(image.name for image in model.images.values())
    assert sorted(path.name for path in (out / "init" / "images").iterdir()) == names and len(names) == VIEWS
    photo = np.asarray(Image.open(out / "init" / "images" / names[0]))
    np.testing.assert_array_equal(photo, np.asarray(Image.open(tiny_scene / "images" / names[0])))
    assert not (out / "splat.ply").exists()
    # The dataset it wrote is one that we read, too, and the start is one that we train from.
    assert f"{VIEWS} photos (colmap)" in splatinit("init", out / "init", "-o", tmp_path / "second")
    trained = splatinit("train", tiny_scene, out, "-o", tmp_path / "trained", *SETTINGS)
    assert "file" in trained and (tmp_path / "trained" / "splat.ply").exists()


def test_eval_and_render(tiny_scene, finished, tmp_path):
    printed = splatinit("eval", finished / "splat.ply", tiny_scene, "--backend", BACKEND, "eval.lpips=none")
    assert "00.png" in printed and "08.png" in printed
    before = snapshot(finished)
    refused = splatinit("eval", finished, "eval.lpips=alex", code=2)
    assert "Give --out DIR" in refused
    splatinit("eval", finished, "-o", tmp_path / "scores", f"raster.backend={BACKEND}")
    ours, theirs = (json.loads((p / "metrics.json").read_text()) for p in (tmp_path / "scores", finished / "eval"))
    assert ours["mean"] == theirs["mean"]

    splatinit("render", finished, "-p", "test", "-o", tmp_path / "views")
    drawn = np.asarray(Image.open(tmp_path / "views" / "00.png"))
    np.testing.assert_array_equal(drawn, np.asarray(Image.open(finished / "eval" / "renders" / "00.png")))
    splatinit("render", finished, "-o", tmp_path / "film.mp4", "--frames", 4, "--max-size", 56)
    film = cv2.VideoCapture(str(tmp_path / "film.mp4"))
    assert [film.get(p) for p in (cv2.CAP_PROP_FRAME_COUNT, cv2.CAP_PROP_FRAME_WIDTH)] == [4, 56]
    splatinit(
        "render",
        finished / "splat.ply",
        "-p",
        "orbit",
        "--frames",
        2,
        "--max-size",
        40,
        "-o",
        tmp_path / "turn",
        "--backend",
        BACKEND,
    )
    assert sorted(path.name for path in (tmp_path / "turn").iterdir()) == ["00000.png", "00001.png"]
    assert snapshot(finished) == before


def test_a_splat_alone_needs_a_scene_for_most_things(finished, tmp_path):
    ply = finished / "splat.ply"
    assert "a splat without its scene" in splatinit("eval", ply, code=2)
    assert "follows the cameras of a scene" in splatinit("render", ply, code=2)
    assert "Did you mean 'test'" in splatinit("render", finished, "-p", "tset", code=2)
    assert "ending in .mp4, or a folder" in splatinit("render", finished, "-o", tmp_path / "film.avi", code=2)
    assert "does not exist" in splatinit("eval", tmp_path / "none.ply", finished, code=2)
    assert "is not a run folder" in splatinit("eval", tmp_path, code=2)


# -------------------------------------------------------------------------------------------------------------- Python
def test_the_same_from_python_at_once_and_stage_by_stage(tiny_scene, finished, tmp_path):
    steps = {"train.steps": 120, "raster.backend": BACKEND, "eval.lpips": (), "seeding.sh_degree": 1}
    densify = {"densify.every": 0.2, "densify.reset": 1, "densify.max_count": 400}
    result = splatinit_api.run(tiny_scene, tmp_path / "run", init="sfm", settings=steps | densify)
    assert digest(result.folder.splat) == digest(finished / "splat.ply")
    assert result.report.psnr > FLOOR["sfm"] and result.steps_done == 120 and not result.interrupted
    assert set(result.seconds) == {"pose", "init", "train", "eval"} and result.reused == ()

    scene = splatinit_api.pose(splatinit_api.read(tiny_scene, max_size=14))
    start = splatinit_api.initialize(scene, "random", count=200, volume="points", seed=3)
    gaussians = splatinit_api.seed(start, sh_degree=0)
    trained = splatinit_api.train(scene, gaussians, steps=60, raster=BACKEND, densify="none").gaussians
    report = splatinit_api.evaluate(scene, trained, lpips=(), raster=BACKEND)
    assert scene.train[0].camera.width == 14 and len(trained) == 200 and report.psnr > 15
    images = list(splatinit_api.render(trained, [view.camera for view in scene.test], raster=BACKEND))
    assert images[0].shape == (12, 14, 3) and images[0].dtype == np.uint8
    with pytest.raises(splatinit_api.SplatinitError, match="unknown setting 'stesp'.*\n.*Did you mean 'steps'"):
        splatinit_api.train(scene, gaussians, stesp=1)


# ----------------------------------------------------------------------------------------------- kill, stop, resume
def start_process(scene: Path, out: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "splatinit", "run", str(scene), "-o", str(out), *LONG]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])}
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


# Long enough to be interrupted three times, with a checkpoint as often as its cost allows.
LONG = ["--steps", "1200" if BACKEND == "cpu" else "150", "--backend", BACKEND, "eval.lpips=none"]
LONG += ["densify.max_count=150", "seeding.sh_degree=1", "train.checkpoint_seconds=0"]


def wait_for_new_checkpoint(process: subprocess.Popen, folder: Path) -> None:
    known = set(folder.glob("step_*"))
    deadline = time.monotonic() + 60
    while not set(folder.glob("step_*")) - known:
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
        time.sleep(0.002)


def test_interrupted_killed_and_resumed_it_ends_with_the_same_splat(tiny_scene, tmp_path):
    out = tmp_path / "run"
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)):
        process = start_process(tiny_scene, out)
        wait_for_new_checkpoint(process, out / "checkpoints")
        process.send_signal(number)
        printed = process.communicate(timeout=60)[0]
        assert process.returncode == code, printed
        assert not (out / "splat.ply").exists()
        if number != signal.SIGKILL:
            assert "The same command goes on from there" in printed and "Traceback" not in printed
            assert list((out / "checkpoints").glob("step_*"))
    resumed = splatinit("run", tiny_scene, "-o", out, *LONG)
    assert "Resumed after step" in resumed
    splatinit("run", tiny_scene, "-o", tmp_path / "undisturbed", *LONG)
    assert digest(out / "splat.ply") == digest(tmp_path / "undisturbed" / "splat.ply")
    assert logged(out) == logged(tmp_path / "undisturbed")


def logged(run: Path) -> list[dict]:
    """The rows of train.jsonl without time, and without the loss, whose running mean starts anew in each process."""
    rows = [json.loads(line) for line in (run / "train.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in ("seconds", "loss")} for row in rows]


# ----------------------------------------------------------------------------------------------------------- bad input
def copy(scene: Path, to: Path) -> Path:
    shutil.copytree(scene, to)
    return to


def nerfstudio(folder: Path, *frames: dict) -> Path:
    folder.mkdir(parents=True)
    data = {"fl_x": 30.0, "fl_y": 30.0, "cx": 14, "cy": 12, "w": 28, "h": 24, "frames": list(frames)}
    (folder / "transforms.json").write_text(json.dumps(data))
    return folder


def frame(name: str, matrix: object) -> dict:
    return {"file_path": name, "transform_matrix": np.asarray(matrix).tolist()}


def bad_scene(kind: str, scene: Path, tmp: Path) -> Path:
    folder = tmp / "bad"
    if kind == "missing folder":
        return folder
    if kind == "no images":
        folder.mkdir()
    elif kind == "one image":
        write_png(folder / "only.png", np.zeros((24, 28, 3), np.uint8))
    elif kind == "unreadable image":
        copy(scene, folder)
        (folder / "images" / "03.png").write_bytes(b"\x89PNG\r\n\x1a\n not really")
    elif kind == "only missing files":
        nerfstudio(folder, *(frame(f"images/{i}.png", np.eye(4)) for i in range(3)))
    elif kind in ("singular pose", "non-finite pose"):
        poses = [np.eye(4) for _ in range(3)]
        poses[1][0, 0] = 0.0 if kind == "singular pose" else np.nan
        nerfstudio(folder, *(frame(f"{i}.png", pose) for i, pose in enumerate(poses)))
        for i in range(3):
            write_png(folder / f"{i}.png", np.zeros((24, 28, 3), np.uint8))
    return folder


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("missing folder", "no such folder"),
        ("no images", "no"),
        ("one image", "holds 1 photo"),
        ("unreadable image", "03.png"),
        ("only missing files", "3"),
        ("singular pose", "not a rotation"),
        ("non-finite pose", "finite"),
    ],
)
def test_bad_scenes_exit_2_and_say_why(tiny_scene, tmp_path, kind, text):
    out = tmp_path / "out"
    # Not every reader sees every mistake before a run folder exists, but no stage may be left in it.
    printed = splatinit("run", bad_scene(kind, tiny_scene, tmp_path), "-i", "random", "-o", out, *SETTINGS, code=2)
    assert text in printed and "error" in printed and "Traceback" not in printed
    assert not (out / "init").exists() and not (out / "splat.ply").exists()


@pytest.mark.parametrize(
    ("cloud", "text"),
    [
        ([], "empty"),
        (["nan 0 0", "1 nan 0", "2 0 inf"], "none of its 3 points has a finite place and colour"),
        (None, "does not exist"),
    ],
)
def test_bad_points_exit_2(tiny_scene, tmp_path, cloud, text):
    path = tmp_path / "cloud.ply"
    if cloud is not None:
        head = ["ply", "format ascii 1.0", f"element vertex {len(cloud)}"]
        head += [f"property float {axis}" for axis in "xyz"]
        path.write_text("\n".join([*head, "end_header", *cloud]) + "\n")
    arguments = ("run", tiny_scene, "-i", "file", f"init.path={path}", "-o", tmp_path / "out", *SETTINGS)
    assert text in splatinit(*arguments, code=2)
    assert not (tmp_path / "out" / "init").exists()
    assert "no points to start from" in splatinit("train", tiny_scene, tmp_path / "nowhere", code=2)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["train.stpes=5"], "Did you mean 'train.steps'"),
        (["-i", "randmo"], "Did you mean 'random'"),
        (["-c", "quikc"], "train/quick"),
        (["--backend", "cud"], "unknown backend 'cud'"),
        (["eval.lpips=squeeze"], "squeeze"),
        (["--steps", "many"], "--steps"),
    ],
)
def test_bad_settings_exit_2_before_anything_is_written(tiny_scene, tmp_path, arguments, text):
    printed = splatinit("run", tiny_scene, "-o", tmp_path / "out", *arguments, code=2)
    assert text in printed and not (tmp_path / "out").exists()


def test_an_output_folder_of_something_else_is_refused(tiny_scene, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    assert "is not a run of splatinit" in splatinit("run", tiny_scene, "-o", tmp_path, *SETTINGS, code=2)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_photos_that_changed_are_refused(tiny_scene, tmp_path):
    scene = copy(tiny_scene, tmp_path / "scene")
    arguments = ("init", scene, "-o", tmp_path / "run")
    splatinit(*arguments)
    write_png(scene / "images" / "03.png", np.zeros((24, 28, 3), np.uint8))
    assert "made from another input: photos changed" in splatinit(*arguments, code=2)
