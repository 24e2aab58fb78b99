"""What is asked of Ray, what is made of what it says, and every reason why it cannot be used. Ray itself is a fake."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import types
from dataclasses import replace

import pytest

from splatinit import environment, memory
from splatinit.comparing import compare
from splatinit.errors import ConfigError, MissingExtra, OutputError, SplatinitError
from splatinit.progress import Silent
from splatinit.raster import BACKENDS
from splatinit.sweep import SweepFolder, expand, on_ray
from splatinit.sweep.executors import EXECUTORS, run_sweep
from splatinit.sweep.ledger import Ledger
from splatinit.sweep.on_ray import RETRIES, RayConfig, ask
from splatinit.sweep.shares import Shares, expected_bytes
from splatinit.sweep.worker import Exit, write_failure

GB = 2**30
NODE = {"CPU": 8.0, "memory": 64.0 * GB}
GPU_NODE = {"CPU": 16.0, "GPU": 2.0, "memory": 128.0 * GB}


def plan(**tree):
    top = {"name": "s", "scenes": ["x/fox", "x/chair"], "inits": ["sfm", "random"], "settings": {"train.steps": 100}}
    return expand(top | tree, "my.yaml", scenes_exist=False)


CPU_RUN = plan().runs[0].config
GPU_RUN = replace(CPU_RUN, raster=replace(CPU_RUN.raster, name="on-gpu"))


@pytest.fixture(autouse=True)
def gpu_backend(monkeypatch):
    """A backend that needs a GPU: only what its spec says of it matters here."""
    monkeypatch.setitem(BACKENDS._specs, "on-gpu", replace(BACKENDS.spec("cpu"), name="on-gpu", gpu=True))


# ------------------------------------------------------------------------------------------------------------- the ask
@pytest.mark.parametrize(
    ("run", "nodes", "settings", "runs", "cpus", "gpus", "size"),
    [
        (CPU_RUN, [NODE], {}, 100, 1, 0.0, 8 * GB),  # one core each, memory in proportion
        (CPU_RUN, [NODE], {}, 4, 2, 0.0, 16 * GB),  # fewer runs than cores
        (CPU_RUN, [NODE, NODE | {"CPU": 4.0}], {}, 1, 4, 0.0, 32 * GB),  # what every node has
        (CPU_RUN, [NODE], {"jobs": 2}, 100, 4, 0.0, 32 * GB),
        (GPU_RUN, [NODE, GPU_NODE], {}, 100, 1, 1.0, 8 * GB),
        (GPU_RUN, [NODE, GPU_NODE], {"gpus_per_run": 0.5}, 2, 4, 0.5, 32 * GB),  # four of them fill the node
        (GPU_RUN, [NODE, GPU_NODE], {"gpus_per_run": 0.25}, 1, 2, 0.25, 16 * GB),
        (CPU_RUN, [NODE, {"memory": 1.0}], {}, 100, 1, 0.0, 8 * GB),  # a head node that does no work
    ],
)
def test_what_a_run_asks_for(run, nodes, settings, runs, cpus, gpus, size):
    asked = ask(run, nodes, RayConfig(**settings), runs=runs)
    assert asked.options() == {
        "num_cpus": cpus,
        "num_gpus": gpus,
        "memory": size,
        "max_retries": RETRIES,
        "retry_exceptions": False,
    }
    assert asked.shares == Shares(2, cpus, size) and not asked.roomy


def test_what_needs_more_asks_for_a_whole_node():
    tight = NODE | {"memory": float(expected_bytes(CPU_RUN))}
    asked = ask(CPU_RUN, [tight], RayConfig(), runs=9)
    assert (asked.cpus, asked.bytes, asked.roomy) == (1, expected_bytes(CPU_RUN), True)
    small = NODE | {"memory": 1.0 * GB}
    assert ask(CPU_RUN, [small], RayConfig(), runs=9).bytes == GB, "it is tried with all that there is"
    whole = Shares(1, 16, None)
    assert ask(CPU_RUN, [NODE, GPU_NODE], RayConfig(), runs=9, alone=True).shares == whole
    timed = replace(CPU_RUN, train=replace(CPU_RUN.train, seconds=60.0))
    assert ask(timed, [NODE, GPU_NODE], RayConfig(), runs=9).shares == whole
    assert ask(timed, [NODE], RayConfig(jobs=8), runs=9).cpus == 1
    # A cluster that grows when it is asked: nothing is known of its nodes.
    asked = ask(GPU_RUN, [NODE], RayConfig(), runs=9)
    assert (asked.cpus, asked.gpus, asked.bytes) == (1, 1.0, expected_bytes(GPU_RUN))


def test_settings_that_do_not_fit():
    with pytest.raises(ConfigError, match=r"--gpus-per-run is 1\.5; expected more than 0 and at most 1"):
        RayConfig(gpus_per_run=1.5)
    with pytest.raises(ConfigError, match="--jobs is 0; expected at least 1"):
        RayConfig(jobs=0)


# ------------------------------------------------------------------------------------------------------------ the fake
class RayError(Exception): ...


ERRORS = types.SimpleNamespace(
    RayError=RayError,
    **{
        name: type(name, (RayError,), {})
        for name in ("WorkerCrashedError", "NodeDiedError", "OutOfMemoryError", "RayTaskError", "RaySystemError")
    },
)


class Fake(types.ModuleType):
    """Does each task at once, with ``node`` in place of a node: what it returns, or raises, is what the task does."""

    def __init__(self, node, resources=NODE) -> None:
        super().__init__("ray")
        self.node, self.exceptions, self.asked, self.cancelled = node, ERRORS, [], []
        self.resources = [resources]
        self.results: dict[int, object] = {}
        self.most = 0

    def is_initialized(self):
        return True

    def nodes(self):
        return [{"Alive": True, "Resources": each} for each in self.resources]

    def remote(self, function):
        fake = self

        class Task:
            def options(self, **options):
                self.wanted = options
                return self

            def remote(self, *arguments):
                fake.asked.append(self.wanted)
                reference = len(fake.asked)
                try:
                    fake.results[reference] = fake.node(function, *arguments)
                except RayError as error:
                    fake.results[reference] = error
                return reference

        return Task()

    def wait(self, tasks, *, num_returns, timeout):
        self.most = max(self.most, len(tasks))
        return tasks[:num_returns], tasks[num_returns:]

    def get(self, task):
        result = self.results[task]
        if isinstance(result, Exception):
            raise result
        return result

    def cancel(self, task):
        self.cancelled.append(task)


class Notes(Silent):
    def __init__(self) -> None:
        self.notes = []

    def note(self, text):
        self.notes.append(text)


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """Does the plan's sweep with a fake Ray: the ledger, and the fake."""
    monkeypatch.setattr(memory, "available", lambda: None)
    monkeypatch.setattr(on_ray, "_POLL", 0.0)
    monkeypatch.setattr(on_ray, "_APPEAR", 0.0)

    def of(node, *, stop=lambda: False, resources=NODE, ended=True, **settings):
        fake = Fake(node, resources)
        monkeypatch.setitem(sys.modules, "ray", fake)
        monkeypatch.setitem(sys.modules, "ray.exceptions", ERRORS)
        folder, found = SweepFolder(tmp_path), plan()
        folder.write_plan(found)
        ledger = Ledger(folder, found, progress=Notes())
        on_ray.work(ledger, RayConfig(**settings), stop)
        return ledger, fake

    return of


def told(**what):
    return on_ray._Told("n1", **what)


def failing(function, place, *arguments):
    """A node on which all scenes are posed and all runs fail."""
    if function is on_ray._pose_task:
        return told()
    write_failure(place.sweep(), arguments[0], "no points", "NoPoints", "init")
    return told(code=Exit.FAILED, seconds=1.0)


def test_poses_first_then_runs_and_no_more_than_allowed(sweep):
    order = []

    def node(function, *arguments):
        order.append(function)
        return failing(function, *arguments)

    ledger, fake = sweep(node, jobs=2)
    # Two scenes, with points and without.
    assert order == 4 * [on_ray._pose_task] + 4 * [on_ray._run_task]
    assert fake.most == 2
    assert set(ledger.outcome.failed.values()) == {"no points"} and not ledger.outcome.stopped
    assert fake.asked[0] | {"name": ""} == {
        "name": "",
        "num_cpus": 8,
        "num_gpus": 0,
        "max_retries": RETRIES,
        "retry_exceptions": False,
    }
    assert fake.asked[4]["name"] == "fox sfm seed 0" and fake.asked[4]["num_cpus"] == 4


def test_runs_of_a_scene_without_poses_fail_and_others_go_on(sweep):
    tried = []

    def node(function, place, *arguments):
        if function is on_ray._pose_task:
            lone = arguments[1].scene == "fox"
            return told(unposed={"error": "1 photo", "kind": "NoImages", "stage": "read"} if lone else None)
        tried.append(arguments[0])
        return failing(function, place, *arguments)

    ledger, _ = sweep(node)
    reasons = {ledger.by_hash[run].name: why for run, why in ledger.outcome.failed.items()}
    assert reasons == {
        "fox sfm seed 0": "1 photo",
        "fox random seed 0": "1 photo",
        "chair sfm seed 0": "no points",
        "chair random seed 0": "no points",
    }
    assert {ledger.by_hash[run].scene for run in tried} == {"chair"}


def test_a_run_without_room_gets_a_node_of_its_own_at_the_end(sweep):
    tried = []

    def node(function, place, *arguments):
        if function is on_ray._run_task:
            run, _, shares = arguments
            tried.append((run, shares))
            if shares.jobs > 1 and len(tried) == 1:
                write_failure(place.sweep(), run, "needs 9 GB", "OutOfMemory", "read")
                return told(code=Exit.FAILED)
        return failing(function, place, *arguments)

    ledger, fake = sweep(node)
    assert len(tried) == 5 and tried[0][0] == tried[-1][0] and tried[-1][1] == Shares(1, 8, None)
    assert fake.asked[-1]["num_cpus"] == 8 and "it is done alone at the end" in ledger.progress.notes[0]


@pytest.mark.parametrize("lost", ["WorkerCrashedError", "NodeDiedError", "OutOfMemoryError"])
def test_what_ray_loses_again_and_again_is_a_failed_run(sweep, lost):
    def node(function, *arguments):
        if function is on_ray._run_task:
            raise getattr(ERRORS, lost)("The worker died unexpectedly.\nmore")
        raise ERRORS.RayTaskError("ray::poses\nValueError: a bug")

    ledger, _ = sweep(node)
    assert set(ledger.outcome.failed.values()) == {"Its Ray task failed: ValueError: a bug"}

    def later(function, *arguments):
        return told() if function is on_ray._pose_task else node(function, *arguments)

    for run in ledger.by_hash:
        ledger.folder.failed(run).unlink()
    ledger, _ = sweep(later)
    reason = "Ray lost its worker 4 times, the last time so: The worker died unexpectedly."
    assert set(ledger.outcome.failed.values()) == {reason}


def test_what_concerns_all_runs_ends_the_sweep_and_blames_none(sweep, tmp_path):
    def saying(answer):
        def node(function, *arguments):
            if isinstance(answer, Exception):
                raise answer
            return answer

        return node

    with pytest.raises(OutputError, match="Node n1 of the Ray cluster does not see the sweep's folder") as caught:
        sweep(saying(told(problem="folder")))
    assert str(tmp_path) in caught.value.message and "all nodes mount" in caught.value.hint
    with pytest.raises(ConfigError, match=r"Node n1 of the Ray cluster has splatinit 0\.0\.1; expected splatinit"):
        sweep(saying(told(problem="splatinit 0.0.1")))
    with pytest.raises(ConfigError, match=r"A node of the Ray cluster has no splatinit[\s\S]*into the Python"):
        sweep(saying(ERRORS.RayTaskError("failed to import: No module named 'splatinit'")))
    with pytest.raises(SplatinitError, match=r"The Ray cluster is lost \(gone\)[\s\S]*the same command goes on"):
        sweep(saying(ERRORS.RaySystemError("gone")))
    assert not (tmp_path / "failed").exists()


def test_what_is_stopped_is_cancelled(sweep):
    asked = iter([False, True, True, True])
    ledger, fake = sweep(failing, stop=lambda: next(asked, True))
    assert ledger.outcome.stopped and fake.cancelled == [2, 3, 4] and ledger.outcome.failed == {}


def test_a_wait_for_nodes_that_are_not_there_is_told(sweep, monkeypatch):
    monkeypatch.setitem(BACKENDS._specs, "cpu", replace(BACKENDS.spec("cpu"), gpu=True))
    ledger, fake = sweep(failing, gpus_per_run=0.5)
    (note,) = [text for text in ledger.progress.notes if "waiting" in text]
    assert note == "No node of the cluster has 1 cores and 0.5 of a GPU, which a run needs: waiting for one that has."
    assert fake.asked[-1]["num_gpus"] == 0.5


# ------------------------------------------------------------------------------------------------------------- the node
def test_a_node_says_what_it_lacks(tmp_path, monkeypatch):
    monkeypatch.setattr(on_ray, "_SEEN", 0.0)
    place = on_ray._Place(tmp_path, tmp_path, "0.0.1", {})
    run = plan().runs[0]
    assert on_ray._run_task(place, run.hash, "{}", Shares(1, 1, None)).problem == "folder"
    assert on_ray._pose_task(place, tmp_path / "poses", run, 1).problem == "folder"
    SweepFolder(tmp_path).write_plan(plan())
    assert place.problem().startswith("splatinit ")


def test_a_worker_finds_our_modules_and_not_those_that_ray_brings(tmp_path, monkeypatch):
    seen = {}
    monkeypatch.setattr(on_ray, "start_worker", lambda *arguments, **more: seen.update(more))
    monkeypatch.setattr(sys, "path", ["/site/ray/thirdparty_files", "/site/ray", "/ours", "/arrays"])
    here = tmp_path / "here"
    on_ray._Place(tmp_path, here, "", {"A": "b"}).start("", tmp_path, Shares(1, 1, None))
    assert seen.pop("here") == tmp_path, "its current folder is not on this node"
    assert seen == {"modules": ["/ours", "/arrays"], "settings": {"A": "b"}}
    here.mkdir()
    on_ray._Place(tmp_path, here, "", {"A": "b"}).start("", tmp_path, Shares(1, 1, None))
    assert seen["here"] == here


def test_the_users_variables_go_along_but_not_what_is_of_this_machine(monkeypatch):
    monkeypatch.setenv("SPLATINIT_WEIGHTS", "/weights")
    monkeypatch.setenv(environment.THREADS_VARIABLE, "2")
    monkeypatch.setenv(memory.VARIABLE, "1000")
    settings = on_ray._settings()
    assert settings["SPLATINIT_WEIGHTS"] == "/weights"
    assert not {environment.THREADS_VARIABLE, memory.VARIABLE} & set(settings)


# ---------------------------------------------------------------------------------------------------------- the cluster
def test_a_missing_ray_is_named_with_the_command_that_installs_it(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *rest: None if name == "ray" else object())
    with pytest.raises(MissingExtra, match="executor 'ray' needs ray, which is not installed") as caught:
        run_sweep(plan(), tmp_path / "out", executor="ray")
    assert caught.value.hint == 'Install it: pip install "splatinit[ray]"'
    assert not (tmp_path / "out").exists()


def test_options_that_an_executor_has_not(tmp_path):
    with pytest.raises(ConfigError, match="--address and --gpus-per-run: the executor 'local' has no such option"):
        run_sweep(plan(), tmp_path, address="auto", gpus_per_run=0.5)
    with pytest.raises(ConfigError, match=r"Unknown executor 'rya'[\s\S]*Did you mean 'ray'"):
        run_sweep(plan(), tmp_path, executor="rya")
    assert EXECUTORS.names() == ["local", "ray"]
    with pytest.raises(ConfigError, match="--address: the executor 'local' has no such option"):
        compare(tmp_path, ["sfm"], out=tmp_path / "out", address="auto")


@pytest.mark.parametrize("address", ["head", "head:", ":6379", "head:x", "head:99999", "ray://head:10001"])
def test_an_address_that_is_none(address):
    with pytest.raises(ConfigError, match=r"--address: got '.*'; expected HOST:PORT of a Ray cluster's head node"):
        on_ray._require_cluster(address)


def test_an_address_without_a_cluster(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setattr(on_ray, "_ANSWER", 0.2)
        monkeypatch.setattr(subprocess, "run", slow_or_wrong := Asked())
        slow_or_wrong.error = subprocess.TimeoutExpired("ray", 0.2)
        with pytest.raises(ConfigError, match="that can be used .what is there did not answer as Ray within 0 s"):
            on_ray._require_cluster(f"127.0.0.1:{port}")
        slow_or_wrong.error = subprocess.CalledProcessError(1, "ray", stderr="trace\nRuntimeError: another version\n\n")
        with pytest.raises(ConfigError, match="RuntimeError: another version"):
            on_ray._require_cluster(f"127.0.0.1:{port}")
        assert slow_or_wrong.command[-2:] == ["--address", f"127.0.0.1:{port}"]
    with pytest.raises(ConfigError, match=rf"no Ray cluster at '127.0.0.1:{port}' that can be used \(Connection ref"):
        on_ray._require_cluster(f"127.0.0.1:{port}")


class Asked:
    def __call__(self, command, **_):
        self.command = command
        raise self.error


def test_ray_tells_nobody_and_its_own_cluster_lets_nobody_in(monkeypatch):
    names = ("RAY_USAGE_STATS_ENABLED", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN")
    names += ("RAY_AUTH_TOKEN_PATH", "RAY_worker_niceness")
    for name in names:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    on_ray._prepare_environment("head:6379")
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0" and "RAY_AUTH_MODE" not in os.environ
    on_ray._prepare_environment("local")
    token = os.environ["RAY_AUTH_TOKEN"]
    assert os.environ["RAY_AUTH_MODE"] == "token" and len(token) == 64 and os.environ[names[-1]] == "0"
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    on_ray._prepare_environment("local")
    assert "RAY_AUTH_TOKEN" not in os.environ, "what the user has set stays"


class Starting(Fake):
    def __init__(self, error=None) -> None:
        super().__init__(failing)
        self.error, self.arguments, self.ended = error, None, 0

    def is_initialized(self):
        return False

    def init(self, **arguments):
        self.arguments = arguments
        if self.error:
            raise self.error

    def shutdown(self):
        self.ended += 1


@pytest.mark.parametrize(("jobs", "cores"), [(None, 2), (1, 2), (3, 3)])
def test_a_cluster_of_this_machine_alone(monkeypatch, jobs, cores):
    monkeypatch.setattr(on_ray, "_prepare_environment", lambda address: None)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv(environment.THREADS_VARIABLE, "2")
    fake = Starting()
    monkeypatch.setitem(sys.modules, "ray", fake)
    monkeypatch.setitem(sys.modules, "ray.exceptions", ERRORS)
    with on_ray._cluster(RayConfig(jobs=jobs)) as ray:
        assert ray is fake and fake.ended == 0
    assert fake.ended == 1
    assert (fake.arguments["address"], fake.arguments["num_cpus"]) == ("local", cores)
    fake.error = ConnectionError("Could not find any running Ray instance.\nmore")
    with pytest.raises(ConfigError, match=r"no Ray cluster at 'auto' that can be used \(Could not find any running"):  # noqa: SIM117
        with on_ray._cluster(RayConfig(address="auto")):
            pass
    assert "num_cpus" not in fake.arguments
