// The C interface of the native engine: raw pointers and sizes, no exceptions across it, no torch.
//
// All arrays are contiguous float32, row-major, in memory of the engine's device; n Gaussians, k SH coefficients beyond
// degree 0, h x w pixels. Functions return SPLAT_OK or a negative code. A NULL pointer where "optional" is said skips that
// input or output.
#pragma once

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(_WIN32)
#define SPLAT_API __declspec(dllexport)
#else
#define SPLAT_API __attribute__((visibility("default")))
#endif

enum { SPLAT_OK = 0, SPLAT_OUT_OF_MEMORY = -1, SPLAT_BAD_ARGUMENT = -2, SPLAT_TOO_MANY_PAIRS = -3 };

typedef struct {
    int64_t n;
    int32_t k;                     // 0, 3, 8 or 15
    const float* means;            // [n, 3] scene units
    const float* quats;            // [n, 4] wxyz, any length
    const float* log_scales;       // [n, 3]
    const float* logit_opacities;  // [n]
    const float* sh0;              // [n, 3]
    const float* shN;              // [n, k, 3]
} splat_gaussians;

typedef struct {
    float viewmat[16];     // camera from world, OpenCV axes
    float fx, fy, cx, cy;  // px
    int32_t width, height; // px
    int32_t sh_degree;     // evaluated degree, at most that of k
    int32_t antialiased;   // 1: opacities are compensated for eps2d
    float eps2d;           // px^2 added to the diagonal of the screen covariance
    float background[3];
} splat_view;

typedef struct {
    float* rgb;    // [h, w, 3]
    float* alpha;  // [h, w]
    float* depth;  // [h, w] expected z: blend-weighted mean, 0 where nothing was blended; optional
} splat_image;

typedef struct {
    float* means2d;       // [n, 2] px, 0 where not visible
    float* depths;        // [n] scene units, 0 where not visible
    float* radii;         // [n] px, 0 where not visible
    uint8_t* visible;     // [n]
    float* blend_weight;  // [n], optional: sum over pixels of alpha * transmittance
} splat_aux;

typedef struct {
    const float* rgb;    // [h, w, 3]
    const float* alpha;  // [h, w], optional
    const float* depth;  // [h, w], optional; only after a forward pass with depth
} splat_image_cotangents;

typedef struct {
    float* means;            // [n, 3]
    float* quats;            // [n, 4]
    float* log_scales;       // [n, 3]
    float* logit_opacities;  // [n]
    float* sh0;              // [n, 3]
    float* shN;              // [n, k, 3]; bases beyond sh_degree get 0
    float* viewmat;          // [16], optional; the last row is 0
    float* background;       // [3], optional
    float* means2d;          // [n, 2] px, optional
    float* means2d_abs;      // [n, 2] px, optional: absolute values summed over pixels
} splat_gradients;

// One Adam step (Kingma & Ba 2015) of the six arrays of the Gaussians: means, quats, log_scales, logit_opacities, sh0, shN.
typedef struct {
    float* param[6];       // the arrays of splat_gaussians, updated in place
    float* exp_avg[6];     // [n, ...] each
    float* exp_avg_sq[6];  // [n, ...] each
    double lr[6];
    double beta1, beta2, eps;
    int64_t step;             // counts from 1
    int32_t only_touched;     // 1: Gaussians without any gradient keep their numbers and moments
    int32_t sh_degree_grows;  // 1: SH bases beyond the view's degree have never had a gradient, so their moments are 0
} splat_adam;

typedef struct {
    int64_t n_visible, n_pairs, bytes;
} splat_frame_info;

typedef struct splat_workspace splat_workspace;  // buffers of one forward/backward pair, kept and re-used between calls

// Version and the instruction sets that were compiled, for `splatinit doctor`; the string is static.
SPLAT_API const char* splat_cpu_version(void);
// Name of the instruction set in use; levels that this processor cannot run are never chosen.
SPLAT_API const char* splat_cpu_simd(void);
// Forces a level by name ("generic", "avx2", "avx512", "neon"); SPLAT_BAD_ARGUMENT if it is unknown or cannot run here.
SPLAT_API int splat_cpu_set_simd(const char* level);
SPLAT_API int splat_cpu_threads(void);
SPLAT_API void splat_cpu_set_threads(int threads);  // results do not depend on it

SPLAT_API splat_workspace* splat_cpu_workspace_create(void);  // NULL when out of memory
SPLAT_API void splat_cpu_workspace_destroy(splat_workspace*);

// Draws the Gaussians; leaves in the workspace what the backward pass of this view needs.
SPLAT_API int splat_cpu_forward(splat_workspace*, const splat_gaussians*, const splat_view*, splat_image*, splat_aux*,
                                splat_frame_info* info);
// Gradients of the last forward pass of this workspace; the same Gaussians and view must be given again. With `adam` (optional)
// they go into the Gaussians at once, to the same numbers as by splat_cpu_adam array by array: the first six pointers of
// splat_gradients are not used.
SPLAT_API int splat_cpu_backward(splat_workspace*, const splat_gaussians*, const splat_view*,
                                 const splat_image_cotangents*, splat_gradients*, const splat_adam* adam);
// How many (pixel, Gaussian) pairs the blend loop of the last forward pass evaluated, lanes that are masked off included, and
// how many it blended. Walks the tiles once more.
SPLAT_API int splat_cpu_count_pairs(splat_workspace*, const splat_view*, int64_t* evaluated, int64_t* blended);
// Fills seconds [6] with the durations of the last calls on this workspace: project, sort and bin, blend, loss, blend
// backward, project backward (with Adam, where that is part of it).
SPLAT_API void splat_cpu_timings(const splat_workspace*, double* seconds);

// loss = (1 - w) mean|x - y| + w (1 - mean ssim), w = ssim_weight, over x, y [h, w, 3] in [0, 1]; zero padding outside the
// image as in 3DGS. counts [h, w, 3], optional: where it is 0, x and y are taken as 0 (the means stay over all pixels) and the
// gradient is 0. Writes v_x [h, w, 3] = d loss / d x, and loss [3] = loss, mean|x - y|, mean ssim.
SPLAT_API int splat_cpu_l1_ssim(splat_workspace*, const float* x, const float* y, const float* counts, int width,
                                int height, float ssim_weight, float* v_x, double* loss);

// One Adam step (Kingma & Ba 2015) in place over count numbers; step counts from 1.
SPLAT_API int splat_cpu_adam(float* param, const float* grad, float* exp_avg, float* exp_avg_sq, int64_t count, double lr,
                             double beta1, double beta2, double eps, int64_t step);

// out [count] = 2^x, the exponential of the blend loop (for the test of its error).
SPLAT_API void splat_cpu_exp2(const float* x, float* out, int64_t count);

// ------------------------------------------------------------------------------------------------ multi-view stereo
// A photo for stereo. Pixel coordinates have pixel centres at +0.5.
typedef struct {
    const uint16_t* grey;       // [h, w] 1 + 65534 times grey in [0, 1]; 0 where the pixel is unusable
    int32_t width, height;      // px, 2 to 16384
    int32_t masked;             // 1 where any pixel is 0
    float from_reference[12];   // [3, 4]: x' ~ M (x, y, 1) + b / z takes a pixel of the reference at depth z here; unused
                                // for the reference itself
} splat_stereo_view;

typedef struct {
    int32_t radius;  // px of the square window: 1 to 4
    int32_t best;    // a plane's cost is the mean over so many views, those where it is smallest: 1 to the number of views
    int32_t stride;  // every so manieth pixel of the reference in both directions gets a depth: 1 to 8
    int32_t first;   // the first of them, below stride
    float noise;     // variance of grey that counts as no contrast, > 0
} splat_stereo_settings;

typedef struct {
    float smallest, largest;  // inverse depths allowed
    float steepest;           // largest |wx| + |wy| of a plane relative to its w, per px
    int32_t directions;       // from which planes of other pixels are tried: 0, 4 or 8
    int32_t tilts;            // 1: slopes are searched, too
} splat_stereo_search;

// Truncated ZNCC costs in [0, 1] of fronto-parallel planes: cost [h, hypotheses, w], stride 1 only. 1 to 16 neighbours. A view in
// which a window is not wholly inside, or touches an unusable pixel, costs 1. Neighbours are read as 1 + round(254 grey).
SPLAT_API int splat_cpu_stereo_sweep(const splat_stereo_view* reference, const splat_stereo_view* neighbours, int count,
                                     const splat_stereo_settings*, const float* inverse_depths, int hypotheses, float* cost);
// Costs [h, hypotheses, w], summed along four paths (semi-global matching): means [h, hypotheses, w] over the paths. A change to
// the next hypothesis costs `slope`, to any other `jump` / (1 + difference / edge), between pixels of a guide [h, w] (grey)
// that differ by so much.
SPLAT_API int splat_cpu_stereo_semiglobal(const float* cost, int height, int hypotheses, int width, const float* guide, float slope,
                                          float jump, float edge, float* means);
// Of costs [h, hypotheses, w], pixel by pixel [h, w]: the lowest; its hypothesis, with the vertex of the parabola through it and
// its neighbours; and the lowest local minimum more than two hypotheses away from it (1 where there is none).
SPLAT_API int splat_cpu_stereo_minima(const float* cost, int height, int hypotheses, int width, float* lowest, float* position,
                                      float* rival);
// The search for one plane per pixel of the grid [gh, gw]: planes [3, gh, gw] (inverse depth w, its slopes wx, wy per px) in
// place, cost [gh, gw]; one round per step, whose size is px in the view that moves fastest.
SPLAT_API int splat_cpu_stereo_search(const splat_stereo_view* reference, const splat_stereo_view* neighbours, int count,
                                      const splat_stereo_settings*, const splat_stereo_search*, const float* steps, int rounds,
                                      float* planes, float* cost);
// Costs of planes view by view, at their depth and one step (px, as above) behind and before it: costs [3, count, gh, gw]
// (with step 0, only [1] is written); rate [gh, gw], px per unit of inverse depth in the view that moves fastest.
SPLAT_API int splat_cpu_stereo_costs(const splat_stereo_view* reference, const splat_stereo_view* neighbours, int count,
                                     const splat_stereo_settings*, const float* planes, float step, float* costs, float* rate);

// ------------------------------------------------------------------------------------------------ radiance field
// A multiresolution hash grid (Mueller et al. 2022): a table of 2 numbers per entry, level behind level.
typedef struct {
    int32_t levels;          // 1 to 16
    int32_t cells[16];       // cubes of each level along an axis, 1 to 65535
    int32_t rows[16];        // entries of each: (cells + 1)^3 or more, so that every vertex has its own, or a power of two
} splat_grid;

// Layers of `width` numbers with ReLU between, and a linear layer; weights lie layer by layer: matrix [in, out], bias [out].
typedef struct {
    int32_t inputs;   // 1 to 64
    int32_t width;    // 1 to 64
    int32_t hidden;   // layers of that width: 1 or 2
    int32_t outputs;  // 1 to 64
} splat_mlp;

// Samples along rays, ray behind ray and front to back within.
typedef struct {
    int64_t rays, samples;
    const int64_t* first;    // [rays + 1] the first sample of each ray, ascending from 0 to samples
    const float* density;    // [samples] per scene unit, >= 0
    const float* length;     // [samples] scene units
    const float* distance;   // [samples] from the camera to the sample's middle
    const float* rgb;        // [samples, 3]
    const float* middle;     // [samples] of the sample in the coordinate of the distortion loss, ascending along a ray
    const float* extent;     // [samples] its length in that coordinate
} splat_rays;

typedef struct {
    float* weights;     // [samples] share of the sample in the light of its ray
    float* rgb;         // [rays, 3] without background
    float* opacity;     // [rays] sum of the weights
    float* depth;       // [rays] sum of weights times distance
    float* distortion;  // [rays] mip-NeRF 360, eq. 15
} splat_ray_sums;

typedef struct {
    const float* rgb;         // [rays, 3]
    const float* opacity;     // [rays], optional
    const float* depth;       // [rays], optional
    const float* distortion;  // [rays], optional
} splat_ray_cotangents;

// Where a field lives: a box, or all of space around a ball (splat/space.h).
typedef struct {
    int32_t ball;
    float low[3];   // corner of the box, or centre of the ball
    float high[3];  // opposite corner, or three times the radius
} splat_space;

// How densely rays are sampled: `coarse` even parts, whose weights follow from the densities that are remembered, say where
// `fine` samples lie; `uniform` of these are spread over all of the ray.
typedef struct {
    int32_t cells;         // of the remembered densities, along each side of the unit cube
    int32_t coarse, fine;  // coarse: 1 to 1024
    float uniform;         // in [0, 1]
    float near;            // scene units, >= 0: rays begin at this distance
} splat_sampling;

typedef struct {
    float* length;    // [rays, fine] scene units
    float* distance;  // [rays, fine] of the middle, scene units
    float* middle;    // [rays, fine] in the coordinate of the distortion loss
    float* extent;    // [rays, fine] length in that coordinate
    float* points;    // [rays, fine, 3] world coordinates of the middles
} splat_ray_samples;

// unit [n, 3] of points [n, 3].
SPLAT_API int splat_cpu_space_unit(const splat_space*, const float* points, int64_t n, float* unit);
// density [cells^3], x fastest, remembers values [n] at points [n, 3], point by point: density += rate (value - density).
SPLAT_API int splat_cpu_occupancy_put(const splat_space*, int cells, const float* points, const float* values, int64_t n, float rate,
                                      float* density);
// Samples along rays (origins, unit directions [rays, 3]); shifts [rays, 2] in [0, 1) move the parts of each, NULL: 1/2.
SPLAT_API int splat_cpu_ray_samples(const splat_space*, const splat_sampling*, const float* density, const float* origins,
                                    const float* directions, int64_t rays, const float* shifts, const splat_ray_samples*);
// encoded [n, 2 levels]: trilinear features of points [n, 3] in the unit cube; points outside count as the nearest inside.
SPLAT_API int splat_cpu_grid(const splat_grid*, const float* table, const float* points, int64_t n, float* encoded);
// v_table [sum of rows, 2]: written, not added to. Every entry is summed in the order of the points.
SPLAT_API int splat_cpu_grid_vjp(const splat_grid*, const float* points, const float* v_encoded, int64_t n, float* v_table);
// out [n, outputs] of x [n, inputs].
SPLAT_API int splat_cpu_mlp(const splat_mlp*, const float* weights, const float* x, int64_t n, float* out);
// v_x [n, inputs], optional, and v_weights; computes the hidden layers again.
SPLAT_API int splat_cpu_mlp_vjp(const splat_mlp*, const float* weights, const float* x, const float* v_out, int64_t n,
                                float* v_x, float* v_weights);
SPLAT_API int splat_cpu_rays(const splat_rays*, const splat_ray_sums*);
// v_density [samples], v_rgb [samples, 3].
SPLAT_API int splat_cpu_rays_vjp(const splat_rays*, const splat_ray_cotangents*, float* v_density, float* v_rgb);
// basis [n, (degree + 1)^2] of unit vectors [n, 3]: real spherical harmonics, degree 0 to 3.
SPLAT_API int splat_cpu_sh_basis(int degree, const float* directions, int64_t n, float* basis);

#ifdef __cplusplus
}
#endif
