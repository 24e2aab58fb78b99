// The parts of a frame that a library does better: prefix sums and stable radix sorts (CUB).
#pragma once

#include "platform.h"

namespace splat {

// Bytes of scratch memory for `count` items, fewer than 2^31 (CUB's kernels for 32-bit offsets are the faster ones).
size_t scan_scratch(int64_t count);

// sums [count] of values [count], inclusive, in place; they stay at 2^32 - 1 where they would be larger.
void scan(void* scratch, size_t bytes, uint32_t* values, int64_t count, cudaStream_t stream);

// Two buffers between which a sort goes to and fro; it ends in `from` of both.
template <class Key>
struct SortBuffers {
    Key *from, *other;
    uint32_t *values_from, *values_other;
};

size_t sort_scratch(const SortBuffers<uint32_t>&, int64_t count);
size_t sort_scratch(const SortBuffers<uint16_t>&, int64_t count);

// Stable, ascending by the lowest `bits` bits of the key.
void sort_pairs(void* scratch, size_t bytes, SortBuffers<uint32_t>& buffers, int64_t count, int bits, cudaStream_t stream);
void sort_pairs(void* scratch, size_t bytes, SortBuffers<uint16_t>& buffers, int64_t count, int bits, cudaStream_t stream);

}  // namespace splat
