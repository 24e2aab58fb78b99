"""Finds the native libraries, loads them with ctypes and gives their functions their types; what splat_cpu was built
for."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Mapping, Sequence
from ctypes import c_char_p, c_int, c_int64, c_void_p
from functools import lru_cache
from pathlib import Path
from typing import Any

from .. import __path__ as PACKAGE_PATH
from ..errors import BackendError, ConfigError, NotBuilt, OutOfMemory

# An editable install keeps what was compiled in site-packages, beside the source tree; both are in the package's path.
LIBRARY_FOLDERS = [Path(folder) / "_lib" for folder in PACKAGE_PATH]
OK, OUT_OF_MEMORY, BAD_ARGUMENT, TOO_MANY_PAIRS, DEVICE_ERROR = 0, -1, -2, -3, -4

Signature = tuple[Any, Sequence[Any]]  # ctypes of the result and of the arguments
_signatures: dict[str, Signature] = {
    "splat_cpu_version": (c_char_p, []),
    "splat_cpu_simd": (c_char_p, []),
    "splat_cpu_set_simd": (c_int, [c_char_p]),
    "splat_cpu_threads": (c_int, []),
    "splat_cpu_set_threads": (None, [c_int]),
    "splat_cpu_exp2": (None, [c_void_p, c_void_p, c_int64]),
}


def declare(signatures: Mapping[str, Signature]) -> None:
    """The functions that a part of this package calls, at its import: :func:`typed` finds them by their first words."""
    _signatures.update(signatures)


def typed(lib: ctypes.CDLL, prefix: str) -> ctypes.CDLL:
    """``lib`` with typed functions, those that begin with ``prefix``. Raises AttributeError where it lacks one."""
    for name, (restype, argtypes) in _signatures.items():
        if name.startswith(prefix):
            function = getattr(lib, name)
            function.restype, function.argtypes = restype, argtypes
    return lib


def library_path(name: str) -> Path:
    """Where the library called ``name`` ("splat_cpu") is installed, or would be if it were: the file need not exist."""
    suffix = {"darwin": ".dylib", "win32": ".dll"}.get(sys.platform, ".so")
    paths = [folder / f"{'' if sys.platform == 'win32' else 'lib'}{name}{suffix}" for folder in LIBRARY_FOLDERS]
    return next((path for path in paths if path.exists()), paths[0])


@lru_cache(maxsize=1)
def available() -> bool:
    """True where splat_cpu was built and can be loaded."""
    try:
        library()
    except NotBuilt:
        return False
    return True


@lru_cache(maxsize=1)
def library() -> ctypes.CDLL:
    """splat_cpu with typed functions. Raises NotBuilt when it is not in this installation."""
    path = library_path("splat_cpu")
    try:
        lib = ctypes.CDLL(str(path))
    except OSError as error:
        raise NotBuilt(
            f"The native CPU engine could not be loaded: {error}.",
            hint=f"It is built when splatinit is installed (pip install .); expected at {path}.",
            path=path,
        ) from error
    typed(lib, "splat_cpu_")
    if os.environ.get("SPLATINIT_THREADS"):
        lib.splat_cpu_set_threads(_positive_int("SPLATINIT_THREADS"))
    level = os.environ.get("SPLATINIT_SIMD")
    if level and lib.splat_cpu_set_simd(level.encode()) != OK:
        raise ConfigError(
            f"SPLATINIT_SIMD is '{level}', which is unknown or cannot run on this processor.",
            hint="Use generic, avx2, avx512 or (on ARM) neon, or unset it.",
        )
    return lib


def _positive_int(variable: str) -> int:
    value = os.environ[variable]
    if not value.isdigit() or int(value) < 1:
        raise ConfigError(f"{variable} is '{value}'; expected a positive whole number.")
    return int(value)


def build_info() -> dict[str, object]:
    """Facts for ``splatinit doctor``: version, simd, threads. Raises NotBuilt without the library."""
    lib = library()
    return {
        "version": lib.splat_cpu_version().decode(),
        "simd": lib.splat_cpu_simd().decode(),
        "threads": lib.splat_cpu_threads(),
    }


def set_threads(threads: int) -> None:
    """Number of threads of the native CPU engine; its results do not depend on it."""
    library().splat_cpu_set_threads(threads)


def set_simd(level: str) -> None:
    """Force an instruction set ("generic", "avx2", "avx512", "neon"). Raises ConfigError if it cannot run here."""
    if library().splat_cpu_set_simd(level.encode()) != OK:
        raise ConfigError(f"The instruction set '{level}' is unknown or cannot run on this processor.")


# What scratch memory grows with, where a part does not know better.
ROOM = "Close other programs, or use fewer threads (SPLATINIT_THREADS) or a smaller --max-size."


def check_code(code: int, what: str, *, hint: str = ROOM) -> None:
    """Turn a return code of a library into the error it stands for; ``hint``: what helps where memory runs out."""
    if code == OK:
        return
    if code == OUT_OF_MEMORY:
        raise OutOfMemory(f"{what}: out of memory.", hint=hint)
    if code == TOO_MANY_PAIRS:
        raise OutOfMemory(
            f"{what}: more than 2³¹ (tile, Gaussian) pairs: the Gaussians cover far too much of the image.",
            hint="Start with smaller Gaussians, fewer of them, or a smaller --max-size.",
        )
    raise BackendError(f"{what}: the native engine refused its arguments (code {code}).")
