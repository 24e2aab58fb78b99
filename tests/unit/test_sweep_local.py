"""How a machine is shared out, how long a sweep is said to take, and how its table is shown."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from splatinit import environment, memory
from splatinit.cli.sweeping import as_csv, as_latex, as_markdown, duration, filtered, show_outcome, show_plan
from splatinit.errors import ConfigError
from splatinit.io.locks import hold
from splatinit.sweep import SweepFolder, expand, local, store
from splatinit.sweep.estimate import Estimate, estimate
from splatinit.sweep.ledger import Ledger, Outcome
from splatinit.sweep.shares import Shares, share_out
from splatinit.sweep.worker import Exit, write_failure

GB = 2**30


def plan(**tree):
    top = {"name": "s", "scenes": ["x/fox", "x/chair"], "inits": ["sfm", "random"], "settings": {"train.steps": 100}}
    return expand(top | tree, "my.yaml", scenes_exist=False)


@pytest.fixture
def machine(monkeypatch):
    """A machine of so many cores and bytes of free memory."""

    def of(cores: int, free: int | None) -> None:
        monkeypatch.delenv(environment.THREADS_VARIABLE, raising=False)
        monkeypatch.setattr(environment, "cores", lambda: cores)
        monkeypatch.setattr(memory, "available", lambda: free)

    return of


@pytest.mark.parametrize(
    ("cores", "free", "jobs", "expected"),
    [
        (2, 64 * GB, None, Shares(2, 1, 32 * GB)),
        (16, 64 * GB, None, Shares(4, 4, 16 * GB)),  # not more than there are runs
        (16, 64 * GB, 2, Shares(2, 8, 32 * GB)),
        (2, 64 * GB, 3, Shares(3, 1, 64 * GB // 3)),
        (2, 3 * GB, None, Shares(1, 2, 3 * GB)),
        (2, 100, None, Shares(1, 2, 100)),
        (2, None, None, Shares(2, 1, None)),
    ],
)
def test_sharing_out(machine, cores, free, jobs, expected):
    machine(cores, free)
    assert share_out([run.config for run in plan().runs], jobs) == expected


def test_runs_that_have_a_time_have_the_machine(machine):
    machine(8, 64 * GB)
    runs = [run.config for run in plan(settings={"train.seconds": 60}).runs]
    assert share_out(runs) == Shares(1, 8, 64 * GB) and share_out(runs, 2).jobs == 2


def test_threads_that_the_user_allows_are_shared_out(machine, monkeypatch):
    machine(8, None)
    monkeypatch.setenv(environment.THREADS_VARIABLE, "2")
    assert share_out([run.config for run in plan().runs]) == Shares(2, 1, None)
    with pytest.raises(ConfigError, match="--jobs is 0; expected at least 1"):
        share_out([], 0)


class Notes:
    def __init__(self) -> None:
        self.notes = []

    def start(self, stage, total=None): ...

    def advance(self, done, **fields): ...

    def note(self, text):
        self.notes.append(text)


@pytest.fixture
def ledger(tmp_path, machine):
    machine(2, 64 * GB)
    return Ledger(SweepFolder(tmp_path), plan(seeds=2), progress=Notes())


def over(ledger, run, code, *, roomy=False) -> None:
    log = ledger.folder.log(run.hash)
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("\n".join(f"line {k}" for k in range(9)))
    ledger.ended(run, code, 1.0, roomy=roomy)


def test_a_process_that_died_says_how_and_its_last_lines(ledger):
    one, two, *_ = ledger.waiting
    over(ledger, one, -9)
    reason = ledger.folder.failure(one.hash)["error"]
    assert reason.startswith("Its process was ended by SIGKILL (by somebody, or by the kernel because memory ran out).")
    assert reason.splitlines()[1:] == [f"line {k}" for k in range(4, 9)]
    over(ledger, two, 1)
    assert "Its process ended with exit code 1." in ledger.outcome.failed[two.hash]
    assert ledger.progress.notes[0].startswith("failed: fox sfm seed 0: Its process was ended by SIGKILL")


def test_what_has_no_room_beside_others_is_done_alone(ledger):
    run = ledger.waiting.pop(0)
    write_failure(ledger.folder, run.hash, "needs 9 GB", "OutOfMemory", "read")
    over(ledger, run, Exit.FAILED)
    assert ledger.alone == [run] and ledger.outcome.failed == {} and ledger.folder.failure(run.hash) is None
    write_failure(ledger.folder, run.hash, "needs 9 GB", "OutOfMemory", "read")
    over(ledger, run, Exit.FAILED, roomy=True)
    assert ledger.outcome.failed == {run.hash: "needs 9 GB"}


def test_a_run_in_other_hands_is_looked_at_again(ledger, monkeypatch):
    monkeypatch.setattr("splatinit.sweep.ledger._PATIENCE", 0.0)
    one, two, *_ = ledger.waiting
    ledger.waiting.clear()
    with hold(ledger.folder.claim(one.hash)):
        over(ledger, one, Exit.IN_USE)
        ledger.look_elsewhere()
        assert ledger.left and ledger.waiting == []
        assert not ledger.free(one), "it is held"
    ledger.look_elsewhere()
    assert ledger.waiting == [one], "whoever held it has let go without ending it"
    write_failure(ledger.folder, two.hash, "why", "X", "read")
    assert not ledger.free(two) and ledger.outcome.failed == {two.hash: "why"}
    over(ledger, two, Exit.STOPPED)
    assert ledger.waiting == [two, one], "stopped by somebody: it goes on"


def test_runs_of_a_scene_that_cannot_be_posed_fail_alike(ledger, monkeypatch):
    asked = {}

    def find(folder, wanted, stop, progress):
        asked.update(wanted)
        why = {"error": "3 of 9 photos", "kind": "TooFewMatches", "stage": "match features"}
        return {ledger.poses[ledger.waiting[0].hash]: why}

    monkeypatch.setattr(local, "find_poses", find)
    local._Pool(ledger, Shares(1, 1, None)).pose(lambda: False)
    # sfm wants points, random none; both seeds share either. Of the same scene, with points, both seeds fail.
    labels = [f"{scene} {init} seed 0" for scene in ("fox", "chair") for init in ("sfm", "random")]
    assert [run.name for run in asked.values()] == labels
    assert [ledger.by_hash[name].name for name in ledger.outcome.failed] == ["fox sfm seed 0", "fox sfm seed 1"]
    assert {ledger.folder.failure(name)["kind"] for name in ledger.outcome.failed} == {"TooFewMatches"}
    assert len(ledger.waiting) == 6


def test_an_estimate_from_finished_runs(tmp_path, machine, monkeypatch):
    machine(2, None)
    found = plan(seeds=2)
    folder = SweepFolder(tmp_path)
    assert estimate(found, tmp_path, probe=False) == Estimate(8, None, Shares(2, 1, None), "no run is finished yet")
    folder.write_plan(found)
    first = found.runs[0]
    row = {"run": first.hash, "status": "done", "scene": "fox", "label": "sfm", "steps": 100}
    row |= {"seconds_init": 5.0, "seconds_train": 20.0, "seconds_eval": 2.0}
    slow = row | {"run": found.runs[2].hash, "scene": "chair", "seconds_train": 200.0}
    collected = store.Collected()
    collected.tables["runs"] = [row, slow]
    monkeypatch.setattr("splatinit.sweep.estimate.gather", lambda _: collected)
    result = estimate(found, tmp_path)
    # fox, sfm: 30 s as before; chair, sfm: 210 s; random as sfm of its scene: two of each; on two cores.
    assert (result.runs, result.seconds) == (6, pytest.approx((3 * 30 + 3 * 210) / 2))
    write_failure(folder, found.runs[1].hash, "x", "", "")
    assert estimate(found, tmp_path).runs == 5 and estimate(found, tmp_path, retry_failed=True).runs == 6
    collected.tables["runs"] = [row | {"run": run.hash} for run in found.runs]
    assert estimate(found, tmp_path).runs == 0


def shown(function, *arguments) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    function(console, *arguments)
    return console.export_text()


def test_the_plan_and_the_outcome_are_told(tmp_path):
    found = plan(seeds=2)
    text = shown(show_plan, found, Estimate(6, 7000.0, Shares(2, 1, None), "from 2 finished runs"))
    assert "sfm, random" in text and "6 of 8 runs to do, about 1.9 h (from 2 finished runs); 2 at a time" in text
    text = shown(show_plan, found, Estimate(6, 7000.0, Shares(1, 2, None), "from 2 finished runs"), "ray")
    assert "about 1.9 h one after the other (from 2 finished runs); as many at a time as ray finds room for." in text
    assert [duration(s) for s in (12, 800, 90000)] == ["12 s", "13 min", "25.0 h"]
    one, two, *_ = found.runs
    outcome = Outcome(done=[one.hash], failed={two.hash: "why\nmore"}, reused=1, seconds=5.0, notes=["left out"])
    text = shown(show_outcome, found, outcome, SweepFolder(tmp_path))
    assert "1 of 8 runs done (1 of them before), 1 failed, 6 not yet; 5 s." in text
    assert f"failed fox random seed 0 ({two.hash})" in text and "left out" in text and "--retry-failed" in text


ROW = dict.fromkeys(store.TABLES["runs"]) | {
    "scene": "a_b|c",
    "label": "50%",
    "seed": 1,
    "psnr": 20.456,
    "status": "done",
    "settings": json.dumps({"init": {"count": 5, "name": "random"}, "train": {"random_background": True}}),
}


def test_the_table_in_three_forms():
    assert as_markdown([ROW]).splitlines()[2].startswith(r"| a_b\|c | 50% | 1 | 20.46 | – |")
    assert r"a\_b|c & 50\% & 1 & 20.46 & --" in as_latex([ROW]) and as_latex([]).count("\\\\") == 1
    head, line = as_csv([ROW], list(ROW)).splitlines()
    assert head.split(",") == list(ROW) and ",a_b|c,50%," in line


def test_filtering():
    rows = [ROW, ROW | {"seed": 2, "psnr": None}]
    for condition, count in (
        ("seed=2", 1),
        ("seed=x", 0),
        ("psnr=20.456", 1),
        ("psnr=none", 1),
        ("init.count=5", 2),
        ("train.random_background=true", 2),
        ("scene=a_b|c", 2),
    ):
        assert len(filtered(rows, [condition])) == count, condition
    assert filtered([], ["anything=1"]) == []
    with pytest.raises(ConfigError, match=r"--where sced: no run has such a column or setting[\s\S]*'seed'"):
        filtered(rows, ["sced=1"])
    with pytest.raises(ConfigError, match=r"--where 'seed' is not a condition; expected key=value"):
        filtered(rows, ["seed"])
