"""Settings: precedence, conversion of what was typed, and errors that name the nearest match and the place."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal

import pytest
import yaml

from splatinit import config as cfg
from splatinit.config import (
    SECTIONS,
    Layer,
    attribute_texts,
    build_config,
    convert,
    describe,
    load_preset,
    parse_overrides,
    presets,
)
from splatinit.errors import ConfigError


def build(*pairs: str, preset: dict | None = None):
    layers = [Layer("preset.yaml", preset)] if preset else []
    return build_config(*layers, parse_overrides(pairs))


def refused(*pairs: str, preset: dict | None = None) -> str:
    with pytest.raises(ConfigError) as error:
        build(*pairs, preset=preset)
    return str(error.value)


# ------------------------------------------------------------------------------------------------------- precedence
def test_defaults_then_presets_then_command_line():
    assert build().train.steps == 7000
    assert build(preset={"train.steps": 100}).train.steps == 100
    assert build("train.steps=7", preset={"train.steps": 100, "train.lr_sh0": 0.5}).train.steps == 7
    assert build("train.steps=7", preset={"train.steps": 100, "train.lr_sh0": 0.5}).train.lr_sh0 == 0.5
    two = build_config(Layer("a", {"train.steps": 1}), Layer("b", {"train.steps": 2}))
    assert two.train.steps == 2


def test_parts_are_chosen_by_name():
    chosen = build("init.name=random", "init.count=12", "raster.backend=reference", "densify.name=none", "seed=3")
    assert (chosen.init.name, chosen.init.settings.count) == ("random", 12)
    assert (chosen.raster.name, chosen.raster.settings.eps2d) == ("reference", 0.3)
    assert chosen.densify.settings is None and chosen.seed == 3
    assert chosen.poser.name == "auto" and chosen.poser.settings is None


def test_order_inside_a_layer_does_not_matter():
    assert build("init.count=12", "init.name=random").init.settings.count == 12


def test_another_part_drops_the_settings_that_were_meant_for_the_first():
    preset = {"init.name": "random", "init.count": 5}
    assert build("init.name=sfm", preset=preset).init.settings is None
    assert build("init.name=random", preset=preset).init.settings.count == 5
    # The backend is chosen apart from how it draws, so that its settings stay.
    kept = build("raster.backend=reference", preset={"raster.eps2d": 0.1})
    assert kept.raster.settings.eps2d == 0.1


def test_expanded_config_is_complete_and_gives_itself_back(tmp_path):
    first = build("init.name=random", "data.max_size=none", "eval.lpips=vgg,alex", "train.lr_sh0=1e-15")
    expanded = first.expand()
    assert set(expanded) == {*SECTIONS, "seed"}
    assert set(expanded["train"]) == {f.name for f in fields(first.train)}
    assert expanded["data"]["max_size"] is None and expanded["eval"]["lpips"] == ["vgg", "alex"]
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(expanded, sort_keys=False))
    assert build_config(load_preset(str(path))) == first


# --------------------------------------------------------------------------------------------------------- conversion
@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        ("1e4", int, 10_000),
        ("30_000", int, 30_000),
        (9007199254740993, int, 9007199254740993),
        ("9007199254740993", int, 9007199254740993),  # no detour over float
        (3.0, int, 3),
        (" 2e-4 ", float, 2e-4),
        (1, float, 1.0),
        ("inf", float, float("inf")),
        ("yes", bool, True),
        ("0", bool, False),
        (True, bool, True),
        ("none", int | None, None),
        (None, float | None, None),
        ("5", int | None, 5),
        ("vgg, alex", tuple[str, ...], ("vgg", "alex")),
        ("[vgg]", tuple[str, ...], ("vgg",)),
        ("none", tuple[str, ...], ()),
        (["a"], tuple[str, ...], ("a",)),
        ("1,0.5,0", tuple[float, float, float], (1.0, 0.5, 0.0)),
        ("b", Literal["a", "b"], "b"),
        ("2", Literal[1, 2], 2),
        ("x/y.ply", Path, Path("x/y.ply")),
        ("none", Path | None, None),
    ],
)
def test_conversion(value, kind, expected):
    got = convert(value, kind, "key", "here")
    assert got == expected and type(got) is type(expected)


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        ("1.5", int, "a whole number"),
        ("inf", int, "a whole number"),
        (True, int, "a whole number"),
        ("many", int, "a whole number"),
        ("nan", float, "a number"),
        (None, float, "a number"),
        ("maybe", bool, "true or false"),
        (1, bool, "true or false"),
        ("x", int | None, "a whole number or none"),
        ("c", Literal["a", "b"], "one of a, b"),
        ("1,2", tuple[float, float, float], "3 values"),
        (3, str, "text"),
        ("", Path, "a path"),
    ],
)
def test_conversion_says_what_was_expected(value, kind, expected):
    with pytest.raises(ConfigError, match=f"here: key = .* does not fit; expected {expected}"):
        convert(value, kind, "key", "here")


# -------------------------------------------------------------------------------------------------------------- errors
@pytest.mark.parametrize(
    ("pair", "texts"),
    [
        ("train.stesp=1", ("command line: unknown key 'train.stesp'", "Did you mean 'train.steps'?")),
        ("trian.steps=1", ("unknown key 'trian.steps'", "Did you mean train.steps?")),
        ("steps=1", ("unknown key 'steps'", "Did you mean train.steps?")),
        ("train=1", ("unknown key 'train'", "train.steps")),
        ("init.count=1", ("init.name=sfm has no such setting", "add init.name=random")),
        ("init.name=sfn", ("unknown initializer 'sfn'", "Did you mean 'sfm'?")),
        ("poser.name=colmpa", ("unknown poser 'colmpa'", "Did you mean 'colmap'?")),
        ("raster.backend=cud", ("unknown backend 'cud'", "Did you mean 'cuda'")),
        ("train.steps=1.5", ("train.steps = '1.5' does not fit", "a whole number")),
        ("train.steps=0", ("command line:", "steps = 0")),
        ("train.steps", ("'train.steps' is not a setting", "train.steps=3000")),
        ("=5", ("'=5' is not a setting",)),
    ],
)
def test_mistakes_are_named_with_place_and_nearest_match(pair, texts):
    message = refused(pair)
    for text in texts:
        assert text in message, message


def test_a_mistake_in_a_preset_names_the_preset():
    assert "preset.yaml: unknown key 'train.lr_maens'" in refused(preset={"train.lr_maens": 1})
    assert refused(preset={"train.steps": -1}).startswith("preset.yaml: ")


def test_the_same_key_twice():
    assert "'seed' is given twice (1 and 2)" in refused("seed=1", "seed=2")


# ------------------------------------------------------------------------------------------------------------- presets
def test_every_preset_builds_and_says_what_it_is_for():
    found = presets()
    assert {"init", "train"} <= {preset.name.partition("/")[0] for preset in found}
    for preset in found:
        assert preset.about, preset.name
        build_config(load_preset(preset.name))
        assert load_preset(preset.name.rpartition("/")[2]).values


def test_edgs_and_its_comparison_differ_in_the_densifier_alone():
    edgs, adc = (build_config(load_preset(name)) for name in ("edgs", "edgs_adc"))
    assert (edgs.densify.name, adc.densify.name) == ("prune", "adc")
    assert replace(adc, densify=edgs.densify) == edgs
    assert edgs.train.lr_means_hold == pytest.approx(8000 / 30_000, abs=1e-5)
    assert edgs.train.lr_opacities == 0.025 and edgs.seeding.opacity == 0.5


def test_presets_are_found_by_name_path_or_not_at_all(tmp_path):
    with pytest.raises(ConfigError, match="Unknown preset 'quik'") as error:
        load_preset("quik")
    assert "train/quick" in str(error.value)
    with pytest.raises(ConfigError, match="does not exist"):
        load_preset(str(tmp_path / "mine.yaml"))
    mine = tmp_path / "mine.yaml"
    mine.write_text("train:\n  steps: 5\ntrain.lr_sh0: 2e-3\n")
    assert load_preset(str(mine)).values == {"train.steps": 5, "train.lr_sh0": "2e-3"}
    assert build_config(load_preset(str(mine))).train.lr_sh0 == 2e-3  # YAML reads 2e-3 as text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: [1", "line 1: not valid YAML"),
        ("- 1", "expected 'section: key: value' mappings, got a list"),
        ("train: {steps: 1}\ntrain.steps: 2", "'train.steps' is given twice"),
    ],
)
def test_bad_preset_files(tmp_path, text, message):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_preset(str(path))


def test_a_name_in_two_folders_is_ambiguous(tmp_path, monkeypatch):
    for folder in ("init", "train"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "same.yaml").write_text("# it\n")
    monkeypatch.setattr(cfg, "preset_folder", lambda: tmp_path)
    with pytest.raises(ConfigError, match="ambiguous: init/same, train/same"):
        load_preset("same")
    assert load_preset("init/same").values == {}


# ------------------------------------------------------------------------------------------------------------ teaching
@dataclass(frozen=True)
class Example:
    """What it is.

    Attributes:
        one, two: px, both. They
            go on: with a colon.
        three: of the third.      four: of the fourth.

    Not an attribute: this.
    """

    one: int = 1
    two: int = 2
    three: float = 3.0
    four: tuple[int, ...] = (4,)


def test_docstrings_become_help():
    texts = attribute_texts(Example.__doc__)
    assert texts["one"] == texts["two"] == "px, both. They go on: with a colon."
    assert (texts["three"], texts["four"]) == ("of the third.", "of the fourth.")
    assert [(s.key, s.default) for s in describe(Example, "x")][3] == ("x.four", [4])


def every_config_class():
    for section in SECTIONS.values():
        for name in section.choices().names() if section.registry and not section.config else [""]:
            cls = section.config_class(name)
            if cls is not None:
                yield section.name, cls


def test_every_setting_of_every_part_is_explained_and_convertible():
    for section, cls in every_config_class():
        kinds = cfg.field_types(cls)
        for setting, field in zip(describe(cls, section), cfg.setting_fields(cls), strict=True):
            assert setting.about, f"{cls.__name__} does not explain {setting.key}"
            assert convert(field.default, kinds[field.name], setting.key, "default") == field.default
        with pytest.raises(AttributeError):
            setattr(cls(), fields(cls)[0].name, 0)  # frozen
