// What the tests of the engines have in common: scenes, ordinary, at the boundaries and hostile; arrays whose ends are watched; and
// one pass through an engine's C interface, with what must hold for every engine.
#pragma once

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
#include <utility>
#include <vector>

#include "../include/splat/api.h"

namespace cases {

constexpr int kFields = 6;
const char* const kFieldNames[kFields] = {"means", "quats", "log_scales", "logit_opacities", "sh0", "shN"};
const float kInf = INFINITY, kNan = NAN;

inline int failures = 0;
inline long checks = 0;
inline std::string where;  // the case at hand, for messages

inline void expect(bool ok, const char* format, ...) {
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

inline bool all_finite(const float* values, size_t count) {
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
    double rounding = 1;   // how much more of it there is than elsewhere

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
inline splat_view camera(int width, int height, int degree, bool antialiased) {
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
inline void place(Case& c, int64_t i, float u, float v, float z) {
    const float* m = c.view.viewmat;
    const float local[3] = {(u - c.view.cx) / c.view.fx * z - m[3], (v - c.view.cy) / c.view.fy * z - m[7], z - m[11]};
    for (int j = 0; j < 3; ++j)
        c.field[0][size_t(3 * i + j)] = m[j] * local[0] + m[4 + j] * local[1] + m[8 + j] * local[2];
}

// n Gaussians in front of the camera, from below a pixel to an eighth of the image, faint to opaque.
inline Case ordinary(std::string name, int64_t n, int k, int width, int height, uint64_t seed) {
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

// Gaussians that reach every tile: many more pairs than Gaussians. Rows of tiles are cheap, they have few pixels.
inline Case huge(uint64_t seed) {
    const int64_t n = 20;
    Case c = ordinary("huge Gaussians over the whole image", n, 3, 3840, 1, seed);
    Random random{seed};
    for (int64_t i = 0; i < n; ++i) {
        place(c, i, random.uniform(1900, 2000), random.uniform(-9, 9), random.uniform(1, 3));
        for (int j = 0; j < 3; ++j) c.field[2][size_t(3 * i + j)] = random.uniform(2.5f, 3);
        c.field[3][size_t(i)] = random.uniform(-2, 3);
    }
    return c;
}

const std::pair<const char*, float> kHostile[] = {
    {"NaN", kNan},       {"inf", kInf},       {"-inf", -kInf},     {"denormal", 1e-42f}, {"-0", -0.0f},
    {"max", FLT_MAX},    {"-max", -FLT_MAX},  {"1e30", 1e30f},     {"-1e18", -1e18f},    {"min", FLT_MIN},
};

inline std::vector<Case> make_cases() {
    std::vector<Case> cases;
    const int ks[] = {0, 3, 8, 15};
    uint64_t seed = 1;
    const auto add = [&](Case c, bool moderate) {
        c.moderate = moderate;
        cases.push_back(std::move(c));
    };
    // Around the vector widths, warps and blocks, the chunks of the backward pass, and enough for every loop to have work for seven
    // threads.
    for (int64_t n : {0, 1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 127, 128, 129, 255, 257, 25000, 2500})
        add(ordinary(std::to_string(n) + " Gaussians", n, n > 10000 ? 0 : ks[seed % 4], 31, 33, seed), true), ++seed;
    const int sizes[][2] = {{1, 1}, {15, 15}, {16, 16}, {17, 17}, {31, 33}, {48, 48}, {40, 1}, {1, 40}, {100, 70}};
    for (const auto& size : sizes) {
        const std::string name = std::to_string(size[0]) + "x" + std::to_string(size[1]) + " px";
        add(ordinary(name, 60, ks[seed % 4], size[0], size[1], seed), true), ++seed;
    }
    // Every degree from every number of coefficients that has it.
    for (int degree = 0; degree <= 3; ++degree)
        for (int k : ks) {
            if (k < (degree + 1) * (degree + 1) - 1) continue;
            Case c = ordinary("SH degree " + std::to_string(degree) + " of " + std::to_string(k), 40, k, 31, 33, seed++);
            c.view.sh_degree = degree;
            add(std::move(c), true);
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
    variant("opacity about 1/255", true, 400, [&](Case& c) {
        for (int64_t i = 0; i < c.n; ++i) c.field[3][size_t(i)] = -std::log(254.0f) + 1e-5f * float(i - 200);
    });
    variant("opacity about 0.999", true, 400, [&](Case& c) {
        for (int64_t i = 0; i < c.n; ++i) c.field[3][size_t(i)] = std::log(999.0f) + 1e-5f * float(i - 200);
    });
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
    variant("thousands at one depth", true, 3000, [&](Case& c) {
        Random random{8};
        for (int64_t i = 0; i < c.n; ++i) {  // the same number of float: the plane z = 2 of a camera that looks along z
            c.field[0][size_t(3 * i)] = random.uniform(-1, 1), c.field[0][size_t(3 * i + 1)] = random.uniform(-1, 1);
            c.field[0][size_t(3 * i + 2)] = 2;
        }
        for (int i = 0; i < 16; ++i) c.view.viewmat[i] = i % 5 == 0;
        every(2, -4)(c);
    });
    variant("all at one place", true, 300, [&](Case& c) {
        for (int64_t i = 0; i < c.n; ++i) place(c, i, 12, 9, 2);
    });
    add(huge(seed++), true);
    variant("needles", true, 100, [&](Case& c) {
        c.rounding = 10;
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

inline bool same_bits(const float* a, const float* b, size_t count) {
    return count == 0 || !std::memcmp(a, b, count * sizeof(float));
}

// Draws, differentiates and updates once. `fill` is what the outputs hold before. The engine has forward, backward, count_pairs and
// adam as in api.h, without the workspace, and exact(): does a second backward pass give the same bits as the first?
template <class Engine>
Outcome run(const Case& c, const Options& options, Engine& engine, unsigned char fill) {
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
    const int drawn = engine.forward(&g, &c.view, &image, &aux, &info);
    expect(drawn == SPLAT_OK, "forward gave %d", drawn);
    if (drawn != SPLAT_OK) return out;
    expect(info.n_visible >= 0 && info.n_visible <= c.n && info.n_pairs >= info.n_visible && info.bytes > 0,
           "%lld visible, %lld pairs, %lld bytes", static_cast<long long>(info.n_visible),
           static_cast<long long>(info.n_pairs), static_cast<long long>(info.bytes));
    out.take("rgb", rgb), out.take("alpha", alpha), out.take("depth", depth), out.take("means2d", means2d);
    out.take("depths", depths), out.take("radii", radii), out.take("visible", visible), out.take("blend_weight", weight);

    Guarded<int64_t> pairs(2, fill);
    expect(engine.count_pairs(&c.view, &pairs[0], &pairs[1]) == SPLAT_OK, "pairs cannot be counted");
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
    expect(engine.backward(&g, &c.view, &v_image, &v, nullptr) == SPLAT_OK, "no backward pass");
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
        expect(engine.backward(&h, &c.view, &v_image, &u, &adam) == SPLAT_OK, "no fused step");
        for (int f = 0; f < kFields; ++f) {
            Guarded<float>&p = *apart.param[f], &m = *apart.exp_avg[f], &s = *apart.exp_avg_sq[f];
            const Floats old_p = c.field[f], old_m(m.data(), m.data() + m.size()), old_s(s.data(), s.data() + s.size());
            if (!engine.exact()) continue;
            expect(engine.adam(p.data(), given.grad[f]->data(), m.data(), s.data(), int64_t(p.size()), adam.lr[f], adam.beta1,
                               adam.beta2, adam.eps, adam.step) == SPLAT_OK,
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
            if (engine.exact() && before.name[j] == after.name[i])
                expect(before.bytes[j] == after.bytes[i], "%s of the fused pass differs", after.name[i].c_str());
    return out;
}

// Images are finite where the inputs are, and gradients where these are moderate.
inline void expect_finite(const Case& c, const Outcome& outcome) {
    size_t count = 0;
    if (c.finite())
        for (const char* name : {"rgb", "alpha", "depth"}) {
            const float* values = outcome.floats(name, &count);
            expect(all_finite(values, count), "%s is not finite", name);
        }
    if (c.moderate)
        for (const std::string& name : outcome.name)
            if (name.compare(0, 2, "v_") == 0) {
                const float* values = outcome.floats(name.c_str(), &count);
                expect(all_finite(values, count), "%s is not finite", name.c_str());
            }
}

// NaN in the geometry of one Gaussian: the others must not notice.
template <class Engine>
void check_isolation(Engine& engine) {
    const std::string level = where;
    const Options options = {true, true, true, true};
    for (int f = 0; f < 4; ++f) {
        where = level + ", NaN among " + kFieldNames[f];
        Case poisoned = ordinary("", 37, 8, 31, 33, 77), absent = poisoned;
        const size_t i = 11;
        poisoned.field[f][i * poisoned.width(f)] = kNan;
        place(absent, int64_t(i), 5, 5, -2);
        const Outcome a = run(poisoned, options, engine, 0), b = run(absent, options, engine, 0);
        for (size_t j = 0; j < a.name.size(); ++j)
            if (a.name[j].compare(0, 7, "stepped")) expect(a.bytes[j] == b.bytes[j], "%s differs", a.name[j].c_str());
    }
    where = level;
}

// The CPU engine, as the passes of these tests call an engine.
struct CpuEngine {
    splat_workspace* handle = splat_cpu_workspace_create();
    CpuEngine() = default;
    CpuEngine(const CpuEngine&) = delete;
    ~CpuEngine() { splat_cpu_workspace_destroy(handle); }

    template <class... A>
    int forward(A... arguments) {
        return splat_cpu_forward(handle, arguments...);
    }
    template <class... A>
    int backward(A... arguments) {
        return splat_cpu_backward(handle, arguments...);
    }
    template <class... A>
    int count_pairs(A... arguments) {
        return splat_cpu_count_pairs(handle, arguments...);
    }
    template <class... A>
    int adam(A... arguments) {
        return splat_cpu_adam(arguments...);
    }
    bool exact() const { return true; }
};

}  // namespace cases
