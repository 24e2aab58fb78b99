"""Runs cases: damages a file, reads it under a limit of time and memory, and judges what came back."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from splatinit.errors import SplatinitError

from .mutate import Mutator, field_mutator, mutate, mutators_of
from .plain import Reading

TIME_LIMIT = 5.0  # s a case
MEMORY_LIMIT = 300 << 20  # bytes of address space beyond what the worker has before its first case
OUTCOMES = ("same", "error", "changed", "finding")


@dataclass(frozen=True)
class Target:
    """A reader with a small valid input.

    Attributes:
        name: in the table.
        build: writes the valid input into an empty folder.
        files: relative paths of the files that are damaged, one a case.
        read: the folder → what the reader gives, as a reading. Raises whatever the reader raises.
        expect: the folder → what the plain parser gives; raises Refuse (or anything else) for what it does not
            understand. A reader that answers differently from before must agree with it. None where there is no second
            opinion (a video has no checksums, and every decoder conceals errors its own way): then only crashes, hangs,
            memory, messages and impossible results count.
        fields: the numbers of a file at known places: (name, valid data) → (offset, layout); None for none known.
        tolerance: relative and absolute, of numbers that both sides compute.
        draw: makes a whole new input, and says what is odd about it, in place of damaging the valid one.
    """

    name: str
    build: Callable[[Path], None]
    files: tuple[str, ...]
    read: Callable[[Path], Reading]
    expect: Callable[[Path], Reading] | None
    fields: Callable[[str, bytes], list[tuple[int, str]]] | None = None
    tolerance: float = 1e-9
    draw: Callable[[random.Random], tuple[bytes, str]] | None = None


@dataclass(frozen=True)
class Case:
    """What one case did and how it ended; ``detail`` says why it is a finding."""

    outcome: str
    file: str
    damage: str
    detail: str = ""


class Hang(BaseException):
    """A case took longer than TIME_LIMIT. Not an Exception, so that no reader swallows it."""


class Stage:
    """The folder that a target's cases are read from: one file is damaged, read, and made whole again."""

    def __init__(self, target: Target, folder: Path) -> None:
        self.target, self.folder = target, folder
        target.build(folder)
        self.whole = {name: (folder / name).read_bytes() for name in target.files}
        self.before = target.read(folder)
        expected = self.before if target.expect is None else target.expect(folder)
        difference = first_difference(self.before, expected, target.tolerance)
        if difference:
            raise AssertionError(f"{target.name}: reader and plain parser disagree on the valid input: {difference}")
        self.mutators: dict[str, tuple[Mutator, ...]] = {}
        for name, data in self.whole.items():
            mutators = mutators_of(name, data)
            if target.fields is not None and (fields := target.fields(name, data)):
                mutators += (field_mutator(fields),) * (len(mutators) // 2)
            self.mutators[name] = mutators

    def case(self, seed: int, index: int) -> Case:
        """The case of this seed and number: always the same."""
        rng = random.Random(f"{seed}/{self.target.name}/{index}")
        name = rng.choice(self.target.files)
        draw = self.target.draw
        data, damage = mutate(self.whole[name], rng, self.mutators[name]) if draw is None else draw(rng)
        return self.judge(name, data, damage)

    def judge(self, name: str, data: bytes, damage: str = "") -> Case:
        """Read the input with one file replaced, and judge the answer."""
        path = self.folder / name
        path.write_bytes(data)
        try:
            try:
                # As in the tests, and for users: what is wrong is an error, or nothing.
                with time_limit(TIME_LIMIT), warnings.catch_warnings():
                    warnings.simplefilter("error")
                    # Pillow's remarks on odd tags; its warning of large images stays an error.
                    warnings.filterwarnings("ignore", category=UserWarning, module="PIL")
                    after = self.target.read(self.folder)
            except SplatinitError as error:
                problem = bad_message(error)
                return Case("finding" if problem else "error", name, damage, problem or str(error))
            except Hang:
                return Case("finding", name, damage, f"hang: more than {TIME_LIMIT:g} s")
            except Exception:
                return Case("finding", name, damage, "crash: " + traceback.format_exc(limit=-4))
            problem = broken_invariant(after)
            if problem:
                return Case("finding", name, damage, f"impossible result: {problem}")
            difference = first_difference(self.before, after, 0.0)
            if difference is None:
                return Case("same", name, damage)
            if self.target.expect is None:
                return Case("changed", name, damage)
            try:
                with np.errstate(all="ignore"), warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    expected = self.target.expect(self.folder)
            except Exception as refusal:
                why = f"{type(refusal).__name__}: {refusal}"
                return Case(
                    "finding", name, damage, f"read with another result ({difference}) what is not valid ({why})"
                )
            wrong = first_difference(expected, after, self.target.tolerance)
            if wrong:
                return Case("finding", name, damage, f"read wrongly: {wrong}")
            return Case("changed", name, damage)
        finally:
            path.write_bytes(self.whole[name])


# ------------------------------------------------------------------------------------------------------------ judging
def first_difference(a: Any, b: Any, tolerance: float) -> str | None:
    """Where two readings differ, or None."""
    with np.errstate(all="ignore"):
        return _difference(a, b, tolerance)


def _difference(a: Any, b: Any, tolerance: float) -> str | None:
    if isinstance(a, dict) and isinstance(b, dict):
        for key in {**a, **b}:
            if key not in a or key not in b:
                return f"'{key}' is only on one side"
            inner = _difference(a[key], b[key], tolerance)
            if inner:
                return f"{key}: {inner}"
        return None
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        if a.shape != b.shape:
            return f"{list(a.shape)} and {list(b.shape)}"
        if a.dtype.kind in "fc" or b.dtype.kind in "fc":
            scale = max(float(np.abs(a).max(initial=0.0)), float(np.abs(b).max(initial=0.0)), 1e-300)
            # Relative to the array's largest number: a sum of products loses that much in its small ones.
            near = np.abs(a / scale - b / scale) <= tolerance
            close = bool((near | (a == b) | (np.isnan(a) & np.isnan(b))).all())
        else:
            close = np.array_equal(a, b)
        return None if close else f"{_short(a)} and {_short(b)}"
    if isinstance(a, float) and isinstance(b, float):
        return None if a == b or abs(a - b) <= tolerance * max(abs(a), abs(b)) else f"{a!r} and {b!r}"
    return None if type(a) is type(b) and a == b else f"{_short(a)} and {_short(b)}"


def _short(value: Any) -> str:
    return repr(value).replace("\n", " ")[:160]


def broken_invariant(reading: Reading) -> str | None:
    """What no result may be, whatever the file: numbers that are not finite, names that lead elsewhere."""
    for key, value in reading.items():
        if isinstance(value, np.ndarray) and value.dtype.kind == "f" and not np.isfinite(value).all():
            return f"{key} is not finite"
    for name in reading.get("names", ()):
        parts = name.split("/")
        if name.startswith("/") or any(part in ("", ".", "..") for part in parts) or "\\" in name or "\0" in name:
            return f"the name {name!r}"
        file = reading.get(f"{name}: file", "")
        if file.startswith(("/", "..")):
            return f"the file {file!r} of {name!r}"
        if min(reading[f"{name}: size"]) < 1:
            return f"size {reading[f'{name}: size']} of {name!r}"
    return None


def bad_message(error: SplatinitError) -> str | None:
    """An error that says too little, or says it in a way that a terminal would obey."""
    text = str(error)
    if len(text) > 4000:
        return f"an error message of {len(text)} characters: {text[:200]!r}"
    odd = [
        c
        for c in text
        if (ord(c) < 32 and c != "\n") or ord(c) == 127 or c in "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
    ]
    return f"an error message with control characters: {text[:300]!r}" if odd else None


# ------------------------------------------------------------------------------------------------------------- limits
@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise Hang in Python code that runs longer. (C code is ended by the parent process.)"""

    def ring(*_: Any) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def limit_memory(extra: int) -> None:
    """Let this process take no more than ``extra`` bytes of address space beyond what it has."""
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (now + extra, resource.getrlimit(resource.RLIMIT_AS)[1]))


def scratch() -> tempfile.TemporaryDirectory:
    """A folder in memory where the system has one: cases write one small file each."""
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    return tempfile.TemporaryDirectory(prefix="splatinit-fuzz-", dir=place)


# ------------------------------------------------------------------------------------------------------------ workers
def worker_main(target: Target, seed: int, first: int, last: int, folder: Path) -> None:
    """What a worker process runs, under the limit of memory: the cases [first, last), in a folder of its parent's.

    One line a case, so that the parent knows where it stood when it died.
    """
    import faulthandler

    faulthandler.enable()
    # The readers must not write to the pipe that the cases are reported on.
    pipe = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def report(index: int, case: Case) -> None:
        row: dict[str, Any] = {"index": index, "outcome": case.outcome}
        if case.outcome == "finding":
            row |= {"file": case.file, "damage": case.damage[:2000], "detail": case.detail[:4000]}
        pipe.write(json.dumps(row) + "\n")

    stage = Stage(target, folder / "scene")
    limit_memory(MEMORY_LIMIT)
    for index in range(first, last):
        report(index, stage.case(seed, index))


@dataclass
class Tally:
    """How a target's cases ended."""

    target: str
    counts: Counter[str]
    findings: list[dict[str, Any]]
    seconds: float = 0.0


def run_target(name: str, seed: int, cases: int, first: int = 0) -> Tally:
    """All cases of one target in worker processes; one that dies or stands still is itself a finding."""
    tally, began = Tally(name, Counter(), []), time.perf_counter()
    index, last = first, first + cases
    while index < last:
        # The folder is the parent's, because a worker that dies cannot remove it.
        with scratch() as folder, tempfile.TemporaryFile() as said:
            command = [sys.executable, "-m", __package__, "--worker", name, str(seed), str(index), str(last), folder]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True)
            reached = index
            watchdog = _Watchdog(process, 60.0)  # the start imports torch
            for line in process.stdout:
                watchdog.feed(2 * TIME_LIMIT + 5.0)
                row = json.loads(line)
                reached = row["index"] + 1
                tally.counts[row["outcome"]] += 1
                if row["outcome"] == "finding":
                    tally.findings.append(row)
            process.wait()
            watchdog.stop()
            if process.returncode != 0:
                said.seek(0)
                tail = said.read().decode("utf-8", "replace")[-1500:]
                if reached == index and not reached < last:
                    raise RuntimeError(f"The worker of {name} does not start:\n{tail}")
                why = "hang in native code" if watchdog.rang else f"process died with {process.returncode}"
                tally.counts["finding"] += 1
                tally.findings.append(
                    {"index": reached, "outcome": "finding", "file": "?", "damage": "?", "detail": f"{why}: {tail}"}
                )
                if len(tally.findings) > 50:
                    break
                reached += 1
            index = reached
    tally.seconds = time.perf_counter() - began
    return tally


class _Watchdog:
    """Ends a process that says nothing for too long."""

    def __init__(self, process: subprocess.Popen, seconds: float) -> None:
        import threading

        self.process, self.rang, self._stop = process, False, threading.Event()
        self._until = time.monotonic() + seconds
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def feed(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.5):
            if time.monotonic() > self._until:
                self.rang = True
                self.process.kill()
                return


def table(tallies: Sequence[Tally]) -> str:
    """target × cases × outcomes, as text."""
    width = max(len(tally.target) for tally in tallies)
    lines = [f"{'target':<{width}} {'cases':>7} {'same':>7} {'error':>7} {'changed':>8} {'findings':>9} {'seconds':>8}"]
    for tally in tallies:
        counts = [tally.counts[outcome] for outcome in OUTCOMES]
        lines.append(
            f"{tally.target:<{width}} {sum(counts):>7} {counts[0]:>7} {counts[1]:>7} {counts[2]:>8} {counts[3]:>9} "
            f"{tally.seconds:>8.1f}"
        )
    return "\n".join(lines)


def reset(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
