"""The executor ``ray``: each run of a plan as a task of a Ray cluster.

Ray (Moritz et al. 2018, arXiv:1712.05889) says where and when, and tries again what it lost with a worker or a node. A
task starts the same process as the executor ``local`` and waits for it. Where the task ends, however that is, the
process is asked to write a checkpoint and to stop, so that the next try goes on from there; until it has let go of the
run, the run counts as one in other hands. Without an address, a cluster of this machine alone begins and ends with the
sweep.

The nodes see the sweep's folder, and the scenes, at the same paths. Ray stores nothing of a sweep.
"""

from __future__ import annotations

import os
import platform
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from .. import __version__, environment, memory
from ..config import RunConfig
from ..errors import ConfigError, OutputError, SplatinitError
from ..raster import BACKENDS
from .folder import SweepFolder, poses_ready
from .ledger import Ledger
from .plan import PlannedRun
from .posing import find_poses
from .processes import start_worker, wait_for
from .shares import Shares, expected_bytes, whole_machine
from .worker import Exit, job_line

# Tries after the first one, where Ray loses the worker or the node; a run that fails by itself is not tried again.
RETRIES = 3
# Cores for finding a scene's poses, at most: COLMAP's gain little from more.
POSING_CORES = 8
_POLL = 0.2  # s between two looks at what Ray says
_KNOCK = 5.0  # s in which the cluster's port must take a connection
_ANSWER = 30.0  # s in which it must answer as Ray
_SEEN = 10.0  # s in which a node must see the sweep's folder
_APPEAR = 60.0  # s in which a shared folder must show what another node wrote: NFS remembers for so long what was not
_SILENCE = 10.0  # s without a word of tasks that were cancelled, nor a process that holds their runs: they are over
_STORE = 100 * 2**20  # bytes of Ray's object store on this machine; nothing of a sweep goes there


@dataclass(frozen=True)
class RayConfig:
    """A Ray cluster.

    Attributes:
        jobs: runs at a time; None: as many as Ray finds room for.
        address: HOST:PORT of the head node; auto: of the cluster that this machine belongs to; local: a new one of this
            machine alone. None: RAY_ADDRESS, and where that is not set, local.
        gpus_per_run: GPUs for each run whose backend uses them: 0.5 puts two runs on one. Others get none.
    """

    jobs: int | None = None
    address: str | None = None
    gpus_per_run: float = 1.0

    def __post_init__(self) -> None:
        if self.jobs is not None and self.jobs < 1:
            raise ConfigError(f"--jobs is {self.jobs}; expected at least 1.")
        if not 0 < self.gpus_per_run <= 1:
            raise ConfigError(
                f"--gpus-per-run is {self.gpus_per_run:g}; expected more than 0 and at most 1: a run uses one GPU.",
                hint="For example 0.5, which puts two runs on one GPU.",
            )


def work(ledger: Ledger, config: RayConfig, stop: Callable[[], bool]) -> None:
    """Do what is left, until ``stop`` is true: runs then write their checkpoints.

    Raises ConfigError where no cluster is at the address or a node has another splatinit, OutputError where a node does
    not see the sweep's folder.
    """
    if not ledger.left:
        return
    ledger.begin()
    with _cluster(config) as ray:
        driver = _Driver(ray, ledger, config)
        try:
            driver.work(stop)
        finally:
            driver.end_tasks()


# ----------------------------------------------------------------------------------------------------------- the nodes
@dataclass(frozen=True)
class _Place:
    """Where a task finds its sweep, as the driver sees it."""

    folder: Path  # absolute
    here: Path  # the current folder, from which relative paths of scenes count
    version: str
    settings: Mapping[str, str]  # the user's variables for splatinit, which nodes do not have by themselves

    def sweep(self) -> SweepFolder:
        return SweepFolder(self.folder)

    def problem(self) -> str | None:
        """Why this node cannot do anything of the sweep, in words."""
        end = time.monotonic() + _SEEN
        while not self.sweep().plan.is_file():
            if time.monotonic() > end:
                return "folder"
            time.sleep(0.2)
        return None if self.version == __version__ else f"splatinit {__version__}"

    def start(self, job: str, log: Path, shares: Shares) -> subprocess.Popen:
        """A worker process on this node."""
        # Ray puts packages of its own before ours, for itself.
        modules = [entry for entry in sys.path if f"{os.sep}ray{os.sep}" not in f"{entry}{os.sep}"]
        here = self.here if self.here.is_dir() else self.folder
        return start_worker(job, log, shares, here=here, modules=modules, settings=self.settings)


@dataclass(frozen=True)
class _Told:
    """What a task says at its end.

    Attributes:
        node: where it was done.     problem: see :meth:`_Place.problem`; then nothing was done.
        code: how the worker process ended.     unposed: why the scene has no poses.     seconds: it took.
    """

    node: str
    problem: str | None = None
    code: int = 0
    unposed: Mapping[str, str] | None = None
    seconds: float = 0.0


def _run_task(place: _Place, run: str, job: str, shares: Shares) -> _Told:
    """Do one run on this node. Ends early, its process with a checkpoint, where Ray cancels it."""
    node, began = platform.node(), time.perf_counter()
    problem = place.problem()
    if problem is not None:
        return _Told(node, problem)
    process = place.start(job, place.sweep().log(run), shares)
    wait_for(process, lambda: False)
    return _Told(node, code=process.returncode, seconds=time.perf_counter() - began)


def _pose_task(place: _Place, poses: Path, run: PlannedRun, threads: int) -> _Told:
    """Find the poses of one scene on this node."""
    node = platform.node()
    problem = place.problem()
    if problem is not None:
        return _Told(node, problem)
    start = partial(place.start, shares=Shares(1, threads, None))
    failed = find_poses(place.sweep(), {poses: run}, lambda: False, name=f"poses-{poses.name}", start=start)
    return _Told(node, unposed=failed.get(poses))


def _settings() -> dict[str, str]:
    """SPLATINIT_WEIGHTS and the like; what concerns this machine's processor and memory is not for others."""
    own = (environment.THREADS_VARIABLE, memory.VARIABLE, "SPLATINIT_SIMD")
    return {name: value for name, value in os.environ.items() if name.startswith("SPLATINIT_") and name not in own}


# ------------------------------------------------------------------------------------------------------------- the ask
@dataclass(frozen=True)
class Ask:
    """What a run asks of Ray, and what it may use of it."""

    cpus: int
    gpus: float
    bytes: int
    shares: Shares
    roomy: bool  # it has as much as any node can give

    def options(self) -> dict[str, Any]:
        """As ``RemoteFunction.options`` takes them. A run that fails says so in words, not by an exception."""
        cores = {"num_cpus": self.cpus, "num_gpus": self.gpus, "memory": self.bytes}
        return cores | {"max_retries": RETRIES, "retry_exceptions": False}


def ask(
    run: RunConfig, nodes: Sequence[Mapping[str, float]], config: RayConfig, *, runs: int, alone: bool = False
) -> Ask:
    """What one of ``runs`` runs asks of ``nodes`` (their resources, as Ray counts them).

    One core each, as with the executor ``local``, more where there are fewer runs than cores; memory in proportion, but
    what it is expected to take. ``alone``, or with a time in place of steps and no say about ``--jobs``: a whole node.
    """
    gpus = config.gpus_per_run if BACKENDS.spec(run.raster.name).gpu else 0.0
    fit = [node for node in nodes if node.get("CPU", 0) >= 1 and (not gpus or node.get("GPU", 0) >= gpus)]
    expected = expected_bytes(run)
    if not fit:  # a cluster that grows when it is asked; what its nodes will be is not known
        return Ask(1, gpus, expected, Shares(2, 1, expected), False)
    largest = max(fit, key=lambda node: (node["CPU"], node.get("memory", 0)))
    if alone or (run.train.seconds is not None and config.jobs is None):
        cpus = int(largest["CPU"])
        return Ask(cpus, gpus, int(largest.get("memory", 0)), Shares(1, cpus, None), True)
    jobs = min(runs, config.jobs or runs)
    cpus = max(1, int(min(min(node["CPU"] for node in fit), sum(node["CPU"] for node in fit) // jobs)))
    if gpus:  # so many that as many runs as GPUs have room for find cores
        cpus = max(1, min(cpus, *(int(node["CPU"] * gpus / node["GPU"]) for node in fit)))
    most = int(max(node.get("memory", 0) for node in fit))
    share = int(min(node.get("memory", 0) * min(1.0, cpus / node["CPU"]) for node in fit))
    size = min(max(expected, share), most)
    roomy = size == most
    return Ask(cpus, gpus, size, Shares(1 if roomy else 2, cpus, size), roomy)


# ---------------------------------------------------------------------------------------------------------- the driver
class _Driver:
    """Hands tasks to Ray and hears what became of them."""

    def __init__(self, ray: Any, ledger: Ledger, config: RayConfig) -> None:
        self.ray, self.ledger, self.config = ray, ledger, config
        self.place = _Place(ledger.folder.root.absolute(), Path.cwd(), __version__, _settings())
        self.runs = len(ledger.waiting)
        self.posing: dict[Any, Path] = {}  # reference of a task → where the poses go
        self.running: dict[Any, tuple[PlannedRun, Ask]] = {}
        self.unposed = {poses: run for poses, run in ledger.unposed().items() if not poses_ready(poses)}
        self._warned = False

    def work(self, stop: Callable[[], bool]) -> None:
        """Until nothing is left, or ``stop`` is true."""
        while self.ledger.left or self.posing or self.running:
            if stop():
                self.ledger.outcome.stopped = True
                return
            self._hand_out()
            tasks = [*self.posing, *self.running]
            if tasks:
                ended, _ = self.ray.wait(tasks, num_returns=1, timeout=_POLL)
                for task in ended:
                    self._ended(task, stop)
            else:
                time.sleep(_POLL)
            self.ledger.look_elsewhere()

    # ------------------------------------------------------------------------------------------------------ handing out
    def _hand_out(self) -> None:
        while self.unposed and self._room():
            poses = next(iter(self.unposed))
            self._pose(poses, self.unposed.pop(poses))
        coming = {*self.unposed, *self.posing.values()}
        ready = [run for run in self.ledger.waiting if self.ledger.poses[run.hash] not in coming]
        while ready and self._room():
            run = ready.pop(0)
            self.ledger.waiting.remove(run)
            self._run(run)
        if self.ledger.alone and not (self.ledger.waiting or self.posing or self.running):
            self._run(self.ledger.alone.pop(0), alone=True)

    def _room(self) -> bool:
        return self.config.jobs is None or len(self.posing) + len(self.running) < self.config.jobs

    def _pose(self, poses: Path, run: PlannedRun) -> None:
        cores = [int(node["CPU"]) for node in self._nodes() if node.get("CPU", 0) >= 1]
        threads = min(POSING_CORES, max(cores, default=1))
        options = {"num_cpus": threads, "num_gpus": 0, "max_retries": RETRIES, "retry_exceptions": False}
        task = self.ray.remote(_pose_task).options(name=f"poses of {run.scene}", **options)
        self.posing[task.remote(self.place, self._there(poses), run, threads)] = poses

    def _run(self, run: PlannedRun, *, alone: bool = False) -> None:
        if not self.ledger.free(run):
            return
        nodes = self._nodes()
        asked = ask(run.config, nodes, self.config, runs=self.runs, alone=alone)
        self._warn(asked, nodes)
        task = self.ray.remote(_run_task).options(name=run.name, **asked.options())
        job = job_line(self.place.sweep(), run.path, run.config.expand(), self._there(self.ledger.poses[run.hash]))
        self.running[task.remote(self.place, run.hash, job, asked.shares)] = run, asked

    def _there(self, path: Path) -> Path:
        return self.place.folder / path.relative_to(self.ledger.folder.root)

    def _nodes(self) -> list[Mapping[str, float]]:
        return [node["Resources"] for node in self.ray.nodes() if node["Alive"]]

    def _warn(self, asked: Ask, nodes: Sequence[Mapping[str, float]]) -> None:
        """Say once that nothing can begin until the cluster has grown."""
        if self._warned or any(n.get("CPU", 0) >= asked.cpus and n.get("GPU", 0) >= asked.gpus for n in nodes):
            return
        self._warned = True
        wanted = f"{asked.cpus} cores" + (f" and {asked.gpus:g} of a GPU" if asked.gpus else "")
        self.ledger.progress.note(f"No node of the cluster has {wanted}, which a run needs: waiting for one that has.")

    # ---------------------------------------------------------------------------------------------------------- ending
    def _ended(self, task: Any, stop: Callable[[], bool]) -> None:
        poses = self.posing.pop(task, None)
        run, asked = self.running.pop(task, (None, None))
        told = self._hear(task)
        if poses is not None:
            lost = {"error": told, "kind": "", "stage": "pose"} if isinstance(told, str) else told.unposed
            if lost is not None:
                self.ledger.cannot_pose(poses, lost)
        elif isinstance(told, str):
            self.ledger.fail(run, told)
        else:
            self._await(run, told, stop)
            self.ledger.ended(run, told.code, told.seconds, roomy=asked.roomy)

    def _hear(self, task: Any) -> _Told | str:
        """What the task says; in words, why it cannot. Raises what concerns all tasks."""
        errors = self.ray.exceptions
        try:
            told = self.ray.get(task)
        except (errors.WorkerCrashedError, errors.NodeDiedError, errors.OutOfMemoryError) as error:
            return f"Ray lost its worker {RETRIES + 1} times, the last time so: {str(error).splitlines()[0]}"
        except errors.RayTaskError as error:
            text = str(error)
            if "No module named 'splatinit" in text:
                raise ConfigError(
                    "A node of the Ray cluster has no splatinit: its Python cannot import it.",
                    hint=f"Install splatinit {__version__} into the Python that Ray runs with, on every node.",
                ) from None
            return f"Its Ray task failed: {text.strip().splitlines()[-1]}"
        except errors.RayError as error:
            raise SplatinitError(
                f"The Ray cluster is lost ({str(error).strip().splitlines()[0]}).",
                hint="Once it runs again, the same command goes on from there.",
            ) from None
        if told.problem == "folder":
            raise OutputError(
                f"Node {told.node} of the Ray cluster does not see the sweep's folder {self.place.folder}; "
                "expected the same folder at the same path on every node.",
                hint="Choose --out, and scenes, on a file system that all nodes mount at the same place.",
                path=self.place.folder,
            )
        if told.problem is not None:
            raise ConfigError(
                f"Node {told.node} of the Ray cluster has {told.problem}; expected splatinit {__version__}, as here.",
                hint="Install the same version on every node.",
            )
        return told

    def _await(self, run: PlannedRun, told: _Told, stop: Callable[[], bool]) -> None:
        """Until what the node wrote last is seen here too."""
        folder, end = self.ledger.folder, time.monotonic() + _APPEAR
        while time.monotonic() < end and not stop():
            unseen_end = told.code == Exit.DONE and not self.ledger.finished(run)
            unseen_reason = told.code == Exit.FAILED and folder.failure(run.hash) is None
            if not (unseen_end or unseen_reason):
                return
            time.sleep(_POLL)

    def end_tasks(self) -> None:
        """Cancel all tasks, and wait for the checkpoints of their processes."""
        tasks = [*self.posing, *self.running]
        for task in tasks:
            self.ray.cancel(task)
        # Where the signal that stopped us also ended Ray, it says nothing more; processes go on to their checkpoint.
        silent = time.monotonic()
        while tasks and time.monotonic() - silent < _SILENCE:
            _, left = self.ray.wait(tasks, num_returns=len(tasks), timeout=_POLL)
            if len(left) < len(tasks) or any(self.ledger.held(run) for run, _ in self.running.values()):
                silent = time.monotonic()
            tasks = left
        for run, _ in self.running.values():
            if self.ledger.finished(run):
                self.ledger.done(run, 0.0)
        self.posing.clear()
        self.running.clear()


# --------------------------------------------------------------------------------------------------------- the cluster
@contextmanager
def _cluster(config: RayConfig) -> Iterator[Any]:
    """Ray, connected: to the cluster of the config, or of the program that calls us, which keeps it."""
    address = config.address or os.environ.get("RAY_ADDRESS") or "local"
    _prepare_environment(address)
    import ray
    import ray.exceptions

    if ray.is_initialized():
        yield ray
        return
    arguments: dict[str, Any] = {"address": address}
    if address == "local":
        # Cores are only counted: with --jobs above their number, runs get in each other's way, as they were told to.
        cores = max(whole_machine().threads, config.jobs or 1)
        arguments |= {"num_cpus": cores, "object_store_memory": _STORE, "include_dashboard": False}
    elif address != "auto":
        _require_cluster(address)
    with _signals_kept():
        try:
            ray.init(**arguments, log_to_driver=False, configure_logging=False, logging_level="ERROR")
        except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            raise _no_cluster(address, str(error).strip().splitlines()[0]) from None
    try:
        yield ray
    finally:
        with _signals_kept():
            ray.shutdown()


def _prepare_environment(address: str) -> None:
    """Variables that Ray reads when it is imported. What the user has set stays."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent to anybody
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # as future versions do; without it, they warn
    if address != "local":
        return
    # Its workers' courtesy to others is for machines that serve many; runs here are as those of the executor local.
    os.environ.setdefault("RAY_worker_niceness", "0")
    # Ray listens on all of the machine's addresses: without the token, which nobody else learns, anybody who reaches
    # one could run what he likes. Ray itself would write one into the home folder.
    if "RAY_AUTH_MODE" not in os.environ:
        os.environ["RAY_AUTH_MODE"] = "token"
        if not {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & set(os.environ):
            os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def _require_cluster(address: str) -> None:
    """Raise ConfigError where no Ray cluster is at ``address``: Ray itself would try for minutes."""
    host, colon, port = address.rpartition(":")
    if "://" in address or not colon or not host or not port.isdigit() or not 0 < int(port) < 2**16:
        raise ConfigError(
            f"--address: got '{address}'; expected HOST:PORT of a Ray cluster's head node, auto or local.",
            hint="Give the command on a node of the cluster; `ray start --head` prints the address (port 6379).",
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK).close()
    except OSError as error:
        raise _no_cluster(address, f"{error.strerror or error}") from None
    command = [sys.executable, "-m", "ray.scripts.scripts", "status", "--address", address]
    try:
        subprocess.run(command, capture_output=True, text=True, timeout=_ANSWER, check=True)
    except subprocess.TimeoutExpired:
        raise _no_cluster(address, f"what is there did not answer as Ray within {_ANSWER:.0f} s") from None
    except subprocess.CalledProcessError as error:
        lines = [line for line in (error.stderr or error.stdout).splitlines() if line.strip()]
        raise _no_cluster(address, lines[-1].strip() if lines else f"exit code {error.returncode}") from None


def _no_cluster(address: str, why: str) -> ConfigError:
    return ConfigError(
        f"--address: no Ray cluster at '{address}' that can be used ({why.rstrip('.')}).",
        hint="Start one with `ray start --head`, or leave --address out: Ray then runs on this machine alone.",
    )


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray sets a handler for SIGTERM that ends the process: who stops a sweep, and how, is said elsewhere."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
