// The one place where threads come from.
//
// OpenMP, because torch's kernels run between ours on the same pool: a second pool would fight with the first over the
// cores (its waiting threads spin). With SPLAT_STD_THREADS every loop starts threads of its own instead, which costs far
// more, but lets ThreadSanitizer see each hand-over; it does not know the insides of libgomp.
#pragma once

#include <cstdint>

#ifdef SPLAT_STD_THREADS
#include <atomic>
#include <thread>
#include <vector>
#elif defined(_OPENMP)
#include <omp.h>
#endif

namespace splat {

inline int most_threads() {
#ifdef SPLAT_STD_THREADS
    const unsigned cores = std::thread::hardware_concurrency();
    return cores ? int(cores) : 1;
#elif defined(_OPENMP)
    return omp_get_max_threads();
#else
    return 1;
#endif
}

// Calls body(i, worker) once for each i in [0, count), `grain` neighbours at a time by whichever thread is free; worker is
// in [0, threads). What a body writes must not depend on the worker, or results would depend on the number of threads.
template <class Body>
void parallel_for(int64_t count, int64_t grain, int threads, Body&& body) {
    if (threads == 1 || count <= grain) {
        for (int64_t i = 0; i < count; ++i) body(i, 0);
        return;
    }
#ifdef SPLAT_STD_THREADS
    std::atomic<int64_t> next{0};
    const auto work = [&](int worker) {
        for (int64_t first; (first = next.fetch_add(grain)) < count;)
            for (int64_t i = first; i < count && i < first + grain; ++i) body(i, worker);
    };
    std::vector<std::thread> others;
    for (int worker = 1; worker < threads; ++worker) others.emplace_back(work, worker);
    work(0);
    for (std::thread& other : others) other.join();
#elif defined(_OPENMP)
    // Always the full team: libgomp ends the threads that a smaller one leaves over, and has to start them again.
#pragma omp parallel for schedule(dynamic, grain) num_threads(threads)
    for (int64_t i = 0; i < count; ++i) body(i, omp_get_thread_num());
#else
    for (int64_t i = 0; i < count; ++i) body(i, 0);
#endif
}

}  // namespace splat
