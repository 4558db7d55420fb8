// Runs CUDA kernels on the CPU, for tests: compiled with all.cu into a shared library.
//
// Blocks run one after the other. A block's threads are fibers on one system thread: each runs until it waits for its
// block or its warp, or ends. The threads of a warp must wait for the same thing; what does not hold ends the process
// with a message. `static` stands for `__shared__`, since one block runs at a time. The blocks of a cluster take turns
// where they wait for each other: what a block shares then is copied, and all that it has otherwise is lost to it.
#include <cstdio>
#include <cstdlib>
#include <vector>
#include <sys/mman.h>

#include "../../../kernels/all.cu"

namespace emulator {

enum Waiting { RUNNABLE, FOR_WARP, FOR_BLOCK, FOR_CLUSTER, ENDED };

const u32 MAX_THREADS = 1024;
// Of all blocks of a cluster.
const u32 MAX_FIBERS = 4096;
// Not a power of two: the ends of stacks must not meet in the same places of the processor's caches.
const size_t STACK = (64 << 10) + 17 * 64;

struct Fiber {
    void *stack_pointer;
    Waiting waiting;
    u32 exchanges;
};

Place place;
void *dynamic;
static Fiber all_fibers[MAX_FIBERS];
// Those of the block that runs.
static Fiber *fibers;
static u8 *stacks;
static void *scheduler;
static void (*kernel)(const void *);
static const void *argument;
// What a block shares with its cluster: where it lies, and the copy of it.
struct Shared {
    const u8 *own;
    bool is_new;
    std::vector<u8> copy;
};
static std::vector<Shared> cluster;
// Two sets for each warp: who is slow still reads one while who is fast writes the other.
alignas(64) static u8 given_values[MAX_THREADS / 32][2][32 * 64];

extern "C" void bitnet_switch(void **from, void *to);

#if defined(__x86_64__)
asm(".text\n.globl bitnet_switch\nbitnet_switch:\n"
    "push %rbp\npush %rbx\npush %r12\npush %r13\npush %r14\npush %r15\n"
    "mov %rsp, (%rdi)\nmov %rsi, %rsp\n"
    "pop %r15\npop %r14\npop %r13\npop %r12\npop %rbx\npop %rbp\nret\n");
const size_t SAVED = 6;
#elif defined(__aarch64__)
asm(".text\n.globl bitnet_switch\nbitnet_switch:\n"
    "sub sp, sp, #160\n"
    "stp x19, x20, [sp, #0]\nstp x21, x22, [sp, #16]\nstp x23, x24, [sp, #32]\nstp x25, x26, [sp, #48]\n"
    "stp x27, x28, [sp, #64]\nstp x29, x30, [sp, #80]\nstp d8, d9, [sp, #96]\nstp d10, d11, [sp, #112]\n"
    "stp d12, d13, [sp, #128]\nstp d14, d15, [sp, #144]\n"
    "mov x9, sp\nstr x9, [x0]\nmov sp, x1\n"
    "ldp x19, x20, [sp, #0]\nldp x21, x22, [sp, #16]\nldp x23, x24, [sp, #32]\nldp x25, x26, [sp, #48]\n"
    "ldp x27, x28, [sp, #64]\nldp x29, x30, [sp, #80]\nldp d8, d9, [sp, #96]\nldp d10, d11, [sp, #112]\n"
    "ldp d12, d13, [sp, #128]\nldp d14, d15, [sp, #144]\nadd sp, sp, #160\nret\n");
#else
#error "the emulator switches stacks on x86-64 and ARM64 only"
#endif

[[noreturn]] static void fail(const char *what) {
    fprintf(stderr, "emulated kernel: %s (thread %u of block %u, %u, %u)\n", what, place.thread, place.block[0],
            place.block[1], place.block[2]);
    abort();
}

static void yield(Waiting waiting) {
    Fiber &self = fibers[place.thread];
    self.waiting = waiting;
    bitnet_switch(&self.stack_pointer, scheduler);
}

void wait_block() { yield(FOR_BLOCK); }

void wait_cluster(const void *shared, size_t bytes) {
    if (shared != nullptr) {
        Shared &own = cluster[place.rank];
        own.own = (const u8 *)shared, own.is_new = true, own.copy.resize(bytes);
    }
    yield(FOR_CLUSTER);
}

const void *of_cluster(const void *own, u32 rank) {
    const size_t at = (const u8 *)own - cluster[place.rank].own;
    if (rank >= cluster.size() || at + 8 > cluster[rank].copy.size()) fail("a read of what no block of the cluster shares");
    return cluster[rank].copy.data() + at;
}

const u8 *exchange(const void *given, size_t bytes) {
    Fiber &self = fibers[place.thread];
    u8 *all = given_values[place.thread / 32][self.exchanges++ % 2];
    if (bytes != 0) memcpy(all + 64 * (place.thread % 32), given, bytes);
    yield(FOR_WARP);
    return all;
}

static void start() {
    kernel(argument);
    yield(ENDED);
    fail("a thread went on behind its end");
}

static void prepare(Fiber &fiber) {
    if (stacks == nullptr) {
        void *memory = mmap(nullptr, MAX_FIBERS * STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                            -1, 0);
        if (memory == MAP_FAILED) fail("no memory for stacks");
        stacks = (u8 *)memory;
    }
    void **top = (void **)(stacks + (&fiber - all_fibers + 1) * STACK);
#if defined(__x86_64__)
    // Where `ret` goes; behind it the stack is aligned as behind a call.
    *--top = nullptr;
    *--top = (void *)start;
    top -= SAVED;
#else
    top -= 20;
    top[11] = (void *)start;
#endif
    fiber.stack_pointer = top;
    fiber.waiting = RUNNABLE;
    fiber.exchanges = 0;
}

// Runs a warp until all of its threads wait for the block or the cluster, or have ended.
static void run_warp(u32 first, u32 end) {
    for (;;) {
        for (u32 t = first; t < end; t++) {
            if (fibers[t].waiting == ENDED) continue;
            place.thread = t;
            bitnet_switch(&scheduler, fibers[t].stack_pointer);
        }
        u32 counts[ENDED + 1] = {};
        for (u32 t = first; t < end; t++) counts[fibers[t].waiting]++;
        if (counts[FOR_WARP] == 0) return;
        if (counts[FOR_WARP] != end - first) fail("not all threads of a warp reached a warp operation");
        if (end - first != 32) fail("a warp operation in a warp of fewer than 32 threads");
    }
}

// Runs the block that was chosen until all of its threads have ended, or all that have not wait for the cluster: then this is
// true.
static bool run_block() {
    for (;;) {
        u32 waiting = 0, ended = 0;
        for (u32 first = 0; first < place.threads; first += 32) {
            u32 end = first + 32 < place.threads ? first + 32 : place.threads;
            run_warp(first, end);
            for (u32 t = first; t < end; t++) waiting += fibers[t].waiting == FOR_BLOCK, ended += fibers[t].waiting == ENDED;
        }
        if (waiting == 0) return ended < place.threads;
        if (waiting != place.threads) fail("not all threads of a block reached its barrier");
    }
}

static void choose(u32 rank, u32 first_y) {
    place.rank = rank, place.block[1] = first_y + rank, fibers = all_fibers + rank * place.threads;
}

// Runs the blocks of a cluster, which lie one behind the other in y.
static void run_cluster(u32 first_y) {
    const u32 count = (u32)cluster.size();
    for (u32 rank = 0; rank < count; rank++) {
        choose(rank, first_y);
        for (u32 t = 0; t < place.threads; t++) prepare(fibers[t]);
    }
    for (u32 waiting = count; waiting > 0;) {
        waiting = 0;
        for (u32 rank = 0; rank < count; rank++) {
            choose(rank, first_y);
            if (!run_block()) continue;
            waiting++;
            Shared &own = cluster[rank];
            if (own.is_new) memcpy(own.copy.data(), own.own, own.copy.size());
            own.is_new = false;
        }
    }
}

} // namespace emulator

// Runs a kernel over a grid, in clusters of `together` blocks. One launch at a time.
extern "C" void bitnet_emulate(void (*kernel)(const void *), const u32 *grid, u32 together, u32 threads, u32 shared,
                               const void *bytes) {
    using namespace emulator;
    if (threads > MAX_THREADS || together * threads > MAX_FIBERS) fail("too many threads in a block, or in a cluster");
    if (together == 0 || grid[1] % together != 0) fail("not a whole number of clusters");
    // Memory of its own for each launch, so that checkers of memory see what lies outside.
    dynamic = aligned_alloc(64, (shared + 63) / 64 * 64 + 64);
    emulator::kernel = kernel;
    argument = bytes;
    place.threads = threads;
    memcpy(place.grid, grid, sizeof(place.grid));
    for (u32 z = 0; z < grid[2]; z++) {
        for (u32 y = 0; y < grid[1]; y += together) {
            for (u32 x = 0; x < grid[0]; x++) {
                place.block[0] = x, place.block[2] = z;
                cluster.assign(together, Shared());
                run_cluster(y);
            }
        }
    }
    free(dynamic);
}
