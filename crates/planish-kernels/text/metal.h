// Metal: the words of README.md that the language itself does not have.
#include <metal_stdlib>
#include <metal_simdgroup_matrix>
using namespace metal;

#define KERNEL(name) kernel void name
#define PROBLEM(type, index)                                        \
    constant type& problem [[buffer(index)]],                       \
        uint3 group_position [[threadgroup_position_in_grid]],      \
        uint3 group_count [[threadgroups_per_grid]],                \
        uint thread_index [[thread_index_in_threadgroup]],          \
        uint lane_index [[thread_index_in_simdgroup]],              \
        uint simdgroup_index [[simdgroup_index_in_threadgroup]]
#define SHARED(type, name, size) threadgroup type name[size]

typedef half f16;

// Two halves of a word, the lower one first.
inline float2 unpack_f16(uint word) { return float2(as_type<half2>(word)); }
inline float exact_divide(float a, float b) { return precise::divide(a, b); }
// A product that is rounded before it is added to something.
inline float exact_multiply(float a, float b) {
#pragma METAL fp contract(off)
    return a * b;
}
inline void load_transposed(thread simdgroup_float8x8& to, threadgroup const float* from, ulong stride) {
    simdgroup_load(to, from, stride, ulong2(0, 0), true);
}
// Command buffers order what depends on something else.
inline void wait_for_previous() {}
inline void launch_dependents() {}
