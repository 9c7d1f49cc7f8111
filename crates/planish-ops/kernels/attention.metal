// Causal attention of few query rows, split over the positions: output = softmax(scale * q k^T) v over the positions up to the
// row's own, or the last `window` of them. A threadgroup takes one row, HEADS_EACH heads that share their keys, and one part of the
// positions; each simdgroup takes every n-th position, its lanes the dimensions. Scores and sums are f32 (online softmax).
// Grids: attention (rows, heads / HEADS_EACH, parts); attention_merge (rows, heads, 1), which only follows where PARTS is not 1.
// Defines: THREADS, VALUE, CACHE, HEAD_DIM, VALUE_DIM, HEADS_EACH, PARTS, WINDOW, SOFTCAP, ALIBI, SINKS.

typedef TYPE_OF(CACHE) cache_t;

#define SIMDGROUPS (THREADS / 32)
#define KEY_EACH ((HEAD_DIM + 31) / 32)    // values of a lane
#define VALUE_EACH ((VALUE_DIM + 31) / 32)
#define POSITIONS_EACH 4                   // scored together, so that reads overlap
#define PARTIAL_SIZE (VALUE_DIM + 2)       // weighted values, maximum, total

struct AttentionProblem {
    uint heads;
    uint kv_heads;
    uint first_position; // of row 0
    uint window;
    float scale;
    float softcap;
    float alibi_factor;
};

struct Softmax {
    float maximum;
    float total;
    float values[VALUE_EACH];
};

inline float round_bf16(float value) { return widen(narrow<bf16>(value)); }

// What one score becomes before the softmax.
inline float adjust_score(float score, AttentionProblem problem, float slope, uint position) {
    score *= problem.scale;
    if (SOFTCAP)
        score = problem.softcap * tanh(score / problem.softcap);
    if (ALIBI)
        score += problem.alibi_factor * round_bf16(slope * round_bf16(float(position)));
    return score;
}

// Takes up POSITIONS_EACH scores with their values; a score of -INFINITY is of no position.
inline void take_up(thread Softmax& softmax, thread const float (&scores)[POSITIONS_EACH],
                    thread const float (&values)[POSITIONS_EACH][VALUE_EACH]) {
    float maximum = softmax.maximum;
#pragma unroll
    for (uint p = 0; p < POSITIONS_EACH; p++)
        maximum = max(maximum, scores[p]);
    const float keep = exp(softmax.maximum - maximum);
    softmax.maximum = maximum;
    softmax.total *= keep;
#pragma unroll
    for (uint i = 0; i < VALUE_EACH; i++)
        softmax.values[i] *= keep;
#pragma unroll
    for (uint p = 0; p < POSITIONS_EACH; p++) {
        const float weight = exp(scores[p] - maximum);
        softmax.total += weight;
#pragma unroll
        for (uint i = 0; i < VALUE_EACH; i++)
            softmax.values[i] = fma(weight, values[p][i], softmax.values[i]);
    }
}

KERNEL(attention)(
    device const value_t* queries [[buffer(0)]], // (rows, heads, HEAD_DIM)
    device const cache_t* keys [[buffer(1)]],    // (positions, kv_heads, HEAD_DIM)
    device const cache_t* values [[buffer(2)]],  // (positions, kv_heads, VALUE_DIM)
    device const float* sinks [[buffer(3)]],     // (heads)
    device const float* slopes [[buffer(4)]],    // (heads)
    device float* partials [[buffer(5)]],        // (rows, heads, PARTS, PARTIAL_SIZE)
    device value_t* output [[buffer(6)]],        // (rows, heads, VALUE_DIM)
    PROBLEM(AttentionProblem, 7))
{
    SHARED(float, room, SIMDGROUPS * HEADS_EACH * PARTIAL_SIZE);
    const uint lane = lane_index, row = group_position.x, first_head = group_position.y * HEADS_EACH;
    const uint kv_head = first_head / (problem.heads / problem.kv_heads);

    // The positions of this part.
    const uint end = problem.first_position + row + 1;
    const uint begin = WINDOW && end > problem.window ? end - problem.window : 0;
    const uint part_size = (end - begin + PARTS - 1) / PARTS;
    const uint part_begin = begin + group_position.z * part_size, part_end = min(part_begin + part_size, end);

    float query[HEADS_EACH][KEY_EACH];
    Softmax softmax[HEADS_EACH];
#pragma unroll
    for (uint h = 0; h < HEADS_EACH; h++) {
        const ulong from = (ulong(row) * problem.heads + first_head + h) * HEAD_DIM;
#pragma unroll
        for (uint i = 0; i < KEY_EACH; i++)
            query[h][i] = lane + 32 * i < HEAD_DIM ? widen(queries[from + lane + 32 * i]) : 0.0f;
        softmax[h].maximum = -INFINITY;
        softmax[h].total = 0;
#pragma unroll
        for (uint i = 0; i < VALUE_EACH; i++)
            softmax[h].values[i] = 0;
    }

    for (uint first = part_begin + simdgroup_index * POSITIONS_EACH; first < part_end; first += SIMDGROUPS * POSITIONS_EACH) {
        float key[POSITIONS_EACH][KEY_EACH], value[POSITIONS_EACH][VALUE_EACH];
#pragma unroll
        for (uint p = 0; p < POSITIONS_EACH; p++) {
            const ulong from = ulong(min(first + p, part_end - 1)) * problem.kv_heads + kv_head;
#pragma unroll
            for (uint i = 0; i < KEY_EACH; i++)
                key[p][i] = lane + 32 * i < HEAD_DIM ? widen(keys[from * HEAD_DIM + lane + 32 * i]) : 0.0f;
#pragma unroll
            for (uint i = 0; i < VALUE_EACH; i++)
                value[p][i] = lane + 32 * i < VALUE_DIM ? widen(values[from * VALUE_DIM + lane + 32 * i]) : 0.0f;
        }
#pragma unroll
        for (uint h = 0; h < HEADS_EACH; h++) {
            const float slope = ALIBI ? slopes[first_head + h] : 0.0f;
            float scores[POSITIONS_EACH];
#pragma unroll
            for (uint p = 0; p < POSITIONS_EACH; p++) {
                float dot = 0;
#pragma unroll
                for (uint i = 0; i < KEY_EACH; i++)
                    dot = fma(query[h][i], key[p][i], dot);
                dot = simd_sum(dot);
                scores[p] = first + p < part_end ? adjust_score(dot, problem, slope, first + p) : -INFINITY;
            }
            take_up(softmax[h], scores, value);
        }
    }

#pragma unroll
    for (uint h = 0; h < HEADS_EACH; h++) {
        threadgroup float* mine = room + (simdgroup_index * HEADS_EACH + h) * PARTIAL_SIZE;
#pragma unroll
        for (uint i = 0; i < VALUE_EACH; i++)
            if (lane + 32 * i < VALUE_DIM)
                mine[lane + 32 * i] = softmax[h].values[i];
        if (lane == 0) {
            mine[VALUE_DIM] = softmax[h].maximum;
            mine[VALUE_DIM + 1] = softmax[h].total;
        }
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);

    // One value of one head a thread, over the simdgroups.
    for (uint index = thread_index; index < HEADS_EACH * VALUE_DIM; index += THREADS) {
        const uint h = index / VALUE_DIM, i = index % VALUE_DIM;
        float maximum = PARTS == 1 && SINKS ? sinks[first_head + h] : -INFINITY;
        for (uint s = 0; s < SIMDGROUPS; s++)
            maximum = max(maximum, room[(s * HEADS_EACH + h) * PARTIAL_SIZE + VALUE_DIM]);
        float total = PARTS == 1 && SINKS ? exp(sinks[first_head + h] - maximum) : 0.0f, sum = 0;
        for (uint s = 0; s < SIMDGROUPS; s++) {
            threadgroup const float* partial = room + (s * HEADS_EACH + h) * PARTIAL_SIZE;
            if (partial[VALUE_DIM + 1] > 0.0f) {
                const float weight = exp(partial[VALUE_DIM] - maximum);
                total = fma(weight, partial[VALUE_DIM + 1], total);
                sum = fma(weight, partial[i], sum);
            }
        }
        const ulong head = ulong(row) * problem.heads + first_head + h;
        if (PARTS == 1) {
            output[head * VALUE_DIM + i] = narrow<value_t>(sum / total);
        } else {
            device float* partial = partials + (head * PARTS + group_position.z) * PARTIAL_SIZE;
            partial[i] = sum;
            if (i == 0) {
                partial[VALUE_DIM] = maximum;
                partial[VALUE_DIM + 1] = total;
            }
        }
    }
}

KERNEL(attention_merge)(
    device const float* partials [[buffer(0)]], // (rows, heads, PARTS, PARTIAL_SIZE)
    device const float* sinks [[buffer(1)]],    // (heads)
    device value_t* output [[buffer(2)]],       // (rows, heads, VALUE_DIM)
    PROBLEM(AttentionProblem, 3))
{
    const ulong head = ulong(group_position.x) * problem.heads + group_position.y;
    device const float* parts = partials + head * PARTS * PARTIAL_SIZE;
    const float sink = SINKS ? sinks[group_position.y] : -INFINITY;
    float maximum = sink;
    for (uint p = 0; p < PARTS; p++)
        maximum = max(maximum, parts[p * PARTIAL_SIZE + VALUE_DIM]);
    float total = SINKS ? exp(sink - maximum) : 0.0f;
    for (uint p = 0; p < PARTS; p++)
        total = fma(exp(parts[p * PARTIAL_SIZE + VALUE_DIM] - maximum), parts[p * PARTIAL_SIZE + VALUE_DIM + 1], total);
    for (uint i = thread_index; i < VALUE_DIM; i += THREADS) {
        float sum = 0;
        for (uint p = 0; p < PARTS; p++)
            sum = fma(exp(parts[p * PARTIAL_SIZE + VALUE_DIM] - maximum), parts[p * PARTIAL_SIZE + i], sum);
        output[head * VALUE_DIM + i] = narrow<value_t>(sum / total);
    }
}
