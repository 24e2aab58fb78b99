"""A build of the native libraries and their tests, as cuda/README.md says, for the tests that need one."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CUDA = Path(__file__).parents[1] / "cuda"


def tool(name: str) -> str | None:
    """Of the machine, or of the environment that runs the tests (CMake is a package, too)."""
    return shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))


def built(folder: Path, *options: str) -> Path:
    """The build in ``folder``; skips the test where the machine has no tools for it."""
    cmake = tool("cmake")
    if cmake is None:
        pytest.skip("no cmake on this machine")
    if not any(map(shutil.which, ("c++", "g++", "clang++"))):
        pytest.skip("no C++ compiler on this machine")
    command = [cmake, "-S", str(CUDA), "-B", str(folder), "-DSPLATINIT_CUDA=OFF", "-DSPLATINIT_TESTS=ON"]
    for step in ([*command, *options], [cmake, "--build", str(folder), "--parallel", "2"]):
        result = subprocess.run(step, capture_output=True, text=True)
        assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-5000:]
    return folder


def ctest(folder: Path, name: str = "") -> str:
    """What the native tests say whose names begin with ``name``; they must pass."""
    command = [tool("ctest"), "--test-dir", str(folder), "-V", "-j2", "--no-tests=error", "-R", f"^{name}"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-10_000:]
    return result.stdout
