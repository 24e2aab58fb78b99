"""Points from depth maps: back-projection by hand, which pixels are left out, fair shares, and the known geometry."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial import cKDTree

from splatinit.errors import BadPoints, ConfigError
from splatinit.geometry.rigid import project, unproject
from splatinit.geometry.scoring import score_cloud
from splatinit.initializers import make_initializer, needs_points
from splatinit.initializers.depth import Depth, DepthConfig, bends, even_shares
from splatinit.io.pointcloud import read_ply_points
from splatinit.io.read import ReadConfig, read_images
from splatinit.posers import make_poser
from splatinit.posers.given import GivenConfig
from splatinit.progress import Silent
from splatinit.types import Camera, Pixels, Scene, View


@dataclass(frozen=True)
class DepthPhoto:
    """A photo of one colour with a depth map."""

    name: str
    depth: np.ndarray | None
    rgb: tuple[int, int, int] = (255, 0, 51)
    alpha: np.ndarray | None = None
    mask: np.ndarray | None = None
    path: Path = Path("photo.png")

    @property
    def has_depth(self) -> bool:
        return self.depth is not None

    def load(self, width: int, height: int) -> Pixels:
        return Pixels(np.full((height, width, 3), self.rgb, np.uint8), self.alpha, self.mask)

    def load_depth(self, width: int, height: int) -> np.ndarray | None:
        return self.depth


def camera(width: int, height: int, focal: float = 10.0) -> Camera:
    """At (1, 2, 3), its x axis along world y, its y axis along world z, looking along world x."""
    R = np.array([[0.0, 1, 0], [0, 0, 1], [1, 0, 0]])
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = R, -R @ [1, 2, 3]
    return Camera(np.array([[focal, 0, width / 2], [0, 2 * focal, height / 2], [0, 0, 1]]), pose, width, height)


def scene(*photos: DepthPhoto, size=(4, 3)) -> Scene:
    return Scene(root=Path("room"), train=tuple(View(p.name, camera(*size), p) for p in photos), test=())


def start(scene_, seed=0, **config):
    return Depth(DepthConfig(**config)).initialize(scene_, seed=seed, progress=Silent())


def flat(value=5.0, size=(4, 3)):
    return np.full((size[1], size[0]), value, np.float32)


# ----------------------------------------------------------------------------------------------------------- geometry
def test_a_pixel_by_hand():
    depth = np.zeros((3, 4), np.float32)
    depth[2, 0] = 5.0
    points = start(scene(DepthPhoto("a", depth))).points
    # Pixel centre (0.5, 2.5): x = (0.5 − 2)/10 · 5 = −0.75 along world y, y = (2.5 − 1.5)/20 · 5 = 0.25 along world z.
    np.testing.assert_allclose(points.xyz, [[1 + 5, 2 - 0.75, 3 + 0.25]], rtol=1e-6)
    np.testing.assert_allclose(points.rgb, [[1.0, 0.0, 0.2]], rtol=1e-6)
    assert points.radius is None and points.opacity is None


def test_unproject_undoes_project():
    cam, rng = camera(64, 48), np.random.default_rng(0)
    px, z = rng.uniform(0, 40, (50, 2)), rng.uniform(0.1, 9, 50)
    again, depth = project(cam.K, cam.cam_from_world, unproject(cam.K, cam.world_from_cam, px, z))
    np.testing.assert_allclose(again, px, atol=1e-9)
    np.testing.assert_allclose(depth, z)


@pytest.mark.real
def test_points_lie_on_the_known_surface(shared_data):
    folder = shared_data / "synth_table"
    posed = make_poser("given", GivenConfig(triangulate=False)).pose(
        read_images(folder, ReadConfig(max_size=240)), work_dir=None, progress=Silent()
    )
    begun = start(replace(posed, train=posed.train[::8]), count=5_000)
    truth = read_ply_points(folder / "gt" / "points_visible.ply")
    xyz = begun.points.xyz.astype(np.float64)
    # The samples of the truth are 7 mm apart, which is what is left of the distance to the nearest one.
    score = score_cloud(xyz, truth.xyz, (0.01,))
    assert score.accuracy < 0.0045 and score.thresholds[0].precision > 0.97
    _, nearest = cKDTree(truth.xyz).query(xyz)
    off = np.abs(((xyz - truth.xyz[nearest]) * truth.normal[nearest]).sum(axis=1))
    # Along its normal the depth's whole millimetres are left; half a pixel of the maps would be 2 mm in the mean.
    assert off.mean() < 0.0004 and np.quantile(off, 0.99) < 0.005


# ----------------------------------------------------------------------------------------------------- pixels left out
def test_transparent_masked_and_unknown_pixels_become_no_points():
    depth = flat()
    depth[0] = 0  # 4 unknown
    alpha, mask = np.full((3, 4), 255, np.uint8), np.full((3, 4), 255, np.uint8)
    alpha[1, :2], alpha[1, 2] = 127, 128  # 2 transparent, 1 just not
    mask[2, 3] = 0
    begun = start(scene(DepthPhoto("a", depth, alpha=alpha, mask=mask)))
    assert len(begun.points) == 12 - 4 - 2 - 1
    assert begun.notes == ("5 points from 1 depth maps; 42% of their pixels are usable",)


def test_both_sides_of_an_edge_are_left_out_and_slanted_planes_kept():
    step = flat(2.0, (8, 1))
    step[:, 4:] = 3.0
    np.testing.assert_array_equal(bends(step, 0.05)[0], [0, 0, 0, 1, 1, 0, 0, 0])
    assert not bends(step, 0.6).any()
    np.testing.assert_array_equal(bends(step.T, 0.05)[:, 0], [0, 0, 0, 1, 1, 0, 0, 0])
    steep = (1 / np.linspace(0.02, 1.0, 50, dtype=np.float32))[None].repeat(3, axis=0)  # a grazing plane
    assert not bends(steep, 0.05).any()
    lonely = np.zeros((5, 5), np.float32)
    lonely[2, 2] = 1.0  # maps of sparse points have no neighbours to compare with
    assert not bends(lonely, 0.05).any()
    assert len(start(scene(DepthPhoto("a", step), size=(8, 1))).points) == 6
    assert len(start(scene(DepthPhoto("a", step), size=(8, 1)), jump=None).points) == 8


# -------------------------------------------------------------------------------------------------------------- shares
@pytest.mark.parametrize(
    ("available", "count", "shares"),
    [
        ([10, 10], 6, [3, 3]),
        ([10, 1, 10], 9, [4, 1, 4]),
        ([2, 3], 100, [2, 3]),
        ([0, 5], 4, [0, 4]),
        ([5, 5, 5], 1, [0, 0, 1]),
        ([7], 7, [7]),
    ],
)
def test_shares_are_even_and_what_one_lacks_the_others_take(available, count, shares):
    assert even_shares(available, count) == shares


def test_points_are_drawn_evenly_over_the_views_by_the_seed():
    red, blue = DepthPhoto("a", flat(5.0, (40, 30)), (255, 0, 0)), DepthPhoto("b", flat(7.0, (40, 30)), (0, 0, 255))
    small = np.zeros((30, 40), np.float32)
    small[3, 5:10] = 6.0
    full = scene(red, blue, DepthPhoto("c", small, (0, 255, 0)), size=(40, 30))
    begun = start(full, count=105, seed=3)
    assert (begun.points.rgb.sum(axis=0) == [50, 5, 50]).all() and len(begun.points) == 105
    assert len(np.unique(begun.points.xyz, axis=0)) == 105  # no pixel twice
    again, other = start(full, count=105, seed=3), start(full, count=105, seed=4)
    np.testing.assert_array_equal(again.points.xyz, begun.points.xyz)
    assert (other.points.xyz != begun.points.xyz).any()
    assert begun.recipe["initializer"] == "depth" and begun.recipe["count"] == 105 and begun.recipe["views"] == 3


# -------------------------------------------------------------------------------------------------------------- priors
def test_priors_are_the_maps_with_confidence_in_usable_pixels():
    depth = flat()
    depth[0, 0] = 0
    photos = DepthPhoto("a", depth), DepthPhoto("b", None)
    begun = start(scene(*photos), prior=True)
    assert set(begun.depth_priors) == {"a"} and not start(scene(*photos)).depth_priors
    np.testing.assert_array_equal(begun.depth_priors["a"].depth, depth)
    np.testing.assert_array_equal(begun.depth_priors["a"].confidence, depth > 0)
    assert begun.notes[1] == "1 of 2 training photos have no depth map"


# -------------------------------------------------------------------------------------------------------------- errors
def test_scenes_without_depth_say_what_brings_it():
    with pytest.raises(BadPoints, match="room: none of the 2 training photos has a depth map") as caught:
        start(scene(DepthPhoto("a", None), DepthPhoto("b", None)))
    assert "depth_file_path" in caught.value.hint and "Polycam" in caught.value.hint
    with pytest.raises(BadPoints, match="of its 1 training photos have no usable pixel"):
        start(scene(DepthPhoto("a", flat(0.0))))


@pytest.mark.parametrize("bad", [{"count": 0}, {"jump": 0.0}, {"jump": float("inf")}])
def test_bad_settings_are_named(bad):
    with pytest.raises(ConfigError, match=f"init.{next(iter(bad))} is"):
        DepthConfig(**bad)


def test_no_points_are_triangulated_for_it():
    assert not needs_points("depth") and isinstance(make_initializer("depth"), Depth)
