// A check of address spaces: OpenCL C++ has the same ones as Metal and the same rules for them, and clang knows it everywhere
// (`clang -x clcpp -fsyntax-only`). Functions are declared only: nothing is linked or run.
#pragma OPENCL EXTENSION cl_khr_fp16 : enable
typedef unsigned char uchar;
typedef unsigned short ushort;
typedef unsigned int uint;
typedef unsigned long ulong;
typedef uint uint2 __attribute__((ext_vector_type(2)));
typedef uint uint3 __attribute__((ext_vector_type(3)));
typedef uint uint4 __attribute__((ext_vector_type(4)));
typedef float float2 __attribute__((ext_vector_type(2)));
typedef float float4 __attribute__((ext_vector_type(4)));
typedef half f16;
#define INFINITY __builtin_inff()

#define device __global
#define threadgroup __local
#define thread __private
#define constant __constant

#define KERNEL(name) __kernel void name
#define PROBLEM(type, index)                                                                                   \
    const type problem, const uint3 group_position, const uint3 group_count, const uint thread_index,          \
        const uint lane_index, const uint simdgroup_index
#define SHARED(type, name, size) threadgroup type name[size]

template <typename To, typename From> To as_type(From value) { return __builtin_bit_cast(To, value); }
float2 unpack_f16(uint word);
float exact_divide(float a, float b), exact_multiply(float a, float b);
void wait_for_previous();
void launch_dependents();
enum class mem_flags { mem_none, mem_device, mem_threadgroup };
void threadgroup_barrier(mem_flags);
void simdgroup_barrier(mem_flags);
float simd_sum(float);
float simd_max(float);
float simd_min(float);
template <typename T> T simd_shuffle(T value, ushort lane);
template <typename T> T simd_shuffle_xor(T value, ushort mask);
float fma(float, float, float);
float exp(float), log(float), tanh(float), cos(float), sin(float), sqrt(float), rsqrt(float), rint(float), round(float);
float floor(float), fabs(float), clamp(float, float, float);
float min(float, float), max(float, float);
uint min(uint, uint), max(uint, uint);

struct simdgroup_float8x8 { float held[2]; };
template <typename T, int rows, int cols> simdgroup_float8x8 make_filled_simdgroup_matrix(float value);
void simdgroup_load(thread simdgroup_float8x8& to, threadgroup const float* from, ulong stride);
void load_transposed(thread simdgroup_float8x8& to, threadgroup const float* from, ulong stride);
void simdgroup_store(simdgroup_float8x8 from, threadgroup float* to, ulong stride);
void simdgroup_multiply_accumulate(thread simdgroup_float8x8& to, simdgroup_float8x8 left, simdgroup_float8x8 right,
                                   simdgroup_float8x8 sum);

