// Pairs of tiles and Gaussians: emitted Gaussian by Gaussian in depth order, then sorted by tile with a stable sort, so that
// each tile has its Gaussians front to back, ties by index. Two short sorts, of n depths and of the pairs' tiles, in place of
// one over long keys (tile, depth) of all pairs.
#pragma once

#include "frame.h"
#include "warp.h"

namespace splat {

constexpr int kBinThreads = 256;
constexpr uint32_t kOwn = 32;  // pairs that a lane emits by itself

// Also counts the Gaussians that have pairs: in depth order, they come first.
__global__ void __launch_bounds__(kBinThreads) gather_pairs_kernel(Frame f, const uint32_t* sorted_depth_key) {
    const int64_t rank = int64_t(blockIdx.x) * kBinThreads + threadIdx.x;
    if (rank >= f.n) return;
    f.pair_end[rank] = f.pairs[f.order[rank]];
    const bool last = sorted_depth_key[rank] != kNoPairs && (rank + 1 == f.n || sorted_depth_key[rank + 1] == kNoPairs);
    if (last) f.counted->visible = uint32_t(rank + 1);
}

// Tells the host how many pairs there are, and the other kernels of this frame.
__global__ void publish_pairs_kernel(Frame f) {
    if (threadIdx.x == 0) f.counted->pairs = f.n ? f.pair_end[f.n - 1] : 0;
}

// Where the pairs of rank begin; the capacity of the lists, where they would not fit.
__device__ __forceinline__ uint32_t pair_begin(const Frame& f, int64_t rank) { return rank == 0 ? 0 : f.pair_end[rank - 1]; }

// tile [capacity] and entry [capacity] of every pair, in depth order. Writes nothing where the pairs do not fit.
template <class Key>
__global__ void __launch_bounds__(kBinThreads) emit_plain_kernel(Frame f, Key* tile, uint32_t* entry, uint32_t capacity) {
    const int64_t rank = int64_t(blockIdx.x) * kBinThreads + threadIdx.x;
    if (rank >= f.n || f.counted->pairs > capacity) return;
    const uint32_t i = f.order[rank], begin = pair_begin(f, rank), pairs = f.pairs[i];
    if (pairs == 0) return;
    f.first_slot[i] = begin;
    uint32_t at = begin;
    for_reached_tiles(f.records[i], f.tiles_x, f.tiles_y, [&](unsigned reached) {
        tile[at] = Key(reached);
        entry[at] = f.slot_gaussian ? at : i;
        if (f.slot_gaussian) f.slot_gaussian[at] = i;
        ++at;
    });
}

// The same, but a warp shares out the rows of a Gaussian that reaches many tiles: one lane that lists thousands of tiles keeps the
// other 31 waiting, and early in a training many Gaussians are that large.
template <class Key>
__global__ void __launch_bounds__(kBinThreads) emit_kernel(Frame f, Key* tile, uint32_t* entry, uint32_t capacity) {
    const int64_t rank = int64_t(blockIdx.x) * kBinThreads + threadIdx.x;
    const int lane = int(threadIdx.x) % kWarp;
    if (f.counted->pairs > capacity) return;  // the same for all threads
    uint32_t i = 0, begin = 0, pairs = 0;
    if (rank < f.n) {
        i = f.order[rank];
        pairs = f.pairs[i];
        if (pairs) f.first_slot[i] = begin = pair_begin(f, rank);
    }
    const auto put = [&](uint32_t at, unsigned reached, uint32_t gaussian) {
        tile[at] = Key(reached);
        entry[at] = f.slot_gaussian ? at : gaussian;
        if (f.slot_gaussian) f.slot_gaussian[at] = gaussian;
    };
    if (pairs > 0 && pairs <= kOwn) {
        uint32_t at = begin;
        for_reached_tiles(f.records[i], f.tiles_x, f.tiles_y, [&](unsigned reached) { put(at++, reached, i); });
    }
    for (unsigned large = __ballot_sync(kAllLanes, pairs > kOwn); large; large &= large - 1) {
        const int owner = __ffs(int(large)) - 1;
        const uint32_t gaussian = __shfl_sync(kAllLanes, i, owner);
        uint32_t at = __shfl_sync(kAllLanes, begin, owner);
        const Record& r = f.records[gaussian];
        const Ellipse<float> e = {r.x, r.y, r.half_x, r.half_y, r.shear, r.reach, r.drop};
        int first_row, last_row;
        tile_rows(e, f.tiles_y, &first_row, &last_row);
        for (int rows = first_row; rows < last_row; rows += kWarp) {
            const int row = rows + lane;
            int left = 0, right = 0;
            if (row < last_row) tile_span(e, r.dy_right, row, f.tiles_x, &left, &right);
            const uint32_t width = uint32_t(right - left), upto = warp_scan(width, lane);
            for (int column = left; column < right; ++column)
                put(at + (upto - width) + uint32_t(column - left), unsigned(row * f.tiles_x + column), gaussian);
            at += __shfl_sync(kAllLanes, upto, kWarp - 1);
        }
    }
}

// tile_begin from the sorted tiles [count], behind which lie others than tiles; none at all where the pairs do not fit.
template <class Key>
__global__ void __launch_bounds__(kBinThreads) tile_begin_kernel(Frame f, const Key* tile, uint32_t count) {
    const uint32_t tiles = uint32_t(tile_count(f)), pairs = f.counted->pairs <= count ? f.counted->pairs : 0;
    const int64_t at = int64_t(blockIdx.x) * kBinThreads + threadIdx.x;
    if (at > int64_t(pairs)) return;
    // The tiles that begin here: those after the previous pair's, up to this one's.
    const uint32_t after = at == 0 ? 0 : uint32_t(tile[at - 1]) + 1, upto = at == int64_t(pairs) ? tiles : uint32_t(tile[at]);
    for (uint32_t t = after; t <= upto; ++t) f.tile_begin[t] = uint32_t(at);
}

}  // namespace splat
