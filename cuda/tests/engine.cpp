// The native engine through its C interface, on ordinary, boundary and hostile input.
//
//   engine LEVEL
//
// At this level (generic, avx2, avx512, neon) and with 1, 2, 3 and 7 threads it draws, differentiates and updates, and checks that
//   - the results are the same bits for any number of threads, for a fresh and for a used workspace, and whatever the
//     outputs held before (so every number of every output is written);
//   - nothing is written beside an output, and no input is written (under AddressSanitizer: nor read beside an input);
//   - images are finite where the inputs are, and gradients where the inputs are moderate;
//   - the fused Adam step gives the numbers of the separate calls;
//   - a Gaussian with a NaN in its geometry is as good as absent.
// Built with a sanitizer (make sanitize) it shows what the engine does to memory, threads and undefined behaviour.
// Exits with 1 where anything failed, and with 77 where the processor cannot run the level.
#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include "../include/splat/api.h"

namespace {

constexpr int kFields = 6;
const char* const kFieldNames[kFields] = {"means", "quats", "log_scales", "logit_opacities", "sh0", "shN"};
const float kInf = INFINITY, kNan = NAN;

int failures = 0;
long checks = 0;
std::string where;

void expect(bool ok, const char* format, ...) {
    ++checks;
    if (ok) return;
    if (++failures > 40) return;
    std::va_list arguments;
    va_start(arguments, format);
    std::printf("FAILED %s: ", where.c_str());
    std::vprintf(format, arguments);
    std::printf("\n");
    std::fflush(stdout);
    va_end(arguments);
}

// An array of exactly `count` numbers between canaries. Its start is aligned to 4 bytes only, as the interface allows.
// Under AddressSanitizer the memory ends where the array does, so that reads behind it are found, too.
template <class T>
class Guarded {
   public:
    Guarded(size_t count, unsigned char fill) : count_(count) {
        memory_ = static_cast<T*>(std::malloc((kBefore + count + kAfter) * sizeof(T)));
        if (!memory_) throw std::bad_alloc();
        std::memset(static_cast<void*>(memory_), kCanary, (kBefore + count + kAfter) * sizeof(T));
        std::memset(static_cast<void*>(data()), fill, count * sizeof(T));
    }
    explicit Guarded(const std::vector<T>& values) : Guarded(values.size(), 0) {
        if (count_) std::memcpy(data(), values.data(), count_ * sizeof(T));
    }
    Guarded(const Guarded&) = delete;
    ~Guarded() { std::free(memory_); }

    T* data() { return memory_ + kBefore; }
    const T* data() const { return memory_ + kBefore; }
    size_t size() const { return count_; }
    T& operator[](size_t i) { return data()[i]; }
    bool intact() const {
        const unsigned char* bytes = reinterpret_cast<const unsigned char*>(memory_);
        for (size_t i = 0; i < kBefore * sizeof(T); ++i)
            if (bytes[i] != kCanary) return false;
        bytes += (kBefore + count_) * sizeof(T);
        for (size_t i = 0; i < kAfter * sizeof(T); ++i)
            if (bytes[i] != kCanary) return false;
        return true;
    }

   private:
#if defined(__SANITIZE_ADDRESS__)
    static constexpr size_t kBefore = 1, kAfter = 0;
#else
    static constexpr size_t kBefore = 33, kAfter = 64;
#endif
    static constexpr unsigned char kCanary = 0xa5;
    T* memory_;
    size_t count_;
};

using Floats = std::vector<float>;

bool all_finite(const float* values, size_t count) {
    for (size_t i = 0; i < count; ++i)
        if (!std::isfinite(values[i])) return false;
    return true;
}

// SplitMix64 (Steele et al. 2014).
struct Random {
    uint64_t state;
    uint64_t next() {
        uint64_t z = state += 0x9e3779b97f4a7c15u;
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
        z = (z ^ z >> 27) * 0x94d049bb133111ebu;
        return z ^ z >> 31;
    }
    float uniform(float lo, float hi) { return lo + (hi - lo) * float(next() >> 40) * 0x1p-24f; }
    Floats fill(size_t count, float lo, float hi) {
        Floats values(count);
        for (float& value : values) value = uniform(lo, hi);
        return values;
    }
};

// ---------------------------------------------------------------------------------------------------------------- cases
struct Case {
    std::string name;
    int64_t n = 0;
    int k = 0;
    Floats field[kFields];
    splat_view view{};
    bool moderate = true;  // gradients must be finite

    size_t width(int f) const { return size_t(f == 5 ? 3 * k : (f == 1 ? 4 : (f == 3 ? 1 : 3))); }
    size_t pixels() const { return size_t(view.width) * size_t(view.height); }
    bool finite() const {
        for (const Floats& values : field)
            if (!all_finite(values.data(), values.size())) return false;
        const float numbers[] = {view.fx, view.fy, view.cx, view.cy, view.eps2d};
        return all_finite(view.viewmat, 16) && all_finite(view.background, 3) && all_finite(numbers, 5);
    }
};

// A camera a little away from the origin, turned about y and x.
splat_view camera(int width, int height, int degree, bool antialiased) {
    splat_view view{};
    const float a = 0.3f, b = -0.2f, ca = std::cos(a), sa = std::sin(a), cb = std::cos(b), sb = std::sin(b);
    const float pose[16] = {ca, 0, sa, 0.1f, sb * sa, cb, -sb * ca, -0.2f, -cb * sa, sb, cb * ca, 0.3f, 0, 0, 0, 1};
    std::memcpy(view.viewmat, pose, sizeof pose);
    const float focal = 0.9f * float(width > height ? width : height);
    view.fx = focal, view.fy = 1.03f * focal, view.cx = 0.48f * float(width), view.cy = 0.53f * float(height);
    view.width = width, view.height = height, view.sh_degree = degree, view.antialiased = antialiased, view.eps2d = 0.3f;
    for (int c = 0; c < 3; ++c) view.background[c] = 0.2f + 0.3f * float(c);
    return view;
}

// Writes the mean of a Gaussian that the view sees at pixel (u, v) and depth z.
void place(Case& c, int64_t i, float u, float v, float z) {
    const float* m = c.view.viewmat;
    const float local[3] = {(u - c.view.cx) / c.view.fx * z - m[3], (v - c.view.cy) / c.view.fy * z - m[7], z - m[11]};
    for (int j = 0; j < 3; ++j)
        c.field[0][size_t(3 * i + j)] = m[j] * local[0] + m[4 + j] * local[1] + m[8 + j] * local[2];
}

// n Gaussians in front of the camera, from below a pixel to an eighth of the image, faint to opaque.
Case ordinary(std::string name, int64_t n, int k, int width, int height, uint64_t seed) {
    Random random{seed * 7919 + 17};
    Case c;
    c.name = std::move(name), c.n = n, c.k = k;
    const int degree = k >= 15 ? 3 : (k >= 8 ? 2 : (k >= 3 ? 1 : 0));
    c.view = camera(width, height, seed % 3 ? degree : 0, seed % 2);
    for (int f = 0; f < kFields; ++f) c.field[f].resize(size_t(n) * c.width(f));
    for (int64_t i = 0; i < n; ++i) {
        const float z = random.uniform(1, 6), size = float(width > height ? width : height);
        place(c, i, random.uniform(-0.1f, 1.1f) * float(width), random.uniform(-0.1f, 1.1f) * float(height), z);
        const float sigma = std::exp(random.uniform(std::log(0.4f), std::log(size / 8 + 1)));
        for (int j = 0; j < 3; ++j)
            c.field[2][size_t(3 * i + j)] = std::log(sigma * z / c.view.fx * random.uniform(0.2f, 1));
    }
    c.field[1] = random.fill(c.field[1].size(), -1, 1);
    c.field[3] = random.fill(c.field[3].size(), -4, 4);
    c.field[4] = random.fill(c.field[4].size(), -1, 2);
    c.field[5] = random.fill(c.field[5].size(), -0.3f, 0.3f);
    return c;
}

const std::pair<const char*, float> kHostile[] = {
    {"NaN", kNan},       {"inf", kInf},       {"-inf", -kInf},     {"denormal", 1e-42f}, {"-0", -0.0f},
    {"max", FLT_MAX},    {"-max", -FLT_MAX},  {"1e30", 1e30f},     {"-1e18", -1e18f},    {"min", FLT_MIN},
};

std::vector<Case> make_cases() {
    std::vector<Case> cases;
    const int ks[] = {0, 3, 8, 15};
    uint64_t seed = 1;
    const auto add = [&](Case c, bool moderate) {
        c.moderate = moderate;
        cases.push_back(std::move(c));
    };
    // Around the vector widths, the chunks of the backward pass, and enough for every loop to have work for seven threads.
    for (int64_t n : {0, 1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 255, 257, 25000, 2500})
        add(ordinary(std::to_string(n) + " Gaussians", n, n > 10000 ? 0 : ks[seed % 4], 31, 33, seed), true), ++seed;
    const int sizes[][2] = {{1, 1}, {15, 15}, {16, 16}, {17, 17}, {31, 33}, {40, 1}, {1, 40}, {100, 70}};
    for (const auto& size : sizes) {
        const std::string name = std::to_string(size[0]) + "x" + std::to_string(size[1]) + " px";
        add(ordinary(name, 60, ks[seed % 4], size[0], size[1], seed), true), ++seed;
    }
    // One hostile number in one Gaussian, and in all.
    for (int f = 0; f < kFields; ++f)
        for (const auto& [name, value] : kHostile)
            for (bool everywhere : {false, true}) {
                Case c = ordinary(std::string(kFieldNames[f]) + " " + name + (everywhere ? " in all" : " in one"), 37, 15,
                                  31, 33, seed++);
                const size_t component = seed % c.width(f);
                for (size_t i = everywhere ? 0 : 18; i < (everywhere ? 37 : 19); ++i)
                    c.field[f][i * c.width(f) + component] = value;
                add(std::move(c), false);
            }
    const auto variant = [&](const char* name, bool moderate, int64_t n, const std::function<void(Case&)>& change) {
        Case c = ordinary(name, n, 3, 31, 33, seed++);
        change(c);
        add(std::move(c), moderate);
    };
    const auto every = [](int f, float value) {
        return [=](Case& c) { c.field[f].assign(c.field[f].size(), value); };
    };
    variant("zero quaternions", true, 40, every(1, 0));
    variant("denormal quaternions", false, 40, every(1, 1e-41f));
    variant("long quaternions", false, 40, every(1, 1e18f));
    for (float s : {-200.0f, -88.0f, -44.0f, -20.0f, 10.0f, 20.0f, 44.0f, 88.0f, 200.0f})
        variant(("log scale " + std::to_string(s)).c_str(), false, 40, every(2, s));
    for (float s : {-100.0f, 100.0f, -20.0f, 20.0f})
        variant(("opacity logit " + std::to_string(s)).c_str(), true, 40, every(3, s));
    variant("opacity exactly 0", false, 40, every(3, -kInf));
    variant("opacity exactly 1", false, 40, every(3, kInf));
    variant("camera inside a Gaussian", true, 40, [&](Case& c) {
        place(c, 0, c.view.cx, c.view.cy, 0.0f);
        place(c, 1, c.view.cx, c.view.cy, 0.011f);
        for (int i = 0; i < 6; ++i) c.field[2][size_t(i)] = 1.0f;
    });
    variant("means at the camera", true, 40, [&](Case& c) {
        for (int64_t i = 0; i < c.n; ++i) place(c, i, 0, 0, 0);
    });
    variant("on the near plane", true, 40, [&](Case& c) {
        for (int64_t i = 0; i < c.n; ++i) place(c, i, 10, 10, 0.01f + 1e-7f * float(i - 20));
    });
    variant("all behind the camera", true, 300, [&](Case& c) {
        for (int64_t i = 0; i < c.n; ++i) place(c, i, 10, 10, -1.0f - 0.01f * float(i));
    });
    variant("one covers everything", true, 1, [&](Case& c) {
        place(c, 0, 15, 15, 2);
        every(2, 3)(c), every(3, 3)(c);
    });
    variant("one covers all others", true, 100, [&](Case& c) {
        place(c, 0, 15, 15, 1);
        for (int j = 0; j < 3; ++j) c.field[2][size_t(j)] = 4;
    });
    variant("thousands on one pixel, faint", true, 5000, [&](Case& c) {
        for (int64_t i = 0; i < c.n; ++i) place(c, i, 10.5f, 10.5f, 1.0f + 1e-4f * float(i % 997));
        every(2, -7)(c), every(3, -5)(c);
    });
    variant("thousands on one pixel, opaque", true, 5000, [&](Case& c) {
        for (int64_t i = 0; i < c.n; ++i) place(c, i, 10.5f, 10.5f, 1.0f + 1e-4f * float(i % 997));
        every(2, -7)(c), every(3, 9)(c);
    });
    variant("all at one place", true, 300, [&](Case& c) {
        for (int64_t i = 0; i < c.n; ++i) place(c, i, 12, 9, 2);
    });
    variant("needles", true, 100, [&](Case& c) {
        for (int64_t i = 0; i < c.n; ++i) c.field[2][size_t(3 * i)] += 3, c.field[2][size_t(3 * i + 1)] -= 4;
    });
    variant("planes seen from the side", false, 40, [&](Case& c) {
        every(2, 6)(c);
        for (int64_t i = 0; i < c.n; ++i) c.field[2][size_t(3 * i)] = -60;
    });
    const auto look = [&](const char* name, const std::function<void(splat_view&)>& change) {
        variant(name, false, 40, [&](Case& c) { change(c.view); });
    };
    for (const auto& [name, value] : kHostile) {
        const float x = value;
        look((std::string("background ") + name).c_str(), [x](splat_view& v) { v.background[1] = x; });
        if (x >= 0) look((std::string("eps2d ") + name).c_str(), [x](splat_view& v) { v.eps2d = x; });
        look((std::string("cx ") + name).c_str(), [x](splat_view& v) { v.cx = x; });
        look((std::string("rotation ") + name).c_str(), [x](splat_view& v) { v.viewmat[5] = x; });
        look((std::string("translation ") + name).c_str(), [x](splat_view& v) { v.viewmat[11] = x; });
        if (x > 0) look((std::string("fx ") + name).c_str(), [x](splat_view& v) { v.fx = x; });
    }
    look("eps2d 0", [](splat_view& v) { v.eps2d = 0; });
    look("eps2d 1e-12", [](splat_view& v) { v.eps2d = 1e-12f; });
    variant("eps2d 0 and flat", false, 40, [&](Case& c) { c.view.eps2d = 0, every(2, -60)(c); });
    variant("eps2d 0 and needles", false, 40, [&](Case& c) {
        c.view.eps2d = 0;
        for (int64_t i = 0; i < c.n; ++i) c.field[2][size_t(3 * i)] = 2, c.field[2][size_t(3 * i + 1)] = -60;
    });
    // Sums that leave the numbers of float although every input is one.
    variant("colours beyond float", false, 40, [&](Case& c) { every(4, FLT_MAX)(c), every(5, FLT_MAX)(c); });
    variant("colours beyond float and below 0", false, 40, [&](Case& c) { every(4, FLT_MAX)(c), every(5, -FLT_MAX)(c); });
    variant("depths beyond float", false, 40, [&](Case& c) {
        for (int i = 0; i < 16; ++i) c.view.viewmat[i] = i % 5 == 0 || i == 11;
        c.view.viewmat[11] = FLT_MAX, c.view.antialiased = 0;
        for (int64_t i = 0; i < c.n; ++i)
            for (int j = 0; j < 3; ++j) c.field[0][size_t(3 * i + j)] = j == 2 ? FLT_MAX : 0;
    });
    variant("bright colours on a bright background", false, 40, [&](Case& c) {
        every(4, FLT_MAX)(c), every(5, FLT_MAX)(c);
        for (float& b : c.view.background) b = FLT_MAX;
    });
    look("rotation of zeros", [](splat_view& v) {
        for (int i = 0; i < 12; ++i)
            if (i % 4 < 3) v.viewmat[i] = 0;
    });
    return cases;
}

// ------------------------------------------------------------------------------------------------------------- one case
struct Options {
    bool depth, stats, alpha, pose;
};

// Everything that a case gave, one buffer after another.
struct Outcome {
    std::vector<std::string> name;
    std::vector<std::vector<unsigned char>> bytes;

    template <class T>
    void take(const std::string& what, Guarded<T>& from) {
        expect(from.intact(), "%s is written beyond its ends", what.c_str());
        const unsigned char* first = reinterpret_cast<const unsigned char*>(from.data());
        name.push_back(what);
        bytes.emplace_back(first, first + from.size() * sizeof(T));
    }
    void expect_same(const Outcome& other, const char* why) const {
        for (size_t i = 0; i < bytes.size(); ++i)
            expect(bytes[i] == other.bytes[i], "%s differs: %s", name[i].c_str(), why);
    }
    const float* floats(const char* what, size_t* count) const {
        for (size_t i = 0; i < name.size(); ++i)
            if (name[i] == what) {
                *count = bytes[i].size() / sizeof(float);
                return reinterpret_cast<const float*>(bytes[i].data());
            }
        *count = 0;
        return nullptr;
    }
};

struct Parameters {
    std::unique_ptr<Guarded<float>> param[kFields], exp_avg[kFields], exp_avg_sq[kFields], grad[kFields];

    Parameters(const Case& c, unsigned char fill, bool moments) {
        Random random{99};
        for (int f = 0; f < kFields; ++f) {
            const size_t count = c.field[f].size();
            param[f].reset(new Guarded<float>(c.field[f]));
            exp_avg[f].reset(new Guarded<float>(random.fill(count, -0.1f, moments ? 0.1f : -0.1f)));
            exp_avg_sq[f].reset(new Guarded<float>(random.fill(count, 0, 0.01f)));
            if (!moments)
                for (size_t i = 0; i < count; ++i) (*exp_avg[f])[i] = (*exp_avg_sq[f])[i] = 0;
            grad[f].reset(new Guarded<float>(count, fill));
        }
    }
    splat_gaussians gaussians(const Case& c) {
        return {c.n, c.k, param[0]->data(), param[1]->data(), param[2]->data(), param[3]->data(), param[4]->data(),
                param[5]->data()};
    }
    splat_adam adam(bool only_touched, bool grows) {
        splat_adam a{};
        for (int f = 0; f < kFields; ++f) {
            a.param[f] = param[f]->data(), a.exp_avg[f] = exp_avg[f]->data(), a.exp_avg_sq[f] = exp_avg_sq[f]->data();
            a.lr[f] = 1e-3 * (f + 1);
        }
        a.beta1 = 0.9, a.beta2 = 0.999, a.eps = 1e-15, a.step = 3;
        a.only_touched = only_touched, a.sh_degree_grows = grows;
        return a;
    }
    void take(Outcome& out, const std::string& prefix) {
        for (int f = 0; f < kFields; ++f) {
            out.take(prefix + kFieldNames[f], *param[f]);
            out.take(prefix + "exp_avg of " + kFieldNames[f], *exp_avg[f]);
            out.take(prefix + "exp_avg_sq of " + kFieldNames[f], *exp_avg_sq[f]);
        }
    }
};

bool same_bits(const float* a, const float* b, size_t count) {
    return count == 0 || !std::memcmp(a, b, count * sizeof(float));
}

// Draws, differentiates and updates once. `fill` is what the outputs hold before.
Outcome run(const Case& c, const Options& options, splat_workspace* ws, unsigned char fill) {
    Outcome out;
    const size_t n = size_t(c.n), pixels = c.pixels();
    Parameters given(c, fill, true);
    splat_gaussians g = given.gaussians(c);

    Guarded<float> rgb(3 * pixels, fill), alpha(pixels, fill), depth(options.depth ? pixels : 0, fill);
    Guarded<float> means2d(2 * n, fill), depths(n, fill), radii(n, fill), weight(options.stats ? n : 0, fill);
    Guarded<uint8_t> visible(n, fill);
    splat_image image = {rgb.data(), alpha.data(), options.depth ? depth.data() : nullptr};
    splat_aux aux = {means2d.data(), depths.data(), radii.data(), visible.data(), options.stats ? weight.data() : nullptr};
    splat_frame_info info{};
    const int drawn = splat_cpu_forward(ws, &g, &c.view, &image, &aux, &info);
    expect(drawn == SPLAT_OK, "forward gave %d", drawn);
    if (drawn != SPLAT_OK) return out;
    expect(info.n_visible >= 0 && info.n_visible <= c.n && info.n_pairs >= info.n_visible && info.bytes > 0,
           "%lld visible, %lld pairs, %lld bytes", static_cast<long long>(info.n_visible),
           static_cast<long long>(info.n_pairs), static_cast<long long>(info.bytes));
    out.take("rgb", rgb), out.take("alpha", alpha), out.take("depth", depth), out.take("means2d", means2d);
    out.take("depths", depths), out.take("radii", radii), out.take("visible", visible), out.take("blend_weight", weight);

    Guarded<int64_t> pairs(2, fill);
    expect(splat_cpu_count_pairs(ws, &c.view, &pairs[0], &pairs[1]) == SPLAT_OK, "pairs cannot be counted");
    expect(pairs[1] >= 0 && pairs[0] >= pairs[1], "%lld pairs blended of %lld", static_cast<long long>(pairs[1]),
           static_cast<long long>(pairs[0]));
    out.take("pairs", pairs);

    Random random{5};
    Guarded<float> v_rgb(random.fill(3 * pixels, -1, 1)), v_alpha(random.fill(pixels, -1, 1));
    Guarded<float> v_depth(random.fill(options.depth ? pixels : 0, -1, 1));
    const splat_image_cotangents v_image = {v_rgb.data(), options.alpha ? v_alpha.data() : nullptr,
                                            options.depth ? v_depth.data() : nullptr};
    Guarded<float> v_viewmat(options.pose ? 16 : 0, fill), v_background(options.pose ? 3 : 0, fill);
    Guarded<float> v_means2d(options.stats ? 2 * n : 0, fill), v_means2d_abs(options.stats ? 2 * n : 0, fill);
    const auto gradients = [&](Parameters* to) {
        splat_gradients v{};
        if (to) {
            v.means = to->grad[0]->data(), v.quats = to->grad[1]->data(), v.log_scales = to->grad[2]->data();
            v.logit_opacities = to->grad[3]->data(), v.sh0 = to->grad[4]->data(), v.shN = to->grad[5]->data();
        }
        if (options.pose) v.viewmat = v_viewmat.data(), v.background = v_background.data();
        if (options.stats) v.means2d = v_means2d.data(), v.means2d_abs = v_means2d_abs.data();
        return v;
    };
    splat_gradients v = gradients(&given);
    expect(splat_cpu_backward(ws, &g, &c.view, &v_image, &v, nullptr) == SPLAT_OK, "no backward pass");
    for (int f = 0; f < kFields; ++f) {
        expect(same_bits(given.param[f]->data(), c.field[f].data(), c.field[f].size()), "the input %s was written",
               kFieldNames[f]);
        out.take(std::string("v_") + kFieldNames[f], *given.grad[f]);
    }
    out.take("v_viewmat", v_viewmat), out.take("v_background", v_background);
    out.take("v_means2d", v_means2d), out.take("v_means2d_abs", v_means2d_abs);
    const Outcome before = out;

    // The fused step, to the numbers of the separate ones.
    for (int mode = 0; mode < 3; ++mode) {
        const bool only_touched = mode == 1, grows = mode == 2;
        if (only_touched && !options.stats) continue;
        Parameters fused(c, fill, !grows), apart(c, fill, !grows);
        const splat_adam adam = fused.adam(only_touched, grows);
        splat_gaussians h = fused.gaussians(c);
        splat_gradients u = gradients(nullptr);
        expect(splat_cpu_backward(ws, &h, &c.view, &v_image, &u, &adam) == SPLAT_OK, "no fused step");
        for (int f = 0; f < kFields; ++f) {
            Guarded<float>&p = *apart.param[f], &m = *apart.exp_avg[f], &s = *apart.exp_avg_sq[f];
            const Floats old_p = c.field[f], old_m(m.data(), m.data() + m.size()), old_s(s.data(), s.data() + s.size());
            expect(splat_cpu_adam(p.data(), given.grad[f]->data(), m.data(), s.data(), int64_t(p.size()), adam.lr[f],
                                  adam.beta1, adam.beta2, adam.eps, adam.step) == SPLAT_OK,
                   "no Adam step");
            const size_t w = c.width(f);
            for (size_t i = 0; i < n * w && only_touched; ++i)
                if (!(weight[i / w] > 0)) p[i] = old_p[i], m[i] = old_m[i], s[i] = old_s[i];
            expect(same_bits(p.data(), fused.param[f]->data(), p.size()) &&
                       same_bits(m.data(), fused.exp_avg[f]->data(), m.size()) &&
                       same_bits(s.data(), fused.exp_avg_sq[f]->data(), s.size()),
                   "the fused step of %s differs from the separate one (mode %d)", kFieldNames[f], mode);
        }
        fused.take(out, "stepped " + std::to_string(mode) + " ");
    }
    Outcome after;
    after.take("v_viewmat", v_viewmat), after.take("v_background", v_background);
    after.take("v_means2d", v_means2d), after.take("v_means2d_abs", v_means2d_abs);
    for (size_t i = 0; i < after.name.size(); ++i)
        for (size_t j = 0; j < before.name.size(); ++j)
            if (before.name[j] == after.name[i])
                expect(before.bytes[j] == after.bytes[i], "%s of the fused pass differs", after.name[i].c_str());
    return out;
}

struct Workspace {
    splat_workspace* handle = splat_cpu_workspace_create();
    ~Workspace() { splat_cpu_workspace_destroy(handle); }
};

void check_case(const Case& c, const Options& options, splat_workspace* used) {
    const std::string level = where;
    where += ", " + c.name;
    splat_cpu_set_threads(1);
    Workspace fresh;
    const Outcome first = run(c, options, fresh.handle, 0xff);
    size_t count = 0;
    if (c.finite())
        for (const char* name : {"rgb", "alpha", "depth"}) {
            const float* values = first.floats(name, &count);
            expect(all_finite(values, count), "%s is not finite", name);
        }
    if (c.moderate)
        for (const std::string& name : first.name)
            if (name.compare(0, 2, "v_") == 0) {
                const float* values = first.floats(name.c_str(), &count);
                expect(all_finite(values, count), "%s is not finite", name.c_str());
            }
    for (int threads : {1, 2, 3, 7}) {
        splat_cpu_set_threads(threads);
        run(c, options, used, 0x3c).expect_same(first, (std::to_string(threads) + " threads").c_str());
    }
    where = level;
}

// NaN in the geometry of one Gaussian: the others must not notice.
void check_isolation(splat_workspace* ws) {
    const std::string level = where;
    const Options options = {true, true, true, true};
    for (int f = 0; f < 4; ++f) {
        where = level + ", NaN among " + kFieldNames[f];
        Case poisoned = ordinary("", 37, 8, 31, 33, 77), absent = poisoned;
        const size_t i = 11;
        poisoned.field[f][i * poisoned.width(f)] = kNan;
        place(absent, int64_t(i), 5, 5, -2);
        const Outcome a = run(poisoned, options, ws, 0), b = run(absent, options, ws, 0);
        for (size_t j = 0; j < a.name.size(); ++j)
            if (a.name[j].compare(0, 7, "stepped")) expect(a.bytes[j] == b.bytes[j], "%s differs", a.name[j].c_str());
    }
    where = level;
}

// ---------------------------------------------------------------------------------------------- loss, Adam, exponential
void check_loss(splat_workspace* used) {
    const std::string level = where;
    const int sizes[][2] = {{1, 1}, {15, 15}, {16, 16}, {17, 17}, {31, 33}, {40, 1}, {1, 40}, {5, 4}, {200, 60}};
    for (const auto& size : sizes)
        for (int kind = 0; kind < 8; ++kind) {
            where = level + ", loss of " + std::to_string(size[0]) + "x" + std::to_string(size[1]) + " kind " +
                    std::to_string(kind);
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
            Outcome first;
            for (int threads : {1, 2, 3, 7}) {
                splat_cpu_set_threads(threads);
                Workspace fresh;
                Outcome out;
                Guarded<float> v_x(count, threads == 1 ? 0xff : 0x3c);
                Guarded<double> loss(3, 0xff);
                const int code = splat_cpu_l1_ssim(threads == 1 ? fresh.handle : used, a.data(), b.data(),
                                                   kind == 3 ? counts.data() : nullptr, size[0], size[1], 0.2f, v_x.data(),
                                                   loss.data());
                expect(code == SPLAT_OK, "loss gave %d", code);
                if (kind < 4 || kind == 7)
                    expect(all_finite(v_x.data(), count) && loss[0] >= -1e-6 && loss[0] <= 1.5, "loss %g", loss[0]);
                if (kind == 3)
                    for (size_t i = 0; i < count; ++i) expect(counted[i] != 0 || v_x[i] == 0, "v_x[%zu] = %g", i, v_x[i]);
                if (kind == 1) expect(std::fabs(loss[0]) < 1e-6, "the loss of equal images is %g", loss[0]);
                out.take("v_x", v_x), out.take("loss", loss);
                if (threads == 1)
                    first = out;
                else
                    out.expect_same(first, (std::to_string(threads) + " threads").c_str());
            }
        }
    where = level;
}

void check_adam() {
    const std::string level = where;
    for (int64_t count : {0, 1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 8191, 8192, 8193, 60001})
        for (float poison : {0.5f, kNan, kInf, 1e-42f, FLT_MAX}) {
            where = level + ", Adam of " + std::to_string(count) + " with " + std::to_string(poison);
            Outcome first;
            for (int threads : {1, 2, 3, 7}) {
                splat_cpu_set_threads(threads);
                Random random{3};
                const size_t n = size_t(count);
                Floats values = random.fill(n, -1, 1);
                if (count) values[n / 2] = poison;
                const Guarded<float> grad(values);
                Guarded<float> param(random.fill(n, -1, 1)), m(random.fill(n, -1, 1)), v(random.fill(n, 0, 1));
                expect(splat_cpu_adam(param.data(), grad.data(), m.data(), v.data(), count, 1e-3, 0.9, 0.999, 1e-15, 4) ==
                           SPLAT_OK,
                       "no step");
                for (size_t i = 0; i < n; ++i)
                    if (i != n / 2 || std::fabs(poison) < 1e10f)
                        if (!std::isfinite(param[i])) expect(false, "number %zu is not finite", i);
                Outcome out;
                out.take("param", param), out.take("exp_avg", m), out.take("exp_avg_sq", v);
                if (threads == 1)
                    first = out;
                else
                    out.expect_same(first, (std::to_string(threads) + " threads").c_str());
            }
        }
    where = level;
}

void check_exponential() {
    for (int64_t count : {0, 1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 100}) {
        Random random{1};
        Floats values = random.fill(size_t(count), -125, 125);
        for (size_t i = 0; i < values.size() && i < 10; ++i)
            if (count == 100) values[10 * i] = kHostile[i].second;
        const Guarded<float> x(values);
        Guarded<float> out(values.size(), 0xff);
        splat_cpu_exp2(x.data(), out.data(), count);
        expect(out.intact(), "the exponential of %d numbers writes beyond them", int(count));
        for (size_t i = 0; i < values.size(); ++i)
            if (std::fabs(values[i]) <= 125)
                expect(std::fabs(double(out[i]) / std::exp2(double(values[i])) - 1) < 3e-7, "2^%g is %g", values[i], out[i]);
    }
}

// ---------------------------------------------------------------------------------------------------------- wrong calls
void check_refusals() {
    where = "wrong arguments";
    Workspace ws;
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
    const auto refused = [&](const char* what, int code) {
        expect(code == SPLAT_BAD_ARGUMENT, "%s gave %d", what, code);
    };
    const auto draw = [&] { return splat_cpu_forward(ws.handle, &g, &view, &image, &aux, &info); };
    const auto differentiate = [&] { return splat_cpu_backward(ws.handle, &g, &view, &v_image, &v, nullptr); };
    const auto wrong = [&](const char* what, const std::function<void()>& change) {
        const splat_view view_before = view;
        const splat_gaussians g_before = g;
        change();
        refused(what, draw());
        view = view_before, g = g_before;
    };
    refused("a backward pass before any forward pass", differentiate());
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
    refused("no workspace", splat_cpu_forward(nullptr, &g, &view, &image, &aux, &info));
    refused("no Gaussians", splat_cpu_forward(ws.handle, nullptr, &view, &image, &aux, &info));
    refused("no view", splat_cpu_forward(ws.handle, &g, nullptr, &image, &aux, &info));
    refused("no image", splat_cpu_forward(ws.handle, &g, &view, nullptr, &aux, &info));
    refused("no aux", splat_cpu_forward(ws.handle, &g, &view, &image, nullptr, &info));
    expect(draw() == SPLAT_OK && differentiate() == SPLAT_OK, "the right call is refused");
    g.n = 19;
    refused("a backward pass of other Gaussians", differentiate());
    g.n = 20, view.width = 19;
    refused("a backward pass of another view", differentiate());
    view.width = 20;
    const splat_image_cotangents with_depth = {rgb.data(), nullptr, depth.data()};
    refused("gradients of a depth that was not drawn", splat_cpu_backward(ws.handle, &g, &view, &with_depth, &v, nullptr));
    splat_adam adam = p.adam(false, false);
    adam.step = 0;
    refused("Adam step 0", splat_cpu_backward(ws.handle, &g, &view, &v_image, &v, &adam));
    adam.step = 1, adam.param[2] = adam.param[0];
    refused("Adam on other arrays", splat_cpu_backward(ws.handle, &g, &view, &v_image, &v, &adam));
    double loss[3];
    refused("a loss without images", splat_cpu_l1_ssim(ws.handle, nullptr, rgb.data(), nullptr, 20, 20, 0.2f, rgb.data(), loss));
    refused("a loss of no pixels", splat_cpu_l1_ssim(ws.handle, rgb.data(), rgb.data(), nullptr, 0, 20, 0.2f, rgb.data(), loss));
    refused("Adam of a negative count", splat_cpu_adam(nullptr, nullptr, nullptr, nullptr, -1, 1, 0.9, 0.999, 1e-8, 1));
    refused("Adam without arrays", splat_cpu_adam(nullptr, nullptr, nullptr, nullptr, 1, 1, 0.9, 0.999, 1e-8, 1));
    refused("an unknown level", splat_cpu_set_simd("sse9"));
    splat_cpu_workspace_destroy(nullptr);
}

// What stereo makes of photos that end where their memory ends, of ordinary and hostile maps between them.
struct StereoOutcome {
    Floats sweep, smooth, lowest, position, rival, planes, cost, costs, rate;
};

StereoOutcome run_stereo(const Guarded<uint16_t>& photo, const std::vector<Guarded<uint16_t>*>& others, int width, int height,
                         const std::vector<splat_stereo_view>& views, int radius, int stride, int threads, unsigned char fill) {
    splat_cpu_set_threads(threads);
    constexpr int kPlanes = 5;
    const splat_stereo_view reference = {photo.data(), width, height, 1, {}};
    const int count = int(views.size());
    const splat_stereo_settings dense = {radius, (count + 1) / 2, 1, 0, 1e-4f};
    const splat_stereo_settings sparse = {radius, (count + 1) / 2, stride, stride - 1 < width && stride - 1 < height ? stride - 1 : 0,
                                          1e-4f};
    const int gw = (width - sparse.first + stride - 1) / stride, gh = (height - sparse.first + stride - 1) / stride;
    const size_t pixels = size_t(width) * size_t(height), grid = size_t(gw) * size_t(gh);
    const Guarded<float> depths(Floats{0.0f, 0.2f, 0.5f, 1.0f, 3.0f});
    Guarded<float> sweep(pixels * kPlanes, fill), smooth(pixels * kPlanes, fill), lowest(pixels, fill), position(pixels, fill), rival(pixels, fill);
    expect(splat_cpu_stereo_sweep(&reference, views.data(), count, &dense, depths.data(), kPlanes, sweep.data()) == SPLAT_OK,
           "sweep was refused");
    Floats ramp(pixels);
    for (size_t i = 0; i < pixels; ++i) ramp[i] = float(i % 7) / 7;
    const Guarded<float> guide(ramp);
    expect(splat_cpu_stereo_semiglobal(sweep.data(), height, kPlanes, width, guide.data(), 0.1f, 1.0f, 0.1f, smooth.data()) == SPLAT_OK,
           "semi-global matching was refused");
    expect(splat_cpu_stereo_minima(sweep.data(), height, kPlanes, width, lowest.data(), position.data(), rival.data()) == SPLAT_OK,
           "minima were refused");
    Floats start(3 * grid, 0.0f);
    std::fill_n(start.begin(), grid, 0.5f);
    Guarded<float> planes(start), cost(grid, fill), costs(3 * size_t(count) * grid, fill), rate(grid, fill);
    const splat_stereo_search search = {0.01f, 3.0f, 0.2f, 8, 1};
    const float steps[2] = {1.0f, 0.5f};
    expect(splat_cpu_stereo_search(&reference, views.data(), count, &sparse, &search, steps, 2, planes.data(), cost.data()) == SPLAT_OK,
           "search was refused");
    expect(splat_cpu_stereo_costs(&reference, views.data(), count, &sparse, planes.data(), 0.5f, costs.data(), rate.data()) == SPLAT_OK,
           "costs were refused");
    const Guarded<float>* outputs[] = {&sweep, &smooth, &lowest, &position, &rival, &planes, &cost, &costs, &rate};
    for (const Guarded<float>* output : outputs) expect(output->intact(), "stereo wrote beside an output");
    for (const Guarded<float>* output : {&sweep, &lowest, &rival, &cost, &costs})
        for (size_t i = 0; i < output->size(); ++i)
            expect(output->data()[i] >= 0 && output->data()[i] <= 1, "a cost of %g", double(output->data()[i]));
    for (size_t i = 0; i < smooth.size(); ++i)
        expect(smooth.data()[i] >= 0 && smooth.data()[i] <= 2, "a cost of %g along paths", double(smooth.data()[i]));
    expect(photo.intact(), "stereo wrote into the reference");
    for (const Guarded<uint16_t>* other : others) expect(other->intact(), "stereo wrote into a neighbour");
    const auto copy = [](const Guarded<float>& values) { return Floats(values.data(), values.data() + values.size()); };
    return {copy(sweep), copy(smooth), copy(lowest), copy(position), copy(rival), copy(planes), copy(cost), copy(costs), copy(rate)};
}

void check_stereo() {
    const std::string before = where;
    Random random{77};
    const int sizes[][2] = {{2, 2}, {3, 17}, {33, 5}, {40, 31}, {16, 16}, {65, 2}};
    const float kMaps[][12] = {
        {1, 0, 0, 6, 0, 1, 0, 1, 0, 0, 1, 0},
        {0.98f, 0.03f, 1, -5, -0.02f, 1.01f, 0, 3, 1e-4f, 0, 1, 0.2f},
        {-1, 0, 0, 0, 0, -1, 0, 0, 0, 0, -1, 0},
        {kNan, 0, 0, 0, 0, kNan, 0, 0, 0, 0, kNan, 0},
        {kInf, 0, 0, 0, 0, kInf, 0, 0, 0, 0, 1, 0},
        {3e38f, 0, 0, 0, 0, 3e38f, 0, 0, 0, 0, 1e-30f, 3e38f},
        {1, 0, 0, 1e9f, 0, 1, 0, -1e9f, 0, 0, 1, -0.4f},
    };
    int index = 0;
    for (const auto& size : sizes) {
        const int width = size[0], height = size[1], radius = 1 + index % 4, stride = 1 + index % 3;
        where = before + ", stereo " + std::to_string(width) + "x" + std::to_string(height);
        const auto make = [&](int w, int h) {
            auto photo = std::make_unique<Guarded<uint16_t>>(size_t(w) * size_t(h), 0);
            for (size_t i = 0; i < photo->size(); ++i) photo->data()[i] = random.uniform(0, 1) < 0.02f ? 0 : uint16_t(random.next() | 1);
            return photo;
        };
        const auto photo = make(width, height);
        std::vector<std::unique_ptr<Guarded<uint16_t>>> others;
        std::vector<Guarded<uint16_t>*> pointers;
        std::vector<splat_stereo_view> views;
        for (const auto& map : kMaps) {
            const int w = 2 + int(random.next() % 50), h = 2 + int(random.next() % 50);
            others.push_back(make(w, h));
            pointers.push_back(others.back().get());
            splat_stereo_view view = {others.back()->data(), w, h, int(views.size()) % 2 == 0, {}};
            std::memcpy(view.from_reference, map, sizeof(map));
            views.push_back(view);
        }
        const StereoOutcome want = run_stereo(*photo, pointers, width, height, views, radius, stride, 1, 0x00);
        for (int threads : {2, 3, 7}) {
            const StereoOutcome got = run_stereo(*photo, pointers, width, height, views, radius, stride, threads, 0xff);
            const Floats StereoOutcome::*members[] = {&StereoOutcome::sweep,  &StereoOutcome::smooth, &StereoOutcome::lowest, &StereoOutcome::position,
                                                      &StereoOutcome::rival,  &StereoOutcome::planes, &StereoOutcome::cost,
                                                      &StereoOutcome::costs,  &StereoOutcome::rate};
            for (size_t m = 0; m < 9; ++m)
                expect(same_bits((want.*members[m]).data(), (got.*members[m]).data(), (want.*members[m]).size()),
                       "output %zu differs with %d threads", m, threads);
        }
        ++index;
    }
    where = before;
}

struct FieldCase {
    int64_t n;
    int inputs, width, hidden, outputs, degree;
    bool optional;  // with what may be absent
};

// The radiance field on points and rays that end where their memory ends, moderate and hostile.
std::vector<Floats> run_field(const FieldCase& c, bool hostile, int threads, unsigned char fill) {
    splat_cpu_set_threads(threads);
    const int64_t n = c.n;
    Random random{uint64_t(n) + 5};
    const splat_grid grid = {4, {1, 5, 9, 70}, {8, 216, 256, 64}};
    const size_t rows = 8 + 216 + 256 + 64, count = size_t(n);
    const splat_mlp mlp = {c.inputs, c.width, c.hidden, c.outputs};
    const size_t in = size_t(c.inputs), width = size_t(c.width), wide = size_t(c.outputs), bases = size_t((c.degree + 1) * (c.degree + 1));
    const size_t size = (in + 1) * width + size_t(c.hidden - 1) * (width + 1) * width + (width + 1) * wide;
    const float kHostile[] = {kNan, kInf, -kInf, FLT_MAX, -FLT_MAX, 1e-40f, -0.0f};
    const auto fill_in = [&](size_t floats, float lo, float hi) {
        Floats values = random.fill(floats, lo, hi);
        for (size_t i = 0; hostile && i < floats; i += 3) values[i] = kHostile[random.next() % 7];
        return values;
    };
    const Guarded<float> table(random.fill(2 * rows, -1, 1)), weights(random.fill(size, -0.5f, 0.5f));
    const Guarded<float> points(fill_in(3 * count, -0.1f, 1.1f)), v(fill_in(8 * count, -1, 1));
    const Guarded<float> x(fill_in(in * count, -1, 1)), v_out(fill_in(wide * count, -1, 1));
    Guarded<float> encoded(8 * count, fill), v_table(2 * rows, fill), out(wide * count, fill), v_x(c.optional ? in * count : 0, fill);
    Guarded<float> v_weights(size, fill);
    expect(splat_cpu_grid(&grid, table.data(), points.data(), n, encoded.data()) == SPLAT_OK, "the grid was refused");
    expect(all_finite(encoded.data(), encoded.size()), "a finite table gave features that are not finite");
    expect(splat_cpu_grid_vjp(&grid, points.data(), v.data(), n, v_table.data()) == SPLAT_OK, "the grid's gradient was refused");
    expect(splat_cpu_mlp(&mlp, weights.data(), x.data(), n, out.data()) == SPLAT_OK, "the MLP was refused");
    expect(splat_cpu_mlp_vjp(&mlp, weights.data(), x.data(), v_out.data(), n, c.optional ? v_x.data() : nullptr, v_weights.data()) ==
               SPLAT_OK,
           "the MLP's gradient was refused");
    std::vector<int64_t> starts = {0, 0};
    while (starts.back() < n) starts.push_back(std::min(n, starts.back() + int64_t(random.next() % 40)));
    const size_t rays = starts.size() - 1;
    const Guarded<int64_t> first(starts);
    const Guarded<float> density(fill_in(count, 0, 9)), length(fill_in(count, 0.01f, 0.2f)), distance(fill_in(count, 0, 5));
    const Guarded<float> rgb(fill_in(3 * count, 0, 1)), v_sum(fill_in(3 * rays, -1, 1));
    const splat_rays samples = {int64_t(rays), n, first.data(), density.data(), length.data(), distance.data(), rgb.data(),
                                distance.data(), length.data()};
    Guarded<float> share(count, fill), sum(3 * rays, fill), opacity(rays, fill), depth(rays, fill), distortion(rays, fill);
    const splat_ray_sums sums = {share.data(), sum.data(), opacity.data(), depth.data(), distortion.data()};
    expect(splat_cpu_rays(&samples, &sums) == SPLAT_OK, "rays were refused");
    Guarded<float> v_density(count, fill), v_rgb(3 * count, fill), basis(bases * count, fill);
    splat_ray_cotangents cotangents = {v_sum.data(), nullptr, nullptr, nullptr};
    if (c.optional) cotangents = {v_sum.data(), v_sum.data(), v_sum.data() + rays, v_sum.data() + 2 * rays};
    expect(splat_cpu_rays_vjp(&samples, &cotangents, v_density.data(), v_rgb.data()) == SPLAT_OK, "the gradient of rays was refused");
    expect(splat_cpu_sh_basis(c.degree, points.data(), n, basis.data()) == SPLAT_OK, "spherical harmonics were refused");
    // A box or a ball; rays from the points, along whatever lies in v.
    const splat_space space = {int32_t(n % 2), {-0.2f, 0.1f, 0.0f}, {1.0f, 1.0f, 1.0f}};
    const splat_sampling sampling = {5, 1 + int32_t(n % 70), 3, 0.1f, 0.05f};
    Guarded<float> unit(3 * count, fill), known(random.fill(125, 0, 9)), spaces(3 * count, fill), places(3 * count, fill);
    Guarded<float> middles(3 * count, fill), extents(3 * count, fill), sampled(9 * count, fill);
    const Guarded<float> shifts(random.fill(2 * count, 0, 0.99f));
    const splat_ray_samples sampled_rays = {spaces.data(), places.data(), middles.data(), extents.data(), sampled.data()};
    expect(splat_cpu_space_unit(&space, points.data(), n, unit.data()) == SPLAT_OK, "points in the unit cube were refused");
    expect(splat_cpu_occupancy_put(&space, 5, points.data(), density.data(), n, 0.5f, known.data()) == SPLAT_OK,
           "remembering densities was refused");
    expect(splat_cpu_ray_samples(&space, &sampling, known.data(), points.data(), v.data(), n, shifts.data(), &sampled_rays) == SPLAT_OK,
           "samples along rays were refused");
    expect(shifts.intact(), "the samples wrote beside the shifts");
    for (const Guarded<float>* input : {&table, &weights, &points, &v, &x, &v_out, &density, &length, &distance, &rgb, &v_sum})
        expect(input->intact(), "the field wrote beside an input");
    std::vector<Floats> found;
    for (const Guarded<float>* output : {&encoded, &v_table, &out, &v_x, &v_weights, &share, &sum, &opacity, &depth, &distortion,
                                         &v_density, &v_rgb, &basis, &unit, &known, &spaces, &places, &middles, &extents,
                                         &sampled}) {
        expect(output->intact(), "the field wrote beside output %zu", found.size());
        expect(hostile || all_finite(output->data(), output->size()), "output %zu of the field is not finite", found.size());
        found.emplace_back(output->data(), output->data() + output->size());
    }
    return found;
}

void check_field() {
    const std::string before = where;
    // Around every vector and block, and enough of each for every loop to have work for seven threads.
    const FieldCase kCases[] = {
        {0, 8, 33, 2, 4, 3, true},    {1, 1, 1, 1, 1, 0, false},     {15, 64, 64, 2, 64, 1, true}, {16, 16, 32, 1, 16, 2, true},
        {17, 8, 33, 2, 4, 3, false},  {63, 31, 17, 1, 3, 3, true},   {64, 8, 33, 2, 4, 3, true},   {65, 8, 64, 2, 1, 3, true},
        {300, 8, 33, 2, 4, 3, true},  {9000, 8, 16, 1, 4, 2, true},
    };
    for (const FieldCase& c : kCases)
        for (const bool hostile : {false, true}) {
            where = before + ", field of " + std::to_string(c.n) + (hostile ? " hostile samples" : " samples");
            const std::vector<Floats> want = run_field(c, hostile, 1, 0x00);
            for (int threads : {2, 3, 7}) {
                const std::vector<Floats> got = run_field(c, hostile, threads, 0xff);
                for (size_t m = 0; m < want.size(); ++m)
                    expect(same_bits(want[m].data(), got[m].data(), want[m].size()), "output %zu differs with %d threads", m, threads);
            }
        }
    where = before;
}

void check_field_refusals() {
    const auto refused = [](const char* what, int code) { expect(code == SPLAT_BAD_ARGUMENT, "%s gave %d", what, code); };
    Guarded<float> floats(4096, 0);
    float* f = floats.data();
    const splat_grid right = {2, {1, 70}, {8, 64}};
    const auto grid = [&](const char* what, const std::function<void(splat_grid&)>& change) {
        splat_grid wrong = right;
        change(wrong);
        refused(what, splat_cpu_grid(&wrong, f, f, 1, f + 100));
        refused(what, splat_cpu_grid_vjp(&wrong, f, f + 100, 1, f + 200));
    };
    grid("no level", [](splat_grid& g) { g.levels = 0; });
    grid("17 levels", [](splat_grid& g) { g.levels = 17; });
    grid("a level without cells", [](splat_grid& g) { g.cells[1] = 0; });
    grid("65536 cells", [](splat_grid& g) { g.cells[1] = 65536; });
    grid("a level without entries", [](splat_grid& g) { g.rows[0] = 0; });
    grid("hashes into 63 entries", [](splat_grid& g) { g.rows[1] = 63; });
    grid("entries beyond 2^31", [](splat_grid& g) { g.levels = 3, g.cells[2] = 65535, g.rows[0] = g.rows[1] = g.rows[2] = 1 << 30; });
    refused("no grid", splat_cpu_grid(nullptr, f, f, 1, f + 100));
    refused("no table", splat_cpu_grid(&right, nullptr, f, 1, f + 100));
    refused("a negative number of points", splat_cpu_grid(&right, f, f, -1, f + 100));
    refused("no gradient of features", splat_cpu_grid_vjp(&right, f, nullptr, 1, f + 200));
    refused("no gradient of the table", splat_cpu_grid_vjp(&right, f, f, 0, nullptr));
    const splat_mlp small = {2, 3, 1, 2};
    const auto mlp = [&](const char* what, const std::function<void(splat_mlp&)>& change) {
        splat_mlp wrong = small;
        change(wrong);
        refused(what, splat_cpu_mlp(&wrong, f, f, 1, f + 100));
        refused(what, splat_cpu_mlp_vjp(&wrong, f, f, f, 1, nullptr, f + 200));
    };
    mlp("no inputs", [](splat_mlp& m) { m.inputs = 0; });
    mlp("65 inputs", [](splat_mlp& m) { m.inputs = 65; });
    mlp("65 wide", [](splat_mlp& m) { m.width = 65; });
    mlp("no hidden layer", [](splat_mlp& m) { m.hidden = 0; });
    mlp("3 hidden layers", [](splat_mlp& m) { m.hidden = 3; });
    mlp("65 outputs", [](splat_mlp& m) { m.outputs = 65; });
    refused("no MLP", splat_cpu_mlp(nullptr, f, f, 1, f + 100));
    refused("no weights", splat_cpu_mlp(&small, nullptr, f, 1, f + 100));
    refused("no inputs of an MLP", splat_cpu_mlp(&small, f, nullptr, 1, f + 100));
    refused("no gradient of weights", splat_cpu_mlp_vjp(&small, f, f, f, 1, f + 100, nullptr));
    const splat_ray_sums sums = {f, f, f, f, f};
    const splat_ray_cotangents v = {f, nullptr, nullptr, nullptr};
    const auto rays = [&](const char* what, const std::vector<int64_t>& starts, int64_t samples, const float* density) {
        const Guarded<int64_t> first(starts);
        const splat_rays wrong = {int64_t(starts.size()) - 1, samples, first.data(), density, f, f, f, f, f};
        refused(what, splat_cpu_rays(&wrong, &sums));
        refused(what, splat_cpu_rays_vjp(&wrong, &v, f, f));
    };
    rays("rays that begin behind the first sample", {1, 3}, 3, f);
    rays("rays that end before the last sample", {0, 2}, 3, f);
    rays("rays that end behind the last sample", {0, 4}, 3, f);
    rays("rays that run backwards", {0, 3, 2, 3}, 3, f);
    rays("a negative number of rays", {}, 0, f);
    rays("no density", {0, 3}, 3, nullptr);
    refused("no rays", splat_cpu_rays(nullptr, &sums));
    refused("SH degree 4", splat_cpu_sh_basis(4, f, 1, f + 100));
    refused("SH degree -1", splat_cpu_sh_basis(-1, f, 1, f + 100));
    refused("no directions", splat_cpu_sh_basis(0, nullptr, 1, f + 100));
    expect(floats.intact() && std::all_of(f, f + 4096, [](float value) { return value == 0; }), "a refused call wrote");
}

// Two callers at once, each with a workspace of its own.
void check_callers() {
    where += ", two callers at once";
    const Options options = {true, true, true, true};
    const Case cases[2] = {ordinary("", 900, 15, 60, 50, 4), ordinary("", 700, 3, 33, 70, 5)};
    splat_cpu_set_threads(2);
    Outcome alone[2], together[2];
    for (int i = 0; i < 2; ++i) {
        Workspace ws;
        alone[i] = run(cases[i], options, ws.handle, 1);
    }
    // `checks` and `where` are not shared: what the threads find is looked at when they have ended.
    const auto draw = [&](int i, Floats* rgb) {
        Workspace ws;
        const Case& c = cases[i];
        const splat_gaussians g = {c.n, c.k, c.field[0].data(), c.field[1].data(), c.field[2].data(), c.field[3].data(),
                                   c.field[4].data(), c.field[5].data()};
        Floats alpha(c.pixels()), depth(c.pixels()), means2d(size_t(2 * c.n)), depths(size_t(c.n)), radii(size_t(c.n));
        std::vector<uint8_t> visible(size_t(c.n));
        for (int repeat = 0; repeat < 5; ++repeat) {
            rgb->assign(3 * c.pixels(), -1);
            splat_image image = {rgb->data(), alpha.data(), depth.data()};
            splat_aux aux = {means2d.data(), depths.data(), radii.data(), visible.data(), nullptr};
            splat_cpu_forward(ws.handle, &g, &c.view, &image, &aux, nullptr);
        }
    };
    Floats rgb[2];
    std::thread other(draw, 0, &rgb[0]);
    draw(1, &rgb[1]);
    other.join();
    for (int i = 0; i < 2; ++i) {
        size_t count;
        const float* want = alone[i].floats("rgb", &count);
        expect(count == rgb[i].size() && same_bits(want, rgb[i].data(), count), "caller %d got another image", i);
    }
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 2) {
        std::fprintf(stderr, "usage: %s LEVEL\n", argv[0]);
        return 2;
    }
    const char* level = argv[1];
    if (splat_cpu_set_simd(level) != SPLAT_OK) {
        std::printf("%s: this processor cannot run %s\n", splat_cpu_version(), level);
        return 77;
    }
    check_refusals();
    check_field_refusals();
    where = level;
    const std::vector<Case> cases = make_cases();
    Workspace used;
    int index = 0;
    for (const Case& c : cases) {
        const Options options = {!c.moderate || index % 2, index % 4 < 2, index % 3 != 0, index % 5 != 0};
        check_case(c, options, used.handle);
        ++index;
    }
    check_isolation(used.handle);
    check_loss(used.handle);
    check_adam();
    check_exponential();
    check_stereo();
    check_field();
    check_callers();
    std::printf("%s: %s: %zu cases, %ld checks: %s\n", splat_cpu_version(), level, cases.size(), checks,
                failures ? "FAILED" : "ok");
    return failures ? 1 : 0;
}
