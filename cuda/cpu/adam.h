// Adam over an array, a vector at a time.
#pragma once

#include "simd.h"  // before the maths, see there

#include "../include/splat/adam.h"
#include "kernels.h"

namespace splat {
inline namespace SPLAT_LEVEL {

static void adam_loop(float* param, const float* grad, float* exp_avg, float* exp_avg_sq, int64_t count, float beta1,
                      float beta2, float eps, float step_size, float root_correction, int threads) {
    constexpr int64_t kBlock = 8192;
    const int64_t blocks = (count + kBlock - 1) / kBlock;
#pragma omp parallel for schedule(static) num_threads(threads) if (blocks > 2)
    for (int64_t block = 0; block < blocks; ++block) {
        const int64_t stop = count < (block + 1) * kBlock ? count : (block + 1) * kBlock;
        int64_t i = block * kBlock;
        for (; i + kLanes <= stop; i += kLanes) {
            vf p = loadu(param + i), m = loadu(exp_avg + i), v = loadu(exp_avg_sq + i);
            adam_update(p, loadu(grad + i), m, v, beta1, beta2, eps, step_size, root_correction);
            storeu(param + i, p);
            storeu(exp_avg + i, m);
            storeu(exp_avg_sq + i, v);
        }
        if (i < stop) {  // the tail goes through the same vector code, so that no number depends on where it lies
            vf part[4] = {};
            float* source[4] = {param + i, const_cast<float*>(grad) + i, exp_avg + i, exp_avg_sq + i};
            const size_t bytes = size_t(stop - i) * sizeof(float);
            for (int j = 0; j < 4; ++j) __builtin_memcpy(&part[j], source[j], bytes);
            adam_update(part[0], part[1], part[2], part[3], beta1, beta2, eps, step_size, root_correction);
            __builtin_memcpy(param + i, &part[0], bytes);
            __builtin_memcpy(exp_avg + i, &part[2], bytes);
            __builtin_memcpy(exp_avg_sq + i, &part[3], bytes);
        }
    }
}

}  // namespace SPLAT_LEVEL
}  // namespace splat
