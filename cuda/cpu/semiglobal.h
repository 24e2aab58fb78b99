// Semi-global matching (Hirschmueller 2008): costs of hypotheses, summed along straight paths through the image on which a
// change of hypothesis costs something, so that a pixel without contrast takes the depth that its surroundings agree on.
//
// Four paths. Down and up, a vector holds neighbouring pixels, and a thread takes a strip of columns, whose last row of
// sums stays in cache. Along a row every pixel waits for the one before, so there a vector holds neighbouring hypotheses: a
// thread takes a row, turned around.
#pragma once

#include "simd.h"  // before the maths, see there

#include "../include/splat/sweep.h"
#include "kernels.h"
#include "parallel.h"

namespace splat {
inline namespace SPLAT_LEVEL {

constexpr int kStripVectors = 2;      // of a strip: full cache lines of the volume at a time
constexpr float kBeside = 1e30f;      // cost of hypotheses before the first and behind the last

// Adds both paths along a row of costs [hypotheses, width] to sums [hypotheses, width]; turned [2, width, pitch] and before
// [2, pitch + 2 kLanes] are scratch, pitch the hypotheses rounded up to full vectors.
static void semiglobal_row(const float* cost, int64_t hypotheses, int64_t width, const float* guide, const SemiglobalRates& rates,
                           float* sums, float* turned, float* before) {
    const int64_t pitch = semiglobal_pitch(hypotheses);
    float* total = turned + width * pitch;
    for (int64_t x = 0; x < width; ++x) {
        float* column = turned + x * pitch;
        for (int64_t d = 0; d < hypotheses; ++d) column[d] = cost[d * width + x];
        for (int64_t d = hypotheses; d < pitch; ++d) column[d] = kBeside;
    }
    for (int side = 0; side < 2; ++side) {
        float* now = before + kLanes;
        for (int64_t i = 0; i < pitch + 2 * kLanes; ++i) before[i] = kBeside;
        for (int64_t i = 0; i < hypotheses; ++i) now[i] = 0.0f;
        float lowest = 0.0f;
        for (int64_t step = 0; step < width; ++step) {
            const int64_t x = side ? width - 1 - step : step, from = side ? x + 1 : x - 1;
            const float jump = step ? semiglobal_jump(rates.jump, rates.edge, guide[x] - guide[from]) : rates.jump;
            const vf slope = set1(rates.slope), reset = set1(lowest);
            const vf leap = reset + jump;
            vf least = set1(kBeside), left = loadu(now - 1);
            for (int64_t d = 0; d < pitch; d += kLanes) {
                const vf c = loadu(turned + x * pitch + d), same = loadu(now + d), right = loadu(now + d + 1);
                const vf path = semiglobal_step(c, left, same, right, slope, leap, reset);
                left = loadu(now + d + kLanes - 1);  // before it is overwritten
                storeu(now + d, path);
                float* out = total + x * pitch + d;
                storeu(out, side ? loadu(out) + path : path);
                least = vmin(least, path);
            }
            lowest = lane_min(least);
        }
    }
    for (int64_t x0 = 0; x0 < width; x0 += kLanes)
        for (int64_t d = 0; d < hypotheses; ++d)
            for (int64_t x = x0; x < width && x < x0 + kLanes; ++x) sums[d * width + x] = total[x * pitch + d];
}

// The paths down and up through a strip of at most kStripVectors vectors of columns, from column i; scratch
// [kStripVectors, 2, hypotheses + 2, kLanes].
static void semiglobal_strip(const float* cost, int64_t height, int64_t hypotheses, int64_t width, int64_t i, const float* guide,
                             const SemiglobalRates& rates, float* sums, float* scratch) {
    const int64_t floats = (hypotheses + 2) * kLanes;
    for (int side = 0; side < 2; ++side) {
        for (int64_t n = 0; n < 2 * kStripVectors * floats; ++n) scratch[n] = kBeside;
        vf lowest[kStripVectors] = {};
        float *from = scratch, *to = scratch + kStripVectors * floats;
        for (int v = 0; v < kStripVectors; ++v)
            for (int64_t n = kLanes; n < floats - kLanes; ++n) from[v * floats + n] = 0.0f;
        for (int64_t step = 0; step < height; ++step) {
            const int64_t y = side ? height - 1 - step : step, before = side ? y + 1 : y - 1;
            for (int v = 0; v < kStripVectors; ++v) {
                const int64_t x = i + v * kLanes;
                if (x >= width) break;
                const size_t bytes = size_t(width - x < kLanes ? width - x : kLanes) * sizeof(float);
                const bool full = bytes == sizeof(vf);
                const auto read = [&](const float* p) {
                    if (full) return loadu(p);
                    vf value{};
                    __builtin_memcpy(&value, p, bytes);
                    return value;
                };
                vf jump = set1(rates.jump);
                if (step) jump = semiglobal_jump(jump, rates.edge, read(guide + y * width + x) - read(guide + before * width + x));
                const vf reset = lowest[v], leap = reset + jump, slope = set1(rates.slope);
                const float* last = from + v * floats + kLanes;
                float* next = to + v * floats + kLanes;
                vf least = set1(kBeside), left = set1(kBeside), same = loadu(last);
                for (int64_t d = 0; d < hypotheses; ++d) {
                    const int64_t at = (y * hypotheses + d) * width + x;
                    const vf right = loadu(last + (d + 1) * kLanes);
                    const vf path = semiglobal_step(read(cost + at), left, same, right, slope, leap, reset);
                    storeu(next + d * kLanes, path);
                    // The last path to arrive turns the sum into a mean.
                    const vf sum = (read(sums + at) + path) * (side ? 0.25f : 1.0f);
                    if (full)
                        storeu(sums + at, sum);
                    else
                        __builtin_memcpy(sums + at, &sum, bytes);
                    least = vmin(least, path);
                    left = same, same = right;
                }
                lowest[v] = least;
            }
            float* swap = from;
            from = to, to = swap;
        }
    }
}

// sums [height, hypotheses, width]: means over four paths of costs of the same shape; guide [height, width].
static void semiglobal_loop(const float* cost, int64_t height, int64_t hypotheses, int64_t width, const float* guide,
                            const SemiglobalRates& rates, float* sums, float* scratch, int64_t scratch_floats, int threads) {
    parallel_for(height, 2, threads, [&](int64_t y, int worker) {
        float* own = scratch + worker * scratch_floats;
        semiglobal_row(cost + y * hypotheses * width, hypotheses, width, guide + y * width, rates, sums + y * hypotheses * width,
                       own, own + 2 * width * semiglobal_pitch(hypotheses));
    });
    constexpr int64_t kStrip = kStripVectors * kLanes;
    parallel_for((width + kStrip - 1) / kStrip, 1, threads, [&](int64_t strip, int worker) {
        semiglobal_strip(cost, height, hypotheses, width, strip * kStrip, guide, rates, sums, scratch + worker * scratch_floats);
    });
}

}  // namespace SPLAT_LEVEL
}  // namespace splat
