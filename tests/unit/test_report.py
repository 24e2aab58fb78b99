"""The page of a sweep: what it says, what it refuses, and that nothing in the tables becomes markup."""

from __future__ import annotations

import hashlib
import html
import importlib.util
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from splatinit.cli.app import app
from splatinit.errors import MissingExtra
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
        self.html = re.sub(r"<script.*?</script>", "", text, flags=re.S)
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

    @property
    def items(self) -> list[str]:
        """The texts of lists' items."""
        return [
            html.unescape(re.sub("<[^>]+>", "", each)) for each in re.findall(r"<li[^>]*>(.*?)</li>", self.html, re.S)
        ]

    def table(self, name: str) -> list[list[str]]:
        """The cells of the table with this label, row by row."""
        found = re.search(rf'<table aria-label="{re.escape(html.escape(name))}">(.*?)</table>', self.html, re.S)
        rows = re.findall(r"<tr>(.*?)</tr>", found.group(1), re.S)
        cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.S) for row in rows]
        return [[" ".join(html.unescape(re.sub("<[^>]+>", " ", cell)).split()) for cell in row] for row in cells]

    def data(self, name: str) -> dict:
        scripts = [attrs for tag, attrs in self.tags if tag == "script"]
        return json.loads(self.scripts[[attrs.get("id") for attrs in scripts].index(name)])


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_sweep(
        tmp_path_factory.mktemp("sweep"),
        scenes=("fox", "a&b"),
        labels=("sfm", "dense", "random", "scan"),
        failed=[("fox", "dense", 1)],
        only={"scan": "a&b"},
        size=(24, 32),
    )


@pytest.fixture(scope="module")
def outline(sweep: Path) -> Outline:
    return Outline(page.write_report(sweep).path.read_text())


def test_the_page_says_who_wins_and_what_is_missing(outline: Outline) -> None:
    told = r"dense beats random by 2\.\d\d dB \[.*\] over 2 scenes, 3 pairs of runs, with 0\.60× the Gaussians\."
    assert re.search(told, outline.text)
    assert "1 of 4 pairs (fox seed 1: dense failed)" in outline.text
    assert "1 run failed, 0 have not run" in outline.text
    assert "fox · dense (seed 1): TooFewMatches: 3 of 40 photos could be registered" in outline.text
    assert "Coverage: share of" in outline.text and "F-score" not in outline.text  # which nobody measured


def test_a_variant_of_one_scene_is_compared_there_only(outline: Outline) -> None:
    both, one = outline.table("Summary over a&b, fox"), outline.table("Summary over a&b")
    assert [row[0] for row in both[1:]] == ["dense", "sfm", "random"]
    assert {row[0] for row in one[1:]} == {"dense", "sfm", "random", "scan"}
    best = {name: [row[0] for row in both[1:] if row[k].startswith("★")] for k, name in enumerate(both[0])}
    assert best["PSNR dB"] == ["dense"]
    assert best["Gaussians"] == ["sfm"]  # random has more; dense as good as sfm has more too
    by_scene = {row[0]: row[1:] for row in outline.table("PSNR by scene")}
    assert by_scene["scan"][1] == "–" and by_scene["dense"][1].endswith("#1 some failed")
    ranks = sorted(re.search(r"#(\d)", row[0]).group(1) for name, row in by_scene.items() if name != "variant")
    assert ranks == ["1", "2", "3", "4"]
    # Its sentences speak of its one scene, and lack nothing.
    told = [text for text in outline.items if "scan" in text]
    assert len(told) == 3 and all("over 1 scene × 2 seeds" in text and "Left out" not in text for text in told)


def test_time_to_quality_counts_poses_and_start(outline: Outline) -> None:
    rows = {row[0]: row[1:] for row in outline.table("Time to the quality of sfm")}
    # sfm needs 10 s to match photos besides its 1.5 s and its training (2 s a hundred steps), and is there at its end.
    assert 37 < float(rows["sfm"][0]) <= 41.5 and rows["sfm"][-1] == "1.00 2 scenes"
    assert float(rows["dense"][-1].split()[0]) < 1  # it comes earlier to what sfm ends with
    assert rows["random"] == ["not reached", "not reached", "–"]
    levels = outline.table("Time to quality in fox")
    assert levels[1] == ["all seconds", "of training"] * 3
    random = next(row for row in levels if row[0] == "random")
    assert float(random[1]) == pytest.approx(float(random[2]) + 1.5, abs=0.11)
    numbers = outline.table("The curves of fox in numbers")
    assert numbers[0] == ["variant", "step 200", "step 500", "step 1000", "step 1500"]


def test_the_page_carries_pictures_points_and_curves_and_links_the_rest(outline: Outline, sweep: Path) -> None:
    data = outline.data("data-2")  # of fox
    first, last = data["pictures"]["views"][0], data["pictures"]["views"][-1]
    assert [shot["label"] for shot in first["shots"]] == ["truth", "sfm", "dense", "random"]
    for shot in first["shots"]:
        assert shot["image"]["small"].startswith("data:image/webp;base64,")
    assert "small" not in last["shots"][1]["image"]
    full = last["shots"][1]["image"]["full"]
    assert "%23" in full  # a # in a file's name would end the path of a link
    variant = data["clouds"]["variants"][0]
    assert (variant["start"]["n"], variant["trained"]["total"]) == (600, 1500)
    assert {curve["label"] for curve in data["plot"]["curves"]} == {"sfm", "dense", "random"}
    assert len(data["plot"]["curves"]) == 5  # one failed
    sfm = next(curve for curve in data["plot"]["curves"] if curve["label"] == "sfm")
    assert sfm["total"][-1] == pytest.approx(sfm["seconds"][-1] + 11.5)


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
    assert hashes == set(re.findall(r"'sha256-([^']+)'", policy)) and len(hashes) == 6
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
    assert found.data("dots")["labels"] == ["sfm", evil]
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


def test_other_truths_are_told_and_not_compared(tmp_path: Path) -> None:
    make_sweep(tmp_path, labels=("sfm", "dense"), seeds=(0,), size=(8, 8))
    runs = tables.read_results(tmp_path).runs
    next(row for row in runs if row["scene"] == "fox")["truth_hash"] = "another"
    write_tables(tmp_path, {"runs": runs})
    found = Outline(page.write_report(tmp_path).path.read_text())
    assert "Not one ruler: the truth images differ between the runs of fox" in found.text
    assert "Left out of these means: fox, whose runs were scored against different truths" in found.text
    assert "over 1 scene × 1 seed" in found.text and "over 2 scenes" not in found.text


def test_other_versions_and_machines_are_told(tmp_path: Path) -> None:
    make_sweep(tmp_path, scenes=("fox",), labels=("sfm", "dense", "random"), size=(8, 8))
    runs = tables.read_results(tmp_path).runs
    runs[0] |= {"git": "fedcba987654", "machine": "another"}
    write_tables(tmp_path, {"runs": runs})
    text = Outline(page.write_report(tmp_path).path.read_text()).text
    assert "Not one version: commit 0123456789ab (5 runs), fedcba987654 (fox dense seed 0)." in text
    assert "Not one machine: processor test (5 runs), another (fox dense seed 0). Seconds do not compare" in text


def test_the_budget_is_said(outline: Outline, tmp_path: Path) -> None:
    assert "Every run got the same 1500 steps of training." in outline.text
    row = {"scene": "fox", "status": "done", "psnr": 20.0, "gaussians": 5, "seed": 0}
    timed = {"label": "sfm", "settings": json.dumps({"train": {"steps": 7000, "seconds": 120.0}})}
    other = {"label": "dense", "settings": json.dumps({"train": {"steps": 7000, "seconds": None}})}
    write_tables(tmp_path, {"runs": [row | timed | {"run": "a"}, row | other | {"run": "b"}]})
    text = Outline(page.write_report(tmp_path).path.read_text()).text
    assert "Every run got dense: 7000 steps of training; sfm: 120 s for start and training." in text


def test_bare_tables_are_enough(tmp_path: Path) -> None:
    row = {"run": "a", "scene": "fox", "label": "sfm", "seed": 0, "status": "done", "psnr": 20.0, "gaussians": 5}
    lost = row | {"run": "b", "label": "dense", "status": "failed", "psnr": None, "gaussians": None}
    write_tables(tmp_path, {"runs": [row, lost]})
    found = Outline(page.write_report(tmp_path).path.read_text())
    assert "1 run failed, 0 have not run" in found.text and "fox · dense (seed 0): no reason was kept" in found.text


def test_the_plan_says_what_is_missing(tmp_path: Path) -> None:
    make_sweep(tmp_path, scenes=("fox",), labels=("sfm", "dense"), seeds=(0,), size=(8, 8))
    cells = [("fox", "sfm", 0), ("fox", "dense", 0), ("fox", "dense", 1), ("chair", "sfm", 0)]
    rows = [{"scene": a, "label": b, "path": f"photos/{a}", "config": {"seed": c}} for a, b, c in cells]
    (tmp_path / "plan.yaml").write_text(json.dumps({"sweep": "known", "runs": rows}))
    text = Outline(page.write_report(tmp_path).path.read_text()).text
    assert "0 runs failed, 2 have not run" in text
    assert "chair · sfm (seed 0): not run yet" in text and "fox · dense (seed 1): not run yet" in text


# ------------------------------------------------------------------------------------------------------------- errors
def refused(sweep: Path) -> str:
    """What the command prints when it refuses."""
    result = CliRunner().invoke(app, ["report", str(sweep)], terminal_width=400)
    assert result.exit_code == 2, result.output
    return " ".join(result.output.split())


def test_a_folder_without_results_is_refused_in_words(tmp_path: Path) -> None:
    assert "absent: no such folder; expected the folder of a sweep." in refused(tmp_path / "absent")
    (tmp_path / "file").write_text("x")
    assert "file: not a folder; expected the folder of a sweep." in refused(tmp_path / "file")
    told = refused(tmp_path)
    assert "is no sweep with results: it has no results/runs.parquet." in told and "run the sweep first" in told


def test_results_without_a_finished_run_are_refused_in_words(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    (tmp_path / "results").mkdir()
    kinds = [pyarrow.string()] * 3 + [pyarrow.int64(), pyarrow.string(), pyarrow.float64(), pyarrow.int64()]
    names = ("run", "scene", "label", "seed", "status", "psnr", "gaussians")
    table = {name: pyarrow.array([], kind) for name, kind in zip(names, kinds, strict=True)}
    parquet.write_table(pyarrow.table(table), tmp_path / "results" / "runs.parquet")
    assert "has no finished run: its table of runs has no rows. Run the sweep first." in refused(tmp_path)
    make_sweep(tmp_path, scenes=("fox",), labels=("sfm",), seeds=(3,), failed=[("fox", "sfm", 3)])
    assert (
        "has no finished run: 1 failed, the first (fox sfm seed 3) with: TooFewMatches: 3 of 40 photos could be "
        "registered Mend that, and give the `splatinit sweep` command again with --retry-failed."
    ) in refused(tmp_path)


def test_tables_of_another_version_are_refused_in_words(tmp_path: Path) -> None:
    row = {"run": "a", "scene": "fox", "label": "sfm", "seed": 0, "status": "done", "psnr": 20.0, "gaussians": 5}
    write_tables(tmp_path, {"runs": [{"run": "a", "scene": "fox", "seed": 0}]})
    assert "the columns label, status, psnr, gaussians are missing; expected at least run, scene," in refused(tmp_path)
    write_tables(tmp_path, {"runs": [row | {"seed": "0"}]})
    assert "runs.parquet: the column seed holds string; expected whole numbers." in refused(tmp_path)
    write_tables(tmp_path, {"runs": [row, row | {"seed": None}]})
    assert "runs.parquet: the column seed holds int64 with gaps; expected whole numbers." in refused(tmp_path)
    write_tables(tmp_path, {"runs": [row | {"seconds_init": "3 s"}]})
    assert "runs.parquet: the column seconds_init holds string; expected numbers." in refused(tmp_path)
    write_tables(tmp_path, {"runs": [row], "steps": [{"run": "a", "step": 1.5}]})
    assert "steps.parquet: the column step holds double; expected whole numbers." in refused(tmp_path)


def test_damaged_tables_are_refused_in_words(tmp_path: Path) -> None:
    make_sweep(tmp_path, scenes=("fox",), labels=("sfm",), seeds=(0,), size=(8, 8))
    for name in ("views", "runs"):
        (tmp_path / "results" / f"{name}.parquet").write_bytes(b"PAR1 and then nothing")
        told = refused(tmp_path)
        assert f"{name}.parquet: not a readable Parquet file" in told and "`splatinit results` makes it anew" in told


def test_a_sweep_that_still_runs_has_its_tables_made_first(tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text("sweep: known\nruns: []\n")
    assert "has no finished run: its table of runs has no rows." in refused(tmp_path)
    assert (tmp_path / "results" / "steps.parquet").is_file()


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
    assert "14 runs, 1 of them failed" in result.output and (tmp_path / "r.html").stat().st_size > 1_000_000


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


def test_a_picture_in_the_page_is_of_bounded_size(tmp_path: Path) -> None:
    from PIL import Image

    noise = np.random.default_rng(0).integers(0, 256, (400, 800, 3)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    Image.fromarray(np.full_like(noise, 90)).save(tmp_path / "flat.png")

    def opened(text: str) -> tuple[int, tuple[int, int]]:
        import base64
        import io

        data = base64.b64decode(text.partition(",")[2])
        return len(data), Image.open(io.BytesIO(data)).size

    size, shape = opened(small_picture(tmp_path / "noise.png"))
    assert size <= 12_000 and shape[0] == 2 * shape[1] < 360
    assert opened(small_picture(tmp_path / "flat.png"))[1] == (360, 180)


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
