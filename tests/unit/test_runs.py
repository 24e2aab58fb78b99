"""Run folders: whose they are, what may be re-used, and that refusing writes nothing."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from splatinit.errors import ConfigError, FolderInUse, FormatError
from splatinit.io.runs import TrainLog, differences, find_run, fingerprint_images, open_run, take_run
from splatinit.types import Camera, DepthPrior, ImageSet, Initialization, PointCloud

CONFIG = {"train": {"steps": 10, "lr": 1e-15}, "init": {"name": "sfm"}, "eval": {"lpips": ["vgg"]}, "seed": 0}
INPUTS = {"scene": "/photos", "photos": "abc"}


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_same_run_is_opened_again_and_its_sessions_are_kept(tmp_path):
    first = open_run(tmp_path / "a" / "run", CONFIG, INPUTS, {"git": "1"})
    again = open_run(first.root, CONFIG, {**INPUTS, "scene": "/moved/photos"}, {"git": "2"})
    env = json.loads(again.env.read_text())
    assert [session["git"] for session in env["sessions"]] == ["1", "2"]
    assert env["inputs"]["scene"] == "/moved/photos"
    assert find_run(first.root) == first


@pytest.mark.parametrize(
    ("config", "inputs", "message", "changed"),
    [
        ({**CONFIG, "seed": 1}, INPUTS, "another config: seed was 0, is now 1", ["seed"]),
        (
            {**CONFIG, "train": {"steps": 11, "lr": 2e-15}},
            INPUTS,
            "train.steps was 10, is now 11, train.lr was 1e-15, is now 2e-15",
            ["train.steps", "train.lr"],
        ),
        (
            {**CONFIG, "init": {"name": "random", "count": 5}},
            INPUTS,
            "init.count was unset",
            ["init.name", "init.count"],
        ),
        (CONFIG, {**INPUTS, "photos": "xyz"}, "another input: photos changed", ["photos"]),
        (CONFIG, {**INPUTS, "init.path": "f"}, "another input: init.path changed", ["init.path"]),
    ],
)
def test_another_config_or_input_is_refused_by_name(tmp_path, config, inputs, message, changed):
    run = open_run(tmp_path / "run", CONFIG, INPUTS, {})
    before = snapshot(run.root)
    with pytest.raises(ConfigError, match=message) as error:
        open_run(run.root, config, inputs, {})
    assert error.value.changed == changed
    assert snapshot(run.root) == before


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(ConfigError, match="not a run of splatinit"):
        open_run(tmp_path, CONFIG, INPUTS, {})
    with pytest.raises(ConfigError, match="not a run of splatinit"):
        open_run(tmp_path / "thesis.tex", CONFIG, INPUTS, {})
    assert snapshot(tmp_path) == {"thesis.tex": b"precious"}
    with pytest.raises(ConfigError, match="is not a run folder"):
        find_run(tmp_path)


def test_damaged_files_are_named(tmp_path):
    run = open_run(tmp_path / "run", CONFIG, INPUTS, {})
    run.stages.write_text('{"init": ')
    with pytest.raises(FormatError, match="stages.json, line 1, column 10: not valid JSON"):
        run.record()
    for text in ("[]", '{"init": 3}'):
        run.stages.write_text(text)
        with pytest.raises(FormatError, match="stages.json is not a record of stages"):
            run.record()
    for text in ("{}", "[]", '{"inputs": {}, "sessions": 1}'):
        run.env.write_text(text)
        with pytest.raises(FormatError, match="env.json is not an env.json that splatinit wrote"):
            open_run(run.root, CONFIG, INPUTS, {})
    run.config.write_text("- 1\n")
    with pytest.raises(FormatError, match="not a config that splatinit wrote"):
        open_run(run.root, CONFIG, INPUTS, {})


def test_a_stage_knows_whether_its_files_are_as_it_left_them(tmp_path):
    run = open_run(tmp_path / "run", CONFIG, INPUTS, {})
    run.splat.write_bytes(b"gaussians")
    run.finish_stage("train", [run.splat], seconds=1.0)
    run.finish_stage("other", [], seconds=2.0)
    assert run.record()["train"]["seconds"] == 1.0 and run.damage("train") is None and run.damage("other") is None
    for damage, text in (
        (lambda: run.splat.write_bytes(b"gauss1ans"), r"splat.ply \(9 bytes\) is not as it was written"),
        (lambda: run.splat.write_bytes(b""), r"splat.ply \(0 bytes\) is not as it was written"),
        (run.splat.unlink, "splat.ply is missing"),
    ):
        damage()
        assert re.search(text, run.damage("train"))
    run.forget_stage("train")
    assert list(run.record()) == ["other"]
    with pytest.raises(KeyError):
        run.damage("train")
    run.stages.write_text('{"old": {"seconds": 1}}')
    assert run.damage("old") == "its files were not recorded"


def test_a_taken_run_is_held_and_freed_of_what_killed_processes_left(tmp_path):
    root = tmp_path / "run"
    with take_run(root, CONFIG, INPUTS, {}) as run:
        assert run.notes == ()
        with pytest.raises(FolderInUse), take_run(root, CONFIG, INPUTS, {}):
            pytest.fail("held twice")
        with (
            pytest.raises(ConfigError, match="seed was 0, is now 1"),
            take_run(root, {**CONFIG, "seed": 1}, INPUTS, {}),
        ):
            pytest.fail("another config")
    ours = [root / ".splat.tmp-abcdefgh.ply", root / ".train.tmp-abcdefgh.jsonl", root / "eval" / ".a.tmp-abcdefgh.png"]
    theirs = [root / ".film.tmp-abcdefgh.mp4", root / "eval" / ".notes", tmp_path / ".splat.tmp-abcdefgh.ply"]
    (root / "eval").mkdir()
    for path in (*ours, *theirs):
        path.write_bytes(b"half")
    with take_run(root, CONFIG, INPUTS, {}):
        pass
    assert [path.exists() for path in (*ours, *theirs)] == [False] * 3 + [True] * 3
    assert len(json.loads((root / "env.json").read_text())["sessions"]) == 2


def test_a_start_comes_back_with_its_priors(tmp_path):
    run = open_run(tmp_path / "run", CONFIG, INPUTS, {})
    rng = np.random.default_rng(0)
    # Colours of 8 bit, as the file keeps them.
    points = PointCloud(xyz=rng.normal(size=(7, 3)), rgb=rng.integers(0, 256, (7, 3)) / 255, radius=np.full(7, 0.1))
    prior = DepthPrior("images/a.jpg", np.ones((3, 4), np.float32), np.full((3, 4), 0.5, np.float32))
    start = Initialization(
        points, {"images/a.jpg": prior}, {"draw": 1.5}, 10.0, {"initializer": "x", "count": 7}, ("a note",)
    )
    run.write_start(start)
    back = run.read_start()
    np.testing.assert_array_equal(back.points.xyz, points.xyz)
    np.testing.assert_allclose(back.points.rgb, points.rgb, atol=1e-6)
    np.testing.assert_array_equal(back.points.radius, points.radius)
    np.testing.assert_array_equal(back.depth_priors["images/a.jpg"].confidence, prior.confidence)
    assert (back.seconds, back.recipe, back.notes) == (start.seconds, start.recipe, start.notes)
    # Written and read again: the same file, so that a resumed run starts from the same numbers.
    before = run.points.read_bytes()
    run.write_start(back)
    assert run.points.read_bytes() == before


def test_the_log_of_a_resumed_training_reads_as_if_nothing_had_happened(tmp_path):
    path = tmp_path / "train.jsonl"
    log = TrainLog(path)
    for step in (10, 20, 20, 30):
        log({"step": step, "loss": float("nan") if step == 10 else 0.5})
    with open(path, "a") as file:
        file.write('{"step": 40, "lo')  # killed here
    resumed = TrainLog(path)
    resumed({"step": 20, "loss": 0.5})
    resumed({"step": 30, "loss": 0.25})
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["step"] for row in rows] == [10, 20, 30]
    assert rows[0]["loss"] is None and rows[-1]["loss"] == 0.25


def test_a_measurement_that_is_taken_again_drops_no_row_before_it(tmp_path):
    path = tmp_path / "train.jsonl"
    log = TrainLog(path)
    for row in ({"step": 10, "n": 3}, {"step": 10, "psnr": 20.0}, {"step": 10, "test_psnr": 19.0}, {"step": 20}):
        log(row)
    TrainLog(path)({"step": 10, "test_psnr": 19.0, "seconds": 2})
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert rows == [{"step": 10, "n": 3}, {"step": 10, "psnr": 20.0}, {"step": 10, "test_psnr": 19.0, "seconds": 2}]
    TrainLog(path)({"step": 10, "psnr": 21.0})
    assert [json.loads(line) for line in path.read_text().splitlines()] == [{"step": 10, "psnr": 21.0}]


def test_differences():
    assert differences({"a": {"b": 1}, "c": 2}, {"a": {"b": 1, "d": None}, "c": 3}) == [
        ("a.d", None, None),
        ("c", 2, 3),
    ]


class OnePhoto:
    name, width, height, has_alpha = "a.png", 4, 3, False

    def __init__(self, path: Path) -> None:
        self.path = path


def test_the_fingerprint_sees_what_matters(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"1234")
    photo = OnePhoto(path)

    def fingerprint(size=(4, 3), center=0.0, test=None, root=tmp_path):
        pose = np.eye(4)
        pose[0, 3] = center
        camera = Camera(np.diag([5.0, 5.0, 1.0]), pose, *size)
        images = ImageSet(root, "x", (photo,), {"a.png": size}, {"a.png": camera}, test_names=test)
        return fingerprint_images(images)

    base = fingerprint()
    assert base == fingerprint(root=tmp_path / "elsewhere")
    assert len({base, fingerprint(size=(2, 2)), fingerprint(center=1.0), fingerprint(test=frozenset(["a.png"]))}) == 4
    path.write_bytes(b"12345")
    assert fingerprint() != base
