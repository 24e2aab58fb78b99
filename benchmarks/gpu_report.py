"""What benchmarks/gpu.py found: printed as it comes, and written to JSON and Markdown after every part.

A run that is ended early leaves what it had.
"""

from __future__ import annotations

import json
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table


class Budget:
    """Seconds that the whole run may take."""

    def __init__(self, seconds: float) -> None:
        self._until = time.perf_counter() + seconds
        self.seconds = seconds

    @property
    def left(self) -> float:
        return self._until - time.perf_counter()


@dataclass
class Sheet:
    """A table: the first ``texts`` columns are left-aligned text, the others numbers."""

    title: str
    columns: tuple[str, ...]
    texts: int = 1
    caption: str = ""
    rows: list[tuple[str, ...]] = field(default_factory=list)

    def rich(self) -> Table:
        table = Table(title=self.title, caption=self.caption or None)
        for k, column in enumerate(self.columns):
            table.add_column(column, justify="left" if k < self.texts else "right")
        for row in self.rows:
            table.add_row(*map(escape, row))
        return table

    def markdown(self) -> str:
        rule = ["---" if k < self.texts else "---:" for k in range(len(self.columns))]
        lines = ["| " + " | ".join(cells) + " |" for cells in (self.columns, rule, *self.rows)]
        return "\n".join([f"## {self.title}", "", *lines, *(["", self.caption] if self.caption else []), ""])


class Report:
    """Lines, tables and numbers of a run."""

    def __init__(self, console: Console, path: Path | None) -> None:
        """``path``: where the files go, without suffix; None: nowhere."""
        self.record: dict[str, Any] = {"lines": [], "errors": []}
        self._console, self._path = console, path
        self._sheets: list[Sheet] = []

    def say(self, text: str) -> None:
        self.record["lines"].append(text)
        self._console.print(escape(text), highlight=False)

    def failed(self, what: str, error: Exception) -> None:
        """Say what went wrong, and go on."""
        name = type(error).__name__
        kind = "out of memory" if "OutOfMemory" in name else name
        text = " ".join(str(error).split())
        self.say(f"{what}: {kind}: {text[:400]}")
        trace = "".join(traceback.format_exception(error))
        self.record["errors"].append({"what": what, "error": name, "text": text, "traceback": trace})

    def show(self, sheet: Sheet) -> None:
        self._sheets.append(sheet)
        self._console.print(sheet.rich())
        self.save()

    def save(self) -> None:
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.with_suffix(".json").write_text(json.dumps(self.record, indent=2) + "\n")
        lines = "".join(f"- {line}\n" for line in self.record["lines"])
        tables = "\n".join(sheet.markdown() for sheet in self._sheets)
        self._path.with_suffix(".md").write_text(f"# The CUDA engine beside gsplat\n\n{lines}\n{tables}")
