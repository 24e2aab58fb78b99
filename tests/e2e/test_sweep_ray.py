"""Sweeps on real Ray clusters of this machine end with every planned run done once, whatever was killed on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from test_sweep_command import SETTINGS, begin, gone, holder, invoke, rows, sessions, sweep_file, training, wait_for

from splatinit.io.locks import is_held
from splatinit.io.runs import find_run
from splatinit.sweep import SweepFolder, read_plan, store

pytest.importorskip("pyarrow", reason="the tables of a sweep need pyarrow")
pytest.importorskip("ray", reason="needs ray")
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds Ray's processes in /proc"),
]


def processes() -> dict[int, tuple[int, str]]:
    """Every process → its parent and its command line."""
    found = {}
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parent = int((place / "stat").read_text().rpartition(")")[2].split()[1])
            found[int(place.name)] = parent, (place / "cmdline").read_text().replace("\0", " ").strip()
    return found


def below(pid: int) -> dict[int, str]:
    """The processes that descend from one → their command lines."""
    everything, found = processes(), {}
    for each, (_, command) in everything.items():
        parent = everything[each][0]
        while parent in everything and parent != pid:
            parent = everything[parent][0]
        if parent == pid:
            found[each] = command
    return found


def ray_workers(driver: subprocess.Popen) -> dict[str, int]:
    """What the Ray workers of a driver's own cluster are at, by the names of their tasks → their numbers."""
    return {command[5:]: pid for pid, command in below(driver.pid).items() if command.startswith("ray::")}


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen]]:
    """Starts the command; whatever of it lives at the end is killed."""
    begun: list[subprocess.Popen] = []

    def one(*words: object, code: str | None = None) -> subprocess.Popen:
        begun.append(begin(*words, code=code))
        return begun[-1]

    yield one
    for process in begun:
        left = [process.pid, *below(process.pid)]
        for pid in left if process.poll() is None else []:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


def whole(folder: SweepFolder, run: str, steps: int) -> None:
    """Assert that nothing of a run is damaged, nor doubled."""
    kept = find_run(folder.runs / run)
    assert all(kept.damage(stage) is None for stage in store.STAGES)
    found = [row["step"] for row in rows(folder, "steps") if row["run"] == run]
    assert found == sorted(set(found)) and found[-1] == steps


def test_ray_does_what_the_local_executor_does(tiny_scene, tmp_path, start):
    (tmp_path / "lone").mkdir()
    (tmp_path / "lone" / "a.png").write_bytes((tiny_scene / "images").iterdir().__next__().read_bytes())
    file = tmp_path / "two.yaml"
    scenes, settings = f"[{tmp_path / 'lone'}, {tiny_scene}]", SETTINGS.replace("STEPS", "100")
    file.write_text(f"scenes: {scenes}\ninits: [{{random: {{count: 30}}}}]\nseeds: 2\nsettings: {settings}\n")
    words = ("sweep", file, "-o", tmp_path / "ray", "--executor", "ray", "--jobs", 2)
    driver = start(*words)
    wait_for(lambda: len([name for name in ray_workers(driver) if name.startswith("tiny random")]) == 2, driver)
    text = driver.communicate()[0]
    # Two workers at a time; the scene without poses fails, without a run being tried, and takes nobody along.
    assert driver.returncode == 1 and "2 of 4 runs done, 2 failed" in text, text
    assert "holds 1 photo; a scene needs at least two" in text
    ours = SweepFolder(tmp_path / "ray")
    assert [(row["scene"], row["status"]) for row in rows(ours)] == 2 * [("lone", "failed"), ("tiny", "done")]
    assert set(sessions(ours).values()) == {1} and len(sessions(ours)) == 2
    # To the bit what the other executor makes, which takes over what is there.
    local = invoke("sweep", file, "-o", tmp_path / "local", "--jobs", 2)
    assert "2 of 4 runs done, 2 failed" in local.output, local.output
    pictures = [row["renders_hash"] for row in rows(SweepFolder(tmp_path / "local"))]
    assert [row["renders_hash"] for row in rows(ours)] == pictures and len(set(pictures)) == 3
    again = invoke("sweep", file, "-o", tmp_path / "ray")
    assert again.exit_code == 1 and "2 of 4 runs done (2 of them before), 2 failed" in again.output


def test_killed_ray_workers_and_drivers_lose_and_double_nothing(tiny_scene, tmp_path, start):
    file, out = sweep_file(tmp_path, tiny_scene, steps=400, inits="[sfm, random, rain]"), tmp_path / "out"
    folder, planned = SweepFolder(out), {run.hash: run for run in read_plan(file).runs}
    words = ("sweep", file, "-o", out, "-x", "ray", "--jobs", 2)
    driver = start(*words)
    # A Ray worker is killed while its run trains: the process saves itself, and Ray tries the task again.
    (victim, *_) = wait_for(lambda: training(folder), driver)
    first = wait_for(lambda: holder(victim), driver)
    os.kill(wait_for(lambda: ray_workers(driver).get(planned[victim.name].name), driver), signal.SIGKILL)
    wait_for(lambda: sessions(folder)[victim.name] == 2, driver)
    assert gone(first), "two processes at one run"
    # Then the driver is, while something trains; all that it had begun goes with it.
    wait_for(lambda: [run for run in training(folder) if holder(run)], driver)
    children = below(driver.pid)
    driver.kill()
    driver.communicate()
    end = time.monotonic() + 120
    while left := [command for pid, command in children.items() if not gone(pid)]:
        assert time.monotonic() < end, f"a killed driver's processes go on: {left}"
        time.sleep(0.1)
    while any(is_held(path) for path in folder.runs.iterdir()):  # begun after we looked at the children
        assert time.monotonic() < end
        time.sleep(0.1)
    before = sessions(folder)
    # The same command does what is left, and only that.
    last = start(*words)
    text = last.communicate()[0]
    assert last.returncode == 0 and "3 of 3 runs done" in text and "0 failed" in text, text
    assert sorted(sessions(folder)) == sorted(planned) == sorted(path.name for path in folder.runs.iterdir())
    assert {row["run"]: row["status"] for row in rows(folder)} == dict.fromkeys(planned, "done")
    assert all(sessions(folder)[run] <= before.get(run, 0) + 1 for run in planned)
    assert 2 <= sessions(folder)[victim.name] <= 3
    for run in planned:
        whole(folder, run, 400)


# Two nodes, each a raylet, that end with this process's standard input; one says that it has a GPU.
CLUSTER = """
import sys
from ray.cluster_utils import Cluster
small = {"object_store_memory": 80 * 2**20}
head = {"num_cpus": 2, "num_gpus": 1, "include_dashboard": False, **small}
cluster = Cluster(initialize_head=True, head_node_args=head)
cluster.add_node(num_cpus=1, num_gpus=0, **small)
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""
# The command, but that its backend is taken for one that needs a GPU.
ON_GPU = """
from splatinit.raster import BACKENDS
object.__setattr__(BACKENDS.spec("cpu"), "gpu", True)
from splatinit.cli import main
main()
"""


@pytest.fixture
def cluster(monkeypatch) -> Iterator[str]:
    """The address of a cluster of two nodes, which outlives its drivers."""
    variables = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64, "RAY_worker_niceness": "0"}
    for name, value in {**variables, "RAY_USAGE_STATS_ENABLED": "0"}.items():
        monkeypatch.setenv(name, value)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([sys.executable, "-c", CLUSTER], text=True, env=environment, **pipes)
    yield process.stdout.readline().strip()
    nodes = below(process.pid)
    with suppress(subprocess.TimeoutExpired):
        process.communicate(timeout=30)
    process.kill()
    process.wait()
    for pid in nodes:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_a_cluster_that_is_there_serves_one_driver_after_another(tiny_scene, tmp_path, cluster, start):
    file, out = sweep_file(tmp_path, tiny_scene, steps=1500), tmp_path / "out"
    folder = SweepFolder(out)
    words = ("sweep", file, "-o", out, "--executor", "ray", "--address", cluster)
    driver = start(*words, "--gpus-per-run", 0.5, code=ON_GPU)
    claims = [folder.claim(run.hash) for run in read_plan(file).runs]
    trained = wait_for(lambda: all(map(is_held, claims)) and training(folder), driver)
    for claim in claims:  # two at a time, half of one GPU each
        assert b"CUDA_VISIBLE_DEVICES=0\0" in Path(f"/proc/{holder(claim)}/environ").read_bytes()
    driver.send_signal(signal.SIGINT)
    text = driver.communicate()[0]
    assert driver.returncode == 130 and "Stopped; checkpoints are written" in text, text
    assert "0 of 2 runs done, 0 failed, 2 not yet" in text
    assert not any(map(is_held, [*claims, *folder.runs.iterdir()]))
    # Another driver of the same cluster is killed, and a third does what is left.
    second = start(*words)
    wait_for(lambda: any(map(is_held, claims)), second)
    second.kill()
    second.communicate()
    third = start(*words)
    text = third.communicate()[0]
    assert third.returncode == 0 and "2 of 2 runs done" in text and "0 failed" in text, text
    for run in read_plan(file).runs:
        whole(folder, run.hash, 1500)
    assert all("Resumed after step" in folder.log(run.name).read_text() for run in trained)


def test_an_address_without_a_cluster_is_told_at_once(tiny_scene, tmp_path):
    began = time.monotonic()
    words = ("sweep", sweep_file(tmp_path, tiny_scene), "-o", tmp_path / "out", "-x", "ray", "--address")
    refused = invoke(*words, "127.0.0.1:1")
    assert refused.exit_code == 2 and "no Ray cluster at '127.0.0.1:1' that can be used" in refused.output
    assert "Start one with `ray start --head`" in refused.output
    assert time.monotonic() - began < 60
