"""A whole run in two processes under torchrun, which draw by gsplat's own distributed mode over kernels in plain torch
and talk by gloo (see distributed_run.py)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from splatinit.io.checkpoints import digest
from splatinit.io.splat import read_splat_ply

pytest.importorskip("gsplat", reason="gsplat is not installed")

TESTS = Path(__file__).parents[1]
STEPS = 30


def processes(count: int, *arguments: object, stop_after: int = 0) -> subprocess.CompletedProcess[str]:
    paths = [str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")]
    quiet = {"OMP_NUM_THREADS": "1", "SPLATINIT_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
        + [str(TESTS / "distributed_run.py"), str(stop_after), *map(str, arguments)],
        env=os.environ | quiet | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
        capture_output=True,
        text=True,
        timeout=300,
    )


def settings(scene: Path, out: Path, *more: str) -> list[object]:
    # A refinement with growth and one without within few steps, previews, and a checkpoint at every chance.
    train = [f"train.steps={STEPS}", "train.checkpoint_seconds=0", "train.preview=0.2", "eval.during=[0.5]"]
    densify = ["densify.min_every_steps=8", "densify.grow_gradient=1e-5", "densify.max_count=100"]
    return ["run", scene, "--backend", "gsplat", "-o", out, *train, *densify, *more]


@pytest.fixture(scope="module")
def whole(tiny_scene: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    out = tmp_path_factory.mktemp("whole") / "run"
    done = processes(2, *settings(tiny_scene, out))
    assert done.returncode == 0, done.stderr[-6000:]
    return out, done


def rows(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "train.jsonl").read_text().splitlines()]


def test_two_processes_make_one_run(whole) -> None:
    out, done = whole
    splat = read_splat_ply(out / "splat.ply")
    logged = rows(out)
    assert logged[-1]["n"] == len(splat) and len(splat) != 72, "what both hold is counted, and has grown"
    refinements = [row for row in logged if "cloned" in row]
    assert sum(row["cloned"] + row["split"] for row in refinements) > 10
    before = 72
    for row in refinements:
        # A split one leaves two, and pruned counts what is gone of both.
        assert row["n"] == before + row["cloned"] + row["split"] - row["pruned"]
        before = row["n"]
    assert len(splat) <= 100, "max_count is of both together"
    first, last = logged[0], [row for row in logged if "psnr" in row][-1]
    assert last["psnr"] > first.get("psnr", 0) and last["psnr"] > 18
    measured = [row for row in logged if "test_psnr" in row]
    assert len(measured) == 1 and measured[0]["step"] == STEPS // 2
    metrics = json.loads((out / "eval" / "metrics.json").read_text())
    assert metrics["mean"]["psnr"] == pytest.approx(last["psnr"], abs=3)
    # What a user sees comes once.
    assert done.stdout.count("PSNR") == 1 and done.stderr.count("Gaussians after") == 1


def test_a_stop_that_one_wishes_is_one_of_all_and_goes_on_to_the_same(whole, tiny_scene: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    stopped = processes(2, *settings(tiny_scene, out), stop_after=10)
    assert stopped.returncode != 0 and not (out / "splat.ply").exists()
    assert stopped.stderr.count("Stopped after step 12") == 1, stopped.stderr[-3000:]
    assert {path.name for path in (out / "checkpoints").iterdir()} == {"process_0", "process_1"}

    alone = processes(1, *settings(tiny_scene, out))
    assert alone.returncode != 0
    assert "checkpoints: these checkpoints are of a training in 2 processes; this is one in 1." in alone.stderr
    again = processes(2, *settings(tiny_scene, out))
    assert again.returncode == 0, again.stderr[-6000:]
    assert "Resumed after step 12." in again.stderr
    first, second = (digest(read_splat_ply(folder / "splat.ply").tensors()) for folder in (whole[0], out))
    assert first == second

    nothing = processes(2, *settings(tiny_scene, out))  # all is there: the second process must not wait for ever
    assert nothing.returncode == 0, nothing.stderr[-3000:]


def test_another_backend_is_refused(tiny_scene: Path, tmp_path: Path) -> None:
    done = processes(2, "run", tiny_scene, "--backend", "cpu", "-o", tmp_path / "run")
    assert done.returncode != 0 and "backend 'cpu' trains in one" in done.stderr
    assert not (tmp_path / "run").exists()
