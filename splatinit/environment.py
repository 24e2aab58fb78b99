"""What this process runs on: versions, threads, memory. Recorded by every run, shown by ``splatinit doctor``."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from . import __version__, memory
from .errors import ConfigError, NotBuilt

THREADS_VARIABLE = "SPLATINIT_THREADS"
DEPENDENCIES = (
    "torch",
    "numpy",
    "scipy",
    "pillow",
    "opencv-python-headless",
    "pycolmap",
    "safetensors",
    "pyyaml",
    "rich",
    "typer",
)


def version_of(distribution: str) -> str | None:
    """Installed version of a distribution, or None."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def wanted_threads() -> int | None:
    """The number in SPLATINIT_THREADS, or None where it is not set. Raises ConfigError when it is not a number ≥ 1."""
    text = os.environ.get(THREADS_VARIABLE, "").strip()
    if not text:
        return None
    if not text.isdigit() or int(text) < 1:
        raise ConfigError(
            f"{THREADS_VARIABLE} = '{text}'; expected a whole number of threads, at least 1.",
            hint="Unset it to use every core.",
        )
    return int(text)


def shorten_thread_spin() -> None:
    """Let OpenMP threads that wait for others yield the processor soon; to be called before torch is imported.

    GNU OpenMP reads GOMP_SPINCOUNT once, when torch loads it. Its default burns milliseconds at every barrier where
    other programs use the same cores: beside one busy program on 2 cores, forward + backward of 50 000 Gaussians at
    400×300 took 96 ms with the default and 64 ms with 10 000; alone there is no difference. A value that the user has
    set stays, and so does a library user's process: only the command line calls this.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")


def use_threads() -> None:
    """Let torch and the native engine use SPLATINIT_THREADS threads; nothing changes where it is not set.

    The native engine's results are the same for any number of threads.
    """
    threads = wanted_threads()
    if threads is not None:
        import torch

        from . import native

        torch.set_num_threads(threads)
        if native.available():
            native.set_threads(threads)


def cores() -> int:
    """Cores that this process may use (fewer than the machine has, in a container)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> str:
    """Model name of the processor."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def memory_mb() -> tuple[float, float] | None:
    """(available, total) memory in MB, within the limits of the control groups; None where it cannot be told."""
    free, total = memory.available(), memory.total()
    return None if free is None or total is None else (free / 2**20, total / 2**20)


def git_hash() -> str | None:
    """Commit of the source tree that this package runs from (with ``-dirty``), or None for an installed one."""
    root = Path(__file__).parent.parent
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def native_info() -> dict[str, Any] | None:
    """What the native CPU engine says of itself (simd, threads, version), or None where it is not built."""
    from . import native

    return dict(native.build_info()) if native.available() else None


def gpus() -> tuple[str, ...] | None:
    """Names of the GPUs that NVIDIA's driver gives to this process; None where there is no driver."""
    from .native import driver

    return driver.gpus()


def cuda_info() -> dict[str, Any]:
    """What there is of CUDA, as plain values.

    ``gpus``: names that the driver gives, None without driver; ``engine``: version and architectures of splat_cuda,
    None where it is not built; ``devices``: those that it sees, each with ``name``, ``capability``, ``memory_gb`` and
    ``runs``, whether the engine has code for it; ``torch``: version of its CUDA, None where it has none. The engine is
    not tried out: making its rasterizer does that.
    """
    import torch

    from . import native

    found = gpus()
    info: dict[str, Any] = {"gpus": None if found is None else list(found), "engine": None, "devices": []}
    try:
        lib = native.cuda_library(native.cuda_library_path())
    except NotBuilt:
        return info | {"torch": torch.version.cuda}
    engines = [native.CudaEngine(lib, index) for index in range(lib.splat_cuda_device_count())]
    return info | {
        "engine": lib.splat_cuda_version().decode(),
        "devices": [engine.facts() for engine in engines],
        "torch": torch.version.cuda,
    }


def session(seed: int, backend: str, device: str = "cpu") -> dict[str, Any]:
    """What env.json records about one process that worked on a run, whose rasterizer draws on ``device``."""
    import torch

    return {
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "splatinit": __version__,
        "git": git_hash(),
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "packages": {name: version_of(name) for name in DEPENDENCIES},
        "device": device,
        "backend": backend,
        "native": native_info(),
        # Asking starts CUDA, which takes time and memory of the GPU: only where it was used.
        "cuda": cuda_info() if backend == "cuda" or device.startswith("cuda") else None,
        "processor": processor(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "seed": seed,
    }
