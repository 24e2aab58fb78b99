"""Frames drawn ahead in a thread: the same bits as one after the other, bounded, and over when they are closed."""

from __future__ import annotations

import threading
import time
from contextlib import closing

import numpy as np
import pytest
import tiny
import torch

from splatinit import frames, native, pipeline
from splatinit.errors import BackendError
from splatinit.types import Gaussians, Render

BACKEND = "cpu" if native.available() else "reference"


def as_torch_does(rgb: torch.Tensor) -> np.ndarray:
    return (rgb.clamp(0, 1) * 255).round().to(torch.uint8).numpy()


def cloud(n: int, sh: int = 3) -> Gaussians:
    random = torch.Generator().manual_seed(3)
    return Gaussians(
        means=torch.randn(n, 3, generator=random),
        quats=torch.randn(n, 4, generator=random),
        log_scales=torch.randn(n, 3, generator=random) - 2,
        logit_opacities=torch.randn(n, generator=random),
        sh0=2 * torch.randn(n, 1, 3, generator=random),
        shN=0.3 * torch.randn(n, sh, 3, generator=random),
    )


def drawing_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("splatinit-draw")]


# -------------------------------------------------------------------------------------------------------------- 8 bit
def test_eight_bits_are_those_of_torch():
    """At every half, where rounding decides, at its neighbours, and beyond [0, 1] as far as floats reach."""
    halves = torch.arange(0, 256, 0.5) / 255
    below, above = (torch.nextafter(halves, torch.tensor(to)) for to in (-1.0, 2.0))
    beyond = torch.tensor([-1e30, -0.2, -1e-9, -0.0, 1.0 + 1e-6, 1.3, 9e6, 1e30])
    random = torch.rand(4096, generator=torch.Generator().manual_seed(0)) * 1.2 - 0.1
    values = torch.cat([halves, below, above, beyond, random])
    rgb = values[: len(values) // 21 * 21].reshape(-1, 7, 3)  # rows whose length no SIMD width divides
    np.testing.assert_array_equal(frames.quantised(rgb.clone().numpy()), as_torch_does(rgb))
    assert set(frames.quantised(rgb.numpy()).ravel()) == set(range(256))


def test_strided_colours_are_not_mixed_up():
    rgb = torch.rand(6, 5, 3).transpose(0, 1)
    np.testing.assert_array_equal(frames.quantised(rgb.numpy().copy(order="K")), as_torch_does(rgb))


# ---------------------------------------------------------------------------------------------------------- the images
def test_images_are_those_of_drawing_one_after_the_other():
    gaussians, cameras = cloud(300), [tiny.camera(0.3 * k, 45, 33) for k in range(9)]
    rasterizer, background = tiny.rasterizer(), (0.2, 0.5, 0.9)
    with torch.no_grad():
        one_by_one = [
            as_torch_does(rasterizer.render(gaussians, camera, background=torch.tensor(background)).rgb)
            for camera in cameras
        ]
    drawn = list(pipeline.render(gaussians, cameras, raster=BACKEND, background=background))
    assert len(drawn) == 9 and len({image.tobytes() for image in drawn}) == 9
    for ours, theirs in zip(drawn, one_by_one, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("background", [None, (1.0, 0.5, 0.0)])
@pytest.mark.parametrize("nothing", ["no Gaussians", "none in view"])
def test_where_there_is_nothing_to_see_there_is_the_background(nothing, background):
    gaussians = cloud(0) if nothing == "no Gaussians" else cloud(50).map(lambda tensor: tensor.clone())
    if len(gaussians):
        gaussians.means[:, 2] -= 100  # behind the camera
    (image,) = pipeline.render(gaussians, [tiny.camera(0.0, 7, 5)], raster=BACKEND, background=background)
    expected = np.broadcast_to(np.uint8([0, 0, 0] if background is None else [255, 128, 0]), (5, 7, 3))
    np.testing.assert_array_equal(image, expected)


def test_no_cameras_are_no_images():
    assert list(pipeline.render(cloud(3), [], raster=BACKEND)) == [] and not drawing_threads()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_colours_that_are_not_finite_are_an_error(bad):
    class Broken:
        name = "broken"

        def render(self, gaussians, camera, **how):
            rgb = torch.zeros(camera.height, camera.width, 3)
            rgb[1, 2, 0] = rgb[2, 2, 2] = bad
            return Render(rgb, torch.zeros(camera.height, camera.width), None, None)

    with pytest.raises(BackendError, match="'broken' drew an image with 2 values that are not finite") as error:
        frames.draw(cloud(1), tiny.camera(0.0), rasterizer=Broken(), settings=tiny.SETTINGS, background=None)
    assert "was the splat file edited" in error.value.hint


# ------------------------------------------------------------------------------------------------------------- ahead
def test_few_are_drawn_ahead_and_all_in_order():
    begun = []

    def draw(number: int) -> np.ndarray:
        begun.append(number)
        assert threading.current_thread() is not threading.main_thread()
        return np.full(3, number)

    for taken, image in enumerate(frames.drawn_ahead(draw, range(40)), 1):
        assert image[0] == taken - 1
        time.sleep(0.002)  # an encoder that is slower than the engine
        assert len(begun) <= taken + frames.AHEAD
    assert begun == list(range(40)) and not drawing_threads()


def test_drawing_goes_on_while_a_frame_is_encoded():
    others = threading.Event()

    def draw(number: int) -> int:
        if number == 1:
            others.set()
        return number

    with closing(frames.drawn_ahead(draw, range(3))) as images:
        assert next(images) == 0
        assert others.wait(10), "the second image is not begun before it is asked for"


def test_an_error_comes_where_its_image_would_and_ends_the_drawing():
    begun = []

    def draw(number: int) -> int:
        begun.append(number)
        if number == 3:
            raise ValueError("the fourth")
        return number

    images = frames.drawn_ahead(draw, range(1000))
    assert [next(images) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="the fourth"):
        next(images)
    assert len(begun) <= 3 + frames.AHEAD + 1 and not drawing_threads()


def test_closing_ends_the_drawing():
    begun = []
    images = frames.drawn_ahead(lambda number: begun.append(number) or time.sleep(0.02), range(1000))
    next(images)
    images.close()
    assert not drawing_threads()
    count = len(begun)
    time.sleep(0.05)
    assert len(begun) == count <= 1 + frames.AHEAD
