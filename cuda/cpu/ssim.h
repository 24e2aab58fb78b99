// L1 + SSIM of two images and the gradient w.r.t. the first: separable 11-tap filters over interleaved RGB rows.
//
// Pass 1 walks down the image with a ring of the last 11 horizontally filtered rows of the five moments, and writes the
// three partial-derivative maps. Pass 2 filters the maps in the same way (the filter is symmetric and pads with zeros, so
// it is its own transpose) and assembles the gradient. A row's result does not depend on how rows are shared out.
#pragma once

#include "simd.h"  // before the maths, see there

#include "../include/splat/ssim.h"
#include "kernels.h"

namespace splat {
inline namespace SPLAT_LEVEL {

constexpr int kTaps = 2 * kSsimRadius + 1;

struct SsimWindow {
    float tap[kSsimRadius + 1];  // tap[d] at distance d, normalised to sum 1 over the window

    SsimWindow() {
        double weight[kSsimRadius + 1], sum = 0.0;
        for (int d = 0; d <= kSsimRadius; ++d) {
            weight[d] = __builtin_exp(-0.5 * d * d / (kSsimSigma * kSsimSigma));
            sum += d ? 2.0 * weight[d] : weight[d];
        }
        for (int d = 0; d <= kSsimRadius; ++d) tap[d] = float(weight[d] / sum);
    }
};

// out[i] = sum_d tap[d] in[i + 3 d]: neighbours in a row of interleaved RGB are 3 floats apart.
static inline void filter_row(const SsimWindow& window, const float* in, float* out, int64_t stride) {
    vf tap[kSsimRadius + 1];
    for (int d = 0; d <= kSsimRadius; ++d) tap[d] = set1(window.tap[d]);
    for (int64_t i = 0; i < stride; i += kLanes) {
        vf sum = tap[0] * loadu(in + i);
        for (int d = 1; d <= kSsimRadius; ++d) sum = fma(tap[d], loadu(in + i - 3 * d) + loadu(in + i + 3 * d), sum);
        storeu(out + i, sum);
    }
}

// A ring of horizontally filtered rows of kMaps maps.
template <int kMaps>
struct FilteredRows {
    const SsimWindow& window;
    int height;
    int64_t stride;
    float* ring;     // [kTaps, kMaps, stride]
    float* scratch;  // [kMaps, kSsimRowPad + stride + kSsimRowPad]
    float* zeros;    // [stride], a row outside the image
    int next = -1;   // next row to filter

    static int64_t floats(int64_t stride) { return kTaps * kMaps * stride + kMaps * (stride + 2 * kSsimRowPad) + stride; }

    // memory [floats(stride)], all 0.
    FilteredRows(const SsimWindow& window, int height, int64_t stride, float* memory)
        : window(window), height(height), stride(stride), ring(memory), scratch(ring + kTaps * kMaps * stride),
          zeros(scratch + kMaps * (stride + 2 * kSsimRowPad)) {}

    const float* row(int y, int map) const {
        return y < 0 || y >= height ? zeros : ring + (int64_t(y % kTaps) * kMaps + map) * stride;
    }
    float* input(int map) { return scratch + map * (stride + 2 * kSsimRowPad) + kSsimRowPad; }

    // Makes the rows of the window around row y available; source(row) fills the inputs.
    template <class Source>
    void advance(int y, Source&& source) {
        if (next < 0) next = y - kSsimRadius < 0 ? 0 : y - kSsimRadius;
        for (; next <= y + kSsimRadius && next < height; ++next) {
            source(next);
            for (int m = 0; m < kMaps; ++m)
                filter_row(window, input(m), ring + (int64_t(next % kTaps) * kMaps + m) * stride, stride);
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
                columns[m] = tap[0] * loadu(r[0] + i);
                for (int d = 1; d <= kSsimRadius; ++d)
                    columns[m] = fma(tap[d], loadu(r[-d] + i) + loadu(r[d] + i), columns[m]);
            }
            visit(i, columns);
        }
    }
};

// The zeroed memory of one part: rings and inputs of pass 1, or those of pass 2 and three rows.
static inline float* part_scratch(float* scratch, int width, int part) {
    const int64_t stride = ssim_stride(width), floats = ssim_scratch(width);
    const bool fits = FilteredRows<5>::floats(stride) <= floats && FilteredRows<3>::floats(stride) + 3 * stride <= floats;
    if (!fits) __builtin_trap();  // ssim_scratch and the layouts above have come apart
    float* memory = scratch + part * floats;
    __builtin_memset(memory, 0, size_t(floats) * sizeof(float));
    return memory;
}

// Lanes i ... that lie inside a row of `count` floats.
static inline vi inside_row(int64_t i, int64_t count, vf lanes) { return lanes < float(count - i); }

static void ssim_loop(const float* x, const float* y, int width, int height, float* maps, double* loss_rows,
                      float* scratch, int threads) {
    const int64_t count = int64_t(width) * 3, stride = ssim_stride(width), plane = stride * height;
    const SsimWindow window;
    const vf lanes = lane_index();
#pragma omp parallel for schedule(static, 1) num_threads(threads)
    for (int part = 0; part < threads; ++part) {
        const int first = int(int64_t(height) * part / threads), stop = int(int64_t(height) * (part + 1) / threads);
        if (first == stop) continue;
        float* memory = part_scratch(scratch, width, part);
        FilteredRows<5> rows(window, height, stride, memory);
        for (int row = first; row < stop; ++row) {
            rows.advance(row, [&](int r) {
                float *a = rows.input(0), *b = rows.input(1), *aa = rows.input(2), *bb = rows.input(3), *ab = rows.input(4);
                __builtin_memcpy(a, x + r * count, size_t(count) * sizeof(float));
                __builtin_memcpy(b, y + r * count, size_t(count) * sizeof(float));
                for (int64_t i = 0; i < stride; i += kLanes) {
                    const vf p = loadu(a + i), q = loadu(b + i);
                    storeu(aa + i, p * p);
                    storeu(bb + i, q * q);
                    storeu(ab + i, p * q);
                }
            });
            vf l1 = set1(0.0f), total = set1(0.0f);
            rows.filter_columns(row, [&](int64_t i, const vf* m) {
                vf v_mu, v_xx, v_xy;
                const vf value = ssim_value_vjp(m[0], m[1], m[2], m[3], m[4], &v_mu, &v_xx, &v_xy);
                const vi inside = inside_row(i, count, lanes);
                total += masked(inside, value);
                float* out = maps + row * stride + i;
                storeu(out, masked(inside, v_mu));
                storeu(out + plane, masked(inside, v_xx));
                storeu(out + 2 * plane, masked(inside, v_xy));
            });
            for (int64_t i = 0; i + kLanes <= count; i += kLanes)
                l1 += vabs(loadu(x + row * count + i) - loadu(y + row * count + i));
            double l1_row = double(sum_lanes(l1));
            for (int64_t i = count / kLanes * kLanes; i < count; ++i)
                l1_row += double(__builtin_fabsf(x[row * count + i] - y[row * count + i]));
            loss_rows[2 * row] = l1_row;
            loss_rows[2 * row + 1] = double(sum_lanes(total));
        }
    }
}

static void ssim_vjp_loop(const float* x, const float* y, int width, int height, const float* maps, float l1_scale,
                          float ssim_scale, float* v_x, float* scratch, int threads) {
    const int64_t count = int64_t(width) * 3, stride = ssim_stride(width), plane = stride * height;
    const SsimWindow window;
#pragma omp parallel for schedule(static, 1) num_threads(threads)
    for (int part = 0; part < threads; ++part) {
        const int first = int(int64_t(height) * part / threads), stop = int(int64_t(height) * (part + 1) / threads);
        if (first == stop) continue;
        float* memory = part_scratch(scratch, width, part);
        FilteredRows<3> rows(window, height, stride, memory);
        float* a = memory + FilteredRows<3>::floats(stride);  // this row of x, of y and of the result
        float *b = a + stride, *out = b + stride;
        for (int row = first; row < stop; ++row) {
            rows.advance(row, [&](int r) {
                for (int m = 0; m < 3; ++m)
                    __builtin_memcpy(rows.input(m), maps + m * plane + r * stride, size_t(stride) * sizeof(float));
            });
            __builtin_memcpy(a, x + row * count, size_t(count) * sizeof(float));
            __builtin_memcpy(b, y + row * count, size_t(count) * sizeof(float));
            rows.filter_columns(row, [&](int64_t i, const vf* m) {
                const vf p = loadu(a + i), q = loadu(b + i);
                const vf v_ssim = m[0] + 2.0f * p * m[1] + q * m[2];
                const vf sign = select(p > q, set1(l1_scale), select(p < q, set1(-l1_scale), set1(0.0f)));
                storeu(out + i, fma(set1(ssim_scale), v_ssim, sign));
            });
            __builtin_memcpy(v_x + row * count, out, size_t(count) * sizeof(float));
        }
    }
}

}  // namespace SPLAT_LEVEL
}  // namespace splat
