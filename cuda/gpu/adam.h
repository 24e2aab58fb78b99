// Adam over arrays in device memory.
#pragma once

#include "../include/splat/adam.h"
#include "../include/splat/arguments.h"
#include "platform.h"

namespace splat {

// One Adam step of all Gaussians.
struct AdamStep {
    float* param[kFields];
    float* exp_avg[kFields];
    float* exp_avg_sq[kFields];
    float step_size[kFields];
    AdamRates rates;
    int active_higher;  // coefficients of shN that are updated: behind, gradients and moments are 0 and nothing changes
    bool only_touched;  // leave Gaussians without any gradient as they are, with their moments
};

__device__ __forceinline__ void adam_at(const AdamStep& adam, int field, int64_t at, float grad) {
    const AdamRates& rates = adam.rates;
    adam_update(adam.param[field][at], grad, adam.exp_avg[field][at], adam.exp_avg_sq[field][at], rates.beta1, rates.beta2, rates.eps,
                adam.step_size[field], rates.root_correction);
}

__global__ void __launch_bounds__(256) adam_kernel(float* param, const float* grad, float* exp_avg, float* exp_avg_sq, int64_t count,
                                                   AdamRates rates, float step_size) {
    const int64_t i = int64_t(blockIdx.x) * 256 + threadIdx.x;
    if (i < count)
        adam_update(param[i], grad[i], exp_avg[i], exp_avg_sq[i], rates.beta1, rates.beta2, rates.eps, step_size, rates.root_correction);
}

}  // namespace splat
