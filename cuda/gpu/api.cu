// The C interface of splat_cuda: checks, buffers, and the order of the kernels.
#include "../include/splat/api_cuda.h"

#include <algorithm>
#include <cstring>
#include <new>

#include "../include/splat/arguments.h"
#include "adam.h"
#include "algorithms.h"
#include "bin.h"
#include "blend.h"
#include "blend_vjp.h"
#include "errors.h"
#include "frame.h"
#include "project.h"
#include "project_vjp.h"
#include "ssim.h"

using namespace splat;

namespace {

enum BufferId {
    kRecords, kPairs, kDepthKeys, kDepthKeysOther, kOrder, kOrderOther, kPairEnd, kFirstSlot, kScratch, kTiles, kTilesOther, kEntries,
    kEntriesOther, kSlotGaussian, kSlots, kSlotBlended, kSlotWeight, kSums, kTileBegin, kPixelT, kPixelStop, kPixelDepth, kPixelWeight,
    kCountedBuffer, kTileBackground, kPosePartial, kLossMaps, kLossParts, kPairCounts, kBuffers
};
static_assert(int(kBuffers) <= int(SPLAT_CUDA_BUFFERS), "the interface promises no more numbers");

constexpr const char* kBufferNames[kBuffers] = {
    "projected Gaussians", "tiles of each Gaussian", "depths", "depths, sorted", "depth order", "depth order, sorted", "sums of pairs",
    "first pairs", "scratch memory of sorts", "tiles of pairs", "tiles of pairs, sorted", "pairs", "pairs, sorted", "Gaussians of pairs",
    "gradients of pairs", "blended pairs", "weights of pairs", "gradients of projected Gaussians", "first pairs of tiles",
    "transmittances", "last Gaussians", "depths of pixels", "weights of pixels", "counts", "gradients of the background",
    "gradients of the pose", "partial derivatives of the loss", "sums of the loss", "counts of pairs"};

enum Stage { kProject, kBin, kBlend, kLoss, kBlendVjp, kProjectVjp, kStages };

// The device of a call, and the one before when it ends.
class OnDevice {
  public:
    explicit OnDevice(int device) {
        check(cudaGetDevice(&before_), "asking for the device");
        if (device != before_) check(cudaSetDevice(device), "choosing the device");
    }
    ~OnDevice() { cudaSetDevice(before_); }
    OnDevice(const OnDevice&) = delete;

  private:
    int before_ = 0;
};

}  // namespace

struct splat_cuda_workspace {
    int device;
    splat_cuda_allocate allocate;
    void* user;
    struct {
        void* data = nullptr;
        int64_t bytes = 0;
    } buffers[kBuffers];
    Frame frame = {};
    bool drawn = false, with_depth = false;
    int64_t likely_pairs = 0;  // of the next frame
    Counted* counted = nullptr;  // pinned
    cudaEvent_t counted_event = nullptr;
    cudaEvent_t began[kStages] = {}, ended[kStages] = {};
    bool measured[kStages] = {};
    struct {
        const char* name;
        int value;
    } options[7] = {{"deterministic", 0}, {"timings", 0}, {"plain_project", 0}, {"plain_emit", 0},
                    {"plain_blend", 0}, {"plain_blend_vjp", 0}, {"plain_loss", 0}};

    splat_cuda_workspace(int device, splat_cuda_allocate allocate, void* user) : device(device), allocate(allocate), user(user) {
        void* memory = nullptr;
        check(cudaMallocHost(&memory, sizeof(Counted)), "taking pinned memory");
        counted = static_cast<Counted*>(memory);
        check(cudaEventCreateWithFlags(&counted_event, cudaEventDisableTiming), "making an event");
    }
    ~splat_cuda_workspace() {
        if (counted) cudaFreeHost(counted);
        if (counted_event) cudaEventDestroy(counted_event);
        for (int stage = 0; stage < kStages; ++stage) {
            if (began[stage]) cudaEventDestroy(began[stage]);
            if (ended[stage]) cudaEventDestroy(ended[stage]);
        }
    }

    int* option(const char* name) {
        for (auto& each : options)
            if (!std::strcmp(each.name, name)) return &each.value;
        return nullptr;
    }
    bool is(const char* name) { return *option(name) != 0; }

    // At least `count` items; grows by a quarter more than is asked for, where there is room for that.
    template <class T>
    T* reserve(BufferId id, int64_t count) {
        return take<T>(id, count, count / 4);
    }
    // The same for lists of pairs, whose count has room for more in it (see room_for).
    template <class T>
    T* reserve_pairs(BufferId id, int64_t count) {
        return take<T>(id, count, 0);
    }
    template <class T>
    T* take(BufferId id, int64_t count, int64_t more) {
        auto& buffer = buffers[id];
        const int64_t bytes = std::max<int64_t>(256, count * int64_t(sizeof(T)));
        if (bytes > buffer.bytes) {
            int64_t wanted = (bytes + more * int64_t(sizeof(T)) + 255) / 256 * 256;
            buffer.data = allocate(user, id, wanted);
            if (!buffer.data) buffer.data = allocate(user, id, wanted = bytes);
            buffer.bytes = buffer.data ? wanted : 0;
            if (!buffer.data) throw NoDeviceMemory();
        }
        return static_cast<T*>(buffer.data);
    }

    int64_t bytes() const {
        int64_t sum = 0;
        for (const auto& buffer : buffers) sum += buffer.bytes;
        return sum;
    }

    void begin(Stage stage, cudaStream_t stream) {
        if (!is("timings")) return;
        if (!began[stage]) {
            check(cudaEventCreate(&began[stage]), "making an event");
            check(cudaEventCreate(&ended[stage]), "making an event");
        }
        check(cudaEventRecord(began[stage], stream), "recording an event");
    }
    void end(Stage stage, cudaStream_t stream) {
        if (!is("timings")) return;
        check(cudaEventRecord(ended[stage], stream), "recording an event");
        measured[stage] = true;
    }
};

namespace {

// Runs the body of a call and turns what it throws into a return code.
template <class Body>
int guarded(int device, Body&& body) {
    try {
        const OnDevice on(device);
        return body();
    } catch (const NoDeviceMemory&) {
        return SPLAT_OUT_OF_MEMORY;
    } catch (const std::bad_alloc&) {
        return SPLAT_OUT_OF_MEMORY;
    } catch (const DeviceError& error) {
        remember(error);
        return SPLAT_DEVICE_ERROR;
    }
}

View view_of(const splat_view& v) {
    View view;
    view.camera = make_camera(v.viewmat, v.fx, v.fy, v.cx, v.cy, v.width, v.height);
    view.eps2d = v.eps2d, view.antialiased = v.antialiased, view.degree = v.sh_degree;
    for (int c = 0; c < 3; ++c) view.background[c] = v.background[c];
    return view;
}

// Pairs that the lists of a frame are made for, if it is likely to have so many: a 16th more, in steps of up to another 16th, so that
// one frame after the other needs the same memory.
int64_t room_for(int64_t pairs) {
    const int64_t count = pairs + pairs / 16 + 4096;
    int64_t step = 1;
    while (32 * step < count) step *= 2;
    return std::min<int64_t>((count + step - 1) / step * step, (int64_t(1) << 31) - 1);
}

int bits_of(uint32_t largest) {
    int bits = 1;
    while (largest >> bits) ++bits;
    return bits;
}

void project(splat_cuda_workspace& ws, const splat_gaussians& g, const View& view, const splat_aux& aux, uint32_t* keys, uint32_t* index,
             cudaStream_t stream) {
    const bool plain = ws.is("plain_project");
    const auto run = [&](auto* kernel) {
        launch("projection", kernel, blocks_of(g.n, kProjectThreads), kProjectThreads, stream, g, view, ws.frame, aux, keys, index);
    };
    switch (view.degree) {
        case 0: return run(plain ? project_kernel<0, false> : project_kernel<0, true>);
        case 1: return run(plain ? project_kernel<1, false> : project_kernel<1, true>);
        case 2: return run(plain ? project_kernel<2, false> : project_kernel<2, true>);
        default: return run(plain ? project_kernel<3, false> : project_kernel<3, true>);
    }
}

// Lists the Gaussians of each tile, for `capacity` pairs; where there are more, the lists are empty.
template <class Key>
void bin(splat_cuda_workspace& ws, int64_t capacity, cudaStream_t stream) {
    Frame& f = ws.frame;
    SortBuffers<Key> lists = {ws.reserve_pairs<Key>(kTiles, capacity), ws.reserve_pairs<Key>(kTilesOther, capacity),
                              ws.reserve_pairs<uint32_t>(kEntries, capacity), ws.reserve_pairs<uint32_t>(kEntriesOther, capacity)};
    const uint32_t limit = uint32_t(capacity);
    // Behind the pairs lies what is no tile: it is sorted to the end.
    check(cudaMemsetAsync(lists.from, 0xff, size_t(capacity) * sizeof(Key), stream), "clearing the lists");
    const auto emit = ws.is("plain_emit") ? emit_plain_kernel<Key> : emit_kernel<Key>;
    launch("listing pairs", emit, blocks_of(f.n, kBinThreads), kBinThreads, stream, f, lists.from, lists.values_from, limit);
    const int bits = bits_of(uint32_t(tile_count(f)));
    const size_t bytes = sort_scratch(lists, capacity);
    sort_pairs(ws.reserve<char>(kScratch, int64_t(bytes)), bytes, lists, capacity, bits, stream);
    f.entries = lists.values_from;
    launch("beginnings of tiles", tile_begin_kernel<Key>, blocks_of(capacity + 1, kBinThreads), kBinThreads, stream, f,
           static_cast<const Key*>(lists.from), limit);
}

void blend(splat_cuda_workspace& ws, const View& view, const splat_image& image, float* blend_weight, int64_t capacity,
           cudaStream_t stream) {
    const Frame& f = ws.frame;
    const bool depth = image.depth != nullptr, weight = blend_weight != nullptr;
    float* slot_weight = nullptr;
    if (weight && f.slots) {
        slot_weight = static_cast<float*>(ws.buffers[kSlotWeight].data);
    } else if (weight) {
        check(cudaMemsetAsync(blend_weight, 0, size_t(f.n) * sizeof(float), stream), "clearing weights");
    }
    const auto run = [&](auto* kernel, int threads) {
        launch("blending", kernel, tile_count(f), threads, stream, f, view, image, blend_weight, slot_weight);
    };
    if (ws.is("plain_blend")) {
        run(depth ? (weight ? blend_plain_kernel<true, true> : blend_plain_kernel<true, false>)
                  : (weight ? blend_plain_kernel<false, true> : blend_plain_kernel<false, false>),
            kTilePixels);
    } else {
        run(depth ? (weight ? blend_kernel<true, true, 2> : blend_kernel<true, false, 2>)
                  : (weight ? blend_kernel<false, true, 2> : blend_kernel<false, false, 2>),
            kTilePixels / 2);
    }
    if (slot_weight)
        launch("weights", sum_weights_kernel, blocks_of(f.n, 256), 256, stream, f, static_cast<const float*>(slot_weight), uint32_t(capacity),
               blend_weight);
}

void blend_vjp(splat_cuda_workspace& ws, const View& view, const splat_image_cotangents& v_image, bool with_abs, cudaStream_t stream) {
    const bool depth = v_image.depth != nullptr;
    const auto run = [&](auto* kernel, int threads) {
        launch("blending backward", kernel, tile_count(ws.frame), threads, stream, ws.frame, view, v_image);
    };
    if (ws.is("plain_blend_vjp")) {
        run(depth ? (with_abs ? blend_vjp_plain_kernel<true, true> : blend_vjp_plain_kernel<true, false>)
                  : (with_abs ? blend_vjp_plain_kernel<false, true> : blend_vjp_plain_kernel<false, false>),
            kTilePixels);
    } else {
        run(depth ? (with_abs ? blend_vjp_kernel<true, true, 2> : blend_vjp_kernel<true, false, 2>)
                  : (with_abs ? blend_vjp_kernel<false, true, 2> : blend_vjp_kernel<false, false, 2>),
            kTilePixels / 2);
    }
}

void project_vjp(splat_cuda_workspace& ws, const splat_gaussians& g, const View& view, const splat_gradients& grads, const AdamStep* adam,
                 cudaStream_t stream) {
    const bool plain = ws.is("plain_project");
    const AdamStep step = adam ? *adam : AdamStep();
    const auto run = [&](auto* kernel) {
        launch("projection backward", kernel, blocks_of(g.n, kProjectThreads), kProjectThreads, stream, g, view, ws.frame, grads, step,
               adam != nullptr);
    };
    switch (view.degree) {
        case 0: return run(plain ? project_vjp_kernel<0, false> : project_vjp_kernel<0, true>);
        case 1: return run(plain ? project_vjp_kernel<1, false> : project_vjp_kernel<1, true>);
        case 2: return run(plain ? project_vjp_kernel<2, false> : project_vjp_kernel<2, true>);
        default: return run(plain ? project_vjp_kernel<3, false> : project_vjp_kernel<3, true>);
    }
}

}  // namespace

const char* splat_cuda_buffer_name(int32_t buffer) { return buffer >= 0 && buffer < kBuffers ? kBufferNames[buffer] : nullptr; }

splat_cuda_workspace* splat_cuda_workspace_create(int device, splat_cuda_allocate allocate, void* user) {
    splat_cuda_workspace* made = nullptr;
    if (allocate) guarded(device, [&] {
        made = new splat_cuda_workspace(device, allocate, user);
        return int(SPLAT_OK);
    });
    return made;
}

void splat_cuda_workspace_destroy(splat_cuda_workspace* ws) { delete ws; }

int splat_cuda_set_option(splat_cuda_workspace* ws, const char* name, int value) {
    int* option = ws && name ? ws->option(name) : nullptr;
    if (!option) return SPLAT_BAD_ARGUMENT;
    *option = value;
    return SPLAT_OK;
}

int splat_cuda_forward(splat_cuda_workspace* ws, const splat_gaussians* g, const splat_view* v, splat_image* image, splat_aux* aux,
                       splat_frame_info* info, void* stream_pointer) {
    if (!ws || !g || !v || !image || !aux || !valid(*g, *v)) return SPLAT_BAD_ARGUMENT;
    return guarded(ws->device, [&] {
        const auto stream = static_cast<cudaStream_t>(stream_pointer);
        ws->drawn = false;
        ws->begin(kProject, stream);
        Frame& f = ws->frame;
        const View view = view_of(*v);
        f = {};
        f.n = g->n;
        f.width = v->width, f.height = v->height;
        f.tiles_x = (f.width + kTile - 1) / kTile, f.tiles_y = (f.height + kTile - 1) / kTile;
        const int64_t n = f.n, pixels = int64_t(f.width) * f.height;
        f.records = ws->reserve<Record>(kRecords, n);
        f.pairs = ws->reserve<uint32_t>(kPairs, n);
        f.pair_end = ws->reserve<uint32_t>(kPairEnd, n);
        f.first_slot = ws->reserve<uint32_t>(kFirstSlot, n);
        f.tile_begin = ws->reserve<uint32_t>(kTileBegin, int64_t(tile_count(f)) + 1);
        f.pixel_T = ws->reserve<float>(kPixelT, pixels);
        f.pixel_stop = ws->reserve<int32_t>(kPixelStop, pixels);
        if (image->depth) {
            f.pixel_depth = ws->reserve<float>(kPixelDepth, pixels);
            f.pixel_weight = ws->reserve<float>(kPixelWeight, pixels);
        }
        f.counted = ws->reserve<Counted>(kCountedBuffer, 1);
        check(cudaMemsetAsync(f.counted, 0, sizeof(Counted), stream), "clearing counts");
        SortBuffers<uint32_t> depths = {ws->reserve<uint32_t>(kDepthKeys, n), ws->reserve<uint32_t>(kDepthKeysOther, n),
                                        ws->reserve<uint32_t>(kOrder, n), ws->reserve<uint32_t>(kOrderOther, n)};
        project(*ws, *g, view, *aux, depths.from, depths.values_from, stream);
        ws->end(kProject, stream);

        ws->begin(kBin, stream);
        if (n > 0) {
            const size_t bytes = sort_scratch(depths, n);
            sort_pairs(ws->reserve<char>(kScratch, int64_t(bytes)), bytes, depths, n, 32, stream);
            f.order = depths.values_from;
            launch("counting pairs", gather_pairs_kernel, blocks_of(n, kBinThreads), kBinThreads, stream, f,
                   static_cast<const uint32_t*>(depths.from));
            const size_t scan_bytes = scan_scratch(n);
            scan(ws->reserve<char>(kScratch, int64_t(scan_bytes)), scan_bytes, f.pair_end, n, stream);
        }
        launch("counting pairs", publish_pairs_kernel, 1, kWarp, stream, f);
        // The number of pairs goes to the host, which goes on queueing by what it was before and looks at it when the device has the
        // rest of the frame to do: the device never waits. Where there were more pairs than room, the lists are made again.
        check(cudaMemcpyAsync(ws->counted, f.counted, sizeof(Counted), cudaMemcpyDeviceToHost, stream), "reading counts");
        check(cudaEventRecord(ws->counted_event, stream), "recording an event");
        int64_t capacity = room_for(ws->likely_pairs ? ws->likely_pairs : n);
        for (;;) {
            if (ws->is("deterministic")) {
                f.slot_gaussian = ws->reserve_pairs<uint32_t>(kSlotGaussian, capacity);
                f.slot_blended = ws->reserve_pairs<uint8_t>(kSlotBlended, capacity);
                f.slots = ws->reserve_pairs<float>(kSlots, capacity * kSumFloats);
                if (aux->blend_weight) {
                    float* weights = ws->reserve_pairs<float>(kSlotWeight, capacity);
                    check(cudaMemsetAsync(weights, 0, size_t(capacity) * sizeof(float), stream), "clearing weights");
                }
            }
            if (tile_count(f) < 0xffff)
                bin<uint16_t>(*ws, capacity, stream);
            else
                bin<uint32_t>(*ws, capacity, stream);
            ws->end(kBin, stream);
            ws->begin(kBlend, stream);
            blend(*ws, view, *image, aux->blend_weight, capacity, stream);
            ws->end(kBlend, stream);
            check(cudaEventSynchronize(ws->counted_event), "waiting for the number of pairs");
            if (ws->counted->pairs >= 0x7fffffffu) return int(SPLAT_TOO_MANY_PAIRS);
            const int64_t pairs = ws->counted->pairs;
            // Views differ: what one needed is let go slowly.
            ws->likely_pairs = std::max(pairs, ws->likely_pairs - ws->likely_pairs / 64);
            if (pairs <= capacity) break;
            capacity = room_for(pairs);
            ws->begin(kBin, stream);
        }
        ws->drawn = true;
        ws->with_depth = image->depth != nullptr;
        if (info) *info = {int64_t(ws->counted->visible), int64_t(ws->counted->pairs), ws->bytes()};
        return int(SPLAT_OK);
    });
}

int splat_cuda_backward(splat_cuda_workspace* ws, const splat_gaussians* g, const splat_view* v, const splat_image_cotangents* v_image,
                        splat_gradients* grads, const splat_adam* adam, void* stream_pointer) {
    if (!ws || !g || !v || !v_image || !grads || !v_image->rgb || !valid(*g, *v) || !ws->drawn || ws->frame.n != g->n ||
        ws->frame.width != v->width || ws->frame.height != v->height || (v_image->depth && !ws->with_depth) || (adam && !fits(*g, *adam)))
        return SPLAT_BAD_ARGUMENT;
    return guarded(ws->device, [&] {
        const auto stream = static_cast<cudaStream_t>(stream_pointer);
        Frame& f = ws->frame;
        const View view = view_of(*v);
        const int64_t blocks = blocks_of(f.n, kProjectThreads);
        // Everything that can fail for want of memory comes before the first number changes.
        f.tile_background = grads->background ? ws->reserve<float>(kTileBackground, 3 * int64_t(tile_count(f))) : nullptr;
        f.pose_partial = grads->viewmat ? ws->reserve<float>(kPosePartial, blocks * kPoseFloats) : nullptr;
        ws->begin(kBlendVjp, stream);
        if (f.slots) {
            check(cudaMemsetAsync(f.slot_blended, 0, ws->counted->pairs, stream), "clearing slots");
        } else {
            f.sums = ws->reserve<float>(kSums, f.n * kSumFloats);
            check(cudaMemsetAsync(f.sums, 0, size_t(f.n) * kSumFloats * sizeof(float), stream), "clearing sums");
        }
        blend_vjp(*ws, view, *v_image, grads->means2d_abs != nullptr, stream);
        ws->end(kBlendVjp, stream);

        ws->begin(kProjectVjp, stream);
        AdamStep step = {};
        if (adam) {
            for (int field = 0; field < kFields; ++field) {
                step.param[field] = adam->param[field];
                step.exp_avg[field] = adam->exp_avg[field];
                step.exp_avg_sq[field] = adam->exp_avg_sq[field];
                step.step_size[field] = adam_step_size(adam->lr[field], adam->beta1, adam->step);
            }
            step.rates = adam_rates(adam->beta1, adam->beta2, adam->eps, adam->step);
            step.active_higher = adam->sh_degree_grows ? sh_bases(view.degree) - 1 : g->k;
            step.only_touched = adam->only_touched != 0;
        }
        project_vjp(*ws, *g, view, *grads, adam ? &step : nullptr, stream);
        if (grads->viewmat) launch("pose gradient", pose_kernel, 1, 256, stream, f, blocks, grads->viewmat);
        if (grads->background) launch("background gradient", background_kernel, 1, 256, stream, f, grads->background);
        ws->end(kProjectVjp, stream);
        return int(SPLAT_OK);
    });
}

int splat_cuda_count_pairs(splat_cuda_workspace* ws, const splat_view* v, int64_t* evaluated, int64_t* blended, void* stream_pointer) {
    if (!ws || !v || !evaluated || !blended || !ws->drawn || ws->frame.width != v->width || ws->frame.height != v->height)
        return SPLAT_BAD_ARGUMENT;
    return guarded(ws->device, [&] {
        const auto stream = static_cast<cudaStream_t>(stream_pointer);
        auto* counts = ws->reserve<unsigned long long>(kPairCounts, 2);
        unsigned long long found[2] = {};
        check(cudaMemsetAsync(counts, 0, sizeof found, stream), "clearing counts");
        launch("counting pairs", count_pairs_kernel, tile_count(ws->frame), kTilePixels / 2, stream, ws->frame, counts);
        check(cudaMemcpyAsync(found, counts, sizeof found, cudaMemcpyDeviceToHost, stream), "reading counts");
        check(cudaStreamSynchronize(stream), "waiting for counts");
        *evaluated = int64_t(found[0]), *blended = int64_t(found[1]);
        return int(SPLAT_OK);
    });
}

int splat_cuda_timings(splat_cuda_workspace* ws, double* seconds) {
    if (!ws || !seconds) return SPLAT_BAD_ARGUMENT;
    return guarded(ws->device, [&] {
        for (int stage = 0; stage < kStages; ++stage) {
            seconds[stage] = 0.0;
            if (!ws->measured[stage]) continue;
            float ms = 0.0f;
            check(cudaEventSynchronize(ws->ended[stage]), "waiting for an event");
            check(cudaEventElapsedTime(&ms, ws->began[stage], ws->ended[stage]), "reading a time");
            seconds[stage] = 1e-3 * double(ms);
        }
        return int(SPLAT_OK);
    });
}

int splat_cuda_l1_ssim(splat_cuda_workspace* ws, const float* x, const float* y, const float* counts, int width, int height,
                       float ssim_weight, float* v_x, float* loss, void* stream_pointer) {
    if (!ws || !x || !y || !v_x || !loss || width < 1 || height < 1) return SPLAT_BAD_ARGUMENT;
    return guarded(ws->device, [&] {
        const auto stream = static_cast<cudaStream_t>(stream_pointer);
        const int64_t numbers = 3 * int64_t(width) * height;
        const bool plain = ws->is("plain_loss");
        const int blocks_x = int(blocks_of(width, kLossWide));
        const int64_t blocks = plain ? blocks_of(numbers, kLossThreads) : blocks_x * blocks_of(height, kLossHigh);
        float* maps = ws->reserve<float>(kLossMaps, kMaps * numbers);
        double* ssim_parts = ws->reserve<double>(kLossParts, 2 * blocks);
        double* l1_parts = ssim_parts + blocks;
        const LossImages images = {x, y, counts, width, height};
        const SsimWindow window = ssim_window();
        const double w = double(ssim_weight);
        const float l1_scale = float((1.0 - w) / double(numbers)), ssim_scale = float(-w / double(numbers));
        ws->begin(kLoss, stream);
        if (plain) {
            launch("loss", loss_maps_plain_kernel, blocks, kLossThreads, stream, images, window, maps, ssim_parts);
            launch("gradient of the loss", loss_gradient_plain_kernel, blocks, kLossThreads, stream, images, window,
                   static_cast<const float*>(maps), l1_scale, ssim_scale, v_x, l1_parts);
        } else {
            launch("loss", loss_maps_kernel, blocks, kLossThreads, stream, images, window, blocks_x, maps, ssim_parts);
            launch("gradient of the loss", loss_gradient_kernel, blocks, kLossThreads, stream, images, window, blocks_x,
                   static_cast<const float*>(maps), l1_scale, ssim_scale, v_x, l1_parts);
        }
        launch("sum of the loss", loss_sum_kernel, 1, kLossThreads, stream, static_cast<const double*>(ssim_parts),
               static_cast<const double*>(l1_parts), blocks, double(numbers), ssim_weight, loss);
        ws->end(kLoss, stream);
        return int(SPLAT_OK);
    });
}

int splat_cuda_adam(int device, float* param, const float* grad, float* exp_avg, float* exp_avg_sq, int64_t count, double lr, double beta1,
                    double beta2, double eps, int64_t step, void* stream_pointer) {
    if (count < 0 || step < 1 || (count > 0 && (!param || !grad || !exp_avg || !exp_avg_sq))) return SPLAT_BAD_ARGUMENT;
    return guarded(device, [&] {
        launch("Adam", adam_kernel, blocks_of(count, 256), 256, static_cast<cudaStream_t>(stream_pointer), param, grad, exp_avg, exp_avg_sq,
               count, adam_rates(beta1, beta2, eps, step), adam_step_size(lr, beta1, step));
        return int(SPLAT_OK);
    });
}

namespace {
__global__ void __launch_bounds__(256) exp2_kernel(const float* x, float* out, int64_t count) {
    const int64_t i = int64_t(blockIdx.x) * 256 + threadIdx.x;
    if (i < count) out[i] = fast_exp2(x[i]);
}
}  // namespace

int splat_cuda_exp2(int device, const float* x, float* out, int64_t count, void* stream_pointer) {
    if (count < 0 || (count > 0 && (!x || !out))) return SPLAT_BAD_ARGUMENT;
    return guarded(device, [&] {
        launch("exponentials", exp2_kernel, blocks_of(count, 256), 256, static_cast<cudaStream_t>(stream_pointer), x, out, count);
        return int(SPLAT_OK);
    });
}
