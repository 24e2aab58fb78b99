"""The pictures, depth maps and true surface points of the demo scene."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..types import Camera
from .layout import SUN, build_solids
from .raycast import Rays, ShadowMap, cast, dot, normalised, surface
from .textures import paint_textures

SAMPLES = 2  # per pixel and axis: enough that a wire of one pixel is grey, not dotted
SUN_COLOUR = np.array([1.95, 1.78, 1.50], np.float32)
SKY_COLOUR = np.array([0.46, 0.56, 0.70], np.float32)
GROUND_COLOUR = np.array([0.22, 0.20, 0.15], np.float32)
SKY_DIRECTIONS = 12
SUN_MAP = 3.6  # scene units: radius of the yard's shadow maps; beyond it a coarser one does


@dataclass(frozen=True)
class Picture:
    """``rgb`` [h, w, 3] uint8; at the pixel centres ``depth`` [h, w] (z, scene units; inf on the dome), ``xyz`` and
    outward ``normal`` [h, w, 3]."""

    rgb: np.ndarray
    depth: np.ndarray
    xyz: np.ndarray
    normal: np.ndarray


class DemoRenderer:
    """Textures, solids and shadow maps, made once; then pictures from any camera."""

    def __init__(self) -> None:
        self.textures = paint_textures()
        self.solids = build_solids()
        casters = self.solids[1:]  # the dome encloses the light
        center = np.array([0.0, 0.0, 0.6])
        self.sun_near = ShadowMap(casters, SUN, center, SUN_MAP + 0.6, 1500)
        self.sun_far = ShadowMap(casters, SUN, center, 30.0, 900)
        self.sky = [ShadowMap(casters, direction, center, 5.0, 250) for direction in self._sky_directions()]

    @staticmethod
    def _sky_directions() -> np.ndarray:
        """Directions spread over the upper hemisphere with a density that grows with their height (cosine)."""
        k = np.arange(SKY_DIRECTIONS)
        radius, angle = np.sqrt((k + 0.5) / SKY_DIRECTIONS) * 0.97, k * np.pi * (3 - np.sqrt(5))
        return np.stack([radius * np.cos(angle), radius * np.sin(angle), np.sqrt(1 - radius**2)], axis=1)

    def render(self, camera: Camera) -> Picture:
        rays = Rays.of_camera(camera, SAMPLES)
        depth, index = cast(rays, self.solids)
        linear = self._shade(rays, camera.center, depth, index)
        h, w = camera.height, camera.width
        srgb = np.clip(linear, 0, None)
        srgb = 1 - np.exp(-1.25 * srgb)  # a soft shoulder instead of burnt-out whites
        srgb = srgb.reshape(h, SAMPLES, w, SAMPLES, 3).mean(axis=(1, 3)) ** (1 / 2.2)
        centers = Rays.of_camera(camera)
        depth, index = cast(centers, self.solids)
        hit = surface(centers, self.solids, self.textures, depth, index)
        return Picture(
            rgb=np.rint(np.clip(srgb, 0, 1) * 255).astype(np.uint8),
            depth=np.where(index == 0, np.inf, depth),
            xyz=hit.xyz.reshape(h, w, 3),
            normal=hit.normal.reshape(h, w, 3),
        )

    def _shade(self, rays: Rays, eye: np.ndarray, depth: np.ndarray, index: np.ndarray) -> np.ndarray:
        """[h·w, 3] linear light that the rays bring back."""
        hit = surface(rays, self.solids, self.textures, depth, index)
        n = hit.normal
        facing = np.maximum(dot(n, SUN), 0).astype(np.float32)
        near = np.hypot(hit.xyz[:, 0], hit.xyz[:, 1]) < SUN_MAP
        sun, sky = np.empty(len(n), np.float32), np.ones(len(n), np.float32)
        near_xyz, near_n = hit.xyz[near], n[near]
        sun[near] = self.sun_near.lit(near_xyz, near_n)
        sun[~near] = self.sun_far.lit(hit.xyz[~near], n[~near])
        sky[near] = sum(shadow.lit(near_xyz, near_n, soft=False) for shadow in self.sky) / SKY_DIRECTIONS
        up = (0.5 + 0.5 * n[:, 2]).astype(np.float32)[:, None]
        ambient = (SKY_COLOUR * up + GROUND_COLOUR * (1 - up)) * (0.25 + 0.75 * sky)[:, None]
        light = ambient + SUN_COLOUR * (facing * sun)[:, None]
        out = hit.albedo * light
        glossy = hit.gloss > 0
        half = normalised(normalised(eye - hit.xyz[glossy]) + SUN)
        mirrored = np.maximum(dot(n[glossy], half), 0).astype(np.float32) ** 60
        out[glossy] += (hit.gloss[glossy] * sun[glossy] * mirrored)[:, None] * SUN_COLOUR
        dome = index.ravel() == 0
        out[dome] = 1.15 * hit.albedo[dome]  # the dome shines by itself
        return out
