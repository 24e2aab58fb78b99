// splat_cuda's engine on the emulation: the kernels and the C interface as they are, and in place of CUB and of the devices what
// the host has.
#include "../gpu/api.cu"

#include <cstdio>
#include <vector>

namespace splat {
namespace {

thread_local char last_error[512] = "";

template <class Key>
void sort(SortBuffers<Key>& buffers, int64_t count, int bits) {
    const Key mask = Key(bits >= int(8 * sizeof(Key)) ? ~Key(0) : (Key(1) << bits) - 1);
    std::vector<int64_t> order(size_t(count), 0);
    for (int64_t i = 0; i < count; ++i) order[size_t(i)] = i;
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return (buffers.from[a] & mask) < (buffers.from[b] & mask); });
    for (int64_t i = 0; i < count; ++i) {
        buffers.other[i] = buffers.from[order[size_t(i)]];
        buffers.values_other[i] = buffers.values_from[order[size_t(i)]];
    }
    std::swap(buffers.from, buffers.other);
    std::swap(buffers.values_from, buffers.values_other);
}

}  // namespace

size_t scan_scratch(int64_t) { return 1; }
size_t sort_scratch(const SortBuffers<uint32_t>&, int64_t) { return 1; }
size_t sort_scratch(const SortBuffers<uint16_t>&, int64_t) { return 1; }

void scan(void*, size_t, uint32_t* values, int64_t count, cudaStream_t) {
    uint32_t sum = 0;
    for (int64_t i = 0; i < count; ++i) values[i] = sum = sum + values[i] < sum ? 0xffffffffu : sum + values[i];
}
void sort_pairs(void*, size_t, SortBuffers<uint32_t>& buffers, int64_t count, int bits, cudaStream_t) { sort(buffers, count, bits); }
void sort_pairs(void*, size_t, SortBuffers<uint16_t>& buffers, int64_t count, int bits, cudaStream_t) { sort(buffers, count, bits); }

void remember(const DeviceError& error) {
    std::snprintf(last_error, sizeof last_error, "%s: %s (%s)", error.what, cudaGetErrorString(error.code), cudaGetErrorName(error.code));
}

}  // namespace splat

const char* splat_cuda_last_error(void) { return splat::last_error; }
int splat_cuda_device_count(void) { return 1; }
int splat_cuda_device_info(int device, splat_cuda_device* out) {
    if (device != 0 || !out) return SPLAT_BAD_ARGUMENT;
    *out = {"emulated on the host", 0, 0, 0, 0};
    return SPLAT_OK;
}
int splat_cuda_device_check(int device) { return device == 0 ? SPLAT_OK : SPLAT_BAD_ARGUMENT; }
const char* splat_cuda_version(void) { return SPLAT_VERSION ", emulated on the host"; }
