// The integer steps between projection and binning: numbering the pairs, and the depth order.
#pragma once

#include "frame.h"

namespace splat {

// Turns the pair counts in pair_begin [n] into first slots [n + 1], and sets n_pairs and n_visible. False where there are
// 2^31 pairs or more. part_sums [2, threads].
bool number_pairs(Frame& frame, uint64_t* part_sums, int threads);

// Fills `order` with the Gaussians that have pairs by camera z, ties by index (front to back). scratch [sort_scratch(n, threads)].
void sort_by_depth(Frame& frame, const float* depths, uint32_t* scratch, int threads);
int64_t sort_scratch(int64_t n, int threads);

}  // namespace splat
