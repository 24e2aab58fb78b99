"""``splatinit compare``: one scene, several starts, ending with a table and a page; a second call does what is new."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from splatinit.cli.app import app
from splatinit.sweep import SweepFolder, store

pytest.importorskip("pyarrow", reason="the tables of a sweep need pyarrow")
pytest.importorskip("jinja2", reason="a report needs jinja2")
pytestmark = pytest.mark.e2e
SMALL = ("eval.lpips=none", "seeding.sh_degree=1", "train.checkpoint_seconds=0")


def compare(*words: object):
    return CliRunner().invoke(app, ["compare", *map(str, words), *SMALL], env={"COLUMNS": "300"})


def rows(out: Path, table: str = "runs") -> list[dict]:
    return store.read_table(SweepFolder(out), table).to_pylist()


def sessions(out: Path) -> dict[str, int]:
    return {path.parent.name: len(json.loads(path.read_text())["sessions"]) for path in out.glob("runs/*/env.json")}


def test_a_comparison_and_one_start_more(tiny_scene, tmp_path):
    out = tmp_path / "out"
    words = (tiny_scene, "-o", out, "--budget", "60steps", "--seeds", 2, "--points", 40)
    first = compare(*words, "--inits", "sfm,random")
    assert first.exit_code == 0, first.output
    assert "4 of 4 runs done, 0 failed" in first.output and "tiny: 60 steps" in first.output
    assert {(row["label"], row["seed"], row["steps"]) for row in rows(out)} == {
        (label, seed, 60) for label in ("sfm", "random") for seed in (0, 1)
    }
    assert {row["points"] for row in rows(out) if row["label"] == "random"} == {40}
    # Quality over time, and the same ruler for all.
    for run in {row["run"] for row in rows(out)}:
        measured = [row["step"] for row in rows(out, "steps") if row["run"] == run and row["psnr"] is not None]
        assert measured == [3, 6, 12, 21, 30, 45, 60]
    assert len({row["truth_hash"] for row in rows(out)}) == 1
    # Who wins is said with how sure that is, and the page is there.
    assert "sfm beats random by" in first.output or "does not separate" in first.output
    assert "over 1 scene × 2 seeds" in first.output
    page = (out / "report.html").read_text()
    assert "sfm" in page and str(out / "report.html") in first.output.replace("\n", "")
    # One start more: only that is run.
    more = compare(*words, "--inits", "sfm,random,rain")
    assert more.exit_code == 0 and "6 of 6 runs done (4 of them before), 0 failed" in more.output, more.output
    assert set(sessions(out).values()) == {1} and len(sessions(out)) == 6
    assert len(list((out / "poses").glob("*/poser.json"))) == 2, "with points and without"


def test_the_same_time_for_start_and_training(tiny_scene, tmp_path):
    out = tmp_path / "out"
    done = compare(tiny_scene, "-o", out, "--budget", "2s", "--inits", "sfm,sfm+random", "random.count=50")
    assert done.exit_code == 2 and "unknown key 'random.count'" in done.output, "the start is called sfm+random"
    done = compare(tiny_scene, "-o", out, "--budget", "2s", "--inits", "sfm,sfm+random", "sfm+random.random.count=50")
    assert done.exit_code == 0, done.output
    assert "tiny: 2 s for start and training" in done.output
    # How much later than the time it ends depends on what else the machine does: not by more than a step and a look.
    assert all(row["steps"] > 1 and row["seconds_init"] + row["seconds_train"] >= 1.99 for row in rows(out))
    for run in {row["run"] for row in rows(out)}:
        seconds = [row["seconds"] for row in rows(out, "steps") if row["run"] == run and row["psnr"] is not None]
        assert seconds == sorted(seconds) and len(seconds) > 1


def test_what_is_refused_and_what_fails(tiny_scene, tmp_path):
    for words, text in (
        ((tiny_scene, "--inits", "sfm,nrf"), "Did you mean 'nerf'"),
        ((tiny_scene.parent / "tny", "--inits", "sfm"), "Did you mean 'tiny'"),
        ((tiny_scene, "--budget", "soon"), "expected a time or a number of steps"),
        ((tiny_scene, "init.count=5"), "it is not said of which initializer"),
        ((tiny_scene, "tran.steps=5"), "Did you mean train.steps"),
    ):
        refused = compare(*words, "-o", tmp_path / "refused")
        assert refused.exit_code == 2 and text in refused.output, refused.output
    assert not (tmp_path / "refused").exists()
    # Photos that cannot be posed: rows with their reason, and no page of nothing.
    (tmp_path / "lone").mkdir()
    (tmp_path / "lone" / "a.png").write_bytes(next((tiny_scene / "images").iterdir()).read_bytes())
    failed = compare(tmp_path / "lone", "-o", tmp_path / "out", "--inits", "sfm,random", "--budget", "5steps")
    assert failed.exit_code == 1 and "0 of 2 runs done, 2 failed" in failed.output
    assert "a scene needs at least two" in failed.output and not (tmp_path / "out" / "report.html").exists()
