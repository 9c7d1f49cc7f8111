// Runs kernels on the CPU: jobs come on standard input, buffers go back on standard output. Appended to emulation.h and kernels;
// `rows()` is the generated table of kernels. Threads of a threadgroup are fibers on one system thread.
#include <type_traits>
#include <utility>
#include <vector>
#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

#undef thread_index
#undef lane_index
#undef simdgroup_index
#undef group_position
#undef group_count
#undef device
#undef constant
#undef threadgroup
#undef thread

#define UNWATCHED __attribute__((no_sanitize("thread"), no_sanitize("address"), noinline))

namespace emulation {

[[noreturn]] static void fail(const char* what, uint index) {
    fprintf(stderr, "emulation: thread %u: %s\n", index, what);
    _Exit(3);
}

// Switching fibers.
#if defined(__x86_64__)
struct Context { void* stack_pointer = nullptr; };
extern "C" void switch_stack(void** from, void* to);
asm(R"(
.text
switch_stack:
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
)");
UNWATCHED static void switch_context(Context& from, Context& to) { switch_stack(&from.stack_pointer, to.stack_pointer); }
UNWATCHED static void make_context(Context& context, char* stack, size_t bytes, void (*entry)()) {
    void** top = (void**)(stack + bytes);
    *--top = nullptr;        // the entry never returns
    *--top = (void*)entry;
    context.stack_pointer = top - 6;
}
#else
struct Context { ucontext_t state; };
UNWATCHED static void switch_context(Context& from, Context& to) { swapcontext(&from.state, &to.state); }
UNWATCHED static void make_context(Context& context, char* stack, size_t bytes, void (*entry)()) {
    getcontext(&context.state);
    context.state.uc_stack.ss_sp = stack;
    context.state.uc_stack.ss_size = bytes;
    makecontext(&context.state, entry, 0);
}
#endif

const size_t STACK_BYTES = 128 << 10;
const size_t MOST_SHARED_BYTES = 232 << 10;
const uint MOST_GROUPS_TWICE = 32;

// A meeting point of threads.
struct Meeting {
    uint arrived = 0, generation = 0, needed = 0;
    Word word = Word::barrier;
    uint values[2][32]; // by generation
    char order;         // what the race detector orders threads by
};

struct Fiber {
    Thread thread;
    Context context;
    bool done;
    char* stack;
    void* race_fiber;
};

struct SharedArray { const void* declaration; void* memory; size_t bytes; };

typedef void (*Entry)(void** buffers, const void* constants);

static std::vector<Fiber> fibers;
static Fiber* running;
static Context scheduler;
static void* scheduler_race_fiber;
static Meeting everybody;
static Meeting named[16];
static std::vector<Meeting> simdgroups;
// No vector: its functions would be watched for races.
static SharedArray shared_arrays[64];
static uint shared_count;
static char* shared_memory;
static size_t shared_used;
static uchar shared_content; // of threadgroup memory that nothing wrote
static size_t shared_touched; // by threadgroups so far, all of it before the first
static Entry entry;
static void** entry_buffers;
static const void* entry_constants;
static char begin_order, end_order;
static uint progress;

UNWATCHED Thread& current() { return running->thread; }

static inline void released(char& order) {
#if defined(__SANITIZE_THREAD__)
    __tsan_release(&order);
#endif
}
static inline void acquired(char& order) {
#if defined(__SANITIZE_THREAD__)
    __tsan_acquire(&order);
#endif
}

UNWATCHED static void yield() {
#if defined(__SANITIZE_THREAD__)
    __tsan_switch_to_fiber(scheduler_race_fiber, __tsan_switch_to_fiber_no_sync);
#endif
    switch_context(running->context, scheduler);
}

// Returns the generation that met.
UNWATCHED static uint meet(Meeting& meeting, Word word, uint slot, uint value) {
    Fiber* self = running;
    if (meeting.arrived && meeting.word != word) fail("lanes came to different simd or barrier words", self->thread.index);
    meeting.word = word;
    uint generation = meeting.generation;
    meeting.values[generation % 2][slot % 32] = value;
    progress++;
    if (++meeting.arrived == meeting.needed) {
        meeting.arrived = 0;
        meeting.generation++;
    }
    while (meeting.generation == generation) yield();
    return generation;
}

UNWATCHED void wait_threadgroup() {
    released(everybody.order);
    meet(everybody, Word::barrier, 0, 0);
    acquired(everybody.order);
}
UNWATCHED void wait_simdgroup() {
    Meeting& meeting = simdgroups[running->thread.index / 32];
    released(meeting.order);
    meet(meeting, Word::simdgroup_barrier, 0, 0);
    acquired(meeting.order);
}
UNWATCHED const uint* exchange(Word word, uint value) {
    Meeting& meeting = simdgroups[running->thread.index / 32];
    return meeting.values[meet(meeting, word, running->thread.index, value) % 2];
}

// A gap of 32 bytes or more after each stays poisoned. The one that may be large begins at a multiple of 1024.
UNWATCHED void* shared(const void* declaration, size_t bytes, size_t limit) {
    for (uint i = 0; i < shared_count; i++)
        if (shared_arrays[i].declaration == declaration) return shared_arrays[i].memory;
    if (shared_count == 64 || shared_used + bytes > limit + 32) fail("too much threadgroup memory", running->thread.index);
    if (limit > 48 << 10) shared_used = (shared_used + 1023) / 1024 * 1024;
    void* memory = shared_memory + shared_used;
    shared_used += (bytes + 63) / 32 * 32;
#if defined(__SANITIZE_ADDRESS__)
    __asan_unpoison_memory_region(memory, bytes);
#endif
    shared_arrays[shared_count++] = {declaration, memory, bytes};
    return memory;
}

UNWATCHED void wait_named(uint index, uint threads) {
    Meeting& meeting = named[index];
    if (index == 0 || index > 15 || (meeting.arrived && meeting.needed != threads)) fail("a barrier of other threads", running->thread.index);
    meeting.needed = threads;
    released(meeting.order);
    meet(meeting, Word::barrier, 0, 0);
    acquired(meeting.order);
}

UNWATCHED void barrier_start(mbarrier* barrier, uint arrivals) {
    *barrier = {ushort(arrivals), ushort(arrivals), 0, 0};
}
UNWATCHED void barrier_change(mbarrier* barrier, uint arrivals, int bytes) {
    if (barrier->missing < arrivals) fail("more arrivals than the barrier has", running->thread.index);
    released(*(char*)barrier);
    progress++;
    barrier->missing -= arrivals;
    barrier->bytes += bytes;
    if (barrier->missing == 0 && barrier->bytes == 0) {
        barrier->missing = barrier->needed;
        barrier->parity ^= 1;
    }
}
UNWATCHED void barrier_wait(mbarrier* barrier, uint parity) {
    while (barrier->parity == parity) yield();
    acquired(*(char*)barrier);
}

UNWATCHED static void run_fiber() {
    acquired(begin_order);
    entry(entry_buffers, entry_constants);
    released(end_order);
    running->done = true;
    progress++;
    yield();
    abort();
}

UNWATCHED static void run_threadgroup(uint threads, uint3 position, uint3 count) {
#if defined(__SANITIZE_ADDRESS__)
    __asan_unpoison_memory_region(shared_memory, MOST_SHARED_BYTES);
#endif
    memset(shared_memory, shared_content, shared_touched);
#if defined(__SANITIZE_ADDRESS__)
    __asan_poison_memory_region(shared_memory, MOST_SHARED_BYTES);
#endif
    shared_count = 0;
    shared_used = 32;
    everybody.arrived = 0, everybody.needed = threads;
    for (Meeting& meeting : named) meeting.arrived = 0;
    simdgroups.assign(threads / 32, Meeting());
    for (Meeting& meeting : simdgroups) meeting.needed = 32;
    while (fibers.size() < threads) {
        void* race_fiber = nullptr;
#if defined(__SANITIZE_THREAD__)
        race_fiber = __tsan_create_fiber(0); // takes long: threadgroups, which follow each other in order, share it
#endif
        fibers.push_back({{}, {}, false, (char*)aligned_alloc(64, STACK_BYTES), race_fiber});
    }
    for (uint index = 0; index < threads; index++) {
        Fiber& fiber = fibers[index];
        fiber.thread = {index, position, count, {}};
        fiber.done = false;
        make_context(fiber.context, fiber.stack, STACK_BYTES, run_fiber);
    }
    released(begin_order);
    for (uint left = threads; left;) {
        uint before = progress;
        left = 0;
        for (uint index = 0; index < threads; index++) {
            running = &fibers[index];
            if (running->done) continue;
#if defined(__SANITIZE_THREAD__)
            __tsan_switch_to_fiber(running->race_fiber, __tsan_switch_to_fiber_no_sync);
#endif
            switch_context(scheduler, running->context);
            left += !running->done;
        }
        if (left && before == progress) fail("waits for threads that never come", running->thread.index);
    }
    acquired(end_order);
}

// Calls a kernel with pointers taken from an array; the last argument is the constants.
template <auto kernel> struct Call;
template <typename... Arguments, void (*kernel)(Arguments...)> struct Call<kernel> {
    template <size_t Index, typename Argument> static Argument pick(void** buffers, const void* constants) {
        if constexpr (Index + 1 == sizeof...(Arguments)) return *(std::remove_reference_t<Argument>*)constants;
        else return (Argument)buffers[Index];
    }
    template <size_t... Index> static void with(void** buffers, const void* constants, std::index_sequence<Index...>) {
        kernel(pick<Index, Arguments>(buffers, constants)...);
    }
    static void entry(void** buffers, const void* constants) {
        with(buffers, constants, std::make_index_sequence<sizeof...(Arguments)>());
    }
};

static bool read_bytes(void* to, size_t bytes) { return fread(to, 1, bytes, stdin) == bytes; }
static uint read_uint() {
    uint value;
    if (!read_bytes(&value, 4)) _Exit(4);
    return value;
}

// A job: kernel, threadgroups (3), threads, bytes of constants, constants, buffers, then bytes and content of each.
static void run_job(uint kernel, const Entry* table) {
    entry = table[kernel];
    uint x = read_uint(), y = read_uint(), z = read_uint(), threads = read_uint();
    std::vector<char*> buffers;
    std::vector<uint> sizes;
    auto take = [] (uint bytes) {
        char* memory = (char*)aligned_alloc(16, (bytes + 15) / 16 * 16);
        if (!read_bytes(memory, bytes)) _Exit(4);
#if defined(__SANITIZE_ADDRESS__)
        __asan_poison_memory_region(memory + bytes, (16 - bytes % 16) % 16);
#endif
        return memory;
    };
    char* constants = take(read_uint());
    for (uint count = read_uint(); count; count--) {
        sizes.push_back(read_uint());
        buffers.push_back(take(sizes.back()));
    }
    entry_buffers = (void**)buffers.data();
    entry_constants = constants;
    const uint groups = x * y * z;
    const auto run = [&] (bool again) {
        shared_content = again ? 0 : 0xff; // NaN the first time, and no bit as before
        shared_touched = MOST_SHARED_BYTES;
        size_t most = 0;
        for (uint turn = 0; turn < groups; turn++) {
            const uint index = again ? groups - 1 - turn : turn;
            run_threadgroup(threads, {index % x, index / x % y, index / x / y}, {x, y, z});
            shared_touched = most = shared_used > most ? shared_used : most;
        }
    };
    // Small jobs twice: neither what threadgroup memory held before nor the order of threadgroups may be seen in the result.
    std::vector<std::vector<char>> before, first;
    const auto content = [&] (size_t i) { return std::vector<char>(buffers[i], buffers[i] + sizes[i]); };
    const bool twice = groups <= MOST_GROUPS_TWICE;
    for (size_t i = 0; twice && i < buffers.size(); i++) before.push_back(content(i));
    run(false);
    for (size_t i = 0; twice && i < buffers.size(); i++) {
        first.push_back(content(i));
        memcpy(buffers[i], before[i].data(), sizes[i]);
    }
    if (twice) run(true);
    for (size_t i = 0; twice && i < buffers.size(); i++)
        if (content(i) != first[i]) fail("the result depends on threadgroup memory that nothing wrote, or on the order of threadgroups", 0);
    for (size_t i = 0; i < buffers.size(); i++) {
        fwrite(buffers[i], 1, sizes[i], stdout);
#if defined(__SANITIZE_ADDRESS__)
        __asan_unpoison_memory_region(buffers[i], (sizes[i] + 15) / 16 * 16);
#endif
        free(buffers[i]);
    }
    free(constants);
    fflush(stdout);
}

} // namespace emulation

extern const emulation::Entry TABLE[];

int main() {
    using namespace emulation;
    shared_memory = (char*)aligned_alloc(1024, MOST_SHARED_BYTES);
    fibers.reserve(1024);
#if defined(__SANITIZE_THREAD__)
    scheduler_race_fiber = __tsan_get_current_fiber();
#endif
    uint kernel;
    while (read_bytes(&kernel, 4)) run_job(kernel, TABLE);
}
