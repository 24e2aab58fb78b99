// The depth order of the visible Gaussians.
#pragma once

#include "frame.h"

namespace splat {

// Sorts the Gaussians that have pairs by camera z, ties by index, into frame.order (front to back).
// `keys` and the two scratch arrays have room for n numbers each.
void sort_by_depth(Frame& frame, const float* depths, uint32_t* keys, uint32_t* scratch_keys, uint32_t* scratch_order);

}  // namespace splat
