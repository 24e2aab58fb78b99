"""``splatinit results --summary``: one line a scene, one column a start, in four forms."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..errors import ConfigError
from ..registry import nearest
from .sweeping import latex_cell

if TYPE_CHECKING:
    from ..report.statistics import Summary

Rows = Sequence[Mapping[str, Any]]
# Metric → (what it is, digits, which is best).
METRICS: dict[str, tuple[str, int, Callable | None]] = {
    "psnr": ("test PSNR in dB", 2, max),
    "ssim": ("test SSIM", 4, max),
    "lpips_vgg": ("test LPIPS (vgg)", 4, min),
    "lpips_alex": ("test LPIPS (alex)", 4, min),
    "points": ("points", 0, None),
    "gaussians": ("Gaussians", 0, None),
    "seconds_init": ("seconds of making the start", 1, None),
    "seconds_train": ("seconds of training", 1, None),
    "peak_memory_mb": ("peak memory in MB", 0, None),
}


@dataclass(frozen=True)
class SweepSummary:
    """A table of one metric: its heading, lines of cells, and what is to be said below it.

    ``lines``: (name of the line, a cell for each column, which of them are best).
    """

    columns: list[str]
    lines: list[tuple[str, list[str], list[bool]]]
    caption: str


def summarize_sweep(rows: Rows, metric: str, command: str) -> SweepSummary:
    """Means over seeds, with their standard deviation where there are several.

    The mean and the mean rank over scenes are of those columns that have every scene: a mean over other scenes would
    be another mean. ``command`` made the sweep. Raises ConfigError for an unknown metric.
    """
    from ..report.statistics import Scores, mean_ranks, summarize

    if metric not in METRICS:
        raise ConfigError(f"--metric {metric}: no such metric.", hint=nearest(metric, list(METRICS)))
    _, digits, best = METRICS[metric]
    done = [row for row in rows if row["status"] == "done"]
    planned = frozenset((row["scene"], row["label"], row["seed"]) for row in rows)
    scores = Scores({(row["scene"], row["label"], row["seed"]): row[metric] for row in done}, planned)
    labels = list(dict.fromkeys(row["label"] for row in rows))
    scenes = list(dict.fromkeys(row["scene"] for row in rows))
    lines = []
    for scene in scenes:
        cells = [summarize(scores, label, [scene]) for label in labels]
        lines.append((scene, [_cell(each, digits) for each in cells], _best([each.mean for each in cells], best)))
    everywhere = [label for label in labels if all(scores.per_seed(scene, label) for scene in scenes)]
    if len(scenes) > 1 and everywhere:
        means = [summarize(scores, label).mean if label in everywhere else math.nan for label in labels]
        lines.append(("mean", [_number(value, digits) for value in means], _best(means, best)))
        if best is not None:
            found, _ = mean_ranks(scores, everywhere, lower_is_better=best is min)
            ranked = [found.get(label, math.nan) for label in labels]
            lines.append(("mean rank", [_number(value, 1) for value in ranked], _best(ranked, min)))
    return SweepSummary(labels, lines, _caption(rows, metric, command))


def _cell(found: Summary, digits: int) -> str:
    text = _number(found.mean, digits)
    if not math.isfinite(found.mean):
        return text
    lost = f" ({len(found.missing)} failed)" if found.missing else ""
    spread = f" ± {found.spread:.{digits}f}" if math.isfinite(found.spread) and digits else ""
    return f"{text}{spread}{lost}"


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else "–"


def _best(values: Sequence[float], best: Callable | None) -> list[bool]:
    known = [value for value in values if math.isfinite(value)]
    if best is None or len(known) < 2:
        return [False] * len(values)
    return [value == best(known) for value in values]


def _caption(rows: Rows, metric: str, command: str) -> str:
    """What was measured, of how many seeds, by which command, when, by which version, where."""
    seeds = sorted({row["seed"] for row in rows})
    told = f"mean ± standard deviation over seeds {', '.join(map(str, seeds))}" if len(seeds) > 1 else "one seed"
    done = [row for row in rows if row["status"] == "done"]
    dates = sorted({row["started"][:10] for row in done if row["started"]})
    when = " to ".join(dict.fromkeys((dates[0], dates[-1]))) if dates else "not run"
    versions = ", ".join(sorted({f"splatinit {row['splatinit']} ({(row['git'] or 'no git')[:7]})" for row in done}))
    machines = ", ".join(sorted({f"{row['machine']}, {row['cores']} cores" for row in done}))
    failed = len(rows) - len(done)
    lost = f"; {failed} of {len(rows)} runs failed" if failed else ""
    name = METRICS[metric][0]
    return f"{name[:1].upper()}{name[1:]}, {told}{lost}; {command}; {when}; {versions}; {machines}."


def show_summary(console: Console, found: SweepSummary) -> None:
    """In the terminal; the best of each line in green."""
    table = Table(header_style="dim", caption=escape(found.caption), caption_justify="left")
    table.add_column("scene", style="cyan")
    for column in found.columns:
        table.add_column(escape(column), justify="right")
    for name, cells, best in found.lines:
        marked = (f"[bold green]{cell}[/]" if is_best else cell for cell, is_best in zip(cells, best, strict=True))
        table.add_row(escape(name), *marked, end_section=name == found.lines[-1][0])
    console.print(table)


def summary_markdown(found: SweepSummary) -> str:
    """For GitHub; the best of each line in bold, the caption in italics below."""
    lines = [["", *found.columns], ["---", *("---:" for _ in found.columns)]]
    for name, cells, best in found.lines:
        lines.append([name, *(f"**{cell}**" if mark else cell for cell, mark in zip(cells, best, strict=True))])
    table = "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
    return f"{table}\n\n*{found.caption}*\n"


def summary_latex(found: SweepSummary) -> str:
    """A ``tabular`` with the rules of booktabs; the caption as a comment above."""
    body = []
    for name, cells, best in found.lines:
        marked = (
            rf"\textbf{{{latex_cell(cell)}}}" if mark else latex_cell(cell)
            for cell, mark in zip(cells, best, strict=True)
        )
        body.append(" & ".join([latex_cell(name), *marked]) + r" \\")
    head = " & ".join(["", *map(latex_cell, found.columns)]) + r" \\"
    rows = [f"\\begin{{tabular}}{{l{'r' * len(found.columns)}}}", "\\toprule", head, "\\midrule", *body]
    return "\n".join([f"% {found.caption}", *rows, "\\bottomrule", "\\end{tabular}"]) + "\n"


def summary_csv(found: SweepSummary) -> str:
    """One line a scene, a heading first."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["scene", *found.columns])
    writer.writerows([name, *("" if cell == "–" else cell for cell in cells)] for name, cells, _ in found.lines)
    return out.getvalue()
