"""The sweeps that stand ready in configs/sweeps: each of their runs is one that splatinit accepts."""

from __future__ import annotations

import re
import shlex

import pytest
from typer.testing import CliRunner

from splatinit.cli.app import app
from splatinit.config import preset_folder, presets
from splatinit.initializers import INITIALIZERS
from splatinit.sweep import SweepPlan, read_plan
from splatinit.sweep.plan import MANY_RUNS

FILES = sorted((preset_folder() / "sweeps").glob("*.yaml"))


@pytest.fixture(scope="module", params=FILES, ids=lambda path: path.stem)
def sweep(request) -> tuple[SweepPlan, str]:
    """A sweep's plan, and the text of its file."""
    return read_plan(request.param, scenes_exist=False), request.param.read_text(encoding="utf-8")


def test_every_run_of_every_scene_is_accepted(sweep):
    plan, text = sweep
    assert f"name: {plan.name}\n" in text and plan.runs
    seeds = {run.seed for run in plan.runs}
    by_scene = {run.scene: {each.label for each in plan.runs if each.scene == run.scene} for run in plan.runs}
    assert len(plan.runs) == sum(map(len, by_scene.values())) * len(seeds), "no two variants are the same"
    shared = set.intersection(*by_scene.values())
    assert len(shared) >= 2, "all scenes share what is compared"


def test_a_sweep_says_how_one_of_its_runs_is_done_by_hand(sweep, monkeypatch):
    (plan, text), called = sweep, {}

    def note(scene, out, *, config, **_):
        called.update(scene=str(scene), out=out, config=config)
        raise KeyboardInterrupt

    monkeypatch.setattr("splatinit.pipeline.run", note)
    (command,) = re.findall(r"^# +splatinit (run .*)$", text, re.MULTILINE)
    CliRunner().invoke(app, shlex.split(command))
    run = next(run for run in plan.runs if f"{run.scene}-{run.label}" == called["out"].name)
    assert (called["scene"], called["config"]) == (run.path, run.config)


def test_the_bar_without_densification():
    plan = read_plan(preset_folder() / "sweeps" / "mipnerf360_dense.yaml", scenes_exist=False)
    # The scenes and sizes of the bar.
    outdoor, indoor = {"bicycle", "garden", "stump"}, {"bonsai", "counter", "kitchen", "room"}
    sizes = {run.scene: run.config.data.downscale for run in plan.runs}
    assert sizes == dict.fromkeys(outdoor, 4) | dict.fromkeys(indoor, 2)
    dense, adc, sfm = (run.config for run in plan.runs[:3])
    assert (dense.init.name, dense.densify.name, dense.train.steps) == ("dense", "prune", 30_000)
    assert dense.init.settings.count == 2_000_000
    # What the other runs differ in, and nothing else.
    assert adc.densify.name == "adc" and (adc.init, adc.train, adc.seeding) == (dense.init, dense.train, dense.seeding)
    assert (sfm.init.name, sfm.densify, sfm.train.steps) == ("sfm", adc.densify, 30_000)


def test_tiny_has_every_start():
    plan = read_plan(preset_folder() / "sweeps" / "tiny.yaml", scenes_exist=False)
    assert {run.config.init.name for run in plan.runs} == set(INITIALIZERS.names())
    scenes = {run.scene for run in plan.runs}
    of_one_scene = {"file", "depth"}  # a file of one's own, depth maps
    for name in set(INITIALIZERS.names()) - of_one_scene:
        assert {run.scene for run in plan.runs if run.config.init.name == name} == scenes, name
    assert len(scenes) >= 4 and {run.seed for run in plan.runs} == {0, 1}


def test_a_sweep_is_no_preset():
    assert not [preset.name for preset in presets() if preset.name.startswith("sweeps/")]


@pytest.mark.parametrize("name", ["mipnerf360", "tanks_and_temples", "deep_blending", "nerf_synthetic", "llff"])
def test_benchmarks_compare_starts_with_one_trainer(name):
    plan = read_plan(preset_folder() / "sweeps" / f"{name}.yaml", scenes_exist=False)
    assert {run.config.init.name for run in plan.runs} == {"sfm", "random", "dense", "nerf"}
    trainers = {(run.config.train, run.config.densify, run.config.seeding, run.config.eval) for run in plan.runs}
    assert len(trainers) == 1 and plan.runs[0].config.train.steps == 30_000
    assert len(plan.runs) <= MANY_RUNS
    # LLFF's folders hold COLMAP models whose photos are not called as those of images_4.
    assert {run.config.data.format for run in plan.runs} == {"llff" if name == "llff" else "auto"}


def test_sparse_views_are_trained_as_instantsplat_trains():
    plan = read_plan(preset_folder() / "sweeps" / "sparse_view.yaml", scenes_exist=False)
    assert {(run.config.train.steps, run.config.densify.name) for run in plan.runs} == {(1000, "prune")}
    assert {run.label for run in plan.runs} == {"sfm", "random", "frusta", "dense", "nerf"}
