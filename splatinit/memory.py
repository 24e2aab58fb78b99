"""How much memory there is, and how much a step will take: asked before it is taken.

What does not fit is refused with the number that would, because the other end is the kernel's: it kills without a word
the process that took the last page, perhaps after hours. A CUDA device has memory of its own, and says no by an error;
there, too, a number that is known before is worth more than one that is missed.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from . import device as devices
from .errors import ConfigError, OutOfMemory

if TYPE_CHECKING:
    import torch

VARIABLE = "SPLATINIT_MEMORY_MB"
# Left to everything that is not counted here, and to the other programs of the machine.
RESERVE = 128 * 2**20

_PROC = Path("/proc")
_CGROUP = Path("/sys/fs/cgroup")
_NO_LIMIT = 2**60  # version 1 of the control groups writes a number near 2⁶³ for "no limit"

# Bytes of a training per Gaussian beside its parameters (float32 each, see Gaussians): what the engine keeps of it
# (record, order, keys: 84, with the quarter by which its buffers grow ahead), aux and statistics, and its pairs with
# the tiles that it touches, 100 each. Their number depends on the scene: two are common, large Gaussians have more.
_ENGINE, _STATISTICS, _PAIRS = 105, 61, 200
# Bytes per pixel of the largest view: target, mask and background in float32, render and its gradient, tiles.
_TRAIN_PIXEL = 120
# The same on a CUDA device, counted from what its engine keeps and not yet measured on one: records (64), depth keys
# and order twice (16), first pairs (8), gradients of the records (48), and the quarter by which they grow ahead; what
# drawing tells of each Gaussian (17), gradients of its place (16) and a densifier's sums (8). Four pairs with tiles, of
# two keys and two numbers (24) and, where sums have to come out the same in every run, a slot for the gradient (48).
_DEVICE_ENGINE, _DEVICE_STATISTICS, _DEVICE_PAIRS = 170, 41, 288
_DEVICE_PIXEL = 160  # of the largest view: as above, and the maps of SSIM between its two passes
# Left on a CUDA device to its driver's own state, and to tensors that fit into no hole between others.
DEVICE_RESERVE = 512 * 2**20
# Bytes per pixel of an evaluation: the pictures and SSIM in double precision, or the features of VGG.
_SSIM_PIXEL, _VGG_PIXEL = 560, 1850


# ------------------------------------------------------------------------------------------------------- what there is
def available() -> int | None:
    """Bytes that this process can still take; None where it cannot be told (not Linux, and nothing was set).

    The least of what the machine has left, what the process's control groups (containers) leave, and what its own limit
    (``ulimit -v``) leaves. SPLATINIT_MEMORY_MB, in MB of 2²⁰ bytes, is how much the process may use in all, and takes
    the place of all these: for machines that are shared by agreement, and containers that do not show their limit.

    Raises ConfigError when SPLATINIT_MEMORY_MB is not a positive number.
    """
    wanted = os.environ.get(VARIABLE, "").strip()
    if wanted:
        if not wanted.isdigit() or int(wanted) < 1:
            raise ConfigError(f"{VARIABLE} = '{wanted}'; expected a whole number of MB, at least 1.")
        return max(0, int(wanted) * 2**20 - resident())
    bounds = [_machine("MemAvailable"), _own_limit(), *(left for _, left in _control_groups())]
    known = [bound for bound in bounds if bound is not None]
    return max(0, min(known)) if known else None


def total() -> int | None:
    """Bytes of memory that the machine has, or that the process's control groups give it; None where unknown."""
    bounds = [_machine("MemTotal"), *(limit for limit, _ in _control_groups())]
    return min((bound for bound in bounds if bound is not None), default=None)


def resident() -> int:
    """Bytes of memory that this process uses now; 0 where that cannot be told."""
    pages = _statm()
    return 0 if pages is None else pages[1] * os.sysconf("SC_PAGE_SIZE")


def _statm() -> list[int] | None:
    """Pages: of address space, resident, ..."""
    try:
        return [int(word) for word in (_PROC / "self" / "statm").read_text().split()]
    except (OSError, ValueError):
        return None


def _machine(name: str) -> int | None:
    return _numbers(_PROC / "meminfo", ":", 2**10).get(name)


def _numbers(path: Path, separator: str | None, unit: int = 1) -> dict[str, int]:
    """``name separator number`` lines as bytes; what is not there or not a number is left out."""
    found = {}
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            name, *value = line.split(separator, 1)
            if value and value[0].split() and value[0].split()[0].isdigit():
                found[name] = int(value[0].split()[0]) * unit
    except (OSError, UnicodeDecodeError):
        pass
    return found


def _control_groups() -> list[tuple[int, int]]:
    """(limit, what is left of it) of the process's control groups, version 2 or 1, that have a limit."""
    try:
        lines = (_PROC / "self" / "cgroup").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    found = []
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, name = rest.partition(":")
        if number == "0":
            root, limit, usage, inactive = _CGROUP, "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            root, limit, usage = _CGROUP / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            inactive = "total_inactive_file"
        else:
            continue
        # A container may see its own group as the root, while the name is the one that the machine gave it.
        parts = [part for part in name.split("/") if part not in ("", "..")]
        for depth in range(len(parts) + 1):
            group = root.joinpath(*parts[:depth])
            most, used = _number(group / limit), _number(group / usage)
            if most is not None and used is not None and most < _NO_LIMIT:
                # Pages of files that were read or written once count as used, and go first when memory is wanted.
                found.append((most, most - used + _numbers(group / "memory.stat", None).get(inactive, 0)))
    return found


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # "max" is no limit
        return None


def _own_limit() -> int | None:
    import resource

    pages = _statm()
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY or pages is None:
        return None
    return limit - pages[0] * os.sysconf("SC_PAGE_SIZE")


def room(device: torch.device | None = None) -> float:
    """:func:`available` without the reserve, or that of a CUDA ``device``; infinite where it cannot be told."""
    if _has_own(device):
        return max(0, devices.device_memory(device).free - DEVICE_RESERVE)
    free = available()
    return math.inf if free is None else max(0, free - RESERVE)


def _has_own(device: torch.device | None) -> bool:
    return device is not None and device.type != "cpu"


def _there(device: torch.device | None) -> str:
    """Where the memory is, for messages; nothing for the host's."""
    return f" on {device} ({devices.device_memory(device).name})" if _has_own(device) else ""


# ------------------------------------------------------------------------------------------------- what will be taken
@dataclass(frozen=True)
class TrainingMemory:
    """What a training takes beyond the Gaussians that it is given.

    Measured, refinements included, with SH degree 3 at 1600×1200: 200 000 Gaussians 390 MB, a million 1266 MB.

    Attributes:
        sh_degree: of the Gaussians.
        width, height: px of the largest view.
        photos: bytes for decoded photos and for decoding, see :func:`splatinit.decoding.most_bytes`. On the host, also
            where the training is on another device: there photos are only where it has room to spare.
        device: that the training is on; None: the host.
    """

    sh_degree: int
    width: int
    height: int
    photos: int
    device: torch.device | None = None

    @property
    def parameters(self) -> int:
        """Bytes of one Gaussian's parameters."""
        return 4 * (14 + 3 * ((self.sh_degree + 1) ** 2 - 1))

    @property
    def kept(self) -> int:
        """Bytes per Gaussian between two steps: parameters, their two moments, the engine's buffers."""
        engine = _DEVICE_ENGINE + _DEVICE_PAIRS if _has_own(self.device) else _ENGINE + _PAIRS
        return 3 * self.parameters + engine

    @property
    def per_gaussian(self) -> int:
        """Bytes per Gaussian at the worst moment: statistics, and gradients or, in a refinement, the tensor that is
        made anew, the SH coefficients being most of it."""
        statistics = _DEVICE_STATISTICS if _has_own(self.device) else _STATISTICS
        return self.kept + self.parameters + statistics

    @property
    def fixed(self) -> int:
        """Bytes that do not depend on the number of Gaussians."""
        if _has_own(self.device):
            return _DEVICE_PIXEL * self.width * self.height
        return _TRAIN_PIXEL * self.width * self.height + self.photos

    def bytes(self, count: int) -> int:
        return self.per_gaussian * count + self.fixed

    def require(self, count: int, how: Callable[[int], str], *, given: bool = True) -> None:
        """Raise OutOfMemory unless a training of ``count`` Gaussians fits.

        Args:
            how: the number that would fit → the setting that brings the count down to it.
            given: the Gaussians that training starts from are in memory already.
        """
        if _has_own(self.device) and self.photos > room():
            self._refuse_photos(self.photos, None)
        free = room(self.device)
        # On a device of its own, all of it is to come: Gaussians start on the host.
        each = self.per_gaussian + (0 if given and not _has_own(self.device) else self.parameters)
        if each * count + self.fixed <= free:
            return
        fits = _rounded(int((free - self.fixed) // each))
        if fits < 1:
            self._refuse_photos(self.fixed, self.device)
        raise OutOfMemory(
            f"Training {spaced(count)} Gaussians at {self.width}×{self.height} needs about "
            f"{gigabytes(each * count + self.fixed)}, {gigabytes(free)} are available{_there(self.device)}; "
            f"{spaced(fits)} would fit.",
            hint=f"{how(fits)} A smaller --max-size or seeding.sh_degree takes less, too.",
            fits=fits,
        )

    def _refuse_photos(self, need: int, device: torch.device | None) -> NoReturn:
        raise OutOfMemory(
            f"Training at {self.width}×{self.height} needs about {gigabytes(need)} for photos and drawing alone, "
            f"{gigabytes(room(device))} are available{_there(device)}.",
            hint="Use a smaller --max-size or train.image_cache_mb, or close other programs.",
            fits=0,
        )

    def require_growth(self, count: int, new: int, *, step: int, photos: int) -> None:
        """Raise OutOfMemory unless a training of ``count`` Gaussians that runs can go on with ``new``.

        Asked between two steps. ``photos``: bytes that decoded photos will still take, where the training is.
        """
        free = room(self.device) - photos
        kept = self.kept * count
        if new <= count or self.per_gaussian * new - kept <= free:
            return
        fits = max(count, _rounded(int((free + kept) // self.per_gaussian)))
        raise OutOfMemory(
            f"After step {step}, training would grow from {spaced(count)} to {spaced(new)} Gaussians and need about "
            f"{gigabytes(self.per_gaussian * new - kept)} more; {gigabytes(max(0, free))} are "
            f"available{_there(self.device)}.",
            hint=f"Train again with densify.max_count={fits}, or close other programs.",
            fits=fits,
        )

    def ran_out(self, error: BaseException, doing: str, count: int, step: int) -> OutOfMemory:
        """What to say of an allocation that failed all the same, with ``count`` Gaussians after ``step`` updates.

        ``doing``: what for. On a device, to be asked before anything of the failed step is given back: how many
        Gaussians would fit follows from what is taken then, and what was asked for beyond it.
        """
        hint = "Close other programs, or train with fewer Gaussians (densify.max_count) or a smaller --max-size."
        if not _has_own(self.device):
            return OutOfMemory("The training found no memory for its next step.", hint=hint)
        memory, wanted = devices.device_memory(self.device), _asked_for(error)
        asked = "" if wanted is None else f" of {gigabytes(wanted)}"
        each = (memory.taken + (wanted or 0) - self.fixed) / max(1, count)
        most = (memory.taken + memory.free - DEVICE_RESERVE - self.fixed) / each if each > 0 else 0
        fits = _rounded(max(0, int(min(most, 0.9 * count))))
        return OutOfMemory(
            f"After step {step}, {self.device} ({memory.name}) had no room{asked} for {doing}, with {spaced(count)} "
            f"Gaussians at {self.width}×{self.height}: {gigabytes(memory.taken)} of {gigabytes(memory.total)} are "
            f"taken by this process, {gigabytes(memory.free)} are free; about {spaced(fits)} Gaussians would fit.",
            hint=f"Train again with densify.max_count={fits} or a smaller --max-size, or let other programs leave the "
            "device.",
            fits=fits,
        )


def is_no_memory(error: BaseException) -> bool:
    """Whether an allocation failed: torch raises a RuntimeError for it, of a class of its own for a device's memory."""
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def _asked_for(error: BaseException) -> int | None:
    """The bytes that torch says it tried to allocate."""
    found = re.search(r"[Tt]ried to allocate ([\d.]+) (bytes|[KMGT]iB)", str(error))
    units = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
    return None if found is None else int(float(found[1]) * units[found[2]])


def require_points(count: int, per_point: int) -> None:
    """Raise OutOfMemory unless an initializer can make ``count`` points of ``per_point`` bytes (init.count)."""
    free = room()
    if count * per_point > free:
        fits = _rounded(int(free // per_point))
        raise OutOfMemory(
            f"Drawing {spaced(count)} points needs about {gigabytes(count * per_point)}, {gigabytes(free)} are "
            f"available; {spaced(fits)} would fit.",
            hint=f"Use init.count={fits} or fewer: training takes more than ten times as much for each.",
            fits=fits,
        )


def require_evaluation(sizes: Iterable[tuple[int, int]], *, vgg: bool, device: torch.device | None = None) -> None:
    """Raise OutOfMemory unless views of ``sizes`` (width, height in px) can be measured on ``device``; ``vgg``: with
    its LPIPS."""
    width, height = max(sizes, key=lambda size: size[0] * size[1], default=(0, 0))
    free, need = room(device), width * height * (_VGG_PIXEL if vgg else _SSIM_PIXEL)
    if need <= free:
        return
    side = int(max(width, height) * math.sqrt(free / need))
    without = " or eval.lpips=alex, which takes a third," if vgg else ""
    raise OutOfMemory(
        f"Measuring views of {width}×{height} needs about {gigabytes(need)}, {gigabytes(free)} are "
        f"available{_there(device)}; {side} px would fit.",
        hint=f"Use --max-size {side}{without} or close other programs.",
        fits=side,
    )


def _rounded(count: int) -> int:
    """Down to three digits: what is known of memory is no better than that."""
    unit = 10 ** max(0, len(str(count)) - 3)
    return count // unit * unit


def gigabytes(count: float) -> str:
    """Bytes as a person reads them."""
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.0f} MB"


def spaced(count: int) -> str:
    """40000000 → "40 000 000"."""
    return f"{count:,}".replace(",", " ")
