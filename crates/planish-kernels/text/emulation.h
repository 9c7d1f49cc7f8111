// The CPU, for tests: Metal's words in C++, with the threads of a threadgroup as fibers. Simd and barrier words stop a fiber until
// all lanes (threads) have come to the same word; a lane that comes to another one, or never, is an error.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

typedef unsigned char uchar;
typedef unsigned short ushort;
typedef unsigned int uint;
typedef uint64_t ulong;
struct alignas(8) uint2 { uint x, y; };
struct uint3 { uint x, y, z; };
struct alignas(16) uint4 { uint x, y, z, w; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };

enum class mem_flags { mem_none = 0, mem_device = 1, mem_threadgroup = 2 };

struct mbarrier;

namespace emulation {

// What a fiber waits for.
enum class Word { barrier, simdgroup_barrier, sum, max, min, shuffle, matrix };

// A product of a warpgroup that was asked for.
struct Product {
    float* sums;
    const uint* a;
    const void* b;
    uint inputs, commit;
};
struct Products {
    Product waiting[16];
    uint count, commits;
};
struct Thread {
    uint index;
    uint3 group_position, group_count;
    Products products;
};
Thread& current();
// Waits for all threads; then everything written before is visible to all of them.
void wait_threadgroup();
void wait_simdgroup();
// Waits for the lanes of the simdgroup and returns what each brought. // (32)
const uint* exchange(Word word, uint value);
// The array that this declaration names, the same for all threads of the threadgroup.
void* shared(const void* declaration, size_t bytes, size_t limit);
// Barriers that threads name by a number, and those that lie in memory.
void wait_named(uint index, uint threads);
void barrier_start(mbarrier* barrier, uint arrivals);
void barrier_change(mbarrier* barrier, uint arrivals, int bytes);
void barrier_wait(mbarrier* barrier, uint parity);

template <typename To, typename From> To bits_of(From value) {
    static_assert(sizeof(To) == sizeof(From), "the same size");
    To result;
    memcpy(&result, &value, sizeof result);
    return result;
}
inline float half_to_float(ushort bits) {
    uint exponent = bits >> 10 & 31, fraction = bits & 1023;
    float value = exponent == 31 ? (fraction ? NAN : INFINITY)
                                 : exponent ? ldexpf(1024 + fraction, int(exponent) - 25) : ldexpf(fraction, -24);
    return bits >> 15 ? -value : value;
}
// Rounds to nearest even.
inline ushort float_to_half(float value) {
    ushort sign = bits_of<uint>(value) >> 16 & 0x8000;
    float size = fabsf(value);
    if (!(size == size)) return sign | 0x7e00;
    if (size >= 65520.0f) return sign | 0x7c00;
    if (size == 0) return sign;
    int exponent;
    frexpf(size, &exponent);
    int unit = (exponent < -13 ? -13 : exponent) - 11; // of the last place
    return sign + ushort(nearbyintf(ldexpf(size, -unit))) + (unit > -24 ? (unit + 24) << 10 : 0);
}

} // namespace emulation

#define device
#define constant
#define threadgroup
#define thread

#define KERNEL(name) static void name
#define KERNEL_OF(threads, name) static void name
#define PROBLEM(type, index) const type& problem
#define SHARED(type, name, size) \
    static const char name##_declaration = 0; \
    type(&name)[size] = *(type(*)[size])emulation::shared(&name##_declaration, sizeof(type[size]), 48 << 10)
#define SHARED_LARGE(type, name, size)      \
    static const char name##_declaration = 0; \
    type* name = (type*)emulation::shared(&name##_declaration, sizeof(type[size]), 227 << 10)
#define group_position (emulation::current().group_position)
#define group_count (emulation::current().group_count)
#define thread_index (emulation::current().index)
#define lane_index (emulation::current().index % 32)
#define simdgroup_index (emulation::current().index / 32)

struct f16 {
    ushort bits;
    f16() = default;
    explicit f16(float value) : bits(emulation::float_to_half(value)) {}
    explicit operator float() const { return emulation::half_to_float(bits); }
};
inline float2 unpack_f16(uint word) {
    return {emulation::half_to_float(ushort(word)), emulation::half_to_float(ushort(word >> 16))};
}
template <typename To, typename From> To as_type(From value) { return emulation::bits_of<To>(value); }
inline float exact_divide(float a, float b) { return a / b; }
inline float exact_multiply(float a, float b) { return a * b; }
inline float clamp(float x, float low, float high) { return fminf(fmaxf(x, low), high); }
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline uint min(uint a, uint b) { return a < b ? a : b; }
inline uint max(uint a, uint b) { return a > b ? a : b; }
inline float rsqrt(float x) { return 1.0f / sqrtf(x); }
using std::cos, std::exp, std::fabs, std::floor, std::fma, std::log, std::rint, std::round, std::sin, std::sqrt, std::tanh;

inline void threadgroup_barrier(mem_flags) { emulation::wait_threadgroup(); }
inline void simdgroup_barrier(mem_flags) { emulation::wait_simdgroup(); }

#define SIMD_FOLD(name, word, combine)                                                        \
    inline float name(float value) {                                                          \
        const uint* all = emulation::exchange(emulation::Word::word, as_type<uint>(value));    \
        float result = as_type<float>(all[0]);                                                \
        for (int lane = 1; lane < 32; lane++) result = combine;                               \
        return result;                                                                        \
    }
SIMD_FOLD(simd_sum, sum, result + as_type<float>(all[lane]))
SIMD_FOLD(simd_max, max, fmaxf(result, as_type<float>(all[lane])))
SIMD_FOLD(simd_min, min, fminf(result, as_type<float>(all[lane])))

template <typename T> T simd_shuffle(T value, ushort lane) {
    return as_type<T>(emulation::exchange(emulation::Word::shuffle, as_type<uint>(value))[lane]);
}
template <typename T> T simd_shuffle_xor(T value, ushort mask) { return simd_shuffle(value, ushort(lane_index ^ mask)); }

// Lane l holds (l / 4, l % 4 * 2) and the value to its right.
struct simdgroup_float8x8 { float held[2]; };
template <typename T, int rows, int cols> simdgroup_float8x8 make_filled_simdgroup_matrix(float value) {
    return {{value, value}};
}
inline void simdgroup_load(simdgroup_float8x8& to, const float* from, ulong stride) {
    const float* first = from + lane_index / 4 * stride + lane_index % 4 * 2;
    to = {{first[0], first[1]}};
}
inline void load_transposed(simdgroup_float8x8& to, const float* from, ulong stride) {
    const float* first = from + lane_index % 4 * 2 * stride + lane_index / 4;
    to = {{first[0], first[stride]}};
}
inline void simdgroup_store(simdgroup_float8x8 from, float* to, ulong stride) {
    float* first = to + lane_index / 4 * stride + lane_index % 4 * 2;
    first[0] = from.held[0], first[1] = from.held[1];
}
inline void simdgroup_multiply_accumulate(simdgroup_float8x8& to, simdgroup_float8x8 left, simdgroup_float8x8 right,
                                          simdgroup_float8x8 sum) {
    float lefts[8][8], rights[8][8];
    for (uint half = 0; half < 2; half++) {
        const uint* all = emulation::exchange(emulation::Word::matrix, as_type<uint>(left.held[half]));
        for (uint lane = 0; lane < 32; lane++) lefts[lane / 4][lane % 4 * 2 + half] = as_type<float>(all[lane]);
        all = emulation::exchange(emulation::Word::matrix, as_type<uint>(right.held[half]));
        for (uint lane = 0; lane < 32; lane++) rights[lane / 4][lane % 4 * 2 + half] = as_type<float>(all[lane]);
    }
    const uint row = lane_index / 4, col = lane_index % 4 * 2;
    for (uint k = 0; k < 8; k++)
        for (uint half = 0; half < 2; half++) sum.held[half] += lefts[row][k] * rights[k][col + half];
    to = sum;
}

template <typename T> T load_once(const T* from) { return *from; }

// Tensor cores, as in cuda.h.
inline void tensor_multiply(float (&sums)[4], const uint (&a)[4], const uint (&b)[2], float (*widen)(ushort)) {
    float left[16][16], right[16][8];
    for (uint part = 0; part < 6; part++) {
        const uint* all = emulation::exchange(emulation::Word::matrix, part < 4 ? a[part] : b[part - 4]);
        for (uint lane = 0; lane < 32; lane++)
            for (uint half = 0; half < 2; half++) {
                const float value = widen(ushort(all[lane] >> 16 * half));
                const uint k = lane % 4 * 2 + half;
                if (part < 4) left[lane / 4 + part % 2 * 8][k + part / 2 * 8] = value;
                else right[k + (part - 4) * 8][lane / 4] = value;
            }
    }
    for (uint i = 0; i < 4; i++)
        for (uint k = 0; k < 16; k++)
            sums[i] += left[lane_index / 4 + i / 2 * 8][k] * right[k][lane_index % 4 * 2 + i % 2];
}
inline float widen_bf16(ushort bits) { return as_type<float>(uint(bits) << 16); }
inline void tensor_multiply_f16(float (&sums)[4], const uint (&a)[4], const uint (&b)[2]) {
    tensor_multiply(sums, a, b, emulation::half_to_float);
}
inline void tensor_multiply_bf16(float (&sums)[4], const uint (&a)[4], const uint (&b)[2]) {
    tensor_multiply(sums, a, b, widen_bf16);
}

// Lane l's part of four (8, 8) matrices whose rows the lanes point at, as in cuda.h.
template <typename T> void load_matrices(const T* row, uint (&words)[4], bool transposed = false) {
    static_assert(sizeof(T) == 2, "matrices of 16-bit values");
    uint low[32], high[32];
    memcpy(low, emulation::exchange(emulation::Word::matrix, uint(ulong(row))), sizeof low);
    memcpy(high, emulation::exchange(emulation::Word::matrix, uint(ulong(row) >> 32)), sizeof high);
    const uint mine = lane_index;
    for (uint i = 0; i < 4; i++) {
        ushort halves[2];
        for (uint half = 0; half < 2; half++) {
            const uint pair = mine % 4 * 2 + half, at = i * 8 + (transposed ? pair : mine / 4);
            const ushort* values = (const ushort*)(ulong(high[at]) << 32 | low[at]);
            halves[half] = values[transposed ? mine / 4 : pair];
        }
        words[i] = halves[0] | uint(halves[1]) << 16;
    }
    emulation::wait_simdgroup(); // the lanes go on together
}
template <typename T> void load_matrices_transposed(const T* row, uint (&words)[4]) { load_matrices(row, words, true); }
inline uint pack_f16(float low, float high) {
    return emulation::float_to_half(low) | uint(emulation::float_to_half(high)) << 16;
}
inline uint pack_bf16(float low, float high) {
    auto bits = [](float value) {
        const uint bits = as_type<uint>(value);
        return value != value ? bits >> 16 | 0x40 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    };
    return bits(low) | bits(high) << 16;
}
inline float fast_exp2(float x) { return exp2f(x); }

// Every kernel runs alone.
inline void wait_for_previous() {}
inline void launch_dependents() {}

inline void copy_async(uint4* to, const uint4* from, bool exists) { *to = exists ? *from : uint4{0, 0, 0, 0}; }
inline void copy_async_commit() {}
inline void copy_async_wait() {}

// Bulk copies are done at once. An arrival counts the bytes that are still expected (lower half) and the times that all came.
inline void prepare_arrivals(ulong* arrivals, uint count, uint lane) {
    if (lane == 0)
        for (uint i = 0; i < count; i++) arrivals[i] = 0;
    emulation::wait_simdgroup();
}
inline void expect_bytes(ulong* arrival, uint bytes, uint lane) {
    if (lane == 0) *arrival += bytes;
}
inline void copy_bulk(void* to, const void* from, uint bytes, ulong* arrival, uint lane) {
    if (lane != 0) return;
    if (bytes % 16 || uint(*arrival) < bytes) abort();
    memcpy(to, from, bytes);
    *arrival -= bytes;
    if (uint(*arrival) == 0) *arrival += 1ull << 32;
}
inline void copied_piece() {}
template <int LEFT> void wait_arrival(ulong* arrival, uint turn) {
    emulation::wait_simdgroup();
    if (*arrival != ulong(turn + 1) << 32) abort();
}

// Tensor cores on bytes, as in cuda.h.
inline void tensor_multiply_bytes(int (&sums)[4], const uint (&a)[4], const uint (&b)[2]) {
    int left[16][32], right[32][8];
    for (uint part = 0; part < 6; part++) {
        const uint* all = emulation::exchange(emulation::Word::matrix, part < 4 ? a[part] : b[part - 4]);
        for (uint lane = 0; lane < 32; lane++)
            for (uint byte = 0; byte < 4; byte++) {
                const int value = all[lane] >> 8 * byte & 255;
                const uint k = lane % 4 * 4 + byte;
                if (part < 4) left[lane / 4 + part % 2 * 8][k + part / 2 * 16] = value;
                else right[k + (part - 4) * 16][lane / 4] = value - (value > 127 ? 256 : 0);
            }
    }
    for (uint i = 0; i < 4; i++)
        for (uint k = 0; k < 32; k++)
            sums[i] += left[lane_index / 4 + i / 2 * 8][k] * right[k][lane_index % 4 * 2 + i % 2];
}
inline uint join_bytes(uint a, uint b, uint c, uint d, uint index) {
    const uint by = 8 * index;
    return (a >> by & 255) | (b >> by & 255) << 8 | (c >> by & 255) << 16 | (d >> by & 255) << 24;
}
inline int round_to_int(float value) { return int(nearbyintf(value)); }

// Hopper's words, as in hopper.h. Bulk copies come at once; products as late as they may, so that what is touched too early shows.
struct mbarrier {
    ushort needed, missing; // arrivals
    int bytes : 31;         // to come
    uint parity : 1;        // of the running phase
};
inline void mbarrier_init(mbarrier* barrier, uint arrivals) { emulation::barrier_start(barrier, arrivals); }
inline void mbarrier_publish() {}
inline void mbarrier_arrive(mbarrier* barrier) { emulation::barrier_change(barrier, 1, 0); }
inline void mbarrier_expect(mbarrier* barrier, uint bytes) { emulation::barrier_change(barrier, 1, int(bytes)); }
inline void mbarrier_wait(mbarrier* barrier, uint parity) { emulation::barrier_wait(barrier, parity); }
inline void copy_bulk(void* to, const void* from, uint bytes, mbarrier* barrier) {
    memcpy(to, from, bytes);
    emulation::barrier_change(barrier, 0, -int(bytes));
}
inline void copy_async_arrive(mbarrier* barrier) { emulation::barrier_change(barrier, 1, 0); }
inline void threads_barrier(uint index, uint threads) { emulation::wait_named(index, threads); }
template <int count> void leave_registers() {}
template <int count> void take_registers() {}

inline uint fma_pair_f16(uint a, uint b, uint c) {
    const float2 left = unpack_f16(a), right = unpack_f16(b), plus = unpack_f16(c);
    return pack_f16(float(double(left.x) * right.x + plus.x), float(double(left.y) * right.y + plus.y));
}
inline uint multiply_pair_f16(uint a, uint b) { return fma_pair_f16(a, b, 0); }
inline uint lower_twice(uint word) { return word << 16 | (word & 0xffffu); }
inline uint upper_twice(uint word) { return word >> 16 | (word & 0xffff0000u); }

inline void store_transposed(ushort* row, const uint (&words)[4]) {
    for (uint matrix = 0; matrix < 4; matrix++) {
        const uint* all = emulation::exchange(emulation::Word::matrix, words[matrix]);
        uint held[32];
        memcpy(held, all, sizeof held);
        const uint col = lane_index % 8;
        if (lane_index / 8 == matrix)
            for (uint i = 0; i < 8; i++) row[i] = ushort(held[i * 4 + col / 2] >> 16 * (col % 2));
    }
}

namespace emulation {
inline void multiply_now(const Product& product) {
    uint left[4][32];
    for (uint part = 0; part < 4; part++)
        memcpy(left[part], exchange(Word::matrix, product.a[part]), sizeof left[part]);
    for (uint i = 0; i < product.inputs / 2; i++) {
        const uint row = lane_index / 4 + i / 2 % 2 * 8, index = i / 4 * 8 + lane_index % 4 * 2 + i % 2;
        for (uint k = 0; k < 16; k++) {
            const uint part = left[row / 8 + k / 8 * 2][row % 8 * 4 + k % 8 / 2];
            const ulong at = (ulong)product.b + index * 128 + k * 2;
            product.sums[i] += half_to_float(ushort(part >> 16 * (k % 2))) * half_to_float(*(const ushort*)(at ^ (at >> 7 & 7) << 4));
        }
    }
}
} // namespace emulation
inline void warpgroup_begin() {}
inline void warpgroup_commit() { emulation::current().products.commits++; }
template <int left> void warpgroup_wait() {
    emulation::Products& products = emulation::current().products;
    uint done = 0;
    for (; done < products.count && products.waiting[done].commit + left < products.commits; done++)
        emulation::multiply_now(products.waiting[done]);
    for (uint i = done; i < products.count; i++) products.waiting[i - done] = products.waiting[i];
    products.count -= done;
}
template <int half> void warpgroup_multiply(float (&sums)[half], const uint (&a)[4], const void* b) {
    emulation::Products& products = emulation::current().products;
    products.waiting[products.count++] = {sums, a, b, 2 * half, products.commits};
}
