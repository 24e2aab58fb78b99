"""What goes wrong around a run loses nothing that was finished: damaged files, full and vanished disks, two processes,
signals. Whatever happened, the same command ends with the files of an undisturbed run."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import kill_points
import pytest
import torch
from kill_points import Process, contents, stage_of
from test_cli_run import SETTINGS, snapshot, splatinit

from splatinit import native
from splatinit.io import atomic
from splatinit.io.locks import NAME, hold

pytestmark = pytest.mark.e2e
LONG = ["--steps", "20000", *SETTINGS[2:], "train.checkpoint_seconds=0"]


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    threads = torch.get_num_threads(), native.build_info()["threads"] if native.available() else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPLATINIT_THREADS", "1")
        yield
    torch.set_num_threads(threads[0])
    if threads[1] is not None:
        native.set_threads(threads[1])


@pytest.fixture(scope="module")
def finished(tiny_scene, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("finished") / "run"
    splatinit("run", tiny_scene, "-o", out, *SETTINGS)
    return out


def start(scene: Path, out: Path, *settings: str) -> subprocess.Popen:
    """A run as a process, once its training has written a new checkpoint."""
    command = [sys.executable, "-m", "splatinit", "run", str(scene), "-o", str(out), *settings]
    path = os.pathsep.join([str(kill_points.ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    process = subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    deadline = time.monotonic() + 60
    known = set((out / "checkpoints").glob("step_*"))
    while not set((out / "checkpoints").glob("step_*")) - known:
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
        time.sleep(0.01)
    return process


# ------------------------------------------------------------------------------------------------------ damaged files
def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def garble(path: Path) -> None:
    path.write_text("[1, 2")


def move_camera(path: Path) -> None:
    """One digit of a number, as a failing disk may leave it: still valid JSON."""
    text = path.read_text()
    at = text.index('"posed"') if '"K"' in text else text.index('"files"')
    digit = next(i for i in range(at, len(text)) if text[i].isdigit())
    path.write_text(text[:digit] + str((int(text[digit]) + 1) % 10) + text[digit + 1 :])


@pytest.mark.parametrize(
    ("name", "damage", "stage"),
    [
        ("scene/poser.json", move_camera, "pose"),
        ("scene/sparse/0/images.bin", flip, "pose"),
        ("init/points.ply", truncate, "init"),
        ("init/points.ply", Path.unlink, "init"),
        ("init/stats.json", garble, "init"),
        ("splat.ply", truncate, "train"),
        ("splat.ply", flip, "train"),
        ("eval/metrics.json", garble, "eval"),
        ("eval/renders/00.png", Path.unlink, "eval"),
        ("eval/contact_sheet.png", truncate, "eval"),
    ],
)
def test_a_file_that_was_damaged_later_is_made_again(tiny_scene, finished, tmp_path, name, damage, stage):
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    damage(out / name)
    printed = splatinit("run", tiny_scene, "-o", out, *SETTINGS)
    assert f"'{stage}' is done again" in printed and str(out / name) in printed
    assert contents(out) == contents(finished)
    assert f"Re-used from an earlier run: {', '.join(s for s in ('pose', 'init', 'train', 'eval') if s != stage)}." in (
        printed
    )
    assert "done again" not in splatinit("run", tiny_scene, "-o", out, *SETTINGS)


@pytest.mark.parametrize("text", ['{"init": ', "[]", '{"init": 3}'])
def test_a_damaged_record_of_stages_costs_only_time(tiny_scene, finished, tmp_path, text):
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    (out / "stages.json").write_text(text)
    assert "All stages are computed again" in splatinit("run", tiny_scene, "-o", out, *SETTINGS)
    assert contents(out) == contents(finished)


def test_scores_made_again_are_re_used_like_the_first(tiny_scene, finished, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    assert "PSNR" in splatinit("eval", out)
    assert contents(out) == contents(finished)
    assert "Re-used from an earlier run: pose, init, train, eval" in splatinit("run", tiny_scene, "-o", out, *SETTINGS)
    with hold(out):
        assert "is in use by this very process" in splatinit("eval", out, code=2)
        assert "PSNR" in splatinit("eval", out, "-o", tmp_path / "scores")  # reads only


def test_a_run_that_was_killed_while_it_made_its_folder_is_taken_up(tiny_scene, finished, tmp_path):
    (tmp_path / "run").mkdir()
    for name in (NAME, ".config.tmp-abcd1234.yaml"):
        (tmp_path / "run" / name).write_text("")
    splatinit("run", tiny_scene, "-o", tmp_path / "run", *SETTINGS)
    assert contents(tmp_path / "run") == contents(finished)


# ---------------------------------------------------------------------------------------------------- two processes
def test_the_second_process_is_refused_and_a_dead_one_s_folder_taken_over(tiny_scene, tmp_path):
    out = tmp_path / "run"
    with start(tiny_scene, out, *LONG) as first:
        refused = splatinit("run", tiny_scene, "-o", out, *LONG, code=2)
        assert f"Output folder {out} is in use by process {first.pid} on" in refused
        assert first.poll() is None
        for suffix in ("checkpoints/.step_00000001.tmp-abcd1234.safetensors", ".splat.tmp-abcd1234.ply"):
            (out / suffix).write_text("half written")
        first.send_signal(signal.SIGKILL)
        first.communicate()
    taken = start(tiny_scene, out, *LONG)
    taken.send_signal(signal.SIGTERM)
    told = taken.communicate(timeout=60)[0]
    assert taken.returncode == 143
    assert f"Taken over from process {first.pid}" in told and "Resumed after step" in told
    assert not [path for path in out.rglob(".*") if path.is_file()]


# ------------------------------------------------------------------------------------------------------------- disks
@pytest.fixture
def count_writes(monkeypatch) -> Iterator[Callable[[int | None, int], list[int]]]:
    """Counts files that are made durable, and lets the disk be full (or another errno) at a certain one and after."""
    real = os.fsync

    def arm(fail_at: int | None, number: int = errno.ENOSPC) -> list[int]:
        counter = [0]

        def fsync(handle: int) -> None:
            counter[0] += 1
            if fail_at is not None and counter[0] >= fail_at:
                raise OSError(number, os.strerror(number))
            real(handle)

        monkeypatch.setattr(atomic.os, "fsync", fsync)
        return counter

    return arm


def test_a_disk_that_fills_up_or_fails_anywhere_loses_nothing(tiny_scene, finished, tmp_path, count_writes):
    counter = count_writes(None)
    splatinit("run", tiny_scene, "-o", tmp_path / "counted", *SETTINGS)
    writes = counter[0]
    assert writes > 20
    rng = random.Random(0)
    for number, text in (
        (errno.ENOSPC, "No space left"),
        (errno.EIO, "Input/output error"),
        (errno.EROFS, "Read-only"),
    ):
        out = tmp_path / str(number)
        count_writes(writes // 4, number)
        for _ in range(3):  # each goes on where the last one failed
            told = splatinit("run", tiny_scene, "-o", out, *SETTINGS, code=2)
            assert text in told and str(out) in told and "Traceback" not in told
            assert not [path for path in out.rglob(".*") if path.is_file()]
            count_writes(rng.randrange(1, 7), number)
        count_writes(None)
        splatinit("run", tiny_scene, "-o", out, *SETTINGS)
        assert contents(out) == contents(finished)


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Callable[..., Path]]:
    """A real file system of a given size in memory, where this process may mount one."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(*options: str) -> Path:
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join(options), "none", place], capture_output=True)
        if done.returncode != 0:
            pytest.skip("this process may not mount a file system")
        return place

    if shutil.which("mount") is None:
        pytest.skip("there is no mount command")
    yield mount
    subprocess.run(["umount", "-l", place], capture_output=True)


def test_a_real_full_disk_is_told_and_after_room_was_made_the_run_ends_the_same(
    tiny_scene, finished, tmp_path, small_disk
):
    disk = small_disk("size=96k")
    assert "No space left on device" in splatinit("run", tiny_scene, "-o", disk / "run", *SETTINGS, code=2)
    kept = snapshot(disk)
    subprocess.run(["mount", "-o", "remount,size=40m", disk], check=True)
    splatinit("run", tiny_scene, "-o", disk / "run", *SETTINGS)
    assert contents(disk / "run") == contents(finished)
    assert kept.keys() <= snapshot(disk).keys()


def test_a_read_only_disk(tiny_scene, finished, tmp_path, small_disk):
    disk = small_disk("size=4m")
    shutil.copytree(tiny_scene, disk / "scene")
    shutil.copytree(finished, disk / "finished")
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    told = splatinit("run", tiny_scene, "-o", disk / "run", *SETTINGS, code=2)
    assert "Read-only file system" in told and "Choose another --out" in told
    splatinit("run", disk / "scene", "-o", tmp_path / "run", *SETTINGS)  # photos are only read
    assert contents(tmp_path / "run").keys() == contents(finished).keys()
    assert "PSNR" in splatinit("eval", disk / "finished", "-o", tmp_path / "scores")


def test_a_run_never_writes_into_its_input(tiny_scene, tmp_path):
    before = snapshot(tiny_scene)
    splatinit("run", tiny_scene, "-o", tmp_path / "run", *SETTINGS)
    assert snapshot(tiny_scene) == before


@pytest.mark.parametrize("fate", ["moved away", "unmounted"])
def test_a_folder_that_vanishes_during_training_is_named_and_back_again_goes_on(tiny_scene, tmp_path, fate):
    out = tmp_path / "mount" / "run"
    with start(tiny_scene, out, *LONG) as process:
        (tmp_path / "mount").rename(tmp_path / "away")
        if fate == "unmounted":  # the empty mount point is there, and would take what is written
            (tmp_path / "mount").mkdir()
        told = process.communicate(timeout=60)[0]
    assert process.returncode == 2 and "Traceback" not in told
    assert f"Output folder {out} has vanished" in told and "Bring it back" in told
    assert not list(tmp_path.glob("mount/*"))
    if fate == "unmounted":
        (tmp_path / "mount").rmdir()
    (tmp_path / "away").rename(tmp_path / "mount")
    again = start(tiny_scene, out, *LONG)
    again.send_signal(signal.SIGINT)
    assert "Resumed after step" in again.communicate(timeout=60)[0] and again.returncode == 130


# ----------------------------------------------------------------------------------------------------------- signals
@pytest.mark.parametrize(("after", "number"), [("export photos", signal.SIGINT), ("SIFT features", signal.SIGTERM)])
def test_a_signal_ends_structure_from_motion_within_seconds(drawn_photos, plain, tmp_path, after, number):
    (tmp_path / "tmp").mkdir()
    process = Process.start(kill_points.COMMANDS[0], drawn_photos, tmp_path / "run", tmp_path / "tmp")
    for line in process.lines():
        if stage_of(line) == after:
            break
    time.sleep(0.05)
    process.child.send_signal(number)
    began = time.monotonic()
    told = process.child.communicate(timeout=30)[0]
    assert process.child.returncode == 128 + number, told
    assert time.monotonic() - began < 4
    assert f"Stopped by {number.name}" in told and "the same command goes on from there" in told
    assert len(told.splitlines()) < 4, "COLMAP told its own story"
    steps = json.loads((tmp_path / "run" / "scene" / "work" / "steps.json").read_text())["steps"]
    assert {"export photos": "photos", "SIFT features": "features"}[after] in steps
    again = Process.start(kill_points.COMMANDS[0], drawn_photos, tmp_path / "run", tmp_path / "tmp").rest()
    assert "export photos" not in again
    expected = contents(plain.after_init)
    assert kill_points.differences(tmp_path / "run", expected, tmp_path / "tmp") == []
