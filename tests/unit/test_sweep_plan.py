"""A sweep file becomes the runs that it says, in order, each once; what it cannot mean is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from splatinit.errors import ConfigError
from splatinit.sweep import SweepFolder, SweepPlan, expand, make_plan, read_plan
from splatinit.sweep.folder import frozen_config
from splatinit.sweep.plan import run_hash


def plan(**tree) -> SweepPlan:
    return expand({"scenes": ["data/fox"], "inits": ["sfm"]} | tree, "my.yaml", scenes_exist=False)


def labels(found: SweepPlan) -> list[str]:
    return list(dict.fromkeys(run.label for run in found.runs))


def refused(**tree) -> str:
    with pytest.raises(ConfigError) as caught:
        plan(**tree)
    return str(caught.value)


def test_every_combination_once_seeds_slowest_and_variants_fastest():
    found = plan(
        scenes=["data/fox", {"name": "big", "path": "x/garden", "downscale": 4, "settings": {"data.masks": "off"}}],
        inits=["sfm", {"random": {"count": 70, "volume": "cameras"}}],
        densify=["adc", {"none": {}}],
        grid={"train.steps": [10, 20]},
        settings={"train": {"ssim_weight": 0.1}},
        seeds=2,
    )
    assert len(found.runs) == 2 * 2 * 2 * 2 * 2
    assert [(run.seed, run.scene) for run in found.runs[::8]] == [(0, "fox"), (0, "big"), (1, "fox"), (1, "big")]
    assert [run.label for run in found.runs[:5]] == [
        "sfm-adc-steps=10",
        "sfm-adc-steps=20",
        "sfm-none-steps=10",
        "sfm-none-steps=20",
        "random-adc-steps=10",
    ]
    run = found.runs[-1]
    assert (run.path, run.config.init.settings.count, run.config.train.steps) == ("x/garden", 70, 20)
    assert (run.config.data.downscale, run.config.data.masks, run.config.train.ssim_weight) == (4, "off", 0.1)
    assert (run.config.densify.name, run.seed) == ("none", 1)


def test_later_words_win_and_unions_have_settings_by_name():
    found = plan(
        presets=["train/quick"],
        settings={"train.steps": 5, "train.sh_interval": 3},
        inits=[{"sfm+random": {"random.count": 9}}],
        runs=[{"name": "a", "settings": {"train.steps": 6}}, {"name": "b", "presets": ["train/fixed"]}],
        densify=["none"],
    )
    assert labels(found) == ["a-sfm+random", "b-sfm+random"]
    assert [run.config.train.steps for run in found.runs] == [6, 5]
    assert found.runs[0].config.init.settings.parts["random"].count == 9


def test_equal_runs_collapse():
    found = plan(inits=["sfm", "sfm"], grid={"train.steps": [30, 30.0]}, seeds=[1, 1])
    assert len(found.runs) == 1
    spelt_out = plan(runs=[{"name": "a"}, {"name": "b", "settings": {"densify.name": "adc"}}])
    assert labels(spelt_out) == ["a-sfm"], "the default, said in words, is the default"
    assert [run.seed for run in plan(seeds=[3, 1]).runs] == [3, 1]


def test_a_start_may_be_a_preset_have_whole_keys_and_be_of_one_scene():
    found = plan(
        scenes=["data/fox", {"path": "data/hall", "inits": [{"file": {"path": "hall.laz"}}]}],
        inits=["sfm", {"init/frusta": {"count": 7}}, {"rain": {"train.low_pass": 300, "count": 12}}],
        seeds=2,
    )
    of = {(run.scene, run.label): run.config for run in found.runs}
    assert list(of) == [(s, v) for s in ("fox", "hall") for v in ("sfm", "frusta", "rain")] + [("hall", "file")]
    frusta, rain = of["fox", "frusta"], of["hall", "rain"]
    assert (frusta.init.name, frusta.init.settings.volume, frusta.init.settings.count) == ("random", "frusta", 7)
    assert (rain.init.name, rain.init.settings.count, rain.train.low_pass) == ("rain", 12, 300)
    assert of["hall", "file"].init.settings.path == Path("hall.laz") and of["hall", "sfm"] == of["fox", "sfm"]
    assert len(found.runs) == 14


def test_the_hash_is_of_all_settings_and_the_path_as_given(tmp_path):
    base, *others = (
        plan(**more).runs[0]
        for more in (
            {},
            {"seeds": [1]},
            {"scenes": ["./data/fox"]},
            {"grid": {"train.steps": [11]}},
            {"inits": ["rain"]},
        )
    )
    assert len({base.hash, *(run.hash for run in others)}) == 5
    named = plan(scenes=[{"name": "other", "path": "data/fox"}], runs=[{"name": "x"}]).runs[0]
    assert named.hash == base.hash, "names are for people"
    # Fixed: a hash that changed would do all finished runs again.
    assert run_hash("data/fox", {"a": {"b": 1.5, "c": [None, "é"]}, "seed": 0}) == "7e92200ddb97"
    assert run_hash("data/fox", {"seed": 0, "a": {"c": [None, "é"], "b": 1.5}}) == "7e92200ddb97"
    # Through the frozen plan and back, it stays.
    folder = SweepFolder(tmp_path)
    found = plan(inits=["sfm", {"sfm+random": {"random.count": 9}}, "dense"])
    folder.write_plan(found)
    name, kept = folder.read_plan()
    assert name == "sweep" and [run.run for run in kept] == [run.hash for run in found.runs]
    for run, frozen in zip(found.runs, kept, strict=True):
        assert run_hash(frozen.path, frozen.config) == run.hash
        assert frozen_config(frozen.config, "plan") == run.config


def test_from_python(tmp_path):
    found = make_plan([tmp_path], name="mine", inits=["sfm", "random"], seeds=2, settings={"train.steps": 7})
    assert found.name == "mine" and len(found.runs) == 4 and found.runs[0].config.train.steps == 7


@pytest.mark.parametrize(
    ("tree", "texts"),
    [
        ({"inits": ["sfn"]}, ["my.yaml: inits: init.name: unknown initializer 'sfn'", "Did you mean 'sfm'?"]),
        ({"inits": [{"random": {"coumt": 5}}]}, ["unknown key 'init.coumt'", "init.count"]),
        ({"densify": ["abc"]}, ["my.yaml: densify: densify.name: unknown densifier 'abc'", "adc"]),
        ({"grid": {"train.stepz": [1]}}, ["my.yaml: grid: unknown key 'train.stepz'", "train.steps"]),
        ({"settings": {"train.steps": "x"}}, ["my.yaml: settings: train.steps = 'x' does not fit"]),
        ({"presets": ["qick"]}, ["Unknown preset 'qick'", "quick"]),
        ({"init": ["sfm"]}, ["my.yaml: unknown key 'init'", "Did you mean 'inits'?"]),
        ({"train.steps": 5}, ["unknown key 'train.steps'", "put it under `settings`"]),
        ({"scenes": []}, ["scenes = [] does not fit; expected a list that is not empty"]),
        ({"scenes": [{"name": "a"}]}, ["{'name': 'a'} has no path"]),
        ({"scenes": ["a/fox", "b/fox"]}, ["two of them have the name 'fox'", "another `name`"]),
        ({"inits": ["init/nothing"]}, ["Unknown preset 'init/nothing'"]),
        ({"scenes": [{"path": "x/fox", "inits": ["sfm"]}]}, ["fox: variants", "two of them have the label 'sfm'"]),
        ({"inits": [{"random": {"count": 1}}, "random"]}, ["two of them have the label 'random'", "`runs`"]),
        ({"inits": [["sfm"]]}, ["inits: ['sfm'] does not fit; expected a name, or {name: {setting: value}}"]),
        ({"grid": [1]}, ["grid: expected key: [values], got a list"]),
        ({"grid": {"seed": 3}}, ["grid: seed = 3 does not fit; expected a list of values"]),
        ({"settings": [1]}, ["settings: expected key: value, got a list"]),
        ({"seeds": 0}, ["seeds = 0 does not fit; expected whole numbers"]),
        ({"seeds": ["a"]}, ["seeds = ['a'] does not fit"]),
        ({"runs": ["fast"]}, ["my.yaml: runs: expected name, presets, settings with their values, got 'fast'"]),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(tree, texts):
    message = refused(**tree)
    for text in texts:
        assert text in message


def test_nothing_to_compare():
    with pytest.raises(ConfigError, match="nothing says what differs between the runs"):
        expand({"scenes": ["x"]}, "my.yaml", scenes_exist=False)


def test_files_and_scenes_that_are_not_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "fox").mkdir(parents=True)
    file = tmp_path / "starts.yaml"
    for path, text in (
        ("data/fix", "unknown scene 'fix': data/fix does not exist"),
        ("dada/fox", "Did you mean 'data'"),
    ):
        file.write_text(f"scenes: [{path}]\ninits: [sfm]")
        with pytest.raises(ConfigError) as caught:
            read_plan(file)
        assert text in str(caught.value) and "Did you mean" in str(caught.value)
    # A public scene can be fetched, or lie elsewhere.
    file.write_text("scenes: [data/mipnerf360/garden]\ninits: [sfm]")
    with pytest.raises(ConfigError, match="unknown scene 'garden': data/mipnerf360/garden does not exist") as caught:
        read_plan(file)
    assert caught.value.hint.startswith("`splatinit data fetch mipnerf360` gets all its scenes, `splatinit data fetch ")
    assert "mipnerf360/garden lies in SPLATINIT_DATA; `splatinit sweep --scene NAME` takes" in caught.value.hint
    elsewhere = tmp_path / "elsewhere" / "mipnerf360" / "garden"
    elsewhere.mkdir(parents=True)
    monkeypatch.setenv("SPLATINIT_DATA", str(tmp_path / "elsewhere"))
    assert [run.path for run in read_plan(file).runs] == ["data/mipnerf360/garden"]
    # Of a benchmark that is here in part.
    assert {run.scene for run in read_plan("mipnerf360", scenes=["garden"]).runs} == {"garden"}
    with pytest.raises(ConfigError, match="no scene is called 'gardn'") as caught:
        read_plan("mipnerf360", scenes=["gardn"])
    assert "Did you mean 'garden'" in caught.value.hint
    file.write_text("scenes: [data/fox]\ninits: [sfm]")
    assert read_plan(file).name == "starts"
    with pytest.raises(ConfigError, match=r"Sweep file .*start.yaml does not exist[\s\S]*Did you mean 'starts.yaml'"):
        read_plan(tmp_path / "start.yaml")
    assert len(read_plan("tiny", scenes_exist=False).runs) > 100
    with pytest.raises(ConfigError, match=r"Sweep file tinny does not exist[\s\S]*Did you mean 'tiny'"):
        read_plan("tinny")
    file.write_text("scenes: [data/fox\ninits: [sfm]")
    with pytest.raises(ConfigError, match=r"starts.yaml, line 2: not valid YAML"):
        read_plan(file)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"starts.yaml: not a text file in UTF-8"):
        read_plan(file)
