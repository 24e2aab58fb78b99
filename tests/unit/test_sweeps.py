"""The sweeps that stand ready in configs/sweeps: each of their runs is one that splatinit accepts."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from splatinit.cli.app import app
from splatinit.config import Layer, RunConfig, build_config, load_preset, preset_folder, presets

FILES = sorted((preset_folder() / "sweeps").glob("*.yaml"))
KEYS = {"name": str, "scenes": list, "runs": list, "seeds": list}
SCENE_KEYS = {"name": str, "path": str, "downscale": int}
RUN_KEYS = {"name": str, "presets": list, "settings": dict}


def read(path: Path) -> dict:
    """A sweep; each of its tables has its keys, of their types, and names that occur once."""
    sweep = yaml.safe_load(path.read_text(encoding="utf-8"))
    for table, keys in (
        (sweep, KEYS),
        *((s, SCENE_KEYS) for s in sweep["scenes"]),
        *((r, RUN_KEYS) for r in sweep["runs"]),
    ):
        assert {key: type(value) for key, value in table.items()} == keys, table
    for rows in (sweep["scenes"], sweep["runs"]):
        assert rows and len({row["name"] for row in rows}) == len(rows)
    assert sweep["seeds"] and all(type(seed) is int for seed in sweep["seeds"])
    return sweep


def config_of(run: dict, scene: dict, seed: int) -> RunConfig:
    own = {"data.downscale": scene["downscale"], "seed": seed}
    return build_config(*map(load_preset, run["presets"]), Layer(run["name"], run["settings"]), Layer("sweep", own))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_run_of_every_scene_is_accepted(path):
    sweep = read(path)
    assert sweep["name"] == path.stem
    for run in sweep["runs"]:
        for scene in sweep["scenes"]:
            for seed in sweep["seeds"]:
                config = config_of(run, scene, seed)
                assert (config.data.downscale, config.seed) == (scene["downscale"], seed)
                for key, value in run["settings"].items():
                    section, _, name = key.partition(".")
                    assert config.expand()[section][name] == value, key


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_sweep_says_how_one_of_its_runs_is_done_by_hand(path, monkeypatch):
    sweep, called = read(path), {}

    def note(scene, out, *, config, **_):
        called.update(scene=str(scene), out=out, config=config)
        raise KeyboardInterrupt

    monkeypatch.setattr("splatinit.pipeline.run", note)
    (command,) = re.findall(r"^# +splatinit (run .*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    CliRunner().invoke(app, shlex.split(command))
    scene = next(scene for scene in sweep["scenes"] if scene["path"] == called["scene"])
    run = next(run for run in sweep["runs"] if called["out"].name == f"{scene['name']}-{run['name']}")
    assert called["config"] == config_of(run, scene, sweep["seeds"][0])


def test_the_bar_without_densification():
    sweep = read(preset_folder() / "sweeps" / "mipnerf360_dense.yaml")
    # The scenes and sizes of the bar.
    outdoor, indoor = {"bicycle", "garden", "stump"}, {"bonsai", "counter", "kitchen", "room"}
    assert {s["name"]: s["downscale"] for s in sweep["scenes"]} == dict.fromkeys(outdoor, 4) | dict.fromkeys(indoor, 2)
    dense, adc, sfm = (config_of(run, sweep["scenes"][0], 0) for run in sweep["runs"])
    assert (dense.init.name, dense.densify.name, dense.train.steps) == ("dense", "prune", 30_000)
    assert dense.init.settings.count == 2_000_000
    # What the other runs differ in, and nothing else.
    assert adc.densify.name == "adc" and (adc.init, adc.train, adc.seeding) == (dense.init, dense.train, dense.seeding)
    assert (sfm.init.name, sfm.densify, sfm.train.steps) == ("sfm", adc.densify, 30_000)


def test_a_sweep_is_no_preset():
    assert not [preset.name for preset in presets() if preset.name.startswith("sweeps/")]
