"""A whole run in two processes under torchrun, which draw by gsplat's own distributed mode over kernels in plain torch
and talk by gloo (see distributed_run.py)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import splatinit
from splatinit.distributed import TORCHRUN
from splatinit.errors import ConfigError
from splatinit.io.checkpoints import digest
from splatinit.io.splat import read_splat_ply

pytest.importorskip("gsplat", reason="gsplat is not installed")
import gsplat_kernels  # noqa: E402

TESTS = Path(__file__).parents[1]
STEPS = 30


def processes(count: int, *arguments: object, stop_after: int = 0) -> subprocess.CompletedProcess[str]:
    paths = [str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")]
    quiet = {"OMP_NUM_THREADS": "1", "SPLATINIT_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
        + [str(TESTS / "distributed_run.py"), str(stop_after), *map(str, arguments)],
        env=os.environ | quiet | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
        capture_output=True,
        text=True,
        timeout=300,
    )


# A refinement with growth and one without within few steps, previews, and a checkpoint at every chance.
SETTINGS = {
    "raster.backend": "gsplat",
    "train.steps": STEPS,
    "train.checkpoint_seconds": 0,
    "train.preview": 0.2,
    "densify.min_every_steps": 8,
    "densify.grow_gradient": 1e-5,
    "densify.max_count": 100,
    "eval.during": [0.5],
    "eval.lpips": [],
}


def command(scene: Path, out: Path) -> list[object]:
    return ["run", scene, "-o", out, *(f"{key}={value}" for key, value in SETTINGS.items())]


@pytest.fixture(scope="module")
def whole(tiny_scene: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    out = tmp_path_factory.mktemp("whole") / "run"
    done = processes(2, *command(tiny_scene, out))
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
    assert done.stderr.count("compiles its kernels with nvcc") == 1
    assert done.stdout.count("PSNR") == 1 and done.stderr.count("Gaussians after") == 1


def test_a_stop_that_one_wishes_is_one_of_all_and_goes_on_to_the_same(
    whole, tiny_scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    stopped = processes(2, *command(tiny_scene, out), stop_after=10)
    assert stopped.returncode != 0 and not (out / "splat.ply").exists()
    assert stopped.stderr.count("Stopped after step 12") == 1, stopped.stderr[-3000:]
    assert {path.name for path in (out / "checkpoints").iterdir()} == {"process_0", "process_1"}

    with monkeypatch.context() as patch:
        gsplat_kernels.install(patch)
        with pytest.raises(ConfigError, match="are of a training in 2 processes; this is one in 1"):
            splatinit.run(tiny_scene, out, settings=SETTINGS)
    again = processes(2, *command(tiny_scene, out))
    assert again.returncode == 0, again.stderr[-6000:]
    assert "Resumed after step 12." in again.stderr
    first, second = (digest(read_splat_ply(folder / "splat.ply").tensors()) for folder in (whole[0], out))
    assert first == second

    nothing = processes(2, *command(tiny_scene, out))  # all is there: the second process must not wait for ever
    assert nothing.returncode == 0, nothing.stderr[-3000:]


def test_another_backend_is_refused_before_anything_is_written(
    tiny_scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in zip(TORCHRUN, (1, 1, 2, "127.0.0.1", 1), strict=True):
        monkeypatch.setenv(name, str(value))
    with pytest.raises(ConfigError, match="started 2 processes, but backend 'cpu' trains in one"):
        splatinit.run(tiny_scene, tmp_path / "run")
    assert not (tmp_path / "run").exists()
