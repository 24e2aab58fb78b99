// The C interface of splat_cuda: the structs of api.h, whose pointers are device memory here, a device and a stream.
//
// Calls queue their work on `stream` (a cudaStream_t; NULL: the default stream) and return; only splat_cuda_forward waits, for
// the number of pairs, while the device has the rest of the frame to work on. Scalars and the structs themselves are
// host memory. Functions return SPLAT_OK or a negative code; splat_cuda_last_error says more of SPLAT_DEVICE_ERROR.
#pragma once

#include "api.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { SPLAT_DEVICE_ERROR = -4 };

typedef struct {
    char name[256];
    int32_t major, minor;  // compute capability
    int64_t total_bytes, free_bytes;
} splat_cuda_device;

// Number of CUDA devices that can be used; 0 where there is no driver or no device.
SPLAT_API int splat_cuda_device_count(void);
SPLAT_API int splat_cuda_device_info(int device, splat_cuda_device*);
// SPLAT_OK where this build has code that the device can run.
SPLAT_API int splat_cuda_device_check(int device);
// Version of splatinit, of the CUDA runtime it was built with, and the architectures; the string is static.
SPLAT_API const char* splat_cuda_version(void);
// What the last call of this thread that returned SPLAT_DEVICE_ERROR ran into.
SPLAT_API const char* splat_cuda_last_error(void);

// Device memory comes from the caller. Called when buffer number `buffer` of a workspace has to grow: returns at least `bytes`
// of device memory, aligned to 256, in place of what it last gave for that buffer, of which the content is given up as soon as
// the work already on the stream is done; or NULL, where there is no more.
typedef void* (*splat_cuda_allocate)(void* user, int32_t buffer, int64_t bytes);
enum { SPLAT_CUDA_BUFFERS = 40 };
// What a buffer holds, for messages; NULL where there is no buffer of that number. The string is static.
SPLAT_API const char* splat_cuda_buffer_name(int32_t buffer);

typedef struct splat_cuda_workspace splat_cuda_workspace;
// NULL where the device cannot be used.
SPLAT_API splat_cuda_workspace* splat_cuda_workspace_create(int device, splat_cuda_allocate allocate, void* user);
SPLAT_API void splat_cuda_workspace_destroy(splat_cuda_workspace*);

// Options of a workspace, by name; SPLAT_BAD_ARGUMENT if it is unknown.
//   deterministic     1: the same bits in every run; sums of gradients go through one slot per (tile, Gaussian) pair, in a fixed
//                     order, in place of atomic additions
//   timings           1: measure the stages (CUDA events), for splat_cuda_timings
//   plain_project, plain_emit, plain_blend, plain_blend_vjp, plain_loss
//                     1: the first, simple version of a kernel in place of the one that is meant to be faster
SPLAT_API int splat_cuda_set_option(splat_cuda_workspace*, const char* name, int value);

// As splat_cpu_forward. info is complete on return.
SPLAT_API int splat_cuda_forward(splat_cuda_workspace*, const splat_gaussians*, const splat_view*, splat_image*, splat_aux*,
                                 splat_frame_info* info, void* stream);
// As splat_cpu_backward.
SPLAT_API int splat_cuda_backward(splat_cuda_workspace*, const splat_gaussians*, const splat_view*, const splat_image_cotangents*,
                                  splat_gradients*, const splat_adam* adam, void* stream);
// As splat_cpu_count_pairs; waits for the result.
SPLAT_API int splat_cuda_count_pairs(splat_cuda_workspace*, const splat_view*, int64_t* evaluated, int64_t* blended, void* stream);
// As splat_cpu_timings, of calls with the option `timings`; waits for them to end.
SPLAT_API int splat_cuda_timings(splat_cuda_workspace*, double* seconds);
// As splat_cpu_l1_ssim, but loss [3] is float32 in device memory.
SPLAT_API int splat_cuda_l1_ssim(splat_cuda_workspace*, const float* x, const float* y, const float* counts, int width, int height,
                                 float ssim_weight, float* v_x, float* loss, void* stream);
// As splat_cpu_adam.
SPLAT_API int splat_cuda_adam(int device, float* param, const float* grad, float* exp_avg, float* exp_avg_sq, int64_t count, double lr,
                              double beta1, double beta2, double eps, int64_t step, void* stream);
// As splat_cpu_exp2.
SPLAT_API int splat_cuda_exp2(int device, const float* x, float* out, int64_t count, void* stream);

#ifdef __cplusplus
}
#endif
