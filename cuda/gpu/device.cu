#include <cuda_runtime.h>

#include <cstring>

#include "../include/splat/api_cuda.h"

#define SPLAT_STRING_(x) #x
#define SPLAT_STRING(x) SPLAT_STRING_(x)

int splat_cuda_device_count(void) {
    int count = 0;
    return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}

int splat_cuda_device_info(int index, splat_cuda_device* out) {
    cudaDeviceProp properties;
    if (!out || cudaGetDeviceProperties(&properties, index) != cudaSuccess) return SPLAT_BAD_ARGUMENT;
    size_t free_bytes = 0, total_bytes = 0;
    int previous = 0;
    if (cudaGetDevice(&previous) != cudaSuccess || cudaSetDevice(index) != cudaSuccess) return SPLAT_BAD_ARGUMENT;
    const bool known = cudaMemGetInfo(&free_bytes, &total_bytes) == cudaSuccess;
    cudaSetDevice(previous);
    if (!known) return SPLAT_BAD_ARGUMENT;
    std::strncpy(out->name, properties.name, sizeof out->name - 1);
    out->name[sizeof out->name - 1] = 0;
    out->major = properties.major, out->minor = properties.minor;
    out->total_bytes = int64_t(total_bytes), out->free_bytes = int64_t(free_bytes);
    return SPLAT_OK;
}

const char* splat_cuda_version(void) { return SPLAT_VERSION ", CUDA runtime " SPLAT_STRING(CUDART_VERSION); }
