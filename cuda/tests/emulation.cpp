// What the emulation of CUDA finds (../emulation): a kernel with one fault at a time, and without one.
//
//   emulation FAULT
//
// Says whether the kernel's sums are right, or why the emulation, or a sanitizer, stopped it.
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <utility>

#include "../gpu/platform.h"
#include "../gpu/warp.h"

using namespace splat;

namespace {

constexpr int kThreads = 128;

enum Fault { kNone, kBarrier, kUnwritten, kCollectives, kEnded, kPart, kTooMuch, kBeyond, kBeyondShared, kUndefined, kFaults };
const char* const kNames[kFaults] = {"none", "barrier",  "unwritten", "collectives",   "ended",
                                     "part", "too_much", "beyond",    "beyond_shared", "undefined"};

// in [kThreads]; out [1]: their sum, by way of shared memory.
template <int kFault>
__global__ void sum_kernel(const float* in, float* out, int shift) {
    struct Shared {
        float number[kThreads];
        float more[kFault == kTooMuch ? 8 * 1024 : 1];
    };
    SPLAT_SHARED(Shared, shared);
    if (kFault == kTooMuch) {
        SPLAT_SHARED(Shared, another);
        another.number[threadIdx.x] = 0.0f;
    }
    const int thread = int(threadIdx.x);
    if (kFault == kEnded && thread == 77) return;
    if (kFault != kUnwritten || thread != 5) shared.number[thread] = in[kFault == kBeyond ? thread + 1 : thread];
    if (kFault == kBeyondShared) shared.number[thread + 1] = 0.0f;
    if (kFault == kUndefined) shared.number[thread] += float(1 << (shift + thread));
    if (kFault != kBarrier) __syncthreads();
    if (kFault == kCollectives && thread % 2) __syncwarp();
    if (kFault == kPart && thread == 0) __ballot_sync(1u, 1);
    float sum = 0.0f;
    for (int i = thread % kWarp; i < kThreads; i += kWarp) sum += shared.number[i];
    sum = warp_sum(sum);
    if (thread == 0) *out = sum;
}

// Twenty times, as who comes first is drawn anew each time.
template <int kFault>
bool is_right() {
    // Memory of exactly these bytes, for AddressSanitizer.
    const std::unique_ptr<float[]> in(new float[kThreads]), out(new float[1]);
    bool right = true;
    for (int repeat = 0; repeat < 20; ++repeat) {
        float expected = 0.0f;
        for (int i = 0; i < kThreads; ++i) expected += in[i] = float((i + repeat) % 7);
        launch("sum", sum_kernel<kFault>, 1, kThreads, nullptr, in.get(), out.get(), 1);
        right &= out[0] == expected;
    }
    return right;
}

template <int... kFault>
bool is_right(const char* name, std::integer_sequence<int, kFault...>) {
    bool right = false;
    if (!((!std::strcmp(name, kNames[kFault]) && (right = is_right<kFault>(), true)) || ...)) std::exit(2);
    return right;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 2) return 2;
    std::signal(SIGABRT, [](int) { std::_Exit(3); });  // a stop is what is expected, no crash
    std::printf("the sums are %s\n", is_right(argv[1], std::make_integer_sequence<int, kFaults>()) ? "right" : "wrong");
    return 0;
}
