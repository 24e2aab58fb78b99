"""Whether this machine has an NVIDIA GPU at all, asked of its driver; that takes neither CUDA toolkit nor torch."""

from __future__ import annotations

import ctypes
import sys
from functools import lru_cache

_DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_NAME_BYTES = 256


@lru_cache(maxsize=1)
def gpus() -> tuple[str, ...] | None:
    """Names of the GPUs that NVIDIA's driver offers to this process; None where there is no driver.

    An empty tuple: the driver is there, but gives no device (CUDA_VISIBLE_DEVICES is empty, a container was started
    without its devices, or driver and kernel module are of different versions).
    """
    try:
        driver = ctypes.CDLL(_DRIVER)
    except OSError:
        return None
    count = ctypes.c_int()
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return ()
    names = []
    for index in range(count.value):
        name = ctypes.create_string_buffer(_NAME_BYTES)
        known = driver.cuDeviceGetName(name, _NAME_BYTES, index) == 0
        names.append(name.value.decode(errors="replace") if known else f"GPU {index}")
    return tuple(names)
