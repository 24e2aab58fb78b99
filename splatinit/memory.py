"""How much memory there is, and how much a step will take: asked before it is taken.

What does not fit is refused with the number that would, because the other end is the kernel's: it kills without a word
the process that took the last page, perhaps after hours.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from .errors import ConfigError, OutOfMemory

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


def room() -> float:
    """:func:`available` without the reserve; infinite where it cannot be told."""
    free = available()
    return math.inf if free is None else max(0, free - RESERVE)


# ------------------------------------------------------------------------------------------------- what will be taken
@dataclass(frozen=True)
class TrainingMemory:
    """What a training takes beyond the Gaussians that it is given.

    Measured, refinements included, with SH degree 3 at 1600×1200: 200 000 Gaussians 390 MB, a million 1266 MB.

    Attributes:
        sh_degree: of the Gaussians.
        width, height: px of the largest view.
        photos: bytes for decoded photos and for decoding, see :func:`splatinit.decoding.most_bytes`.
    """

    sh_degree: int
    width: int
    height: int
    photos: int

    @property
    def parameters(self) -> int:
        """Bytes of one Gaussian's parameters."""
        return 4 * (14 + 3 * ((self.sh_degree + 1) ** 2 - 1))

    @property
    def kept(self) -> int:
        """Bytes per Gaussian between two steps: parameters, their two moments, the engine's buffers."""
        return 3 * self.parameters + _ENGINE + _PAIRS

    @property
    def per_gaussian(self) -> int:
        """Bytes per Gaussian at the worst moment: statistics, and gradients or, in a refinement, the tensor that is
        made anew, the SH coefficients being most of it."""
        return self.kept + self.parameters + _STATISTICS

    @property
    def fixed(self) -> int:
        """Bytes that do not depend on the number of Gaussians."""
        return _TRAIN_PIXEL * self.width * self.height + self.photos

    def bytes(self, count: int) -> int:
        return self.per_gaussian * count + self.fixed

    def require(self, count: int, how: Callable[[int], str], *, given: bool = True) -> None:
        """Raise OutOfMemory unless a training of ``count`` Gaussians fits.

        Args:
            how: the number that would fit → the setting that brings the count down to it.
            given: the Gaussians that training starts from are in memory already.
        """
        free = room()
        each = self.per_gaussian + (0 if given else self.parameters)
        if each * count + self.fixed <= free:
            return
        fits = _rounded(int((free - self.fixed) // each))
        if fits < 1:
            raise OutOfMemory(
                f"Training at {self.width}×{self.height} needs about {gigabytes(self.fixed)} for photos and drawing "
                f"alone, {gigabytes(free)} are available.",
                hint="Use a smaller --max-size or train.image_cache_mb, or close other programs.",
                fits=0,
            )
        raise OutOfMemory(
            f"Training {spaced(count)} Gaussians at {self.width}×{self.height} needs about "
            f"{gigabytes(each * count + self.fixed)}, {gigabytes(free)} are available; {spaced(fits)} would fit.",
            hint=f"{how(fits)} A smaller --max-size or seeding.sh_degree takes less, too.",
            fits=fits,
        )

    def require_growth(self, count: int, new: int, *, step: int, photos: int) -> None:
        """Raise OutOfMemory unless a training of ``count`` Gaussians that runs can go on with ``new``.

        Asked between two steps. ``photos``: bytes that decoded photos will still take.
        """
        free = room() - photos
        kept = self.kept * count
        if new <= count or self.per_gaussian * new - kept <= free:
            return
        fits = max(count, _rounded(int((free + kept) // self.per_gaussian)))
        raise OutOfMemory(
            f"After step {step}, training would grow from {spaced(count)} to {spaced(new)} Gaussians and need about "
            f"{gigabytes(self.per_gaussian * new - kept)} more; {gigabytes(max(0, free))} are available.",
            hint=f"Train again with densify.max_count={fits}, or close other programs.",
            fits=fits,
        )


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


def require_evaluation(sizes: Iterable[tuple[int, int]], *, vgg: bool) -> None:
    """Raise OutOfMemory unless views of ``sizes`` (width, height in px) can be measured; ``vgg``: with its LPIPS."""
    width, height = max(sizes, key=lambda size: size[0] * size[1], default=(0, 0))
    free, need = room(), width * height * (_VGG_PIXEL if vgg else _SSIM_PIXEL)
    if need <= free:
        return
    side = int(max(width, height) * math.sqrt(free / need))
    without = " or eval.lpips=alex, which takes a third," if vgg else ""
    raise OutOfMemory(
        f"Measuring views of {width}×{height} needs about {gigabytes(need)}, {gigabytes(free)} are available; "
        f"{side} px would fit.",
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
