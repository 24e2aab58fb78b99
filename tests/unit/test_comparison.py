"""What ``splatinit compare`` plans from what was typed."""

from __future__ import annotations

import pytest

from splatinit.errors import ConfigError
from splatinit.sweep.comparison import LOOKS, budget_settings, plan_comparison


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "garden"
    folder.mkdir()
    return folder


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("2m", {"train.seconds": 120.0}),
        ("1.5 min", {"train.seconds": 90.0}),
        ("90s", {"train.seconds": 90.0}),
        ("30sec", {"train.seconds": 30.0}),
        ("1h", {"train.seconds": 3600.0}),
        ("7000steps", {"train.steps": 7000, "train.seconds": None}),
        ("7_000 steps", {"train.steps": 7000, "train.seconds": None}),
        ("30k", {"train.steps": 30_000, "train.seconds": None}),
        ("1step", {"train.steps": 1, "train.seconds": None}),
        ("500", {"train.steps": 500, "train.seconds": None}),
    ],
)
def test_a_budget_is_a_time_or_a_number_of_steps(text, settings):
    assert budget_settings(text) == settings


@pytest.mark.parametrize("text", ["", "m", "-2m", "0s", "0", "1.5steps", "2 days", "7km", "1e3", "nan", "2m30s"])
def test_what_is_no_budget_is_refused(text):
    with pytest.raises(ConfigError, match="--budget: got '.*'; expected a time or a number of steps"):
        budget_settings(text)


def test_every_start_has_the_same_but_its_own_settings(photos):
    plan = plan_comparison(
        photos,
        ["sfm", "random", "init/frusta", "sfm+random"],
        seeds=2,
        budget="2m",
        points=500,
        presets=["train/quick"],
        settings={"random.volume": "cameras", "frusta.clearance": 0.5, "train.ssim_weight": 0.3},
    )
    assert plan.name == "garden" and len(plan.runs) == 8
    sfm, random, frusta, union = (run.config for run in plan.runs[:4])
    assert [run.label for run in plan.runs[:4]] == ["sfm", "random", "frusta", "sfm+random"]
    assert {(c.train, c.eval, c.densify, c.data) for c in (sfm, random, frusta, union)} == {
        (sfm.train, sfm.eval, sfm.densify, sfm.data)
    }
    assert (sfm.train.seconds, sfm.train.ssim_weight, sfm.data.max_size, sfm.eval.during) == (120.0, 0.3, 480, LOOKS)
    assert (random.init.settings.count, random.init.settings.volume) == (500, "cameras")
    assert (frusta.init.settings.count, frusta.init.settings.clearance) == (500, 0.5)
    assert union.init.settings.parts["random"].count == 500


def test_a_field_has_a_quarter_of_the_time_unless_it_is_said_otherwise(photos):
    def fits(**more):
        plan = plan_comparison(photos, ["sfm", "nerf", "sfm+nerf"], **more)
        _, nerf, union = (run.config.init.settings for run in plan.runs)
        return nerf.fit_seconds, union.parts["nerf"].fit_seconds if "nerf" in union.parts else None

    assert fits(budget="2m") == (30.0, 30.0)
    assert fits(budget="2m", settings={"nerf.fit_seconds": 60}) == (60.0, 30.0)
    assert fits(budget="7000steps") == (None, None)


def test_what_cannot_be_meant_is_refused(photos, tmp_path):
    for inits, settings, text in (
        ([], {}, "--inits names nothing"),
        (["sfm", "radnom"], {}, "unknown initializer 'radnom'"),
        (["sfm", "random"], {"init.count": 5}, "init.count: it is not said of which .*; expected random.count"),
        (["random"], {"random.cuont": 5}, "unknown key 'init.cuont'"),
        (["random"], {"trian.steps": 5}, "unknown key 'trian'|trian.steps"),
    ):
        with pytest.raises(ConfigError, match=text):
            plan_comparison(photos, inits, settings=settings)
    with pytest.raises(ConfigError, match="unknown scene"):
        plan_comparison(tmp_path / "gardne", ["sfm"])
