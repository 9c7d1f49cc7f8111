// Causal attention of many query rows of one sequence by 8 x 8 matrices: output = softmax(scale * q k^T) v over the positions up to the row's own, or
// the last `window` of them, with an online softmax (Dao, 2023). Query heads that share keys are rows of one product: tile row r is
// query row r / HEADS_EACH of the r % HEADS_EACH-th of them. A simdgroup takes 8 tile rows, a threadgroup ROWS of one key-value head;
// keys, then values, of KEYS positions at a time are in threadgroup memory for all of them. All arithmetic is f32.
// Grid: (tile rows / ROWS, kv_heads, 1), rounded up.
// Defines: THREADS, VALUE, CACHE, HEAD_DIM and VALUE_DIM (multiples of 8), HEADS_EACH, KEYS (8, 16, 32 or 64: of one block), WINDOW, SOFTCAP, ALIBI,
// SINKS.

typedef TYPE_OF(CACHE) cache_t;

#define SIMDGROUPS (THREADS / 32)
#define ROWS (8 * SIMDGROUPS)
#define KEY_BLOCKS (KEYS / 8)
#define VALUE_BLOCKS (VALUE_DIM / 8)
#define MOST_DIM (HEAD_DIM > VALUE_DIM ? HEAD_DIM : VALUE_DIM)
#define EACH (KEYS / 4) // scores of a lane

struct TileAttentionProblem {
    uint rows;
    uint heads;
    uint kv_heads;
    uint first_row;
    uint window;
    float scale;
    float softcap;
    float alibi_factor;
};

inline float round_bf16(float value) { return widen(narrow<bf16>(value)); }

// What one score becomes before the softmax.
inline float adjust_score(float score, TileAttentionProblem problem, float slope, uint position) {
    score *= problem.scale;
    if (SOFTCAP)
        score = problem.softcap * tanh(score / problem.softcap);
    if (ALIBI == 1) // rounded
        score += problem.alibi_factor * round_bf16(slope * round_bf16(float(position)));
    if (ALIBI == 2)
        score += problem.alibi_factor * (slope * float(position));
    return score;
}

// Brings KEYS positions of one head, which lie in one block; those from `end` on are zeros. `stored`: row of the first.
template <uint DIM>
inline void bring_positions(device const cache_t* from, uint kv_heads, uint stored, uint first, uint end, threadgroup float* to,
                            uint thread_number) {
    for (uint piece = thread_number; piece < KEYS * (DIM / 8); piece += THREADS) {
        const uint key = piece / (DIM / 8), col = piece % (DIM / 8) * 8;
        float eight[8] = {0, 0, 0, 0, 0, 0, 0, 0};
        if (first + key < end)
            load8(from + ulong(stored + key) * kv_heads * DIM + col, eight);
#pragma unroll
        for (uint i = 0; i < 8; i++)
            to[key * DIM + col + i] = eight[i];
    }
}

KERNEL(attention_tiles)(
    device const value_t* queries [[buffer(0)]], // (rows, heads, HEAD_DIM)
    device const cache_t* keys [[buffer(1)]],    // (blocks, BLOCK, kv_heads, HEAD_DIM)
    device const cache_t* values [[buffer(2)]],  // (blocks, BLOCK, kv_heads, VALUE_DIM)
    device const float* sinks [[buffer(3)]],     // (heads)
    device const float* slopes [[buffer(4)]],    // (heads)
    device const uint4* places [[buffer(5)]],    // (rows)
    device const uint* tables [[buffer(6)]],     // (slots, stride)
    device value_t* output [[buffer(7)]],        // (rows, heads, VALUE_DIM)
    PROBLEM(TileAttentionProblem, 8))
{
    SHARED(float, query_room, ROWS * HEAD_DIM);
    SHARED(float, room, KEYS * MOST_DIM);             // keys, then values
    SHARED(float, weight_room, SIMDGROUPS * 8 * KEYS); // of each simdgroup: scores, then weights
    SHARED(float, small_room, SIMDGROUPS * 64);        // of each simdgroup: what rows keep; at the end results
    launch_dependents();
    wait_for_previous();
    const uint lane = lane_index, kv_head = group_position.y, first_head = kv_head * HEADS_EACH;
    const uint first_row = (group_count.x - 1 - group_position.x) * ROWS; // the longest first
    const uint tile_rows = problem.rows * HEADS_EACH, last_row = min(first_row + ROWS, tile_rows) - 1;
    const uint4 place = places[problem.first_row];
    device const uint* blocks = tables + place.w;
    const uint nearest = place.y + first_row / HEADS_EACH + 1;
    const uint end = place.y + last_row / HEADS_EACH + 1;
    const uint begin = WINDOW && nearest > problem.window ? (nearest - problem.window) / KEYS * KEYS : 0; // of a tile
    queries += ulong(problem.first_row) * problem.heads * HEAD_DIM;
    output += ulong(problem.first_row) * problem.heads * VALUE_DIM;
    for (uint piece = thread_index; piece < ROWS * (HEAD_DIM / 8); piece += THREADS) {
        const uint row = first_row + piece / (HEAD_DIM / 8), col = piece % (HEAD_DIM / 8) * 8;
        float eight[8] = {0, 0, 0, 0, 0, 0, 0, 0};
        if (row < tile_rows)
            load8(queries + (ulong(row / HEADS_EACH) * problem.heads + first_head + row % HEADS_EACH) * HEAD_DIM + col, eight);
#pragma unroll
        for (uint i = 0; i < 8; i++)
            query_room[piece * 8 + i] = eight[i];
    }

    // This lane's row of its simdgroup's 8, of which it takes every fourth score.
    const uint row = first_row + simdgroup_index * 8 + lane / 4;
    const uint row_end = place.y + row / HEADS_EACH + 1;
    const float slope = ALIBI ? slopes[first_head + row % HEADS_EACH] : 0.0f;
    threadgroup const float* my_queries = query_room + simdgroup_index * 8 * HEAD_DIM;
    threadgroup float* weights = weight_room + simdgroup_index * 8 * KEYS;
    threadgroup float* small = small_room + simdgroup_index * 64;
    float maximum = -INFINITY, total = 0;
    simdgroup_float8x8 sums[VALUE_BLOCKS];
#pragma unroll
    for (uint block = 0; block < VALUE_BLOCKS; block++)
        sums[block] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);

    for (uint first = begin; first < end; first += KEYS) {
        threadgroup_barrier(mem_flags::mem_threadgroup); // everybody is done with the room
        const uint stored = stored_row(blocks, first);
        bring_positions<HEAD_DIM>(keys + kv_head * HEAD_DIM, problem.kv_heads, stored, first, end, room, thread_index);
        threadgroup_barrier(mem_flags::mem_threadgroup);
        simdgroup_float8x8 scores[KEY_BLOCKS];
#pragma unroll
        for (uint block = 0; block < KEY_BLOCKS; block++)
            scores[block] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
        for (uint col = 0; col < HEAD_DIM; col += 8) {
            simdgroup_float8x8 query, key;
            simdgroup_load(query, my_queries + col, HEAD_DIM);
#pragma unroll
            for (uint block = 0; block < KEY_BLOCKS; block++) {
                load_transposed(key, room + block * 8 * HEAD_DIM + col, HEAD_DIM);
                simdgroup_multiply_accumulate(scores[block], query, key, scores[block]);
            }
        }
#pragma unroll
        for (uint block = 0; block < KEY_BLOCKS; block++)
            simdgroup_store(scores[block], weights + block * 8, KEYS);
        threadgroup_barrier(mem_flags::mem_threadgroup);
        bring_positions<VALUE_DIM>(values + kv_head * VALUE_DIM, problem.kv_heads, stored, first, end, room, thread_index);

        float mine[EACH], highest = maximum;
#pragma unroll
        for (uint i = 0; i < EACH; i++) {
            const uint position = first + lane % 4 + 4 * i;
            const bool seen = position < row_end && position < end && !(WINDOW && position + problem.window < row_end);
            const float score = weights[lane / 4 * KEYS + lane % 4 + 4 * i];
            mine[i] = seen ? adjust_score(score, problem, slope, position) : -INFINITY;
            highest = max(highest, mine[i]);
        }
        highest = max(highest, simd_shuffle_xor(highest, 1));
        highest = max(highest, simd_shuffle_xor(highest, 2));
        // A row may have seen nothing yet.
        const float keep = maximum == -INFINITY ? 0.0f : exp(maximum - highest);
        const bool grows = highest > maximum;
        maximum = highest;
        total *= keep;
#pragma unroll
        for (uint i = 0; i < EACH; i++) {
            const float weight = mine[i] == -INFINITY ? 0.0f : exp(mine[i] - maximum);
            total += weight;
            weights[lane / 4 * KEYS + lane % 4 + 4 * i] = weight;
        }
        // A diagonal matrix of what the rows keep.
#pragma unroll
        for (uint i = 0; i < 2; i++)
            small[lane / 4 * 8 + lane % 4 * 2 + i] = lane / 4 == lane % 4 * 2 + i ? keep : 0.0f;
        const bool any_grows = simd_max(grows ? 1.0f : 0.0f) > 0.0f;
        threadgroup_barrier(mem_flags::mem_threadgroup);

        if (any_grows) {
            const simdgroup_float8x8 zeros = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
            simdgroup_float8x8 diagonal;
            simdgroup_load(diagonal, small, 8);
#pragma unroll
            for (uint block = 0; block < VALUE_BLOCKS; block++)
                simdgroup_multiply_accumulate(sums[block], diagonal, sums[block], zeros);
        }
#pragma unroll
        for (uint step = 0; step < KEY_BLOCKS; step++) {
            simdgroup_float8x8 weight, value;
            simdgroup_load(weight, weights + step * 8, KEYS);
#pragma unroll
            for (uint block = 0; block < VALUE_BLOCKS; block++) {
                simdgroup_load(value, room + step * 8 * VALUE_DIM + block * 8, VALUE_DIM);
                simdgroup_multiply_accumulate(sums[block], weight, value, sums[block]);
            }
        }
    }

    total += simd_shuffle_xor(total, 1);
    total += simd_shuffle_xor(total, 2);
    if (SINKS) {
        // The sink may be far above all scores.
        const float sink = sinks[first_head + row % HEADS_EACH], above = max(sink, maximum);
        const float keep = exp(maximum - above);
        total = (total * keep + exp(sink - above)) / keep;
    }
    const ulong head = ulong(row / HEADS_EACH) * problem.heads + first_head + row % HEADS_EACH;
#pragma unroll
    for (uint block = 0; block < VALUE_BLOCKS; block++) {
        simdgroup_barrier(mem_flags::mem_threadgroup);
        simdgroup_store(sums[block], small, 8);
        simdgroup_barrier(mem_flags::mem_threadgroup);
#pragma unroll
        for (uint i = 0; i < 2; i++)
            if (row < tile_rows)
                output[head * VALUE_DIM + block * 8 + lane % 4 * 2 + i] = narrow<value_t>(small[lane / 4 * 8 + lane % 4 * 2 + i] / total);
    }
}
