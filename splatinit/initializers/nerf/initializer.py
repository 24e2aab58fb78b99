"""Puts the field, its depths and the points drawn from it together."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch

from ...config import plain
from ...draws import seeded
from ...errors import BadPoints, TrainingError
from ...memory import require_points
from ...nerf import (
    FitConfig,
    FitResult,
    HashField,
    HashFieldConfig,
    Photos,
    SamplingConfig,
    fit,
    load_field,
    see,
)
from ...progress import Progress
from ...types import Initialization, PointCloud, Scene
from ..base import CostMeter
from .config import DEFAULT_STEPS, NerfConfig
from .depths import field_depths
from .drawing import Drawn, draw, radii
from .photos import fit_photos
from .space import find_space

POINT_BYTES = 200  # peak per point while they are drawn and given radii: measured 150 to 180
LOOKED_AT = 8192  # rays that tell whether a field holds anything, and explains the photos
EMPTY = 0.01  # mean opacity of a field without density
POOR = 15.0  # dB with which a field hardly explains the photos that it is fitted to


class Nerf:
    """Fits a radiance field to the training photos, and draws points from what rays meet in it.

    Foroutan et al. 2024 ("Evaluating Alternatives to SfM Point Cloud Initialization for Gaussian Splatting",
    arXiv:2404.12547).
    """

    def __init__(self, config: NerfConfig = NerfConfig()) -> None:
        self.config = config

    def initialize(
        self, scene: Scene, *, seed: int, progress: Progress, work_dir: Path | None = None
    ) -> Initialization:
        """Raises SceneError where the cameras tell no depth, TrainingError when the field diverges or stays empty,
        BadPoints when no two photos agree on any of it, FormatError for a saved field that is none, OutOfMemory when
        there is no room for so many points, and what decoding the photos does."""
        config = self.config
        require_points(config.count, POINT_BYTES)
        clearance = config.clearance * scene.extent
        sampling = SamplingConfig(fine=config.samples)
        notes: list[str] = []
        with CostMeter() as cost:
            with cost.stage("photos"):
                photos = fit_photos(scene, config.size, progress)
            with cost.stage("fit"):
                if config.field is not None:
                    field, facts, gains = load_field(config.field), {}, torch.ones(len(photos), 3)
                else:
                    shape = HashFieldConfig(levels=config.levels, finest=config.finest, log2_rows=config.log2_rows)
                    field = HashField(shape, find_space(scene, photos), seed, near=clearance)
                    result = self._fit(field, photos, sampling, seed, work_dir, progress)
                    notes, gains = [*result.notes], result.gains
                    facts = {"steps": result.steps, "exposures": result.gains.tolist() if config.exposure else None}
                psnr = _explained(scene, field, sampling, photos, gains, seed)
            with cost.stage("depths"):
                depths = field_depths(field, sampling, scene, progress)
            with cost.stage("draw"):
                generator = seeded(torch.Generator(), seed, "nerf points", 0)
                drawn = draw(field, sampling, photos, depths, config, clearance, generator, progress)
                self._check(scene, drawn)
                points = PointCloud(xyz=drawn.xyz, rgb=drawn.rgb, radius=radii(drawn.xyz, drawn.pixel))
        notes += self._notes(scene, drawn, psnr)
        for text in notes[:-1]:
            progress.note(text)
        return Initialization(
            points=points,
            depth_priors=depths.priors(scene) if config.prior else {},
            seconds=cost.seconds,
            peak_memory_mb=cost.peak_memory_mb,
            recipe={
                "initializer": "nerf",
                **{name: plain(value) for name, value in vars(config).items()},
                **facts,
                "space": {"kind": type(field.space).__name__.lower(), **asdict(field.space)},
                "field_psnr": psnr,
                "seed": seed,
            },
            notes=tuple(notes),
            attachments={"field.safetensors": field},
        )

    def _fit(
        self,
        field: HashField,
        photos: Photos,
        sampling: SamplingConfig,
        seed: int,
        work_dir: Path | None,
        progress: Progress,
    ) -> FitResult:
        config = self.config
        steps = DEFAULT_STEPS if config.fit_steps is None and config.fit_seconds is None else config.fit_steps
        whole = FitConfig(
            steps=steps,
            seconds=config.fit_seconds,
            rays=config.rays,
            distortion=config.distortion,
            exposure=config.exposure,
            sampling=sampling,
        )

        def tell(over: float, step: int, loss: float) -> None:
            if step % 10 == 0 or over >= 1:
                progress.advance(round(1000 * over), steps=step, dB=f"{_psnr(loss):.1f}")

        progress.start("fit a radiance field", 1000)
        checkpoint = None if work_dir is None else work_dir / "fit.safetensors"
        result = fit(field, photos, whole, seed, checkpoint, tell)
        progress.finish(f"{result.steps} steps, {_psnr(result.loss):.1f} dB on its rays")
        return result

    def _check(self, scene: Scene, drawn: Drawn) -> None:
        if len(drawn.xyz) == 0:
            raise BadPoints(
                f"{scene.root}: of {drawn.rays} rays into the field, {drawn.nothing} end nowhere, {drawn.near} end "
                f"nearer than init.clearance to a camera, and {drawn.lonely} where fewer than {self.config.min_views} "
                "photos agree; expected some that remain.",
                hint="Photos must overlap: look at the poses with `splatinit check`. Cameras inside of what they look "
                "at need a smaller init.clearance.",
            )

    def _notes(self, scene: Scene, drawn: Drawn, psnr: float) -> list[str]:
        notes = []
        if psnr < POOR:
            notes.append(
                f"the field explains the photos to {psnr:.1f} dB only: give it more time (init.fit_steps), or look at "
                "the poses and exposures (`splatinit check`, init.exposure=true)"
                if self.config.field is None
                else f"the field explains the photos to {psnr:.1f} dB only: is it of this scene?"
            )
        if len(scene.train) == 2:
            notes.append("two photos hardly tell depths: expect the field to be a rough one")
        if len(drawn.xyz) < self.config.count:
            notes.append(f"{len(drawn.xyz)} of {self.config.count} points: photos agree on no more of the field")
        nowhere, lonely, near = (f"{count / drawn.rays:.0%}" for count in (drawn.nothing, drawn.lonely, drawn.near))
        told = f"{nowhere} of the rays ended nowhere, {lonely} where too few photos agree, {near} too near to a camera"
        return [*notes, f"{len(drawn.xyz)} points from a field of {psnr:.1f} dB; {told}"]


def _psnr(error: float) -> float:
    return float(-10 * torch.log10(torch.tensor(max(error, 1e-10))))


@torch.no_grad()
def _explained(
    scene: Scene, field: HashField, sampling: SamplingConfig, photos: Photos, gains: torch.Tensor, seed: int
) -> float:
    """PSNR (dB) of random rays of the training photos, whose colours have the factors ``gains`` [photos, 3].

    Raises TrainingError for a field in which nothing is.
    """
    batch = photos.draw(LOOKED_AT, seeded(torch.Generator(), seed, "nerf check", 0))
    seen = see(field, batch.rays, sampling)
    opacity = float(seen.opacity.mean())
    if not opacity >= EMPTY * float(batch.alpha.mean()):
        raise TrainingError(
            f"{scene.root}: the field holds nothing: its rays end in it with a mean opacity of {opacity:.2g}; expected "
            f"at least {EMPTY:g} of what the photos show.",
            hint="Give the fit more steps (init.fit_steps), less init.distortion or a smaller init.clearance, or look "
            "for broken poses with: splatinit check SCENE",
        )
    return _psnr(float(((seen.rgb * gains[batch.view] - batch.rgb * batch.alpha) ** 2).mean()))
