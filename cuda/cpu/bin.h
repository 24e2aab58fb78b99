// Binning: which Gaussians each tile holds, front to back.
#pragma once

#include <cstring>

#include "../include/splat/tiles.h"
#include "kernels.h"
#include "parallel.h"

namespace splat {
inline namespace SPLAT_LEVEL {

constexpr int64_t kAhead = 16;  // Gaussians between a prefetch and its use

// Fills tile_begin and entries from order and the projection's counts. slot_tile [n_pairs], counts [threads, tiles].
static void bin_loop(Frame& frame, uint32_t* slot_tile, uint32_t* counts, int threads) {
    const int64_t tiles = int64_t(frame.tiles_x) * frame.tiles_y;
    std::memset(counts, 0, size_t(threads) * size_t(tiles) * sizeof(uint32_t));
    // Each part takes a run of the depth order; where an entry lands depends only on its tile and its rank.
    const auto part_begin = [&](int64_t part) { return frame.n_visible * part / threads; };
    // The depth order jumps about in memory.
    const auto prefetch = [&](int64_t rank, int64_t stop) {
        if (rank + kAhead >= stop) return;
        const uint32_t i = frame.order[rank + kAhead];
        __builtin_prefetch(frame.listed + int64_t(kListed) * i);
        __builtin_prefetch(frame.pair_begin + i);
    };
    parallel_for(threads, 1, threads, [&](int64_t part, int) {
        uint32_t* count = counts + part * tiles;
        const int64_t stop = part_begin(part + 1);
        for (int64_t rank = part_begin(part); rank < stop; ++rank) {
            prefetch(rank, stop);
            const uint32_t i = frame.order[rank], first = frame.pair_begin[i], pairs = frame.pair_begin[i + 1] - first;
            if (pairs <= kListed) {
                for (uint32_t j = 0; j < pairs; ++j) ++count[frame.listed[int64_t(kListed) * i + j]];
                continue;
            }
            uint32_t slot = first;
            for_reached_tiles(frame.records[i], frame.tiles_x, frame.tiles_y, [&](uint32_t tile) {
                slot_tile[slot++] = tile;
                ++count[tile];
            });
        }
    });
    uint32_t sum = 0;
    for (int64_t tile = 0; tile < tiles; ++tile) {
        frame.tile_begin[tile] = sum;
        for (int part = 0; part < threads; ++part) {
            const uint32_t size = counts[part * tiles + tile];
            counts[part * tiles + tile] = sum;
            sum += size;
        }
    }
    frame.tile_begin[tiles] = sum;
    parallel_for(threads, 1, threads, [&](int64_t part, int) {
        uint32_t* next = counts + part * tiles;
        const int64_t stop = part_begin(part + 1);
        for (int64_t rank = part_begin(part); rank < stop; ++rank) {
            prefetch(rank, stop);
            const uint32_t i = frame.order[rank], first = frame.pair_begin[i], pairs = frame.pair_begin[i + 1] - first;
            const uint32_t* tile = pairs <= kListed ? frame.listed + int64_t(kListed) * i : slot_tile + first;
            for (uint32_t j = 0; j < pairs; ++j) frame.entries[next[tile[j]]++] = Entry{i, first + j};
        }
    });
}

}  // namespace SPLAT_LEVEL
}  // namespace splat
