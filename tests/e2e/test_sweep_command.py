"""A sweep ends with every planned run done once, whatever was killed on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from splatinit.cli.app import app
from splatinit.io.runs import find_run
from splatinit.sweep import SweepFolder, read_plan, store

pytest.importorskip("pyarrow", reason="the tables of a sweep need pyarrow")
pytestmark = pytest.mark.e2e
SETTINGS = "{eval.lpips: none, seeding.sh_degree: 1, train: {steps: STEPS, checkpoint_seconds: 0}}"


def sweep_file(place: Path, scene: Path, *, steps: int = 40, more: str = "", inits: str = "[sfm, random]") -> Path:
    file = place / "small.yaml"
    settings = SETTINGS.replace("STEPS", str(steps))
    file.write_text(f"scenes: [{scene}]\ninits: {inits}\nsettings: {settings}\n{more}")
    return file


def invoke(*words: object):
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "300"})


def begin(*words: object, code: str | None = None) -> subprocess.Popen:
    """The command in a process of its own, as a user starts it; or ``code`` in its place."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, *(["-m", "splatinit"] if code is None else ["-c", code]), *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def wait_for(condition: Callable[[], object], process: subprocess.Popen, seconds: float = 300) -> object:
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"it did not come; the process said: {process.communicate()[0] if process.poll() else ''}")


def training(folder: SweepFolder) -> list[Path]:
    """The runs that have written a checkpoint and not finished their training."""
    begun = {path.parents[1] for path in folder.runs.glob("*/checkpoints/step_*.safetensors")}
    return [path for path in begun if not (path / "splat.ply").exists()]


def holder(run: Path) -> int | None:
    """Number of the process that holds a run's folder."""
    try:
        return json.loads((run / ".splatinit.lock").read_text())["pid"]
    except (FileNotFoundError, ValueError):
        return None


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    # A killed driver's workers become orphans: the state Z waits only for somebody to ask.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def rows(folder: SweepFolder, table: str = "runs") -> list[dict]:
    return store.read_table(folder, table).to_pylist()


def sessions(folder: SweepFolder) -> dict[str, int]:
    """Run → how many processes worked on it."""
    return {path.parent.name: len(json.loads(path.read_text())["sessions"]) for path in folder.runs.glob("*/env.json")}


def test_a_sweep_its_table_and_what_is_left_of_it(tiny_scene, tmp_path):
    file, out = sweep_file(tmp_path, tiny_scene, more="seeds: 2\n"), tmp_path / "out"
    folder, plan = SweepFolder(out), read_plan(file)
    done = invoke("sweep", file, "-o", out, "--jobs", 2)
    assert done.exit_code == 0, done.output
    assert "4 of 4 runs done, 0 failed" in done.output
    assert [row["run"] for row in rows(folder)] == [run.hash for run in plan.runs]
    assert {row["status"] for row in rows(folder)} == {"done"}
    assert len({row["truth_hash"] for row in rows(folder)}) == 1 and len({r["renders_hash"] for r in rows(folder)}) == 4
    assert len(rows(folder, "views")) == 4 * 2 and len(rows(folder, "starts")) == 4
    for row in rows(folder):
        assert row["seconds_read"] > 0 and row["threads"] == 1 and 10 < row["psnr"] < 60
        # Posed once each way: sfm wants points, random none.
    assert len(list((out / "poses").iterdir())) == 2
    assert [name for name in ("probe", "failed") if (out / name).exists()] == []
    # One more variant: only that is run.
    file.write_text(file.read_text().replace("[sfm, random]", "[sfm, random, rain]"))
    more = invoke("sweep", file, "-o", out)
    assert more.exit_code == 0 and "6 of 6 runs done (4 of them before), 0 failed" in more.output
    assert "2 of 6 runs to do, about" in more.output and "from 4 finished runs" in more.output
    assert set(sessions(folder).values()) == {1}
    # The table, in all its forms.
    assert "rain" in invoke("results", out).output
    lines = invoke("results", out, "--csv", "--where", "init.name=rain", "-w", "seed=1").output.splitlines()
    assert lines[0].split(",") == list(store.TABLES["runs"]) and len(lines) == 2
    assert invoke("results", out, "--markdown").output.splitlines()[1].startswith("| --- |")
    assert r"\begin{tabular}" in invoke("results", out, "--latex", "-w", "scene=tiny").output
    refused = invoke("results", out, "--where", "scen=tiny")
    assert refused.exit_code == 2 and "Did you mean 'scene'?" in refused.output
    assert "is not a condition; expected key=value" in invoke("results", out, "--where", "scene").output
    assert "expected one form" in invoke("results", out, "--csv", "--latex").output


def test_killed_drivers_and_workers_lose_and_double_nothing(tiny_scene, tmp_path):
    file, out = sweep_file(tmp_path, tiny_scene, steps=400, more="seeds: 2\n"), tmp_path / "out"
    folder, planned = SweepFolder(out), {run.hash for run in read_plan(file).runs}
    words = ("sweep", file, "-o", out, "--jobs", 1)
    # A worker is killed: its run fails, the next one begins. Then the driver is.
    driver = begin(*words)
    (victim, *_) = wait_for(lambda: training(folder), driver)
    os.kill(wait_for(lambda: holder(victim), driver), signal.SIGKILL)
    wait_for(lambda: folder.failure(victim.name), driver)
    second = wait_for(lambda: [run for run in training(folder) if run != victim and holder(run)], driver)[0]
    orphan = holder(second)
    driver.kill()
    driver.communicate()
    deadline = time.monotonic() + 120
    while not gone(orphan):
        assert time.monotonic() < deadline, "the worker of a killed driver goes on"
        time.sleep(0.05)
    # What is left is done, by two drivers at once; what failed stays failed.
    both = [begin(*words), begin(*words)]
    texts = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [1, 1], texts
    for text in texts:
        assert "3 of 4 runs done" in text and "1 failed" in text and "ended by SIGKILL" in text, text
    assert {row["run"]: row["status"] for row in rows(folder)} == {
        run: "failed" if run == victim.name else "done" for run in planned
    }
    times = sessions(folder)
    assert times.pop(victim.name) == 1 and sorted(times.values()) == [1, 1, 2], "only the killed run was taken up again"
    # Retried, it goes on from its checkpoint.
    last = invoke(*words, "--retry-failed")
    assert last.exit_code == 0 and "4 of 4 runs done (3 of them before), 0 failed" in last.output, last.output
    assert "Resumed after step" in folder.log(victim.name).read_text()
    assert sorted(path.name for path in folder.runs.iterdir()) == sorted(planned)
    for run in planned:
        whole = find_run(folder.runs / run)
        assert all(whole.damage(stage) is None for stage in store.STAGES)
        steps = [row["step"] for row in rows(folder, "steps") if row["run"] == run]
        assert steps == sorted(set(steps)) and steps[-1] == 400


def test_ctrl_c_stops_after_the_checkpoint(tiny_scene, tmp_path):
    file, out = sweep_file(tmp_path, tiny_scene, steps=3000, inits="[sfm]"), tmp_path / "out"
    driver = begin("sweep", file, "-o", out)
    (run,) = wait_for(lambda: training(SweepFolder(out)), driver)
    driver.send_signal(signal.SIGINT)
    text = driver.communicate()[0]
    assert driver.returncode == 130, text
    assert "Stopped; checkpoints are written" in text and "0 of 1 runs done, 0 failed, 1 not yet" in text
    assert holder(run) is None and training(SweepFolder(out)) == [run]


def test_a_scene_that_cannot_be_posed_fails_once_and_the_others_go_on(tiny_scene, tmp_path):
    (tmp_path / "lone").mkdir()
    (tmp_path / "lone" / "a.png").write_bytes((tiny_scene / "images").iterdir().__next__().read_bytes())
    file = tmp_path / "two.yaml"
    scenes = f"[{tmp_path / 'lone'}, {tiny_scene}]"
    settings = SETTINGS.replace("STEPS", "20")
    file.write_text(f"scenes: {scenes}\ninits: [{{random: {{count: 30}}}}]\nseeds: 2\nsettings: {settings}\n")
    done = invoke("sweep", file, "-o", tmp_path / "out", "--jobs", 1)
    assert done.exit_code == 1, done.output
    assert "2 of 4 runs done, 2 failed" in done.output and "holds 1 photo; a scene needs at least two" in done.output
    folder = SweepFolder(tmp_path / "out")
    assert [(row["scene"], row["status"]) for row in rows(folder)] == 2 * [("lone", "failed"), ("tiny", "done")]
    assert len(list(folder.runs.iterdir())) == 2, "no run of the scene was tried"
    # Without its photos' folder the tables can be read; asked again, the failed ones are not tried.
    again = invoke("sweep", file, "-o", tmp_path / "out")
    assert again.exit_code == 1 and "2 of 4 runs done (2 of them before), 2 failed" in again.output


def test_many_runs_are_asked_about_and_a_dry_run_starts_none(tiny_scene, tmp_path):
    many = sweep_file(tmp_path, tiny_scene, more="seeds: 101\n")
    refused = invoke("sweep", many, "-o", tmp_path / "out")
    assert refused.exit_code == 2 and "plans 202 runs, and nobody is there to ask" in refused.output
    assert not (tmp_path / "out").exists()
    dry = invoke("sweep", many, "-o", tmp_path / "out", "--dry-run")
    assert dry.exit_code == 0, dry.output
    assert "202 runs to do, about" in dry.output and "roughly, from 40 steps of tiny sfm seed 0" in dry.output
    assert not (tmp_path / "out" / "runs").exists() and not (tmp_path / "out" / "probe").exists()
