// From projected Gaussians to depth-sorted lists per tile.
#pragma once

#include "frame.h"

namespace splat {

// Sorts the Gaussians that have pairs by camera z, ties by index, into frame.order (front to back).
// `keys` and the two scratch arrays have room for n numbers each.
void sort_by_depth(Frame& frame, const float* depths, uint32_t* keys, uint32_t* scratch_keys, uint32_t* scratch_order);

// Fills tile_begin and entries from records and pair_begin. slot_tile [n_pairs] and counts [threads, tiles] are scratch.
void bin_tiles(Frame& frame, uint32_t* slot_tile, uint32_t* counts, int threads);

}  // namespace splat
