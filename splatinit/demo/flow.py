"""The demo: several starts, one trainer, the same scene; scored where the truth is known, and shown in one picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import ConfigError
from ..geometry.scoring import CloudScore, score_cloud
from ..io.atomic import remove_leftovers
from ..io.images import probe_image, write_png
from ..io.locks import hold
from ..progress import Progress, Silent
from ..report.figures import draw_points
from ..types import PointCloud
from .dataset import TRUTH_SPACING, in_yard, make_demo_scene, read_truth

if TYPE_CHECKING:
    from ..pipeline import RunResult

# Start → what differs between the runs. 30 000 instead of the customary 100 000 random points keep the demo short, and
# what differs in their numbers is not told from what differs in their places.
STARTS: dict[str, dict[str, object]] = {
    "sfm": {},
    "random": {"init.count": 30_000},
    "dense": {"init.count": 30_000, "init.gaps": "none"},
    "nerf": {"init.count": 30_000},
}
# What differs from the defaults in all runs: a bound on the Gaussians keeps the demo short, and without LPIPS, whose
# weights may have to be fetched, it needs no network.
RECIPE: dict[str, object] = {"densify.max_count": 40_000, "eval.lpips": ()}
THRESHOLDS = (0.05, 0.15)  # metres; the truth is sampled every 2.5 cm


@dataclass(frozen=True, kw_only=True)
class DemoResult:
    """What the demo found, ready to print: ``rows`` of text under ``columns``, remarks, and the comparison picture."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]
    picture: Path


def run_demo(
    out: Path,
    *,
    steps: int = 1500,
    seed: int = 0,
    progress: Progress = Silent(),
    stop: Callable[[], bool] = lambda: False,
) -> DemoResult | None:
    """Draw the scene into ``out/scene``, run every start into ``out/<start>``, compare, and write ``out/demo.png``.

    A second call with the same settings re-uses what is there; an interrupted one goes on. None: ``stop`` came true
    while a start was trained, and its checkpoint is written.

    Raises ConfigError when ``out`` holds runs of other settings, FolderInUse while another process works there.
    """
    if steps < 1:
        raise ConfigError(f"The demo was asked for {steps} steps; expected at least 1.")
    with hold(Path(out)) as notes:
        for text in notes:
            progress.note(text)
        return _run_demo(Path(out), steps, seed, progress, stop)


def _run_demo(out: Path, steps: int, seed: int, progress: Progress, stop: Callable[[], bool]) -> DemoResult | None:
    from ..pipeline import run  # drawing the scene needs nothing of the line

    remove_leftovers([*out.glob(".demo.*"), *(out / "scene").rglob(".*")])
    scene = make_demo_scene(out / "scene", progress=progress)
    truth = read_truth(scene)
    results: dict[str, RunResult] = {}
    for start, settings in STARTS.items():
        progress.note(f"start: {start}")
        results[start] = run(
            scene,
            out / start,
            init=start,
            settings={"train.steps": steps, "seed": seed} | RECIPE | settings,
            progress=progress,
            stop=stop,
        )
        if results[start].interrupted:
            return None
    picture = out / "demo.png"
    write_png(picture, _picture(scene, truth, results))
    rows = tuple(_row(start, result, truth) for start, result in results.items())
    return DemoResult(columns=_columns(), rows=rows, notes=_notes(results), picture=picture)


# ------------------------------------------------------------------------------------------------------- the numbers
def _columns() -> tuple[str, ...]:
    scores = tuple(f"F@{100 * threshold:.0f} cm" for threshold in THRESHOLDS)
    return ("start", "points", "in the yard", "accuracy", "completeness", *scores, "PSNR", "SSIM", "Gaussians", "train")


def _row(start: str, result: RunResult, truth: PointCloud) -> tuple[str, ...]:
    points = result.start.points.xyz
    inside = in_yard(points)
    score: CloudScore = score_cloud(points[inside], truth.xyz, THRESHOLDS)
    return (
        start,
        f"{len(points)}",
        f"{inside.sum()}",
        f"{100 * score.accuracy_median:.1f} cm",
        f"{100 * score.completeness_median:.1f} cm",
        *(f"{each.fscore:.3f}" for each in score.thresholds),
        f"{result.report.psnr:.2f} dB",
        f"{result.report.ssim:.3f}",
        f"{len(result.gaussians)}",
        f"{result.seconds['train']:.0f} s",
    )


def _notes(results: dict[str, RunResult]) -> tuple[str, ...]:
    steps = {result.config.train.steps for result in results.values()}
    return (
        "accuracy: median distance from a starting point in the yard to the true surface; completeness: from the "
        f"surface, sampled every {100 * TRUTH_SPACING:.1f} cm, to the nearest starting point; F: both, at a threshold",
        f"PSNR and SSIM: test views after {max(steps)} steps of the same trainer",
    )


# ------------------------------------------------------------------------------------------------------- the picture
def _picture(scene: Path, truth: PointCloud, results: dict[str, RunResult]) -> np.ndarray:
    """[h, w, 3] uint8: above, the photo and what each start became; below, the true points and each start's points."""
    any_result = next(iter(results.values()))
    view = any_result.scene.test[-1]  # sees the thin structures and the surroundings
    columns = [[view.pixels().rgb, draw_points(truth, view.camera)]]
    titles = [["photo (test view)", "true surface points"]]
    for start, result in results.items():
        saved = next(image.render for image in result.report.images if image.name == view.name)
        render = probe_image(result.folder.eval / saved).load(view.camera.width, view.camera.height)
        columns.append([render.rgb, draw_points(result.start.points, view.camera)])
        titles.append([f"from {start}: {result.report.psnr:.1f} dB", f"{start}: {len(result.start.points)} points"])
    return np.concatenate(
        [
            np.concatenate([_titled(image, title) for image, title in zip(images, names, strict=True)], axis=0)
            for images, names in zip(columns, titles, strict=True)
        ],
        axis=1,
    )


def _titled(image: np.ndarray, title: str) -> np.ndarray:
    """The image, twice as large for the eye, under a bar with a line of text."""
    from PIL import Image, ImageDraw, ImageFont

    large = Image.fromarray(image).resize((2 * image.shape[1], 2 * image.shape[0]), Image.Resampling.BICUBIC)
    canvas = Image.new("RGB", (large.width + 8, large.height + 28), (255, 255, 255))
    canvas.paste(large, (4, 24))
    ImageDraw.Draw(canvas).text((5, 1), title, fill=(0, 0, 0), font=ImageFont.load_default(18))
    return np.asarray(canvas)
