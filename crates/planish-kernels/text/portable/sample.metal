// The token with the largest logit, in two steps; the lowest index wins among equals. `argmax_parts`: each threadgroup finds the
// best of its part of a row; `argmax`: one threadgroup finds the best of the parts, and keeps it for the row's sequence too.
// Grids: argmax_parts (rows, PARTS, 1); argmax (rows, 1, 1). Defines: THREADS, VALUE (type of the logits), PARTS.

#define NO_TOKEN 0xffffffffu

struct ArgmaxProblem {
    uint cols;
};

struct Best {
    float value;
    uint index;
};

// Not a number is never the best.
inline Best better(Best a, Best b) {
    return b.value > a.value || (b.value == a.value && b.index < a.index) ? b : a;
}

// The best of the threadgroup, for every thread.
inline Best best_of_all(Best mine, threadgroup float* values, threadgroup uint* indices, uint lane, uint simdgroup) {
    for (ushort mask = 16; mask; mask /= 2) {
        Best other;
        other.value = simd_shuffle_xor(mine.value, mask);
        other.index = simd_shuffle_xor(mine.index, mask);
        mine = better(mine, other);
    }
    if (lane == 0)
        values[simdgroup] = mine.value, indices[simdgroup] = mine.index;
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (uint i = 0; i < THREADS / 32; i++) {
        Best other;
        other.value = values[i], other.index = indices[i];
        mine = better(mine, other);
    }
    return mine;
}

KERNEL(argmax_parts)(
    device const value_t* logits [[buffer(0)]], // (rows, cols)
    device float* part_values [[buffer(1)]],    // (rows, PARTS)
    device uint* part_indices [[buffer(2)]],    // (rows, PARTS)
    PROBLEM(ArgmaxProblem, 3))
{
    SHARED(float, values, THREADS / 32);
    SHARED(uint, indices, THREADS / 32);
    launch_dependents();
    wait_for_previous();
    device const value_t* row = logits + ulong(group_position.x) * problem.cols;
    Best best;
    best.value = -INFINITY, best.index = 0xffffffffu;
    for (uint i = group_position.y * THREADS + thread_index; i < problem.cols; i += PARTS * THREADS) {
        Best other;
        other.value = widen(row[i]), other.index = i;
        best = better(best, other);
    }
    best = best_of_all(best, values, indices, lane_index, simdgroup_index);
    if (thread_index == 0) {
        part_values[group_position.x * PARTS + group_position.y] = best.value;
        part_indices[group_position.x * PARTS + group_position.y] = best.index;
    }
}

KERNEL(argmax)(
    device const float* part_values [[buffer(0)]],  // (rows, PARTS)
    device const uint* part_indices [[buffer(1)]],  // (rows, PARTS)
    device const uint4* settings [[buffer(2)]],     // (rows, 2), of which the first word is the sequence's slot
    device uint* tokens [[buffer(3)]],              // (rows)
    device uint* chosen [[buffer(4)]],              // (slots)
    PROBLEM(ArgmaxProblem, 5))
{
    SHARED(float, values, THREADS / 32);
    SHARED(uint, indices, THREADS / 32);
    launch_dependents();
    wait_for_previous();
    Best best;
    best.value = -INFINITY, best.index = 0xffffffffu;
    for (uint i = thread_index; i < PARTS; i += THREADS) {
        Best other;
        other.value = part_values[group_position.x * PARTS + i], other.index = part_indices[group_position.x * PARTS + i];
        best = better(best, other);
    }
    best = best_of_all(best, values, indices, lane_index, simdgroup_index);
    // A row whose best is infinite, or of nothing but NaN, has no best.
    if (thread_index == 0) {
        const uint token = best.index < problem.cols && fabs(best.value) < INFINITY ? best.index : NO_TOKEN;
        tokens[group_position.x] = token;
        chosen[settings[2 * group_position.x].x] = token;
    }
}
