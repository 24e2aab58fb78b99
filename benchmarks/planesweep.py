"""The matcher planesweep: rate of each stage beside its roofline, and seconds per reference.

    python benchmarks/planesweep.py [--quick]

A unit is one hypothesis of one pixel in one neighbour. The sweep's units cost one bilinear sample each (the sums of a
window are shared), the search's one sample per pixel of the window. The least a sample costs is its memory reads,
gathered for a vector of pixels at places that differ from lane to lane: one gather in the sweep, two in the search. The
roofline is a bare loop of gathers over a photo in cache, with -O3 -march=native, on one thread, times the number of
threads. It counts no arithmetic, so no real loop reaches it. A busy machine shows between best and median.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from splatinit import native
from splatinit.matching import MatchView
from splatinit.matching.planesweep import PlaneSweep, PlaneSweepConfig
from splatinit.native import Stereo, StereoPhoto, stereo_minima, stereo_semiglobal
from splatinit.types import Camera

GATHERS = {"sweep": 1, "search": 2}  # of 32 bits per sample: four pixels of 8 bits, or twice two of 16 bits
FLOOR = """
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <vector>
#if defined(__AVX512F__)
#include <immintrin.h>
constexpr int kLanes = 16;
using V = __m512i;
static V gather(const uint16_t* p, V i) { return _mm512_i32gather_epi32(i, (const int*)p, 2); }
static V add(V a, V b) { return _mm512_add_epi32(a, b); }
static V load(const int* p) { return _mm512_loadu_si512(p); }
#elif defined(__AVX2__)
#include <immintrin.h>
constexpr int kLanes = 8;
using V = __m256i;
static V gather(const uint16_t* p, V i) { return _mm256_i32gather_epi32((const int*)p, i, 2); }
static V add(V a, V b) { return _mm256_add_epi32(a, b); }
static V load(const int* p) { return _mm256_loadu_si256((const V*)p); }
#else
#include <cstring>
constexpr int kLanes = 4;
struct V { int lane[4]; };
static V gather(const uint16_t* p, V i) {
    V o;
    for (int k = 0; k < 4; ++k) std::memcpy(&o.lane[k], p + i.lane[k], 4);
    return o;
}
static V add(V a, V b) {
    for (int k = 0; k < 4; ++k) a.lane[k] += b.lane[k];
    return a;
}
static V load(const int* p) { V o; std::memcpy(&o, p, 16); return o; }
#endif
int main() {
    const int width = 256, height = 144;
    std::vector<uint16_t> photo(width * height + 2, 7);
    std::vector<int> index(width * (height - 8) - 64);
    for (size_t i = 0; i < index.size(); ++i) index[i] = int(i + i % width / 40 * width);
    double best = 1e9;
    V sum = load(index.data());
    for (int run = 0; run < 40; ++run) {
        const auto start = std::chrono::steady_clock::now();
        for (size_t i = 0; i + kLanes <= index.size(); i += kLanes) {
            sum = add(sum, gather(photo.data(), load(index.data() + i)));
            sum = add(sum, gather(photo.data() + width, load(index.data() + i)));
        }
        const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        if (seconds < best) best = seconds;
    }
    int out[16];
    __builtin_memcpy(out, &sum, sizeof(sum));
    std::printf("%g %d\\n", 2.0 * double(index.size()) / best, out[0]);
}
"""


def gathers_per_second() -> float:
    """32-bit numbers gathered per second by a bare loop on one thread; 0 where it cannot be compiled."""
    with tempfile.TemporaryDirectory() as folder:
        source, program = Path(folder) / "floor.cpp", Path(folder) / "floor"
        source.write_text(FLOOR)
        build = ["c++", "-O3", "-march=native", "-std=c++17", str(source), "-o", str(program)]
        try:
            subprocess.run(build, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            return 0.0
        return float(subprocess.run([program], capture_output=True, text=True, check=True).stdout.split()[0])


def seconds(run: Callable[[], object], repeats: int) -> tuple[float, float]:
    """(best, median) of ``repeats`` calls, after one that is not counted."""
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times), statistics.median(times)


def stages(console: Console, repeats: int) -> None:
    rng = np.random.default_rng(0)
    threads = native.build_info()["threads"]
    bound = threads * gathers_per_second()
    bound_text = f"{bound / 1e6:.0f} M/s" if bound else "not measured"
    table = Table(title="stages", caption=f"bare gathers on {threads} threads: {bound_text}")
    for column in ("stage", "size", "best ms", "median ms", "M px × 64 × 3 /s", "M samples/s", "of the roofline"):
        table.add_column(column, justify="left" if column in ("stage", "size") else "right")

    def photo(width: int, height: int, shift: float | None) -> StereoPhoto:
        grey = (rng.random((height, width)) * 65534 + 1).astype(np.uint16)
        matrix = None if shift is None else np.hstack([np.eye(3), [[shift], [0.3 * shift], [0.02]]])
        return StereoPhoto(grey, matrix)

    def row(stage: str, size: str, spent: tuple[float, float], units: float | None, samples: float) -> None:
        rate = samples / spent[0]
        table.add_row(
            stage,
            size,
            f"{1e3 * spent[0]:.1f}",
            f"{1e3 * spent[1]:.1f}",
            "–" if units is None else f"{units / spent[0] / (64 * 3) / 1e6:.2f}",
            f"{rate / 1e6:.0f}" if samples else "–",
            f"{100 * rate * GATHERS[stage] / bound:.0f} %" if samples and bound else "–",
        )

    for width, height in ((256, 144), (400, 225), (800, 450)):
        stereo = Stereo(photo(width, height, None), [photo(width, height, s) for s in (9.0, -8.0, 5.0)], 3, 2)
        depths = np.linspace(0.1, 1.0, 64)
        units = width * height * 64 * 3
        size = f"{width}×{height}, 64 planes, 3 neighbours"
        row("sweep", size, seconds(lambda s=stereo, d=depths: s.sweep(d), repeats), units, units)
        cost = stereo.sweep(depths)
        guide = rng.random((height, width)).astype(np.float32)
        paths = seconds(lambda c=cost, g=guide: stereo_semiglobal(c, g, slope=0.1, jump=1.0, edge=0.1), repeats)
        row("semi-global", size, paths, units, 0)
        row("minima", size, seconds(lambda c=cost: stereo_minima(c), repeats), units, 0)
    planes = np.zeros((3, 225, 400), np.float32)
    planes[0] = 0.5
    stereo = Stereo(photo(400, 225, None), [photo(400, 225, s) for s in (9.0, -8.0, 5.0)], 3, 2)
    units = 400 * 225 * 3
    spent = seconds(lambda: stereo.costs(planes), repeats)
    row("search", "400×225, one plane, 3 neighbours, 7×7", spent, units, units * 49)
    console.print(table)


def references(console: Console, repeats: int) -> None:
    """Whole matches of noise: what they cost does not depend on what they find."""
    rng = np.random.default_rng(1)
    table = Table(title="match(): seconds per reference, with its matches' judgement")
    for column in ("photo", "neighbours", "best s", "median s"):
        table.add_column(column, justify="right")
    for width, height in ((400, 225), (800, 450)):
        for count in (3, 4):
            views = []
            for k in range(count + 1):
                pose = np.eye(4)
                pose[0, 3], pose[1, 3] = 0.2 * k, 0.1 * (k % 2)
                K = np.array([[0.9 * width, 0, width / 2], [0, 0.9 * width, height / 2], [0, 0, 1.0]])
                rgb = rng.integers(0, 256, (height, width, 3), np.uint8)
                views.append(MatchView(str(k), rgb, None, Camera(K, pose, width, height)))
            matcher = PlaneSweep(PlaneSweepConfig())
            best, median = seconds(
                lambda m=matcher, v=views: m.match(v[0], v[1:], depth_range=(1.5, 15.0)), max(2, repeats // 3)
            )
            table.add_row(f"{width}×{height}", str(count), f"{best:.2f}", f"{median:.2f}")
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer repeats")
    repeats = 4 if parser.parse_args().quick else 12
    console = Console(width=130)
    info = native.build_info()
    console.print(f"splat_cpu {info['version']}, {info['simd']}, {info['threads']} threads")
    stages(console, repeats)
    references(console, repeats)


if __name__ == "__main__":
    main()
