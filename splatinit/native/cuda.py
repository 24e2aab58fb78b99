"""Finds splat_cuda and makes sure that it, the device and torch fit together before anything is computed."""

from __future__ import annotations

import ctypes
import os
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import BackendError, ConfigError, NotBuilt
from . import driver
from .engines import CudaEngine, Engine, cpu_engine
from .loading import OK, available, library_path, typed

if TYPE_CHECKING:
    import torch

LIBRARY_VARIABLE = "SPLATINIT_CUDA_LIBRARY"
ON_THE_CPU = "--backend cpu works on every machine."


def cuda_library_path() -> Path:
    """Where splat_cuda is expected: the file that SPLATINIT_CUDA_LIBRARY names, else that of the installation."""
    named = os.environ.get(LIBRARY_VARIABLE)
    return Path(named) if named else library_path("splat_cuda")


@lru_cache(maxsize=8)
def cuda_library(path: Path) -> ctypes.CDLL:
    """splat_cuda with typed functions. Raises NotBuilt where it is missing or of another version."""
    if not path.exists():
        if os.environ.get(LIBRARY_VARIABLE):
            raise NotBuilt(f"{LIBRARY_VARIABLE} names {path}, which is not there.", hint="Unset it, or correct it.")
        gpus = driver.gpus()
        if gpus is None:
            raise NotBuilt(
                "The CUDA engine is not in this installation, and this machine has no NVIDIA driver.", hint=ON_THE_CPU
            )
        raise NotBuilt(
            f"The CUDA engine is not in this installation, but this machine has an NVIDIA driver ({_listed(gpus)}): "
            "no CUDA compiler was found when splatinit was installed.",
            hint="Install the CUDA toolkit, 12 or newer, with nvcc on the PATH; then in splatinit's folder: "
            f"pip install --force-reinstall --no-deps . {ON_THE_CPU}",
            gpus=gpus,
        )
    try:
        return typed(ctypes.CDLL(str(path)), "splat_cuda_")
    except OSError as error:
        raise NotBuilt(
            f"The CUDA engine could not be loaded: {error}.",
            hint=f"Install splatinit again (pip install --force-reinstall --no-deps .). {ON_THE_CPU}",
            path=path,
        ) from error
    except AttributeError as error:
        raise NotBuilt(
            f"The CUDA engine is of another version of splatinit: {error}.",
            hint=f"Install splatinit again (pip install --force-reinstall --no-deps .). {ON_THE_CPU}",
            path=path,
        ) from error


def cuda_engine(index: int | None = None, library: str | os.PathLike[str] | None = None) -> CudaEngine:
    """splat_cuda on the device ``index``, made once and tried out (:mod:`.selfcheck`).

    Args:
        index: of the device; None: torch's current one.
        library: file to load in place of the one of :func:`cuda_library_path`.

    Raises:
        NotBuilt: something is missing; says what, and how to get it.
        ConfigError: there is no such device.
        BackendError: the engine does not compute what it should.
    """
    path = cuda_library_path() if library is None else Path(library)
    return _engine(_current_device() if index is None else index, path)


def _current_device() -> int:
    import torch

    return torch.cuda.current_device() if torch.cuda.is_available() else 0


@lru_cache(maxsize=32)
def _engine(index: int, path: Path) -> CudaEngine:
    from .selfcheck import check_engine

    engine = usable_engine(cuda_library(path), index)
    check_engine(engine, cpu_engine())
    return engine


def usable_engine(lib: ctypes.CDLL, index: int) -> CudaEngine:
    """The engine of a loaded library, with a device that it can run and a torch that can use it; see cuda_engine."""
    engine = CudaEngine(lib, index)
    count = lib.splat_cuda_device_count()
    if count < 1:
        gpus = driver.gpus()
        if gpus is None:
            raise NotBuilt(
                f"The CUDA engine is built ({engine.version}), but this machine has no NVIDIA driver.", hint=ON_THE_CPU
            )
        raise NotBuilt(
            f"The CUDA engine is built ({engine.version}), but can use none of the GPUs here ({_listed(gpus)}).",
            hint="The driver may be older than that CUDA, or CUDA_VISIBLE_DEVICES may hide them: compare with what "
            f"nvidia-smi says. {ON_THE_CPU}",
            gpus=gpus,
        )
    if not 0 <= index < count:
        raise ConfigError(f"There is no device cuda:{index}; expected 0 to {count - 1}.", index=index, count=count)
    if lib.splat_cuda_device_check(index) != OK:
        info = engine.info()
        raise NotBuilt(
            f"The CUDA engine has no code for {engine.describe()}, of compute capability {info.major}.{info.minor}; it "
            f"was built as {engine.version}.",
            hint="Build it for this card: in splatinit's folder, pip install --force-reinstall --no-deps "
            f"--config-settings=cmake.define.SPLATINIT_CUDA_ARCHITECTURES={info.major}{info.minor} . {ON_THE_CPU}",
            capability=(info.major, info.minor),
        )
    if not engine.emulated:
        _check_torch(engine)
    return engine


def _check_torch(engine: CudaEngine) -> None:
    """Raise NotBuilt unless torch can use the GPU that the engine can use."""
    import torch

    if torch.version.cuda is None:
        raise NotBuilt(
            f"The CUDA engine and {engine.describe()} are there, but this torch ({torch.__version__}) was built "
            "without CUDA.",
            hint="Install one with it: pip install --force-reinstall torch --index-url "
            f"https://download.pytorch.org/whl/cu130 (or what pytorch.org says for your driver). {ON_THE_CPU}",
        )
    if not torch.cuda.is_available():
        raise NotBuilt(
            f"The CUDA engine and {engine.describe()} are there, but torch {torch.__version__} (CUDA "
            f"{torch.version.cuda}) cannot use the GPU.",
            hint="Mostly the driver is too old for torch's CUDA: update it, or install a torch for an older one. "
            + ON_THE_CPU,
        )


def engine_for(device: torch.device) -> Engine | None:
    """The engine for tensors that lie on ``device``, or None where there is none: the same numbers then come from
    plain torch."""
    if device.type == "cpu":
        return cpu_engine() if available() else None
    return _engine_on(device.index or 0) if device.type == "cuda" else None


@lru_cache(maxsize=32)
def _engine_on(index: int) -> CudaEngine | None:
    try:
        engine = cuda_engine(index)
    except BackendError:
        return None
    return None if engine.emulated else engine


def _listed(gpus: tuple[str, ...]) -> str:
    return ", ".join(gpus) or "which gives no GPU to this process"
