#include "bin.h"

#include <cstring>
#include <utility>

#include "../include/splat/tiles.h"

namespace splat {

void sort_by_depth(Frame& frame, const float* depths, uint32_t* keys, uint32_t* scratch_keys, uint32_t* scratch_order) {
    // Depths are positive, so their bits sort like the numbers. Three stable passes over 11 bits.
    constexpr int kBits = 11, kBuckets = 1 << kBits, kPasses = 3;
    static_assert(kBits * kPasses >= 32, "every bit of the key is sorted");
    uint32_t histogram[kPasses][kBuckets] = {};
    uint32_t* order = frame.order;
    int64_t count = 0;
    for (int64_t i = 0; i < frame.n; ++i) {
        if (frame.pair_begin[i + 1] == frame.pair_begin[i]) continue;
        uint32_t key;
        std::memcpy(&key, depths + i, sizeof key);
        keys[count] = key;
        order[count] = uint32_t(i);
        ++count;
        for (int pass = 0; pass < kPasses; ++pass) ++histogram[pass][(key >> (pass * kBits)) & (kBuckets - 1)];
    }
    for (int pass = 0; pass < kPasses; ++pass) {
        uint32_t sum = 0;
        for (uint32_t& bucket : histogram[pass]) {
            const uint32_t size = bucket;
            bucket = sum;
            sum += size;
        }
        for (int64_t i = 0; i < count; ++i) {
            const uint32_t to = histogram[pass][(keys[i] >> (pass * kBits)) & (kBuckets - 1)]++;
            scratch_keys[to] = keys[i];
            scratch_order[to] = order[i];
        }
        std::swap(keys, scratch_keys);
        std::swap(order, scratch_order);
    }
    if (order != frame.order) std::memcpy(frame.order, order, size_t(count) * sizeof(uint32_t));
    frame.n_visible = count;
}

void bin_tiles(Frame& frame, uint32_t* slot_tile, uint32_t* counts, int threads) {
    const int64_t tiles = int64_t(frame.tiles_x) * frame.tiles_y;
    std::memset(counts, 0, size_t(threads) * size_t(tiles) * sizeof(uint32_t));
    // Each part takes a run of the depth order; where an entry lands depends only on its tile and its rank.
    const auto part_begin = [&](int part) { return frame.n_visible * part / threads; };
#pragma omp parallel for schedule(static, 1) num_threads(threads)
    for (int part = 0; part < threads; ++part) {
        uint32_t* count = counts + part * tiles;
        for (int64_t rank = part_begin(part); rank < part_begin(part + 1); ++rank) {
            const uint32_t i = frame.order[rank];
            uint32_t slot = frame.pair_begin[i];
            for_reached_tiles(frame.records[i], frame, [&](uint32_t tile) {
                slot_tile[slot++] = tile;
                ++count[tile];
            });
        }
    }
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
#pragma omp parallel for schedule(static, 1) num_threads(threads)
    for (int part = 0; part < threads; ++part) {
        uint32_t* next = counts + part * tiles;
        for (int64_t rank = part_begin(part); rank < part_begin(part + 1); ++rank) {
            const uint32_t i = frame.order[rank];
            for (uint32_t slot = frame.pair_begin[i]; slot < frame.pair_begin[i + 1]; ++slot)
                frame.entries[next[slot_tile[slot]]++] = Entry{i, slot};
        }
    }
}

}  // namespace splat
