// L1 + SSIM of two images [h, w, 3] and the gradient w.r.t. the first, in two passes: the moments are filtered to SSIM and its
// partial derivatives, and these are filtered again to the gradient (the filter is symmetric and pads with zeros, so it is its
// own transpose).
#pragma once

#include "../include/splat/ssim.h"
#include "platform.h"
#include "warp.h"

namespace splat {

constexpr int kLossWide = 32, kLossHigh = 16;  // px of the part of the image that a block does
constexpr int kLossThreads = 256;
constexpr int kMoments = 4, kMaps = 3;

struct LossImages {
    const float *x, *y, *counts;
    int width, height;
};

// x and y at a pixel and channel as the loss sees them: 0 beyond the image and where the pixel does not count.
__device__ __forceinline__ bool read_pixel(const LossImages& images, int x, int y, int channel, float* a, float* b) {
    *a = *b = 0.0f;
    if (x < 0 || y < 0 || x >= images.width || y >= images.height) return false;
    const int64_t at = 3 * (int64_t(y) * images.width + x) + channel;
    const float counts = images.counts ? images.counts[at] : 1.0f;
    *a = counts > 0.0f ? images.x[at] : 0.0f;
    *b = images.y[at] * counts;
    return true;
}

__device__ __forceinline__ float tap_at(const SsimWindow& window, int offset) { return window.tap[offset < 0 ? -offset : offset]; }

// The gradient at a pixel and channel from the filtered maps, and |x - y| there.
__device__ __forceinline__ float loss_gradient(const LossImages& images, int64_t at, const float* filtered, float l1_scale, float ssim_scale,
                                               float* error) {
    const float counts = images.counts ? images.counts[at] : 1.0f;
    const float p = counts > 0.0f ? images.x[at] : 0.0f, q = images.y[at] * counts;
    const float v_ssim = filtered[0] + 2.0f * (p * filtered[1] + (p - q) * filtered[2]);
    const float sign = p > q ? l1_scale : (p < q ? -l1_scale : 0.0f);
    *error = fabsf(p - q);
    return counts * fmaf(ssim_scale, v_ssim, sign);
}

// The first version: a thread to a pixel and channel, 121 taps. maps [kMaps, h, w, 3]; parts [blocks]: sums of ssim.
__global__ void __launch_bounds__(kLossThreads) loss_maps_plain_kernel(LossImages images, SsimWindow window, float* maps, double* parts) {
    struct Shared {
        double part[kLossThreads / kWarp];
    };
    SPLAT_SHARED(Shared, shared);
    const int64_t count = 3 * int64_t(images.width) * images.height, at = int64_t(blockIdx.x) * kLossThreads + threadIdx.x;
    double ssim = 0.0;
    if (at < count) {
        const int channel = int(at % 3), x = int(at / 3 % images.width), y = int(at / 3 / images.width);
        float m[kMoments] = {};
        for (int dy = -kSsimRadius; dy <= kSsimRadius; ++dy)
            for (int dx = -kSsimRadius; dx <= kSsimRadius; ++dx) {
                float a, b;
                read_pixel(images, x + dx, y + dy, channel, &a, &b);
                const float tap = tap_at(window, dx) * tap_at(window, dy), d = a - b;
                m[0] += tap * a, m[1] += tap * b, m[2] += tap * (a * a + b * b), m[3] += tap * (d * d);
            }
        float v[kMaps];
        ssim = double(ssim_value_vjp(m[0], m[1], m[2], m[3], &v[0], &v[1], &v[2]));
        for (int k = 0; k < kMaps; ++k) maps[k * count + at] = v[k];
    }
    ssim = block_sum<kLossThreads / kWarp>(ssim, shared.part);
    if (threadIdx.x == 0) parts[blockIdx.x] = ssim;
}

// v_x from the maps; parts [blocks]: sums of |x - y|.
__global__ void __launch_bounds__(kLossThreads)
    loss_gradient_plain_kernel(LossImages images, SsimWindow window, const float* maps, float l1_scale, float ssim_scale, float* v_x, double* parts) {
    struct Shared {
        double part[kLossThreads / kWarp];
    };
    SPLAT_SHARED(Shared, shared);
    const int64_t count = 3 * int64_t(images.width) * images.height, at = int64_t(blockIdx.x) * kLossThreads + threadIdx.x;
    float error = 0.0f;
    if (at < count) {
        const int channel = int(at % 3), x = int(at / 3 % images.width), y = int(at / 3 / images.width);
        float filtered[kMaps] = {};
        for (int dy = -kSsimRadius; dy <= kSsimRadius; ++dy)
            for (int dx = -kSsimRadius; dx <= kSsimRadius; ++dx) {
                if (x + dx < 0 || y + dy < 0 || x + dx >= images.width || y + dy >= images.height) continue;
                const float tap = tap_at(window, dx) * tap_at(window, dy);
                const int64_t from = 3 * (int64_t(y + dy) * images.width + x + dx) + channel;
                for (int k = 0; k < kMaps; ++k) filtered[k] += tap * maps[k * count + from];
            }
        v_x[at] = loss_gradient(images, at, filtered, l1_scale, ssim_scale, &error);
    }
    const double sum = block_sum<kLossThreads / kWarp>(double(error), shared.part);
    if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

// What a block of the separable filters has in shared memory: rows of one channel with their surroundings, and the same filtered
// along the rows.
template <int kInputs, int kOutputs>
struct FilterTile {
    static constexpr int kRows = kLossHigh + 2 * kSsimRadius, kColumns = kLossWide + 2 * kSsimRadius;
    float in[kInputs][kRows][kColumns + 1];
    float along[kOutputs][kRows][kLossWide];
};

// The separable ones: 22 taps a pixel instead of 121, from shared memory. One block, one part of the image, channel by channel.
__global__ void __launch_bounds__(kLossThreads) loss_maps_kernel(LossImages images, SsimWindow window, int blocks_x, float* maps, double* parts) {
    using Tile = FilterTile<2, kMoments>;
    struct Shared {
        Tile tile;
        double part[kLossThreads / kWarp];
    };
    SPLAT_SHARED(Shared, shared);
    Tile& s = shared.tile;
    const int left = (int(blockIdx.x) % blocks_x) * kLossWide, top = (int(blockIdx.x) / blocks_x) * kLossHigh, thread = int(threadIdx.x);
    const int64_t count = 3 * int64_t(images.width) * images.height;
    float ssim = 0.0f;  // of a few pixels
    for (int channel = 0; channel < 3; ++channel) {
        __syncthreads();
        for (int e = thread; e < Tile::kRows * Tile::kColumns; e += kLossThreads) {
            const int row = e / Tile::kColumns, column = e - row * Tile::kColumns;
            read_pixel(images, left + column - kSsimRadius, top + row - kSsimRadius, channel, &s.in[0][row][column], &s.in[1][row][column]);
        }
        __syncthreads();
        for (int e = thread; e < Tile::kRows * kLossWide; e += kLossThreads) {
            const int row = e / kLossWide, column = e - row * kLossWide;
            float m[kMoments] = {};
#pragma unroll
            for (int t = 0; t < kTaps; ++t) {
                const float a = s.in[0][row][column + t], b = s.in[1][row][column + t], d = a - b, tap = tap_at(window, t - kSsimRadius);
                m[0] = fmaf(tap, a, m[0]), m[1] = fmaf(tap, b, m[1]);
                m[2] = fmaf(tap, fmaf(a, a, b * b), m[2]), m[3] = fmaf(tap, d * d, m[3]);
            }
            for (int k = 0; k < kMoments; ++k) s.along[k][row][column] = m[k];
        }
        __syncthreads();
        for (int e = thread; e < kLossHigh * kLossWide; e += kLossThreads) {
            const int row = e / kLossWide, column = e - row * kLossWide, x = left + column, y = top + row;
            if (x >= images.width || y >= images.height) continue;
            float m[kMoments] = {}, v[kMaps];
#pragma unroll
            for (int t = 0; t < kTaps; ++t) {
                const float tap = tap_at(window, t - kSsimRadius);
                for (int k = 0; k < kMoments; ++k) m[k] = fmaf(tap, s.along[k][row + t][column], m[k]);
            }
            ssim += ssim_value_vjp(m[0], m[1], m[2], m[3], &v[0], &v[1], &v[2]);
            const int64_t at = 3 * (int64_t(y) * images.width + x) + channel;
            for (int k = 0; k < kMaps; ++k) maps[k * count + at] = v[k];
        }
    }
    const double sum = block_sum<kLossThreads / kWarp>(double(ssim), shared.part);
    if (thread == 0) parts[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(kLossThreads) loss_gradient_kernel(LossImages images, SsimWindow window, int blocks_x, const float* maps,
                                                                     float l1_scale, float ssim_scale, float* v_x, double* parts) {
    using Tile = FilterTile<kMaps, kMaps>;
    struct Shared {
        Tile tile;
        double part[kLossThreads / kWarp];
    };
    SPLAT_SHARED(Shared, shared);
    Tile& s = shared.tile;
    const int left = (int(blockIdx.x) % blocks_x) * kLossWide, top = (int(blockIdx.x) / blocks_x) * kLossHigh, thread = int(threadIdx.x);
    const int64_t count = 3 * int64_t(images.width) * images.height;
    float errors = 0.0f;
    for (int channel = 0; channel < 3; ++channel) {
        __syncthreads();
        for (int e = thread; e < Tile::kRows * Tile::kColumns; e += kLossThreads) {
            const int row = e / Tile::kColumns, column = e - row * Tile::kColumns;
            const int x = left + column - kSsimRadius, y = top + row - kSsimRadius;
            const bool inside = x >= 0 && y >= 0 && x < images.width && y < images.height;
            const int64_t at = 3 * (int64_t(y) * images.width + x) + channel;
            for (int k = 0; k < kMaps; ++k) s.in[k][row][column] = inside ? maps[k * count + at] : 0.0f;
        }
        __syncthreads();
        for (int e = thread; e < Tile::kRows * kLossWide; e += kLossThreads) {
            const int row = e / kLossWide, column = e - row * kLossWide;
            float m[kMaps] = {};
#pragma unroll
            for (int t = 0; t < kTaps; ++t) {
                const float tap = tap_at(window, t - kSsimRadius);
                for (int k = 0; k < kMaps; ++k) m[k] = fmaf(tap, s.in[k][row][column + t], m[k]);
            }
            for (int k = 0; k < kMaps; ++k) s.along[k][row][column] = m[k];
        }
        __syncthreads();
        for (int e = thread; e < kLossHigh * kLossWide; e += kLossThreads) {
            const int row = e / kLossWide, column = e - row * kLossWide, x = left + column, y = top + row;
            if (x >= images.width || y >= images.height) continue;
            float filtered[kMaps] = {}, error;
#pragma unroll
            for (int t = 0; t < kTaps; ++t) {
                const float tap = tap_at(window, t - kSsimRadius);
                for (int k = 0; k < kMaps; ++k) filtered[k] = fmaf(tap, s.along[k][row + t][column], filtered[k]);
            }
            const int64_t at = 3 * (int64_t(y) * images.width + x) + channel;
            v_x[at] = loss_gradient(images, at, filtered, l1_scale, ssim_scale, &error);
            errors += error;
        }
    }
    const double sum = block_sum<kLossThreads / kWarp>(double(errors), shared.part);
    if (thread == 0) parts[blockIdx.x] = sum;
}

// loss [3] = loss, mean |x - y|, mean ssim, from the parts of the blocks, in a fixed order.
__global__ void __launch_bounds__(kLossThreads) loss_sum_kernel(const double* ssim_parts, const double* l1_parts, int64_t blocks, double count,
                                                                float ssim_weight, float* loss) {
    struct Shared {
        double part[kLossThreads / kWarp];
    };
    SPLAT_SHARED(Shared, shared);
    double ssim = 0.0, l1 = 0.0;
    for (int64_t b = threadIdx.x; b < blocks; b += kLossThreads) ssim += ssim_parts[b], l1 += l1_parts[b];
    ssim = block_sum<kLossThreads / kWarp>(ssim, shared.part) / count;
    l1 = block_sum<kLossThreads / kWarp>(l1, shared.part) / count;
    if (threadIdx.x == 0) {
        const double w = double(ssim_weight);
        loss[0] = float((1.0 - w) * l1 + w * (1.0 - ssim));
        loss[1] = float(l1), loss[2] = float(ssim);
    }
}

}  // namespace splat
