"""What the commands ``sweep`` and ``results`` show: the plan, what became of it, and its table in four forms."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..errors import ConfigError
from ..registry import nearest
from .tables import number

if TYPE_CHECKING:
    from ..sweep import SweepFolder, SweepPlan
    from ..sweep.estimate import Estimate
    from ..sweep.ledger import Outcome

Rows = Sequence[Mapping[str, Any]]
# Heading and digits (None: text) of the columns that a person reads; --csv has them all.
COLUMNS: dict[str, tuple[str, int | None]] = {
    "scene": ("scene", None),
    "label": ("variant", None),
    "seed": ("seed", 0),
    "psnr": ("PSNR", 2),
    "ssim": ("SSIM", 4),
    "lpips_alex": ("LPIPS", 4),
    "points": ("points", 0),
    "gaussians": ("Gaussians", 0),
    "seconds_init": ("init s", 1),
    "seconds_train": ("train s", 1),
    "peak_memory_mb": ("MB", 0),
    "status": ("status", None),
}


def show_plan(console: Console, plan: SweepPlan, estimate: Estimate, executor: str = "local") -> None:
    """The runs in numbers, and how long what is left of them will take."""
    table = Table(title=f"Sweep {escape(plan.name)}", title_justify="left", title_style="bold", header_style="dim")
    table.add_column("scene", style="cyan")
    table.add_column("variants")
    table.add_column("seeds")
    table.add_column("runs", justify="right")
    for scene in dict.fromkeys(run.scene for run in plan.runs):
        runs = [run for run in plan.runs if run.scene == scene]
        labels, seeds = (dict.fromkeys(values) for values in ([r.label for r in runs], [str(r.seed) for r in runs]))
        table.add_row(escape(scene), escape(", ".join(labels)), ", ".join(seeds), str(len(runs)))
    console.print(table)
    shares = estimate.shares
    left = f"{len(plan.runs)} runs" if estimate.runs == len(plan.runs) else f"{estimate.runs} of {len(plan.runs)} runs"
    time = "" if estimate.seconds is None else f", about {duration(estimate.seconds)}"
    how = f"{shares.jobs} at a time, threads each: {shares.threads}"
    if executor != "local":  # which are estimated one at a time
        time, how = time and f"{time} one after the other", f"as many at a time as {executor} finds room for"
    console.print(f"{left} to do{time} ({escape(estimate.basis)}); {how}.", soft_wrap=True)


def duration(seconds: float) -> str:
    """As a person says it: 45 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def show_outcome(console: Console, plan: SweepPlan, outcome: Outcome, folder: SweepFolder) -> None:
    """How many runs ended how, and why those failed that did."""
    names = {run.hash: run.name for run in plan.runs}
    for note in outcome.notes:
        console.print(f"[yellow]note[/] {escape(note)}", soft_wrap=True)
    for run, reason in outcome.failed.items():
        console.print(f"[red]failed[/] {escape(names[run])} ({run})", soft_wrap=True)
        for line in reason.splitlines():
            console.print(f"       {escape(line)}", soft_wrap=True)
    reused = f" ({outcome.reused} of them before)" if outcome.reused else ""
    left = len(plan.runs) - len(outcome.done) - len(outcome.failed)
    open_ones = f", {left} not yet" if left else ""
    console.print(
        f"{len(outcome.done)} of {len(plan.runs)} runs done{reused}, {len(outcome.failed)} failed{open_ones}; "
        f"{duration(outcome.seconds)}."
    )
    if outcome.failed:
        console.print("--retry-failed tries the failed ones again.")
    console.print(f"  {'tables':<8} {escape(str(folder.results))}", soft_wrap=True)


# ---------------------------------------------------------------------------------------------------------- comparison
# Heading, digits, and which is best (None: neither) of the columns of a comparison.
COMPARED: dict[str, tuple[str, int, Callable | None]] = {
    "psnr": ("PSNR", 2, max),
    "ssim": ("SSIM", 4, max),
    "lpips_vgg": ("LPIPS", 4, min),
    "lpips_alex": ("LPIPS (alex)", 4, min),
    "points": ("points", 0, None),
    "gaussians": ("Gaussians", 0, None),
    "steps": ("steps", 0, None),
    "seconds_init": ("start s", 1, None),
    "seconds_train": ("train s", 1, None),
}


def show_comparison(console: Console, plan: SweepPlan, folder: SweepFolder) -> None:
    """One line for each start, the mean over its seeds, and how sure it is that the best one is the best."""
    from ..report.statistics import Scores, compare, ratio, sentence, summarize
    from ..sweep.store import read_table

    rows = [row for row in read_table(folder, "runs").to_pylist() if row["status"] == "done"]
    labels = list(dict.fromkeys(run.label for run in plan.runs))
    planned = frozenset((run.scene, run.label, run.seed) for run in plan.runs)
    scores = {
        column: Scores({(row["scene"], row["label"], row["seed"]): row[column] for row in rows}, planned)
        for column in COMPARED
    }
    means = {c: {label: summarize(scores[c], label) for label in labels} for c in COMPARED}
    shown = [c for c in COMPARED if any(math.isfinite(each.mean) for each in means[c].values())]
    train = plan.runs[0].config.train
    budget = f"{train.steps} steps" if train.seconds is None else f"{duration(train.seconds)} for start and training"
    table = Table(title=f"{escape(plan.name)}: {budget}", title_justify="left", title_style="bold", header_style="dim")
    table.add_column("start", style="cyan")
    for column in shown:
        table.add_column(COMPARED[column][0], justify="right")
    for label in sorted(labels, key=lambda label: -_or(means["psnr"][label].mean, -math.inf)):
        table.add_row(escape(label), *(_mean(means[column], label, *COMPARED[column][1:]) for column in shown))
    console.print(table)
    known = [label for label in labels if math.isfinite(means["psnr"][label].mean)]
    best = max(known, key=lambda label: means["psnr"][label].mean, default=None)
    for other in (label for label in known if label != best):
        share = ratio(scores["gaussians"], best, other)
        console.print(escape(sentence(compare(scores["psnr"], best, other), gaussians=share)), soft_wrap=True)


def _mean(column: Mapping[str, Any], label: str, digits: int, best: Callable | None) -> str:
    found = column[label]
    if not math.isfinite(found.mean):
        return "–"
    text = number(found.mean, digits)
    if math.isfinite(found.spread) and digits == 2:
        text += f" ± {found.spread:.{digits}f}"
    values = [each.mean for each in column.values() if math.isfinite(each.mean)]
    return f"[bold green]{text}[/]" if best is not None and found.mean == best(values) else text


def _or(value: float, other: float) -> float:
    return value if math.isfinite(value) else other


# ------------------------------------------------------------------------------------------------------------- results
def filtered(rows: Rows, conditions: Sequence[str]) -> list[Mapping[str, Any]]:
    """The rows for which every ``key=value`` holds; a key is a column of the table, or a setting (``init.count``).

    Raises ConfigError for what is not key=value, and for a key that no row has, with the nearest match.
    """
    wanted = []
    for condition in conditions:
        key, equals, value = condition.partition("=")
        if not equals or not key:
            raise ConfigError(f"--where '{condition}' is not a condition; expected key=value, such as scene=fox.")
        wanted.append((key, value))
    known: dict[str, None] = {}
    found = []
    for row in rows:
        values = {**_dotted(json.loads(row["settings"])), **row}
        known |= dict.fromkeys(values)
        if all(key in values and _equal(values[key], value) for key, value in wanted):
            found.append(row)
    for key, _ in wanted:
        if rows and key not in known:
            raise ConfigError(f"--where {key}: no run has such a column or setting.", hint=nearest(key, list(known)))
    return found


def _dotted(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= _dotted(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def _equal(value: Any, text: str) -> bool:
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return value == float(text)
        except ValueError:
            return False
    if value is None or isinstance(value, bool):
        return str(value).lower() == text.lower()
    return str(value) == text


def show_results(console: Console, rows: Rows, notes: Sequence[str]) -> None:
    """The runs as a table; errors of failed ones below it."""
    table = Table(header_style="dim")
    for heading, digits in COLUMNS.values():
        table.add_column(heading, justify="left" if digits is None else "right")
    for row in rows:
        table.add_row(*(escape(cell) for cell in _cells(row)))
    console.print(table)
    for row in rows:
        if row["error"]:
            text = f"{row['scene']} {row['label']} seed {row['seed']}: {row['error'].splitlines()[0]}"
            console.print(f"[red]failed[/] {escape(text)}", soft_wrap=True)
    for note in notes:
        console.print(f"[yellow]note[/] {escape(note)}", soft_wrap=True)


def _cells(row: Mapping[str, Any]) -> list[str]:
    return [
        ("–" if row[key] is None else str(row[key])) if digits is None else number(row[key], digits)
        for key, (_, digits) in COLUMNS.items()
    ]


def as_csv(rows: Rows, columns: Sequence[str]) -> str:
    """Every column, a heading first."""
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def as_markdown(rows: Rows) -> str:
    """A table as GitHub shows it."""
    rules = ["---" if digits is None else "---:" for _, digits in COLUMNS.values()]
    lines = [[heading for heading, _ in COLUMNS.values()], rules]
    lines += [[cell.replace("|", "\\|") for cell in _cells(row)] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def as_latex(rows: Rows) -> str:
    """A ``tabular`` with the rules of the package booktabs."""
    aligned = "".join("l" if digits is None else "r" for _, digits in COLUMNS.values())
    head = [heading for heading, _ in COLUMNS.values()]
    lines = [f"\\begin{{tabular}}{{{aligned}}}", "\\toprule", _latex_row(head), "\\midrule"]
    return "\n".join([*lines, *(_latex_row(_cells(row)) for row in rows), "\\bottomrule", "\\end{tabular}"]) + "\n"


_LATEX = {"\\": "\\textbackslash{}", "–": "--", "±": "$\\pm$", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}"}
_LATEX |= {letter: f"\\{letter}" for letter in "&%$#_{}"}


def latex_cell(text: str) -> str:
    """``text`` with what LaTeX would read as its own."""
    return "".join(_LATEX.get(letter, letter) for letter in text)


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(map(latex_cell, cells)) + r" \\"
