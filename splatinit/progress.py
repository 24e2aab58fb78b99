"""How long steps tell what they are doing. Library code takes a ``Progress``; the command line draws it with rich."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives the course of one stage after the other."""

    def start(self, stage: str, total: int | None = None) -> None:
        """A stage begins; ``total`` units of work if known."""

    def advance(self, done: int, **fields: float | int | str) -> None:
        """``done`` units of the current stage are done *in all*; ``fields`` are shown beside the bar."""

    def finish(self, summary: str = "") -> None:
        """The current stage ended; ``summary`` says what came out of it."""

    def note(self, text: str) -> None:
        """Something the user should know (skipped frames, unregistered photos); never an error."""


class Silent:
    """The Progress that shows nothing: the default of the Python API."""

    def start(self, stage: str, total: int | None = None) -> None: ...

    def advance(self, done: int, **fields: float | int | str) -> None: ...

    def finish(self, summary: str = "") -> None: ...

    def note(self, text: str) -> None: ...
