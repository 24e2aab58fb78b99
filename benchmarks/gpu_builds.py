"""What benchmarks/gpu.py needs built: our libraries, gsplat's kernels, and what ptxas says of ours.

Neither torch nor splatinit is imported here: this runs before there is a library to load.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "build" / "gpu-bench"
LIBRARIES = ("libsplat_cpu.so", "libsplat_cuda.so")
REGISTERS = 16384  # of each quarter of a multiprocessor, on every architecture from 75 on
# Bytes of shared memory of a multiprocessor, of which each block also takes 1024 for itself.
SHARED = {"75": 65536, "80": 167936, "86": 102400, "87": 167936, "89": 102400, "90": 233472, "100": 233472}
SHARED |= {"103": 233472, "110": 233472, "120": 102400, "121": 102400}
LAST_LINES = 12  # of what a build that failed said


class BuildFailed(Exception):
    """With the last lines of what the build said."""


# ------------------------------------------------------------------------------------------------------------- ours
@dataclass(frozen=True)
class Libraries:
    """Our two libraries.

    Attributes:
        package: folder that holds their ``_lib``, for ``splatinit.__path__``.
        seconds: that the build took; None where there was nothing to build.
        resources: what ptxas said of each kernel; empty where it was not asked.
    """

    package: Path
    seconds: float | None
    resources: list[Kernel]


def build_ours(architecture: str, *, cuda_only: bool = False, timeout: float = 600) -> Libraries:
    """splat_cpu and splat_cuda: those in the checkout, where they are newer than every source, else built for one
    architecture ("90") in build/gpu-bench.

    ``cuda_only``: compile splat_cuda, for what ptxas says of it, whatever there is. Raises BuildFailed.
    """
    sources = [path.stat().st_mtime for path in (ROOT / "cuda").rglob("*") if path.is_file()]
    installed = [ROOT / "splatinit" / "_lib" / name for name in LIBRARIES]
    there = all(path.exists() and path.stat().st_mtime > max(sources) for path in installed)
    if there and not cuda_only:
        return Libraries(ROOT / "splatinit", None, [])
    began = time.perf_counter()
    build, prefix, log = FOLDER / f"native-{architecture}", FOLDER / f"installed-{architecture}", []
    configure = [_cmake(), "-S", str(ROOT / "cuda"), "-B", str(build), "-DSPLATINIT_CUDA=ON"]
    configure += [f"-DSPLATINIT_CUDA_ARCHITECTURES={architecture}", "-DCMAKE_CUDA_FLAGS=-Xptxas=-v"]
    if shutil.which("ninja"):
        configure += ["-G", "Ninja"]
    compile_ = [_cmake(), "--build", str(build), "--parallel"]
    compile_ += ["--target", "splat_cuda"] if cuda_only else []
    install = [_cmake(), "--install", str(build), "--prefix", str(prefix)]
    for command in [configure, compile_] + ([] if cuda_only else [install]):
        log.append(_said(command, timeout))
    # A build that found everything up to date does not say it again.
    kept = build / "ptxas.log"
    if "ptxas info" in log[1]:
        kept.write_text(log[1])
    text = kept.read_text() if kept.exists() else ""
    return Libraries(prefix / "splatinit", time.perf_counter() - began, resources(text))


def _cmake() -> str:
    found = shutil.which("cmake") or shutil.which("cmake", path=str(Path(sys.executable).parent))
    if found is None:
        raise BuildFailed("there is no cmake")
    return found


def _said(command: list[str], timeout: float) -> str:
    try:
        result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout)
    except subprocess.TimeoutExpired as error:
        raise BuildFailed(f"{' '.join(command[:3])} … took more than {timeout:.0f} s") from error
    if result.returncode != 0:
        raise BuildFailed("\n".join(result.stdout.strip().splitlines()[-LAST_LINES:]))
    return result.stdout


# ----------------------------------------------------------------------------------------------------------- kernels
@dataclass(frozen=True)
class Kernel:
    """What ptxas says of one kernel.

    Attributes:
        registers: of a thread.       shared: bytes of a block.       stack: bytes of a thread in local memory.
        spills: bytes of a thread that did not fit into registers, written and read.
        blocks: that the shared memory of a multiprocessor has room for, of at most 32; None where its size is unknown.
    """

    name: str
    registers: int
    shared: int
    stack: int
    spills: int
    blocks: int | None

    @property
    def warps(self) -> int:
        """That the registers of a multiprocessor have room for, of at most 64."""
        # A warp gets registers of one quarter, in units of 256.
        return min(64, 4 * (REGISTERS // (-(-max(1, self.registers) * 32 // 256) * 256)))


_ENTRY = re.compile(
    r"Compiling entry function '(?P<name>\w+)' for '(?P<architecture>\w+)'"
    r".*?(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads"
    r".*?Used (?P<registers>\d+) registers(?P<more>[^\n]*)",
    re.DOTALL,
)


def resources(log: str) -> list[Kernel]:
    """The kernels of a log with ``-Xptxas -v``, ours only (CUB's have their own authors), by name."""
    found = {match["name"]: match for match in _ENTRY.finditer(log)}
    found = {name: match for name, match in found.items() if not re.search("cub|thrust", name, re.IGNORECASE)}
    names = _readable(list(found))
    kernels = []
    for name, match in found.items():
        smem = re.search(r"(\d+) bytes smem", match["more"])
        shared, room = int(smem[1]) if smem else 0, SHARED.get(match["architecture"].removeprefix("sm_"))
        blocks = None if room is None else min(32, room // (shared + 1024))
        spills = int(match["stores"]) + int(match["loads"])
        kernels.append(Kernel(names[name], int(match["registers"]), shared, int(match["stack"]), spills, blocks))
    return sorted(kernels, key=lambda kernel: kernel.name)


def _readable(names: list[str]) -> dict[str, str]:
    """Mangled name → what a person would call it: the kernel with its template arguments."""
    filters = [tool for tool in ("cu++filt", "c++filt") if shutil.which(tool)]
    if not filters or not names:
        return {name: name for name in names}
    text = subprocess.run([filters[0]], input="\n".join(names), capture_output=True, text=True).stdout
    readable = {}
    for name, line in zip(names, text.splitlines(), strict=True):
        before = line.removeprefix("void ").split("(splat")[0]
        short = re.match(r"(?:\(anonymous namespace\)::|\w+::)*(\w+)(<.*?>)?(?:\(|$)", before)
        arguments = re.sub(r"\((?:bool|int)\)", "", short[2] or "") if short else ""
        readable[name] = f"{short[1]}{arguments}" if short else line
    return readable


# ------------------------------------------------------------------------------------------------------------ gsplat
def cuda_home() -> str | None:
    """The folder of the toolkit that nvcc belongs to, by what nvcc says itself: torch takes the one above the file that
    is called nvcc, which may be a script that only leads to it. None where there is no nvcc that says it."""
    if shutil.which("nvcc") is None:
        return None
    command = ["nvcc", "--dryrun", "-x", "cu", "-c", os.devnull, "-o", os.devnull]
    said = re.search(r"_HERE_=(.+)", subprocess.run(command, capture_output=True, text=True).stderr)
    return str(Path(said[1].strip()).parent) if said else None


class GsplatBuild:
    """gsplat's kernels, which its first import compiles: in a process of its own, beside whatever else goes on.

    Attributes:
        seconds: that it took, once it is done.       error: why there is no gsplat, or None.
        log: what it said, where it failed.
    """

    def __init__(self, architecture: str, wheels: Path | None) -> None:
        """``architecture``: as torch writes it ("9.0"). ``wheels``: folder of wheels to install gsplat from, None where
        it is installed."""
        self.seconds: float | None = None
        self.error: str | None = None
        self.log: list[str] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._began = time.perf_counter()
        site = FOLDER / "site"
        FOLDER.mkdir(parents=True, exist_ok=True)
        if wheels is not None:
            files = [str(path) for path in sorted(wheels.glob("*.whl"))]
            options = ["--quiet", "--no-index", "--no-deps", "--no-compile", "--upgrade", "--target", str(site)]
            try:
                _said([sys.executable, "-m", "pip", "install", *options, *files], timeout=120)
            except BuildFailed as error:
                self.error = f"{wheels} could not be installed: {error}"
                return
            sys.path.insert(0, str(site))
            os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")]))
        # torch asks for ninja, which may be beside this Python.
        os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", ""), str(Path(sys.executable).parent)])
        if "CUDA_HOME" not in os.environ and (home := cuda_home()) is not None:
            os.environ["CUDA_HOME"] = home
        # The same for this process, which loads what is built.
        os.environ["TORCH_CUDA_ARCH_LIST"] = architecture
        os.environ["TORCH_EXTENSIONS_DIR"] = str(FOLDER / "torch_extensions")
        # Some processors are left for what is measured meanwhile.
        os.environ["MAX_JOBS"] = str(max(1, len(os.sched_getaffinity(0)) - 3))
        program = "from gsplat.cuda._backend import _C; assert _C is not None, 'gsplat found no CUDA toolkit'"
        self._file = FOLDER / "gsplat.log"
        with self._file.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", program], stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    @property
    def running(self) -> bool:
        """Whether it still goes on."""
        if self._process is None:
            return False
        code = self._process.poll()
        if code is None:
            return True
        self.seconds, self._process = time.perf_counter() - self._began, None
        if code != 0:
            self.log = self._file.read_text(errors="replace").strip().splitlines()
            telling = [line for line in self.log if re.search(r"\berror: ", line)][:3]
            self.error = "\n".join([*telling, *self.log[-3:]])
        return False

    def wait(self, seconds: float) -> None:
        """Until it is done, ``seconds`` at most."""
        until = time.perf_counter() + seconds
        while self.running and time.perf_counter() < until:
            time.sleep(0.2)

    def stop(self) -> None:
        """End it, with the compilers that it started."""
        if self.running and self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
