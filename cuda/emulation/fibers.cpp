// The fibers of the emulation, and who runs next.
#include "cuda.h"

#include <chrono>
#include <mutex>

#include <sys/mman.h>
#include <unistd.h>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace emulation {

Fiber* current = nullptr;
Block block;
Warp warps[kMostThreads / kLanes];
alignas(64) char shared_memory[kSharedBytes];

namespace {

constexpr size_t kStackBytes = 128 * 1024;

Fiber fibers[kMostThreads];
Fiber scheduler;
void (*body)(void*);
void* argument;
unsigned ready[kMostThreads], n_ready = 0;
uint64_t random_state = 88172645463325252ull;
std::mutex one_kernel_at_once;  // of whichever caller

unsigned draw(unsigned below) {  // xorshift64
    random_state ^= random_state << 13, random_state ^= random_state >> 7, random_state ^= random_state << 17;
    return unsigned((random_state >> 32) * below >> 32);
}

// A stack that ends at a page that nobody may touch.
char* new_stack() {
    const size_t page = size_t(sysconf(_SC_PAGESIZE));
    void* memory = mmap(nullptr, page + kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory, page, PROT_NONE)) fail("no memory for a stack");
    return static_cast<char*>(memory) + page;
}

// Puts aside where `from` is and goes on where `to` was.
#if defined(__x86_64__)
extern "C" void splat_emulation_switch(void** from, void* to);
asm(R"(
.text
.type splat_emulation_switch, @function
splat_emulation_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size splat_emulation_switch, .-splat_emulation_switch
)");
void go(Fiber& from, Fiber& to) { splat_emulation_switch(&from.stack_pointer, to.stack_pointer); }
void prepare(Fiber& fiber, void (*entry)()) {
    // As if the entry had been called: the stack is 8 off a multiple of 16 when it begins.
    void** top = reinterpret_cast<void**>(fiber.stack + kStackBytes - 64);
    *--top = nullptr;
    *--top = reinterpret_cast<void*>(entry);
    top -= 6;
    std::memset(top, 0, 6 * sizeof *top);
    fiber.stack_pointer = top;
}
#else
ucontext_t contexts[kMostThreads + 1];
ucontext_t& context_of(Fiber& fiber) { return contexts[&fiber == &scheduler ? kMostThreads : fiber.index]; }
void go(Fiber& from, Fiber& to) { swapcontext(&context_of(from), &context_of(to)); }
void prepare(Fiber& fiber, void (*entry)()) {
    ucontext_t& context = context_of(fiber);
    getcontext(&context);
    context.uc_stack.ss_sp = fiber.stack;
    context.uc_stack.ss_size = kStackBytes;
    makecontext(&context, entry, 0);
}
#endif

#if defined(__SANITIZE_ADDRESS__)
const void* scheduler_stack;
size_t scheduler_bytes;
bool from_scheduler = false;
void leave_for(Fiber& from, Fiber& to, bool for_good) {
    const bool back = &to == &scheduler;
    from_scheduler = &from == &scheduler;
    __sanitizer_start_switch_fiber(for_good ? nullptr : &from.sanitizer, back ? scheduler_stack : to.stack,
                                   back ? scheduler_bytes : kStackBytes);
    go(from, to);
    __sanitizer_finish_switch_fiber(from.sanitizer, nullptr, nullptr);
}
void arrived() {
    const bool known = !from_scheduler;
    __sanitizer_finish_switch_fiber(nullptr, known ? nullptr : &scheduler_stack, known ? nullptr : &scheduler_bytes);
}
// The frames of the thread before have never been left.
void forget_frames(Fiber& fiber) { __asan_unpoison_memory_region(fiber.stack + kStackBytes - 4096, 4096); }
#else
void leave_for(Fiber& from, Fiber& to, bool) { go(from, to); }
void arrived() {}
void forget_frames(Fiber&) {}
#endif

// Whose turn it is: one of those that can go on, or the scheduler where nobody can.
Fiber& next() {
    if (!n_ready) {
        current = nullptr;
        return scheduler;
    }
    const unsigned pick = draw(n_ready);
    current = &fibers[ready[pick]];
    ready[pick] = ready[--n_ready];
    return *current;
}

void thread_main() {
    arrived();
    body(argument);
    Fiber& self = *current;
    --block.live;
    leave_for(self, next(), true);
}

void pause() {
    Fiber& self = *current;
    Fiber& other = next();
    if (&self != &other) leave_for(self, other, false);
}

}  // namespace

void fail(const char* why) {
    std::fprintf(stderr, "CUDA emulation, kernel %s, block (%u, %u, %u)%s%u: %s\n", block.kernel, block.index.x, block.index.y, block.index.z,
                 current ? ", thread " : " of ", current ? current->index : block.threads, why);
    std::abort();
}

void wait_for_block(int predicate) {
    block.given += predicate;
    if (++block.at_barrier == block.threads) {
        block.taken = block.given;
        block.given = 0;
        block.at_barrier = 0;
        // The last one does not run on first: it queues like the others.
        for (unsigned i = 0; i < block.threads; ++i) ready[n_ready++] = i;
    }
    pause();
}

const uint64_t* exchange(const char* collective, uint64_t value) {
    Warp& warp = warps[current->index / kLanes];
    if (warp.arrived && warp.collective != collective && std::strcmp(warp.collective, collective)) fail("lanes of one warp met in different collectives");
    warp.collective = collective;
    warp.given[lane()] = value;
    warp.arrived |= 1u << lane();
    if (warp.arrived == 0xffffffffu) {
        std::memcpy(warp.taken, warp.given, sizeof warp.taken);
        warp.arrived = 0;
        const unsigned first = current->index / kLanes * kLanes;
        for (unsigned i = first; i < first + kLanes; ++i) ready[n_ready++] = i;
    }
    pause();
    return warp.taken;
}

void run(const char* kernel, dim3 grid, dim3 size, void (*the_body)(void*), void* the_argument) {
    const std::lock_guard<std::mutex> lock(one_kernel_at_once);
    body = the_body, argument = the_argument;
    block.kernel = kernel, block.grid = grid, block.size = size;
    block.threads = size.x * size.y * size.z;
    current = nullptr;
    if (block.threads < kLanes || block.threads > kMostThreads || block.threads % kLanes) fail("a block of whole warps is expected");
    if (grid.x == 0 || grid.y == 0 || grid.z == 0) fail("an empty grid is an error of the launch");
    const uint64_t blocks = uint64_t(grid.x) * grid.y * grid.z;
    const uint64_t first = draw(1u << 30) % blocks;  // some order that is not the usual one
    for (uint64_t count = 0; count < blocks; ++count) {
        const uint64_t number = (first + (blocks - count)) % blocks;
        block.index = dim3(unsigned(number % grid.x), unsigned(number / grid.x % grid.y), unsigned(number / grid.x / grid.y));
        block.live = block.threads;
        block.at_barrier = 0, block.given = 0;
        std::memset(shared_memory, 0xff, sizeof shared_memory);
        n_ready = 0;
        for (unsigned i = 0; i < block.threads; ++i) {
            Fiber& fiber = fibers[i];
            if (!fiber.stack) fiber.stack = new_stack();
            forget_frames(fiber);
            fiber.index = i;
            fiber.thread = dim3(i % size.x, i / size.x % size.y, i / size.x / size.y);
            fiber.shared = 0;
            prepare(fiber, thread_main);
            ready[n_ready++] = i;
        }
        for (unsigned w = 0; w < block.threads / kLanes; ++w) warps[w].arrived = 0;
        leave_for(scheduler, next(), false);
        if (block.live) fail("threads wait for others that have ended or wait elsewhere");
    }
}

}  // namespace emulation

double emulation_now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}
