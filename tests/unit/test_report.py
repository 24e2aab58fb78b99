"""The page of a sweep: what it says, what it refuses, and that nothing in the tables becomes markup."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from splatinit.cli.app import app
from splatinit.errors import ConfigError, FormatError, MissingExtra
from splatinit.report import page, tables
from splatinit.report.thumbnails import first_look, small_picture, start_cloud, trained_cloud

pytest.importorskip("pyarrow", reason="the tables of a sweep need pyarrow")
pytest.importorskip("jinja2", reason="the page needs jinja2")

from sweep_results import make_sweep, write_tables  # noqa: E402

ROOM = Path(page.__file__).parent


class Outline(HTMLParser):
    """Tags, and the text outside of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.words: list[str] = []
        self._within = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._within = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._within = ""

    def handle_data(self, data: str) -> None:
        if self._within == "script":
            self.scripts[-1] += data
        elif self._within != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))

    def data(self, name: str) -> dict:
        scripts = [attrs for tag, attrs in self.tags if tag == "script"]
        return json.loads(self.scripts[[attrs.get("id") for attrs in scripts].index(name)])


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_sweep(
        tmp_path_factory.mktemp("sweep"), scenes=("fox", "a&b"), failed=[("fox", "dense", 1)], size=(24, 32)
    )


@pytest.fixture(scope="module")
def outline(sweep: Path) -> Outline:
    return Outline(page.write_report(sweep).path.read_text())


def test_the_page_says_who_wins_and_what_is_missing(outline: Outline) -> None:
    assert re.search(r"dense beats random by 2\.\d\d dB \[", outline.text)
    assert "1 of 4 pairs (fox seed 1: dense failed)" in outline.text
    assert "1 failed and 0 missing runs" in outline.text and "3 of 40 photos could be registered" in outline.text
    assert "coverage of training views" in outline.text and "F-score" not in outline.text  # which nobody measured


def test_the_page_carries_pictures_points_and_curves_and_links_the_rest(outline: Outline, sweep: Path) -> None:
    data = outline.data("data-2")
    assert data["name"] == "fox"
    first, last = data["pictures"]["views"][0], data["pictures"]["views"][-1]
    assert [shot["label"] for shot in first["shots"]] == ["truth", "sfm", "dense", "random"]
    for shot in first["shots"]:
        assert shot["image"]["small"].startswith("data:image/webp;base64,")
    assert "small" not in last["shots"][1]["image"]
    full = last["shots"][1]["image"]["full"]
    assert "%23" in full  # a # in a file's name would end the path of a link
    variant = data["clouds"]["variants"][0]
    assert (variant["start"]["n"], variant["trained"]["total"]) == (600, 1500)
    assert {curve["label"] for curve in data["curves"]} == {"sfm", "dense", "random"}
    assert len(data["curves"]) == 5  # one failed


def test_each_run_has_the_command_that_does_it_again(outline: Outline, sweep: Path) -> None:
    run = sorted(path.name for path in (sweep / "runs").iterdir())[0]
    command = f"splatinit run 'photos of a fox' --config runs/{run}/config.yaml --out again/{run}"
    assert command in outline.text
    # A failed run has no folder: its settings are spelt out.
    assert "init.name=dense train.steps=1500 seed=1" in outline.text


def test_only_our_scripts_may_run(outline: Outline) -> None:
    policy = next(attrs["content"] for tag, attrs in outline.tags if attrs.get("http-equiv"))
    assert "default-src 'none'" in policy and "unsafe-inline'; img" in policy
    kinds = [attrs.get("type") for tag, attrs in outline.tags if tag == "script"]
    run = [text for kind, text in zip(kinds, outline.scripts, strict=True) if kind is None]
    import base64

    hashes = {base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in run}
    assert hashes == set(re.findall(r"'sha256-([^']+)'", policy)) and len(hashes) == 3
    assert not [attrs for _, attrs in outline.tags if any(name.startswith("on") for name in attrs)]
    assert not [
        attrs for tag, attrs in outline.tags if tag in ("link", "img", "iframe") and "data:," not in attrs.values()
    ]


def test_nothing_in_the_tables_becomes_markup(tmp_path: Path) -> None:
    evil = '</script><img src=x onerror="alert(1)">'
    make_sweep(tmp_path, scenes=(evil, "fox"), labels=(evil, "sfm"), seeds=(0,), failed=[("fox", evil, 0)], size=(8, 8))
    found = Outline(page.write_report(tmp_path).path.read_text())
    assert not [tag for tag, _ in found.tags if tag == "img"]
    assert found.text.count('<img src=x onerror="alert(1)">') > 3  # shown as what it is
    assert found.data("overview")["labels"] == ["sfm", evil]
    assert not [script for script in found.scripts if "onerror" in script and "<img" in script]


def test_a_table_cannot_show_files_from_elsewhere(tmp_path: Path) -> None:
    make_sweep(tmp_path / "sweep", scenes=("fox",), labels=("sfm",), seeds=(0,), size=(8, 8))
    results = tables.read_results(tmp_path / "sweep")
    (tmp_path / "secret.png").write_bytes(b"x")
    inside = results.views[results.runs[0]["run"]][0]["render"]
    assert results.inside(inside) is not None
    (tmp_path / "sweep" / "link.png").symlink_to(tmp_path / "secret.png")
    for name in ("../secret.png", str(tmp_path / "secret.png"), "link.png", "a\0b", "x" * 5000, "", None, "absent.png"):
        assert results.inside(name) is None


def test_a_page_elsewhere_links_back_to_the_runs(sweep: Path, tmp_path: Path) -> None:
    made = page.write_report(sweep, tmp_path / "deep" / "page.html")
    data = Outline(made.path.read_text()).data("data-1")
    full = data["pictures"]["views"][0]["shots"][1]["image"]["full"]
    assert (made.path.parent / full.replace("%23", "#").replace("%20", " ")).resolve().is_file()


def test_other_truths_are_told(tmp_path: Path) -> None:
    make_sweep(tmp_path, scenes=("fox",), labels=("sfm", "dense"), seeds=(0,), size=(8, 8))
    runs = tables.read_results(tmp_path).runs
    runs[0]["truth_hash"] = "another"
    write_tables(tmp_path, {"runs": runs})
    assert "Not one ruler: the truth images differ between the runs of fox" in Outline(
        page.write_report(tmp_path).path.read_text()
    ).text.replace(" :", ":")


def test_bare_tables_are_enough(tmp_path: Path) -> None:
    write_tables(tmp_path, {"runs": [{"run": "a", "scene": "fox", "label": "sfm", "seed": 0, "status": "failed"}]})
    found = Outline(page.write_report(tmp_path).path.read_text())
    assert "1 failed and 0 missing runs" in found.text and "no reason was kept" in found.text


# ------------------------------------------------------------------------------------------------------------- errors
def test_a_folder_without_results_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder; expected the folder of a sweep"):
        page.write_report(tmp_path / "absent")
    with pytest.raises(ConfigError, match=r"has no results: results/runs\.parquet is not there"):
        page.write_report(tmp_path)
    result = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert result.exit_code == 2 and "run the sweep first" in result.output
    import pyarrow
    from pyarrow import parquet

    (tmp_path / "results").mkdir()
    path = tmp_path / "results" / "runs.parquet"
    names = ("run", "scene", "label", "seed", "status")
    parquet.write_table(pyarrow.table({name: pyarrow.array([], pyarrow.string()) for name in names}), path)
    with pytest.raises(ConfigError, match=r"has no results yet: results/runs\.parquet has no rows"):
        page.write_report(tmp_path)
    parquet.write_table(pyarrow.table({"run": ["a"], "scene": ["fox"]}), path)
    with pytest.raises(FormatError, match="the columns label, seed, status are missing"):
        page.write_report(tmp_path)
    path.write_bytes(b"PAR1 and then nothing")
    with pytest.raises(FormatError, match="not a readable Parquet file"):
        page.write_report(tmp_path)


@pytest.mark.parametrize(
    ("absent", "told"), [("jinja2", "jinja2, which is"), ("pyarrow jinja2", "pyarrow, jinja2, which are")]
)
def test_an_absent_package_is_named_with_its_extra(absent: str, told: str, tmp_path: Path, monkeypatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in absent.split() else find(name))
    with pytest.raises(MissingExtra, match=f"A report needs {told} not installed") as caught:
        page.write_report(tmp_path)
    assert "splatinit[report]" in caught.value.hint


def test_the_command_tells_what_it_made(sweep: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["report", str(sweep), "--out", str(tmp_path / "r.html")])
    assert result.exit_code == 0, result.output
    assert "12 runs, 1 of them failed" in result.output and (tmp_path / "r.html").stat().st_size > 1_000_000


# -------------------------------------------------------------------------------------------------------------- parts
def unpacked(cloud: dict) -> tuple[np.ndarray, np.ndarray]:
    import base64

    grid = np.frombuffer(base64.b64decode(cloud["xyz"]), "<u2").reshape(-1, 3)
    rgb = np.frombuffer(base64.b64decode(cloud["rgb"]), np.uint8).reshape(-1, 3)
    return np.asarray(cloud["low"]) + grid * np.asarray(cloud["step"]), rgb


def test_clouds_are_bounded_and_true_to_their_points(sweep: Path) -> None:
    run = sorted((sweep / "runs").iterdir())[0]
    whole = start_cloud(run / "init" / "points.ply", 10_000)
    xyz, rgb = unpacked(whole)
    assert len(xyz) == whole["n"] == 600
    assert np.abs(rgb / 255 - (0.5 + 0.5 * xyz)).max() < 0.01  # as the fixture colours its cube
    few = trained_cloud(run / "splat.ply", 100)
    xyz, _ = unpacked(few)
    assert len(xyz) == 100 and few["total"] == 1500
    assert np.abs(np.linalg.norm(xyz, axis=1) - 1).max() < 1e-3
    assert start_cloud(run / "config.yaml", 10) is None and trained_cloud(run / "init" / "points.ply", 10) is None


def test_the_viewer_begins_where_a_camera_stands(sweep: Path, tmp_path: Path) -> None:
    run = sorted((sweep / "runs").iterdir())[0]
    cloud = trained_cloud(run / "splat.ply", 1000)
    look = first_look(run / "scene" / "sparse" / "0", cloud)
    assert np.allclose(look["eye"], [0, 0, -4], atol=1e-6) and np.allclose(look["up"], [0, -1, 0], atol=1e-6)
    assert np.allclose(look["target"], 0, atol=0.2)
    assert look["fovy"] == pytest.approx(2 * np.degrees(np.arctan(12 / 30)))
    assert np.allclose(first_look(tmp_path, cloud)["target"], 0, atol=0.2)  # no model


def test_a_picture_that_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n and nothing")
    assert small_picture(tmp_path / "x.png") is None and small_picture(tmp_path / "absent.png") is None


def test_the_bundled_viewer_is_that_of_its_source() -> None:
    sources = [(ROOM / "viewer" / name).read_bytes() for name in ("viewer.js", "package-lock.json")]
    made_from = hashlib.sha256(b"".join(sources)).hexdigest()
    head = (ROOM / "assets" / "viewer.min.js").read_text()[:2000]
    assert made_from in head, "run `make viewer`: viewer.js or its packages changed since the bundle was made"
    assert "Permission is hereby granted" in head  # three.js's licence goes along
