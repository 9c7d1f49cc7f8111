// CUDA's words for Hopper GPUs (sm_90a), appended to cuda.h: products of warpgroups (4 simdgroups that begin at a multiple of 4),
// barriers that count bytes, bulk copies. emulation.h spells the same words for the CPU.
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

// A barrier in threadgroup memory. Its phases end when all arrived and the bytes expected have come; parities of phases are 0, 1, 0, ..
struct mbarrier { ulong state; };
inline void mbarrier_init(mbarrier* barrier, uint arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
}
// After the barriers of a threadgroup are made, before it meets: bulk copies must see them.
inline void mbarrier_publish() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
inline void mbarrier_arrive(mbarrier* barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}
inline void mbarrier_expect(mbarrier* barrier, uint bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes) : "memory");
}
// Until the phase of that parity has ended.
inline void mbarrier_wait(mbarrier* barrier, uint parity) {
    asm volatile("{\n.reg .pred done;\nagain:\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n@done bra finish;\nbra again;\nfinish:\n}"
                 ::"r"(shared_address(barrier)), "r"(parity) : "memory");
}
// Brings bytes (a multiple of 16) and tells the barrier.
inline void copy_bulk(void* to, const void* from, uint bytes, mbarrier* barrier) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(shared_address(to)),
                 "l"(from), "r"(bytes), "r"(shared_address(barrier)) : "memory");
}
// Tells the barrier (an arrival of this thread) when the thread's earlier copy_async are done.
inline void copy_async_arrive(mbarrier* barrier) {
    asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(shared_address(barrier)) : "memory");
}
// The threads that name a barrier (1 to 15) meet.
inline void threads_barrier(uint index, uint threads) { asm volatile("bar.sync %0, %1;" ::"r"(index), "r"(threads) : "memory"); }

// Registers of each thread of this warpgroup from here on.
template <int count> inline void leave_registers() { asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(count)); }
template <int count> inline void take_registers() { asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(count)); }

// Pairs of 16-bit floats.
inline uint fma_pair_f16(uint a, uint b, uint c) {
    uint sum;
    asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(sum) : "r"(a), "r"(b), "r"(c));
    return sum;
}
inline uint multiply_pair_f16(uint a, uint b) {
    uint product;
    asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(product) : "r"(a), "r"(b));
    return product;
}
inline uint lower_twice(uint word) { return __byte_perm(word, 0, 0x1010); }
inline uint upper_twice(uint word) { return __byte_perm(word, 0, 0x3232); }

// 4 matrices of 8 x 8, transposed: lane l holds (l / 4, l % 4 * 2) of each and its right neighbour, and names row l % 8 of matrix l / 8.
inline void store_transposed(ushort* row, const uint (&words)[4]) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(shared_address(row)), "r"(words[0]),
                 "r"(words[1]), "r"(words[2]), "r"(words[3]) : "memory");
}

// sums (64, inputs) += a (64, 16) b (inputs, 16)^T of f16. Simdgroup w of the warpgroup holds rows 16 w .. of `a` and `sums` as
// tensor_multiply does, 4 sums for every 8 inputs. `b`: rows of 128 bytes in threadgroup memory, 1024 bytes after a multiple of 1024
// for every 8, whose pieces of 16 bytes are exchanged: piece p of row r lies at p ^ r % 8. Products run on; `a` and `sums` are not
// to be touched until warpgroup_wait.
inline void warpgroup_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
inline void warpgroup_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// Until at most `left` commits are unfinished.
template <int left> inline void warpgroup_wait() { asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(left) : "memory"); }
inline ulong warpgroup_matrix(const void* b) {
    const ulong swizzled = 1ull << 62, rows_of_8 = ulong(1024 / 16) << 32;
    return swizzled | rows_of_8 | 1ull << 16 | ulong((shared_address(b) & 0x3ffffu) >> 4);
}
#define D0 "%0, %1, %2, %3, %4, %5, %6, %7"
#define D1 "%8, %9, %10, %11, %12, %13, %14, %15"
#define D2 "%16, %17, %18, %19, %20, %21, %22, %23"
#define D3 "%24, %25, %26, %27, %28, %29, %30, %31"
#define D4 "%32, %33, %34, %35, %36, %37, %38, %39"
#define D5 "%40, %41, %42, %43, %44, %45, %46, %47"
#define D6 "%48, %49, %50, %51, %52, %53, %54, %55"
#define D7 "%56, %57, %58, %59, %60, %61, %62, %63"
#define D8 "%64, %65, %66, %67, %68, %69, %70, %71"
#define D9 "%72, %73, %74, %75, %76, %77, %78, %79"
#define D10 "%80, %81, %82, %83, %84, %85, %86, %87"
#define D11 "%88, %89, %90, %91, %92, %93, %94, %95"
#define D12 "%96, %97, %98, %99, %100, %101, %102, %103"
#define D13 "%104, %105, %106, %107, %108, %109, %110, %111"
#define D14 "%112, %113, %114, %115, %116, %117, %118, %119"
#define D15 "%120, %121, %122, %123, %124, %125, %126, %127"
#define S8(i) "+f"(sums[i]), "+f"(sums[i + 1]), "+f"(sums[i + 2]), "+f"(sums[i + 3]), "+f"(sums[i + 4]), "+f"(sums[i + 5]), \
    "+f"(sums[i + 6]), "+f"(sums[i + 7])
#define WARPGROUP_MULTIPLY(inputs, places, rest, ...)                                                     \
    inline void warpgroup_multiply(float (&sums)[inputs / 2], const uint (&a)[4], const void* b) {       \
        asm volatile("wgmma.mma_async.sync.aligned.m64n" #inputs "k16.f32.f16.f16"                   \
                     " {" places "}, " rest                                                                     \
                     : __VA_ARGS__                                                                              \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(warpgroup_matrix(b)));                   \
    }
#define PLACES_16 D0
#define SUMS_16 S8(0)
WARPGROUP_MULTIPLY(16, PLACES_16, "{%8, %9, %10, %11}, %12, 1, 1, 1, 0;", SUMS_16)
#define PLACES_32 D0 ", " D1
#define SUMS_32 S8(0), S8(8)
WARPGROUP_MULTIPLY(32, PLACES_32, "{%16, %17, %18, %19}, %20, 1, 1, 1, 0;", SUMS_32)
#define PLACES_48 D0 ", " D1 ", " D2
#define SUMS_48 S8(0), S8(8), S8(16)
WARPGROUP_MULTIPLY(48, PLACES_48, "{%24, %25, %26, %27}, %28, 1, 1, 1, 0;", SUMS_48)
#define PLACES_64 D0 ", " D1 ", " D2 ", " D3
#define SUMS_64 S8(0), S8(8), S8(16), S8(24)
WARPGROUP_MULTIPLY(64, PLACES_64, "{%32, %33, %34, %35}, %36, 1, 1, 1, 0;", SUMS_64)
#define PLACES_96 D0 ", " D1 ", " D2 ", " D3 ", " D4 ", " D5
#define SUMS_96 S8(0), S8(8), S8(16), S8(24), S8(32), S8(40)
WARPGROUP_MULTIPLY(96, PLACES_96, "{%48, %49, %50, %51}, %52, 1, 1, 1, 0;", SUMS_96)
#define PLACES_128 D0 ", " D1 ", " D2 ", " D3 ", " D4 ", " D5 ", " D6 ", " D7
#define SUMS_128 S8(0), S8(8), S8(16), S8(24), S8(32), S8(40), S8(48), S8(56)
WARPGROUP_MULTIPLY(128, PLACES_128, "{%64, %65, %66, %67}, %68, 1, 1, 1, 0;", SUMS_128)
#define PLACES_192 D0 ", " D1 ", " D2 ", " D3 ", " D4 ", " D5 ", " D6 ", " D7 ", " D8 ", " D9 ", " D10 ", " D11
#define SUMS_192 S8(0), S8(8), S8(16), S8(24), S8(32), S8(40), S8(48), S8(56), S8(64), S8(72), S8(80), S8(88)
WARPGROUP_MULTIPLY(192, PLACES_192, "{%96, %97, %98, %99}, %100, 1, 1, 1, 0;", SUMS_192)
#define PLACES_256 D0 ", " D1 ", " D2 ", " D3 ", " D4 ", " D5 ", " D6 ", " D7 ", " D8 ", " D9 ", " D10 ", " D11 ", " D12 ", " D13 ", " D14 ", " D15
#define SUMS_256 S8(0), S8(8), S8(16), S8(24), S8(32), S8(40), S8(48), S8(56), S8(64), S8(72), S8(80), S8(88), S8(96), S8(104), S8(112), S8(120)
WARPGROUP_MULTIPLY(256, PLACES_256, "{%128, %129, %130, %131}, %132, 1, 1, 1, 0;", SUMS_256)
#endif
