"""The command line with ``--backend cuda``, whose engine is the emulated one: no other difference to a machine with a
GPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny
from typer.testing import CliRunner

from splatinit import native
from splatinit.cli.app import app
from splatinit.io.splat import read_splat_ply

SETTINGS = ["train.steps=60", "train.preview=0.5", "densify.every=0.2", "densify.min_every_steps=1"]


@pytest.fixture(autouse=True)
def surroundings(emulated_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(native.LIBRARY_VARIABLE, str(emulated_library))
    monkeypatch.setenv("SPLATINIT_WEIGHTS", str(tmp_path / "none"))
    monkeypatch.setenv("SPLATINIT_THREADS", "1")
    with tiny.threads(1):
        yield


def splatinit(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.output


def test_a_run_on_the_cuda_engine_is_one_on_the_cpu_engine_but_for_speed(tiny_scene: Path, tmp_path: Path) -> None:
    scores, splats = {}, {}
    for name, backend in (("cpu", "cpu"), ("cuda", "cuda"), ("again", "cuda")):
        out = tmp_path / name
        printed = splatinit("run", tiny_scene, "--backend", backend, "-o", out, *SETTINGS)
        assert "PSNR" in printed
        scores[name] = json.loads((out / "eval" / "metrics.json").read_text())["mean"]["psnr"]
        splats[name] = (out / "splat.ply").read_bytes()
        session = json.loads((out / "env.json").read_text())["sessions"][0]
        assert session["backend"] == backend
        assert (session["cuda"] is None) == (backend == "cpu")
    assert abs(scores["cuda"] - scores["cpu"]) < 0.05
    assert splats["cuda"] == splats["again"] and scores["cuda"] == scores["again"]
    assert session["cuda"]["engine"] == native.cuda_engine().version
    assert len(read_splat_ply(tmp_path / "cuda" / "splat.ply")) == len(read_splat_ply(tmp_path / "cpu" / "splat.ply"))


def test_a_run_goes_on_only_with_the_engine_that_began_it(tiny_scene: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    splatinit("run", tiny_scene, "--backend", "cuda", "-o", out, *SETTINGS)
    printed = " ".join(splatinit("run", tiny_scene, "--backend", "cpu", "-o", out, *SETTINGS, code=2).split())
    assert "raster" in printed and "cuda" in printed


def test_a_backend_without_its_library_says_so_before_anything_is_read(
    tiny_scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(native.LIBRARY_VARIABLE, str(tmp_path / "absent.so"))
    printed = " ".join(splatinit("run", tiny_scene, "--backend", "cuda", "-o", tmp_path / "run", code=2).split())
    assert "SPLATINIT_CUDA_LIBRARY names" in printed and "is not there" in printed.replace("which is", "is")
    assert not (tmp_path / "run").exists()
