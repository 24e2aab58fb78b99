"""README says nothing that is not so: its commands exist and take these arguments, its Python runs, its links lead."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import tiny
from typer.testing import CliRunner

from splatinit import native
from splatinit.cli.app import app
from splatinit.config import Layer, build_config, load_preset
from splatinit.io.colmap_model import write_model
from splatinit.io.images import probe_image, write_png
from splatinit.sweep.comparison import USUAL, plan_comparison
from splatinit.types import PointCloud, View

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


COMMANDS = [line.split("#")[0].strip() for block in blocks("sh") for line in block.splitlines()]
OURS = [shlex.split(line)[1:] for line in COMMANDS if line.startswith("splatinit ")]
NAMED = re.findall(r"^\| `splatinit (\w+)", README, re.MULTILINE)


def call(*words: str) -> str:
    # As wide as a terminal can be: help is not broken inside a word.
    result = CliRunner().invoke(app, words, env={"COLUMNS": "300", "TERM": "dumb"})
    assert result.exit_code == 0, result.output
    return result.output


def test_the_table_of_commands_is_complete() -> None:
    assert sorted(NAMED) == sorted(command.name for command in app.registered_commands)


@pytest.mark.parametrize("words", OURS, ids=" ".join)
def test_each_command_takes_what_the_readme_gives_it(words: list[str], tmp_path: Path) -> None:
    command, *rest = words
    text = call(command, "--help")
    for option in (word for word in rest if word.startswith("-")):
        assert re.search(rf"{option}\b", text), f"{command} has no {option}"
    layers = [load_preset(rest[k + 1]) for k, word in enumerate(rest) if word == "--config"]
    conditions = [rest[k + 1] for k, word in enumerate(rest) if word == "--where"]
    settings = dict(word.split("=", 1) for word in rest if "=" in word and word not in conditions)
    if command == "compare":
        after = {option: rest[k + 1] for k, option in enumerate(rest) if option.startswith("-")}
        inits = (after.get("--inits") or after.get("-i") or ",".join(USUAL)).split(",")
        plan_comparison(tmp_path, inits, budget=after.get("--budget") or after.get("-b"), settings=settings)
        return
    if "--init" in rest:
        settings["init.name"] = rest[rest.index("--init") + 1]
    build_config(*layers, Layer("README", settings))


@pytest.mark.parametrize("command", ["list", "doctor"])
def test_the_commands_that_only_tell_are_executed(command: str) -> None:
    assert "cpu" in call(command)


def test_what_make_is_said_to_do_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"`make (\w+)`", README))
    assert {"demo", "test", "bench"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"no target {target}"


def test_links_lead_to_files() -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        assert link.startswith("https://") or (ROOT / link).exists(), link


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """Nine small photos of nothing in particular, as a COLMAP model with points."""
    folder, rng = tmp_path / "scene", np.random.default_rng(0)
    views = []
    for k in range(9):
        camera = tiny.camera(0.2 * k - 0.8)
        path = folder / "images" / f"{k}.png"
        write_png(path, rng.integers(0, 256, (camera.height, camera.width, 3), dtype=np.uint8))
        views.append(View(path.name, camera, probe_image(path)))
    write_model(folder / "sparse" / "0", views, PointCloud(rng.normal(0, 0.5, (50, 3)), rng.uniform(0, 1, (50, 3))))
    return tmp_path


@pytest.mark.skipif(not native.available(), reason="the examples use the default backend, which is not built")
@pytest.mark.parametrize("code", blocks("python"))
def test_the_python_examples_run(code: str, scene: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(scene)
    monkeypatch.setenv("SPLATINIT_WEIGHTS", str(scene))  # there are none: nothing is fetched
    monkeypatch.setenv("SPLATINIT_THREADS", "1")
    fewer = code.replace("50_000", "60").replace('"3000steps"', '"3steps"')
    short = re.sub(r"(steps\W+)3000\b", r"\g<1>3", fewer)
    assert short != code, "the example no longer says how long it trains"
    exec(compile(short, "README.md", "exec"), {})
    first = capsys.readouterr().out.split()[0]
    assert Path(first).is_file() if "compare" in code else float(first) > 3  # a page, or a PSNR
