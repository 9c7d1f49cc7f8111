// Packs plain weights: scale, bias and codes of each group by the rules of planish-format's `affine`, in f32 with true divisions, so
// that the result is the same bit for bit. Weights are rounded to the type of scales and biases first. A simdgroup packs one group, a
// lane 8 weights at a time; `find_non_finite` looks for NaN and infinity, each threadgroup in a part of all weights.
// Grids: quantize (rows, groups of a row / simdgroups rounded up, 1); find_non_finite (parts, 1, 1). Defines: THREADS, VALUE (of the plain weights), WEIGHT (of scales and
// biases), BITS, GROUP, ENCODER (0 transformers, 1 MLX on the CPU, 2 MLX on Metal).

struct QuantizeProblem {
    uint rows;
    uint cols;
};

inline float weight_of(value_t stored) { return widen(narrow<weight_t>(widen(stored))); }

// 8 weights as BITS bytes.
inline void pack8(device const value_t* weights, float2 affine, device uchar* codes) {
    uint low = 0, high = 0;
#pragma unroll
    for (uint i = 0; i < 8; i++) {
        const float exact = exact_divide(weight_of(weights[i]) - affine.y, affine.x);
        const uint code = uint(round_code<ENCODER>(exact > 0.0f ? min(exact, LEVELS) : 0.0f)); // 0 for NaN
        const uint bit = i * BITS;
        if (bit < 32)
            low |= code << bit;
        if (bit < 32 && bit + BITS > 32)
            high |= code >> (32 - bit);
        if (bit >= 32)
            high |= code << (bit - 32);
    }
#pragma unroll
    for (uint i = 0; i < BITS; i++)
        codes[i] = uchar(i < 4 ? low >> (8 * i) : high >> (8 * (i - 4)));
}

KERNEL(quantize)(
    device const value_t* plain [[buffer(0)]], // (rows, cols)
    device uchar* codes [[buffer(1)]],         // (rows, cols / 8 * BITS)
    device weight_t* scales [[buffer(2)]],     // (rows, cols / GROUP)
    device weight_t* biases [[buffer(3)]],     // (rows, cols / GROUP)
    PROBLEM(QuantizeProblem, 4))
{
    const uint groups = problem.cols / GROUP, group = group_position.y * (THREADS / 32) + simdgroup_index;
    const bool exists = group < groups;
    const ulong first = ulong(group_position.x) * problem.cols + ulong(exists ? group : 0) * GROUP;
    float low = INFINITY, high = -INFINITY;
    for (uint i = lane_index; i < GROUP; i += 32) {
        low = min(low, weight_of(plain[first + i]));
        high = max(high, weight_of(plain[first + i]));
    }
    const float2 affine = fit<ENCODER>(simd_min(low), simd_max(high));
    if (exists) {
        for (uint i = lane_index * 8; i < GROUP; i += 256)
            pack8(plain + first + i, affine, codes + (first + i) / 8 * BITS);
        if (lane_index == 0) {
            const ulong at = ulong(group_position.x) * groups + group;
            scales[at] = narrow<weight_t>(affine.x);
            biases[at] = narrow<weight_t>(affine.y);
        }
    }
}

KERNEL(find_non_finite)(
    device const value_t* plain [[buffer(0)]], // (rows, cols)
    device uint* found [[buffer(1)]],          // (parts): 1 where there is one
    PROBLEM(QuantizeProblem, 2))
{
    SHARED(float, room, THREADS / 32);
    const ulong count = ulong(problem.rows) * problem.cols;
    float worst = 0; // 1 where a weight less itself is not 0
    for (ulong i = ulong(group_position.x) * THREADS + thread_index; i < count; i += ulong(group_count.x) * THREADS) {
        const float weight = weight_of(plain[i]);
        worst = weight - weight == 0.0f ? worst : 1.0f;
    }
    worst = threadgroup_max(worst, room, lane_index, simdgroup_index);
    if (thread_index == 0)
        found[group_position.x] = worst > 0.0f ? 1u : 0u;
}
