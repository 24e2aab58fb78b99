"""The tables that commands end with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..doctor import BROKEN, MISSING, OK, Finding

if TYPE_CHECKING:
    from ..convert import Converted
    from ..data.benchmarks import Benchmark
    from ..data.fetch import SceneState
    from ..demo import DemoResult
    from ..evaluation import EvalReport
    from ..pipeline import RunResult
    from ..report.page import Written
    from ..stopwatch import Profile

STAGES = ("pose", "init", "train", "eval")
PROFILED = {
    "begin": "checks, resuming, first photos",
    "photos": "waiting for the next photo, and making it floats",
    "project": "Gaussians to the image, colours from SH",
    "sort_and_bin": "depth order, and which tile sees whom",
    "blend": "front to back",
    "loss": "L1 and SSIM, with their gradient",
    "blend_vjp": "back to front: gradients of the image",
    "project_vjp": "gradients of the Gaussians, and Adam",
    "step": "draw, compare, update, as far as the engine does not say more; Python between its calls",
    "densify": "watching gradients; cloning, splitting, pruning",
    "report": "live line, a look at a test view",
    "checkpoint": "saving",
    "test views": "the scores of eval.during; not part of the training's time",
}


def show_runs(console: Console, results: Sequence[RunResult]) -> None:
    """One row per run: scores, numbers of Gaussians, seconds per stage; below it where the files are."""
    nets = list(dict.fromkeys(net for result in results for net in result.report.lpips))
    table = Table(title="Result", title_justify="left", title_style="bold", header_style="dim")
    table.add_column("init", style="cyan")
    for column in ("PSNR", "SSIM", *(f"LPIPS {net}" for net in nets), "points", "Gaussians", "steps"):
        table.add_column(column, justify="right")
    for stage in STAGES:
        table.add_column(f"{stage} s", justify="right")
    best = max((result.report.psnr or 0.0 for result in results), default=0.0) if len(results) > 1 else None
    for result in results:
        report = result.report
        psnr = number(report.psnr, 2)
        table.add_row(
            escape(result.config.init.label),
            f"[bold]{psnr}[/]" if report.psnr == best else psnr,
            number(report.ssim, 4),
            *(number(report.lpips.get(net), 4) for net in nets),
            f"{len(result.start.points)}",
            f"{len(result.gaussians)}",
            f"{result.steps_done}",
            *(number(result.seconds.get(stage), 1) for stage in STAGES),
        )
    console.print(table)
    for result in results:
        if "eval" in result.reused:  # else they were told when they arose
            for text in result.report.notes:
                console.print(f"[yellow]note[/] {escape(text)}", soft_wrap=True)
        if result.reused:
            console.print(f"[dim]Re-used from an earlier run: {', '.join(result.reused)}.[/]", soft_wrap=True)
        sheet = result.folder.eval / "contact_sheet.png"
        files = {"splat": result.folder.splat, "scores": result.folder.eval / "metrics.json"}
        show_places(console, files | ({"picture": sheet} if sheet.exists() else {}))


def show_profile(console: Console, profile: Profile) -> None:
    """Where the time of the training went; the rows add up to the wall-clock time."""
    total = sum(profile.seconds.values())
    table = Table(title="Training, by stage", title_justify="left", title_style="bold", header_style="dim")
    table.show_footer = True
    table.add_column("stage", style="cyan", footer="sum")
    table.add_column("seconds", justify="right", footer=f"{total:.2f}")
    table.add_column("share %", justify="right")
    table.add_column("ms a step", justify="right", footer=f"{1e3 * total / max(1, profile.steps):.2f}")
    table.add_column("what", style="dim")
    for stage, seconds in sorted(profile.seconds.items(), key=lambda row: -row[1]):
        share, step = f"{100 * seconds / total:.1f}", f"{1e3 * seconds / max(1, profile.steps):.2f}"
        table.add_row(stage, f"{seconds:.2f}", share, step, PROFILED.get(stage, ""))
    console.print(table)


def show_demo(console: Console, result: DemoResult) -> None:
    """The comparison of the demo's starts, and the picture of it."""
    table = Table(title="The same scene, trainer and steps", title_justify="left", header_style="dim")
    for index, column in enumerate(result.columns):
        table.add_column(column, justify="right" if index else "left", style=None if index else "cyan")
    for row in result.rows:
        table.add_row(*map(escape, row))
    console.print(table)
    for text in result.notes:
        console.print(f"[dim]{escape(text)}[/]", soft_wrap=True)
    show_places(console, {"picture": result.picture})


def show_start(console: Console, result: RunResult, *, with_images: bool) -> None:
    """What ``splatinit init`` wrote."""
    console.print(f"{len(result.start.points)} points from [cyan]{escape(result.config.init.label)}[/]")
    for text in result.start.notes:
        console.print(f"  {escape(text)}", soft_wrap=True)
    places = {"points": result.folder.points, "COLMAP": result.folder.start_model}
    if with_images:
        places["photos"] = result.folder.start_images
    show_places(console, places)
    if not with_images:
        console.print("[dim]The photos stay where they are; --images adds them, undistorted, for other trainers.[/]")


def show_scores(console: Console, report: EvalReport, out: Path | None) -> None:
    """The scores of every test view, and their means."""
    nets = list(report.lpips)
    table = Table(title="Scores", title_justify="left", title_style="bold", header_style="dim", show_footer=True)
    table.add_column("view", footer="mean")
    footers = (number(report.psnr, 2), number(report.ssim, 4), *(number(report.lpips[net], 4) for net in nets))
    for column, footer in zip(("PSNR", "SSIM", *(f"LPIPS {net}" for net in nets)), footers, strict=True):
        table.add_column(column, justify="right", footer=f"[bold]{footer}[/]")
    for image in report.images:
        table.add_row(
            escape(image.name),
            number(image.psnr, 2),
            number(image.ssim, 4),
            *(number(image.lpips.get(net), 4) for net in nets),
        )
    console.print(table)
    console.print(f"{report.gaussians} Gaussians, drawn by {report.backend}")
    if out is not None:
        show_places(console, {"scores": out / "metrics.json", "picture": out / "contact_sheet.png"})


def show_files(console: Console, written: Sequence[Path]) -> None:
    """One line for one file, the folder for many."""
    if len(written) == 1:
        show_places(console, {"wrote": written[0]})
    else:
        show_places(console, {"wrote": written[0].parent})
        console.print(f"[dim]{len(written)} files[/]")


def show_benchmarks(console: Console, root: Path, known: Mapping[str, Benchmark], states: Sequence[SceneState]) -> None:
    """Each benchmark of ``states``: where it comes from, the protocol of its scenes, and which of them are in
    ``root``."""
    for name in dict.fromkeys(state.scene.benchmark for state in states):
        benchmark = known[name]
        console.print(f"[bold]{name}[/]  {escape(benchmark.title)}, {escape(benchmark.home)}", soft_wrap=True)
        console.print(f"  licence: {escape(benchmark.licence)}", soft_wrap=True)
        for archive in benchmark.archives:
            size = "size unknown" if archive.gigabytes is None else f"{archive.gigabytes:g} GB"
            console.print(f"  {escape(archive.file)}, {size}", soft_wrap=True)
            for source in archive.sources:
                sums = "checksum unknown, not verified" if source.sha256 is None else f"SHA-256 {source.sha256}"
                console.print(f"    {escape(source.url)}\n      [dim]{sums}[/]", soft_wrap=True)
        table = Table(box=None, header_style="dim", pad_edge=True)
        for column in ("", "scene", "photos", "reduced by", "test views", "here"):
            table.add_column(column)
        for state in (each for each in states if each.scene.benchmark == name):
            scene = state.scene
            photos = ", ".join(f"{count} in {folder}" for folder, count in scene.photos.items())
            split = scene.split if scene.of is None else f"12, {scene.train} to train on, of {scene.of}"
            mark, here = {"counted": ("[green]✓[/]", "yes"), "absent": ("", "")}.get(
                state.state, ("[red]✗[/]", escape(state.detail))
            )
            table.add_row(mark, scene.key, photos, str(scene.downscale), split, here)
        console.print(table)
    here = sum(state.state == "counted" for state in states)
    console.print(f"{here} of {len(states)} scenes are in {escape(str(root.absolute()))}", soft_wrap=True)


def show_scene_states(console: Console, states: Sequence[SceneState]) -> None:
    """Which scenes are here, and whether they are whole."""
    marks = {"whole": "[green]✓[/]", "counted": "[yellow]![/]", "damaged": "[red]✗[/]", "absent": "[dim]·[/]"}
    wide = max((len(state.scene.key) for state in states), default=0)
    for state in states:
        # No table: it would break paths, which people copy.
        text = f" {marks[state.state]}  {state.scene.key:<{wide}}  {state.state:<7}  {escape(state.detail)}"
        console.print(text, soft_wrap=True)


def show_converted(console: Console, result: Converted) -> None:
    """What a converted data set holds, what was lost on the way, and where it is."""
    counts = {
        "photos copied byte for byte": result.copied,
        "photos written as PNG": result.rendered,
        "masks": result.masks,
        "depth maps": result.depths,
        "points": result.points,
    }
    console.print(", ".join(f"{count} {what}" for what, count in counts.items() if count))
    for note in result.notes:
        console.print(f"  [yellow]note[/] {escape(note)}", soft_wrap=True)
    show_places(console, {"wrote": result.folder})


def show_findings(console: Console, findings: Sequence[Finding]) -> None:
    """The doctor's table and verdict."""
    marks = {OK: "[green]✓[/]", MISSING: "[yellow]–[/]", BROKEN: "[red]✗[/]"}
    table = Table(header_style="dim", box=None)
    for column in ("", "", "", "what", "what to do"):
        table.add_column(column)
    topic = ""
    for finding in findings:
        head = f"[bold]{finding.topic}[/]" if finding.topic != topic else ""
        topic = finding.topic
        table.add_row(head, marks[finding.state], *map(escape, (finding.name, finding.text, finding.advice)))
    console.print(table)
    broken = [finding.name for finding in findings if finding.state == BROKEN]
    if broken:
        console.print(f"[red]Not working: {escape(', '.join(broken))}.[/]")
    else:
        console.print("[green]Everything that is needed works.[/]")


def show_report(console: Console, written: Written, notes: Sequence[str]) -> None:
    """What a report was made of, and where it is."""
    for note in notes:
        console.print(f"[yellow]note[/] {escape(note)}", soft_wrap=True)
    lost = f", {written.failed} of them failed" if written.failed else ""
    console.print(f"{written.runs} runs{lost}; {written.size / 1e6:.1f} MB in {written.seconds:.1f} s")
    show_places(console, {"page": written.path})


def show_places(console: Console, places: Mapping[str, Path]) -> None:
    """Names and paths, unbroken, so that they can be copied."""
    for name, path in places.items():
        console.print(f"  {name:<8} {escape(str(path))}", soft_wrap=True)


def number(value: float | None, digits: int) -> str:
    """Fixed digits; a dash for what was not measured."""
    return "–" if value is None else f"{value:.{digits}f}"
