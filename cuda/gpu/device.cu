// Which devices there are, what this build has code for, and what went wrong on them.
#include <cstdio>
#include <cstring>

#include "../include/splat/api_cuda.h"
#include "errors.h"

#define SPLAT_STRING_(x) #x
#define SPLAT_STRING(x) SPLAT_STRING_(x)

namespace splat {
namespace {

thread_local char last_error[512] = "";

__global__ void probe_kernel() {}

}  // namespace

void remember(const DeviceError& error) {
    std::snprintf(last_error, sizeof last_error, "%s: %s (%s)", error.what, cudaGetErrorString(error.code), cudaGetErrorName(error.code));
    cudaGetLastError();  // an error that is told must not be found again by the next call
}

}  // namespace splat

const char* splat_cuda_last_error(void) { return splat::last_error; }

int splat_cuda_device_count(void) {
    int count = 0;
    return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}

int splat_cuda_device_info(int device, splat_cuda_device* out) {
    cudaDeviceProp properties;
    if (!out || cudaGetDeviceProperties(&properties, device) != cudaSuccess) return SPLAT_BAD_ARGUMENT;
    size_t free_bytes = 0, total_bytes = 0;
    int previous = 0;
    if (cudaGetDevice(&previous) != cudaSuccess || cudaSetDevice(device) != cudaSuccess) return SPLAT_BAD_ARGUMENT;
    const bool known = cudaMemGetInfo(&free_bytes, &total_bytes) == cudaSuccess;
    cudaSetDevice(previous);
    if (!known) return SPLAT_BAD_ARGUMENT;
    std::strncpy(out->name, properties.name, sizeof out->name - 1);
    out->name[sizeof out->name - 1] = 0;
    out->major = properties.major, out->minor = properties.minor;
    out->total_bytes = int64_t(total_bytes), out->free_bytes = int64_t(free_bytes);
    return SPLAT_OK;
}

int splat_cuda_device_check(int device) {
    int previous = 0;
    cudaFuncAttributes attributes;
    cudaError_t code = cudaGetDevice(&previous);
    if (code == cudaSuccess) code = cudaSetDevice(device);
    if (code == cudaSuccess) code = cudaFuncGetAttributes(&attributes, splat::probe_kernel);
    if (code == cudaSuccess) {
        cudaSetDevice(previous);
        return SPLAT_OK;
    }
    splat::remember({"looking for code that the device can run", code});
    cudaSetDevice(previous);
    return SPLAT_DEVICE_ERROR;
}

const char* splat_cuda_version(void) {
    return SPLAT_VERSION ", CUDA runtime " SPLAT_STRING(CUDART_VERSION) ", architectures " SPLAT_ARCHITECTURES;
}
