// What one forward pass leaves for its backward pass: plain pointers into buffers that a workspace owns and re-uses.
#pragma once

#include <cstdint>

#include "../include/splat/record.h"

namespace splat {

constexpr int kTilePixels = 256;
constexpr int kSlotFloats = 12;       // see Slot
constexpr int kPoseFloats = 12;       // v_W [9], v_t [3]
constexpr int64_t kPoseChunk = 256;   // Gaussians whose pose gradients are summed before the chunks are; their other
                                      // gradients, 60 kB with SH 3, stay in the cache until Adam has used them
constexpr int kListed = 8;            // tiles of a Gaussian that the projection keeps for the binning

// A (tile, Gaussian) pair. Pairs are stored twice over: in tile order, sorted by depth, for blending; and `slot` numbers
// them Gaussian by Gaussian, so that the partial gradients of one Gaussian lie side by side and are summed in a fixed order.
struct Entry {
    uint32_t gaussian, slot;
};

// Partial gradients of one pair, summed over the pixels of the tile.
enum Slot { kSlotRgb = 0, kSlotDepth = 3, kSlotMoments = 4, kSlotAbs = 10 };

using LaneMask = uint64_t;  // a bit for each vector of a tile

struct Frame {
    int64_t n = 0, n_visible = 0, n_pairs = 0;
    int width = 0, height = 0, tiles_x = 0, tiles_y = 0;
    Record* records = nullptr;        // [n], valid where visible
    uint32_t* pair_begin = nullptr;   // [n + 1] first slot of each Gaussian
    uint32_t* listed = nullptr;       // [n, kListed] tiles of the Gaussians that reach no more than so many
    uint32_t* order = nullptr;        // [n_visible] Gaussians with pairs, front to back
    uint32_t* tile_begin = nullptr;   // [tiles + 1] first entry of each tile
    Entry* entries = nullptr;         // [n_pairs]
    LaneMask* entry_lanes = nullptr;  // [n_pairs] in tile order: the vectors of the tile that blended this Gaussian
    uint8_t* slot_blended = nullptr;  // [n_pairs] in slot order: 1 where any vector did
    float* slots = nullptr;           // [n_pairs, kSlotFloats]
    float* slot_weight = nullptr;     // [n_pairs] blended weight, when statistics are wanted
    float* tile_T = nullptr;          // [tiles, 256] transmittance at the end, in the tile's vector order
    float* tile_depth = nullptr;      // [tiles, 256] expected depth, where it was asked for
    float* tile_weight = nullptr;     // [tiles, 256] and the weight it was divided by
    int32_t* tile_stop = nullptr;     // [tiles, 256] position in the tile's list of the Gaussian that would have saturated
                                      // the pixel, INT32_MAX if none did; INT32_MIN outside the image
    float* tile_background = nullptr; // [tiles, 4] partial gradients of the background
    float* pose_partial = nullptr;    // [chunks, kPoseFloats]
};

}  // namespace splat
