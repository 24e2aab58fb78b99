"""What is said about the time that a network takes on a processor: before it begins, and once it can be foreseen."""

from __future__ import annotations

import time
from collections.abc import Callable

from ...matching import Matcher
from ...progress import Progress
from .plan import Plan

WORTH_SAYING = 20.0  # seconds that are still to come


class Pace:
    """Notes for the user; none for a matcher that is no network, or does not run on the processor.

    Args:
        clock: seconds.
    """

    def __init__(self, matcher: Matcher, progress: Progress, clock: Callable[[], float] = time.perf_counter) -> None:
        self._matcher, self._progress, self._clock = matcher, progress, clock
        self._warned = False

    def begin(self, plan: Plan) -> None:
        """The first reference of ``plan`` is about to be matched."""
        if not self._matcher.network_on_cpu or not plan.tasks:
            return
        if not self._warned:
            self._warned = True
            self._progress.note(
                f"The matcher '{self._matcher.name}' is a network and runs on the processor: expect it to take long. "
                "'planesweep' needs no network."
            )
        self._began = self._clock()

    def done(self, plan: Plan, references: int) -> None:
        """So many ``references`` of ``plan`` are matched. The first one foretells the others."""
        if not self._matcher.network_on_cpu or references != 1:
            return
        first, pairs = len(plan.tasks[0].neighbours), sum(len(task.neighbours) for task in plan.tasks)
        seconds = (self._clock() - self._began) / first * pairs
        if seconds * (1 - first / pairs) >= WORTH_SAYING:
            self._progress.note(
                f"'{self._matcher.name}' will match {len(plan.tasks)} references with their neighbours, {pairs} pairs: "
                f"by the first {first}, about {duration(seconds)}."
            )


def duration(seconds: float) -> str:
    """In words, with two digits at most: "40 s", "4.5 min", "12 min", "3.1 h"."""
    for unit, name in ((3600.0, "h"), (60.0, "min")):
        if seconds >= 0.95 * unit:
            count = seconds / unit
            return f"{count:.1f} {name}" if count < 9.95 else f"{count:.0f} {name}"
    return f"{seconds:.0f} s"
