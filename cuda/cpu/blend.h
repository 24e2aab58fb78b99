// The two loops that take most of the time: tiles of 16x16 pixels, a list of Gaussians each, front to back and back again.
//
// A tile keeps its pixels in L1 as arrays of vectors, and a vector holds a block of 4 x 1, 4 x 2 or 4 x 4 pixels: a splat
// of a few pixels fills a compact block better than a piece of a row (50k splats at 800x600, 16 lanes: backward 1.15x
// faster). For each Gaussian the intervals of all 16 rows are found at once (one vector square root), which gives a bit mask of the
// vectors that it can reach; only those are evaluated. The forward pass records which of them really blended it, so the
// backward pass evaluates nothing else. A lane that is saturated (or lies outside the image) has a negative transmittance.
#pragma once

#include "simd.h"  // before the maths, see there

#include "../include/splat/blend.h"
#include "kernels.h"
#include "parallel.h"
#include "project.h"

namespace splat {
inline namespace SPLAT_LEVEL {

constexpr int kVectors = kTilePixels / kLanes;      // of a tile: 64, 32 or 16
constexpr int kBlockWidth = 4;                      // px
constexpr int kBlockHeight = kLanes / kBlockWidth;  // px: 1, 2 or 4
constexpr int kColumns = kTile / kBlockWidth;
constexpr int kBlockRows = kTile / kBlockHeight;
static_assert(kVectors <= 64, "a LaneMask has 64 bits");

// Vector v holds the block in column v / kBlockRows, block row v % kBlockRows.
static inline float block_x(int v) { return float(v / kBlockRows * kBlockWidth); }
static inline float block_y(int v) { return float(v % kBlockRows * kBlockHeight); }

// Pixel offsets of the lanes inside a block.
struct BlockLanes {
    vf x, y;
    BlockLanes() {
        for (int i = 0; i < kLanes; ++i) x[i] = float(i % kBlockWidth), y[i] = float(i / kBlockWidth);
    }
};

// The 16 bits of each column say which pixel rows are hit; a block is hit where any of its rows is. Returns bit v for vector v.
static inline LaneMask rows_to_blocks(uint64_t x) {
    if (kBlockHeight == 1) return x;
    if (kBlockHeight == 2) {
        x = (x | x >> 1) & 0x5555555555555555;
        x = (x | x >> 1) & 0x3333333333333333;
        x = (x | x >> 2) & 0x0f0f0f0f0f0f0f0f;
        x = (x | x >> 4) & 0x00ff00ff00ff00ff;
        x = (x | x >> 8) & 0x0000ffff0000ffff;
        return (x | x >> 16) & 0xffffffff;
    }
    x = x | x >> 1;
    x = (x | x >> 2) & 0x1111111111111111;
    x = (x | x >> 3) & 0x0303030303030303;
    x = (x | x >> 6) & 0x000f000f000f000f;
    x = (x | x >> 12) & 0x000000ff000000ff;
    return (x | x >> 24) & 0xffff;
}

// Bit v is set where vector v has a pixel row whose interval inside the Gaussian's ellipse (plus the rounding allowance)
// holds a pixel centre of the block.
static inline LaneMask reached_vectors(const Record& g, float tile_x, float tile_y, vf lanes) {
    uint64_t hits = 0;
    for (int r = 0; r < kTile; r += kLanes) {
        const vf dy = lanes + (float(r) + 0.5f + tile_y - g.y);
        const vf square_half = fma(g.drop * dy, -dy, set1(g.reach));
        const vi meets = square_half >= 0.0f;
        const vf half = sqrt(vmax(square_half, set1(0.0f))) + kBoundSlack;
        const vf middle = (g.x - tile_x) - g.shear * dy;
        const vf left = middle - half, right = middle + half;
        for (int c = 0; c < kColumns; ++c) {
            const float first = float(c * kBlockWidth) + 0.5f;
            const vi hit = meets & (left <= first + float(kBlockWidth - 1)) & (right >= first);
            hits |= uint64_t(movemask(hit)) << (c * kTile + r);
        }
    }
    return rows_to_blocks(hits);
}

// log2 of alpha in vector v, and its offsets from the mean.
static inline vf block_power(const Record& g, float dx0, float dy0, int v, const BlockLanes& lanes, vf* dx, vf* dy) {
    *dx = lanes.x + (dx0 + block_x(v));
    *dy = lanes.y + (dy0 + block_y(v));
    return log2_alpha(*dx, *dy, set1(g.qa), set1(g.shear), set1(g.qd), set1(g.log2_opacity));
}

// Pixel (x, y) of the image ↔ float `lane` of the tile's arrays.
template <class F>
static inline void for_tile_pixels(const Frame& frame, int tile, F&& visit) {
    const int x0 = (tile % frame.tiles_x) * kTile, y0 = (tile / frame.tiles_x) * kTile;
    const int rows = frame.height - y0 < kTile ? frame.height - y0 : kTile;
    const int columns = frame.width - x0 < kTile ? frame.width - x0 : kTile;
    for (int r = 0; r < rows; ++r)
        for (int c = 0; c < columns; ++c) {
            const int v = c / kBlockWidth * kBlockRows + r / kBlockHeight;
            visit(v * kLanes + r % kBlockHeight * kBlockWidth + c % kBlockWidth, int64_t(y0 + r) * frame.width + x0 + c);
        }
}

// With kCount nothing is drawn: counts [2] grows by the (pixel, Gaussian) pairs that are evaluated and those that are blended.
template <bool kDepth, bool kWeight, bool kCount = false>
static void blend_tile(const splat_view& view, Frame& frame, splat_image& image, int tile, int64_t* counts = nullptr) {
    alignas(64) float T[kTilePixels], R[kTilePixels] = {}, G[kTilePixels] = {}, B[kTilePixels] = {};
    alignas(64) float Z[kDepth ? kTilePixels : kLanes] = {}, W[kDepth ? kTilePixels : kLanes] = {};
    int32_t* last = frame.tile_last + int64_t(tile) * kTilePixels;
    for (int i = 0; i < kTilePixels; ++i) T[i] = -1.0f, last[i] = -1;
    for_tile_pixels(frame, tile, [&](int lane, int64_t) { T[lane] = 1.0f; });
    LaneMask alive = 0;
    for (int v = 0; v < kVectors; ++v) alive |= LaneMask(movemask(load(T + v * kLanes) > 0.0f) != 0) << v;

    const float tile_x = float((tile % frame.tiles_x) * kTile), tile_y = float((tile / frame.tiles_x) * kTile);
    const vf row_lanes = lane_index();
    const BlockLanes lanes;
    const uint32_t begin = frame.tile_begin[tile], end = frame.tile_begin[tile + 1];
    uint32_t e = begin;
    for (; e < end && alive; ++e) {
        const Entry entry = frame.entries[e];
        if (e + 4 < end) __builtin_prefetch(&frame.records[frame.entries[e + 4].gaussian]);
        const Record& g = frame.records[entry.gaussian];
        LaneMask todo = reached_vectors(g, tile_x, tile_y, row_lanes) & alive, blended = 0;
        const float dx0 = tile_x + 0.5f - g.x, dy0 = tile_y + 0.5f - g.y;
        const vi position = set1i(int32_t(e - begin));
        vf weight_sum = set1(0.0f);
        for (; todo; todo &= todo - 1) {
            const int v = __builtin_ctzll(todo), o = v * kLanes;
            vf dx, dy;
            const vf power = block_power(g, dx0, dy0, v, lanes, &dx, &dy);
            const vi passes = power >= float(kLog2AlphaMin);
            const vf alpha = vmin(exp2_fast(power), set1(kAlphaMax));
            const vf t = load(T + o);
            const vf next = fma(-alpha, t, t);
            const vi blends = passes & (next > kTransmittanceMin);
            const vf w = masked(blends, alpha * t);
            store(R + o, fma(w, set1(g.r), load(R + o)));
            store(G + o, fma(w, set1(g.g), load(G + o)));
            store(B + o, fma(w, set1(g.b), load(B + o)));
            if (kDepth) {
                store(Z + o, fma(w, set1(g.depth), load(Z + o)));
                store(W + o, load(W + o) + w);
            }
            if (kWeight) weight_sum += w;
            const vi stops = passes & ~blends;
            // A lane that this Gaussian would saturate ends here, and its transmittance turns negative.
            store(T + o, select(blends, next, select(stops, -vabs(t), t)));
            vi l;
            __builtin_memcpy(&l, last + o, sizeof l);
            l = select(blends, position, l);
            __builtin_memcpy(last + o, &l, sizeof l);
            blended |= LaneMask(movemask(blends) != 0) << v;
            if (kCount) counts[0] += kLanes, counts[1] += __builtin_popcount(movemask(blends));
            if (movemask(stops) && !movemask(load(T + o) > 0.0f)) alive &= ~(LaneMask(1) << v);
        }
        frame.entry_lanes[e] = frame.slot_lanes[entry.slot] = blended;
        if (kWeight) frame.slot_weight[entry.slot] = blended ? sum_lanes(weight_sum) : 0.0f;
    }
    for (; e < end; ++e) {
        frame.entry_lanes[e] = frame.slot_lanes[frame.entries[e].slot] = 0;
        if (kWeight) frame.slot_weight[frame.entries[e].slot] = 0.0f;
    }
    if (kCount) return;
    for (int v = 0; v < kVectors; ++v) store(T + v * kLanes, vabs(load(T + v * kLanes)));
    __builtin_memcpy(frame.tile_T + int64_t(tile) * kTilePixels, T, sizeof T);
    for_tile_pixels(frame, tile, [&](int lane, int64_t pixel) {
        image.rgb[3 * pixel] = R[lane] + T[lane] * view.background[0];
        image.rgb[3 * pixel + 1] = G[lane] + T[lane] * view.background[1];
        image.rgb[3 * pixel + 2] = B[lane] + T[lane] * view.background[2];
        image.alpha[pixel] = 1.0f - T[lane];
        if (kDepth) image.depth[pixel] = Z[lane] = W[lane] > 0.0f ? Z[lane] / W[lane] : 0.0f;
    });
    if (kDepth) {
        __builtin_memcpy(frame.tile_depth + int64_t(tile) * kTilePixels, Z, sizeof Z);
        __builtin_memcpy(frame.tile_weight + int64_t(tile) * kTilePixels, W, sizeof W);
    }
}

template <bool kDepth, bool kAbs>
static void blend_vjp_tile(const splat_view& view, Frame& frame, const splat_image_cotangents& v_image, int tile) {
    alignas(64) float T[kTilePixels], behind[kTilePixels] = {};
    alignas(64) float vR[kTilePixels] = {}, vG[kTilePixels] = {}, vB[kTilePixels] = {};
    alignas(64) float vZ[kDepth ? kTilePixels : kLanes] = {}, D[kDepth ? kTilePixels : kLanes] = {};
    __builtin_memcpy(T, frame.tile_T + int64_t(tile) * kTilePixels, sizeof T);
    const int32_t* last = frame.tile_last + int64_t(tile) * kTilePixels;
    double v_background[3] = {};
    for_tile_pixels(frame, tile, [&](int lane, int64_t pixel) {
        vR[lane] = v_image.rgb[3 * pixel];
        vG[lane] = v_image.rgb[3 * pixel + 1];
        vB[lane] = v_image.rgb[3 * pixel + 2];
        if (kDepth) {
            // Expected depth = sum w z / sum w, so d(depth)/dw = (z - depth) / sum w and d(depth)/dz = w / sum w.
            const float weight = frame.tile_weight[int64_t(tile) * kTilePixels + lane];
            vZ[lane] = weight > 0.0f ? v_image.depth[pixel] / weight : 0.0f;
            D[lane] = frame.tile_depth[int64_t(tile) * kTilePixels + lane];
        }
        const float v_T = view.background[0] * vR[lane] + view.background[1] * vG[lane] + view.background[2] * vB[lane] -
                          (v_image.alpha ? v_image.alpha[pixel] : 0.0f);
        behind[lane] = T[lane] * v_T;
        v_background[0] += double(T[lane] * vR[lane]);
        v_background[1] += double(T[lane] * vG[lane]);
        v_background[2] += double(T[lane] * vB[lane]);
    });
    for (int c = 0; c < 3; ++c) frame.tile_background[4 * int64_t(tile) + c] = float(v_background[c]);

    const float tile_x = float((tile % frame.tiles_x) * kTile), tile_y = float((tile / frame.tiles_x) * kTile);
    const BlockLanes lanes;
    const uint32_t begin = frame.tile_begin[tile], end = frame.tile_begin[tile + 1];
    for (uint32_t e = end; e-- > begin;) {
        LaneMask todo = frame.entry_lanes[e];
        if (!todo) continue;
        const Entry entry = frame.entries[e];
        if (e >= begin + 4) __builtin_prefetch(&frame.records[frame.entries[e - 4].gaussian]);
        const Record& g = frame.records[entry.gaussian];
        const float dx0 = tile_x + 0.5f - g.x, dy0 = tile_y + 0.5f - g.y;
        const float a = conic_a(g.qa), b = a * g.shear, d = inverse_yy(g.qd);
        const vi position = set1i(int32_t(e - begin));
        vf sums[16] = {};  // in the order of Slot; the tail pads the second group of eight
        for (; todo; todo &= todo - 1) {
            const int v = __builtin_ctzll(todo), o = v * kLanes;
            vf dx, dy;
            const vf power = block_power(g, dx0, dy0, v, lanes, &dx, &dy);
            vi l;
            __builtin_memcpy(&l, last + o, sizeof l);
            const vi blends = (power >= float(kLog2AlphaMin)) & (l >= position);
            const vf raw = masked(blends, exp2_fast(power));
            const vf alpha = vmin(raw, set1(kAlphaMax));
            const vf inverse = 1.0f / (1.0f - alpha);
            const vf t = load(T + o) * inverse;
            store(T + o, t);
            const vf w = alpha * t;
            const vf r = load(vR + o), gr = load(vG + o), bl = load(vB + o);
            vf v_blend = fma(set1(g.r), r, fma(set1(g.g), gr, g.b * bl));
            sums[0] = fma(w, r, sums[0]);
            sums[1] = fma(w, gr, sums[1]);
            sums[2] = fma(w, bl, sums[2]);
            if (kDepth) {
                const vf z = load(vZ + o);
                v_blend = fma(g.depth - load(D + o), z, v_blend);
                sums[3] = fma(w, z, sums[3]);
            }
            const vf hidden = load(behind + o);
            const vf v_alpha = blend_vjp(t, v_blend, hidden, inverse);
            store(behind + o, fma(w, v_blend, hidden));
            // Where alpha was clamped to kAlphaMax nothing flows to its factors.
            const vf s = masked(blends & (raw <= kAlphaMax), alpha * v_alpha);
            const vf u = fma(dy, set1(g.shear), dx);
            const vf su = s * u, sy = s * dy;
            sums[4] += s;
            sums[5] += su;
            sums[6] += sy;
            sums[7] = fma(su, u, sums[7]);
            sums[8] = fma(su, dy, sums[8]);
            sums[9] = fma(sy, dy, sums[9]);
            if (kAbs) {
                sums[10] += vabs(a * su);
                sums[11] += vabs(fma(set1(b), su, d * sy));
            }
        }
        float out[16];
        sum_lanes8(sums, out);
        sum_lanes8(sums + 8, out + 8);
        __builtin_memcpy(frame.slots + int64_t(entry.slot) * kSlotFloats, out, kSlotFloats * sizeof(float));
    }
}

static void blend_loop(const splat_view& view, Frame& frame, splat_image& image, bool with_weight, int threads) {
    const int tiles = frame.tiles_x * frame.tiles_y;
    const auto tile_fn = image.depth ? (with_weight ? blend_tile<true, true> : blend_tile<true, false>)
                                     : (with_weight ? blend_tile<false, true> : blend_tile<false, false>);
    parallel_for(tiles, 1, threads, [&](int64_t tile, int) { tile_fn(view, frame, image, int(tile), nullptr); });
}

static void count_pairs_loop(const splat_view& view, Frame& frame, int64_t* counts, int threads) {
    splat_image none = {};
    parallel_for(int64_t(frame.tiles_x) * frame.tiles_y, 1, threads, [&](int64_t tile, int worker) {
        blend_tile<false, false, true>(view, frame, none, int(tile), counts + 2 * worker);
    });
}

static void blend_vjp_loop(const splat_view& view, Frame& frame, const splat_image_cotangents& v_image, bool with_abs,
                           int threads) {
    const int tiles = frame.tiles_x * frame.tiles_y;
    const auto tile_fn = v_image.depth ? (with_abs ? blend_vjp_tile<true, true> : blend_vjp_tile<true, false>)
                                       : (with_abs ? blend_vjp_tile<false, true> : blend_vjp_tile<false, false>);
    parallel_for(tiles, 1, threads, [&](int64_t tile, int) { tile_fn(view, frame, v_image, int(tile)); });
}

}  // namespace SPLAT_LEVEL
}  // namespace splat
