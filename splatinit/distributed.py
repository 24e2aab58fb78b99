"""Training in several processes, one GPU each: gsplat's distributed mode, which is that of Grendel (Zhao et al. 2024,
arXiv:2406.18533), under torchrun::

    torchrun --nproc-per-node 4 -m splatinit run scene/ --backend gsplat train.steps=7500

Each process holds a part of the Gaussians, with their moments and a densifier of its own, and draws one view a step.
gsplat projects the part of each process for the views of all, and sends every Gaussian that is seen to the process that
draws the view; the gradients come back the same way. So a step has as many views as there are processes, and as many
times fewer steps see as many photos. Between two steps the processes share nothing: what they decide alike (when to
refine, to look, to save) they decide by the number of the step, and what hangs on a clock or on a person they agree on.

Torch sends between devices (NCCL) only what gsplat sends. What is said here is few numbers, and the Gaussians once at
the end; it goes between hosts (gloo), so that no device waits for it.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import ConfigError, TrainingError
from .types import Gaussians, RasterAux, Scene

if TYPE_CHECKING:
    import torch

    from .densify.base import Change
    from .io.checkpoints import Latest
    from .raster.base import Rasterizer

# The backends with a distributed mode. Not gsplat-packed: gsplat 1.5 does not send along of which image a packed row is
# (image_ids in gsplat/rendering.py), and gives the tiles those of other rows (gsplat's issues 845 and 871).
BACKENDS = ("gsplat",)
TORCHRUN = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # what torchrun sets
PROCESS = "process_"  # and its number: where one of several has its checkpoints
AGREE_EVERY = 16  # steps between two questions to the others; each waits for the slowest of them
# Poses and start are made by the first process while the others wait. torchrun ends them all when one dies.
PATIENCE = timedelta(days=7)


@dataclass(frozen=True)
class Group:
    """The processes that train together, as one of them sees it. :data:`ALONE` is a group of one, that shares nothing.

    Every method that says "together" has to be called by all processes, in the same order.

    Attributes:
        rank: number of this process, from 0.    size: how many there are.
        hosts: torch's process group between the hosts; None in a group of one.
    """

    rank: int = 0
    size: int = 1
    hosts: Any = dataclasses.field(default=None, repr=False, compare=False)

    @property
    def leads(self) -> bool:
        """Whether this process makes poses and start, and writes everything but the checkpoints of the others."""
        return self.rank == 0

    # ---------------------------------------------------------------------------------------------- before training
    def rasterizer(self, drawing: Rasterizer) -> Rasterizer:
        """What trains in place of ``drawing``: a rasterizer of the same kind that draws with the Gaussians of all."""
        return drawing if self.size == 1 else type(drawing)(distributed=True)

    def check(self, scene: Scene, gaussians: Gaussians, config: Any, densifier: Any) -> None:
        """Raise ConfigError for a training that several processes cannot make, TrainingError for too few Gaussians.

        config: a TrainConfig.    densifier: one that has begun.
        """
        if self.size == 1:
            return
        sizes = sorted({(view.camera.width, view.camera.height) for view in scene.train})
        if len(sizes) > 1:
            several = ", ".join(f"{width}×{height}" for width, height in sizes[:4]) + (", …" if len(sizes) > 4 else "")
            raise ConfigError(
                f"The training views of {scene.root} have {len(sizes)} sizes ({several}); gsplat draws those of all "
                f"{self.size} processes at one.",
                hint="Train in one process (without torchrun).",
                sizes=sizes,
            )
        if config.seconds is not None:
            raise ConfigError(
                f"train.seconds={config.seconds:g}: {self.size} processes cannot train by their clocks, because they "
                "have to make the same number of steps.",
                hint="Say train.steps.",
            )
        if config.resolution < 1 and any(view.photo.has_mask for view in scene.train):
            raise ConfigError(
                f"train.resolution={config.resolution:g} with masks: a small photo without a pixel that counts is "
                f"taken at its working size, and gsplat draws the views of all {self.size} processes at one.",
                hint="Say train.resolution=1 or data.masks=off.",
            )
        if "v_means2d_abs" in densifier.wants_stats(1):
            raise ConfigError(
                f"densify.absgrad: gsplat has no absolute gradients where {self.size} processes train.",
                hint="Say densify.absgrad=false, or train in one process (without torchrun).",
            )
        if len(gaussians) < self.size:
            raise TrainingError(
                f"{len(gaussians)} Gaussians cannot be shared by {self.size} processes; each needs one at least.",
                hint="Start from more points, or with fewer processes (torchrun --nproc-per-node).",
            )

    def share(self, count: int) -> int:
        """Of ``count`` Gaussians, how many a process holds at most."""
        return math.ceil(count / self.size)

    def part(self, gaussians: Gaussians) -> Gaussians:
        """Those of this process: every size-th, so that each has some everywhere and all have the same work."""
        return gaussians if self.size == 1 else gaussians.map(lambda tensor: tensor[self.rank :: self.size].clone())

    def rates(self, rates: Mapping[str, float]) -> dict[str, float]:
        """Learning rates for a step of this many views: times √size (Grendel; so does gsplat's own trainer)."""
        return {name: rate * math.sqrt(self.size) for name, rate in rates.items()}

    def moments(self, beta1: float, beta2: float, eps: float) -> tuple[float, float, float]:
        """Adam's betas and eps for such a step: β^size, with which the moments forget a view as fast as in one process
        (Grendel; gsplat's own trainer has its first-order form 1 − size (1 − β), that is 0 for 10), and eps / √size."""
        return beta1**self.size, beta2**self.size, eps / math.sqrt(self.size)

    def densifier(self, densifier: Any) -> Any:
        """``densifier`` with this process's share of the number of Gaussians that it may make (``max_count``)."""
        most = getattr(densifier.config, "max_count", None)
        if self.size == 1 or most is None:
            return densifier
        return type(densifier)(dataclasses.replace(densifier.config, max_count=self.share(most)))

    def purpose(self, name: str) -> str:
        """Of random numbers (see :mod:`.draws`) that have to be others in each process."""
        return name if self.size == 1 else f"{name} {self.rank}"

    def identity(self) -> dict[str, int]:
        """What checkpoints have to have in common, beyond a training's own."""
        return {} if self.size == 1 else {"processes": self.size}

    # ------------------------------------------------------------------------------------------------ while training
    def turn(self, done: int) -> int:
        """Which turn of the views is this process's, after ``done`` steps."""
        return done * self.size + self.rank

    def seen(
        self, aux: RasterAux, counts: torch.Tensor | None, masked: tuple[int, int] | None
    ) -> list[tuple[RasterAux, torch.Tensor | None]]:
        """What a densifier learns from a step: this process's Gaussians in the view of each process, and which pixels
        of that view count ([h, w, 3], see :class:`splatinit.targets.Target`). Together.

        counts: of this process's view.
        masked: (h, w) where any view of the training has a mask, or None.
        """
        if self.size == 1:
            return [(aux, counts)]
        if masked is None:
            return [(view, None) for view in aux.views]
        import torch

        mine = torch.ones(masked, dtype=torch.uint8)
        if counts is not None:
            mine = (counts[..., 0] > 0).to("cpu", torch.uint8)
        device = aux.means2d.device
        layers = [layer.to(device).float()[..., None] for layer in self._from_all(mine)]
        return [(view, layer.repeat(1, 1, 3)) for view, layer in zip(aux.views, layers, strict=True)]

    def total(self, count: int) -> int:
        """The sum over the processes, together."""
        return count if self.size == 1 else sum(self._numbers_of_all(count))

    def summed(self, change: Change | None) -> Change | None:
        """What all have changed, together; None where this one has changed nothing, which then is so of all."""
        if self.size == 1 or change is None:
            return change
        fields = {f.name: getattr(change, f.name) for f in dataclasses.fields(change)}
        return dataclasses.replace(
            change, **{name: self.total(n) for name, n in fields.items() if not isinstance(n, bool)}
        )

    def agreed(self, step: int, *wishes: bool) -> tuple[bool, ...]:
        """Which of the wishes any process has, together; once in :data:`AGREE_EVERY` steps, and none until then."""
        if self.size == 1:
            return wishes
        if step % AGREE_EVERY:
            return (False,) * len(wishes)
        packed = sum(wish << bit for bit, wish in enumerate(wishes))
        any_wish = 0
        for theirs in self._numbers_of_all(packed):
            any_wish |= theirs
        return tuple(bool(any_wish >> bit & 1) for bit in range(len(wishes)))

    # --------------------------------------------------------------------------------------- checkpoints and the end
    def folder(self, checkpoints: Path) -> Path:
        """Where this process keeps its checkpoints."""
        return checkpoints if self.size == 1 else checkpoints / f"{PROCESS}{self.rank}"

    def latest(self, folder: Path) -> Latest:
        """The newest checkpoint in ``folder``; together, the newest of a step that all have.

        Raises ConfigError where there are checkpoints of another number of processes, or none of the same step;
        FormatError where it is damaged.
        """
        from .io.checkpoints import Latest, load_checkpoint, load_latest, steps_in

        if self.size == 1:
            others = len({path.parent for path in folder.glob(f"{PROCESS}*/*") if path.suffix == ".safetensors"})
            if others:
                raise _of_another_number(folder, others, self.size)
            return load_latest(folder)
        if steps_in(folder.parent):
            raise _of_another_number(folder.parent, 1, self.size)
        paths = steps_in(folder)
        import torch

        mine = torch.full((8,), -1, dtype=torch.int64)
        for at, step in enumerate(sorted(paths, reverse=True)[: len(mine)]):
            mine[at] = step
        steps = [set(theirs[theirs >= 0].tolist()) for theirs in self._from_all(mine)]
        common = set.intersection(*steps)
        if not any(steps):
            return Latest(None)
        if not common:
            has = "; ".join(f"process {rank}: {sorted(have) or 'none'}" for rank, have in enumerate(steps))
            raise ConfigError(
                f"{folder.parent}: the checkpoints of the {self.size} processes have no step in common ({has}).",
                hint="Start as many processes as before, or remove these checkpoints.",
                steps=steps,
            )
        return Latest(load_checkpoint(paths[max(common)]))

    def whole(self, gaussians: Gaussians) -> Gaussians:
        """All Gaussians, on the host, in the process that leads; the others give theirs and get back what they gave.
        Together."""
        if self.size == 1:
            return gaussians
        import torch
        import torch.distributed as dist

        mine = gaussians.map(lambda tensor: tensor.detach().cpu().contiguous())
        counts = self._numbers_of_all(len(mine))
        if not self.leads:
            for tensor in mine.tensors().values():
                if tensor.numel():
                    dist.send(tensor, 0, group=self.hosts)
            return mine
        parts = [mine]
        for rank in range(1, self.size):
            theirs = mine.map(lambda tensor, n=counts[rank]: torch.empty(n, *tensor.shape[1:]))
            for tensor in theirs.tensors().values():
                if tensor.numel():
                    dist.recv(tensor, rank, group=self.hosts)
            parts.append(theirs)
        fields = mine.tensors()
        return Gaussians(**{name: torch.cat([part.tensors()[name] for part in parts]) for name in fields})

    def wait_for_start(self, trains: bool = True) -> bool:
        """Whether there is anything to train: what ``trains`` is in the process that leads, once that has come here.
        Together."""
        return trains if self.size == 1 else bool(self._numbers_of_all(int(trains and self.leads))[0])

    def leave(self) -> None:
        """The processes part; each may go on for itself."""
        if self.size > 1:
            import torch.distributed as dist

            dist.destroy_process_group()

    # ---------------------------------------------------------------------------------------------------------- words
    def _numbers_of_all(self, number: int) -> list[int]:
        import torch

        return [int(each) for each in self._from_all(torch.tensor([number]))]

    def _from_all(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        """Host tensors of one shape, by rank."""
        import torch
        import torch.distributed as dist

        found = [torch.empty_like(tensor) for _ in range(self.size)]
        dist.all_gather(found, tensor.contiguous(), group=self.hosts)
        return found


ALONE = Group()


def _of_another_number(folder: Path, there: int, here: int) -> ConfigError:
    processes = "1 process" if there == 1 else f"{there} processes"
    return ConfigError(
        f"{folder}: these checkpoints are of a training in {processes}; this is one in {here}.",
        hint="Start as many as before (torchrun --nproc-per-node; one: without torchrun), or remove these checkpoints.",
        processes=there,
    )


def join(backend: str) -> Group:
    """The group that torchrun started this process in; :data:`ALONE` where there is none.

    backend: name of the rasterizer that will train. The current CUDA device is the process's own from here on.

    Raises ConfigError when that backend trains in one process only, or there are more processes than devices; what
    making a rasterizer of that name raises.
    """
    if any(name not in os.environ for name in TORCHRUN) or int(os.environ["WORLD_SIZE"]) == 1:
        return ALONE
    rank, local, size = (int(os.environ[name]) for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"))
    if backend not in BACKENDS:
        raise ConfigError(
            f"torchrun started {size} processes, but backend '{backend}' trains in one.",
            hint=f"Say --backend {BACKENDS[0]}, or start without torchrun.",
            backend=backend,
        )
    import torch
    import torch.distributed as dist

    from .raster import make_rasterizer

    if torch.cuda.is_available():
        if local >= torch.cuda.device_count():
            raise ConfigError(
                f"torchrun started a process number {local} on this machine, which has {torch.cuda.device_count()} "
                "CUDA devices; each process needs one.",
                hint=f"Say torchrun --nproc-per-node {torch.cuda.device_count()}.",
            )
        torch.cuda.set_device(local)
    rasterizer = make_rasterizer(backend)
    _hush_gsplat()
    dist.init_process_group("nccl" if rasterizer.device.type == "cuda" else "gloo")
    group = Group(rank, size, dist.new_group(backend="gloo", timeout=PATIENCE))
    if local == 0:
        rasterizer.prepare()
    # Where gsplat has still to compile its kernels, two processes would delete what the other one is at.
    group.total(0)
    return group


def _hush_gsplat() -> None:
    """gsplat 1.5 calls functions that torch 2.13 has given new names; nobody here can do anything about it."""
    import warnings

    warnings.filterwarnings("ignore", r".*torch\.distributed\.", FutureWarning)
