"""What the terminal shows while the line runs, and what a signal does to it."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.text import Text

from ..errors import printable

# Where nobody watches (a log file, CI), one line of a long stage is enough every so many seconds.
QUIET_SECONDS = 20.0
SAVING = ("train", "sweep")  # stages that write checkpoints when they are asked to stop
PIPE_WIDTH = 120  # columns of tables that do not go to a terminal


def make_console(*, stderr: bool = False) -> Console:
    """A console that does not squeeze tables into 80 columns when its output is a file or a pipe."""
    console = SafeConsole(stderr=stderr, highlight=False, emoji=False)
    if console.is_terminal:
        return console
    return SafeConsole(stderr=stderr, highlight=False, emoji=False, width=PIPE_WIDTH)


class SafeConsole(Console):
    """A console whose texts cannot steer the terminal: names of files and of photos come from other people.

    ``rich.markup.escape`` keeps names from being markup; here control characters in whatever text is printed, plainly,
    in a table or in a bar, are shown as escapes.
    """

    def render_str(self, text: str, **how: Any) -> Text:
        return super().render_str(printable(text, keep="\n\t"), **how)


class ConsoleProgress:
    """The Progress of the command line: a live bar on a terminal, plain lines elsewhere.

    Stages may follow each other without ``finish``; the last one wins. Use it as a context manager, so that the
    terminal is as it was after an error.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.stage: str | None = None
        self._total: int | None = None
        self._began = self._told = time.perf_counter()
        self._bars: Bars | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> ConsoleProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.restore()
        self.stage = None

    def restore(self) -> None:
        """Have the terminal as it was before the current stage."""
        self._close_bar()

    def start(self, stage: str, total: int | None = None) -> None:
        self._close_bar()
        self.stage, self._total = stage, total
        self._began = self._told = time.perf_counter()
        if not self.console.is_terminal:
            return
        self._bars = Bars(
            SpinnerColumn(),
            TextColumn("[bold]{task.description:<6}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[count]}"),
            TimeElapsedColumn(),
            TextColumn("[dim]{task.fields[info]}"),
            console=self.console,
            transient=True,
        )
        self._task = self._bars.add_task(escape(stage), total=total, count="", info="")
        self._bars.start()

    def advance(self, done: int, **fields: float | int | str) -> None:
        count = f"{done}/{self._total}" if self._total else str(done)
        info = "  ".join(f"{name} {value}" for name, value in fields.items())
        if self._bars is not None:
            self._bars.update(self._task, completed=done, count=count, info=escape(printable(info)))
        elif not self.console.is_terminal and time.perf_counter() - self._told > QUIET_SECONDS:
            self._told = time.perf_counter()
            self.console.print(f"  {self.stage} {count}  {info}", markup=False)

    def finish(self, summary: str = "") -> None:
        seconds = time.perf_counter() - self._began
        stage = self.stage or ""
        self._close_bar()
        self.stage = None
        line = f"[green]✓[/] [bold]{escape(stage):<6}[/] {escape(printable(summary))} [dim]{seconds:.1f} s[/]"
        self.console.print(line, soft_wrap=True)

    def note(self, text: str) -> None:
        self.console.print(f"  [yellow]note[/] {escape(printable(text))}", soft_wrap=True)

    def _close_bar(self) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None


class Stopped(KeyboardInterrupt):
    """SIGINT or SIGTERM came where nothing has to be saved first: what was finished is on disk."""

    def __init__(self, signum: int, stage: str | None = None, *, resumes: bool = True) -> None:
        """resumes: the command goes on where it was stopped, when it is given again."""
        super().__init__(signal.Signals(signum).name)
        self.signum, self.stage, self.resumes = signum, stage, resumes

    def told(self) -> str:
        """What the user should know."""
        where = f" during '{self.stage}'" if self.stage else ""
        if not self.resumes:
            return f"Stopped by {self}{where}. No half file is left; the same command starts again."
        return f"Stopped by {self}{where}. Every finished step is kept; the same command goes on from there."


class Interrupts:
    """Turns SIGINT and SIGTERM into a checkpoint during training and into :class:`Stopped` elsewhere.

    Called, it says whether the training should stop. A second signal stops at once, without a checkpoint.

    Python runs signal handlers only between its own instructions, and some steps of COLMAP and of large networks take
    minutes within one. So a thread of its own watches, and ends the process where a signal was not obeyed in GRACE
    seconds, or a second one came: that is safe at any moment, because whatever lies under its final name is complete.
    """

    GRACE = 2.0

    def __init__(self, progress: ConsoleProgress, *, resumes: bool = True) -> None:
        self.signum: int | None = None
        self._resumes = resumes
        self.raised: Stopped | None = None
        self._progress = progress
        self._before: dict[int, Any] = {}
        self._reader, self._writer = socket.socketpair()

    def _stopped(self, signum: int) -> Stopped:
        return Stopped(signum, self._progress.stage, resumes=self._resumes)

    def __enter__(self) -> Interrupts:
        # The kernel's side of a signal writes its number here, whatever the interpreter is busy with.
        self._writer.setblocking(False)
        self._wakeup = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._watcher = threading.Thread(target=self._watch, name="splatinit-signals", daemon=True)
        self._watcher.start()
        for signum in (signal.SIGINT, signal.SIGTERM):
            self._before[signum] = signal.signal(signum, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
        signal.set_wakeup_fd(self._wakeup)
        self._writer.close()
        self._watcher.join()
        self._reader.close()

    def __call__(self) -> bool:
        return self.signum is not None

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self._progress.stage not in SAVING or self.signum is not None:
            self.raised = self._stopped(signum)
            raise self.raised
        self.signum = signum
        self._progress.note(f"{signal.Signals(signum).name}: writing a checkpoint, then stopping (again: at once)")

    def _watch(self) -> None:
        first = self._next()
        if first is None:
            return
        self._reader.settimeout(self.GRACE)
        try:
            second = self._next()
        except TimeoutError:
            second = first
            if self._progress.stage in SAVING:
                # A checkpoint of a large model on a slow disk may take longer, and the user can always insist.
                self._reader.settimeout(None)
                second = self._next()
        if second is not None:
            self._end(second)

    def _next(self) -> int | None:
        """The next SIGINT or SIGTERM; None when the watch is over."""
        while received := self._reader.recv(1):
            if received[0] in (signal.SIGINT, signal.SIGTERM):
                return received[0]
        return None

    def _end(self, signum: int) -> None:
        def tell() -> None:
            self._progress.restore()
            self._progress.console.print(self._stopped(signum).told(), markup=False, soft_wrap=True)

        # In a thread, because a terminal that takes no more text must not hold the end up.
        last_words = threading.Thread(target=tell, daemon=True)
        last_words.start()
        last_words.join(0.5)
        os._exit(128 + signum)


def watched(work: Callable[[ConsoleProgress, Interrupts], Any], *, resumes: bool = True) -> tuple[Any, int | None]:
    """Run ``work(progress, stop)``, signals caught: its result, and the signal that stopped it."""
    with ConsoleProgress(make_console(stderr=True)) as progress, Interrupts(progress, resumes=resumes) as stop:
        try:
            result = work(progress, stop)
        except Exception as error:
            if stop.raised is None:
                raise
            raise stop.raised from error  # some library made an error of its own of it
    return result, stop.signum
