"""The backends ``gsplat`` and ``gsplat-packed``: the library gsplat (Ye et al. 2024, arXiv:2409.06765) by its public
``rasterization``, as an established engine beside ours.

Two names rather than a setting: how gsplat stores what is between its kernels changes the cost of a picture and not
the picture. A field of RasterSettings would say so of every backend, and would part the checkpoints and the runs of
sweeps that were made before it was there. A sweep or a benchmark that wants both modes names both.

What gsplat 1.5 does otherwise than :mod:`.base`, as its kernels have it (their file in brackets):

- ``radii`` are whole pixels, rounded up, and ``visible`` is decided by them (ProjectionEWA3DGSFused): a Gaussian just
  beside the image counts as visible, with a gradient of 0. gsplat's own strategies count the same way.
- The compensation of ``antialiased`` has no floor, where Mip-Splatting's and ours stop at 0.005 (Utils.cuh, add_blur):
  a Gaussian far thinner than a pixel vanishes.
- Nothing is drawn beyond z = 1e10 (the default ``far_plane``).
- The gradient of ``cam_from_world`` w.r.t. its rotation takes the camera's centre as −R⁻¹ t, ours as −Rᵀ t: the two
  are equal along every rigid motion, and differ in the directions in which R stops being a rotation.
- A zero quaternion is no rotation there but NaN (quat_to_rotmat), and so may the picture be.
- Backward rebuilds the transmittance from 1 − alpha by dividing, front after back, in float32, and adds up by atomics:
  its gradients are less exact than ours, and not the same from run to run.

Alphas are clamped at 0.999 without a gradient beyond, those below 1/255 are skipped, a pixel stops before its
transmittance would fall to 1e-4, the Jacobian is taken at most 0.3 half images beyond the border, and equal depths go
by index: all that as in :mod:`.base`.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
from collections.abc import Callable, Collection, Mapping
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from ..errors import BackendError, ConfigError, MissingExtra, NotBuilt, ShapeError
from ..types import Camera, Gaussians, RasterAux, Render
from .base import NEAR, RasterSettings

VERSIONS = ">=1.5.3,<1.6"  # as in pyproject.toml: kernels, meta and distributed mode were read in these
_FIRST, _END = (1, 5, 3), (1, 6)
MOST_PAIRS = 2**31 - 1  # gsplat numbers (Gaussian, tile) pairs in 32 bits, and does not look
STATISTICS = ("blend_weight", "v_means2d", "v_means2d_abs")
PREBUILT = "https://docs.gsplat.studio/whl"  # wheels that hold the kernels, for some torch and CUDA


class GsplatRasterizer:
    """gsplat. Raises MissingExtra for a version that was not tried, NotBuilt where it cannot run.

    Attributes:
        device: the CUDA device that is current when this is made; Gaussians have to lie there.
        note: what a user should know before the first picture (it may take minutes: kernels are compiled), or None.
    """

    name = "gsplat"
    packed = False  # one row for each Gaussian and camera, seen or not

    def __init__(self, *, distributed: bool = False) -> None:
        """``distributed``: this process holds one part of the Gaussians and draws one view, and so do all others of the
        torch.distributed group, at the same time (see :mod:`splatinit.distributed`)."""
        installed = require_version()
        self.device = cuda_device()
        self.distributed = distributed
        self.note = compiles_first(installed)
        self._works = False

    def render(
        self,
        gaussians: Gaussians,
        camera: Camera,
        *,
        settings: RasterSettings = RasterSettings(),
        background: torch.Tensor | None = None,
        sh_degree: int | None = None,
        cam_from_world: torch.Tensor | None = None,
        with_depth: bool = False,
        with_stats: bool | Collection[str] = False,
    ) -> Render:
        """See :class:`splatinit.raster.base.Rasterizer`.

        ``aux.blend_weight`` is drawn when it is first read, which has to be before the Gaussians change. A distributed
        render has no blend_weight and no v_means2d_abs: gsplat has no absolute gradients there. Elsewhere these cost
        two more sums beside the nine of backward, so say which statistics are wanted.

        Raises BackendError when gsplat cannot load its kernels, or meets more pairs than it can number.
        """
        degree = gaussians.sh_degree if sh_degree is None else sh_degree
        if not 0 <= degree <= gaussians.sh_degree:
            raise ConfigError(f"sh_degree is {degree}, but these Gaussians hold degrees 0 to {gaussians.sh_degree}.")
        if background is not None and background.shape != (3,):
            raise ShapeError(f"render: background must be [3], got {list(background.shape)}.")
        if cam_from_world is not None and cam_from_world.shape != (4, 4):
            raise ShapeError(f"render: cam_from_world must be [4, 4], got {list(cam_from_world.shape)}.")
        for name, tensor in gaussians.tensors().items():
            if tensor.dtype != torch.float32 or tensor.device != self.device:
                raise ShapeError(
                    f"render: {name} must be float32 on {self.device}, got "
                    f"{str(tensor.dtype).removeprefix('torch.')} on {tensor.device}."
                )
        viewmat, K, background = self._uploaded(camera, cam_from_world, background)
        if len(gaussians) == 0:  # gsplat divides by their number, on the host
            if self.distributed:
                raise BackendError(
                    "This process holds no Gaussians; distributed gsplat needs some in each.",
                    hint="Train with fewer processes (torchrun --nproc-per-node).",
                )
            return self._of_none(camera, background, with_depth, bool(with_stats))

        if isinstance(with_stats, bool):
            with_stats = STATISTICS if with_stats else ()
        watched = bool(with_stats) and torch.is_grad_enabled()
        means = gaussians.means
        if watched and not means.requires_grad and any(t.requires_grad for t in gaussians.tensors().values()):
            # gsplat's means2d keep a gradient only if they come from something that has one.
            means = means.detach().requires_grad_()
        geometry = {"means": means, "quats": gaussians.quats}
        geometry |= {"scales": gaussians.scales, "opacities": gaussians.opacities}
        view = {
            "viewmats": viewmat[None],
            "Ks": K[None],
            "width": camera.width,
            "height": camera.height,
            "near_plane": NEAR,
            "eps2d": settings.eps2d,
            "packed": self.packed,
            "rasterize_mode": "antialiased" if settings.antialiased else "classic",
        }
        used = (degree + 1) ** 2 - 1
        higher = gaussians.shN if degree == gaussians.sh_degree else gaussians.shN[:, :used]
        image, alpha, meta = self._draw(
            **geometry,
            **view,
            colors=torch.cat([gaussians.sh0, higher], dim=1),
            sh_degree=degree,
            backgrounds=None if background is None or self.packed else background[None],
            render_mode="RGB+ED" if with_depth else "RGB",
            absgrad=watched and "v_means2d_abs" in with_stats and not self.distributed,
            distributed=self.distributed,
        )
        rgb, alpha = image[0, ..., :3], alpha[0, ..., 0]
        if background is not None and self.packed:
            # gsplat 1.5 refuses backgrounds in this mode: its check forgets that packed rows have no camera axis (its
            # issue 764).
            rgb = rgb + (1 - alpha)[..., None] * background
        if watched and meta["means2d"].requires_grad:
            meta["means2d"].retain_grad()
        weigh = None
        if "blend_weight" in with_stats and not self.distributed:
            weigh = self._weigher(geometry, view, gaussians)
        return Render(
            rgb=rgb,
            alpha=alpha,
            depth=image[0, ..., 3] if with_depth else None,
            aux=GsplatAux(_Rows(meta, len(gaussians), self.distributed), weigh),
        )

    def prepare(self) -> None:
        """Have the kernels compiled, or loaded, now: by drawing one Gaussian. Raises what the first picture would."""
        one = {
            "means": [0, 0, 1.0],
            "quats": [1.0, 0, 0, 0],
            "scales": [1.0] * 3,
            "opacities": 1.0,
            "colors": [1.0] * 3,
        }
        eye = torch.eye(4, device=self.device)
        tensors = {name: torch.tensor([value], device=self.device) for name, value in one.items()}
        self._draw(**tensors, viewmats=eye[None], Ks=eye[None, :3, :3], width=1, height=1, packed=self.packed)

    def _uploaded(
        self, camera: Camera, pose: torch.Tensor | None, background: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """viewmat [4, 4], K [3, 3] and background [3] on the device: what comes from the host in one pinned copy, for
        which nobody has to wait."""
        numbers = [*camera.cam_from_world.ravel().tolist(), *camera.K.ravel().tolist()]
        of_host = background is not None and background.device.type == "cpu" and not background.requires_grad
        if of_host:
            numbers += background.tolist()
        pinned = torch.tensor(numbers, dtype=torch.float32, pin_memory=self.device.type == "cuda")
        there = pinned.to(self.device, non_blocking=True)
        viewmat, K = there[:16].view(4, 4), there[16:25].view(3, 3)
        if pose is not None:
            viewmat = pose.to(self.device, torch.float32)
            if viewmat.requires_grad:
                # gsplat inverts all 16 entries; the last row of a pose is no variable.
                viewmat = torch.cat([viewmat[:3], viewmat[3:].detach()])
        if background is not None:
            background = there[25:] if of_host else background.to(self.device, torch.float32)
        return viewmat, K, background

    def _draw(self, **arguments: Any) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any]]:
        """gsplat.rasterization, with its failures told."""
        import gsplat

        try:
            image, alpha, meta = gsplat.rasterization(**arguments)
        except (AttributeError, ImportError, RuntimeError) as error:
            if self._works or isinstance(error, torch.cuda.OutOfMemoryError):
                raise
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise BackendError(
                f"gsplat {gsplat.__version__} failed at its first picture: {lines[0]}",
                hint="If it could not compile or load its kernels: that wants nvcc of the CUDA that torch was built "
                f"for ({torch.version.cuda}) and a C++ compiler, or a wheel that holds them ({PREBUILT}). `--backend "
                "cuda` needs neither.",
            ) from error
        self._works = True
        pairs = len(meta["flatten_ids"])
        if pairs > MOST_PAIRS:
            raise BackendError(
                f"A picture of {arguments['width']}×{arguments['height']} px has {pairs:,} pairs of a Gaussian and a "
                f"tile that it touches; gsplat can number {MOST_PAIRS:,}.",
                hint="Smaller images (--max-size) or fewer or smaller Gaussians have fewer.",
                pairs=pairs,
            )
        return image, alpha, meta

    def _of_none(self, camera: Camera, background: torch.Tensor | None, depth: bool, stats: bool) -> Render:
        """The picture of no Gaussians."""
        size = camera.height, camera.width
        zeros = lambda *shape: torch.zeros(shape, device=self.device)  # noqa: E731
        rgb = zeros(*size, 3)
        aux = RasterAux(zeros(0, 2), zeros(0), zeros(0), torch.zeros(0, dtype=torch.bool, device=self.device))
        if stats:
            aux.blend_weight, aux.v_means2d, aux.v_means2d_abs = zeros(0), zeros(0, 2), zeros(0, 2)
        return Render(
            rgb=rgb if background is None else rgb + background,
            alpha=zeros(*size),
            depth=zeros(*size) if depth else None,
            aux=aux,
        )

    def _weigher(
        self, geometry: Mapping[str, torch.Tensor], view: Mapping[str, Any], gaussians: Gaussians
    ) -> Callable[[], torch.Tensor]:
        """The blend weight [n] of each Gaussian, when it is called.

        gsplat does not give it. But a picture is Σ weight · colour, so the weights of all pixels together are the
        gradient of the sum of a one-channel picture w.r.t. the colours.
        """
        geometry = {name: tensor.detach() for name, tensor in geometry.items()}
        view = view | {"viewmats": view["viewmats"].detach()}
        leaves = gaussians.means, gaussians.quats
        versions = [tensor._version for tensor in leaves]

        def weigh() -> torch.Tensor:
            if versions != [tensor._version for tensor in leaves]:
                raise RuntimeError("aux.blend_weight of gsplat was read after the Gaussians had changed.")
            colors = torch.ones(len(gaussians), 1, device=self.device, requires_grad=True)
            with torch.enable_grad():
                image, _, _ = self._draw(**geometry, **view, colors=colors)
                (weight,) = torch.autograd.grad(image.sum(), colors)
            return weight[:, 0]

        return weigh


class PackedGsplatRasterizer(GsplatRasterizer):
    """gsplat in its packed mode: one row for each Gaussian that is seen, by which memory follows the view and not the
    scene. It gathers and scatters these rows, and waits for the device to count them."""

    name = "gsplat-packed"
    packed = True


class GsplatAux(RasterAux):
    """:class:`~splatinit.types.RasterAux` from what gsplat calls ``meta``; a field costs nothing until it is read.

    Attributes:
        views: one for each camera that was drawn in this call: one, or in distributed mode those of all processes, with
            the Gaussians of this process in each.
    """

    def __init__(self, rows: _Rows, weigh: Callable[[], torch.Tensor] | None = None, view: int = 0) -> None:
        self._rows, self._weigh, self._view = rows, weigh, view

    @property
    def views(self) -> list[GsplatAux]:
        return [self] if self._rows.cameras == 1 else [GsplatAux(self._rows, view=c) for c in range(self._rows.cameras)]

    @cached_property
    def visible(self) -> torch.Tensor:
        return self._rows.visible(self._view)

    @cached_property
    def means2d(self) -> torch.Tensor:
        return self._rows.spread(self._rows.means2d.detach(), self._view)

    @cached_property
    def depths(self) -> torch.Tensor:
        return self._rows.spread(self._rows.depths.detach(), self._view)

    @cached_property
    def radii(self) -> torch.Tensor:
        return self._rows.spread(self._rows.radii.amax(-1).float(), self._view)

    @cached_property
    def blend_weight(self) -> torch.Tensor | None:
        return None if self._weigh is None else self._weigh()

    @property
    def v_means2d(self) -> torch.Tensor | None:
        gradient = self._rows.means2d.grad if self._rows.means2d.retains_grad else None
        return None if gradient is None else self._rows.spread(gradient, self._view)

    @property
    def v_means2d_abs(self) -> torch.Tensor | None:
        gradient = getattr(self._rows.means2d, "absgrad", None)
        return None if gradient is None else self._rows.spread(gradient, self._view)


class _Rows:
    """What gsplat says of Gaussians as cameras see them: [cameras, n, …] or, packed, [rows, …] of those that are seen.

    What it says of a Gaussian that is not seen is whatever was in that memory.
    """

    def __init__(self, meta: Mapping[str, Any], n: int, distributed: bool) -> None:
        self.n = n
        self.means2d, self.depths, self.radii = meta["means2d"], meta["depths"], meta["radii"]
        self._gaussians, self._cameras = meta["gaussian_ids"], meta["camera_ids"]
        self.cameras = torch.distributed.get_world_size() if distributed else 1

    def visible(self, camera: int) -> torch.Tensor:
        """[n] bool."""
        if self._gaussians is None:
            return (self.radii[camera] > 0).all(-1)
        seen = torch.zeros(self.n, dtype=torch.bool, device=self.radii.device)
        return seen.index_fill_(0, self._of(self._gaussians, camera), True)

    def spread(self, values: torch.Tensor, camera: int) -> torch.Tensor:
        """[n, …] of one camera, 0 for Gaussians that it does not see."""
        if self._gaussians is None:
            seen = self.visible(camera)
            return torch.where(seen.view(-1, *[1] * (values.ndim - 2)), values[camera], 0)
        out = values.new_zeros(self.n, *values.shape[1:])
        return out.index_copy_(0, self._of(self._gaussians, camera), self._of(values, camera))

    def _of(self, rows: torch.Tensor, camera: int) -> torch.Tensor:
        return rows if self.cameras == 1 else rows[self._cameras == camera]


# ------------------------------------------------------------------------------------------------------- can it run?
def require_version() -> str:
    """The version of the installed gsplat. Raises MissingExtra when it is not one of :data:`VERSIONS`."""
    try:
        installed = version("gsplat")
    except PackageNotFoundError:
        installed = "of an unknown version"
    match = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", installed)
    numbers = tuple(int(part or 0) for part in match.groups()) if match else ()
    if not _FIRST <= numbers < _END:
        raise MissingExtra(
            f"Backend 'gsplat' is for gsplat{VERSIONS}, but gsplat {installed} is installed.",
            hint='Install it: pip install "splatinit[gsplat]"',
            missing=["gsplat"],
        )
    return installed


def cuda_device() -> torch.device:
    """The device that gsplat would draw on. Raises NotBuilt where there is none, or no kernels for it."""
    if torch.version.cuda is None:
        raise NotBuilt(
            f"Backend 'gsplat' draws on CUDA devices, but this torch ({torch.__version__}) was built without CUDA.",
            hint="Install a torch with CUDA (https://pytorch.org/get-started/locally), or use --backend cpu.",
        )
    if not torch.cuda.is_available():
        raise NotBuilt(
            f"Backend 'gsplat' draws on CUDA devices, but torch ({torch.__version__}) finds none.",
            hint="`nvidia-smi` says whether the driver sees one, and CUDA_VISIBLE_DEVICES may hide it. Or use "
            "--backend cpu.",
        )
    if not _has_kernels() and not _has_nvcc():
        raise NotBuilt(
            "gsplat is installed without its kernels, and compiles them at its first use; but there is no nvcc for it.",
            hint=f"Install CUDA {torch.version.cuda}'s toolkit (CUDA_HOME says where it is), or a wheel of gsplat that "
            f"holds the kernels ({PREBUILT}). `--backend cuda` needs neither.",
        )
    return torch.device("cuda", torch.cuda.current_device())


def compiles_first(installed: str) -> str | None:
    """What to tell a user before the first picture, or None where the kernels came with the package."""
    if _has_kernels():
        return None
    return (
        f"gsplat {installed} compiles its kernels with nvcc before its first picture, unless it has done so on this "
        "machine: that takes minutes, once."
    )


def _has_kernels() -> bool:
    return importlib.util.find_spec("gsplat.csrc") is not None


def _has_nvcc() -> bool:
    from torch.utils.cpp_extension import CUDA_HOME

    return shutil.which("nvcc") is not None or (CUDA_HOME is not None and Path(CUDA_HOME, "bin", "nvcc").is_file())
