// The C interface: checks, buffers, dispatch, and the order of the stages.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <new>

#include "../include/splat/arguments.h"
#include "../include/splat/projection.h"
#include "kernels.h"
#include "parallel.h"
#include "sort.h"

namespace splat {
namespace {

// A growing array that never shrinks and does not keep its content when it grows.
template <class T>
struct Buffer {
    T* data = nullptr;
    size_t capacity = 0;

    T* reserve(size_t count) {
        if (count > capacity) {
            release();
            const size_t wanted = count + count / 4;
            const size_t bytes = (wanted * sizeof(T) + 63) / 64 * 64;
            data = static_cast<T*>(std::aligned_alloc(64, std::max<size_t>(bytes, 64)));
            if (!data) throw std::bad_alloc();
            capacity = wanted;
        }
        return data;
    }
    void release() {
        std::free(data);
        data = nullptr;
        capacity = 0;
    }
    size_t bytes() const { return capacity * sizeof(T); }
    ~Buffer() { release(); }
};

constexpr int64_t kSortedByOne = 100000;  // Gaussians: 2 ms by one thread

enum Stage { kProject, kBin, kBlend, kLoss, kBlendVjp, kProjectVjp, kStages };

double now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

const Kernels* best_kernels() {
#ifdef SPLAT_X86
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512bw"))
        return &kernels_avx512();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return &kernels_avx2();
    return &kernels_generic();
#elif defined(SPLAT_ARM64)
    return &kernels_neon();  // part of every 64-bit ARM processor
#else
    return &kernels_generic();
#endif
}

const Kernels*& active() {
    static const Kernels* kernels = best_kernels();
    return kernels;
}

int& thread_setting() {
    static int threads = std::max(1, most_threads());
    return threads;
}

// False where the arguments do not fit together: the update goes into the very arrays that were drawn.
bool adam_step_of(const splat_gaussians& g, const splat_view& view, const splat_adam& adam, AdamStep& out) {
    const int64_t k = g.k, k_active = (view.sh_degree + 1) * (view.sh_degree + 1) - 1;
    const int64_t width[kFields] = {3, 4, 3, 1, 3, 3 * k};
    if (!fits(g, adam)) return false;
    for (int field = 0; field < kFields; ++field) {
        out.param[field] = adam.param[field];
        out.exp_avg[field] = adam.exp_avg[field];
        out.exp_avg_sq[field] = adam.exp_avg_sq[field];
        out.step_size[field] = adam_step_size(adam.lr[field], adam.beta1, adam.step);
        out.width[field] = out.active[field] = width[field];
    }
    if (adam.sh_degree_grows) out.active[kFields - 1] = 3 * k_active;
    out.rates = adam_rates(adam.beta1, adam.beta2, adam.eps, adam.step);
    out.only_touched = adam.only_touched;
    return true;
}

}  // namespace
}  // namespace splat

using namespace splat;

struct splat_workspace {
    Frame frame;
    Buffer<Record> records;
    Buffer<uint32_t> pair_begin, listed, order, tile_begin;
    Buffer<LaneMask> entry_lanes;
    Buffer<uint8_t> slot_blended;
    Buffer<uint32_t> sorting, slot_tile, counts;
    Buffer<uint64_t> part_sums;
    Buffer<Entry> entries;
    Buffer<float> slots, slot_weight, tile_T, tile_depth, tile_weight, tile_background, pose_partial;
    Buffer<float> ssim_rings, staging;
    Buffer<int32_t> tile_stop;
    Buffer<double> loss_parts;
    double seconds[kStages] = {};

    int64_t bytes() const {
        return int64_t(records.bytes() + pair_begin.bytes() + listed.bytes() + order.bytes() + tile_begin.bytes() + entry_lanes.bytes() +
                       slot_blended.bytes() + sorting.bytes() + part_sums.bytes() + staging.bytes() +
                       slot_tile.bytes() + counts.bytes() + entries.bytes() + slots.bytes() + slot_weight.bytes() +
                       tile_T.bytes() + tile_depth.bytes() + tile_weight.bytes() + tile_background.bytes() +
                       pose_partial.bytes() + ssim_rings.bytes() +
                       tile_stop.bytes() + loss_parts.bytes());
    }
};

const char* splat_cpu_version(void) {
#ifdef SPLAT_X86
    return SPLAT_VERSION " (levels: generic, avx2, avx512)";
#elif defined(SPLAT_ARM64)
    return SPLAT_VERSION " (levels: generic, neon)";
#else
    return SPLAT_VERSION " (levels: generic)";
#endif
}

const char* splat_cpu_simd(void) { return active()->name; }

int splat_cpu_set_simd(const char* level) {
    if (!std::strcmp(level, "generic")) {
        active() = &kernels_generic();
        return SPLAT_OK;
    }
#ifdef SPLAT_X86
    const Kernels* best = best_kernels();
    if (!std::strcmp(level, "avx2") && best != &kernels_generic()) {
        active() = &kernels_avx2();
        return SPLAT_OK;
    }
    if (!std::strcmp(level, "avx512") && best == &kernels_avx512()) {
        active() = &kernels_avx512();
        return SPLAT_OK;
    }
#elif defined(SPLAT_ARM64)
    if (!std::strcmp(level, "neon")) {
        active() = &kernels_neon();
        return SPLAT_OK;
    }
#endif
    return SPLAT_BAD_ARGUMENT;
}

int splat_cpu_threads(void) { return thread_setting(); }
void splat_cpu_set_threads(int threads) { thread_setting() = std::max(1, std::min(threads, 1024)); }

splat_workspace* splat_cpu_workspace_create(void) { return new (std::nothrow) splat_workspace; }
void splat_cpu_workspace_destroy(splat_workspace* ws) { delete ws; }

int splat_cpu_forward(splat_workspace* ws, const splat_gaussians* g, const splat_view* view, splat_image* image,
                      splat_aux* aux, splat_frame_info* info) try {
    if (!ws || !g || !view || !image || !aux || !valid(*g, *view)) return SPLAT_BAD_ARGUMENT;
    const Kernels& kernels = *active();
    const int threads = thread_setting();
    Frame& f = ws->frame;
    const double start = now();
    f.n = g->n;
    f.width = view->width, f.height = view->height;
    f.tiles_x = (f.width + kTile - 1) / kTile, f.tiles_y = (f.height + kTile - 1) / kTile;
    const size_t n = size_t(f.n), tiles = size_t(f.tiles_x) * size_t(f.tiles_y);
    f.records = ws->records.reserve(n);
    f.pair_begin = ws->pair_begin.reserve(n + 1);
    f.listed = ws->listed.reserve(n * kListed);
    f.order = ws->order.reserve(n);
    f.tile_begin = ws->tile_begin.reserve(tiles + 1);
    f.tile_T = ws->tile_T.reserve(tiles * kTilePixels);
    f.tile_stop = ws->tile_stop.reserve(tiles * kTilePixels);
    f.tile_depth = image->depth ? ws->tile_depth.reserve(tiles * kTilePixels) : nullptr;
    f.tile_weight = image->depth ? ws->tile_weight.reserve(tiles * kTilePixels) : nullptr;
    kernels.project(*g, *view, f, *aux, threads);
    const double projected = now();

    // The sort has eight parallel loops: where another process wants the cores, to wait eight times costs more than is saved.
    const int sorters = f.n < kSortedByOne ? 1 : threads;
    if (!number_pairs(f, ws->part_sums.reserve(2 * size_t(sorters)), sorters)) return SPLAT_TOO_MANY_PAIRS;
    const size_t pairs = size_t(f.n_pairs);
    f.entries = ws->entries.reserve(pairs);
    f.entry_lanes = ws->entry_lanes.reserve(pairs);
    f.slot_blended = ws->slot_blended.reserve(pairs);
    if (aux->blend_weight) f.slot_weight = ws->slot_weight.reserve(pairs);
    sort_by_depth(f, aux->depths, ws->sorting.reserve(size_t(sort_scratch(f.n, sorters))), sorters);
    kernels.bin(f, ws->slot_tile.reserve(pairs), ws->counts.reserve(size_t(threads) * tiles), threads);
    const double binned = now();

    kernels.blend(*view, f, *image, aux->blend_weight != nullptr, threads);
    if (aux->blend_weight)
        parallel_for(f.n, 4096, threads, [&](int64_t i, int) {
            float sum = 0.0f;
            for (uint32_t s = f.pair_begin[i]; s < f.pair_begin[i + 1]; ++s) sum += f.slot_weight[s];
            aux->blend_weight[i] = sum;
        });
    const double blended = now();
    ws->seconds[kProject] = projected - start;
    ws->seconds[kBin] = binned - projected;
    ws->seconds[kBlend] = blended - binned;
    if (info) *info = {f.n_visible, f.n_pairs, ws->bytes()};
    return SPLAT_OK;
} catch (const std::bad_alloc&) {
    return SPLAT_OUT_OF_MEMORY;
}

int splat_cpu_backward(splat_workspace* ws, const splat_gaussians* g, const splat_view* view,
                       const splat_image_cotangents* v_image, splat_gradients* grads, const splat_adam* adam) try {
    if (!ws || !g || !view || !v_image || !grads || !v_image->rgb || !valid(*g, *view) || ws->frame.n != g->n ||
        ws->frame.width != view->width || ws->frame.height != view->height ||
        (v_image->depth && !ws->frame.tile_depth))
        return SPLAT_BAD_ARGUMENT;
    AdamStep update;
    if (adam && !adam_step_of(*g, *view, *adam, update)) return SPLAT_BAD_ARGUMENT;
    const Kernels& kernels = *active();
    const int threads = thread_setting();
    Frame& f = ws->frame;
    const double start = now();
    const int64_t tiles = int64_t(f.tiles_x) * f.tiles_y;
    const int64_t chunks = (f.n + kPoseChunk - 1) / kPoseChunk;
    f.slots = ws->slots.reserve(size_t(f.n_pairs) * kSlotFloats);
    f.tile_background = ws->tile_background.reserve(size_t(tiles) * 4);
    f.pose_partial = ws->pose_partial.reserve(size_t(chunks) * kPoseFloats);
    float* staging = adam ? ws->staging.reserve(size_t(threads) * size_t(staging_floats(g->k))) : nullptr;
    kernels.blend_vjp(*view, f, *v_image, grads->means2d_abs != nullptr, threads);
    const double blended = now();
    kernels.project_vjp(*g, *view, f, *grads, adam ? &update : nullptr, staging, threads);

    if (grads->background) {
        double sum[3] = {};
        for (int64_t tile = 0; tile < tiles; ++tile)
            for (int c = 0; c < 3; ++c) sum[c] += double(f.tile_background[4 * tile + c]);
        for (int c = 0; c < 3; ++c) grads->background[c] = float(sum[c]);
    }
    if (grads->viewmat) {
        double sum[kPoseFloats] = {};
        for (int64_t chunk = 0; chunk < chunks; ++chunk)
            for (int j = 0; j < kPoseFloats; ++j) sum[j] += double(f.pose_partial[chunk * kPoseFloats + j]);
        for (int i = 0; i < 3; ++i) {
            for (int j = 0; j < 3; ++j) grads->viewmat[4 * i + j] = float(sum[3 * i + j]);
            grads->viewmat[4 * i + 3] = float(sum[9 + i]);
        }
        for (int j = 0; j < 4; ++j) grads->viewmat[12 + j] = 0.0f;
    }
    ws->seconds[kBlendVjp] = blended - start;
    ws->seconds[kProjectVjp] = now() - blended;
    return SPLAT_OK;
} catch (const std::bad_alloc&) {
    return SPLAT_OUT_OF_MEMORY;
}

void splat_cpu_timings(const splat_workspace* ws, double* seconds) {
    for (int i = 0; i < kStages; ++i) seconds[i] = ws->seconds[i];
}

int splat_cpu_l1_ssim(splat_workspace* ws, const float* x, const float* y, const float* counts, int width, int height,
                      float ssim_weight, float* v_x, double* loss) try {
    if (!ws || !x || !y || !v_x || !loss || width < 1 || height < 1) return SPLAT_BAD_ARGUMENT;
    const double start = now();
    const int threads = thread_setting();
    const SsimGrid grid(width, height, threads);
    const int64_t sums = int64_t(height) * grid.strips;
    double* parts = ws->loss_parts.reserve(size_t(sums) * 2);
    float* scratch = ws->ssim_rings.reserve(size_t(threads) * size_t(ssim_scratch(grid.strip_width)));
    const double count = 3.0 * width * height, w = double(ssim_weight);
    active()->ssim({x, y, counts, width, height}, float((1.0 - w) / count), float(-w / count), v_x, parts, scratch, threads);
    double l1 = 0.0, ssim = 0.0;
    for (int64_t i = 0; i < sums; ++i) l1 += parts[2 * i], ssim += parts[2 * i + 1];
    l1 /= count, ssim /= count;
    loss[0] = (1.0 - w) * l1 + w * (1.0 - ssim);
    loss[1] = l1, loss[2] = ssim;
    ws->seconds[kLoss] = now() - start;
    return SPLAT_OK;
} catch (const std::bad_alloc&) {
    return SPLAT_OUT_OF_MEMORY;
}

int splat_cpu_adam(float* param, const float* grad, float* exp_avg, float* exp_avg_sq, int64_t count, double lr,
                   double beta1, double beta2, double eps, int64_t step) {
    if (count < 0 || step < 1 || (count > 0 && (!param || !grad || !exp_avg || !exp_avg_sq))) return SPLAT_BAD_ARGUMENT;
    active()->adam(param, grad, exp_avg, exp_avg_sq, count, adam_rates(beta1, beta2, eps, step),
                   adam_step_size(lr, beta1, step), thread_setting());
    return SPLAT_OK;
}

int splat_cpu_count_pairs(splat_workspace* ws, const splat_view* view, int64_t* evaluated, int64_t* blended) try {
    if (!ws || !view || !evaluated || !blended || ws->frame.width != view->width || ws->frame.height != view->height)
        return SPLAT_BAD_ARGUMENT;
    const int threads = thread_setting();
    Buffer<int64_t> counts;
    int64_t* parts = counts.reserve(2 * size_t(threads));
    std::fill_n(parts, 2 * threads, 0);
    active()->count_pairs(*view, ws->frame, parts, threads);
    *evaluated = *blended = 0;
    for (int part = 0; part < threads; ++part) *evaluated += parts[2 * part], *blended += parts[2 * part + 1];
    return SPLAT_OK;
} catch (const std::bad_alloc&) {
    return SPLAT_OUT_OF_MEMORY;
}

void splat_cpu_exp2(const float* x, float* out, int64_t count) { active()->exp2(x, out, count); }

namespace {

bool valid(const splat_stereo_view& view) {
    return view.grey && view.width >= 2 && view.height >= 2 && view.width <= 16384 && view.height <= 16384;
}

// A reference with the arrays that stereo reads of it.
struct Stereo {
    StereoGrid grid;
    StereoViews views;
    Buffer<float> values, statistics;
    int threads = thread_setting();

    // False where the arguments do not fit together; then nothing is allocated.
    bool prepare(const splat_stereo_view* reference, const splat_stereo_view* neighbours, int count,
                 const splat_stereo_settings* s) {
        if (!reference || !neighbours || !s || !valid(*reference) || count < 1 || count > kSweepViews || s->radius < 1 ||
            s->radius > kSweepRadius || s->best < 1 || s->best > count || s->stride < 1 || s->stride > 8 || s->first < 0 ||
            s->first >= s->stride || s->first >= reference->width || s->first >= reference->height || !(s->noise > 0))
            return false;
        for (int k = 0; k < count; ++k)
            if (!valid(neighbours[k])) return false;
        grid.reference = *reference;
        grid.stride = s->stride, grid.first = s->first, grid.radius = s->radius, grid.noise = s->noise;
        grid.width = (reference->width - s->first + s->stride - 1) / s->stride;
        grid.height = (reference->height - s->first + s->stride - 1) / s->stride;
        grid.pitch = ((reference->width + s->stride - 1) / s->stride + 15) / 16 * 16 + 2 * kStereoPad;
        views = {neighbours, count, s->best, {}};
        grid.values = values.reserve(size_t(grid.rows() * grid.row_floats()));
        const size_t size = size_t(grid.height * grid.padded_width());
        grid.mean = statistics.reserve(3 * size);
        grid.inverse_n = grid.mean + size, grid.inverse_deviation = grid.inverse_n + size;
        active()->stereo_prepare(grid, threads);
        return true;
    }
};

}  // namespace

int splat_cpu_stereo_sweep(const splat_stereo_view* reference, const splat_stereo_view* neighbours, int count,
                           const splat_stereo_settings* settings, const float* inverse_depths, int hypotheses,
                           float* cost) try {
    Stereo stereo;
    if (!inverse_depths || !cost || hypotheses < 1 || !settings || settings->stride != 1 ||
        !stereo.prepare(reference, neighbours, count, settings))
        return SPLAT_BAD_ARGUMENT;
    const int64_t floats = stereo_scratch(stereo.grid, count);
    Buffer<float> scratch, counted;
    stereo.grid.counted = counted.reserve(size_t(stereo.grid.height * stereo.grid.padded_width()));
    Buffer<uint32_t> quads[kSweepViews];
    for (int k = 0; k < count; ++k) {
        stereo.views.quads[k] = quads[k].reserve(size_t(neighbours[k].height) * size_t(neighbours[k].width));
        active()->stereo_quads(neighbours[k], quads[k].data, stereo.threads);
    }
    active()->stereo_counted(stereo.grid, counted.data, stereo.threads);
    active()->stereo_sweep(stereo.grid, stereo.views, inverse_depths, hypotheses, cost,
                           scratch.reserve(size_t(stereo.threads * floats)), floats, stereo.threads);
    return SPLAT_OK;
} catch (const std::bad_alloc&) {
    return SPLAT_OUT_OF_MEMORY;
}

int splat_cpu_stereo_semiglobal(const float* cost, int height, int hypotheses, int width, const float* guide, float slope,
                                float jump, float edge, float* means) try {
    if (!cost || !guide || !means || height < 1 || hypotheses < 1 || width < 1 || !(slope >= 0) || !(jump >= slope) ||
        !(edge > 0))
        return SPLAT_BAD_ARGUMENT;
    const int threads = thread_setting();
    const int64_t floats = semiglobal_scratch(hypotheses, width);
    Buffer<float> scratch;
    active()->stereo_semiglobal(cost, height, hypotheses, width, guide, {slope, jump, edge}, means,
                                scratch.reserve(size_t(threads * floats)), floats, threads);
    return SPLAT_OK;
} catch (const std::bad_alloc&) {
    return SPLAT_OUT_OF_MEMORY;
}

int splat_cpu_stereo_minima(const float* cost, int height, int hypotheses, int width, float* lowest, float* position,
                            float* rival) {
    if (!cost || !lowest || !position || !rival || height < 1 || hypotheses < 1 || width < 1) return SPLAT_BAD_ARGUMENT;
    active()->stereo_minima(cost, height, hypotheses, width, lowest, position, rival, thread_setting());
    return SPLAT_OK;
}

int splat_cpu_stereo_search(const splat_stereo_view* reference, const splat_stereo_view* neighbours, int count,
                            const splat_stereo_settings* settings, const splat_stereo_search* search, const float* steps,
                            int rounds, float* planes, float* cost) try {
    Stereo stereo;
    if (!search || !planes || !cost || rounds < 0 || (rounds > 0 && !steps) ||
        (search->directions != 0 && search->directions != 4 && search->directions != 8) || !(search->smallest >= 0) ||
        !(search->largest >= search->smallest) || !(search->steepest >= 0) ||
        !stereo.prepare(reference, neighbours, count, settings))
        return SPLAT_BAD_ARGUMENT;
    for (int round = 0; round < rounds; ++round)
        if (!(steps[round] > 0)) return SPLAT_BAD_ARGUMENT;
    const StereoGrid& grid = stereo.grid;
    const StereoSearch wanted = {search->smallest, search->largest, search->steepest, search->directions,
                                 search->tilts != 0};
    const int64_t pitch = grid.padded_width() + 2 * kStereoPad, size = grid.height * pitch;
    Buffer<float> maps[2];
    for (Buffer<float>& map : maps) {
        float* m = map.reserve(size_t(4 * size));
        std::fill_n(m, 3 * size, 0.0f);
        std::fill_n(m + 3 * size, size, 2.0f);  // beside the grid: dearer than any plane, so never taken
    }
    float *from = maps[0].data, *to = maps[1].data;
    for (int m = 0; m < 3; ++m)
        for (int64_t j = 0; j < grid.height; ++j)
            std::copy_n(planes + (m * grid.height + j) * grid.width, grid.width, from + m * size + j * pitch + kStereoPad);
    for (int round = -1; round < rounds; ++round) {
        active()->stereo_search(grid, stereo.views, wanted, from, to, round < 0 ? 0.0f : steps[round], stereo.threads);
        std::swap(from, to);
    }
    for (int m = 0; m < 4; ++m)
        for (int64_t j = 0; j < grid.height; ++j)
            std::copy_n(from + m * size + j * pitch + kStereoPad, grid.width,
                        (m < 3 ? planes + m * grid.height * grid.width : cost) + j * grid.width);
    return SPLAT_OK;
} catch (const std::bad_alloc&) {
    return SPLAT_OUT_OF_MEMORY;
}

int splat_cpu_stereo_costs(const splat_stereo_view* reference, const splat_stereo_view* neighbours, int count,
                           const splat_stereo_settings* settings, const float* planes, float step, float* costs,
                           float* rate) try {
    Stereo stereo;
    if (!planes || !costs || !rate || !(step >= 0) || !stereo.prepare(reference, neighbours, count, settings))
        return SPLAT_BAD_ARGUMENT;
    active()->stereo_costs(stereo.grid, stereo.views, planes, step, costs, rate, stereo.threads);
    return SPLAT_OK;
} catch (const std::bad_alloc&) {
    return SPLAT_OUT_OF_MEMORY;
}

// ------------------------------------------------------------------------------------------------------ radiance field
namespace {

// False where the description makes no sense; all rows together are less than 2^31.
bool grid_levels(const splat_grid* grid, GridLevel* levels) {
    if (!grid || grid->levels < 1 || grid->levels > kGridLevels) return false;
    int64_t offset = 0;
    for (int l = 0; l < grid->levels; ++l) {
        const int64_t cells = grid->cells[l], rows = grid->rows[l];
        if (cells < 1 || cells > 65535 || rows < 1) return false;
        const bool dense = (cells + 1) * (cells + 1) * (cells + 1) <= rows;
        if (!dense && (rows & (rows - 1))) return false;
        levels[l] = {offset, uint32_t(cells), uint32_t(rows), dense};
        offset += rows;
    }
    return offset < (int64_t(1) << 31);
}

bool valid(const splat_rays* rays) {
    if (!rays || rays->rays < 0 || rays->samples < 0 || !rays->first || rays->first[0] != 0 ||
        rays->first[rays->rays] != rays->samples)
        return false;
    for (int64_t ray = 0; ray < rays->rays; ++ray)
        if (rays->first[ray + 1] < rays->first[ray]) return false;
    return rays->samples == 0 || (rays->density && rays->length && rays->distance && rays->rgb && rays->middle && rays->extent);
}

bool valid(const splat_space* space) {
    if (!space) return false;
    for (int i = 0; i < 3; ++i) {
        const float size = space->ball ? space->high[i] : space->high[i] - space->low[i];
        if (!(size > 0.0f && size < 1e30f) || (space->ball && size != space->high[0])) return false;
    }
    return true;
}

Space<float> laid(const splat_space& space) {
    Space<float> out{space.ball != 0, {}, {}};
    std::copy_n(space.low, 3, out.low);
    std::copy_n(space.high, 3, out.high);
    return out;
}

// The layers of an MLP with their weights filled up to full rows, and their transposes.
struct PackedMlp {
    MlpLayers layers{};
    Buffer<float> memory;

    bool pack(const splat_mlp* mlp, const float* weights) {
        if (!mlp || !weights || mlp->inputs < 1 || mlp->inputs > kMlpPitch || mlp->width < 1 || mlp->width > kMlpPitch ||
            mlp->hidden < 1 || mlp->hidden > kMlpLayers - 1 || mlp->outputs < 1 || mlp->outputs > kMlpPitch)
            return false;
        constexpr int64_t kMatrix = kMlpPitch * kMlpPitch, kLayer = 2 * kMatrix + kMlpPitch;
        float* packed = memory.reserve(size_t(kMlpLayers * kLayer));
        std::fill_n(packed, kMlpLayers * kLayer, 0.0f);
        layers.layers = mlp->hidden + 1;
        for (int l = 0; l < layers.layers; ++l, packed += kLayer) {
            const int64_t in = layers.in[l] = l ? mlp->width : mlp->inputs;
            const int64_t out = layers.out[l] = l + 1 < layers.layers ? mlp->width : mlp->outputs;
            for (int64_t i = 0; i < in; ++i)
                for (int64_t j = 0; j < out; ++j)
                    packed[i * kMlpPitch + j] = packed[kMatrix + j * kMlpPitch + i] = weights[i * out + j];
            std::copy_n(weights + in * out, out, packed + 2 * kMatrix);
            layers.matrix[l] = packed, layers.transposed[l] = packed + kMatrix, layers.bias[l] = packed + 2 * kMatrix;
            weights += (in + 1) * out;
        }
        return true;
    }
};

}  // namespace

int splat_cpu_grid(const splat_grid* grid, const float* table, const float* points, int64_t n, float* encoded) {
    GridLevel levels[kGridLevels];
    if (!grid_levels(grid, levels) || n < 0 || (n > 0 && (!table || !points || !encoded))) return SPLAT_BAD_ARGUMENT;
    active()->grid(levels, grid->levels, table, points, n, encoded, thread_setting());
    return SPLAT_OK;
}

int splat_cpu_grid_vjp(const splat_grid* grid, const float* points, const float* v_encoded, int64_t n, float* v_table) {
    GridLevel levels[kGridLevels];
    if (!grid_levels(grid, levels) || n < 0 || !v_table || (n > 0 && (!points || !v_encoded))) return SPLAT_BAD_ARGUMENT;
    active()->grid_vjp(levels, grid->levels, points, v_encoded, n, v_table, thread_setting());
    return SPLAT_OK;
}

int splat_cpu_mlp(const splat_mlp* mlp, const float* weights, const float* x, int64_t n, float* out) try {
    PackedMlp packed;
    if (n < 0 || (n > 0 && (!x || !out)) || !packed.pack(mlp, weights)) return SPLAT_BAD_ARGUMENT;
    const int threads = thread_setting();
    Buffer<float> scratch;
    active()->mlp(packed.layers, x, n, out, scratch.reserve(size_t(threads * kMlpScratch)), threads);
    return SPLAT_OK;
} catch (const std::bad_alloc&) {
    return SPLAT_OUT_OF_MEMORY;
}

int splat_cpu_mlp_vjp(const splat_mlp* mlp, const float* weights, const float* x, const float* v_out, int64_t n, float* v_x,
                      float* v_weights) try {
    PackedMlp packed;
    if (n < 0 || !v_weights || (n > 0 && (!x || !v_out)) || !packed.pack(mlp, weights)) return SPLAT_BAD_ARGUMENT;
    const int threads = thread_setting();
    const int64_t slot_count = std::min(kMlpSlots, (n + kMlpBlock - 1) / kMlpBlock);
    Buffer<float> scratch, slots;
    active()->mlp_vjp(packed.layers, x, v_out, n, v_x, slots.reserve(size_t(slot_count * kMlpSlot)), slot_count,
                      scratch.reserve(size_t(threads * kMlpScratch)), threads);
    for (int l = 0; l < packed.layers.layers; ++l) {
        const int64_t in = packed.layers.in[l], out = packed.layers.out[l];
        for (int64_t i = 0; i <= in; ++i, v_weights += out) {
            const int64_t row = l * (kMlpPitch + 1) + (i < in ? i : kMlpPitch);  // the bias lies below the matrix
            std::fill_n(v_weights, out, 0.0f);
            for (int64_t s = 0; s < slot_count; ++s)
                for (int64_t j = 0; j < out; ++j) v_weights[j] += slots.data[s * kMlpSlot + row * kMlpPitch + j];
        }
    }
    return SPLAT_OK;
} catch (const std::bad_alloc&) {
    return SPLAT_OUT_OF_MEMORY;
}

int splat_cpu_rays(const splat_rays* rays, const splat_ray_sums* sums) {
    if (!valid(rays) || !sums || (rays->samples > 0 && !sums->weights) ||
        (rays->rays > 0 && (!sums->rgb || !sums->opacity || !sums->depth || !sums->distortion)))
        return SPLAT_BAD_ARGUMENT;
    active()->rays(*rays, *sums, thread_setting());
    return SPLAT_OK;
}

int splat_cpu_rays_vjp(const splat_rays* rays, const splat_ray_cotangents* v, float* v_density, float* v_rgb) {
    if (!valid(rays) || !v || (rays->rays > 0 && !v->rgb) || (rays->samples > 0 && (!v_density || !v_rgb)))
        return SPLAT_BAD_ARGUMENT;
    active()->rays_vjp(*rays, *v, v_density, v_rgb, thread_setting());
    return SPLAT_OK;
}

int splat_cpu_space_unit(const splat_space* space, const float* points, int64_t n, float* unit) {
    if (!valid(space) || n < 0 || (n > 0 && (!points || !unit))) return SPLAT_BAD_ARGUMENT;
    active()->space_unit(laid(*space), points, n, unit, thread_setting());
    return SPLAT_OK;
}

int splat_cpu_occupancy_put(const splat_space* space, int cells, const float* points, const float* values, int64_t n, float rate,
                            float* density) {
    if (!valid(space) || cells < 1 || cells > kOccupancyCells || n < 0 || !density || (n > 0 && (!points || !values)))
        return SPLAT_BAD_ARGUMENT;
    active()->occupancy_put(laid(*space), uint32_t(cells), points, values, n, rate, density);
    return SPLAT_OK;
}

int splat_cpu_ray_samples(const splat_space* space, const splat_sampling* sampling, const float* density, const float* origins,
                          const float* directions, int64_t rays, const float* shifts, const splat_ray_samples* out) {
    if (!valid(space) || !sampling || sampling->cells < 1 || sampling->cells > kOccupancyCells || sampling->coarse < 1 ||
        sampling->coarse > kCoarseMost || sampling->fine < 1 || !(sampling->uniform >= 0.0f && sampling->uniform <= 1.0f) ||
        !(sampling->near >= 0.0f && sampling->near < 1e30f) || rays < 0 || !density || !out)
        return SPLAT_BAD_ARGUMENT;
    if (rays > 0 && !(origins && directions && out->length && out->distance && out->middle && out->extent && out->points))
        return SPLAT_BAD_ARGUMENT;
    active()->ray_samples(laid(*space), *sampling, density, origins, directions, rays, shifts, *out, thread_setting());
    return SPLAT_OK;
}

int splat_cpu_sh_basis(int degree, const float* directions, int64_t n, float* basis) {
    if (degree < 0 || degree > 3 || n < 0 || (n > 0 && (!directions || !basis))) return SPLAT_BAD_ARGUMENT;
    active()->sh_basis(degree, directions, n, basis, thread_setting());
    return SPLAT_OK;
}
