// Blending back to front: gradients of what every pixel saw, summed over the pixels of a tile and handed to each Gaussian.
#pragma once

#include "blend.h"

namespace splat {

// A pixel on its way back through the tile's list.
template <bool kDepth>
struct PixelVjp {
    float T, behind, r, g, b, z = 0.0f, depth = 0.0f;  // r, g, b, z: cotangents of the picture and of the sum of w z
    int stop;

    // Returns the cotangent of the background.
    __device__ __forceinline__ float3 begin(const Frame& f, const View& view, const splat_image_cotangents& v, bool inside, int64_t pixel) {
        T = behind = r = g = b = 0.0f;
        stop = 0;  // sees nothing
        if (!inside) return make_float3(0.0f, 0.0f, 0.0f);
        r = v.rgb[3 * pixel], g = v.rgb[3 * pixel + 1], b = v.rgb[3 * pixel + 2];
        T = f.pixel_T[pixel];
        stop = f.pixel_stop[pixel];
        if (kDepth) {
            // Expected depth = sum w z / sum w, so d(depth)/dw = (z - depth) / sum w and d(depth)/dz = w / sum w.
            const float weight = f.pixel_weight[pixel];
            z = weight > 0.0f ? v.depth[pixel] / weight : 0.0f;
            depth = f.pixel_depth[pixel];
        }
        const float v_T = view.background[0] * r + view.background[1] * g + view.background[2] * b - (v.alpha ? v.alpha[pixel] : 0.0f);
        behind = T * v_T;
        return make_float3(T * r, T * g, T * b);
    }

    // Goes back through the splat at this position: adds its part to `sums`. False where the pixel did not blend it.
    template <bool kAbs>
    __device__ __forceinline__ bool unblend(const Splat& s, float px, float py, int position, float (&sums)[kSumFloats]) {
        const float dx = px - s.place.x, dy = py - s.place.y, shear = s.place.w;
        const float power = log2_alpha(dx, dy, s.place.z, shear, s.reach.x, s.reach.y);
        if (position >= stop || !(power >= float(kLog2AlphaMin))) return false;
        const float raw = fast_exp2(power), alpha = fminf(raw, kAlphaMax), inverse = fast_inverse(1.0f - alpha);
        T *= inverse;
        const float w = alpha * T;
        float v_blend = fmaf(s.color.x, r, fmaf(s.color.y, g, s.color.z * b));
        sums[kSumRgb] = fmaf(w, r, sums[kSumRgb]);
        sums[kSumRgb + 1] = fmaf(w, g, sums[kSumRgb + 1]);
        sums[kSumRgb + 2] = fmaf(w, b, sums[kSumRgb + 2]);
        if (kDepth) {
            v_blend = fmaf(s.color.w - depth, z, v_blend);
            sums[kSumDepth] = fmaf(w, z, sums[kSumDepth]);
        }
        const float v_alpha = blend_vjp(T, v_blend, behind, inverse);
        behind = fmaf(w, v_blend, behind);
        if (raw > kAlphaMax) return true;  // where alpha was clamped nothing flows to its factors
        const float t = alpha * v_alpha, u = fmaf(dy, shear, dx), tu = t * u, ty = t * dy;
        sums[kSumMoments] += t;
        sums[kSumMoments + 1] += tu;
        sums[kSumMoments + 2] += ty;
        sums[kSumMoments + 3] = fmaf(tu, u, sums[kSumMoments + 3]);
        sums[kSumMoments + 4] = fmaf(tu, dy, sums[kSumMoments + 4]);
        sums[kSumMoments + 5] = fmaf(ty, dy, sums[kSumMoments + 5]);
        if (kAbs) {
            const float a = conic_a(s.place.z);
            sums[kSumAbs] += fabsf(a * tu);
            sums[kSumAbs + 1] += fabsf(fmaf(a * shear, tu, inverse_yy(s.reach.x) * ty));
        }
        return true;
    }
};

// Sums of each warp for each Gaussian of a batch, and which of them are there.
template <int kBatch, int kWarps>
struct BatchSums {
    float sum[kWarps][kBatch][kSumFloats];
    unsigned there[kWarps][kBatch / kWarp];

    // Adds the warps in their order and hands the sums on: one slot or one atomic addition for each Gaussian of the tile, four
    // numbers at a time. All threads of the block come by; nothing else may touch the sums between two barriers around it.
    __device__ __forceinline__ void hand_on(const Frame& f, const uint32_t* entry, int count) const {
        constexpr int kParts = kSumFloats / 4;
        for (int e = int(threadIdx.x); e < count * kParts; e += kWarps * kWarp) {
            const int j = e / kParts, part = e - j * kParts;
            float4 total = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
            bool any = false;
            for (int w = 0; w < kWarps; ++w) {
                if (!(there[w][j / kWarp] >> (j % kWarp) & 1)) continue;
                const float* from = sum[w][j] + 4 * part;
                total.x += from[0], total.y += from[1], total.z += from[2], total.w += from[3];
                any = true;
            }
            if (!any) continue;
            if (f.slots) {
                *reinterpret_cast<float4*>(f.slots + int64_t(entry[j]) * kSumFloats + 4 * part) = total;
                if (part == 0) f.slot_blended[entry[j]] = 1;
            } else {
                add4(f.sums + int64_t(entry[j]) * kSumFloats + 4 * part, total);
            }
        }
    }
};

template <int kWarps>
struct BackgroundShared {
    float part[kWarps];
};

template <int kWarps>
__device__ __forceinline__ void store_background(const Frame& f, float3 v, BackgroundShared<kWarps>& shared) {
    if (!f.tile_background) return;
    const float sum[3] = {block_sum<kWarps>(v.x, shared.part), block_sum<kWarps>(v.y, shared.part), block_sum<kWarps>(v.z, shared.part)};
    if (threadIdx.x == 0)
        for (int c = 0; c < 3; ++c) f.tile_background[3 * int64_t(blockIdx.x) + c] = sum[c];
}

// The first version: a thread to a pixel, every thread looks at every Gaussian, and each number is summed by itself.
template <bool kDepth, bool kAbs>
__global__ void __launch_bounds__(kTilePixels) blend_vjp_plain_kernel(Frame f, View view, splat_image_cotangents v_image) {
    constexpr int kBatch = 32, kWarps = kTilePixels / kWarp;
    struct Shared {
        Splat splat[kBatch];
        uint32_t entry[kBatch];
        BatchSums<kBatch, kWarps> sums;
        BackgroundShared<kWarps> background;
    };
    SPLAT_SHARED(Shared, shared);
    const int tile = int(blockIdx.x), thread = int(threadIdx.x), lane = thread % kWarp, warp = thread / kWarp;
    const int x = (tile % f.tiles_x) * kTile + thread % kTile, y = (tile / f.tiles_x) * kTile + thread / kTile;
    const uint32_t begin = f.tile_begin[tile];
    const int length = int(f.tile_begin[tile + 1] - begin);
    PixelVjp<kDepth> pixel;
    const float3 v_background = pixel.begin(f, view, v_image, x < f.width && y < f.height, int64_t(y) * f.width + x);
    store_background(f, v_background, shared.background);
    for (int stop = length; stop > 0; stop -= kBatch) {
        const int first = stop > kBatch ? stop - kBatch : 0, count = stop - first;
        __syncthreads();
        if (thread < count) {
            shared.entry[thread] = f.entries[begin + unsigned(first + thread)];
            load_splat(f.records[gaussian_of(f, shared.entry[thread])], shared.splat[thread]);
        }
        __syncthreads();
        unsigned there = 0;
        for (int j = count - 1; j >= 0; --j) {
            float sums[kSumFloats] = {};
            const bool any = pixel.template unblend<kAbs>(shared.splat[j], float(x) + 0.5f, float(y) + 0.5f, first + j, sums);
            if (!__any_sync(kAllLanes, any)) continue;
            there |= 1u << j;
            for (int c = 0; c < kSumFloats; ++c) {
                const float sum = warp_sum(sums[c]);
                if (lane == 0) shared.sums.sum[warp][j][c] = sum;
            }
        }
        if (lane == 0) shared.sums.there[warp][0] = there;
        __syncthreads();
        shared.sums.hand_on(f, shared.entry, count);
    }
}

// The one that is meant to be fast: the rectangles and the ballot of blend_kernel, twelve sums in 13 shuffles, one addition to
// memory for a tile and Gaussian instead of one for each warp. The walk begins where the last pixel of the tile stopped.
template <bool kDepth, bool kAbs, int kPerLane>
__global__ void __launch_bounds__(kTilePixels / kPerLane) blend_vjp_kernel(Frame f, View view, splat_image_cotangents v_image) {
    using Area = Patch<kPerLane>;
    constexpr int kBatch = 64;
    struct Shared {
        Splat splat[kBatch];
        uint32_t entry[kBatch];
        BatchSums<kBatch, Area::kWarps> sums;
        BackgroundShared<Area::kWarps> background;
        int last[Area::kWarps];
    };
    SPLAT_SHARED(Shared, shared);
    const Area patch(f);
    const int tile = int(blockIdx.x), thread = int(threadIdx.x), lane = thread % kWarp, warp = thread / kWarp;
    const uint32_t begin = f.tile_begin[tile];
    const int length = int(f.tile_begin[tile + 1] - begin);
    PixelVjp<kDepth> pixel[kPerLane];
    float3 v_background = make_float3(0.0f, 0.0f, 0.0f);
    int warp_stop = 0;
#pragma unroll
    for (int k = 0; k < kPerLane; ++k) {
        const float3 v = pixel[k].begin(f, view, v_image, patch.inside[k], patch.pixel(f, k));
        v_background = make_float3(v_background.x + v.x, v_background.y + v.y, v_background.z + v.z);
        warp_stop = pixel[k].stop > warp_stop ? pixel[k].stop : warp_stop;
    }
    store_background(f, v_background, shared.background);
    warp_stop = warp_max(warp_stop);
    warp_stop = warp_stop < length ? warp_stop : length;
    if (lane == 0) shared.last[warp] = warp_stop;
    __syncthreads();
    int tile_stop = 0;
    for (int w = 0; w < Area::kWarps; ++w) tile_stop = shared.last[w] > tile_stop ? shared.last[w] : tile_stop;

    const int summed = summed_index(lane);
    const float px = float(patch.x) + 0.5f;
    for (int stop = tile_stop; stop > 0; stop -= kBatch) {
        const int first = stop > kBatch ? stop - kBatch : 0, count = stop - first;
        __syncthreads();  // the sums of the batch before have been handed on
        if (thread < count) {
            shared.entry[thread] = f.entries[begin + unsigned(first + thread)];
            load_splat(f.records[gaussian_of(f, shared.entry[thread])], shared.splat[thread]);
        }
        __syncthreads();
        for (int chunk = (count - 1) / kWarp * kWarp; chunk >= 0; chunk -= kWarp) {
            const int mine = chunk + lane;
            unsigned met = __ballot_sync(kAllLanes, mine < count && first + mine < warp_stop && patch.meets(shared.splat[mine]));
            unsigned there = 0;
            while (met) {
                const int bit = kWarp - 1 - __clz(int(met)), j = chunk + bit;
                met ^= 1u << bit;
                const Splat s = shared.splat[j];
                float sums[kSumFloats] = {};
                bool any = false;
#pragma unroll
                for (int k = 0; k < kPerLane; ++k)
                    any |= pixel[k].template unblend<kAbs>(s, px, float(patch.y[k]) + 0.5f, first + j, sums);
                if (!__any_sync(kAllLanes, any)) continue;
                there |= 1u << bit;
                const float sum = warp_sum12(sums, lane);
                if (summed < kSumFloats) shared.sums.sum[warp][j][summed] = sum;
            }
            if (lane == 0) shared.sums.there[warp][chunk / kWarp] = there;
        }
        __syncthreads();
        shared.sums.hand_on(f, shared.entry, count);
    }
}

// The partial gradients of the background [tiles, 3], summed in a fixed order by one block.
__global__ void __launch_bounds__(256) background_kernel(Frame f, float* v_background) {
    struct Shared {
        double part[8];
    };
    SPLAT_SHARED(Shared, shared);
    for (int c = 0; c < 3; ++c) {
        double sum = 0.0;
        for (int tile = int(threadIdx.x); tile < tile_count(f); tile += 256) sum += double(f.tile_background[3 * int64_t(tile) + c]);
        sum = block_sum<8>(sum, shared.part);
        if (threadIdx.x == 0) v_background[c] = float(sum);
    }
}

}  // namespace splat
