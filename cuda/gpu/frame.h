// What one forward pass leaves for its backward pass: plain pointers into device memory, and what the kernels are told of a view.
#pragma once

#include "../include/splat/api.h"
#include "../include/splat/record.h"
#include "../include/splat/sh.h"
#include "platform.h"

namespace splat {

constexpr int kTilePixels = kTile * kTile;
constexpr int kSumFloats = 12;   // sums over pixels of one Gaussian, see Sum
constexpr int kPoseFloats = 12;  // v_W [9], v_t [3]
constexpr int kNeverStops = 0x7fffffff;
constexpr uint32_t kNoPairs = 0xffffffffu;  // depth key of a Gaussian that reaches no tile

// In the order of the CPU engine's slots.
enum Sum { kSumRgb = 0, kSumDepth = 3, kSumMoments = 4, kSumAbs = 10 };

struct View {
    Camera<float> camera;
    float eps2d;
    int antialiased, degree;
    float background[3];
};

// What the host has to know of a frame.
struct Counted {
    uint32_t pairs;    // of tiles and Gaussians
    uint32_t visible;  // Gaussians that have pairs
};

struct Frame {
    int64_t n;
    int width, height, tiles_x, tiles_y;
    Record* records;          // [n], valid where visible
    uint32_t* pairs;          // [n] tiles that each Gaussian reaches
    uint32_t* order;          // [n] Gaussians front to back; those without pairs behind all others
    uint32_t* pair_end;       // [n] in depth order: pairs of the Gaussians up to and including this one, 2^32 - 1 at most
    uint32_t* first_slot;     // [n] where the pairs of each Gaussian begin, in the order in which they are emitted
    uint32_t* tile_begin;     // [tiles + 1] first entry of each tile
    const uint32_t* entries;  // [pairs] tile by tile, front to back: the Gaussian, or with slots the slot
    // One slot per pair, for sums in a fixed order; NULL where sums are added atomically.
    uint32_t* slot_gaussian;  // [pairs]
    float* slots;             // [pairs, kSumFloats]
    uint8_t* slot_blended;    // [pairs] 1 where the slot has been written
    float* sums;              // [n, kSumFloats] in place of the slots
    float* pixel_T;           // [h, w] transmittance at the end
    int32_t* pixel_stop;      // [h, w] position in the tile's list of the Gaussian that would have saturated the pixel, or kNeverStops
    float* pixel_depth;       // [h, w] expected depth, where it was asked for
    float* pixel_weight;      // [h, w] and the weight it was divided by
    Counted* counted;         // [1]
    float* tile_background;   // [tiles, 3] partial gradients of the background
    float* pose_partial;      // [blocks of the backward projection, kPoseFloats]
};

__host__ __device__ __forceinline__ int tile_count(const Frame& f) { return f.tiles_x * f.tiles_y; }

}  // namespace splat
