"""Fits a field to posed photos, within a number of steps or a time."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from ..draws import seeded
from ..errors import ConfigError, TrainingError
from ..io.atomic import atomic_path
from ..native import adam_step_
from .field import Field
from .photos import Batch, Photos
from .rendering import SamplingConfig, Seen, see

EXPLORED = 2**12  # cells that are looked at in a step, by chance
REMEMBERED = 0.5  # how far a sample moves what is known of its cell's density
CHECKPOINT_SECONDS = 20.0
# Of the loss, the exponential mean over about so many steps.
SMOOTH = 50
# The betas and eps of Müller et al. 2022, section 4.
BETA1, BETA2, EPS = 0.9, 0.99, 1e-15


@dataclass(frozen=True)
class FitConfig:
    """How a field is fitted.

    Attributes:
        steps: updates; None: as many as ``seconds`` allow.
        seconds: after which the fit ends; None: ``steps`` alone end it. With both, whichever comes first; schedules
            follow the one that is farther on. A fit that the clock ends is not the same twice.
        rays: of a step, over all photos.
        lr: at the start, of every parameter; falls to ``lr_end`` of it along a cosine.
        distortion: weight of mip-NeRF 360's distortion loss, against floaters.
        exposure: each photo gets a factor for each of its colours, fitted with the field; their geometric mean over all
            photos is 1. For photos with changing exposure or white balance.
    """

    steps: int | None = 1000
    seconds: float | None = None
    rays: int = 2048
    lr: float = 2e-2
    lr_end: float = 0.1
    distortion: float = 1e-3
    exposure: bool = False
    sampling: SamplingConfig = SamplingConfig()

    def __post_init__(self) -> None:
        if self.steps is None and self.seconds is None:
            raise ConfigError("A fit needs an end: give a number of steps, of seconds, or both.")
        if self.steps is not None and self.steps < 1:
            raise ConfigError(f"A field cannot be fitted in {self.steps} steps; expected at least 1.")
        if self.seconds is not None and not 0 < self.seconds < math.inf:
            raise ConfigError(
                f"A field cannot be fitted in {self.seconds:g} s; expected a positive number of seconds.",
                hint="20 s are enough for small photos on two cores, 60 to 90 s are better.",
            )

    def done(self, steps: int, seconds: float) -> float:
        """How much of the fit is over, in [0, 1], after so many steps and seconds."""
        share = 0.0 if self.steps is None else steps / self.steps
        return min(1.0, share if self.seconds is None else max(share, seconds / self.seconds))


@dataclass(frozen=True)
class FitResult:
    """What a fit took.

    Attributes:
        steps: updates, and ``seconds`` they took, over all resumptions; ``resumed``: steps that were there already.
        loss: mean squared error of the colours, over about the last 50 steps.
        gains: [photos, 3] factors of the photos' colours, 1 without ``exposure``.
        notes: human-readable remarks.
    """

    steps: int
    seconds: float
    resumed: int
    loss: float
    gains: torch.Tensor
    notes: tuple[str, ...] = ()


def fit(
    field: Field,
    photos: Photos,
    config: FitConfig,
    seed: int = 0,
    checkpoint: Path | None = None,
    on_step: Callable[[float, int, float], None] = lambda done, step, loss: None,
    clock: Callable[[], float] = time.monotonic,
) -> FitResult:
    """Fit the field in place.

    Each step draws pixels of all photos evenly. Behind what is transparent both sides get the same random colour, so
    that a field cannot explain the background by paint. The same seed and number of steps give the same field on the
    same machine, also where the fit was interrupted and goes on from its checkpoint.

    Args:
        checkpoint: file to save to now and then, and to go on from where it is of the same fit.
        on_step: called after each step with the share of the fit that is over, the number of the step and its loss.
        clock: seconds, for ``config.seconds``.
    Raises:
        TrainingError: the loss is not finite.
    """
    parameters = dict(field.parameters())
    if config.exposure:
        parameters["exposure"] = torch.zeros(len(photos), 3, requires_grad=True)
    state = _State(field, parameters)
    notes: tuple[str, ...] = ()
    if checkpoint is not None:
        identity = _identity(field, photos, config, seed)
        notes = state.resume(checkpoint, identity)
    resumed, before = state.step, state.seconds
    began = saved = clock()
    random = torch.Generator()
    while (over := config.done(state.step, state.seconds)) < 1:
        step = state.step + 1
        generator = seeded(random, seed, "nerf", step)
        field.occupancy.explore(field, EXPLORED, REMEMBERED, generator)
        batch = photos.draw(config.rays, generator)
        seen = see(field, batch.rays, config.sampling, generator)
        colours = _error(seen, batch, photos.transparent, parameters.get("exposure"), generator)
        loss = colours + config.distortion * seen.distortion.mean()
        error = float(loss.detach())
        if not math.isfinite(error):
            raise TrainingError(
                f"The field diverged: its loss is {error} at step {step}.",
                hint=f"Lower the rate (lr is {config.lr:g}), or look for broken poses with: splatinit check SCENE",
            )
        gradients = torch.autograd.grad(loss, list(parameters.values()))
        field.occupancy.remember(field, seen.points, seen.density, REMEMBERED)
        rate = config.lr * (config.lr_end + (1 - config.lr_end) * (1 + math.cos(math.pi * over)) / 2)
        state.update(gradients, rate, float(colours.detach()))
        now = clock()
        state.seconds = before + now - began
        on_step(config.done(state.step, state.seconds), state.step, state.loss)
        if checkpoint is not None and now - saved >= CHECKPOINT_SECONDS:
            state.save(checkpoint, identity)
            saved = clock()
    gains = _gains(parameters.get("exposure"), len(photos))
    return FitResult(state.step, state.seconds, resumed, state.loss, gains, notes)


def _error(
    seen: Seen, batch: Batch, transparent: bool, exposure: torch.Tensor | None, generator: torch.Generator
) -> torch.Tensor:
    """Mean squared error of the colours of a batch."""
    shown, rgb = seen.rgb, batch.rgb
    if exposure is not None:
        shown = shown * _gains(exposure, len(exposure))[batch.view]
    if transparent:
        background = torch.rand(len(rgb), 3, generator=generator)
        shown = shown + (1 - seen.opacity)[:, None] * background
        rgb = rgb * batch.alpha + (1 - batch.alpha) * background
    return ((shown - rgb) ** 2).mean()


def _gains(exposure: torch.Tensor | None, photos: int) -> torch.Tensor:
    return torch.ones(photos, 3) if exposure is None else (exposure - exposure.mean(0)).exp()


class _State:
    """All that a step changes."""

    def __init__(self, field: Field, parameters: dict[str, torch.Tensor]) -> None:
        self.parameters = parameters
        self.occupancy = field.occupancy
        self.moments = {name: (torch.zeros_like(p), torch.zeros_like(p)) for name, p in parameters.items()}
        self.step, self.seconds, self.loss = 0, 0.0, math.nan

    def update(self, gradients: tuple[torch.Tensor, ...], rate: float, loss: float) -> None:
        self.step += 1
        for (name, parameter), gradient in zip(self.parameters.items(), gradients, strict=True):
            first, second = self.moments[name]
            adam_step_(
                parameter.data,
                gradient.contiguous(),
                first,
                second,
                lr=rate,
                step=self.step,
                beta1=BETA1,
                beta2=BETA2,
                eps=EPS,
            )
        self.loss = loss if self.step == 1 else self.loss + (loss - self.loss) / min(self.step, SMOOTH)

    def _tensors(self) -> dict[str, torch.Tensor]:
        found = {"occupancy": self.occupancy.density}
        for name, parameter in self.parameters.items():
            found[name] = parameter.data
            found[f"{name}.first"], found[f"{name}.second"] = self.moments[name]
        return found

    def save(self, path: Path, identity: str) -> None:
        from safetensors.torch import save_file

        facts = {"identity": identity, "step": self.step, "seconds": self.seconds, "loss": self.loss}
        with atomic_path(path) as temporary:
            save_file(self._tensors(), temporary, metadata={"splatinit.fit": json.dumps(facts)})

    def resume(self, path: Path, identity: str) -> tuple[str, ...]:
        """Take up what :meth:`save` wrote for the same fit; what was found amiss with it."""
        from safetensors import SafetensorError, safe_open

        if not path.exists():
            return ()
        try:
            with safe_open(path, framework="pt") as file:
                facts = json.loads((file.metadata() or {})["splatinit.fit"])
                if facts["identity"] != identity:
                    return (f"{path} is of another fit, which is begun anew.",)
                found = {name: file.get_tensor(name) for name in self._tensors()}
                step, seconds, loss = int(facts["step"]), float(facts["seconds"]), float(facts["loss"])
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            return (f"{path} cannot be read ({type(error).__name__}: {error}); the fit is begun anew.",)
        own = self._tensors()
        if any(found[name].shape != own[name].shape or not found[name].isfinite().all() for name in own):
            return (f"{path} is damaged; the fit is begun anew.",)
        for name, tensor in found.items():
            own[name].copy_(tensor)
        self.step, self.seconds, self.loss = step, seconds, loss
        return ()


def _identity(field: Field, photos: Photos, config: FitConfig, seed: int) -> str:
    """What a checkpoint must share with a fit that goes on from it: all but how long it is to take."""
    found = hashlib.blake2b(digest_size=16)
    facts = {**asdict(config), "steps": None, "seconds": None} if config.seconds is not None else asdict(config)
    found.update(json.dumps([facts, seed, repr(field.space), field.near, photos.digest()]).encode())
    for tensor in field.parameters().values():
        found.update(tensor.detach().numpy().data)
    return found.hexdigest()
