"""The registries: taking a name twice, asking for what is not there, and that every spec keeps its promises."""

from __future__ import annotations

import dataclasses
import importlib.util
import re

import pytest

from splatinit.densify import DENSIFIERS
from splatinit.errors import ConfigError, MissingExtra
from splatinit.initializers import INITIALIZERS
from splatinit.io.read import READERS
from splatinit.matching import MATCHERS
from splatinit.posers import POSERS
from splatinit.raster import BACKENDS
from splatinit.registry import Registry, Spec, load_object, nearest
from splatinit.sweep.executors import EXECUTORS

REGISTRIES = (READERS, POSERS, INITIALIZERS, MATCHERS, DENSIFIERS, BACKENDS, EXECUTORS)
SPECS = [pytest.param(rooms, spec, id=f"{rooms.kind}-{spec.name}") for rooms in REGISTRIES for spec in rooms]


def make(*specs: Spec) -> Registry[Spec]:
    registry: Registry[Spec] = Registry("poser")
    for spec in specs:
        registry.register(spec)
    return registry


def test_parts_keep_their_order_and_a_name_is_taken_once() -> None:
    registry = make(Spec(name="b", impl="math:pi", summary=""), Spec(name="a", impl="math:e", summary=""))
    assert registry.names() == ["b", "a"]
    with pytest.raises(ValueError, match="poser 'a' is registered twice"):
        registry.register(Spec(name="a", impl="math:tau", summary=""))


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    registry = make(Spec(name="colmap", impl="math:pi", summary=""), Spec(name="given", impl="math:e", summary=""))
    with pytest.raises(ConfigError, match="Unknown poser 'colmpa'") as caught:
        registry.load("colmpa")
    assert "Did you mean 'colmap'?" in str(caught.value)
    assert caught.value.name == "colmpa"


def test_nearest_names_all_when_there_are_few_and_one_when_there_are_many() -> None:
    assert nearest("x", ["sfm", "random"]) == "Known: sfm, random."
    assert nearest("part7", [f"part{k}" for k in range(50)]) == "Did you mean 'part7'?"


def test_a_missing_package_is_named_with_the_command_that_installs_it() -> None:
    absent = "a_package_that_nobody_has"
    registry = make(
        Spec(name="one", impl="math:pi", summary="", needs=(absent,), extra="video"),
        Spec(name="two", impl="math:pi", summary="", needs=(absent,)),
    )
    with pytest.raises(MissingExtra, match=absent) as caught:
        registry.load("one")
    assert caught.value.hint == 'Install it: pip install "splatinit[video]"'
    with pytest.raises(MissingExtra) as caught:
        registry.load("two")
    assert caught.value.hint == f"Install it: pip install {absent}"


def test_import_strings_are_resolved() -> None:
    assert load_object("math:pi") > 3
    assert make(Spec(name="a", impl="math:pi", summary="")).config_class("a") is None


@pytest.mark.parametrize("registry, spec", SPECS)
def test_every_registered_part_keeps_its_promise(registry: Registry, spec: Spec) -> None:
    """Its module and config exist, the config is frozen with documented fields that all have defaults."""
    assert spec.summary and spec.source and spec.status
    module, _, attribute = spec.impl.partition(":")
    assert importlib.util.find_spec(module) is not None and attribute.isidentifier()
    if spec.missing():
        pytest.skip(f"needs {', '.join(spec.missing())}")
    assert registry.load(spec.name) is not None
    config = registry.config_class(spec.name)
    if config is None:
        return
    assert dataclasses.is_dataclass(config) and config.__dataclass_params__.frozen
    for field in dataclasses.fields(config):
        explained = re.search(rf"\b{field.name}(, \w+)*:", config.__doc__ or "")
        assert explained, f"{config.__name__}.{field.name} is not explained"
    config()


def test_every_extra_that_a_part_names_exists(pytestconfig: pytest.Config) -> None:
    text = (pytestconfig.rootpath / "pyproject.toml").read_text()
    extras = text[text.index("[project.optional-dependencies]") : text.index("[project.scripts]")]
    for registry in REGISTRIES:
        for spec in registry:
            assert spec.extra is None or f"\n{spec.extra} = [" in extras, f"{spec.name} names the extra {spec.extra}"
