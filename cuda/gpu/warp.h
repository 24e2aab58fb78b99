// Sums over the lanes of a warp and the warps of a block, in an order that is always the same.
#pragma once

#include "platform.h"

namespace splat {

// The sum over the warp, in every lane.
template <class T>
__device__ __forceinline__ T warp_sum(T value) {
    for (int bits = kWarp / 2; bits > 0; bits /= 2) value += __shfl_xor_sync(kAllLanes, value, bits);
    return value;
}

__device__ __forceinline__ int warp_max(int value) {
    for (int bits = kWarp / 2; bits > 0; bits /= 2) {
        const int other = __shfl_xor_sync(kAllLanes, value, bits);
        value = other > value ? other : value;
    }
    return value;
}

// The inclusive prefix sum over the lanes.
__device__ __forceinline__ uint32_t warp_scan(uint32_t value, int lane) {
    for (int by = 1; by < kWarp; by *= 2) {
        const uint32_t below = __shfl_up_sync(kAllLanes, value, unsigned(by));
        if (lane >= by) value += below;
    }
    return value;
}

constexpr int kSummed = 12;

// Which of the sums of warp_sum12 the lane holds; kSummed where it holds none.
__device__ __forceinline__ int summed_index(int lane) {
    const int in_three = (lane & 4 ? 2 : 0) + (lane & 2 ? 1 : 0);
    return (lane & 1) || in_three == 3 ? kSummed : (lane & 16 ? 6 : 0) + (lane & 8 ? 3 : 0) + in_three;
}

// Twelve sums over the warp at once, each of which ends in two lanes (see summed_index). In each step a lane gives away half of
// what it holds and adds what it gets to the other half: 13 shuffles, where twelve sums by themselves take 60.
__device__ __forceinline__ float warp_sum12(float (&v)[kSummed], int lane) {
    const bool upper16 = lane & 16, upper8 = lane & 8, upper4 = lane & 4, upper2 = lane & 2;
#pragma unroll
    for (int i = 0; i < 6; ++i) {
        const float given = __shfl_xor_sync(kAllLanes, upper16 ? v[i] : v[i + 6], 16);
        v[i] = (upper16 ? v[i + 6] : v[i]) + given;
    }
#pragma unroll
    for (int i = 0; i < 3; ++i) {
        const float given = __shfl_xor_sync(kAllLanes, upper8 ? v[i] : v[i + 3], 8);
        v[i] = (upper8 ? v[i + 3] : v[i]) + given;
    }
    // Three are left: the upper lanes keep the third.
    const float first = __shfl_xor_sync(kAllLanes, upper4 ? v[0] : v[2], 4);
    const float second = __shfl_xor_sync(kAllLanes, upper4 ? v[1] : 0.0f, 4);
    v[0] = (upper4 ? v[2] : v[0]) + first;
    v[1] = upper4 ? 0.0f : v[1] + second;
    const float last = __shfl_xor_sync(kAllLanes, upper2 ? v[0] : v[1], 2);
    v[0] = (upper2 ? v[1] : v[0]) + last;
    return v[0] + __shfl_xor_sync(kAllLanes, v[0], 1);
}

// The sum over a block of kWarps warps, in thread 0; `parts` [kWarps] is shared memory that nobody else uses.
template <int kWarps, class T>
__device__ __forceinline__ T block_sum(T value, T* parts) {
    value = warp_sum(value);
    const int warp = int(threadIdx.x) / kWarp;
    __syncthreads();
    if (threadIdx.x % kWarp == 0) parts[warp] = value;
    __syncthreads();
    T sum = T(0);
    if (threadIdx.x == 0)
        for (int w = 0; w < kWarps; ++w) sum += parts[w];
    return sum;
}

}  // namespace splat
