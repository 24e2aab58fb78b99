#include "sort.h"

#include <cstring>
#include <utility>

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

}  // namespace splat
