// CUDA (NVRTC, -default-device): spells Metal's words. A simdgroup is a warp. No header of the toolkit is needed.
#pragma nv_diag_suppress 1097 // [[buffer(n)]] means nothing here
typedef unsigned char uchar;
typedef unsigned short ushort;
typedef unsigned int uint;
typedef unsigned long long ulong;

#define device
#define constant
#define threadgroup
#define thread

#ifndef THREADGROUPS // that a multiprocessor should hold at once
#define THREADGROUPS 1
#endif
#define KERNEL(name) extern "C" __global__ void __launch_bounds__(THREADS, THREADGROUPS) name
#define KERNEL_OF(threads, name) extern "C" __global__ void __launch_bounds__(threads) name
#define PROBLEM(type, index) const __grid_constant__ type problem
#define SHARED(type, name, size) __shared__ type name[size]
// The one array of a kernel that may be larger than 48 KiB.
#define SHARED_LARGE(type, name, size)                        \
    extern __shared__ __align__(1024) uint4 all_of_##name[]; \
    type* name = (type*)all_of_##name
#define group_position blockIdx
#define group_count gridDim
#define thread_index (threadIdx.x)
#define lane_index (threadIdx.x & 31u)
#define simdgroup_index (threadIdx.x >> 5)

// f16: conversions only.
struct f16 {
    ushort bits;
    f16() = default;
    explicit f16(float value) { asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value)); }
    explicit operator float() const { float value; asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits)); return value; }
};
inline float f16_bits_to_float(ushort bits) { float value; asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits)); return value; }
inline float2 unpack_f16(uint word) { return float2{f16_bits_to_float(ushort(word)), f16_bits_to_float(ushort(word >> 16))}; }

template <typename To, typename From> inline To as_type(From value) {
    static_assert(sizeof(To) == sizeof(From), "as_type keeps the size");
    To result;
    memcpy(&result, &value, sizeof(To));
    return result;
}
#define INFINITY __int_as_float(0x7f800000)
inline float exact_divide(float a, float b) { return __fdiv_rn(a, b); }
inline float exact_multiply(float a, float b) { return __fmul_rn(a, b); } // rounded before it is added to something
inline float clamp(float x, float low, float high) { return fminf(fmaxf(x, low), high); }

enum class mem_flags { mem_none, mem_device, mem_threadgroup };
inline void threadgroup_barrier(mem_flags) { __syncthreads(); }
inline void simdgroup_barrier(mem_flags) { __syncwarp(); }
template <typename T> inline T simd_shuffle_xor(T value, ushort mask) { return __shfl_xor_sync(0xffffffffu, value, mask); }
template <typename T> inline T simd_shuffle(T value, ushort lane) { return __shfl_sync(0xffffffffu, value, lane); }
inline float simd_sum(float value) {
    for (ushort mask = 16; mask; mask /= 2) value += simd_shuffle_xor(value, mask);
    return value;
}
inline float simd_max(float value) {
    for (ushort mask = 16; mask; mask /= 2) value = fmaxf(value, simd_shuffle_xor(value, mask));
    return value;
}
inline float simd_min(float value) {
    for (ushort mask = 16; mask; mask /= 2) value = fminf(value, simd_shuffle_xor(value, mask));
    return value;
}

// 8 x 8 matrices in f32 by shuffles: right everywhere, and only for what has no kernel with tensor cores. Lane l holds
// (l / 4, l % 4 * 2) and the value to its right.
struct simdgroup_float8x8 { float held[2]; };
template <typename T, int rows, int cols> inline simdgroup_float8x8 make_filled_simdgroup_matrix(float value) {
    return simdgroup_float8x8{{value, value}};
}
inline void simdgroup_load(simdgroup_float8x8& to, const float* from, uint stride) {
    const float* first = from + lane_index / 4 * stride + lane_index % 4 * 2;
    to.held[0] = first[0], to.held[1] = first[1];
}
inline void load_transposed(simdgroup_float8x8& to, const float* from, uint stride) {
    const float* first = from + lane_index % 4 * 2 * stride + lane_index / 4;
    to.held[0] = first[0], to.held[1] = first[stride];
}
inline void simdgroup_store(simdgroup_float8x8 from, float* to, uint stride) {
    float* first = to + lane_index / 4 * stride + lane_index % 4 * 2;
    first[0] = from.held[0], first[1] = from.held[1];
}
inline void simdgroup_multiply_accumulate(simdgroup_float8x8& to, simdgroup_float8x8 left, simdgroup_float8x8 right,
                                          simdgroup_float8x8 sum) {
#pragma unroll
    for (uint k = 0; k < 8; k++) {
        const float a = simd_shuffle(left.held[k % 2], lane_index / 4 * 4 + k / 2);
        sum.held[0] = fma(a, simd_shuffle(right.held[0], k * 4 + lane_index % 4), sum.held[0]);
        sum.held[1] = fma(a, simd_shuffle(right.held[1], k * 4 + lane_index % 4), sum.held[1]);
    }
    to = sum;
}

// Loads of what no other thread reads: past the first cache.
inline uint4 load_once(const uint4* from) {
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(from));
    return v;
}
inline uint2 load_once(const uint2* from) {
    uint2 v;
    asm volatile("ld.global.nc.L1::no_allocate.v2.u32 {%0, %1}, [%2];" : "=r"(v.x), "=r"(v.y) : "l"(from));
    return v;
}
inline uint load_once(const uint* from) {
    uint v;
    asm volatile("ld.global.nc.L1::no_allocate.u32 %0, [%1];" : "=r"(v) : "l"(from));
    return v;
}

// Tensor cores: sums (16, 8) += a (16, 16) b (16, 8); lane l holds the elements that the PTX manual gives it.
#define TENSOR_MULTIPLY(name, type)                                                                            \
    inline void name(float (&sums)[4], const uint (&a)[4], const uint (&b)[2]) {                               \
        asm("mma.sync.aligned.m16n8k16.row.col.f32." type "." type ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, " \
            "{%8, %9}, {%0, %1, %2, %3};"                                                                      \
            : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])                                       \
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));                               \
    }
TENSOR_MULTIPLY(tensor_multiply_f16, "f16")
TENSOR_MULTIPLY(tensor_multiply_bf16, "bf16")

// Four (8, 8) matrices of 16-bit values from threadgroup memory: lane l gives the address of row l % 8 of matrix l / 8, and gets
// values 2 * (l % 4) and the next of row l / 4 of each; transposed: of column l / 4.
template <typename T> inline void load_matrices(const T* row, uint (&words)[4]) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                 : "r"(uint(__cvta_generic_to_shared(row)))
                 : "memory");
}
template <typename T> inline void load_matrices_transposed(const T* row, uint (&words)[4]) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                 : "r"(uint(__cvta_generic_to_shared(row)))
                 : "memory");
}
#if __CUDA_ARCH__ >= 800
#define BF16_BITS(value) bf16_bits(value)
inline ushort bf16_bits(float value) {
    ushort bits;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}
#endif
// Two values in a word, the first in its lower half.
inline uint pack_f16(float low, float high) {
    uint word;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
    return word;
}
inline uint pack_bf16(float low, float high) {
    uint word;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
    return word;
}
// 2^x to 2 units of the last place; 0 for what would be subnormal.
inline float fast_exp2(float x) {
    float power;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
    return power;
}

// Programmatic dependent launch: a kernel may start while the previous one still runs. After this wait everything that earlier
// kernels wrote is visible. A kernel calls it before it writes anything or reads what others wrote.
inline void wait_for_previous() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
// Lets the next kernel start, and prepare what depends on no other.
inline void launch_dependents() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;");
#endif
}

// Copies that pass by the registers; zeros where nothing is to be read.
inline void copy_async(uint4* to, const uint4* from, bool exists) {
    const uint address = uint(__cvta_generic_to_shared(to)), bytes = exists ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(from), "r"(bytes) : "memory");
}
inline void copy_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
inline void copy_async_wait() { asm volatile("cp.async.wait_all;" ::: "memory"); }

// Bulk copies into threadgroup memory by a simdgroup, of multiples of 16 bytes. All lanes say each word; at most LEFT + 1 pieces are
// under way. A piece arrives when all bytes that it expected are there; `turn` says how often its arrival was waited for before.
#if __CUDA_ARCH__ >= 900
inline uint shared_address(const void* at) { return uint(__cvta_generic_to_shared(at)); }
inline void prepare_arrivals(ulong* arrivals, uint count, uint lane) {
    if (lane == 0) {
        for (uint i = 0; i < count; i++)
            asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(shared_address(arrivals + i)) : "memory");
        asm volatile("fence.mbarrier_init.release.cluster; fence.proxy.async.shared::cta;" ::: "memory");
    }
    __syncwarp();
}
inline void expect_bytes(ulong* arrival, uint bytes, uint lane) {
    if (lane == 0)
        asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(arrival)), "r"(bytes) : "memory");
}
inline void copy_bulk(void* to, const void* from, uint bytes, ulong* arrival, uint lane) {
    if (lane == 0)
        asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];"
                     ::"r"(shared_address(to)), "l"(__cvta_generic_to_global(from)), "r"(bytes), "r"(shared_address(arrival)) : "memory");
}
inline void copied_piece() {}
template <int LEFT> inline void wait_arrival(ulong* arrival, uint turn) {
    asm volatile("{ .reg .pred done; again: mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1; @!done bra again; }"
                 ::"r"(shared_address(arrival)), "r"(turn & 1) : "memory");
}
#else
inline void prepare_arrivals(ulong*, uint, uint) {}
inline void expect_bytes(ulong*, uint, uint) {}
inline void copy_bulk(void* to, const void* from, uint bytes, ulong*, uint lane) {
    for (uint i = lane; i < bytes / 16; i += 32) copy_async((uint4*)to + i, (const uint4*)from + i, true);
}
inline void copied_piece() { copy_async_commit(); }
template <int LEFT> inline void wait_arrival(ulong*, uint) {
    asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory");
    __syncwarp();
}
#endif

// Tensor cores on bytes: sums (16, 8) += a (16, 32), unsigned, b (32, 8), signed.
inline void tensor_multiply_bytes(int (&sums)[4], const uint (&a)[4], const uint (&b)[2]) {
    asm("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+r"(sums[0]), "+r"(sums[1]), "+r"(sums[2]), "+r"(sums[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
// Byte `index` of each.
inline uint join_bytes(uint a, uint b, uint c, uint d, uint index) {
    const uint pick = index | (index + 4) << 4;
    return __byte_perm(__byte_perm(a, b, pick), __byte_perm(c, d, pick), 0x5410);
}
inline int round_to_int(float value) { return __float2int_rn(value); }
