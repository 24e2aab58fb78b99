"""Where the seconds of a loop go, so that the parts add up to the whole."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Profile:
    """``seconds`` of a loop of ``steps`` rounds, by stage; they add up to its wall-clock time."""

    steps: int
    seconds: Mapping[str, float]


class Stopwatch:
    """Sums of laps. Every moment between the making and the last lap belongs to exactly one name.

    Args:
        wait: called before the clock is read, to wait for a device that works behind the host: without it, its seconds
            count where the host next waits for it.
    """

    def __init__(self, wait: Callable[[], None] = lambda: None) -> None:
        self.seconds: dict[str, float] = {}
        self._wait = wait
        self._last = time.perf_counter()

    def lap(self, name: str, parts: Mapping[str, float] | None = None) -> None:
        """Ends a lap. ``parts`` are the seconds that are known of stages inside it; ``name`` gets the rest."""
        self._wait()
        now = time.perf_counter()
        rest = now - self._last
        self._last = now
        for part, seconds in (parts or {}).items():
            self.seconds[part] = self.seconds.get(part, 0.0) + seconds
            rest -= seconds
        self.seconds[name] = self.seconds.get(name, 0.0) + rest
