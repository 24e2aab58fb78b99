// The C interface of splat_cuda. In this version it only knows the devices; its engine will take the structs of api.h with
// device pointers and a stream.
#pragma once

#include "api.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    char name[256];
    int32_t major, minor;  // compute capability
    int64_t total_bytes, free_bytes;
} splat_cuda_device;

// Number of CUDA devices that can be used; 0 where there is no driver or no device.
SPLAT_API int splat_cuda_device_count(void);
SPLAT_API int splat_cuda_device_info(int index, splat_cuda_device*);
// Version of splatinit and of the CUDA runtime it was built with; the string is static.
SPLAT_API const char* splat_cuda_version(void);

#ifdef __cplusplus
}
#endif
