"""Whether an engine computes what another does: one small picture with everything that training asks for.

The CUDA engine is tried so before its first use in a process: a driver, a compiler or a card that does not do what the
engine expects must not show as a scene that trains badly.
"""

from __future__ import annotations

from collections.abc import Callable
from ctypes import c_double, c_float, c_void_p
from typing import TYPE_CHECKING

from ..errors import BackendError
from .arguments import AdamArg, AuxArg, FrameInfo, GaussiansArg, GradientsArg, ImageArg, ViewArg
from .engines import Engine
from .optimization import adam_step_, l1_dssim
from .rasterization import Workspace, backward, forward
from .tensors import address

if TYPE_CHECKING:
    import torch

COUNT, WIDTH, HEIGHT = 80, 41, 35  # more than two tiles each way, the last ones not whole
COEFFICIENTS = 15
# Relative by norm. Rounding differs by 1e-6 to 1e-5; one pixel whose cut-off falls the other way by up to 1e-4.
TOLERANCE = 1e-3


def check_engine(engine: Engine, trusted: Engine) -> None:
    """Raises BackendError with the numbers unless ``engine`` computes what ``trusted`` does.

    With the sums of gradients in a fixed order and, where the engine has the choice, in any.
    """
    expected = results(trusted)
    for deterministic in (1, 0) if engine.name == "cuda" else (0,):
        found = results(engine, {"deterministic": deterministic} if deterministic else {})
        for name, wanted in expected.items():
            _compare(engine, name, found[name].cpu().double(), wanted.cpu().double())


def _compare(engine: Engine, name: str, found: torch.Tensor, wanted: torch.Tensor) -> None:
    error = (found - wanted).norm() / wanted.norm().clamp_min(1e-12)
    limit = 0.0 if name == "visible" else TOLERANCE
    if error <= limit:  # False for NaN
        return
    worst = int((found - wanted).abs().nan_to_num(nan=float("inf")).argmax())
    raise BackendError(
        f"The {engine.name} engine does not compute on {engine.describe()} what the cpu engine does: {name} differs by "
        f"{float(error):.3g} (relative, by norm; expected at most {limit:g}), most at number {worst}: got "
        f"{float(found.flatten()[worst]):.7g}, expected {float(wanted.flatten()[worst]):.7g}.",
        hint="Use --backend cpu. A driver that does not fit, or memory that errs, shows like this; if it stays so "
        "after an update, it is an error of splatinit: please report it with what `splatinit doctor` says.",
        what=name,
        difference=float(error),
    )


def results(engine: Engine, options: dict[str, int] | None = None) -> dict[str, torch.Tensor]:
    """What the engine makes of the small picture: name → numbers, on its device."""
    import torch

    made = _numbers()
    gaussians = {name: tensor.to(engine.device) for name, tensor in made["gaussians"].items()}
    target, counts, v_alpha, v_depth = (made[name].to(engine.device) for name in ("target", "counts", "alpha", "depth"))
    workspace = Workspace(engine, options)
    empty = engine.empty

    def call(function: Callable[..., None], *arguments: object) -> None:
        function(workspace, *arguments)

    argument = GaussiansArg(COUNT, COEFFICIENTS, *map(address, gaussians.values()))
    rgb, alpha, depth = empty(HEIGHT, WIDTH, 3), empty(HEIGHT, WIDTH), empty(HEIGHT, WIDTH)
    aux = {"means2d": empty(COUNT, 2), "depths": empty(COUNT), "radii": empty(COUNT)}
    aux |= {"visible": empty(COUNT, dtype=torch.bool), "blend_weight": empty(COUNT)}
    image = ImageArg(*map(address, (rgb, alpha, depth)))
    call(forward, argument, _view(), image, AuxArg(*map(address, aux.values())), FrameInfo())
    loss, v_rgb = l1_dssim(rgb, target, 0.2, counts, workspace=workspace)

    v_image = ImageArg(*map(address, (v_rgb, v_alpha, v_depth)))
    gradients = {name: torch.empty_like(tensor) for name, tensor in gaussians.items()}
    gradients |= {"pose": empty(4, 4), "background": empty(3), "means2d": empty(COUNT, 2)}
    gradients["|means2d|"] = empty(COUNT, 2)
    call(backward, argument, _view(), v_image, GradientsArg(*map(address, gradients.values())))

    # The same gradients again, into the Gaussians at once, and by Adam alone.
    stepped = {name: tensor.clone() for name, tensor in gaussians.items()}
    moments = [{name: torch.zeros_like(tensor) for name, tensor in gaussians.items()} for _ in range(2)]
    argument = GaussiansArg(COUNT, COEFFICIENTS, *map(address, stepped.values()))
    call(forward, argument, _view(), image, AuxArg(*map(address, aux.values())), FrameInfo())
    pointers = [(c_void_p * 6)(*map(address, part.values())) for part in (stepped, *moments)]
    adam = AdamArg(*pointers, (c_double * 6)(*[0.01] * 6), 0.9, 0.999, 1e-15, 1, 0, 0)
    call(backward, argument, _view(), v_image, GradientsArg(), adam)
    alone, first, second = made["target"].to(engine.device), torch.zeros_like(target), torch.zeros_like(target)
    adam_step_(alone, v_rgb, first, second, lr=0.01, step=1, engine=engine)

    return {
        **{"rgb": rgb, "alpha": alpha, "depth": depth, "loss": loss, "gradient of rgb": v_rgb, **aux},
        **{f"gradient of {name}": tensor for name, tensor in gradients.items()},
        **{f"{name} after a step": tensor for name, tensor in stepped.items()},
        **{f"mean gradient of {name}": tensor for name, tensor in moments[0].items()},
        **{f"mean squared gradient of {name}": tensor for name, tensor in moments[1].items()},
        **{"Adam": alone, "first moment": first, "second moment": second},
    }


def _view() -> ViewArg:
    pose = [1, 0, 0, 0.1, 0, 1, 0, -0.05, 0, 0, 1, 0.2, 0, 0, 0, 1]
    return ViewArg((c_float * 16)(*pose), 40, 42, 20, 18, WIDTH, HEIGHT, 3, 1, 0.3, (c_float * 3)(0.1, 0.4, 0.7))


def _numbers() -> dict:
    """The Gaussians, half of them seen and some behind the camera, a photo, a mask and gradients; always the same."""
    import torch

    random = torch.Generator().manual_seed(20)

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return low + (high - low) * torch.rand(*shape, generator=random)

    gaussians = {
        "means": torch.stack([uniform(-1, 1, COUNT), uniform(-1, 1, COUNT), uniform(-0.5, 3, COUNT)], dim=1),
        "quats": uniform(-1, 1, COUNT, 4),
        "log_scales": uniform(-3, -1, COUNT, 3),
        "logit_opacities": uniform(-2, 3, COUNT),
        "sh0": uniform(-1, 1, COUNT, 1, 3),
        "shN": uniform(-0.2, 0.2, COUNT, COEFFICIENTS, 3),
    }
    return {
        "gaussians": gaussians,
        "target": uniform(0, 1, HEIGHT, WIDTH, 3),
        "counts": (uniform(0, 1, HEIGHT, WIDTH, 1) > 0.1).float().expand(-1, -1, 3).contiguous(),
        "alpha": uniform(-1, 1, HEIGHT, WIDTH) / (WIDTH * HEIGHT),
        "depth": uniform(-0.1, 0.1, HEIGHT, WIDTH) / (WIDTH * HEIGHT),
    }
