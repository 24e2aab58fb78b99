// The loops that are compiled once per instruction set, as a table of functions. api.cpp picks a table.
#pragma once

#include "../include/splat/arguments.h"
#include "../include/splat/field.h"
#include "../include/splat/space.h"
#include "../include/splat/ssim.h"
#include "frame.h"

namespace splat {

// The images of a loss, [height, width, 3] each; counts is optional: 1 where the pixel counts, 0 where it does not.
struct SsimImages {
    const float *x, *y, *counts;
    int width, height;
};

// One Adam step of all Gaussians.
struct AdamStep {
    float* param[kFields];
    float* exp_avg[kFields];
    float* exp_avg_sq[kFields];
    float step_size[kFields];
    int64_t width[kFields];   // floats of a Gaussian
    int64_t active[kFields];  // the first so many of them: behind, gradients and moments are 0 and nothing changes
    AdamRates rates;
    bool only_touched;        // leave Gaussians without any gradient as they are, with their moments
};

// Gradients of the six arrays.
struct FieldGradients {
    float* field[kFields];
};

constexpr int kSweepViews = 16;    // neighbours of a reference
constexpr int kSweepRadius = 4;    // px, of the largest window
constexpr int kSweepNear = 2;      // hypotheses: a minimum so near to the lowest is no rival of it
constexpr int64_t kStereoPad = 16; // floats beside a row: the window's reach, and what the last vector reads

// The reference photo as stereo reads it, and the pixels that get a depth: every `stride`-th in both directions.
struct StereoGrid {
    splat_stereo_view reference;
    int64_t stride, first, width, height;  // pixel (i, j) of the grid is pixel first + stride (i, j) of the photo
    int radius;
    float noise;
    int64_t pitch;       // floats of one phase of a row
    float* values;       // [rows, stride, pitch] grey, NaN where unusable; columns x = phase + stride i side by side
    float* mean;         // [height, padded_width] of the window around each pixel of the grid
    float* inverse_n;    // NaN where the pixel itself is unusable
    float* inverse_deviation;
    const float* counted;  // for the sweep: [height, padded_width] values, 0 where unusable

    int64_t rows() const { return reference.height + 2 * radius; }
    int64_t row_floats() const { return stride * pitch; }
    int64_t padded_width() const { return (width + 15) / 16 * 16; }
    // The values at offset (d, e) px from the pixels of row j, side by side.
    const float* window(int64_t j, int64_t d, int64_t e) const {
        const int64_t column = first + d + stride * kStereoPad;
        return values + (first + j * stride + e + radius) * row_floats() + column % stride * pitch + column / stride;
    }
};

struct StereoViews {
    const splat_stereo_view* view;
    int count, best;
    const uint32_t* quads[kSweepViews];  // for the sweep: [height, width] of each view
};

// Which planes the search allows, and what it tries.
struct StereoSearch {
    float smallest, largest;  // inverse depth
    float steepest;           // |wx| + |wy| relative to w, per px
    int directions;           // 4 or 8
    bool tilts;
};

// Semi-global matching: prices of a change to the next hypothesis and to any other, and what grey counts as an edge.
struct SemiglobalRates {
    float slope, jump, edge;
};

constexpr int kMlpLayers = 3;           // matrices, at most
constexpr int64_t kMlpBlock = 64;       // samples that go through all layers together
constexpr int64_t kMlpPitch = 64;       // floats of a row of activations or of a matrix
constexpr int64_t kMlpSlots = 64;       // ranges of samples whose gradients of weights are summed apart
constexpr int64_t kMlpSlot = kMlpLayers * (kMlpPitch + 1) * kMlpPitch;     // floats of one
constexpr int64_t kMlpScratch = (kMlpLayers + 3) * kMlpBlock * kMlpPitch;  // floats of a thread
// Columns rounded up to full vectors of any instruction set.
inline int64_t mlp_padded(int64_t columns) { return (columns + 15) / 16 * 16; }

// The layers of an MLP, filled up with zeros to rows of kMlpPitch.
struct MlpLayers {
    int layers;
    int64_t in[kMlpLayers], out[kMlpLayers];
    const float* matrix[kMlpLayers];      // [in, out]
    const float* transposed[kMlpLayers];  // [out, in]
    const float* bias[kMlpLayers];        // [out]
};

struct Kernels {
    const char* name;
    int lanes;

    // Fills records, pair counts (in pair_begin[i]) and the per-Gaussian outputs of `aux`.
    void (*project)(const splat_gaussians&, const splat_view&, Frame&, splat_aux&, int threads);
    // Lists the Gaussians of each tile front to back, once the counts are summed and the order is known.
    void (*bin)(Frame&, uint32_t* slot_tile, uint32_t* counts, int threads);
    // Blends every tile front to back.
    void (*blend)(const splat_view&, Frame&, splat_image&, bool with_weight, int threads);
    // Blends back to front and fills slots and tile_background.
    void (*blend_vjp)(const splat_view&, Frame&, const splat_image_cotangents&, bool with_abs, int threads);
    // Sums the slots of each Gaussian and carries them through SH, projection and activations: to `grads`, or, with `adam`,
    // chunk by chunk to `staging` [threads, staging_floats(k)] and from there into the Gaussians.
    void (*project_vjp)(const splat_gaussians&, const splat_view&, Frame&, splat_gradients& grads, const AdamStep* adam,
                        float* staging, int threads);
    // Adds to counts [threads, 2] the (pixel, Gaussian) pairs that the last blend evaluated, and those it blended.
    void (*count_pairs)(const splat_view&, Frame&, int64_t* counts, int threads);

    // v_x [h, w, 3] = l1_scale sign(x - y) + ssim_scale d(sum of ssim) / dx; loss [h, strips, 2]: sums of |x - y| and of ssim
    // over a row of a strip; scratch [threads, ssim_scratch(strip_width)]. Strips are those of the SsimGrid.
    void (*ssim)(const SsimImages&, float l1_scale, float ssim_scale, float* v_x, double* loss, float* scratch, int threads);
    void (*adam)(float* param, const float* grad, float* exp_avg, float* exp_avg_sq, int64_t count, const AdamRates&,
                 float step_size, int threads);
    void (*exp2)(const float* x, float* out, int64_t count);  // the exponential of the blend loop, for its error test

    // Fills the arrays of a StereoGrid.
    void (*stereo_prepare)(const StereoGrid&, int threads);
    // Fills quads [height, width] of a neighbour; the last row and column have none.
    void (*stereo_quads)(const splat_stereo_view&, uint32_t* quads, int threads);
    // Fills counted, of a grid of stride 1.
    void (*stereo_counted)(const StereoGrid&, float* counted, int threads);
    // cost [height, hypotheses, width] of a grid of stride 1; scratch [threads, scratch_floats], see stereo_scratch.
    void (*stereo_sweep)(const StereoGrid&, const StereoViews&, const float* inverse_depths, int64_t hypotheses, float* cost,
                         float* scratch, int64_t scratch_floats, int threads);
    // sums [height, hypotheses, width]: costs of the same shape along four paths; guide [height, width] of grey; scratch
    // [threads, scratch_floats], see semiglobal_scratch.
    void (*stereo_semiglobal)(const float* cost, int64_t height, int64_t hypotheses, int64_t width, const float* guide,
                              const SemiglobalRates&, float* sums, float* scratch, int64_t scratch_floats, int threads);
    // lowest, position, rival [height, width] of costs [height, hypotheses, width].
    void (*stereo_minima)(const float* volume, int64_t height, int64_t hypotheses, int64_t width, float* lowest,
                          float* position, float* rival, int threads);
    // costs [3, views, height, width] of given planes, moved by -step, 0 and step px; rate [height, width].
    void (*stereo_costs)(const StereoGrid&, const StereoViews&, const float* planes, float step, float* costs, float* rate,
                         int threads);
    // One round of the search between padded maps [4, height, padded_width + 2 kStereoPad]; step 0 only prices the planes.
    void (*stereo_search)(const StereoGrid&, const StereoViews&, const StereoSearch&, const float* from, float* to, float step,
                          int threads);

    // See the functions of these names in api.h; `count` levels; scratch [threads, kMlpScratch]; slots [slot_count, kMlpSlot].
    void (*grid)(const GridLevel*, int count, const float* table, const float* points, int64_t n, float* encoded, int threads);
    void (*grid_vjp)(const GridLevel*, int count, const float* points, const float* v_encoded, int64_t n, float* v_table,
                     int threads);
    void (*mlp)(const MlpLayers&, const float* x, int64_t n, float* out, float* scratch, int threads);
    void (*mlp_vjp)(const MlpLayers&, const float* x, const float* v_out, int64_t n, float* v_x, float* slots,
                    int64_t slot_count, float* scratch, int threads);
    void (*rays)(const splat_rays&, const splat_ray_sums&, int threads);
    void (*rays_vjp)(const splat_rays&, const splat_ray_cotangents&, float* v_density, float* v_rgb, int threads);
    void (*space_unit)(const Space<float>&, const float* points, int64_t n, float* unit, int threads);
    void (*occupancy_put)(const Space<float>&, uint32_t cells, const float* points, const float* values, int64_t n, float rate,
                          float* density);
    void (*ray_samples)(const Space<float>&, const splat_sampling&, const float* density, const float* origins,
                        const float* directions, int64_t rays, const float* shifts, const splat_ray_samples&, int threads);
    void (*sh_basis)(int degree, const float* directions, int64_t n, float* basis, int threads);
};

const Kernels& kernels_generic();
#ifdef SPLAT_X86
const Kernels& kernels_avx2();
const Kernels& kernels_avx512();
#elif defined(SPLAT_ARM64)
const Kernels& kernels_neon();
#endif

// Floats of one chunk's gradients.
inline int64_t staging_floats(int64_t k) { return kPoseChunk * (14 + 3 * k); }

// Floats that one thread of the sweep needs: rows of every neighbour, their sums, and their costs.
inline int64_t stereo_scratch(const StereoGrid& grid, int views) {
    const int64_t width = grid.padded_width();
    return views * (2 * grid.radius + 1) * width + 3 * (width + 2 * kStereoPad) + views * width + 16;
}

constexpr int kSsimMoments = 4;  // x, y, x^2 + y^2, (x - y)^2
constexpr int kSsimHalo = 16;    // floats beside a strip that its filter reads: 3 * kSsimRadius, rounded to a vector
constexpr int kSsimRowPad = 64;  // floats beside a row of input, of which the filter reads up to kSsimHalo

// How an image is shared out: strips of columns narrow enough for their rings to stay in a core's cache, bands of rows.
struct SsimGrid {
    int strips, bands;
    int64_t strip_width;  // floats, a multiple of every kLanes

    SsimGrid(int width, int height, int threads) {
        const int64_t count = int64_t(width) * 3;
        strips = int((count + 511) / 512);
        strip_width = ((count + strips - 1) / strips + 15) / 16 * 16;
        bands = threads < height / 64 ? threads : height / 64;  // a band repeats up to 20 rows of its neighbours
        if (bands < 1) bands = 1;
    }
};

// Floats from one row of a ring to the next: an odd number of cache lines, or rows of a power of two would fall on top of each
// other in the cache (a 480 float strip: 1.5x slower).
inline int64_t ssim_pitch(int64_t stride) { return (stride + 15) / 16 * 16 + ((stride + 15) / 16 % 2 ? 0 : 16); }

// Floats of the rings of one filter: 11 rows, one padded input row per map and a row of zeros.
inline int64_t ssim_ring_floats(int64_t maps, int64_t stride) {
    return (2 * kSsimRadius + 1) * maps * ssim_pitch(stride) + maps * (stride + 2 * kSsimRowPad) + stride;
}

// Floats that one thread needs: two filters, one behind the other.
inline int64_t ssim_scratch(int64_t strip_width) {
    return ssim_ring_floats(kSsimMoments, strip_width + 2 * kSsimHalo) + ssim_ring_floats(3, strip_width);
}

// Hypotheses rounded up to full vectors of any instruction set.
inline int64_t semiglobal_pitch(int64_t hypotheses) { return (hypotheses + 15) / 16 * 16; }
// Floats that one thread of semi-global matching needs: a row and its sums turned around and what came before, or a strip.
inline int64_t semiglobal_scratch(int64_t hypotheses, int64_t width) {
    const int64_t pitch = semiglobal_pitch(hypotheses), row = 2 * width * pitch + pitch + 32, strip = 4 * (hypotheses + 2) * 16;
    return row > strip ? row : strip;
}

}  // namespace splat
