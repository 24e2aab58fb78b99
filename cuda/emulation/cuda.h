// A small CUDA on the host: runs the kernels of gpu/ as they are, compiled by a C++ compiler, so that their results can be
// held against the reference on a machine without a GPU. For tests only; see README.md for what it finds and what it cannot.
//
// Every thread of a block is a fiber. A fiber runs until it meets a barrier or a collective of its warp, or ends; which fiber
// goes on is drawn at random, so that a missing barrier gives wrong numbers. Blocks run one after the other, in random order.
// Memory of the "device" is memory of the host. Shared memory is filled with NaNs before each block.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(8) float2 {
    float x, y;
};
struct float3 {
    float x, y, z;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline float3 make_float3(float x, float y, float z) { return {x, y, z}; }
inline float2 make_float2(float x, float y) { return {x, y}; }

namespace emulation {

constexpr unsigned kLanes = 32, kMostThreads = 1024;
constexpr size_t kSharedBytes = 48 * 1024;  // what every device gives a block without asking

struct Fiber {
    void* stack_pointer = nullptr;
    char* stack = nullptr;
    dim3 thread;
    unsigned index = 0;
    size_t shared = 0;  // bytes of shared memory that this thread has declared
    void* sanitizer = nullptr;
};

// What the lanes of a warp hand to each other.
struct Warp {
    uint64_t given[kLanes], taken[kLanes];
    unsigned arrived = 0;
    const char* collective = nullptr;
};

struct Block {
    dim3 grid, size, index;
    unsigned threads = 0, live = 0, at_barrier = 0;
    const char* kernel = "";
    int given = 0, taken = 0;  // predicates that were not 0, of __syncthreads_count and its kin
};

extern Fiber* current;
extern Block block;
extern Warp warps[kMostThreads / kLanes];
extern char shared_memory[kSharedBytes];

// Runs the body for every thread of every block.
void run(const char* kernel, dim3 grid, dim3 size, void (*body)(void*), void* argument);
void wait_for_block(int predicate);
// What each lane of this warp gave; every lane has to come by.
const uint64_t* exchange(const char* collective, uint64_t value);
[[noreturn]] void fail(const char* why);

template <class T>
T& shared() {
    const size_t at = (current->shared + alignof(T) - 1) / alignof(T) * alignof(T);
    current->shared = at + sizeof(T);
    if (current->shared > kSharedBytes) fail("more shared memory than every device has");
    return *reinterpret_cast<T*>(shared_memory + at);
}

template <class T>
uint64_t packed(T value) {
    static_assert(sizeof(T) <= 8, "a lane gives at most 8 bytes");
    uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof value);
    return bits;
}
template <class T>
T unpacked(uint64_t bits) {
    T value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}
inline unsigned lane() { return current->index % kLanes; }
inline void full(unsigned mask) {
    if (mask != 0xffffffffu) fail("a collective with part of a warp");
}

}  // namespace emulation

#define threadIdx (emulation::current->thread)
#define blockIdx (emulation::block.index)
#define blockDim (emulation::block.size)
#define gridDim (emulation::block.grid)

inline void __syncthreads() { emulation::wait_for_block(0); }
inline int __syncthreads_count(int predicate) {
    emulation::wait_for_block(predicate != 0);
    return emulation::block.taken;
}
inline int __syncthreads_or(int predicate) { return __syncthreads_count(predicate) != 0; }
inline int __syncthreads_and(int predicate) { return __syncthreads_count(predicate == 0) == 0; }
inline void __syncwarp(unsigned mask = 0xffffffffu) {
    emulation::full(mask);
    emulation::exchange("__syncwarp", 0);
}
template <class T>
T __shfl_sync(unsigned mask, T value, int from) {
    emulation::full(mask);
    return emulation::unpacked<T>(emulation::exchange("__shfl_sync", emulation::packed(value))[unsigned(from) % 32]);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits) {
    emulation::full(mask);
    return emulation::unpacked<T>(emulation::exchange("__shfl_xor_sync", emulation::packed(value))[emulation::lane() ^ unsigned(bits)]);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned by) {
    emulation::full(mask);
    const unsigned lane = emulation::lane();
    return emulation::unpacked<T>(emulation::exchange("__shfl_up_sync", emulation::packed(value))[lane >= by ? lane - by : lane]);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned by) {
    emulation::full(mask);
    const unsigned lane = emulation::lane();
    return emulation::unpacked<T>(emulation::exchange("__shfl_down_sync", emulation::packed(value))[lane + by < 32 ? lane + by : lane]);
}
inline unsigned __ballot_sync(unsigned mask, int predicate) {
    emulation::full(mask);
    const uint64_t* given = emulation::exchange("__ballot_sync", uint64_t(predicate != 0));
    unsigned bits = 0;
    for (unsigned lane = 0; lane < 32; ++lane) bits |= unsigned(given[lane]) << lane;
    return bits;
}
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __all_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) == 0xffffffffu; }

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x ? __builtin_clz(unsigned(x)) : 32; }
inline unsigned __float_as_uint(float x) { return emulation::unpacked<unsigned>(emulation::packed(x)); }
inline float __uint_as_float(unsigned x) { return emulation::unpacked<float>(emulation::packed(x)); }
template <class T>
T __ldg(const T* p) {
    return *p;
}
inline float atomicAdd(float* p, float value) {
    const float old = *p;
    *p = old + value;
    return old;
}
inline float4 atomicAdd(float4* p, float4 value) {
    const float4 old = *p;
    *p = {old.x + value.x, old.y + value.y, old.z + value.z, old.w + value.w};
    return old;
}
inline unsigned atomicAdd(unsigned* p, unsigned value) {
    const unsigned old = *p;
    *p = old + value;
    return old;
}
inline unsigned long long atomicAdd(unsigned long long* p, unsigned long long value) {
    const unsigned long long old = *p;
    *p = old + value;
    return old;
}
inline int atomicMax(int* p, int value) {
    const int old = *p;
    *p = std::max(old, value);
    return old;
}

// ------------------------------------------------------------------------------------------------ the runtime
enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorInvalidDevice = 101 };
enum cudaMemcpyKind { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice };
using cudaStream_t = void*;
using cudaEvent_t = double*;
constexpr unsigned cudaEventDisableTiming = 2, cudaEventBlockingSync = 1;

double emulation_now();

inline const char* cudaGetErrorName(cudaError_t) { return "emulated"; }
inline const char* cudaGetErrorString(cudaError_t) { return "an error of the emulation"; }
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
inline cudaError_t cudaSetDevice(int device) { return device == 0 ? cudaSuccess : cudaErrorInvalidDevice; }
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t) {
    std::memcpy(to, from, bytes);
    return cudaSuccess;
}
inline cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t) {
    std::memset(to, value, bytes);
    return cudaSuccess;
}
inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
inline cudaError_t cudaMallocHost(void** p, size_t bytes) {
    *p = std::malloc(bytes);
    return *p ? cudaSuccess : cudaErrorInvalidValue;
}
inline cudaError_t cudaFreeHost(void* p) {
    std::free(p);
    return cudaSuccess;
}
inline cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
    *event = new double(0.0);
    return cudaSuccess;
}
inline cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, 0); }
inline cudaError_t cudaEventDestroy(cudaEvent_t event) {
    delete event;
    return cudaSuccess;
}
inline cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t) {
    *event = emulation_now();
    return cudaSuccess;
}
inline cudaError_t cudaEventSynchronize(cudaEvent_t) { return cudaSuccess; }
inline cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t from, cudaEvent_t to) {
    *ms = float(1e3 * (*to - *from));
    return cudaSuccess;
}
