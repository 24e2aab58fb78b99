"""What every initializer does, and the meter that measures what it cost."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Protocol

from ..progress import Progress
from ..types import Initialization, Scene


class Initializer(Protocol):
    """Scene → Initialization. Built with its config; the same scene, config and seed give the same points."""

    def initialize(
        self, scene: Scene, *, seed: int, progress: Progress, work_dir: Path | None = None
    ) -> Initialization:
        """The start for ``scene``. ``seed`` ≥ 0 feeds a generator of its own; no global generator is touched.

        ``work_dir``: folder where what takes long may be kept while it is made, so that the same call goes on after it
        was interrupted. Whoever gives it removes it afterwards.
        """
        ...


class CostMeter:
    """Seconds per stage and the peak memory of the process while the ``with`` block runs.

    The memory is sampled every 20 ms from a thread: resetting the kernel's own high-water mark would disturb other
    parts of the process that read it. Where /proc is absent, the process's peak so far stands in.
    """

    _PERIOD = 0.02  # seconds

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.peak_memory_mb = 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="splatinit-memory", daemon=True)

    def __enter__(self) -> CostMeter:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()
        self.peak_memory_mb = max(self.peak_memory_mb, _memory_mb())

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Adds the time of the block to the seconds of stage ``name``."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def _watch(self) -> None:
        while True:
            self.peak_memory_mb = max(self.peak_memory_mb, _memory_mb())
            if self._done.wait(self._PERIOD):
                return


def _memory_mb() -> float:
    """Resident memory of this process in MB (10⁶ bytes); its peak so far where the present value cannot be had."""
    import resource

    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6
    return pages * resource.getpagesize() / 1e6
