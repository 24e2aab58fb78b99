"""How long the page of a sweep takes to make and to open, and how large it is.

    python benchmarks/report.py [--runs 200] [--size 240x320] [--points 20000] [--keep DIR]

The sweep is made of random numbers (tests/sweep_results.py): 5 scenes × 10 starts × 4 seeds for 200 runs, four test
views each, at the given size. What is measured:

    build s    of write_report, from the tables to the file, in this process (wall and processor).
    page MB    of the HTML file; the pictures at full size lie beside it and are not in it.
    load s     until Chromium's load event, the page opened from disk (the median of three).
    plot s     until the first plot of the page is drawn besides, which is in sight as the page opens or soon below.

Without playwright and a Chromium only the first two are measured.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from splatinit import environment
from splatinit.report.page import write_report

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from sweep_results import make_sweep  # noqa: E402

LABELS = ("sfm", "dense", "random", "nerf", "rain", "depth", "acui", "sgpose", "sfm+random", "file")
SCENES = tuple(f"scene {k}" for k in range(5))
ARGUMENTS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
REPEATS = 3


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--size", default="240x320", help="height x width of the test views, px")
    parser.add_argument("--points", type=int, default=20_000, help="of each start; each splat has twice as many")
    parser.add_argument("--keep", type=Path, help="make the sweep here, or use the one that is here")
    asked = parser.parse_args()

    with tempfile.TemporaryDirectory() as work:
        folder = asked.keep or Path(work)
        if not (folder / "results").is_dir():
            height, width = map(int, asked.size.split("x"))
            seeds = range(-(-asked.runs // (len(SCENES) * len(LABELS))))
            make_sweep(
                folder,
                scenes=SCENES,
                labels=LABELS,
                seeds=seeds,
                size=(height, width),
                points=asked.points,
                gaussians=2 * asked.points,
            )
        processor = time.process_time()
        made = write_report(folder)
        processor = time.process_time() - processor
        opened = _opened(made.path)
    console = Console()
    console.print(f"{environment.processor()}, {environment.cores()} cores; {made.runs} runs")
    table = Table("build s", "processor s", "page MB", "load s", "plot s", header_style="dim")
    seconds = [f"{value:.2f}" for value in opened] if opened else ["–", "–"]
    table.add_row(f"{made.seconds:.1f}", f"{processor:.1f}", f"{made.size / 1e6:.1f}", *seconds)
    console.print(table)
    return 0


def _opened(page: Path) -> tuple[float, float] | None:
    """Seconds until the load event and until the first plot is drawn, from the navigation's start; medians."""
    browser_at = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser_at is None or importlib.util.find_spec("playwright") is None:
        return None
    from playwright.sync_api import sync_playwright

    loads, plots = [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_at, args=ARGUMENTS)
        for _ in range(REPEATS):
            tab = browser.new_page(viewport={"width": 1280, "height": 900})
            tab.goto(page.as_uri(), wait_until="load", timeout=120_000)
            loads.append(tab.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd") / 1000)
            tab.locator("[data-plot]").first.scroll_into_view_if_needed()
            tab.locator(".main-svg .trace.scatter .point").first.wait_for()
            plots.append(tab.evaluate("performance.now()") / 1000)
            tab.close()
        browser.close()
    return statistics.median(loads), statistics.median(plots)


if __name__ == "__main__":
    sys.exit(main())
