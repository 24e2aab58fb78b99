"""How a machine is shared out among the runs of a sweep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .. import environment, memory
from ..config import RunConfig
from ..errors import ConfigError

# Bytes of a process that trains, beyond what its training counts: Python, torch, the libraries.
_PROCESS = 450 * 2**20
# Gaussians that a run is expected to end with where no setting bounds them.
_TYPICAL = 300_000


@dataclass(frozen=True)
class Shares:
    """So many runs at a time, with so many threads and bytes of memory each; None where no limit is known."""

    jobs: int
    threads: int
    bytes: int | None


def whole_machine() -> Shares:
    """One run alone."""
    return Shares(1, _all_threads(), None)


def share_out(runs: Sequence[RunConfig], jobs: int | None = None) -> Shares:
    """How many of ``runs`` are to be done at a time here; ``jobs`` where the user says it.

    As many as there are threads to use (cores, or SPLATINIT_THREADS), one thread each, unless memory has room for
    fewer: reading, starting, scoring and Python itself use one thread whatever there are, so that two runs of one
    thread are done sooner than one after the other with two. Results depend on neither, but where a time is all that
    training has (``train.seconds``): such runs have the machine for themselves, unless ``jobs`` says otherwise.

    Raises ConfigError for ``jobs`` below 1.
    """
    if jobs is not None and jobs < 1:
        raise ConfigError(f"--jobs is {jobs}; expected at least 1.")
    cores = _all_threads()
    free = memory.available()
    most = max((expected_bytes(config) for config in runs), default=0)
    fitting = cores if free is None or most == 0 else int((free - memory.RESERVE) // most)
    timed = any(config.train.seconds is not None for config in runs)
    count = jobs or (1 if timed else max(1, min(cores, fitting, len(runs))))
    return Shares(count, max(1, cores // count), None if free is None else free // count)


def expected_bytes(config: RunConfig) -> int:
    """About what a run will take. Photos are not looked at: the size that is asked for bounds theirs."""
    side = config.data.max_size or 1600
    bound = getattr(config.densify.settings, "max_count", None)
    count = max(getattr(config.init.settings, "count", None) or 0, min(bound or _TYPICAL, _TYPICAL))
    photos = int(config.train.image_cache_mb) * 2**20
    training = memory.TrainingMemory(config.seeding.sh_degree, side, side * 3 // 4, photos)
    return _PROCESS + training.bytes(count)


def _all_threads() -> int:
    return environment.wanted_threads() or environment.cores()
