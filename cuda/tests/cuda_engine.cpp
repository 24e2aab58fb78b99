// The CUDA engine through its C interface, on the emulation (../emulation) and on ordinary, boundary and hostile input.
//
// Device memory comes from an allocator that gives what was asked for and no byte more. It draws, differentiates and updates, and
// checks that
//   - with the option `deterministic` the results are the same bits in every run (the emulation draws the order of threads and blocks
//     anew), for a fresh and for a used workspace, and whatever outputs and device memory held before;
//   - atomic sums and the plain versions of the kernels give the same pictures, and the same gradients but for rounding;
//   - splat_cpu gives the same, but for rounding;
//   - the fused Adam step gives the numbers of the separate calls;
//   - where memory ends, at any allocation, nothing has changed, and the next call works;
//   - nothing is written beside an output, and no input is written (under AddressSanitizer: nor read beside an input or a buffer).
// Exits with 1 where anything failed.
#include <cstdlib>
#include <map>
#include <set>
#include <thread>

#include "../include/splat/api_cuda.h"
#include "cases.h"

using namespace cases;

namespace {

// Tolerances, each with its reason in tests/tolerances.py.
constexpr double kColor = 1e-5, kGradient = 1e-4, kDepth = 1e-4, kPixels = 2e-4;
// Sums of float32 in another order, by norm.
constexpr double kOrder = 1e-5;
// Where rounding decides whether alpha reaches 1/255, a pixel blends a Gaussian or not: so many of a hundred may.
constexpr double kUndecided = 0.01;

// --------------------------------------------------------------------------------------------------------- device memory
// Buffers of as many bytes as are asked for. The old one is gone when another takes its place, and where `tight`, an engine that asks
// for some room to grow is refused it.
class DeviceMemory {
   public:
    DeviceMemory(bool tight, unsigned char fill) : tight_(tight), fill_(fill) {}
    DeviceMemory(const DeviceMemory&) = delete;
    ~DeviceMemory() {
        for (const auto& each : buffers_) std::free(each.second.data);
    }
    static void* allocate(void* user, int32_t number, int64_t bytes) { return static_cast<DeviceMemory*>(user)->take(number, bytes); }

    int64_t bytes() const {
        int64_t sum = 0;
        for (const auto& each : buffers_) sum += each.second.bytes;
        return sum;
    }
    // How often the buffer of this name has been taken.
    int taken(const char* name) const {
        for (const auto& each : buffers_)
            if (!std::strcmp(splat_cuda_buffer_name(each.first), name)) return each.second.taken;
        return 0;
    }
    void end_after(int buffers) { left_ = buffers; }
    void go_on() { left_ = -1; }

   private:
    struct Buffer {
        void* data = nullptr;
        int64_t bytes = 0;
        int taken = 0;
    };

    // Two callers at once have memory each, but share the counts of checks: only what fails is told.
    void* take(int32_t number, int64_t bytes) {
        if (!splat_cuda_buffer_name(number)) expect(false, "buffer %d has no name", number);
        Buffer& buffer = buffers_[number];
        if (buffer.bytes >= bytes) expect(false, "buffer %d is asked for, and has enough", number);
        std::free(buffer.data);
        buffer.data = nullptr, buffer.bytes = 0;
        const bool once_more = refused_ == number;
        refused_ = -1;
        if (tight_ && !once_more) return refused_ = number, nullptr;
        if (left_ == 0) return nullptr;
        if (left_ > 0) --left_;
        if (posix_memalign(&buffer.data, 256, size_t(bytes))) std::abort();
        std::memset(buffer.data, fill_, size_t(bytes));
        buffer.bytes = bytes, ++buffer.taken;
        return buffer.data;
    }

    bool tight_;
    unsigned char fill_;
    int left_ = -1, refused_ = -1;
    std::map<int32_t, Buffer> buffers_;
};

const char* const kPlain[] = {"plain_project", "plain_emit", "plain_blend", "plain_blend_vjp", "plain_loss"};

struct Engine {
    DeviceMemory memory;
    splat_cuda_workspace* handle;
    bool deterministic;

    explicit Engine(bool deterministic, bool tight = false, unsigned char fill = 0x3c)
        : memory(tight, fill), handle(splat_cuda_workspace_create(0, DeviceMemory::allocate, &memory)), deterministic(deterministic) {
        if (!handle) std::abort();
        set("deterministic", deterministic);
    }
    Engine(const Engine&) = delete;
    ~Engine() { splat_cuda_workspace_destroy(handle); }

    void set(const char* option, int value) {
        if (splat_cuda_set_option(handle, option, value) != SPLAT_OK) expect(false, "there is no option %s", option);
    }
    void set_plain() {
        for (const char* option : kPlain) set(option, 1);
    }
    int forward(const splat_gaussians* g, const splat_view* view, splat_image* image, splat_aux* aux, splat_frame_info* info) {
        const int code = splat_cuda_forward(handle, g, view, image, aux, info, nullptr);
        if (code == SPLAT_OK && info && info->bytes != memory.bytes())
            expect(false, "%lld bytes are told, %lld were taken", static_cast<long long>(info->bytes), static_cast<long long>(memory.bytes()));
        return code;
    }
    template <class... A>
    int backward(A... arguments) {
        return splat_cuda_backward(handle, arguments..., nullptr);
    }
    template <class... A>
    int count_pairs(A... arguments) {
        return splat_cuda_count_pairs(handle, arguments..., nullptr);
    }
    template <class... A>
    int adam(A... arguments) {
        return splat_cuda_adam(0, arguments..., nullptr);
    }
    bool exact() const { return deterministic; }
};

// ------------------------------------------------------------------------------------------------------------ comparisons
bool is_picture(const std::string& name) { return name == "rgb" || name == "alpha" || name == "depth"; }
bool is_place(const std::string& name) { return name == "means2d" || name == "depths" || name == "radii"; }
bool is_sum(const std::string& name) { return name == "blend_weight" || name.compare(0, 2, "v_") == 0; }

// The same numbers; a NaN is a NaN, whichever.
bool same_numbers(const float* a, const float* b, size_t count) {
    for (size_t i = 0; i < count; ++i)
        if (!(a[i] == b[i]) && !(std::isnan(a[i]) && std::isnan(b[i]))) return false;
    return true;
}

const float* numbers(const Outcome& outcome, size_t i, size_t* count) {
    *count = outcome.bytes[i].size() / sizeof(float);
    return reinterpret_cast<const float*>(outcome.bytes[i].data());
}

// The norm of the difference in array i, relative to that of `want`. Turning a ball
// changes nothing: what is left of the gradients of quaternions then is rounding of those of the scales.
double distance(const Outcome& got, const Outcome& want, size_t i) {
    size_t count;
    const float *a = numbers(got, i, &count), *b = numbers(want, i, &count);
    double difference = 0, norm = 0;
    for (size_t j = 0; j < count; ++j) difference += (double(a[j]) - b[j]) * (double(a[j]) - b[j]), norm += double(b[j]) * b[j];
    if (want.name[i] == "v_quats") {
        b = want.floats("v_log_scales", &count);
        for (size_t j = 0; j < count; ++j) norm += double(b[j]) * b[j];
    }
    return difference == 0 ? 0 : std::sqrt(difference / norm);
}

// Of the same frame by kernels of ours that sum in another order: every pixel and place is the same, sums are nearly.
void expect_alike(const Case& c, const Outcome& got, const Outcome& want, const char* why) {
    for (size_t i = 0; i < want.name.size(); ++i) {
        const std::string& name = want.name[i];
        size_t count;
        const float *a = numbers(got, i, &count), *b = numbers(want, i, &count);
        if (name == "visible" || name == "pairs")
            expect(got.bytes[i] == want.bytes[i], "%s differs: %s", name.c_str(), why);
        else if (is_picture(name) || is_place(name))
            expect(same_numbers(a, b, count), "%s differs: %s", name.c_str(), why);
        else if (is_sum(name) && c.moderate)
            expect(distance(got, want, i) <= kOrder * c.rounding, "%s differs by %g: %s", name.c_str(), distance(got, want, i), why);
    }
}

// Of the same frame by the CPU engine.
void expect_as_on_cpu(const Case& c, const Outcome& got, const Outcome& want) {
    for (size_t i = 0; i < want.name.size(); ++i) {
        const std::string& name = want.name[i];
        size_t count;
        const float *a = numbers(got, i, &count), *b = numbers(want, i, &count);
        if (name == "visible") {
            expect(got.bytes[i] == want.bytes[i], "other Gaussians are visible than on the CPU");
        } else if (is_picture(name) || is_place(name)) {
            size_t wrong = 0;
            double largest = 1, worst = 0;
            for (size_t j = 0; j < count; ++j) largest = std::max(largest, double(std::fabs(b[j])));
            const double tolerance = name == "depth" || name == "depths" ? kDepth * largest : (is_place(name) ? kPixels * largest : kColor * largest);
            for (size_t j = 0; j < count; ++j) {
                const double d = std::fabs(double(a[j]) - b[j]);
                wrong += !(d <= tolerance), worst = std::max(worst, d);
            }
            expect(double(wrong) <= (is_place(name) ? 0 : kUndecided * double(count)), "%zu of %zu numbers of %s differ from the CPU's, by up to %g",
                   wrong, count, name.c_str(), worst);
        } else if (is_sum(name)) {
            expect(distance(got, want, i) <= kGradient * c.rounding, "%s differs by %g from the CPU's", name.c_str(), distance(got, want, i));
        }
    }
}

// ----------------------------------------------------------------------------------------------------------------- frames
void check_case(const Case& c, const Options& options, Engine& used, Engine& atomic, Engine& plain, CpuEngine& cpu) {
    const std::string before = where;
    where += c.name;
    Engine fresh(true, true, 0xff);
    const Outcome first = run(c, options, fresh, 0xff);
    expect_finite(c, first);
    run(c, options, used, 0x3c).expect_same(first, "a used workspace");
    expect_alike(c, run(c, options, atomic, 0x3c), first, "atomic sums");
    expect_alike(c, run(c, options, plain, 0x3c), first, "plain kernels");
    if (c.moderate) expect_as_on_cpu(c, first, run(c, options, cpu, 0xff));
    where = before;
}

// Each plain kernel among the others, and the results of repeated runs: sums in slots are the same bits, atomic ones need not be (and if
// they never differed, the emulation would not show what the slots are for).
void check_options() {
    const std::string before = where;
    const Options options = {true, true, true, true};
    const Case c = ordinary("", 130, 15, 70, 50, 12);
    Engine fresh(true, true, 0xff);
    const Outcome first = run(c, options, fresh, 0xff);
    for (const char* option : kPlain) {
        where = before + option;
        Engine engine(true);
        engine.set(option, 1);
        expect_alike(c, run(c, options, engine, 0x3c), first, "one plain kernel");
    }
    where = before + "repeated runs";
    Engine slots(true), atomic(false);
    const Outcome one = run(c, options, atomic, 0xff);
    bool differs = false;
    for (int repeat = 0; repeat < 3; ++repeat) {
        run(c, options, slots, 0x3c).expect_same(first, "run again");
        const Outcome other = run(c, options, atomic, 0xff);
        for (size_t i = 0; i < one.bytes.size(); ++i) differs |= other.bytes[i] != one.bytes[i];
    }
    expect(differs, "four runs with atomic sums gave the same bits");
    where = before;
}

// More pairs than the first frame of a workspace has room for, and then fewer.
void check_growth() {
    const std::string before = where;
    const Options options = {true, true, true, true};
    const Case many = huge(3), few = ordinary("", 33, 8, 20, 30, 4);
    for (const bool deterministic : {true, false}) {
        where = before + "growing lists" + (deterministic ? ", slots" : "");
        Engine engine(deterministic, true, 0xff), plain(deterministic, true, 0xff), small(deterministic, true, 0xff);
        plain.set_plain();
        const Outcome first = run(many, options, engine, 0xff), wanted = run(few, options, small, 0xff);
        expect(engine.memory.taken("pairs") == 2 && small.memory.taken("pairs") == 1, "the lists of pairs were taken %d and %d times",
               engine.memory.taken("pairs"), small.memory.taken("pairs"));
        expect_alike(many, run(many, options, plain, 0xff), first, "plain kernels");
        expect_alike(few, run(few, options, engine, 0x3c), wanted, "after a larger frame");
        expect_alike(many, run(many, options, engine, 0x3c), first, "after a smaller frame");
        expect(engine.memory.taken("pairs") == 2, "the lists of pairs grew again");
    }
    where = before;
}

// Arrays of no numbers may be NULL, as torch gives them.
void check_absent() {
    const std::string before = where;
    where += "absent arrays";
    for (const int64_t n : {0, 40}) {
        const Case c = ordinary("", n, 0, 31, 33, 3);
        Parameters p(c, 0, true);
        splat_gaussians g = p.gaussians(c);
        splat_adam adam = p.adam(false, false);
        g.shN = adam.param[5] = adam.exp_avg[5] = adam.exp_avg_sq[5] = nullptr;
        if (n == 0) {
            g.means = g.quats = g.log_scales = g.logit_opacities = g.sh0 = nullptr;
            for (int f = 0; f < kFields; ++f) adam.param[f] = adam.exp_avg[f] = adam.exp_avg_sq[f] = nullptr;
        }
        const size_t count = size_t(n);
        Guarded<float> rgb(3 * c.pixels(), 0xff), alpha(c.pixels(), 0xff), means2d(2 * count, 0), depths(count, 0), radii(count, 0);
        Guarded<uint8_t> visible(count, 0);
        splat_image image = {rgb.data(), alpha.data(), nullptr};
        splat_aux aux = {};
        if (n) aux = {means2d.data(), depths.data(), radii.data(), visible.data(), nullptr};
        Engine engine(true, true, 0xff);
        expect(engine.forward(&g, &c.view, &image, &aux, nullptr) == SPLAT_OK, "forward without info");
        const splat_image_cotangents v_image = {rgb.data(), nullptr, nullptr};
        splat_gradients v{};
        expect(engine.backward(&g, &c.view, &v_image, &v, &adam) == SPLAT_OK, "backward");
        expect(all_finite(rgb.data(), rgb.size()), "rgb is not finite");
        for (size_t i = 0; i < c.pixels() && n == 0; ++i)
            expect(same_bits(rgb.data() + 3 * i, c.view.background, 3) && alpha[i] == 0, "pixel %zu is not the background", i);
    }
    where = before;
}

// ------------------------------------------------------------------------------------------------------------- no more memory
// One training step in stages, which goes on where it failed.
struct Step {
    const Case& c;
    Engine& engine;
    Parameters given;
    splat_gaussians g;
    splat_adam adam;
    Guarded<float> rgb, alpha, depth, means2d, depths, radii, weight, target, v_rgb, loss, v_viewmat, v_background, v_means2d, v_abs;
    Guarded<uint8_t> visible;
    int stage = 0;

    Step(const Case& c, Engine& engine)
        : c(c), engine(engine), given(c, 0, true), g(given.gaussians(c)), adam(given.adam(false, false)), rgb(3 * c.pixels(), 0),
          alpha(c.pixels(), 0), depth(c.pixels(), 0), means2d(2 * size_t(c.n), 0), depths(size_t(c.n), 0), radii(size_t(c.n), 0),
          weight(size_t(c.n), 0), target(Random{4}.fill(3 * c.pixels(), 0, 1)), v_rgb(3 * c.pixels(), 0), loss(3, 0), v_viewmat(16, 0),
          v_background(3, 0), v_means2d(2 * size_t(c.n), 0), v_abs(2 * size_t(c.n), 0), visible(size_t(c.n), 0) {}

    int backward() {
        const splat_image_cotangents v_image = {v_rgb.data(), nullptr, v_rgb.data()};
        splat_gradients v{};
        v.viewmat = v_viewmat.data(), v.background = v_background.data(), v.means2d = v_means2d.data(), v.means2d_abs = v_abs.data();
        return engine.backward(&g, &c.view, &v_image, &v, &adam);
    }
    int go_on() {
        for (; stage < 4; ++stage) {
            int code = SPLAT_OK;
            if (stage == 0) {
                splat_image image = {rgb.data(), alpha.data(), depth.data()};
                splat_aux aux = {means2d.data(), depths.data(), radii.data(), visible.data(), weight.data()};
                code = engine.forward(&g, &c.view, &image, &aux, nullptr);
                if (code != SPLAT_OK) expect(backward() == SPLAT_BAD_ARGUMENT, "a backward pass of a frame that was not drawn");
            } else if (stage == 1) {
                int64_t evaluated, blended;
                code = engine.count_pairs(&c.view, &evaluated, &blended);
            } else if (stage == 2) {
                code = splat_cuda_l1_ssim(engine.handle, rgb.data(), target.data(), nullptr, c.view.width, c.view.height, 0.2f, v_rgb.data(),
                                          loss.data(), nullptr);
            } else {
                code = backward();
            }
            if (code != SPLAT_OK) return code;
        }
        return SPLAT_OK;
    }
    Outcome outcome() {
        Outcome out;
        given.take(out, "");
        out.take("loss", loss), out.take("v_viewmat", v_viewmat), out.take("v_background", v_background), out.take("rgb", rgb);
        out.take("v_means2d", v_means2d), out.take("v_means2d_abs", v_abs), out.take("blend_weight", weight);
        return out;
    }
};

void check_end_of_memory(const Case& c, bool deterministic, bool tight) {
    const std::string before = where;
    Engine whole(deterministic, tight, 0xff);
    Step undisturbed(c, whole), untouched(c, whole);
    expect(undisturbed.go_on() == SPLAT_OK, "no step");
    const Outcome wanted = undisturbed.outcome(), start = untouched.outcome();
    int buffers = 0, stages = 0;
    for (;; ++buffers) {
        where = before + c.name + (deterministic ? ", slots" : "") + ", memory for " + std::to_string(buffers) + " buffers";
        Engine engine(deterministic, tight, 0xff);
        Step step(c, engine);
        engine.memory.end_after(buffers);
        const int code = step.go_on();
        if (code == SPLAT_OK) break;
        expect(code == SPLAT_OUT_OF_MEMORY, "gave %d", code);
        stages |= 1 << step.stage;
        Outcome now = step.outcome();
        for (size_t i = 0; i < now.name.size() && i < size_t(3 * kFields); ++i)
            expect(now.bytes[i] == start.bytes[i], "%s has changed", now.name[i].c_str());
        engine.memory.go_on();
        expect(step.go_on() == SPLAT_OK, "the next call does not work");
        if (deterministic)
            step.outcome().expect_same(wanted, "memory had ended before");
        else
            expect_alike(c, step.outcome(), wanted, "memory had ended before");
    }
    expect(buffers > 20 && stages == 15, "memory could end at %d buffers, in the stages %d", buffers, stages);
    where = before;
}

// -------------------------------------------------------------------------------------------------------------- large frames
// More tiles than 16 bits number.
void check_many_tiles() {
    const std::string before = where;
    where += "65536 tiles";
    Case c = ordinary("", 150, 0, 65521, 241, 2);
    for (float& each : c.field[2]) each -= 4;
    const splat_gaussians g = {c.n, 0, c.field[0].data(), c.field[1].data(), c.field[2].data(), c.field[3].data(), c.field[4].data(), nullptr};
    const auto draw = [&](auto& engine) {
        Guarded<float> rgb(3 * c.pixels(), 0xff), alpha(c.pixels(), 0xff), means2d(300, 0xff), depths(150, 0xff), radii(150, 0xff);
        Guarded<uint8_t> visible(150, 0xff);
        splat_image image = {rgb.data(), alpha.data(), nullptr};
        splat_aux aux = {means2d.data(), depths.data(), radii.data(), visible.data(), nullptr};
        splat_frame_info info{};
        expect(engine.forward(&g, &c.view, &image, &aux, &info) == SPLAT_OK && info.n_pairs > 1000, "%d pairs", int(info.n_pairs));
        Outcome out;
        out.take("rgb", rgb), out.take("means2d", means2d), out.take("visible", visible);
        return out;
    };
    Engine engine(false);
    CpuEngine cpu;
    expect_as_on_cpu(c, draw(engine), draw(cpu));
    where = before;
}

// n Gaussians that reach every tile of the image.
void check_too_many_pairs(int64_t n, int width, int height, const char* name) {
    const std::string before = where;
    where += name;
    Case c;
    c.n = n, c.k = 0, c.view = camera(width, height, 0, false);
    for (int i = 0; i < 16; ++i) c.view.viewmat[i] = i % 5 == 0;
    for (int f = 0; f < kFields; ++f) c.field[f].assign(size_t(n) * c.width(f), 0.0f);
    for (int64_t i = 0; i < n; ++i) c.field[0][size_t(3 * i + 2)] = 1.0f, c.field[1][size_t(4 * i)] = 1.0f;
    c.field[2].assign(c.field[2].size(), 3.0f);
    Engine engine(false);
    const splat_gaussians g = {n, 0, c.field[0].data(), c.field[1].data(), c.field[2].data(), c.field[3].data(), c.field[4].data(), nullptr};
    Floats rgb(3 * c.pixels()), alpha(c.pixels()), means2d(2 * size_t(n)), depths(size_t(n), 0.0f), radii(size_t(n), 0.0f);
    std::vector<uint8_t> visible(size_t(n), 0);
    splat_image image = {rgb.data(), alpha.data(), nullptr};
    splat_aux aux = {means2d.data(), depths.data(), radii.data(), visible.data(), nullptr};
    expect(engine.forward(&g, &c.view, &image, &aux, nullptr) == SPLAT_TOO_MANY_PAIRS, "too many pairs were drawn");
    const splat_image_cotangents v_image = {rgb.data(), nullptr, nullptr};
    splat_gradients v{};
    expect(engine.backward(&g, &c.view, &v_image, &v, nullptr) == SPLAT_BAD_ARGUMENT, "a backward pass of too many pairs");
    // One of them is not.
    splat_frame_info info{};
    const splat_gaussians one = {1, 0, g.means, g.quats, g.log_scales, g.logit_opacities, g.sh0, nullptr};
    expect(engine.forward(&one, &c.view, &image, &aux, &info) == SPLAT_OK, "the next frame");
    const int64_t tiles = int64_t((width + 15) / 16) * ((height + 15) / 16);
    expect(info.n_pairs == tiles && n * tiles > (int64_t(1) << 31), "%lld pairs of one", static_cast<long long>(info.n_pairs));
    where = before;
}

// ------------------------------------------------------------------------------------------------- loss, Adam, exponential
void check_loss() {
    const std::string before = where;
    const int sizes[][2] = {{1, 1}, {15, 15}, {16, 16}, {17, 17}, {31, 33}, {32, 16}, {33, 17}, {40, 1}, {1, 40}, {5, 4}, {100, 60}};
    Engine used(false), plain(false);
    plain.set_plain();
    CpuEngine cpu;
    for (const auto& size : sizes)
        for (int kind = 0; kind < 8; ++kind) {
            where = before + "loss of " + std::to_string(size[0]) + "x" + std::to_string(size[1]) + " kind " + std::to_string(kind);
            const size_t count = size_t(size[0]) * size_t(size[1]) * 3;
            Random random{uint64_t(kind)};
            Floats x = random.fill(count, 0, 1), y = random.fill(count, 0, 1);
            if (kind == 1) y = x;
            if (kind == 2) x.assign(count, 0), y.assign(count, 1);
            const float poison[] = {kNan, kInf, FLT_MAX, 1e-42f};
            if (kind >= 4) x[count / 2] = poison[kind - 4];
            Floats counted(count);  // whole pixels
            for (size_t i = 0; i < count; ++i) counted[i] = i / 3 % 5 != 2;
            if (kind == 3 && count > 6) x[6] = kNan;  // of a pixel that does not count
            const Guarded<float> a(x), b(y), counts(counted);
            const float* which = kind == 3 ? counts.data() : nullptr;
            const auto compute = [&](Engine& engine, unsigned char fill) {
                Guarded<float> v_x(count, fill), loss(3, fill);
                const int code = splat_cuda_l1_ssim(engine.handle, a.data(), b.data(), which, size[0], size[1], 0.2f, v_x.data(),
                                                    loss.data(), nullptr);
                expect(code == SPLAT_OK, "loss gave %d", code);
                Outcome out;
                out.take("v_x", v_x), out.take("loss", loss);
                return out;
            };
            Engine fresh(false, true, 0xff);
            const Outcome first = compute(fresh, 0xff), simple = compute(plain, 0xff);
            compute(used, 0x3c).expect_same(first, "a used workspace");
            if (kind >= 4 && kind < 7) continue;
            Guarded<float> v_x(count, 0xff);
            double loss[3];
            expect(splat_cpu_l1_ssim(cpu.handle, a.data(), b.data(), which, size[0], size[1], 0.2f, v_x.data(), loss) == SPLAT_OK, "no loss");
            for (const Outcome* got : {&first, &simple}) {
                size_t numbers_count;
                const float *v = numbers(*got, 0, &numbers_count), *value = numbers(*got, 1, &numbers_count);
                for (int i = 0; i < 3; ++i)
                    expect(std::fabs(value[i] - loss[i]) < 2e-6, "loss %d is %g, on the CPU %g", i, double(value[i]), loss[i]);
                double difference = 0, norm = 1e-2 / double(count);  // one number has about 1 / count
                for (size_t i = 0; i < count; ++i) {
                    difference += (double(v[i]) - v_x[i]) * (double(v[i]) - v_x[i]), norm += double(v_x[i]) * v_x[i];
                    expect(which == nullptr || counted[i] != 0 || v[i] == 0, "v_x[%zu] = %g", i, double(v[i]));
                }
                expect(std::sqrt(difference / norm) < kOrder, "v_x differs by %g from the CPU's", std::sqrt(difference / norm));
            }
        }
    where = before;
}

void check_adam() {
    const std::string before = where;
    for (int64_t count : {0, 1, 31, 32, 33, 255, 256, 257, 8193})
        for (float poison : {0.5f, kNan, kInf, 1e-42f, FLT_MAX}) {
            where = before + "Adam of " + std::to_string(count) + " with " + std::to_string(poison);
            const size_t n = size_t(count);
            const auto step = [&](const auto& adam) {
                Random random{3};
                Floats values = random.fill(n, -1, 1);
                if (count) values[n / 2] = poison;
                const Guarded<float> grad(values);
                Guarded<float> param(random.fill(n, -1, 1)), m(random.fill(n, -1, 1)), v(random.fill(n, 0, 1));
                expect(adam(param.data(), grad.data(), m.data(), v.data()) == SPLAT_OK, "no step");
                Outcome out;
                out.take("param", param), out.take("exp_avg", m), out.take("exp_avg_sq", v);
                return out;
            };
            const Outcome got = step([&](float* p, const float* g, float* m, float* v) {
                return splat_cuda_adam(0, p, g, m, v, count, 1e-3, 0.9, 0.999, 1e-15, 4, nullptr);
            });
            const Outcome want = step([&](float* p, const float* g, float* m, float* v) {
                return splat_cpu_adam(p, g, m, v, count, 1e-3, 0.9, 0.999, 1e-15, 4);
            });
            for (size_t i = 0; i < want.name.size(); ++i) {
                size_t numbers_count;
                const float *a = numbers(got, i, &numbers_count), *b = numbers(want, i, &numbers_count);
                expect(same_numbers(a, b, n), "%s differs from the CPU's", want.name[i].c_str());
            }
        }
    expect(splat_cuda_adam(0, nullptr, nullptr, nullptr, nullptr, 0, 1, 0.9, 0.999, 1e-8, 1, nullptr) == SPLAT_OK, "no arrays of no numbers");
    where = before;
}

void check_exponential() {
    for (int64_t count : {0, 1, 31, 32, 33, 257}) {
        const Guarded<float> x(Random{1}.fill(size_t(count), -100, 0));
        Guarded<float> out(x.size(), 0xff);
        expect(splat_cuda_exp2(0, x.data(), out.data(), count, nullptr) == SPLAT_OK && out.intact(), "the exponential of %d numbers", int(count));
        for (size_t i = 0; i < x.size(); ++i)
            expect(std::fabs(double(out[i]) / std::exp2(double(x.data()[i])) - 1) < 3e-7, "2^%g is %g", double(x.data()[i]), double(out[i]));
    }
}

// ---------------------------------------------------------------------------------------------------------- wrong calls
void check_refusals() {
    where = "wrong arguments";
    const auto refused = [&](const char* what, int code) { expect(code == SPLAT_BAD_ARGUMENT, "%s gave %d", what, code); };
    DeviceMemory memory(false, 0);
    expect(!splat_cuda_workspace_create(0, nullptr, nullptr), "a workspace without memory");
    expect(!splat_cuda_workspace_create(7, DeviceMemory::allocate, &memory), "a workspace on device 7");
    Engine ws(false);
    refused("an unknown option", splat_cuda_set_option(ws.handle, "fast", 1));
    refused("an option without a name", splat_cuda_set_option(ws.handle, nullptr, 1));
    refused("an option of no workspace", splat_cuda_set_option(nullptr, "timings", 1));

    Case c = ordinary("", 20, 3, 20, 20, 1);
    Parameters p(c, 0, true);
    splat_gaussians g = p.gaussians(c);
    splat_view view = c.view;
    Guarded<float> rgb(1200, 0), alpha(400, 0), depth(400, 0), means2d(40, 0), depths(20, 0), radii(20, 0);
    Guarded<uint8_t> visible(20, 0);
    splat_image image = {rgb.data(), alpha.data(), nullptr};
    splat_aux aux = {means2d.data(), depths.data(), radii.data(), visible.data(), nullptr};
    splat_frame_info info{};
    const splat_image_cotangents v_image = {rgb.data(), nullptr, nullptr};
    splat_gradients v{};
    v.means = p.grad[0]->data(), v.quats = p.grad[1]->data(), v.log_scales = p.grad[2]->data();
    v.logit_opacities = p.grad[3]->data(), v.sh0 = p.grad[4]->data(), v.shN = p.grad[5]->data();
    int64_t evaluated, blended;
    const auto draw = [&] { return ws.forward(&g, &view, &image, &aux, &info); };
    const auto differentiate = [&] { return ws.backward(&g, &view, &v_image, &v, nullptr); };
    const auto wrong = [&](const char* what, const std::function<void()>& change) {
        const splat_view view_before = view;
        const splat_gaussians g_before = g;
        change();
        refused(what, draw());
        view = view_before, g = g_before;
    };
    refused("a backward pass before any forward pass", differentiate());
    refused("pairs before any forward pass", ws.count_pairs(&view, &evaluated, &blended));
    wrong("no width", [&] { view.width = 0; });
    wrong("a negative height", [&] { view.height = -1; });
    wrong("too wide an image", [&] { view.width = 65537; });
    wrong("a negative count", [&] { g.n = -1; });
    wrong("too high a count", [&] { g.n = int64_t(1) << 31; });
    wrong("SH degree 4", [&] { view.sh_degree = 4; });
    wrong("SH degree -1", [&] { view.sh_degree = -1; });
    wrong("SH degree 2 of 1", [&] { view.sh_degree = 2; });
    wrong("a focal length of NaN", [&] { view.fx = kNan; });
    wrong("a negative eps2d", [&] { view.eps2d = -0.3f; });
    wrong("an eps2d of NaN", [&] { view.eps2d = kNan; });
    wrong("a focal length of 0", [&] { view.fy = 0; });
    refused("no workspace", splat_cuda_forward(nullptr, &g, &view, &image, &aux, &info, nullptr));
    refused("no Gaussians", ws.forward(nullptr, &view, &image, &aux, &info));
    refused("no view", ws.forward(&g, nullptr, &image, &aux, &info));
    refused("no image", ws.forward(&g, &view, nullptr, &aux, &info));
    refused("no aux", ws.forward(&g, &view, &image, nullptr, &info));
    expect(draw() == SPLAT_OK && differentiate() == SPLAT_OK, "the right call is refused");
    refused("a backward pass of no workspace", splat_cuda_backward(nullptr, &g, &view, &v_image, &v, nullptr, nullptr));
    const splat_image_cotangents without_rgb = {nullptr, nullptr, nullptr};
    const splat_image_cotangents* no_cotangents = nullptr;
    splat_gradients* no_gradients = nullptr;
    const splat_adam* no_adam = nullptr;
    refused("a backward pass of no image", ws.backward(&g, &view, no_cotangents, &v, no_adam));
    refused("a backward pass of no colours", ws.backward(&g, &view, &without_rgb, &v, no_adam));
    refused("a backward pass to nowhere", ws.backward(&g, &view, &v_image, no_gradients, no_adam));
    refused("pairs of no workspace", splat_cuda_count_pairs(nullptr, &view, &evaluated, &blended, nullptr));
    refused("pairs to nowhere", splat_cuda_count_pairs(ws.handle, &view, &evaluated, nullptr, nullptr));
    g.n = 19;
    refused("a backward pass of other Gaussians", differentiate());
    g.n = 20, view.width = 19;
    refused("a backward pass of another view", differentiate());
    refused("pairs of another view", ws.count_pairs(&view, &evaluated, &blended));
    view.width = 20;
    const splat_image_cotangents with_depth = {rgb.data(), nullptr, depth.data()};
    refused("gradients of a depth that was not drawn", ws.backward(&g, &view, &with_depth, &v, no_adam));
    splat_adam adam = p.adam(false, false);
    const splat_adam* step = &adam;
    adam.step = 0;
    refused("Adam step 0", ws.backward(&g, &view, &v_image, &v, step));
    adam.step = 1, adam.param[2] = adam.param[0];
    refused("Adam on other arrays", ws.backward(&g, &view, &v_image, &v, step));
    adam.param[2] = p.param[2]->data(), adam.exp_avg_sq[3] = nullptr;
    refused("Adam without a moment", ws.backward(&g, &view, &v_image, &v, step));
    float loss[3];
    float* r = rgb.data();
    const auto no_loss = [&](const char* what, splat_cuda_workspace* handle, const float* x, const float* y, int width, float* v_x, float* to) {
        refused(what, splat_cuda_l1_ssim(handle, x, y, nullptr, width, 20, 0.2f, v_x, to, nullptr));
    };
    no_loss("a loss of no workspace", nullptr, r, r, 20, r, loss);
    no_loss("a loss without images", ws.handle, nullptr, r, 20, r, loss);
    no_loss("a loss without a target", ws.handle, r, nullptr, 20, r, loss);
    no_loss("a loss of no pixels", ws.handle, r, r, 0, r, loss);
    no_loss("a loss without a gradient", ws.handle, r, r, 20, nullptr, loss);
    no_loss("a loss to nowhere", ws.handle, r, r, 20, r, nullptr);
    refused("Adam of a negative count", splat_cuda_adam(0, nullptr, nullptr, nullptr, nullptr, -1, 1, 0.9, 0.999, 1e-8, 1, nullptr));
    refused("Adam without arrays", splat_cuda_adam(0, nullptr, nullptr, nullptr, nullptr, 1, 1, 0.9, 0.999, 1e-8, 1, nullptr));
    refused("step 0 of Adam", splat_cuda_adam(0, r, r, r, r, 1, 1, 0.9, 0.999, 1e-8, 0, nullptr));
    refused("exponentials of nothing", splat_cuda_exp2(0, nullptr, r, 1, nullptr));
    refused("exponentials of a negative count", splat_cuda_exp2(0, r, r, -1, nullptr));
    refused("times to nowhere", splat_cuda_timings(ws.handle, nullptr));
    double seconds[6];
    refused("times of no workspace", splat_cuda_timings(nullptr, seconds));
    splat_cuda_workspace_destroy(nullptr);

    where = "devices";
    splat_cuda_device device{};
    expect(splat_cuda_device_count() == 1 && splat_cuda_device_check(0) == SPLAT_OK, "no device");
    expect(splat_cuda_device_info(0, &device) == SPLAT_OK && device.name[0], "the device has no name");
    refused("what is known of device 1", splat_cuda_device_info(1, &device));
    refused("what is known, to nowhere", splat_cuda_device_info(0, nullptr));
    expect(splat_cuda_adam(1, r, r, r, r, 1, 1, 0.9, 0.999, 1e-8, 1, nullptr) == SPLAT_DEVICE_ERROR, "Adam on device 1");
    expect(std::strstr(splat_cuda_last_error(), "choosing the device"), "the last error is '%s'", splat_cuda_last_error());
    std::set<std::string> names;
    int named = 0;
    for (int32_t number = -1; number <= SPLAT_CUDA_BUFFERS; ++number)
        if (const char* name = splat_cuda_buffer_name(number)) names.insert(name), ++named;
    expect(named > 20 && names.size() == size_t(named), "%d buffers have %zu names", named, names.size());

    where = "times";
    expect(splat_cuda_timings(ws.handle, seconds) == SPLAT_OK, "no times");
    for (double each : seconds) expect(each == 0, "%g s were measured", each);
    ws.set("timings", 1);
    expect(draw() == SPLAT_OK && differentiate() == SPLAT_OK, "a call with times");
    expect(splat_cuda_l1_ssim(ws.handle, r, r, nullptr, 20, 20, 0.2f, rgb.data(), loss, nullptr) == SPLAT_OK, "a loss with times");
    expect(splat_cuda_timings(ws.handle, seconds) == SPLAT_OK, "no times");
    for (double each : seconds) expect(each > 0 && each < 10, "%g s were measured", each);
}

// Two callers at once, each with a workspace of its own.
void check_callers() {
    where = "two callers at once";
    const Case cases[2] = {ordinary("", 300, 15, 60, 50, 4), ordinary("", 200, 3, 33, 70, 5)};
    Outcome alone[2];
    for (int i = 0; i < 2; ++i) {
        Engine engine(true);
        Step step(cases[i], engine);
        expect(step.go_on() == SPLAT_OK, "no step");
        alone[i] = step.outcome();
    }
    Engine engines[2] = {Engine(true), Engine(true)};
    Step first(cases[0], engines[0]), second(cases[1], engines[1]);
    int code = SPLAT_BAD_ARGUMENT;
    std::thread other([&] { code = first.go_on(); });
    expect(second.go_on() == SPLAT_OK, "no step");
    other.join();
    expect(code == SPLAT_OK, "no step of the other");
    first.outcome().expect_same(alone[0], "another caller"), second.outcome().expect_same(alone[1], "another caller");
}

}  // namespace

int main() {
    const std::vector<Case> all = make_cases();
    Engine used(true), atomic(false), plain(true);
    plain.set_plain();
    CpuEngine cpu;
    check_refusals();
    where = "";
    int index = 0;
    for (const Case& c : all) {
        if (c.n > 10000) continue;  // which is for threads of the CPU
        const Options options = {!c.moderate || index % 2, index % 4 < 2, index % 3 != 0, index % 5 != 0};
        check_case(c, options, used, atomic, plain, cpu);
        ++index;
    }
    check_isolation(used);
    check_options();
    check_growth();
    check_absent();
    for (const bool deterministic : {true, false})
        for (const bool tight : {true, false}) check_end_of_memory(ordinary("little", 130, 15, 20, 17, 9), deterministic, tight);
    check_end_of_memory(huge(3), true, false);
    check_many_tiles();
    // Beyond 2^31, and beyond 2^32, where the sum would begin anew.
    check_too_many_pairs(135000, 65536, 64, "2^31 pairs");
    check_too_many_pairs(270000, 65536, 64, "2^32 pairs");
    check_loss();
    check_adam();
    check_exponential();
    check_callers();
    std::printf("%s: %zu cases, %ld checks: %s\n", splat_cuda_version(), all.size(), checks, failures ? "FAILED" : "ok");
    return failures ? 1 : 0;
}
