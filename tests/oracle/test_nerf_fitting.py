"""Rays, occupancy and the fit of a radiance field, on a coloured sphere whose pictures and depths are known exactly."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from compare import assert_matches

from splatinit import native
from splatinit.errors import ConfigError, TrainingError
from splatinit.nerf import (
    Ball,
    Box,
    CameraRays,
    FitConfig,
    FitView,
    HashField,
    HashFieldConfig,
    Occupancy,
    Photos,
    Rays,
    SamplingConfig,
    camera_rays,
    ends,
    fit,
    picture,
)
from splatinit.nerf.rendering import Seen
from splatinit.types import Camera

pytestmark = pytest.mark.skipif(not native.available(), reason="splat_cpu is not built in this installation")
RADIUS = 0.6
SIZE = 24  # px
BOX = Box((-1.0, -1.0, -1.0), (1.0, 1.0, 1.0))
SMALL = HashFieldConfig(levels=4, coarsest=4, finest=24, log2_rows=12, width=16, sh_degree=0)
CONFIG = FitConfig(steps=200, rays=512, lr=1e-2, sampling=SamplingConfig(coarse=32, fine=16))


def camera(azimuth: float, elevation: float) -> Camera:
    """Looks at the origin from 3 away."""
    z = -np.array([np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)])
    x = np.cross(z, [0, 0, 1.0])
    x /= np.linalg.norm(x)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([x, np.cross(z, x), z])
    pose[2, 3] = 3.0
    return Camera(np.array([[1.6 * SIZE, 0, SIZE / 2], [0, 1.6 * SIZE, SIZE / 2], [0, 0, 1]]), pose, SIZE, SIZE)


def all_rays(view: Camera) -> Rays:
    y, x = torch.meshgrid(torch.arange(view.height), torch.arange(view.width), indexing="ij")
    return camera_rays(view, torch.stack([x, y], dim=-1).reshape(-1, 2) + 0.5)


def sphere(rays: Rays) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Colour [n, 3], alpha and distance [n]: waves of colour along x, y and z."""
    towards = -(rays.origins * rays.directions).sum(-1)
    inside = RADIUS**2 - ((rays.origins**2).sum(-1) - towards**2)
    distance = towards - inside.clamp(min=0).sqrt()
    points = rays.origins + distance[:, None] * rays.directions
    hit = (inside > 0).float()
    return (0.5 + 0.4 * torch.sin(6 * points)) * hit[:, None], hit, distance


def photo(view: Camera, gain: float = 1.0) -> FitView:
    rgb, alpha, _ = sphere(all_rays(view))
    rgb, alpha = (((array * 255).round().to(torch.uint8)) for array in (rgb * gain, alpha))
    return FitView(view, rgb.reshape(SIZE, SIZE, 3), alpha.reshape(SIZE, SIZE))


VIEWS = [photo(camera(azimuth, e)) for e in (-0.5, 0.4) for azimuth in np.arange(6) * np.pi / 3 + e]


# ---------------------------------------------------------------------------------------------------------------- rays
def test_camera_rays_are_those_of_the_pinhole() -> None:
    view = camera(0.3, 0.2)
    rays = all_rays(view)
    ahead = rays.origins + 2.5 * rays.directions
    seen = ahead.double() @ torch.tensor(view.cam_from_world[:3, :3]).T + torch.tensor(view.cam_from_world[:3, 3])
    pixels = seen @ torch.tensor(view.K).T
    expected = torch.stack(torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="xy"), dim=-1) + 0.5
    assert_matches("pixels", pixels[:, :2] / pixels[:, 2:], expected.reshape(-1, 2), 1e-4)
    assert_matches("length", rays.directions.norm(dim=-1), torch.ones(SIZE * SIZE), 1e-6)


def test_rays_of_several_cameras() -> None:
    wide = replace(camera(1.0, 0.1), width=40, K=np.array([[30.0, 0, 17], [0, 25, 12], [0, 0, 1]]))
    cameras = [camera(0.0, 0.2), wide]
    which, pixels = torch.tensor([1, 0, 1]), torch.tensor([[3.5, 4.5], [7.0, 0.5], [39.5, 23.5]])
    together = CameraRays(cameras).at(which, pixels)
    for index, view in enumerate(which.tolist()):
        alone = camera_rays(cameras[view], pixels[index : index + 1])
        assert torch.equal(alone.directions[0], together.directions[index])
        assert torch.equal(alone.origins[0], together.origins[index])


def test_distances() -> None:
    origins = torch.tensor([[-3.0, 0, 0], [0, 0, 0], [-3, 5, 0]])
    directions = torch.tensor([[1.0, 0, 0]] * 3)
    s = torch.tensor([[0.0, 0.5, 1.0]] * 3)
    expected = torch.tensor([[2.0, 3, 4], [0, 0.5, 1], [0, 0, 0]])
    assert_matches("box", BOX.distances(origins, directions, s), expected, 1e-6)
    near = torch.tensor([[2.0, 3, 4], [0.5, 0.75, 1], [0, 0, 0]])
    assert_matches("box from 0.5", BOX.distances(origins, directions, s, 0.5), near, 1e-6)
    quarters = torch.tensor([[0, 0.25, 0.5, 0.75, 1.0]])
    ball = Ball((0.0, 0.0, 0.0), 2.0)
    far = torch.tensor([[0, 2, 4, 4 / 0.501, 2000]])
    least = far.clamp(min=1)
    assert_matches("ball", ball.distances(origins[:1], directions[:1], quarters) / least, far / least, 1e-4)
    far[0, :2] = torch.tensor([1.0, 2.5])
    assert_matches("ball from 1", ball.distances(origins[:1], directions[:1], quarters, 1.0) / far, far / far, 1e-4)


def test_where_rays_end_by_hand() -> None:
    """Weights 0.1, 0.3, 0 and 0.1 over parts of length 1 from 0 to 4; a ray that meets nothing."""
    weights = torch.tensor([[0.1, 0.3, 0.0, 0.1], [0.0] * 4])
    nothing = torch.zeros(2)
    middle = (torch.arange(4) + 0.5).repeat(2, 1)
    seen = Seen(nothing, nothing, nothing, nothing, weights, middle, torch.ones(2, 4), nothing, nothing)
    for share, expected in ((0.0, 0.0), (0.1, 0.5), (0.5, 1.5), (0.8, 2.0), (0.9, 3.5), (1.0, 4.0)):
        found = ends(seen, torch.full((2,), share))
        assert float(found[0]) == pytest.approx(expected, abs=1e-5) and found.isfinite().all()


# --------------------------------------------------------------------------------------------------------------- photos
def test_each_pixel_is_drawn_with_its_own_ray() -> None:
    rgb = torch.arange(2 * 3 * 3, dtype=torch.uint8).reshape(2, 3, 3)
    first = FitView(replace(camera(0.0, 0.1), width=3, height=2), rgb)
    second = FitView(replace(camera(1.0, 0.1), width=1, height=4), rgb.reshape(-1, 1, 3)[:4] + 50)
    photos = Photos([first, second])
    assert photos.pixels == 10 and len(photos) == 2 and not photos.transparent
    batch = photos.at(torch.arange(10))
    assert batch.view.tolist() == [0] * 6 + [1] * 4 and (batch.alpha == 1).all()
    assert_matches("colours", batch.rgb * 255, torch.cat([rgb.reshape(-1, 3), second.rgb.reshape(-1, 3)]), 1e-4)
    assert torch.equal(batch.rays.directions[:6], all_rays(first.camera).directions)
    assert torch.equal(batch.rays.directions[6:], all_rays(second.camera).directions)
    drawn = photos.draw(4000, torch.Generator().manual_seed(0))
    assert 400 - 90 < int((drawn.view == 1).sum()) / 4 < 400 + 90  # 4 of 10 pixels


def test_masked_pixels_are_never_drawn() -> None:
    counts = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    counts[3, 5] = counts[8, 9] = True
    masked = replace(VIEWS[0], rgb=torch.arange(SIZE * SIZE * 3).reshape(SIZE, SIZE, 3).to(torch.uint8), counts=counts)
    photos = Photos([masked, replace(VIEWS[1], counts=counts & False)])
    assert photos.pixels == 2
    drawn = photos.draw(100, torch.Generator().manual_seed(0))
    colours = {tuple(row) for row in (drawn.rgb * 255).round().long().tolist()}
    assert colours == {tuple(masked.rgb[3, 5].tolist()), tuple(masked.rgb[8, 9].tolist())}
    assert (drawn.view == 0).all()


def test_photos_without_anything_to_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="A field cannot be fitted: there are no training views"):
        Photos([])
    clear = replace(VIEWS[0], alpha=torch.zeros_like(VIEWS[0].alpha))
    with pytest.raises(TrainingError, match="all pixels of the 2 training photos are transparent"):
        Photos([clear, clear])
    hidden = replace(VIEWS[0], counts=torch.zeros(SIZE, SIZE, dtype=torch.bool))
    with pytest.raises(TrainingError, match="all pixels of the 1 training photos are masked"):
        Photos([hidden])


# ------------------------------------------------------------------------------------------------------------------ fit
@pytest.fixture(scope="module")
def fitted() -> HashField:
    field = HashField(SMALL, BOX, seed=1)
    fit(field, Photos(VIEWS), CONFIG, seed=1)
    return field


def test_a_new_view_of_the_fitted_sphere(fitted: HashField) -> None:
    view = camera(0.9, 0.1)
    rgb, alpha, distance = sphere(all_rays(view))
    seen = picture(fitted, view, CONFIG.sampling)
    assert -10 * torch.log10(((seen.rgb.reshape(-1, 3) - rgb) ** 2).mean()) > 23  # dB
    assert (seen.opacity.reshape(-1) - alpha).abs().mean() < 0.05
    solid = (alpha > 0) & (seen.opacity.reshape(-1) > 0.9)
    assert solid.sum() > 100
    for name in ("mean", "median"):  # a cell of the finest level is 0.08
        assert (getattr(seen, name).reshape(-1) - distance)[solid].abs().median() < 0.07
    assert float(seen.spread.reshape(-1)[solid].median()) < 0.1
    empty = seen.opacity.reshape(-1) < 1e-3
    assert not seen.median.reshape(-1)[empty].any()


def test_occupancy_tells_where_the_field_is_dense(fitted: HashField) -> None:
    looked = Occupancy.unknown(fitted.space.size, cells=8)
    looked.explore(fitted, 40_000, 0.1, torch.Generator().manual_seed(0))
    # The mean over each cell, from other places of it.
    inside = torch.rand(512, 64, 3, generator=torch.Generator().manual_seed(1))
    z, y, x = torch.meshgrid(*[torch.arange(8)] * 3, indexing="ij")
    points = (torch.stack([x, y, z], dim=-1).reshape(-1, 1, 3) + inside) / 4 - 1
    with torch.no_grad():
        expected = fitted.density(points.reshape(-1, 3)).reshape(-1, 64).mean(-1)
    assert float(torch.corrcoef(torch.stack([looked.density.reshape(-1), expected]))[0, 1]) > 0.8
    # What the fit itself remembers says so too, at the places of a sphere and in the empty corners.
    known = fitted.occupancy.density
    assert float(known[0, 0, 0]) < 0.5 and float(known[64, 64, 64 - 38]) > 2  # 0.6 of the way from middle to border


def test_a_ball_explains_the_photos_that_it_is_fitted_to() -> None:
    """No more is asked: behind the sphere each of these photos sees space that no other does."""
    field = HashField(SMALL, Ball((0.0, 0.0, 0.0), 1.0), seed=1, near=1.0)
    fit(field, Photos(VIEWS), replace(CONFIG, sampling=SamplingConfig()), seed=1)
    seen = picture(field, VIEWS[0].camera)
    rgb, alpha, _ = sphere(all_rays(VIEWS[0].camera))
    assert -10 * torch.log10(((seen.rgb - rgb.reshape(SIZE, SIZE, 3)) ** 2).mean()) > 20
    assert (seen.opacity.reshape(-1) - alpha).abs().mean() < 0.07


def test_same_seed_same_field() -> None:
    short = FitConfig(steps=3, rays=64, sampling=SamplingConfig(8, 8))
    tables = []
    for seed in (1, 1, 2):
        field = HashField(SMALL, BOX)
        told: list[tuple[float, int]] = []
        result = fit(
            field, Photos(VIEWS), short, seed, None, lambda over, step, _, kept=told: kept.append((over, step))
        )
        assert told == [(1 / 3, 1), (2 / 3, 2), (1, 3)] and 0 < result.loss < 1
        assert (result.gains == 1).all()
        tables.append(field.table.detach().clone())
    assert torch.equal(tables[0], tables[1]) and not torch.equal(tables[0], tables[2])


def test_exposure_is_found() -> None:
    gains = (0.6, 0.8, 1.0, 1.1)
    views = [photo(view.camera, gains[index % 4]) for index, view in enumerate(VIEWS)]
    errors = {}
    for exposure in (False, True):
        field = HashField(SMALL, BOX, seed=1)
        result = fit(field, Photos(views), replace(CONFIG, exposure=exposure), seed=1)
        errors[exposure] = result.loss
    assert errors[True] < 0.6 * errors[False]
    expected = torch.tensor([gains[index % 4] for index in range(len(views))])
    found = result.gains.mean(-1) * expected.log().mean().exp()
    assert_matches("gains", found, expected, 0.08)


class Clock:
    """A second later at each look."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def test_a_budget_in_seconds() -> None:
    short = FitConfig(steps=None, seconds=5.0, rays=16, sampling=SamplingConfig(8, 4))
    result = fit(HashField(SMALL, BOX), Photos(VIEWS), short, clock=Clock())
    assert (result.steps, result.seconds) == (5, 5.0)
    both = fit(HashField(SMALL, BOX), Photos(VIEWS), replace(short, steps=3), clock=Clock())
    assert both.steps == 3
    assert replace(short, steps=10).done(5, 1.0) == 0.5 and replace(short, steps=10).done(1, 4.0) == 0.8


class Killed(Exception):
    pass


def test_a_fit_that_was_killed_goes_on_to_the_same_field(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("splatinit.nerf.fitting.CHECKPOINT_SECONDS", 0.0)
    short = FitConfig(steps=6, rays=32, exposure=True, sampling=SamplingConfig(8, 4))
    whole = HashField(SMALL, BOX)
    gains = fit(whole, Photos(VIEWS), short, seed=4).gains
    kept = tmp_path / "work" / "fit.safetensors"

    def die(over: float, step: int, loss: float) -> None:
        if step == 4:
            raise Killed

    with pytest.raises(Killed):
        fit(HashField(SMALL, BOX), Photos(VIEWS), short, 4, kept, die)
    resumed = HashField(SMALL, BOX)
    result = fit(resumed, Photos(VIEWS), short, 4, kept)
    assert (result.steps, result.resumed, result.notes) == (6, 3, ())
    assert torch.equal(result.gains, gains)
    for name, tensor in whole.parameters().items():
        assert torch.equal(tensor, resumed.parameters()[name]), name

    other = fit(HashField(SMALL, BOX), Photos(VIEWS), short, 5, kept)
    assert other.resumed == 0 and "is of another fit, which is begun anew" in other.notes[0]
    kept.write_bytes(kept.read_bytes()[:1000])
    broken = fit(HashField(SMALL, BOX), Photos(VIEWS), short, 4, kept)
    assert broken.resumed == 0 and "cannot be read" in broken.notes[0]
    fit(HashField(SMALL, BOX), Photos(VIEWS), short, 4, kept)


def test_damage_in_a_checkpoint_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors.torch import load_file, save_file

    monkeypatch.setattr("splatinit.nerf.fitting.CHECKPOINT_SECONDS", 0.0)
    short = FitConfig(steps=2, rays=16, sampling=SamplingConfig(8, 4))
    kept = tmp_path / "fit.safetensors"
    fit(HashField(SMALL, BOX), Photos(VIEWS), short, 0, kept)
    from safetensors import safe_open

    with safe_open(kept, framework="pt") as file:
        facts = file.metadata()
    tensors = load_file(kept)
    tensors["table"] = torch.full_like(tensors["table"], torch.nan)
    save_file(tensors, kept, metadata=facts)
    again = fit(HashField(SMALL, BOX), Photos(VIEWS), short, 0, kept)
    assert again.resumed == 0 and "is damaged; the fit is begun anew" in again.notes[0]


def test_a_field_that_diverges_is_found_out() -> None:
    field = HashField(SMALL, BOX)
    with torch.no_grad():
        field.colour_weights[:] = math.nan
    with pytest.raises(TrainingError, match=r"The field diverged: its loss is nan at step 1\.") as caught:
        fit(field, Photos(VIEWS), CONFIG)
    assert "Lower the rate (lr is 0.01)" in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"steps": None}, "A fit needs an end"),
        ({"steps": 0}, "cannot be fitted in 0 steps; expected at least 1"),
        ({"seconds": 0.0}, "cannot be fitted in 0 s; expected a positive number"),
        ({"seconds": math.inf}, "cannot be fitted in inf s"),
    ],
)
def test_budgets_that_make_no_sense(settings: dict, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        FitConfig(**settings)
