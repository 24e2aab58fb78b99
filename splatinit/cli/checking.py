"""The page that ``splatinit check`` ends with: one line a question, and what to do where there is something to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from ..checks.report import CheckReport

MARKS = {"ok": "[green]✓[/]", "warn": "[yellow]![/]", "fail": "[red]✗[/]"}
_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}
# Ids are for scripts; a person reads these.
_TITLES = {
    "count": "number",
    "size": "size",
    "standing_still": "movement",
    "points_per_view": "points",
    "points_extent": "extent",
    "points_colours": "colours",
    "single_poses": "each pose",
    "exif_focal": "focal",
    "sfm": "overlap",
    "principal_point": "centre",
}
GROUPS = ("photos", "poses", "matches", "points")


def show_check(console: Console, report: CheckReport) -> None:
    """The findings by group, the advice below each, and the verdict."""
    console.print(f"[bold]{escape(str(report.scene))}[/]", soft_wrap=True)
    for note in report.notes:
        console.print(f"  [dim]{escape(note)}[/]", soft_wrap=True)
    table = Table(box=None, show_header=False, padding=(0, 1))
    for _ in range(3):
        table.add_column(no_wrap=True)
    table.add_column()
    for group in GROUPS:
        head = group
        for finding in (each for each in report.findings if each.group == group):
            title = _TITLES.get(finding.id, finding.id.replace("_", " "))
            table.add_row(f"[bold]{head}[/]", MARKS[finding.level], title, escape(finding.message))
            if finding.advice:
                table.add_row("", "", "", f"[{_COLOURS[finding.level]}]→[/] {escape(finding.advice)}")
            head = ""
    console.print(table)
    seen = f"{report.looked_at} photos decoded, {report.pairs} pairs matched, {report.seconds:.0f} s"
    console.print(f"[bold {_COLOURS[report.level]}]{escape(report.verdict)}[/] [dim]({seen})[/]", soft_wrap=True)
