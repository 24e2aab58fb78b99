"""Training from small photos to large ones: what a smaller copy holds, when which size is trained, and how few grow."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from tiny import MemoryPhoto

from splatinit.decoding import decoded_bytes, shrunk
from splatinit.densify.none import NoDensify
from splatinit.io.checkpoints import digest
from splatinit.targets import Targets, most_copied_bytes
from splatinit.training import RESOLUTION_LEVELS, TrainConfig, memory_needs, train
from splatinit.types import DepthPrior, Pixels, Scene, View


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    with tiny.threads(1):
        yield


def image(height: int, width: int, *more: int) -> np.ndarray:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, *more), dtype=np.uint8)


# ---------------------------------------------------------------------------------------------------------- the copies
def overlaps(long: int, short: int) -> np.ndarray:
    """[short, long] how much of each long cell lies in each short one; rows sum to 1."""
    edges = np.arange(short + 1) * (long / short)
    cells = np.arange(long)
    common = np.minimum(edges[1:, None], cells + 1) - np.maximum(edges[:-1, None], cells)
    return common.clip(0) / (long / short)


@pytest.mark.parametrize(
    ("size", "small"), [((7, 5), (3, 2)), ((8, 6), (4, 3)), ((9, 1), (4, 1)), ((1, 1), (1, 1)), ((13, 11), (12, 11))]
)
def test_a_copy_is_the_average_over_the_area_of_each_pixel(size, small):
    rgb = image(*size, 3)
    rows, columns = overlaps(size[0], small[0]), overlaps(size[1], small[1])
    expected = np.einsum("ih,jw,hwc->ijc", rows, columns, rgb.astype(float))
    copy = shrunk(Pixels(rgb), small[1], small[0])
    assert copy.rgb.dtype == np.uint8 and copy.alpha is None and copy.mask is None
    assert np.abs(copy.rgb - expected).max() <= 0.51  # rounded to 8 bit
    alpha = image(*size)
    cover = np.einsum("ih,jw,hw->ij", rows, columns, alpha.astype(float))
    weighted = np.einsum("ih,jw,hwc->ijc", rows, columns, rgb * alpha.astype(float)[..., None])
    copy = shrunk(Pixels(rgb, alpha), small[1], small[0])
    assert np.abs(copy.alpha - cover).max() <= 0.51
    seen = cover > 1
    assert np.abs(copy.rgb - weighted / cover.clip(1e-9)[..., None])[seen].max() <= 0.52


def test_transparent_pixels_lend_no_colour():
    rgb = np.array([[[200, 100, 50], [0, 255, 0]], [[200, 100, 50], [0, 255, 0]]], np.uint8)
    copy = shrunk(Pixels(rgb, np.array([[255, 0], [255, 0]], np.uint8)), 1, 1)
    assert copy.rgb.tolist() == [[[200, 100, 50]]] and copy.alpha.tolist() == [[128]]
    clear = shrunk(Pixels(rgb, np.zeros((2, 2), np.uint8)), 1, 1)
    assert clear.rgb.tolist() == [[[0, 0, 0]]] and clear.alpha.tolist() == [[0]]


@pytest.mark.parametrize(("width", "height"), [(5, 4), (7, 6), (19, 19), (3, 1)])
def test_a_pixel_counts_only_if_nothing_masked_went_into_it(width, height):
    mask = np.full((20, 20), 255, np.uint8)
    mask[3, 17] = mask[12, 0] = 0
    rows, columns = overlaps(20, height), overlaps(20, width)
    expected = np.einsum("ih,jw,hw->ij", rows, columns, mask == 0) <= 1e-9
    copy = shrunk(Pixels(image(20, 20, 3), mask=mask), width, height)
    assert set(np.unique(copy.mask)) <= {0, 255}
    assert ((copy.mask == 255) <= expected).all() and (copy.mask == 255).sum() >= 0.9 * expected.sum()
    # So what the photo shows there reaches no pixel that counts.
    other = image(20, 20, 3)
    other[mask == 0] ^= 255
    changed = shrunk(Pixels(other, mask=mask), width, height).rgb
    assert (changed == copy.rgb)[copy.mask == 255].all()


# -------------------------------------------------------------------------------------------------------- the schedule
def test_photos_grow_in_equal_levels_and_then_have_their_size():
    config = TrainConfig(steps=1000, resolution=0.2, resolution_until=0.4)
    sizes = [config.resolution_after(done) for done in range(1000)]
    assert sizes == sorted(sizes) and sizes[0] == 0.2 and sizes[399] == pytest.approx(0.9)
    assert set(sizes[400:]) == {1.0}
    levels, uses = np.unique(sizes[:400], return_counts=True)
    assert len(levels) == RESOLUTION_LEVELS and uses.min() == uses.max() == 50
    assert {TrainConfig(steps=10).resolution_after(done) for done in range(10)} == {1.0}
    at_once = TrainConfig(steps=10, resolution=0.5, resolution_until=0.0)
    assert {at_once.resolution_after(done) for done in range(10)} == {1.0}
    short = TrainConfig(steps=1, resolution=0.5, resolution_until=1.0)
    assert short.resolution_after(0) == 0.5


# --------------------------------------------------------------------------------------------------------- the targets
def targets(scene: Scene, **settings) -> Targets:
    return Targets(scene, TrainConfig(steps=100, **settings), seed=0, device=torch.device("cpu"))


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("cache_mb", [1024, 0])
def test_targets_have_the_size_of_their_camera(alpha, cache_mb):
    scene = tiny.scene(alpha=alpha)
    with (
        targets(scene, resolution=0.25, resolution_until=0.6, image_cache_mb=cache_mb) as small,
        targets(scene) as plain,
    ):
        for done in range(100):
            at = TrainConfig(steps=100, resolution=0.25, resolution_until=0.6).resolution_after(done)
            target, whole = small.get(done, at), plain.get(done)
            camera = target.view.camera
            assert target.rgb.shape == (camera.height, camera.width, 3)
            assert target.view.name == whole.view.name
            if done >= 60:
                assert target.view is whole.view and torch.equal(target.rgb, whole.rgb)
                continue
            share = 0.25 + 0.75 * (done * 8 // 60) / 8
            assert (camera.width, camera.height) == (round(28 * share), round(24 * share))
            assert camera.K[0, 2] / camera.width == pytest.approx(0.5)
            assert np.array_equal(camera.cam_from_world, whole.view.camera.cam_from_world)
            assert (target.rgb.mean() - whole.rgb.mean()).abs() < 0.02
            if alpha:
                assert torch.equal(target.background, whole.background)


def test_copies_are_kept_within_the_memory_for_photos():
    views = tiny.scene().train
    photos = sum(decoded_bytes(view) for view in views)
    assert most_copied_bytes(views, 10 * photos, 1.0) == 0
    assert most_copied_bytes(views, 10 * photos, 0.5) == photos
    assert most_copied_bytes(views, photos + 100, 0.5) == 100
    assert most_copied_bytes(views, photos - 1, 0.5) == 0
    small, whole = (memory_needs(tiny.scene(), 0, TrainConfig(resolution=share)) for share in (0.5, 1.0))
    assert small.photos - whole.photos == photos
    with targets(tiny.scene(), resolution=0.5, resolution_until=0.5) as copied:
        waiting = []
        for done in range(100):
            copied.get(done, TrainConfig(steps=100, resolution=0.5, resolution_until=0.5).resolution_after(done))
            waiting.append(copied.still_to_keep())
    one = 14 * 12 * 3
    assert waiting[4] - waiting[5] == 0 and waiting[0] - waiting[1] >= one
    assert waiting[5] == photos - 5 * one  # all photos are decoded, and each has its copy
    assert waiting[7] > waiting[6]  # the next level begins: the copies of the last are gone
    assert set(waiting[50:]) == {0}


def masked(view: View, mask: np.ndarray) -> View:
    return replace(view, photo=MemoryPhoto(view.name, Pixels(view.pixels().rgb, None, mask)))


def test_an_opening_that_no_small_pixel_fits_into_is_trained_at_the_working_size():
    scene = replace(tiny.scene(), test=())
    narrow, wide = np.zeros((24, 28), np.uint8), np.zeros((24, 28), np.uint8)
    narrow[5, 7] = 255
    wide[4:16, 4:16] = 255
    scene = replace(scene, train=(masked(scene.train[0], narrow), masked(scene.train[1], wide)))
    with targets(scene, resolution=0.5, resolution_until=1.0) as small:
        got = {target.view.name: target for target in (small.get(done, 0.5) for done in range(6))}
    first, second = (got[view.name] for view in scene.train)
    assert first.view is scene.train[0] and first.counts.sum() == 3
    assert second.counts.shape == (12, 14, 3) and second.counts.sum() == 3 * 36


def test_photos_of_one_pixel():
    camera = replace(tiny.camera(0.0), width=1, height=1)
    photo = MemoryPhoto("one.png", Pixels(np.full((1, 1, 3), 255, np.uint8)))
    scene = replace(tiny.scene(), train=(View("one.png", camera, photo),), test=())
    with targets(scene, resolution=0.01, resolution_until=1.0) as small:
        assert small.get(0, 0.01).rgb.tolist() == [[[1.0, 1.0, 1.0]]]


# -------------------------------------------------------------------------------------------------------- the training
def run(scene: Scene, densifier=None, **settings):
    more = {"depth_priors": settings.pop("depth_priors", None), "checkpoints": settings.pop("checkpoints", None)}
    return train(
        scene,
        tiny.random_model(30, seed=1),
        rasterizer=tiny.rasterizer(),
        settings=tiny.SETTINGS,
        densifier=densifier or NoDensify(),
        config=TrainConfig(**{"steps": 40, **settings}),
        **more,
    ).gaussians


def test_resolution_1_is_training_as_ever_and_where_copies_wait_changes_no_number():
    scene = tiny.scene(alpha=True)
    hashes = [
        digest(run(scene, **settings).tensors())
        for settings in (
            {},
            {"resolution": 1.0, "resolution_until": 1.0},
            {"resolution": 0.3, "resolution_until": 0.0},
            {"resolution": 0.3},
            {"resolution": 0.3, "image_cache_mb": 0},
        )
    ]
    assert hashes[0] == hashes[1] == hashes[2] != hashes[3] == hashes[4]


def test_a_depth_prior_pulls_at_every_size():
    scene = replace(tiny.scene(), test=())
    depths = [np.full((24, 28), value, np.float32) for value in (3.5, 4.5)]
    means = []
    for depth in depths:
        priors = {view.name: DepthPrior(view.name, depth, np.ones_like(depth)) for view in scene.train}
        settings = {"depth_weight": 20.0, "depth_until": 1.0, "lr_means": 5e-3, "resolution_until": 1.0}
        result = run(scene, depth_priors=priors, resolution=0.3, **settings)
        with torch.no_grad():
            render = tiny.rasterizer().render(result, scene.train[0].camera, with_depth=True)
        means.append(float(render.depth[render.alpha > 0.5].mean()))
    assert means[0] + 0.1 < means[1]


def test_the_densifier_is_told_the_size_that_was_trained():
    told = {}

    class Watching(NoDensify):
        def refine(self, step, adam, random, *, resolution=1.0):
            told[step] = resolution

    config = {"steps": 40, "resolution": 0.2, "resolution_until": 0.5}
    run(tiny.scene(), Watching(), **config)
    assert told == {step: TrainConfig(**config).resolution_after(step - 1) for step in range(1, 41)}
    assert told[1] == 0.2 and told[20] == pytest.approx(0.9) and told[21] == 1.0
