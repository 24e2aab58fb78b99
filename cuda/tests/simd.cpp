// The vector functions of cpu/simd.h against the C library in double, for the instruction set that it is compiled for.
//
//   c++ -std=gnu++17 -O2 -ffp-contract=off -mavx2 -mfma cuda/tests/simd.cpp -o simd && ./simd
//
// Prints one line per function and exits with the number of functions that failed, or with 77 where the processor cannot
// run that instruction set.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>

#include "../cpu/simd.h"

using namespace splat;

namespace {

int failures = 0;

template <class F, class G>
void check(const char* name, double lo, double hi, double bound, bool relative, F f, G truth) {
    double worst = 0.0;
    const int steps = 2000000 / kLanes;
    for (int i = 0; i < steps; ++i) {
        vf x;
        for (int l = 0; l < kLanes; ++l) x[l] = float(lo + (hi - lo) * (double(i) * kLanes + l) / (double(steps) * kLanes));
        const vf y = f(x);
        for (int l = 0; l < kLanes; ++l) {
            const double want = truth(double(x[l]));
            worst = std::max(worst, std::fabs(double(y[l]) - want) / (relative ? std::fabs(want) : std::max(1.0, std::fabs(want))));
        }
    }
    const bool ok = worst < bound;
    failures += !ok;
    std::printf("%-12s %2d lanes  worst %s error %.2e  %s\n", name, kLanes, relative ? "relative" : "absolute", worst,
                ok ? "ok" : "FAILED");
}

}  // namespace

int main() {
#if defined(__AVX512F__)
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512dq")) return 77;
#elif defined(__AVX2__)
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return 77;
#endif
    check("exp2_fast", -126, 126, 3e-7, true, [](vf x) { return exp2_fast(x); }, [](double x) { return std::exp2(x); });
    check("exp", -87, 88.5, 3e-7, true, [](vf x) { return splat::exp(x); }, [](double x) { return std::exp(x); });
    check("exp near 0", -1, 1, 3e-7, true, [](vf x) { return splat::exp(x); }, [](double x) { return std::exp(x); });
    check("log2", 1e-3, 1, 2e-7, false, [](vf x) { return splat::log2(x); }, [](double x) { return std::log2(x); });
    check("log2, large", 1, 1e6, 2e-7, false, [](vf x) { return splat::log2(x); }, [](double x) { return std::log2(x); });
    const float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
    const bool kept = std::isnan(splat::exp(set1(nan))[0]) && splat::exp(set1(inf))[0] > 1e38f &&
                      splat::exp(set1(-inf))[0] < 2e-38f && splat::exp(set1(-inf))[0] >= 0.0f;
    failures += !kept;
    std::printf("exp of NaN and infinities: %s\n", kept ? "ok" : "FAILED");
    return failures;
}
