"""Processes of :mod:`splatinit.sweep.worker`: how one is started, and how one ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from .. import environment, memory
from .shares import Shares

_LAST_LINES = 5  # of a log, told where a process ended without a word


def start_worker(
    job: str,
    log: Path,
    shares: Shares,
    *,
    here: Path | None = None,
    modules: Sequence[str] | None = None,
    settings: Mapping[str, str] = {},
) -> subprocess.Popen:
    """A process that does the run of this :func:`splatinit.sweep.worker.job_line`; it prints into ``log``.

    Closing its standard input asks it to stop.

    Args:
        here: its current folder; None: this process's.
        modules: where it looks for modules; None: where this process does.
        settings: variables of its environment, over those of this process.
    """
    variables = os.environ | settings
    variables |= dict.fromkeys((environment.THREADS_VARIABLE, "OMP_NUM_THREADS"), str(shares.threads))
    # Only modules that this process finds too: not others of the current folder, nor fewer.
    modules = sys.path if modules is None else modules
    variables |= {"PYTHONPATH": os.pathsep.join(filter(None, modules)), "PYTHONSAFEPATH": "1"}
    if shares.jobs > 1 and shares.bytes is not None:
        variables[memory.VARIABLE] = str(max(1, shares.bytes // 2**20))
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", f"{__package__}.worker"],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            env=variables,
            cwd=here,
            start_new_session=True,  # Ctrl-C is for the driver, which tells them
        )
    with suppress(BrokenPipeError):  # it is dead already, and will be heard of
        process.stdin.write(job.encode())
        process.stdin.flush()
    return process


def wait_for(process: subprocess.Popen, stop: Callable[[], bool]) -> None:
    """Until the process has ended, or ``stop`` is true and it has ended of that."""
    try:
        while process.poll() is None and not stop():
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=0.1)
    finally:
        process.stdin.close()
        process.wait()


def how_it_ended(code: int, log: Path) -> str:
    """In words, how a process with this exit code ended that could not say it itself, and its last lines."""
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        how = f"Its process was ended by {name}"
        if -code == signal.SIGKILL:
            how += " (by somebody, or by the kernel because memory ran out)"
    else:
        how = f"Its process ended with exit code {code}"
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
    return "\n".join([f"{how}.", *lines[-_LAST_LINES:]])
