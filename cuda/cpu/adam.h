// Adam over arrays, a vector at a time.
#pragma once

#include "simd.h"  // before the maths, see there

#include <algorithm>

#include "../include/splat/adam.h"
#include "kernels.h"
#include "parallel.h"

namespace splat {
inline namespace SPLAT_LEVEL {

// Updates `count` numbers. The tail goes through the same vector code, so that no number depends on where it lies.
static inline void adam_span(float* param, const float* grad, float* exp_avg, float* exp_avg_sq, int64_t count,
                             const AdamRates& rates, float step_size) {
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) {
        vf p = loadu(param + i), m = loadu(exp_avg + i), v = loadu(exp_avg_sq + i);
        adam_update(p, loadu(grad + i), m, v, rates.beta1, rates.beta2, rates.eps, step_size, rates.root_correction);
        storeu(param + i, p);
        storeu(exp_avg + i, m);
        storeu(exp_avg_sq + i, v);
    }
    if (i < count) {
        vf p{}, g{}, m{}, v{};
        const size_t bytes = size_t(count - i) * sizeof(float);
        __builtin_memcpy(&p, param + i, bytes);
        __builtin_memcpy(&g, grad + i, bytes);
        __builtin_memcpy(&m, exp_avg + i, bytes);
        __builtin_memcpy(&v, exp_avg_sq + i, bytes);
        adam_update(p, g, m, v, rates.beta1, rates.beta2, rates.eps, step_size, rates.root_correction);
        __builtin_memcpy(param + i, &p, bytes);
        __builtin_memcpy(exp_avg + i, &m, bytes);
        __builtin_memcpy(exp_avg_sq + i, &v, bytes);
    }
}

static void adam_loop(float* param, const float* grad, float* exp_avg, float* exp_avg_sq, int64_t count,
                      const AdamRates& rates, float step_size, int threads) {
    constexpr int64_t kBlock = 8192;
    parallel_for((count + kBlock - 1) / kBlock, 4, threads, [&](int64_t block, int) {
        const int64_t i = block * kBlock;
        adam_span(param + i, grad + i, exp_avg + i, exp_avg_sq + i, std::min(kBlock, count - i), rates, step_size);
    });
}

// Updates the Gaussians [first, stop) from their gradients, which lie in `grads` from row 0 on; touched says which of them
// have one.
static inline void adam_rows(const AdamStep& adam, const FieldGradients& grads, int64_t first, int64_t stop,
                             const bool* touched) {
    for (int field = 0; field < kFields; ++field) {
        const int64_t width = adam.width[field], active = adam.active[field];
        const auto span = [&](int64_t row, int64_t count) {
            const int64_t o = (first + row) * width;
            adam_span(adam.param[field] + o, grads.field[field] + row * width, adam.exp_avg[field] + o,
                      adam.exp_avg_sq[field] + o, count, adam.rates, adam.step_size[field]);
        };
        const int64_t rows = stop - first;
        if (active == 0) continue;
        if (active == width && !adam.only_touched) {
            span(0, rows * width);
            continue;
        }
        for (int64_t row = 0; row < rows;) {
            if (adam.only_touched && !touched[row]) {
                ++row;
                continue;
            }
            int64_t next = row + 1;  // neighbours that are updated completely are one span
            if (active == width)
                while (next < rows && touched[next]) ++next;
            span(row, active == width ? (next - row) * width : active);
            row = next;
        }
    }
}

}  // namespace SPLAT_LEVEL
}  // namespace splat
