"""The tables hold what finished, whole run folders hold, and nothing of any other."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading

import pytest
import yaml

import splatinit
from splatinit.errors import ConfigError, FormatError, MissingExtra
from splatinit.io.atomic import write_json
from splatinit.io.locks import hold, hold_when_free, is_held
from splatinit.sweep import SweepFolder, expand, store
from splatinit.sweep.worker import write_failure

pytest.importorskip("pyarrow")
ENV = {
    "inputs": {"scene": "/x/fox", "photos": "1"},
    "sessions": [
        {
            "started": "2026-01-02T03:04:05+00:00",
            "splatinit": splatinit.__version__,
            "git": "abc",
            "packages": {"torch": "2.13.0"},
            "processor": "P",
            "cores": 2,
            "threads": 1,
            "seconds_read": 0.5,
        }
    ],
}
METRICS = {
    "mean": {"psnr": 20.5, "ssim": 0.75, "lpips": {"alex": 0.25}},
    "gaussians": 7,
    "backend": "cpu",
    "images": [
        {
            "name": f"{k}.jpg",
            "psnr": 20.0 + k,
            "ssim": None,
            "lpips": {},
            "render": f"renders/{k}.png",
            "truth": f"truth/{k}.png",
            "error": None,
        }
        for k in range(2)
    ],
}
LOG = [
    {"step": 5, "loss": 0.5, "psnr": 18.0, "n": 4, "seconds": 0.1},
    {"step": 5, "test_psnr": 17.5, "n": 4, "seconds": 0.1, "measured_in": 0.3},
    {"step": 6, "cloned": 3, "n": 7},
    {"step": 8, "test_psnr": 19.5, "n": 6, "seconds": 0.15, "measured_in": 0.3},
    {"step": 10, "loss": 0.4, "psnr": 19.0, "n": 7, "seconds": 0.2},
]


@pytest.fixture
def sweep(tmp_path) -> SweepFolder:
    """A sweep of five runs, none of them begun."""
    folder = SweepFolder(tmp_path / "sweep")
    tree = {"scenes": ["x/fox"], "inits": ["sfm", "random", "rain", "acui", "sfm+random"], "seeds": 1}
    folder.write_plan(expand({**tree, "name": "five"}, "my.yaml", scenes_exist=False))
    return folder


def hashes(sweep: SweepFolder) -> list[str]:
    return [run.run for run in sweep.read_plan()[1]]


def finish(sweep: SweepFolder, run: str, *, render: bytes = b"r", **stats: object) -> None:
    """A run folder as a finished run leaves it."""
    folder = sweep.run(run)
    planned = next(each for each in sweep.read_plan()[1] if each.run == run)
    for path in (folder.points, folder.splat, folder.scene / "poser.json"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(path.name.encode())
    pictures = [folder.eval / image[key] for image in METRICS["images"] for key in ("render", "truth")]
    for path in pictures:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(render if "renders" in path.parts else b"t")
    folder.config.write_text(yaml.safe_dump(dict(planned.config)))
    write_json(folder.env, ENV)
    write_json(folder.start_stats, {"points": 4, "peak_memory_mb": 90.0, **stats})
    write_json(folder.eval / "metrics.json", METRICS)
    folder.train_log.write_text("".join(json.dumps(row) + "\n" for row in LOG) + '{"step": 1')
    folder.finish_stage("pose", [folder.scene / "poser.json"], seconds=1.0, poser="given")
    folder.finish_stage("init", [folder.points, folder.start_stats], seconds=2.0, points=4)
    folder.finish_stage("train", [folder.splat], seconds=3.0, steps=10, gaussians=7, peak_memory_mb=100.5)
    folder.finish_stage("eval", [*pictures, folder.eval / "metrics.json"], seconds=4.0)


def rows(sweep: SweepFolder, table: str = "runs") -> list[dict]:
    return store.read_table(sweep, table).to_pylist()


def test_the_tables_of_finished_failed_and_open_runs(sweep):
    sfm, random, rain, acui, union = hashes(sweep)
    finish(sweep, sfm, quality={"coverage": 0.5, "later": 1})
    finish(sweep, union, render=b"other")
    write_failure(sweep, random, "No room.\n  Make some.", "OutOfMemory", "train")
    sweep.run(random).root.mkdir()
    sweep.run(random).finish_stage("init", [], points=12)
    found = store.collect(sweep)
    assert found.notes == []
    done, failed, other = rows(sweep)
    assert list(done) == list(store.TABLES["runs"])
    assert {key: value for key, value in done.items() if key not in ("settings", "renders_hash", "truth_hash")} == {
        "run": sfm,
        "sweep": "five",
        "scene": "fox",
        "label": "sfm",
        "init": "sfm",
        "densify": "adc",
        "seed": 0,
        "status": "done",
        "error": None,
        "psnr": 20.5,
        "ssim": 0.75,
        "lpips_alex": 0.25,
        "lpips_vgg": None,
        "points": 4,
        "gaussians": 7,
        "steps": 10,
        "seconds_read": 0.5,
        "seconds_pose": 1.0,
        "seconds_init": 2.0,
        "seconds_train": 3.0,
        "seconds_eval": 4.0,
        "peak_memory_mb": 100.5,
        "backend": "cpu",
        "splatinit": splatinit.__version__,
        "git": "abc",
        "torch": "2.13.0",
        "machine": "P",
        "cores": 2,
        "threads": 1,
        "started": "2026-01-02T03:04:05+00:00",
        "folder": f"runs/{sfm}",
    }
    assert json.loads(done["settings"])["init"]["name"] == "sfm"
    assert done["truth_hash"] == other["truth_hash"] and done["renders_hash"] != other["renders_hash"]
    assert (other["init"], other["label"]) == ("sfm+random", "sfm+random")
    assert (failed["status"], failed["error"], failed["points"], failed["psnr"]) == (
        "failed",
        "No room.\n  Make some.",
        12,
        None,
    )
    views = [row for row in rows(sweep, "views") if row["run"] == sfm]
    assert [(row["view"], row["psnr"]) for row in views] == [("0.jpg", 20.0), ("1.jpg", 21.0)]
    assert (sweep.root / views[0]["render"]).read_bytes() == b"r" and views[0]["error"] is None
    steps = [row for row in rows(sweep, "steps") if row["run"] == sfm]
    assert [(row["step"], row["preview_psnr"], row["psnr"], row["gaussians"]) for row in steps] == [
        (5, 18.0, 17.5, 4),
        (8, None, 19.5, 6),
        (10, 19.0, 20.5, 7),
    ]
    starts = rows(sweep, "starts")
    assert [(row["points"], row["coverage"], row["fscore"]) for row in starts] == [(4, 0.5, None), (4, None, None)]


def test_without_a_log_the_last_step_is_still_a_row(sweep):
    run = hashes(sweep)[0]
    finish(sweep, run)
    sweep.run(run).train_log.unlink()
    store.collect(sweep)
    (row,) = rows(sweep, "steps")
    assert (row["step"], row["psnr"], row["seconds"], row["preview_psnr"]) == (10, 20.5, 3.0, None)


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


DAMAGES = {
    "a splat that was cut off": (lambda run: cut(run.splat), "splat.ply .* is not as it was written"),
    "a picture that is gone": (lambda run: (run.eval / "truth" / "0.png").unlink(), "0.png is missing"),
    "other scores": (
        lambda run: (run.eval / "metrics.json").write_text(json.dumps(METRICS | {"gaussians": 8}, indent=1) + "\n"),
        "metrics.json .* is not as it was written",
    ),
    "another config": (lambda run: run.config.write_text("train: {steps: 3}"), "was made with another"),
    "no config": (lambda run: run.config.write_text("[]"), "config.yaml is not a config"),
    "a stage without its files": (
        lambda run: write_json(run.stages, run.record() | {"eval": {"seconds": 1.0}}),
        "the files of 'eval' were not recorded",
    ),
    "no env": (lambda run: run.env.unlink(), "cannot be read"),
    "stages that are none": (lambda run: run.stages.write_text("[]"), "not a record of stages"),
    "another version's env": (lambda run: write_json(run.env, {"sessions": [{}]}), "KeyError.*Another version"),
    "a number that is none": (
        lambda run: write_json(run.env, ENV | {"sessions": [ENV["sessions"][0] | {"cores": "two"}]}),
        "cores is 'two'",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_not_whole_is_left_out_and_said(sweep, damage):
    first, second, *_ = hashes(sweep)
    finish(sweep, first)
    finish(sweep, second)
    harm, text = DAMAGES[damage]
    harm(sweep.run(first))
    found = store.collect(sweep)
    assert [row["run"] for row in rows(sweep)] == [second]
    (note,) = found.notes
    assert str(sweep.run(first).root) in note
    assert re.search(text, note), note


@pytest.mark.parametrize("stage", store.STAGES)
def test_unfinished_runs_are_no_rows_and_need_no_word(sweep, stage):
    run = hashes(sweep)[0]
    finish(sweep, run)
    sweep.run(run).forget_stage(stage)
    found = store.collect(sweep)
    assert rows(sweep) == [] and found.notes == []


def test_other_versions_are_read_and_said(sweep):
    run = hashes(sweep)[0]
    finish(sweep, run)
    session = {k: v for k, v in ENV["sessions"][0].items() if k != "seconds_read"} | {"splatinit": "0.0.9"}
    write_json(sweep.run(run).env, ENV | {"sessions": [session]})
    (sweep.runs / "0123456789ab").mkdir()
    version, strangers = store.collect(sweep).notes
    assert "was written by splatinit 0.0.9" in version and "1 run folders" in strangers
    (row,) = rows(sweep)
    assert (row["splatinit"], row["seconds_read"]) == ("0.0.9", None)


def test_a_done_run_is_done_whatever_failed_before(sweep):
    run = hashes(sweep)[0]
    write_failure(sweep, run, "once", "", "")
    finish(sweep, run)
    store.collect(sweep)
    assert [row["status"] for row in rows(sweep)] == ["done"]
    sweep.failed(hashes(sweep)[1]).write_text("{")
    store.collect(sweep)
    assert "cannot be read" in rows(sweep)[1]["error"]


def test_two_processes_may_collect_at_once(sweep):
    for run in hashes(sweep)[:2]:
        finish(sweep, run)
    code = (
        "import sys; from pathlib import Path; from splatinit.sweep import SweepFolder, store\n"
        "for _ in range(20): store.collect(SweepFolder(Path(sys.argv[1])))"
    )
    words = [sys.executable, "-c", code, str(sweep.root)]
    processes = [subprocess.Popen(words, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    while any(process.poll() is None for process in processes):
        if (sweep.results / "starts.parquet").is_file():
            assert len(rows(sweep)) == 2, "whoever reads sees a whole table"
    assert [process.communicate()[1] for process in processes] == ["", ""]
    assert sorted(path.name for path in sweep.results.iterdir()) == sorted(f"{name}.parquet" for name in store.TABLES)


def test_holding_a_folder_when_it_is_free(tmp_path):
    assert not is_held(tmp_path)
    order = []
    with hold(tmp_path):
        assert is_held(tmp_path)

    def wait():
        with hold_when_free(tmp_path, 0.01):
            order.append("second")

    code = "import sys; from pathlib import Path; from splatinit.io.locks import hold\n"
    code += f"with hold(Path({str(tmp_path)!r})): print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout.readline() == "held\n" and is_held(tmp_path)
        thread = threading.Thread(target=wait)
        thread.start()
        thread.join(0.1)
        order.append("first")
        child.stdin.close()
        thread.join()
    assert order == ["first", "second"] and not is_held(tmp_path)


def test_errors(sweep, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"has no results/runs.parquet[\s\S]*splatinit sweep FILE"):
        store.read_table(sweep, "runs")
    sweep.results.mkdir(exist_ok=True)
    (sweep.results / "runs.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(FormatError, match=r"runs.parquet cannot be read as Parquet"):
        store.read_table(sweep, "runs")
    with pytest.raises(ConfigError, match=r"is not a sweep: it has no plan.yaml"):
        store.collect(SweepFolder(tmp_path / "no"))
    for text in ("[1", "runs: 3", "sweep: x\nruns: [{run: 1}]"):
        sweep.plan.write_text(text)
        with pytest.raises(FormatError, match=r"plan.yaml is not a plan that splatinit wrote"):
            store.collect(sweep)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        MissingExtra, match=r'need pyarrow, which is not installed[\s\S]*pip install "splatinit\[sweep\]"'
    ):
        store.collect(sweep)
