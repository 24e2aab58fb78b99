#include "sort.h"

#include <cstring>

#include "parallel.h"

namespace splat {
namespace {

// Depths are positive, so their bits sort like the numbers: three stable passes over 11 bits.
constexpr int kBits = 11, kBuckets = 1 << kBits, kPasses = 3;
static_assert(kBits * kPasses >= 32, "every bit of the key is sorted");

// Parts are runs of equal length; what a part finds goes behind what the parts before it found, so that the result does not
// depend on their number.
int64_t part_begin(int64_t count, int64_t part, int parts) { return count * part / parts; }

struct Key {
    uint32_t bits, gaussian;
};

int bucket_of(uint32_t bits, int pass) { return int(bits >> (pass * kBits)) & (kBuckets - 1); }

// Sorts by the bits of one pass. read(i) is a Key, write(rank, key) takes it; accepts(i) says whether i takes part.
template <class Accepts, class Read, class Write>
void sort_pass(int64_t count, int pass, uint32_t* histograms, int threads, Accepts&& accepts, Read&& read, Write&& write) {
    parallel_for(threads, 1, threads, [&](int64_t part, int) {
        uint32_t* histogram = histograms + part * kBuckets;
        std::memset(histogram, 0, kBuckets * sizeof(uint32_t));
        const int64_t stop = part_begin(count, part + 1, threads);
        for (int64_t i = part_begin(count, part, threads); i < stop; ++i)
            if (accepts(i)) ++histogram[bucket_of(read(i).bits, pass)];
    });
    uint32_t sum = 0;
    for (int bucket = 0; bucket < kBuckets; ++bucket)
        for (int part = 0; part < threads; ++part) {
            uint32_t& entry = histograms[int64_t(part) * kBuckets + bucket];
            const uint32_t size = entry;
            entry = sum;
            sum += size;
        }
    parallel_for(threads, 1, threads, [&](int64_t part, int) {
        uint32_t* next = histograms + part * kBuckets;
        const int64_t stop = part_begin(count, part + 1, threads);
        for (int64_t i = part_begin(count, part, threads); i < stop; ++i) {
            if (!accepts(i)) continue;
            const Key key = read(i);
            write(next[bucket_of(key.bits, pass)]++, key);
        }
    });
}

}  // namespace

int64_t sort_scratch(int64_t n, int threads) { return 4 * n + int64_t(threads) * kBuckets; }

bool number_pairs(Frame& frame, uint64_t* part_sums, int threads) {
    uint64_t* visible = part_sums + threads;
    parallel_for(threads, 1, threads, [&](int64_t part, int) {
        uint64_t pairs = 0, seen = 0;
        const int64_t stop = part_begin(frame.n, part + 1, threads);
        for (int64_t i = part_begin(frame.n, part, threads); i < stop; ++i) {
            pairs += frame.pair_begin[i];
            seen += frame.pair_begin[i] != 0;
        }
        part_sums[part] = pairs, visible[part] = seen;
    });
    uint64_t pairs = 0, seen = 0;
    for (int part = 0; part < threads; ++part) {
        const uint64_t size = part_sums[part];
        part_sums[part] = pairs;
        pairs += size, seen += visible[part];
    }
    if (pairs >= (uint64_t(1) << 31)) return false;
    parallel_for(threads, 1, threads, [&](int64_t part, int) {
        uint32_t sum = uint32_t(part_sums[part]);
        const int64_t stop = part_begin(frame.n, part + 1, threads);
        for (int64_t i = part_begin(frame.n, part, threads); i < stop; ++i) {
            const uint32_t size = frame.pair_begin[i];
            frame.pair_begin[i] = sum;
            sum += size;
        }
    });
    frame.pair_begin[frame.n] = uint32_t(pairs);
    frame.n_pairs = int64_t(pairs), frame.n_visible = int64_t(seen);
    return true;
}

void sort_by_depth(Frame& frame, const float* depths, uint32_t* scratch, int threads) {
    Key* const first = reinterpret_cast<Key*>(scratch);
    Key* const second = first + frame.n;
    uint32_t* const histograms = scratch + 4 * frame.n;
    const auto all = [](int64_t) { return true; };
    sort_pass(
        frame.n, 0, histograms, threads,
        [&](int64_t i) { return frame.pair_begin[i + 1] != frame.pair_begin[i]; },
        [&](int64_t i) {
            Key key = {0, uint32_t(i)};
            std::memcpy(&key.bits, depths + i, sizeof key.bits);
            return key;
        },
        [&](uint32_t rank, Key key) { first[rank] = key; });
    sort_pass(
        frame.n_visible, 1, histograms, threads, all, [&](int64_t i) { return first[i]; },
        [&](uint32_t rank, Key key) { second[rank] = key; });
    sort_pass(
        frame.n_visible, 2, histograms, threads, all, [&](int64_t i) { return second[i]; },
        [&](uint32_t rank, Key key) { frame.order[rank] = key.gaussian; });
}

}  // namespace splat
