// The two loops that take most of the time: tiles of 16x16 pixels, a list of Gaussians each, front to back and back again.
//
// A tile keeps its pixels in L1 as arrays of vectors: vector v holds the pixels of row v % 16, columns (v / 16) * kLanes and on.
// For each Gaussian the intervals of all 16 rows are found at once (one vector square root), which gives a bit mask of the
// vectors that it can reach; only those are evaluated. The forward pass records which of them really blended it, so the
// backward pass evaluates nothing else. A lane that is saturated (or lies outside the image) has a negative transmittance.
#pragma once

#include "simd.h"  // before the maths, see there

#include "../include/splat/blend.h"
#include "kernels.h"

namespace splat {
inline namespace SPLAT_LEVEL {

constexpr int kVectors = kTilePixels / kLanes;    // of a tile: 32 or 16
constexpr int kColumns = kTile / kLanes;          // vectors in a pixel row
static_assert(kVectors <= 32, "the masks of a tile have 32 bits");

static inline int row_of(int v) { return v & (kTile - 1); }
static inline int column_of(int v) { return (v >> 4) * kLanes; }

// Per pixel row of a tile: dy, qb * dy, and qc * dy^2 + log2(opacity) of one Gaussian.
struct Rows {
    alignas(64) float dy[kTile], cross[kTile], base[kTile];
};

static inline void fill_rows(const Record& g, float tile_y, vf lanes, Rows& rows) {
    for (int r = 0; r < kTile; r += kLanes) {
        const vf dy = lanes + (float(r) + 0.5f + tile_y - g.y);
        store(rows.dy + r, dy);
        store(rows.cross + r, g.qb * dy);
        store(rows.base + r, fma(g.qc * dy, dy, set1(g.log2_opacity)));
    }
}

// Bit v is set where vector v has a pixel centre inside the Gaussian's ellipse (or within the rounding allowance).
static inline uint32_t reached_vectors(const Record& g, float tile_x, const Rows& rows) {
    uint32_t mask = 0;
    const float slack = 0.01f;
    for (int r = 0; r < kTile; r += kLanes) {
        const vf dy = load(rows.dy + r);
        const vf square_half = fma(g.drop * dy, -dy, set1(g.reach));
        const vi meets = square_half >= 0.0f;
        const vf half = sqrt(vmax(square_half, set1(0.0f))) + slack;
        const vf middle = (g.x - tile_x) - g.shear * dy;
        const vf left = middle - half, right = middle + half;
        for (int c = 0; c < kColumns; ++c) {
            const vi hit = meets & (left <= float(c * kLanes + kLanes) - 0.5f) & (right >= float(c * kLanes) + 0.5f);
            mask |= movemask(hit) << (c * kTile + r);
        }
    }
    return mask;
}

// Pixel (x, y) of the image ↔ float `lane` of the tile's arrays.
template <class F>
static inline void for_tile_pixels(const Frame& frame, int tile, F&& visit) {
    const int x0 = (tile % frame.tiles_x) * kTile, y0 = (tile / frame.tiles_x) * kTile;
    const int rows = frame.height - y0 < kTile ? frame.height - y0 : kTile;
    const int columns = frame.width - x0 < kTile ? frame.width - x0 : kTile;
    for (int r = 0; r < rows; ++r)
        for (int c = 0; c < columns; ++c)
            visit((c / kLanes) * kTile * kLanes + r * kLanes + c % kLanes, int64_t(y0 + r) * frame.width + x0 + c);
}

template <bool kDepth, bool kWeight>
static void blend_tile(const splat_view& view, Frame& frame, splat_image& image, int tile) {
    alignas(64) float T[kTilePixels], R[kTilePixels] = {}, G[kTilePixels] = {}, B[kTilePixels] = {};
    alignas(64) float Z[kDepth ? kTilePixels : kLanes] = {}, W[kDepth ? kTilePixels : kLanes] = {};
    int32_t* last = frame.tile_last + int64_t(tile) * kTilePixels;
    for (int i = 0; i < kTilePixels; ++i) T[i] = -1.0f, last[i] = -1;
    for_tile_pixels(frame, tile, [&](int lane, int64_t) { T[lane] = 1.0f; });
    uint32_t alive = 0;
    for (int v = 0; v < kVectors; ++v) alive |= uint32_t(movemask(load(T + v * kLanes) > 0.0f) != 0) << v;

    const float tile_x = float((tile % frame.tiles_x) * kTile), tile_y = float((tile / frame.tiles_x) * kTile);
    const vf lanes = lane_index();
    const uint32_t begin = frame.tile_begin[tile], end = frame.tile_begin[tile + 1];
    uint32_t e = begin;
    Rows rows;
    for (; e < end && alive; ++e) {
        const Entry entry = frame.entries[e];
        if (e + 4 < end) __builtin_prefetch(&frame.records[frame.entries[e + 4].gaussian]);
        const Record& g = frame.records[entry.gaussian];
        fill_rows(g, tile_y, lanes, rows);
        uint32_t todo = reached_vectors(g, tile_x, rows) & alive, blended = 0;
        const float dx0 = tile_x + 0.5f - g.x;
        const vi position = set1i(int32_t(e - begin));
        vf weight_sum = set1(0.0f);
        for (; todo; todo &= todo - 1) {
            const int v = __builtin_ctz(todo), o = v * kLanes;
            const vf dx = lanes + (dx0 + float(column_of(v)));
            const int row = row_of(v);
            const vf power = log2_alpha(dx, set1(g.qa), set1(rows.cross[row]), set1(rows.base[row]));
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
            l = blends ? position : l;
            __builtin_memcpy(last + o, &l, sizeof l);
            blended |= uint32_t(movemask(blends) != 0) << v;
            if (movemask(stops) && !movemask(load(T + o) > 0.0f)) alive &= ~(1u << v);
        }
        frame.entry_lanes[e] = frame.slot_lanes[entry.slot] = blended;
        if (kWeight) frame.slot_weight[entry.slot] = blended ? sum_lanes(weight_sum) : 0.0f;
    }
    for (; e < end; ++e) {
        frame.entry_lanes[e] = frame.slot_lanes[frame.entries[e].slot] = 0;
        if (kWeight) frame.slot_weight[frame.entries[e].slot] = 0.0f;
    }
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
    const vf lanes = lane_index();
    const uint32_t begin = frame.tile_begin[tile], end = frame.tile_begin[tile + 1];
    Rows rows;
    for (uint32_t e = end; e-- > begin;) {
        uint32_t todo = frame.entry_lanes[e];
        if (!todo) continue;
        const Entry entry = frame.entries[e];
        if (e >= begin + 4) __builtin_prefetch(&frame.records[frame.entries[e - 4].gaussian]);
        const Record& g = frame.records[entry.gaussian];
        fill_rows(g, tile_y, lanes, rows);
        const float dx0 = tile_x + 0.5f - g.x;
        const float a = g.qa * float(-2.0 * kLn2), b = g.qb * float(-kLn2), c = g.qc * float(-2.0 * kLn2);
        const vi position = set1i(int32_t(e - begin));
        vf sums[16] = {};  // in the order of Slot; the tail pads the second group of eight
        for (; todo; todo &= todo - 1) {
            const int v = __builtin_ctz(todo), o = v * kLanes;
            const int row = row_of(v);
            const vf dx = lanes + (dx0 + float(column_of(v)));
            const float dy = rows.dy[row];
            const vf power = log2_alpha(dx, set1(g.qa), set1(rows.cross[row]), set1(rows.base[row]));
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
            const vf sx = s * dx, sy = s * dy;
            sums[4] += s;
            sums[5] += sx;
            sums[6] += sy;
            sums[7] = fma(sx, dx, sums[7]);
            sums[8] = fma(sx, set1(dy), sums[8]);
            sums[9] = fma(sy, set1(dy), sums[9]);
            if (kAbs) {
                sums[10] += vabs(fma(set1(a), sx, b * sy));
                sums[11] += vabs(fma(set1(b), sx, c * sy));
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
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
    for (int tile = 0; tile < tiles; ++tile) tile_fn(view, frame, image, tile);
}

static void blend_vjp_loop(const splat_view& view, Frame& frame, const splat_image_cotangents& v_image, bool with_abs,
                           int threads) {
    const int tiles = frame.tiles_x * frame.tiles_y;
    const auto tile_fn = v_image.depth ? (with_abs ? blend_vjp_tile<true, true> : blend_vjp_tile<true, false>)
                                       : (with_abs ? blend_vjp_tile<false, true> : blend_vjp_tile<false, false>);
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
    for (int tile = 0; tile < tiles; ++tile) tile_fn(view, frame, v_image, tile);
}

}  // namespace SPLAT_LEVEL
}  // namespace splat
