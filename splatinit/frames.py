"""Cameras → 8-bit images, drawn in a thread of their own while the last ones are being encoded.

The engine lets other Python threads run while it draws, and so do pipes, encoders and OpenCV. One drawing thread is
enough: the engine spreads over the cores by itself, and where one of its steps does not, an encoder uses the other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import cv2
import numpy as np

from .device import device_of, moved
from .errors import BackendError
from .raster import Rasterizer, RasterSettings
from .types import Camera, Gaussians

AHEAD = 3  # images that are drawn or wait to be taken, at most: the bound on memory, however many cameras there are


def drawn_ahead(draw: Callable[[Camera], np.ndarray], cameras: Sequence[Camera]) -> Iterator[np.ndarray]:
    """``draw`` of each camera, in their order, called in one thread that is at most AHEAD images ahead.

    An error of ``draw`` is raised where its image would have come. Close the iterator to stop early: it returns when
    the image that is just being drawn is done.
    """
    left = iter(cameras)
    pool = ThreadPoolExecutor(1, thread_name_prefix="splatinit-draw")
    try:
        waiting = deque(pool.submit(draw, camera) for camera in islice(left, AHEAD))
        while waiting:
            image = waiting.popleft().result()
            waiting.extend(pool.submit(draw, camera) for camera in islice(left, 1))
            yield image
    finally:
        pool.shutdown(cancel_futures=True)


def draw(
    gaussians: Gaussians,
    camera: Camera,
    *,
    rasterizer: Rasterizer,
    settings: RasterSettings,
    background: tuple[float, float, float] | None,
) -> np.ndarray:
    """What ``camera`` sees as [h, w, 3] uint8 over ``background`` (sRGB in [0, 1]; black if None).

    Gaussians that are not on the rasterizer's device are moved there for each image.

    Raises BackendError where the backend gave colours that are not finite.
    """
    import torch

    colour = torch.tensor(background or (0.0, 0.0, 0.0), dtype=torch.float32)
    device = device_of(rasterizer)
    gaussians = moved(gaussians, device)
    with torch.no_grad():
        rgb = rasterizer.render(gaussians, camera, settings=settings, background=colour).rgb
    on_host = device.type == "cpu"
    finite = np.isfinite(rgb.numpy()) if on_host else rgb.isfinite()
    if not finite.all():
        raise BackendError(
            f"Backend '{rasterizer.name}' drew an image with {int((~finite).sum())} values that are not finite.",
            hint="The Gaussians hold numbers that are not finite, or too large; was the splat file edited?",
        )
    # The same numbers; from a device, a quarter of the bytes has to come.
    return quantised(rgb.numpy()) if on_host else (rgb.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()


def quantised(rgb: np.ndarray) -> np.ndarray:
    """Finite colours [h, w, 3] float32 as uint8: clamped to [0, 1], × 255, rounded to nearest, halves to even.

    ``rgb`` is written over. The same numbers as torch's clamp, round and conversion in 0.5 in place of 7 to 30 ms at
    960×540, because OpenCV reads and writes each pixel once.
    """
    rows = np.ascontiguousarray(rgb, np.float32).reshape(len(rgb), -1)
    np.clip(rows, 0.0, 1.0, out=rows)
    return cv2.convertScaleAbs(rows, alpha=255.0).reshape(rgb.shape)
