// The two loops that take most of the time: tiles of 16x16 pixels, a list of Gaussians each, front to back and back again.
//
// A tile keeps its pixels in L1 as arrays of vectors, and a vector holds a block of 4 x 1, 4 x 2 or 4 x 4 pixels: a splat
// of a few pixels fills a compact block better than a piece of a row (50k splats at 800x600, 16 lanes: backward 1.15x
// faster). For each Gaussian the intervals of all 16 rows are found at once (one vector square root), which gives a bit mask of the
// vectors that it can reach; only those are evaluated. The forward pass takes 64 Gaussians at a time and turns their masks
// around, so that it can walk through all that reach one vector with the vector's pixels in registers: Gaussian by Gaussian,
// the processor would wait for each one's mask and mispredict the end of each one's short list of vectors. It records which vectors
// really blended a Gaussian, so the backward pass evaluates nothing else, and where each pixel was saturated.
#pragma once

#include "simd.h"  // before the maths, see there

#include <algorithm>

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

// Centres of the pixels of a tile. Vector v holds the block in column v / kBlockRows, block row v % kBlockRows.
struct TileCentres {
    alignas(64) float x[kTilePixels], y[kTilePixels];

    constexpr TileCentres() : x(), y() {
        for (int i = 0; i < kTilePixels; ++i) {
            const int v = i / kLanes, lane = i % kLanes;
            x[i] = float(v / kBlockRows * kBlockWidth + lane % kBlockWidth) + 0.5f;
            y[i] = float(v % kBlockRows * kBlockHeight + lane / kBlockWidth) + 0.5f;
        }
    }
};
static constexpr TileCentres kCentres;

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

constexpr uint32_t kAheadBack = 6;         // entries between a prefetch and its use, in the backward pass
constexpr int kBatch = 64;                 // Gaussians whose masks are turned around together
constexpr int32_t kNever = INT32_MAX;      // a pixel that was not saturated
constexpr int32_t kOutside = INT32_MIN;    // a pixel beyond the border of the image

static constexpr Record kUnseen = {0, 0, 0, 0, 0, -1e30f, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};  // log2 of its opacity

// A batch of a tile's list: which vectors each Gaussian reaches, and which Gaussians reach each vector.
struct Batch {
    const Record* record[kBatch + 1];  // and one that nothing sees, for steps beyond the end
    uint64_t reaching[kVectors];  // a bit per Gaussian
    LaneMask blended[kBatch];

    // Takes the entries [first, first + count).
    void fill(const Frame& frame, uint32_t first, int count, float tile_x, float tile_y, LaneMask alive) {
        record[kBatch] = &kUnseen;
        alignas(64) int32_t masks[2][kBatch] = {};  // low and high halves
        const vf row_lanes = lane_index();
        const int64_t end = int64_t(frame.tile_begin[int64_t(frame.tiles_x) * frame.tiles_y]);
        for (int i = 0; i < count; ++i) {
            if (first + i + 8 < end) __builtin_prefetch(&frame.records[frame.entries[first + i + 8].gaussian]);
            record[i] = &frame.records[frame.entries[first + i].gaussian];
            const LaneMask mask = reached_vectors(*record[i], tile_x, tile_y, row_lanes) & alive;
            masks[0][i] = int32_t(uint32_t(mask)), masks[1][i] = int32_t(uint32_t(mask >> 32));
            blended[i] = 0;
        }
        for (int v = 0; v < kVectors; ++v) {
            const vi bit = set1i(int32_t(uint32_t(1) << v % 32));
            reaching[v] = 0;
            for (int i = 0; i < kBatch; i += kLanes) {
                vi mask;
                __builtin_memcpy(&mask, masks[v / 32] + i, sizeof mask);
                reaching[v] |= uint64_t(movemask((mask & bit) != 0)) << i;
            }
        }
    }
};

// With kCount nothing is drawn: counts [2] grows by the (pixel, Gaussian) pairs that are evaluated and those that are blended.
template <bool kDepth, bool kWeight, bool kCount = false>
static void blend_tile(const splat_view& view, Frame& frame, splat_image& image, int tile, int64_t* counts = nullptr) {
    alignas(64) float T[kTilePixels], R[kTilePixels] = {}, G[kTilePixels] = {}, B[kTilePixels] = {};
    alignas(64) float Z[kDepth ? kTilePixels : kLanes] = {}, W[kDepth ? kTilePixels : kLanes] = {};
    alignas(64) int32_t stop[kTilePixels];
    for (int i = 0; i < kTilePixels; ++i) T[i] = 1.0f, stop[i] = kOutside;
    for_tile_pixels(frame, tile, [&](int lane, int64_t) { stop[lane] = kNever; });
    LaneMask alive = 0;  // vectors with a pixel that is neither saturated nor outside
    for (int i = 0; i < kTilePixels; ++i) alive |= LaneMask(stop[i] == kNever) << i / kLanes;

    const float tile_x = float((tile % frame.tiles_x) * kTile), tile_y = float((tile / frame.tiles_x) * kTile);
    const uint32_t begin = frame.tile_begin[tile], end = frame.tile_begin[tile + 1];
    uint32_t first = begin;
    for (; first < end && alive; first += kBatch) {
        const int count = end - first < kBatch ? int(end - first) : kBatch;
        Batch batch;
        batch.fill(frame, first, count, tile_x, tile_y, alive);
        alignas(64) vf weights[kWeight ? kBatch : 1] = {};
        for (LaneMask vectors = alive; vectors; vectors &= vectors - 1) {
            const int v = __builtin_ctzll(vectors), o = v * kLanes;
            const vf x = load(kCentres.x + o) + tile_x, y = load(kCentres.y + o) + tile_y;
            vf t = load(T + o), r = load(R + o), g = load(G + o), b = load(B + o), z{}, w_sum{};
            if (kDepth) z = load(Z + o), w_sum = load(W + o);
            vi stops_at;
            __builtin_memcpy(&stops_at, stop + o, sizeof stops_at);
            vi live = stops_at == kNever;
            // Three Gaussians are under way at once: one is blended, the next one's exponential is taken, and the exponent of
            // the one after it. The three do not wait for each other; one alone is a chain of some 70 cycles, of which
            // the processor does not look far enough ahead to overlap enough.
            uint64_t todo = batch.reaching[v];
            int left_over = __builtin_popcountll(todo);
            const auto take = [&] {
                const int i = todo ? __builtin_ctzll(todo) : kBatch;
                todo &= todo - 1;
                return i;
            };
            const auto power_of = [&](int i) {
                const Record& g = *batch.record[i];
                const vf dx = g.x - x, dy = g.y - y;  // of either sign: the exponent is the same to the last bit
                return log2_alpha(dx, dy, set1(g.qa), set1(g.shear), set1(g.qd), set1(g.log2_opacity));
            };
            int i = take(), following = take();
            vf power = power_of(i), following_power = power_of(following);
            vf alpha = vmin(exp2_fast(power), set1(kAlphaMax));
            for (; left_over > 0; --left_over) {
                const vf following_alpha = vmin(exp2_fast(following_power), set1(kAlphaMax));
                const int after = take();
                const vf power_after = power_of(after);

                const Record& record = *batch.record[i];
                const vi passes = (power >= float(kLog2AlphaMin)) & live;
                const vf next = fma(-alpha, t, t);
                const vi blends = passes & (next > kTransmittanceMin);
                const vf w = masked(blends, alpha * t);
                r = fma(w, set1(record.r), r);
                g = fma(w, set1(record.g), g);
                b = fma(w, set1(record.b), b);
                if (kDepth) z = fma(w, set1(record.depth), z), w_sum += w;
                if (kWeight) weights[i] += w;
                t = select(blends, next, t);
                const uint32_t blend_bits = movemask(blends);
                batch.blended[i] |= LaneMask(blend_bits != 0) << v;
                if (kCount) counts[0] += kLanes, counts[1] += __builtin_popcount(blend_bits);
                if (movemask(passes) != blend_bits) {  // the pixels that this Gaussian would saturate end here
                    const vi stops = passes & ~blends;
                    stops_at = select(stops, set1i(int32_t(first - begin) + i), stops_at);
                    live = live & ~stops;
                    if (!movemask(live)) {
                        alive &= ~(LaneMask(1) << v);
                        break;
                    }
                }
                i = following, following = after;
                power = following_power, following_power = power_after;
                alpha = following_alpha;
            }
            store(T + o, t), store(R + o, r), store(G + o, g), store(B + o, b);
            if (kDepth) store(Z + o, z), store(W + o, w_sum);
            __builtin_memcpy(stop + o, &stops_at, sizeof stops_at);
        }
        if (kCount) continue;
        for (int i = 0; i < count; ++i) {
            const uint32_t slot = frame.entries[first + i].slot;
            frame.entry_lanes[first + i] = batch.blended[i];
            frame.slot_blended[slot] = batch.blended[i] != 0;
            if (kWeight) frame.slot_weight[slot] = batch.blended[i] ? sum_lanes(weights[i]) : 0.0f;
        }
    }
    if (kCount) return;
    for (uint32_t e = first; e < end; ++e) {
        const uint32_t slot = frame.entries[e].slot;
        frame.entry_lanes[e] = frame.slot_blended[slot] = 0;
        if (kWeight) frame.slot_weight[slot] = 0.0f;
    }
    __builtin_memcpy(frame.tile_T + int64_t(tile) * kTilePixels, T, sizeof T);
    __builtin_memcpy(frame.tile_stop + int64_t(tile) * kTilePixels, stop, sizeof stop);
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
    const int32_t* stop = frame.tile_stop + int64_t(tile) * kTilePixels;
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
    const uint32_t begin = frame.tile_begin[tile], end = frame.tile_begin[tile + 1];
    alignas(64) float X[kTilePixels], Y[kTilePixels];
    for (int o = 0; o < kTilePixels; o += kLanes) {
        store(X + o, load(kCentres.x + o) + tile_x);
        store(Y + o, load(kCentres.y + o) + tile_y);
    }

    // Two pairs are under way at once, as in blend_tile: while one is carried back, the next one's alpha is taken, be it of the
    // same Gaussian or of the one in front of it.
    struct Cursor {
        uint32_t e;
        LaneMask vectors;
        const Record* g;
    };
    const auto in_front_of = [&](uint32_t e) {  // the next Gaussian that was blended, or one that nothing sees
        while (e-- > begin)
            if (frame.entry_lanes[e]) {
                const Record* g = &frame.records[frame.entries[e].gaussian];
                if (e >= begin + kAheadBack) {
                    const Entry& ahead = frame.entries[e - kAheadBack];
                    __builtin_prefetch(&frame.records[ahead.gaussian]);
                    const float* slot = frame.slots + int64_t(ahead.slot) * kSlotFloats;
                    __builtin_prefetch(slot, 1);
                    __builtin_prefetch(slot + kSlotFloats - 1, 1);
                }
                return Cursor{e, frame.entry_lanes[e], g};
            }
        return Cursor{begin, 1, &kUnseen};
    };
    struct Alpha {
        vf dy, u, raw;  // raw: alpha before it is clamped, 0 where the pixel does not blend
    };
    const auto alpha_of = [&](const Cursor& at, int v) {
        const Record& g = *at.g;
        const int o = v * kLanes;
        Alpha out;
        const vf dx = load(X + o) - g.x;
        out.dy = load(Y + o) - g.y;
        const vf power = log2_alpha(dx, out.dy, set1(g.qa), set1(g.shear), set1(g.qd), set1(g.log2_opacity));
        out.u = fma(out.dy, set1(g.shear), dx);
        vi stops_at;
        __builtin_memcpy(&stops_at, stop + o, sizeof stops_at);
        const vi blends = (power >= float(kLog2AlphaMin)) & (set1i(int32_t(at.e - begin)) < stops_at);
        out.raw = masked(blends, exp2_fast(power));
        return out;
    };
    Cursor here = in_front_of(end);
    Alpha now = alpha_of(here, __builtin_ctzll(here.vectors));
    while (here.g != &kUnseen) {
        const Cursor in_front = in_front_of(here.e);
        const Record& g = *here.g;
        const float a = conic_a(g.qa), b = a * g.shear, d = inverse_yy(g.qd);
        vf sums[16] = {};  // in the order of Slot; the tail pads the second group of eight
        for (LaneMask todo = here.vectors; todo;) {
            const int o = __builtin_ctzll(todo) * kLanes;
            todo &= todo - 1;
            const Alpha following = alpha_of(todo ? here : in_front, __builtin_ctzll(todo ? todo : in_front.vectors));
            const vf raw = now.raw, u = now.u, dy = now.dy;
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
            const vf s = masked((raw > 0.0f) & (raw <= kAlphaMax), alpha * v_alpha);
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
            now = following;
        }
        float out[16];
        sum_lanes8(sums, out);
        sum_lanes8(sums + 8, out + 8);
        __builtin_memcpy(frame.slots + int64_t(frame.entries[here.e].slot) * kSlotFloats, out, kSlotFloats * sizeof(float));
        here = in_front;
    }
}

// Neighbouring tiles share Gaussians and cache lines of their slots: a thread takes a run of them, short enough that all threads
// end together.
static inline int64_t tile_run(int64_t tiles, int threads) {
    return std::min<int64_t>(16, std::max<int64_t>(1, tiles / (16 * int64_t(threads))));
}

static void blend_loop(const splat_view& view, Frame& frame, splat_image& image, bool with_weight, int threads) {
    const int tiles = frame.tiles_x * frame.tiles_y;
    const auto tile_fn = image.depth ? (with_weight ? blend_tile<true, true> : blend_tile<true, false>)
                                     : (with_weight ? blend_tile<false, true> : blend_tile<false, false>);
    parallel_for(tiles, tile_run(tiles, threads), threads,
                 [&](int64_t tile, int) { tile_fn(view, frame, image, int(tile), nullptr); });
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
    parallel_for(tiles, tile_run(tiles, threads), threads,
                 [&](int64_t tile, int) { tile_fn(view, frame, v_image, int(tile)); });
}

}  // namespace SPLAT_LEVEL
}  // namespace splat
