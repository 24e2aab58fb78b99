"""How long a training is: so many updates, or as many as its time allows."""

from __future__ import annotations

# What share of the updates and what share of the time are over may differ by so much.
_SLACK = 0.01


class Course:
    """What share of a training is over, which its schedules go by.

    With a time, the number of updates in all is found again and again from those that were done in the time that has
    passed, so that a schedule that asks for a fraction of the updates gets that fraction of the time, within 1 %.

    Attributes:
        steps: updates in all, as far as is known.
    """

    def __init__(self, steps: int, seconds: float | None = None, *, done: int = 0, passed: float = 0.0) -> None:
        """``steps`` is a first guess where ``seconds`` are given; ``done`` updates have taken ``passed`` seconds."""
        self.steps = steps
        self._seconds = seconds
        self._before = self._share = 0.0
        if seconds is not None and done:
            self.steps = self._plan(done, passed)
            self._before = self._share

    def over(self, done: int, passed: float) -> bool:
        """Whether ``done`` updates and ``passed`` seconds end it; the first update is always made."""
        if self._seconds is None:
            return done >= self.steps
        return done > 0 and passed >= self._seconds

    def advance(self, done: int, passed: float) -> bool:
        """``done`` updates are over after ``passed`` seconds. Returns whether ``steps`` changed."""
        if self._seconds is None:
            return False
        self._before = self._share
        steps = self._plan(done, passed)
        if self._share < 1 and abs(done / self.steps - self._share) <= _SLACK:
            return False
        changed, self.steps = self.steps != steps, steps
        return changed

    def reached(self, fraction: float, done: int) -> bool:
        """Whether the update that brought the count to ``done`` is the one after which ``fraction`` of it is over."""
        if self._seconds is None:
            return done == max(1, round(fraction * self.steps))
        return self._before < fraction <= self._share

    def _plan(self, done: int, passed: float) -> int:
        """The number of updates, if they go on as until now."""
        self._share = min(1.0, passed / self._seconds) if self._seconds > 0 else 1.0
        return done if self._share >= 1 else max(done + 1, round(done / self._share))
