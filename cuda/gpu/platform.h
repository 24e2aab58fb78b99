// What the kernels use of CUDA, from nvcc or, for tests without a GPU, from the emulation; and how they are started.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#include <cuda_runtime.h>
#else
#include "../emulation/cuda.h"
#endif

// A kernel's shared memory: one struct, the same for all threads of the block.
#if defined(__CUDACC__)
#define SPLAT_SHARED(Type, name) __shared__ Type name
#else
#define SPLAT_SHARED(Type, name) Type& name = emulation::shared<Type>()
#endif

namespace splat {

constexpr unsigned kAllLanes = 0xffffffffu;
constexpr int kWarp = 32;

// Thrown by the host side, and turned into a return code by the C interface.
struct DeviceError {
    const char* what;
    cudaError_t code;
};
struct NoDeviceMemory {};

inline void check(cudaError_t code, const char* what) {
    if (code != cudaSuccess) throw DeviceError{what, code};
}

// Starts a kernel; a grid of no blocks is no work.
template <class... P, class... A>
void launch(const char* name, void (*kernel)(P...), int64_t blocks, int threads, cudaStream_t stream, A... arguments) {
    if (blocks == 0) return;
#if defined(__CUDACC__)
    kernel<<<dim3(unsigned(blocks)), dim3(unsigned(threads)), 0, stream>>>(P(arguments)...);
    check(cudaGetLastError(), name);
#else
    (void)stream;
    auto body = [&] { kernel(P(arguments)...); };
    emulation::run(name, dim3(unsigned(blocks)), dim3(unsigned(threads)), [](void* f) { (*static_cast<decltype(body)*>(f))(); }, &body);
#endif
}

inline int64_t blocks_of(int64_t count, int64_t size) { return (count + size - 1) / size; }

// 2^x for x <= 0, error below 3e-7 of the result: the exponential of the blend loops.
__device__ __forceinline__ float fast_exp2(float x) {
#if defined(__CUDA_ARCH__)
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#else
    return std::exp2(x);
#endif
}

// 1 / x, within 2 units in the last place.
__device__ __forceinline__ float fast_inverse(float x) {
#if defined(__CUDA_ARCH__)
    return __fdividef(1.0f, x);
#else
    return 1.0f / x;
#endif
}

// Adds four numbers to global memory, aligned to 16 bytes.
__device__ __forceinline__ void add4(float* to, float4 value) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
    atomicAdd(to, value.x);
    atomicAdd(to + 1, value.y);
    atomicAdd(to + 2, value.z);
    atomicAdd(to + 3, value.w);
#else
    atomicAdd(reinterpret_cast<float4*>(to), value);
#endif
}

}  // namespace splat
