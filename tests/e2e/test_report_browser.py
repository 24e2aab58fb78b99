"""The report in a real browser: no console errors, the slider moves, the points show, on a desk and on a phone."""

from __future__ import annotations

import base64
import io
import itertools
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sync_api = pytest.importorskip("playwright.sync_api", reason="a browser test needs playwright")
for package in ("pyarrow", "jinja2"):
    pytest.importorskip(package, reason=f"a report needs {package}")

from sweep_results import make_sweep  # noqa: E402

from splatinit.report.page import write_report  # noqa: E402

pytestmark = pytest.mark.e2e
# Software WebGL, so that the points show on machines without a GPU; nothing of the browser's own asks the network.
ARGUMENTS = [
    "--no-sandbox",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-background-networking",
]
PATIENCE = 60_000  # ms: software WebGL on a busy machine


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("sweep")
    make_sweep(folder, labels=("sfm", "dense", "random", "<b>x</b>"), failed=[("chair", "random", 1)])
    return write_report(folder).path.as_uri()


@pytest.fixture(scope="module")
def browser() -> Iterator[sync_api.Browser]:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with sync_api.sync_playwright() as playwright:
        if found is None and not os.path.exists(playwright.chromium.executable_path):
            pytest.skip("no Chromium: neither on PATH nor installed by `playwright install chromium`")
        browser = playwright.chromium.launch(executable_path=found, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(params=[(1280, 900, "light"), (390, 844, "dark")], ids=["desk", "phone"])
def opened(request: pytest.FixtureRequest, browser: sync_api.Browser, url: str) -> Iterator[sync_api.Page]:
    width, height, scheme = request.param
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    told: list[str] = []
    page.on("console", lambda message: told.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("requestfailed", lambda request: told.append(f"not loaded: {request.url[:100]}"))
    outside: list[str] = []
    page.on("request", lambda request: outside.append(request.url) if request.url.startswith("http") else None)
    page.goto(url)
    yield page
    shots = os.environ.get("SPLATINIT_SCREENSHOTS")
    if shots:
        page.screenshot(path=Path(shots) / f"{request.node.name}.png")
    context.close()
    # Software WebGL says that reading its pixels is slow, which is the screenshot's doing.
    assert [text for text in told if "GPU stall due to ReadPixels" not in text] == []
    assert outside == []


def until(page: sync_api.Page, condition: str) -> None:
    """Wait for an expression; Playwright's own waiting evaluates strings in the page, which its policy forbids."""
    for _ in range(PATIENCE // 50):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never came true: {condition}")


def pixels(locator: sync_api.Locator) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(locator.screenshot())).convert("RGB")).astype(int)


def test_it_opens_draws_its_plots_and_fits_its_width(opened: sync_api.Page) -> None:
    for name in ("differences", "scenes", "gaussians"):
        plot = opened.locator(f"[data-plot={name}]")
        plot.scroll_into_view_if_needed()
        plot.locator(".main-svg .trace.scatter .point").first.wait_for()
    reference = opened.get_by_label("Difference from")
    assert reference.input_value() == "sfm"
    title = opened.locator("[data-plot=differences] .xtitle")
    reference.select_option("dense")
    until(opened, "document.querySelector('[data-plot=differences] .xtitle').textContent.includes('dense')")
    assert title.text_content() == "PSNR against dense, dB"
    opened.locator("#scene-1 [data-plot=curves]").scroll_into_view_if_needed()
    lines = opened.locator("#scene-1 [data-plot=curves] .scatterlayer .js-line")
    lines.first.wait_for()
    assert lines.count() == 7  # 4 variants × 2 seeds, one failed
    assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert opened.locator("b").count() == 0  # a variant is called <b>x</b>


def test_the_slider_moves_and_modes_switch(opened: sync_api.Page) -> None:
    root = opened.locator("#scene-1 .compare")
    root.scroll_into_view_if_needed()
    stage = root.locator(".stage")
    stage.wait_for()
    until(
        opened, "[...document.querySelectorAll('#scene-1 .pane:not([hidden]) img')].every(i => i.naturalWidth == 160)"
    )
    low = slice(120, None)  # px: the bar of links may lie over the stage's top
    before = pixels(stage)[low]
    root.locator("input.slide").fill("20")
    after = pixels(stage)[low]
    h, w, _ = before.shape
    band = slice(int(0.27 * w), int(0.42 * w))
    assert np.abs(after[:, band] - before[:, band]).mean() > 5  # the truth there became a render
    assert np.abs(after[:, int(0.6 * w) :] - before[:, int(0.6 * w) :]).mean() < 1
    box = stage.bounding_box()
    opened.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 0.5 * box["height"])
    opened.mouse.down()
    opened.mouse.move(box["x"] + 0.8 * box["width"], box["y"] + 0.5 * box["height"])
    opened.mouse.up()
    assert float(root.locator("input.slide").input_value()) == pytest.approx(80, abs=2)
    root.get_by_label("Zoom in").click()
    styles = [root.locator(".pane img").nth(k).get_attribute("style") for k in (0, 1)]
    assert styles[0] == styles[1] and "scale(1.5)" in styles[0]
    root.get_by_label("Whole picture").click()
    root.get_by_label("flicker").check()
    shown = "[...document.querySelectorAll('#scene-1 .pane')].findIndex(pane => !pane.style.visibility)"
    until(opened, f"{shown} == 1")
    until(opened, f"{shown} == 0")
    root.get_by_label("error maps").check()
    tags = root.locator(".pane:not([hidden]) .tag")
    assert [text.split(" · ")[0] for text in tags.all_text_contents()] == ["truth", "error of sfm"]


def test_truth_and_two_starts_stand_beside_each_other_under_one_zoom(opened: sync_api.Page) -> None:
    root = opened.locator("#scene-1 .compare")
    root.scroll_into_view_if_needed()
    root.locator(".stage").wait_for()
    root.get_by_label("left").select_option(label="dense")
    root.get_by_label("side by side").check()
    panes = root.locator(".pane:visible")
    assert panes.count() == 3
    names = [text.split(" · ")[0] for text in panes.locator(".tag").all_text_contents()]
    assert names == ["truth", "dense", "sfm"]
    boxes = [panes.nth(k).bounding_box() for k in range(3)]
    along, size = ("x", "width") if opened.viewport_size["width"] > 600 else ("y", "height")
    for first, second in itertools.pairwise(boxes):
        assert first[along] + first[size] <= second[along] and first[size] == pytest.approx(second[size], abs=1.5)
    panes.nth(2).dblclick(position={"x": 0.25 * boxes[2]["width"], "y": 0.5 * boxes[2]["height"]})
    styles = [panes.nth(k).locator("img").get_attribute("style") for k in range(3)]
    assert styles[0] == styles[1] == styles[2]
    moved, scale = (float(re.search(rf"{name}\((-?[\d.]+)", styles[0]).group(1)) for name in ("translate", "scale"))
    assert scale == 3 and moved == pytest.approx(-2 * 0.25 * boxes[2]["width"], abs=2)  # what was clicked stays there
    root.get_by_label("flicker").check()
    shown = "[...document.querySelectorAll('#scene-1 .pane')].findIndex(pane => !pane.style.visibility)"
    for turn in (1, 2, 0):
        until(opened, f"{shown} == {turn}")


def test_the_points_show_turn_and_change(opened: sync_api.Page) -> None:
    opened.locator("#scene-2").scroll_into_view_if_needed()
    root = opened.locator("#scene-2 .orbit")
    root.locator("figure").wait_for()
    root.scroll_into_view_if_needed()
    canvas = root.locator("canvas")
    canvas.wait_for()
    opened.wait_for_timeout(500)
    first = pixels(canvas)
    lit = np.abs(first - first[-1, 0]).sum(axis=2) > 60
    h, w = lit.shape
    halves = (lit[: h // 2], lit[h // 2 :]) if w < 560 else (lit[:, : w // 2], lit[:, w // 2 :])
    assert all(half.sum() > 300 for half in halves)  # the start, and what was trained
    canvas.focus()
    opened.keyboard.press("ArrowRight")
    opened.wait_for_timeout(500)
    assert (np.abs(pixels(canvas) - first).sum(axis=2) > 60).sum() > 300
    root.get_by_role("button", name="Reset view").click()
    opened.wait_for_timeout(500)
    assert (np.abs(pixels(canvas) - first).sum(axis=2) > 60).sum() < 100
    root.get_by_label("variant").select_option(label="dense")
    assert "dense" in canvas.get_attribute("aria-label")


def test_a_page_that_was_sent_alone_keeps_its_small_pictures(
    browser: sync_api.Browser, url: str, tmp_path: Path
) -> None:
    shutil.copy(Path(url.removeprefix("file://")), tmp_path / "alone.html")
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto((tmp_path / "alone.html").as_uri())
    root = page.locator("#scene-1 .compare")
    root.scroll_into_view_if_needed()
    root.get_by_text("lie in the sweep's folder, which is not beside this page").wait_for()
    until(page, "[...document.querySelectorAll('#scene-1 .pane:not([hidden]) img')].every(i => i.naturalWidth == 160)")
    root.get_by_label("view").select_option(index=3)  # which has no small pictures
    until(page, "document.querySelector('#scene-1 .tag').textContent.includes('not in the page, and not beside it')")
    assert page.locator("[data-plot=scenes]").count() == 1
    page.close()


def test_a_print_has_the_plots_the_pictures_and_the_points(browser: sync_api.Browser, url: str) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme="dark")
    page.goto(url)
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    clouds = page.locator(".cloud .printed")
    assert clouds.count() == 2
    for k in range(2):
        data = clouds.nth(k).get_attribute("src").partition(",")[2]
        picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")).astype(int)
        assert (np.abs(picture - picture[-1, 0]).sum(axis=2) > 60).sum() > 300
    assert page.locator(".main-svg .scatterlayer .trace").count() > 10
    assert page.locator("nav").is_hidden() and page.locator(".compare .controls").first.is_hidden()
    width = "document.querySelector('[data-plot=scenes] .main-svg').getBoundingClientRect().width"
    assert page.evaluate(width) == 680
    page.emulate_media(media="screen")
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert clouds.count() == 0
    until(page, f"{width} > 1000")
    page.close()
