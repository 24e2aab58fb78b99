"""``union``: which points stay, what becomes of fields that only some bring, and how it is configured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from test_initializers import CENTERS, scene

from splatinit import pipeline
from splatinit.config import Layer, build_config, read_yaml, renamed
from splatinit.errors import BadPoints, ConfigError, MissingExtra, SceneError
from splatinit.initializers import make_initializer, needs_points, require_packages, union
from splatinit.initializers.file import FileConfig
from splatinit.initializers.random import RandomConfig
from splatinit.initializers.union import Union, UnionConfig
from splatinit.io.pointcloud import write_ply_points
from splatinit.progress import Silent
from splatinit.types import PointCloud


def grid(n: int, step: float, z: float = 0.0) -> np.ndarray:
    axis = step * (np.arange(n) - (n - 1) / 2)
    x, y = np.meshgrid(axis, axis)
    return np.stack([x.ravel(), y.ravel(), np.full(n * n, z)], axis=1)


def cloud(xyz, **more) -> PointCloud:
    return PointCloud(np.asarray(xyz), np.full((len(xyz), 3), 0.5), **more)


def start(tmp_path, sfm, file, seed=0, **settings):
    write_ply_points(tmp_path / "points.ply", file)
    config = UnionConfig(of=("sfm", "file"), parts={"file": FileConfig(path=tmp_path / "points.ply")}, **settings)
    return Union(config).initialize(scene(CENTERS, sfm), seed=seed, progress=Silent())


def test_a_repeat_goes_and_what_fills_room_stays(tmp_path):
    fine, coarse = grid(21, 0.1), grid(11, 0.4, z=0.01)  # coarse: 4 × 4 wide, and the fine one 2 × 2
    begun = start(tmp_path, cloud(fine), cloud(coarse), overlap=1.0)
    # Its spacing is 0.4: only what lies farther than that from the fine points, beyond 1.4 in x or y.
    added = begun.points.xyz[len(fine) :]
    assert (np.abs(added[:, :2]).max(axis=1) > 1.3).all()
    outside = int((np.abs(coarse[:, :2]).max(axis=1) > 1.3).sum())
    assert len(added) == outside == 121 - 49
    assert "441 of the 441 points of sfm, 72 of the 121 points of file stay" in begun.notes[-1]
    # The other way round: fine detail beside coarse points is no repeat.
    other = start(tmp_path, cloud(coarse), cloud(fine), overlap=1.0)
    assert len(other.points) > 121 + 400
    # Half of its spacing of 0.4 unless told otherwise; that of the 4 corners is 0.46.
    for away, stay in ((0.19, 0), (0.21, 21), (0.23, 25)):
        assert len(start(tmp_path, cloud(fine), cloud(grid(5, 0.4, z=away))).points) == len(fine) + stay
    everything = start(tmp_path, cloud(fine), cloud(coarse), overlap=0.0)
    assert len(everything.points) == 441 + 121 and not [text for text in everything.notes if "repeat" in text]
    np.testing.assert_array_equal(start(tmp_path, cloud(fine), cloud(fine)).points.xyz, cloud(fine).xyz)


def test_points_nearer_than_a_pixel_are_one(tmp_path):
    # 60 px of focal length: at the nearest camera's distance of about 3, a pixel is 0.05 wide.
    dense = grid(20, 0.001)
    begun = start(tmp_path, cloud([[0.0, 0, 0], [5, 5, 5]]), cloud(dense))
    assert len(begun.points) == 2
    assert len(start(tmp_path, cloud([[0.0, 0.5, 0], [5, 5, 5]]), cloud(dense)).points) == 402


def test_fields_that_one_part_brings(tmp_path):
    a, b = grid(5, 1.0), grid(5, 1.0, z=9.0)
    up = np.tile([0.0, 0, 1], (25, 1))
    full = cloud(b, radius=np.full(25, 0.2), opacity=np.full(25, 0.7), confidence=np.arange(25.0), normal=up)
    points = start(tmp_path, cloud(a), full).points
    assert len(points) == 50
    usual = np.ones(25)  # neighbours on a grid of 1; a corner has two of them and one across
    usual[[0, 4, 20, 24]] = (2 + np.sqrt(2)) / 3
    np.testing.assert_allclose(points.radius, np.concatenate([usual, np.full(25, 0.2)]), rtol=1e-6)
    np.testing.assert_allclose(points.opacity, [0.1] * 25 + [0.7] * 25)
    np.testing.assert_allclose(points.confidence, [12.0] * 25 + list(range(25)))
    assert points.normal is None
    both = start(tmp_path, cloud(a, normal=up), full).points
    np.testing.assert_allclose(both.normal, np.tile(up, (2, 1)))
    shaded = start(tmp_path, cloud(a, sh=np.ones((25, 3, 3))), cloud(b, sh=np.full((25, 8, 3), 2.0))).points
    assert shaded.sh.shape == (50, 8, 3)
    np.testing.assert_array_equal(shaded.sh[0, :, 0], [1, 1, 1, 0, 0, 0, 0, 0])
    lonely = start(tmp_path, cloud([[30.0, 0, 0]]), full).points
    assert lonely.radius[0] == pytest.approx(2e-4)  # a thousandth of the others'
    assert start(tmp_path, cloud(a), cloud(b)).points.radius is None


def test_each_part_starts_as_alone_and_all_is_told(tmp_path):
    config = UnionConfig(of=("sfm", "random"), parts={"random": RandomConfig(count=300)}, overlap=0.0)
    points = cloud(grid(10, 0.3))
    begun = Union(config).initialize(scene(CENTERS, points), seed=4, progress=Silent())
    alone = make_initializer("random", RandomConfig(count=300)).initialize(scene(CENTERS), seed=4, progress=Silent())
    np.testing.assert_array_equal(begun.points.xyz[100:], alone.points.xyz)
    assert {"sfm/points", "random/draw", "union"} == set(begun.seconds)
    assert [part["initializer"] for part in begun.recipe["parts"]] == ["sfm", "random"]
    assert any(text.startswith("random: 300 points in a cube") for text in begun.notes)
    few = UnionConfig(of=config.of, parts=config.parts, overlap=0.0, count=50)
    drawn = Union(few).initialize(scene(CENTERS, points), seed=4, progress=Silent())
    assert len(drawn.points) == 50 and "50 of its 400 points were drawn at random (init.count)" in drawn.notes[-1]


def test_what_a_part_raises_names_its_settings_as_they_are_here():
    config = UnionConfig(of=("sfm", "random"), parts={"random": RandomConfig(volume="points")})
    with pytest.raises(BadPoints, match="left no points for the initializer 'sfm'"):
        Union(config).initialize(scene(CENTERS), seed=0, progress=Silent())
    both = UnionConfig(of=("random", "sfm"))
    with pytest.raises(SceneError, match="all stand at one place") as error:
        Union(both).initialize(scene([(1, 2, 3)] * 3), seed=0, progress=Silent())
    assert "Use init.random.volume=blender, or init.random.volume=points" in error.value.hint
    assert renamed("init.name=file needs init.path", "file") == "init.name=file needs init.file.path"


def test_what_the_parts_need(monkeypatch, tmp_path):
    assert needs_points("union", UnionConfig(of=("random", "sfm")))
    assert not needs_points("union", UnionConfig(of=("random", "depth")))
    assert needs_points("union", UnionConfig(of=("random", "depth"), parts={"random": RandomConfig(volume="points")}))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="needs laspy"):
        scan = FileConfig(path=tmp_path / "a.las")
        require_packages("union", UnionConfig(of=("random", "file"), parts={"file": scan}))


# --------------------------------------------------------------------------------------------------------- settings
def build(*layers: dict):
    return build_config(*(Layer(f"layer {k}", values) for k, values in enumerate(layers)))


def test_names_with_a_plus(tmp_path):
    config = build({"init.name": "sfm+random", "init.random.count": "1e3", "init.overlap": "0.5"})
    assert config.init.name == "union" and config.init.label == "sfm+random"
    assert config.init.settings == UnionConfig(
        of=("sfm", "random"), overlap=0.5, parts={"sfm": None, "random": RandomConfig(count=1000)}
    )
    assert config == build(
        {"init.name": "union", "init.of": "sfm,random", "init.random.count": 1000, "init.overlap": 0.5}
    )
    assert pipeline.default_out("x/scene", config) == Path("runs/scene-sfm+random")
    assert build({"init.name": "sfm"}).init.label == "sfm"


def test_a_frozen_config_reproduces_the_union(tmp_path):
    config = build({"init.name": "random+file", "init.file.axes": "x,z,-y", "init.file.path": "a.ply"})
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config.expand(), sort_keys=False))
    tree = yaml.safe_load(path.read_text())["init"]
    assert tree["of"] == ["random", "file"] and tree["file"]["axes"] == ["x", "z", "-y"] and "parts" not in tree
    assert build_config(Layer(str(path), read_yaml(path))) == config


def test_layers_over_a_union():
    preset = {"init.name": "sfm+random", "init.random.count": 5, "init.overlap": 2}
    assert build(preset, {"init.random.size": 2}).init.settings.parts["random"] == RandomConfig(count=5, size=2.0)
    other = build(preset, {"init.name": "random+depth"}).init.settings
    assert other.of == ("random", "depth") and other.parts["random"].count == 5 and other.overlap == 2
    dropped = build(preset, {"init.name": "sfm+depth"}).init.settings
    assert dropped.of == ("sfm", "depth") and set(dropped.parts) == {"sfm", "depth"}
    assert build(preset, {"init.name": "random"}).init.settings == RandomConfig()


@pytest.mark.parametrize(
    ("values", "message", "hint"),
    [
        ({"init.name": "sfm+randon"}, "layer 0: init.of: unknown initializer 'randon'.", "Did you mean 'random'?"),
        ({"init.name": "sfm+union"}, "layer 0: init.of: unknown initializer 'union'.", "Known: sfm"),
        ({"init.name": "sfm+sfm"}, "layer 0: init.of is sfm,sfm; expected two or more", "--init sfm+random"),
        (
            {"init.name": "sfm+random", "init.depth.count": 5},
            "layer 0: unknown key 'init.depth.count': 'depth' is not one of sfm+random.",
            "Leave it out, or take depth along: sfm+random+depth.",
        ),
        (
            {"init.name": "sfm+random", "init.randon.count": 5},
            "layer 0: unknown key 'init.randon.count': 'randon' is not one of sfm+random.",
            "Did you mean 'random'?",
        ),
        (
            {"init.name": "sfm+random", "init.random.cuont": 5},
            "layer 0: unknown key 'init.random.cuont'.",
            "Did you mean 'init.random.count'?",
        ),
        ({"init.name": "sfm+random", "init.sfm.count": 5}, "unknown key 'init.sfm.count'.", "sfm has no settings."),
        (
            {"init.name": "sfm+random", "init.random.count": "few"},
            "layer 0: init.random.count = 'few' does not fit; expected a whole number.",
            "",
        ),
        (
            {"init.name": "sfm+random", "init.random.count": 0},
            "layer 0: init.random.count is 0; expected at least 1 point.",
            "",
        ),
        (
            {"init.name": "sfm+random", "init.of": "sfm,depth"},
            "layer 0: init.name=sfm+random says of what it is made, and so does init.of.",
            "Leave one of them out.",
        ),
        ({"init.name": "random", "init.random.count": 5}, "unknown key 'init.random.count'", ""),
        ({"init.name": "sfm+random", "init.size": 5}, "unknown key 'init.size'", ""),
        ({"init.name": "sfm+random", "init.overlap": -1}, "init.overlap is -1; expected a factor", ""),
        ({"init.name": "sfm+random", "init.count": 0}, "init.count is 0; expected at least 1 point, or none.", ""),
        ({"init.name": "sfm+"}, "init.of: unknown initializer ''.", ""),
    ],
)
def test_settings_that_do_not_fit(values, message, hint):
    with pytest.raises(ConfigError) as error:
        build(values)
    assert message in error.value.message and hint in (error.value.hint or "")


def test_from_python(tmp_path):
    here = scene(CENTERS, cloud(grid(10, 0.3)))
    begun = pipeline.initialize(here, "sfm+random", overlap=0, random={"count": 70})
    assert len(begun.points) == 170
    assert len(pipeline.initialize(here, "union", of=("sfm", "random"), overlap=0, random={"count": 7}).points) == 107
    with pytest.raises(ConfigError, match="initializer 'union': unknown key 'random.cuont'"):
        pipeline.initialize(here, "sfm+random", random={"cuont": 70})
    with pytest.raises(ConfigError, match="initializer 'union': unknown setting 'cuont'"):
        pipeline.initialize(here, "sfm+random", cuont=70)
    assert (
        len(
            make_initializer("union", UnionConfig(of=("sfm", "random")))
            .initialize(here, seed=0, progress=Silent())
            .points
        )
        > 100
    )


def test_a_run_knows_the_files_of_its_parts(tmp_path):
    write_ply_points(tmp_path / "a.ply", cloud(grid(3, 1.0)))
    config = build({"init.name": "sfm+file", "init.file.path": str(tmp_path / "a.ply")})
    assert list(pipeline._files({"init": config.init.settings})) == ["init.file.path"]
    assert pipeline._files({"init": None}) == {}


def test_depth_priors_of_the_first_part_win(monkeypatch):
    from splatinit.types import DepthPrior, Initialization

    def made(value):
        prior = DepthPrior("0", np.full((2, 2), value), np.ones((2, 2)))
        return Initialization(points=cloud(grid(3, 1.0, z=value)), depth_priors={"0": prior, str(value): prior})

    starts = iter([made(1.0), made(5.0)])
    monkeypatch.setattr(union.Union, "_start", lambda *_: next(starts))
    begun = Union().initialize(scene(CENTERS), seed=0, progress=Silent())
    assert begun.depth_priors["0"].depth[0, 0] == 1.0 and set(begun.depth_priors) == {"0", "1.0", "5.0"}


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        ({"of": ("sfm",)}, "init.of is sfm; expected two or more initializers, each once."),
        ({"of": ("sfm", "sfm")}, "init.of is sfm,sfm; expected two or more initializers, each once."),
        ({"overlap": -1.0}, "init.overlap is -1; expected a factor of the spacing, 0 or more."),
        ({"overlap": float("inf")}, "init.overlap is inf; expected a factor of the spacing, 0 or more."),
        ({"count": 0}, "init.count is 0; expected at least 1 point, or none."),
    ],
)
def test_settings_out_of_range_are_named(bad, text):
    with pytest.raises(ConfigError) as error:
        UnionConfig(**bad)
    assert text in str(error.value)
