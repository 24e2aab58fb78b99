// L1 + SSIM of two images and the gradient w.r.t. the first: separable 11-tap filters over interleaved RGB rows.
//
// Two filters in a chain: the moments of x and y are filtered to SSIM and its partial-derivative maps, and these are filtered
// again to the gradient (the filter is symmetric and pads with zeros, so it is its own transpose). Both walk down the image
// together with rings of 11 horizontally filtered rows, strip by strip, so that nothing but the images and the gradient leaves
// the cache. A row's result does not depend on how the image is shared out.
#pragma once

#include "simd.h"  // before the maths, see there

#include <algorithm>

#include "../include/splat/ssim.h"
#include "kernels.h"
#include "parallel.h"

namespace splat {
inline namespace SPLAT_LEVEL {

// out[i] = sum_d tap[d] in[i + 3 d]: neighbours in a row of interleaved RGB are 3 floats apart.
static inline void filter_row(const SsimWindow& window, const float* in, float* out, int64_t stride) {
    vf tap[kSsimRadius + 1];
    for (int d = 0; d <= kSsimRadius; ++d) tap[d] = set1(window.tap[d]);
    for (int64_t i = 0; i < stride; i += kLanes) {
        vf left = tap[0] * loadu(in + i), right = vf{};
        for (int d = 1; d <= kSsimRadius; ++d) {
            left = fma(tap[d], loadu(in + i - 3 * d), left);
            right = fma(tap[d], loadu(in + i + 3 * d), right);
        }
        storeu(out + i, left + right);
    }
}

// A ring of horizontally filtered rows of kMaps maps, `stride` floats long.
template <int kMaps>
struct FilteredRows {
    const SsimWindow& window;
    int height;
    int64_t stride, pitch;
    float* ring;     // [kTaps, kMaps, pitch]
    float* scratch;  // [kMaps, kSsimRowPad + stride + kSsimRowPad]
    float* zeros;    // [stride], a row outside the image
    int next = -1;   // next row to filter

    // memory [ssim_ring_floats(kMaps, stride)], all 0.
    FilteredRows(const SsimWindow& window, int height, int64_t stride, float* memory)
        : window(window), height(height), stride(stride), pitch(ssim_pitch(stride)), ring(memory),
          scratch(ring + kTaps * kMaps * pitch), zeros(scratch + kMaps * (stride + 2 * kSsimRowPad)) {}

    float* filtered(int y, int map) const { return ring + (int64_t(y % kTaps) * kMaps + map) * pitch; }
    const float* row(int y, int map) const { return y < 0 || y >= height ? zeros : filtered(y, map); }
    float* input(int map) { return scratch + map * (stride + 2 * kSsimRowPad) + kSsimRowPad; }

    // Makes the rows of the window around row y available; source(row) fills the inputs.
    template <class Source>
    void advance(int y, Source&& source) {
        if (next < 0) next = y - kSsimRadius < 0 ? 0 : y - kSsimRadius;
        for (; next <= y + kSsimRadius && next < height; ++next) {
            source(next);
            for (int m = 0; m < kMaps; ++m) filter_row(window, input(m), filtered(next, m), stride);
        }
    }

    // Calls visit(i, columns) for each vector i of the row y; columns [kMaps] are filtered vertically too.
    template <class Visit>
    void filter_columns(int y, Visit&& visit) const {
        const float* rows[kMaps][kTaps];
        vf tap[kSsimRadius + 1];
        for (int d = 0; d <= kSsimRadius; ++d) tap[d] = set1(window.tap[d]);
        for (int m = 0; m < kMaps; ++m)
            for (int d = -kSsimRadius; d <= kSsimRadius; ++d) rows[m][d + kSsimRadius] = row(y + d, m);
        for (int64_t i = 0; i < stride; i += kLanes) {
            vf columns[kMaps];
            for (int m = 0; m < kMaps; ++m) {
                const float* const* r = rows[m] + kSsimRadius;
                vf above = tap[0] * loadu(r[0] + i), below = vf{};
                for (int d = 1; d <= kSsimRadius; ++d) {
                    above = fma(tap[d], loadu(r[-d] + i), above);
                    below = fma(tap[d], loadu(r[d] + i), below);
                }
                columns[m] = above + below;
            }
            visit(i, columns);
        }
    }
};

// The first `count` lanes, with zeros behind; from kLanes on, all of them.
static inline vf load_part(const float* p, int64_t count) {
    if (count >= kLanes) return loadu(p);
    vf v{};
    __builtin_memcpy(&v, p, size_t(count) * sizeof(float));
    return v;
}
static inline void store_part(float* p, int64_t count, vf v) {
    if (count >= kLanes)
        storeu(p, v);
    else
        __builtin_memcpy(p, &v, size_t(count) * sizeof(float));
}

// One strip of columns: rings and inputs of both filters. Columns count from the strip's first one.
struct SsimStrip {
    int64_t width;  // floats, a multiple of every kLanes
    FilteredRows<kSsimMoments> moments;
    FilteredRows<3> maps;

    // memory [ssim_scratch(width)], all 0.
    SsimStrip(const SsimWindow& window, int height, int64_t width, float* memory)
        : width(width),
          moments(window, height, width + 2 * kSsimHalo, memory),
          maps(window, height, width, memory + ssim_ring_floats(kSsimMoments, width + 2 * kSsimHalo)) {}
};

// Rows [first, stop) of the columns [begin, end), as floats of a row. loss [2] per row, `loss_stride` doubles apart.
static void ssim_strip(const SsimImages& images, SsimStrip& strip, int first, int stop, int64_t begin, int64_t end,
                       float l1_scale, float ssim_scale, float* v_x, double* loss, int64_t loss_stride) {
    const int64_t count = int64_t(images.width) * 3, halo = kSsimHalo;
    const vf lanes = lane_index();
    const auto between = [&](int64_t i, int64_t low, int64_t high) {  // lanes whose column lies in [low, high)
        return (lanes >= float(low - i)) & (lanes < float(high - i));
    };
    // What the filters read of a row: x and y with 0 where the pixel does not count, or lies beyond the image.
    const int64_t left = std::max<int64_t>(0, begin - 2 * halo), right = std::min(count, end + 2 * halo);
    const auto read_moments = [&](int row) {
        float* in[kSsimMoments];
        for (int m = 0; m < kSsimMoments; ++m) in[m] = strip.moments.input(m) + halo - begin;
        const size_t bytes = size_t(right - left) * sizeof(float);
        __builtin_memcpy(in[0] + left, images.x + row * count + left, bytes);
        __builtin_memcpy(in[1] + left, images.y + row * count + left, bytes);
        if (images.counts) {
            const float* counts = images.counts + row * count;
            for (int64_t i = left; i < right; ++i) {
                in[0][i] = counts[i] > 0.0f ? in[0][i] : 0.0f;
                in[1][i] *= counts[i];
            }
        }
        for (int64_t i = begin - 2 * halo; i < begin + strip.width + 2 * halo; i += kLanes) {
            const vf x = loadu(in[0] + i), y = loadu(in[1] + i);
            storeu(in[2] + i, fma(x, x, y * y));
            const vf d = x - y;
            storeu(in[3] + i, d * d);
        }
    };
    const auto read_maps = [&](int row) {
        strip.moments.advance(row, read_moments);
        const bool own = row >= first && row < stop;
        vf total = set1(0.0f);
        float* out[3];
        for (int m = 0; m < 3; ++m) out[m] = strip.maps.input(m) - halo;
        strip.moments.filter_columns(row, [&](int64_t i, const vf* m) {
            vf v_mu, v_squares, v_difference;
            const vf value = ssim_value_vjp(m[0], m[1], m[2], m[3], &v_mu, &v_squares, &v_difference);
            const int64_t column = begin - halo + i;
            const vi inside = between(column, 0, count);
            storeu(out[0] + i, masked(inside, v_mu));
            storeu(out[1] + i, masked(inside, v_squares));
            storeu(out[2] + i, masked(inside, v_difference));
            if (own) total += masked(between(column, begin, end), value);
        });
        if (own) loss[row * loss_stride + 1] = double(sum_lanes(total));
    };
    for (int row = first; row < stop; ++row) {
        strip.maps.advance(row, read_maps);
        vf l1 = set1(0.0f);
        const float *x = images.x + row * count + begin, *y = images.y + row * count + begin;
        const float* counts = images.counts ? images.counts + row * count + begin : nullptr;
        float* out = v_x + row * count + begin;
        strip.maps.filter_columns(row, [&](int64_t i, const vf* m) {
            const int64_t left = end - begin - i;
            if (left <= 0) return;
            vf p = load_part(x + i, left), q = load_part(y + i, left), c = set1(1.0f);
            if (counts) {
                c = load_part(counts + i, left);
                p = masked(c > 0.0f, p), q = q * c;
            }
            const vf v_ssim = m[0] + 2.0f * (p * m[1] + (p - q) * m[2]);
            const vf sign = select(p > q, set1(l1_scale), select(p < q, set1(-l1_scale), set1(0.0f)));
            l1 += vabs(p - q);
            store_part(out + i, left, c * fma(set1(ssim_scale), v_ssim, sign));
        });
        loss[row * loss_stride] = double(sum_lanes(l1));
    }
}

static void ssim_loop(const SsimImages& images, float l1_scale, float ssim_scale, float* v_x, double* loss, float* scratch,
                      int threads) {
    const SsimGrid grid(images.width, images.height, threads);
    const int64_t floats = ssim_scratch(grid.strip_width), count = int64_t(images.width) * 3;
    const SsimWindow window = ssim_window();
    parallel_for(int64_t(grid.strips) * grid.bands, 1, threads, [&](int64_t part, int worker) {
        const int64_t strip = part % grid.strips, band = part / grid.strips;
        const int64_t begin = strip * grid.strip_width, end = std::min(count, begin + grid.strip_width);
        const int first = int(images.height * band / grid.bands), stop = int(images.height * (band + 1) / grid.bands);
        float* memory = scratch + worker * floats;
        __builtin_memset(memory, 0, size_t(floats) * sizeof(float));
        SsimStrip rings(window, images.height, grid.strip_width, memory);
        ssim_strip(images, rings, first, stop, begin, end, l1_scale, ssim_scale, v_x, loss + 2 * strip, 2 * grid.strips);
    });
}

}  // namespace SPLAT_LEVEL
}  // namespace splat
