#include "algorithms.h"

#include <cub/device/device_radix_sort.cuh>
#include <cub/device/device_scan.cuh>

namespace splat {
namespace {

// Addition that stays at the largest number: in any order the result is the same.
struct AddUpTo {
    __host__ __device__ __forceinline__ uint32_t operator()(uint32_t a, uint32_t b) const { return a + b < a ? 0xffffffffu : a + b; }
};

template <class Key>
size_t scratch_of_sort(int64_t count) {
    size_t bytes = 0;
    cub::DoubleBuffer<Key> keys(nullptr, nullptr);
    cub::DoubleBuffer<uint32_t> values(nullptr, nullptr);
    check(cub::DeviceRadixSort::SortPairs(nullptr, bytes, keys, values, int(count)), "asking for the memory of a sort");
    return bytes;
}

template <class Key>
void sort(void* scratch, size_t bytes, SortBuffers<Key>& buffers, int64_t count, int bits, cudaStream_t stream) {
    cub::DoubleBuffer<Key> keys(buffers.from, buffers.other);
    cub::DoubleBuffer<uint32_t> values(buffers.values_from, buffers.values_other);
    check(cub::DeviceRadixSort::SortPairs(scratch, bytes, keys, values, int(count), 0, bits, stream), "sorting pairs");
    buffers = {keys.Current(), keys.Alternate(), values.Current(), values.Alternate()};
}

}  // namespace

size_t scan_scratch(int64_t count) {
    size_t bytes = 0;
    uint32_t* none = nullptr;
    check(cub::DeviceScan::InclusiveScan(nullptr, bytes, none, none, AddUpTo(), int(count)), "asking for the memory of a prefix sum");
    return bytes;
}
size_t sort_scratch(const SortBuffers<uint32_t>&, int64_t count) { return scratch_of_sort<uint32_t>(count); }
size_t sort_scratch(const SortBuffers<uint16_t>&, int64_t count) { return scratch_of_sort<uint16_t>(count); }

void scan(void* scratch, size_t bytes, uint32_t* values, int64_t count, cudaStream_t stream) {
    check(cub::DeviceScan::InclusiveScan(scratch, bytes, values, values, AddUpTo(), int(count), stream), "summing pairs");
}
void sort_pairs(void* scratch, size_t bytes, SortBuffers<uint32_t>& buffers, int64_t count, int bits, cudaStream_t stream) {
    sort(scratch, bytes, buffers, count, bits, stream);
}
void sort_pairs(void* scratch, size_t bytes, SortBuffers<uint16_t>& buffers, int64_t count, int bits, cudaStream_t stream) {
    sort(scratch, bytes, buffers, count, bits, stream);
}

}  // namespace splat
