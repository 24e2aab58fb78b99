// Blending front to back: a block draws a tile, its Gaussians come through shared memory batch by batch.
#pragma once

#include <cstddef>

#include "frame.h"
#include "warp.h"

namespace splat {

// The part of a record that a pixel needs, as three loads of 16 bytes.
struct Splat {
    float4 place;  // x, y, qa, shear
    float4 reach;  // qd, log2_opacity, half_x, half_y
    float4 color;  // r, g, b, depth
};
static_assert(offsetof(Record, qd) == 16 && offsetof(Record, r) == 32 && offsetof(Record, reach) == 48, "a splat is the head of a record");

__device__ __forceinline__ void load_splat(const Record& record, Splat& s) {
    const float4* head = reinterpret_cast<const float4*>(&record);
    s.place = head[0], s.reach = head[1], s.color = head[2];
}

// The Gaussian of an entry.
__device__ __forceinline__ uint32_t gaussian_of(const Frame& f, uint32_t entry) {
    return f.slot_gaussian ? f.slot_gaussian[entry] : entry;
}

__device__ __forceinline__ float log2_alpha_at(const Splat& s, float px, float py) {
    return log2_alpha(px - s.place.x, py - s.place.y, s.place.z, s.place.w, s.reach.x, s.reach.y);
}

// A tile's pixels are shared out among its warps in rectangles: kPerLane pixels to a lane, one below the other, 8 lanes wide and 4
// high. Two pixels to a lane halve the loads of a Gaussian and the tests of the loop.
template <int kPerLane>
struct Patch {
    static constexpr int kThreads = kTilePixels / kPerLane;
    static constexpr int kWarps = kThreads / kWarp;
    static constexpr int kWide = 8, kHigh = 4 * kPerLane;

    int left, top;  // px, of the warp's rectangle
    int x, y[kPerLane];
    bool inside[kPerLane];

    __device__ __forceinline__ Patch(const Frame& f) {
        const int tile = int(blockIdx.x), warp = int(threadIdx.x) / kWarp, lane = int(threadIdx.x) % kWarp;
        left = (tile % f.tiles_x) * kTile + (warp % 2) * kWide;
        top = (tile / f.tiles_x) * kTile + (warp / 2) * kHigh;
        x = left + lane % kWide;
        for (int k = 0; k < kPerLane; ++k) {
            y[k] = top + lane / kWide + 4 * k;
            inside[k] = x < f.width && y[k] < f.height;
        }
    }
    __device__ __forceinline__ int64_t pixel(const Frame& f, int k) const { return int64_t(y[k]) * f.width + x; }
    // Does the box in which alpha reaches 1/255 meet the pixel centres of the rectangle? Widened as in tiles.h.
    __device__ __forceinline__ bool meets(const Splat& s) const {
        constexpr float kHalfWide = 0.5f * (kWide - 1) + kBoundSlack, kHalfHigh = 0.5f * (kHigh - 1) + kBoundSlack;
        const float dx = s.place.x - (float(left) + 0.5f * kWide), dy = s.place.y - (float(top) + 0.5f * kHigh);
        return fabsf(dx) <= s.reach.z + kHalfWide && fabsf(dy) <= s.reach.w + kHalfHigh;
    }
};

// One pixel on its way through the tile's list.
template <bool kDepth>
struct Pixel {
    float T = 1.0f, r = 0.0f, g = 0.0f, b = 0.0f, z = 0.0f, w = 0.0f;
    int stop;
    bool live;

    __device__ __forceinline__ void begin(bool inside) {
        live = inside;
        stop = kNeverStops;
    }
    // Blends the splat at this position of the list; returns its weight.
    __device__ __forceinline__ float blend(const Splat& s, float px, float py, int position) {
        const float power = log2_alpha_at(s, px, py);
        if (!live || !(power >= float(kLog2AlphaMin))) return 0.0f;
        const float alpha = fminf(fast_exp2(power), kAlphaMax), next = fmaf(-alpha, T, T);
        if (!(next > kTransmittanceMin)) {
            live = false, stop = position;
            return 0.0f;
        }
        const float weight = alpha * T;
        r = fmaf(weight, s.color.x, r), g = fmaf(weight, s.color.y, g), b = fmaf(weight, s.color.z, b);
        if (kDepth) z = fmaf(weight, s.color.w, z), w += weight;
        T = next;
        return weight;
    }
    __device__ __forceinline__ void store(const Frame& f, const View& view, const splat_image& image, int64_t pixel) const {
        image.rgb[3 * pixel] = r + T * view.background[0];
        image.rgb[3 * pixel + 1] = g + T * view.background[1];
        image.rgb[3 * pixel + 2] = b + T * view.background[2];
        image.alpha[pixel] = 1.0f - T;
        f.pixel_T[pixel] = T;
        f.pixel_stop[pixel] = stop;
        if (kDepth) image.depth[pixel] = f.pixel_depth[pixel] = w > 0.0f ? z / w : 0.0f, f.pixel_weight[pixel] = w;
    }
};

// Adds what a tile blended of a Gaussian to its blend weight, or keeps it in the pair's slot for a sum in a fixed order.
__device__ __forceinline__ void add_weight(float* blend_weight, float* slot_weight, uint32_t entry, float weight) {
    if (slot_weight)
        slot_weight[entry] = weight;
    else if (weight != 0.0f)
        atomicAdd(blend_weight + entry, weight);
}

// The first version: a thread to a pixel, every thread looks at every Gaussian of the tile.
template <bool kDepth, bool kWeight>
__global__ void __launch_bounds__(kTilePixels) blend_plain_kernel(Frame f, View view, splat_image image, float* blend_weight,
                                                                  float* slot_weight) {
    constexpr int kBatch = 64, kWarps = kTilePixels / kWarp;
    struct Shared {
        Splat splat[kBatch];
        uint32_t entry[kBatch];
        float weight[kWeight ? kBatch : 1][kWarps];
    };
    SPLAT_SHARED(Shared, shared);
    const int tile = int(blockIdx.x), thread = int(threadIdx.x);
    const int x = (tile % f.tiles_x) * kTile + thread % kTile, y = (tile / f.tiles_x) * kTile + thread / kTile;
    const bool inside = x < f.width && y < f.height;
    const uint32_t begin = f.tile_begin[tile], end = f.tile_begin[tile + 1];
    Pixel<kDepth> pixel;
    pixel.begin(inside);
    for (uint32_t first = begin; first < end; first += kBatch) {
        if (__syncthreads_and(!pixel.live)) break;
        const int count = end - first < kBatch ? int(end - first) : kBatch;
        if (thread < count) {
            shared.entry[thread] = f.entries[first + thread];
            load_splat(f.records[gaussian_of(f, shared.entry[thread])], shared.splat[thread]);
        }
        __syncthreads();
        for (int j = 0; j < count; ++j) {
            const float weight = pixel.blend(shared.splat[j], float(x) + 0.5f, float(y) + 0.5f, int(first - begin) + j);
            if (kWeight) {
                const float sum = warp_sum(weight);
                if (thread % kWarp == 0) shared.weight[j][thread / kWarp] = sum;
            }
        }
        if (kWeight) {
            __syncthreads();
            if (thread < count) {
                float sum = 0.0f;
                for (int w = 0; w < kWarps; ++w) sum += shared.weight[thread][w];
                add_weight(blend_weight, slot_weight, shared.entry[thread], sum);
            }
        }
    }
    if (inside) pixel.store(f, view, image, int64_t(y) * f.width + x);
}

// The one that is meant to be fast. A warp draws a rectangle of the tile and first asks, one Gaussian to a lane, which of them
// reach it: only those are evaluated, all lanes together. What it assumes: Gaussians that are small beside a tile, of which a
// rectangle meets a part; and fast exponentials, or two pixels to a lane do not fit into the registers.
template <bool kDepth, bool kWeight, int kPerLane>
__global__ void __launch_bounds__(kTilePixels / kPerLane) blend_kernel(Frame f, View view, splat_image image, float* blend_weight,
                                                                       float* slot_weight) {
    using Area = Patch<kPerLane>;
    constexpr int kBatch = Area::kThreads;
    struct Shared {
        Splat splat[kBatch];
        uint32_t entry[kBatch];
        float weight[kWeight ? kBatch : 1][Area::kWarps];
    };
    SPLAT_SHARED(Shared, shared);
    const Area patch(f);
    const int tile = int(blockIdx.x), thread = int(threadIdx.x), lane = thread % kWarp, warp = thread / kWarp;
    const uint32_t begin = f.tile_begin[tile], end = f.tile_begin[tile + 1];
    Pixel<kDepth> pixel[kPerLane];
#pragma unroll
    for (int k = 0; k < kPerLane; ++k) pixel[k].begin(patch.inside[k]);
    const float px = float(patch.x) + 0.5f;
    const auto live = [&] {
        bool any = false;
        for (int k = 0; k < kPerLane; ++k) any |= pixel[k].live;
        return any;
    };
    for (uint32_t first = begin; first < end; first += kBatch) {
        if (__syncthreads_and(!live())) break;
        const int count = end - first < kBatch ? int(end - first) : kBatch;
        if (thread < count) {
            shared.entry[thread] = f.entries[first + thread];
            load_splat(f.records[gaussian_of(f, shared.entry[thread])], shared.splat[thread]);
        }
        if (kWeight)
            for (int w = 0; w < Area::kWarps; ++w) shared.weight[thread][w] = 0.0f;
        __syncthreads();
        for (int chunk = 0; chunk < count; chunk += kWarp) {
            if (!__any_sync(kAllLanes, live())) break;
            const int mine = chunk + lane;
            unsigned met = __ballot_sync(kAllLanes, mine < count && patch.meets(shared.splat[mine]));
            for (; met; met &= met - 1) {
                const int j = chunk + __ffs(int(met)) - 1;
                const Splat s = shared.splat[j];
                float weight = 0.0f;
#pragma unroll
                for (int k = 0; k < kPerLane; ++k) weight += pixel[k].blend(s, px, float(patch.y[k]) + 0.5f, int(first - begin) + j);
                if (kWeight) {
                    const float sum = warp_sum(weight);
                    if (lane == 0) shared.weight[j][warp] = sum;
                }
            }
        }
        if (kWeight) {
            __syncthreads();
            if (thread < count) {
                float sum = 0.0f;
                for (int w = 0; w < Area::kWarps; ++w) sum += shared.weight[thread][w];
                add_weight(blend_weight, slot_weight, shared.entry[thread], sum);
            }
        }
    }
#pragma unroll
    for (int k = 0; k < kPerLane; ++k)
        if (patch.inside[k]) pixel[k].store(f, view, image, patch.pixel(f, k));
}

// counts [2] grow by the (pixel, Gaussian) pairs that blend_kernel evaluates, and those that are blended.
__global__ void __launch_bounds__(kTilePixels / 2) count_pairs_kernel(Frame f, unsigned long long* counts) {
    using Area = Patch<2>;
    const Area patch(f);
    const int tile = int(blockIdx.x), lane = int(threadIdx.x) % kWarp;
    const uint32_t begin = f.tile_begin[tile], end = f.tile_begin[tile + 1];
    Pixel<false> pixel[2];
    for (int k = 0; k < 2; ++k) pixel[k].begin(patch.inside[k]);
    uint32_t evaluated = 0, blended = 0;
    for (uint32_t at = begin; at < end; ++at) {
        if (!__any_sync(kAllLanes, pixel[0].live || pixel[1].live)) break;
        Splat s;
        load_splat(f.records[gaussian_of(f, f.entries[at])], s);
        if (!patch.meets(s)) continue;  // the same for all lanes
        for (int k = 0; k < 2; ++k) {
            ++evaluated;
            blended += pixel[k].blend(s, float(patch.x) + 0.5f, float(patch.y[k]) + 0.5f, int(at - begin)) > 0.0f;
        }
    }
    const uint32_t all = warp_sum(evaluated), drawn = warp_sum(blended);
    if (lane == 0) {
        atomicAdd(counts, static_cast<unsigned long long>(all));
        atomicAdd(counts + 1, static_cast<unsigned long long>(drawn));
    }
}

// blend_weight [n]: the slots [capacity] of each Gaussian, summed in their order; nothing where the pairs did not fit.
__global__ void __launch_bounds__(256) sum_weights_kernel(Frame f, const float* slot_weight, uint32_t capacity, float* blend_weight) {
    const int64_t i = int64_t(blockIdx.x) * 256 + threadIdx.x;
    if (i >= f.n || f.counted->pairs > capacity) return;
    float sum = 0.0f;
    for (uint32_t s = 0; s < f.pairs[i]; ++s) sum += slot_weight[f.first_slot[i] + s];
    blend_weight[i] = sum;
}

}  // namespace splat
