// What the last call of a thread that failed on the device ran into.
#pragma once

#include "platform.h"

namespace splat {

// Keeps the text for splat_cuda_last_error.
void remember(const DeviceError&);

}  // namespace splat
