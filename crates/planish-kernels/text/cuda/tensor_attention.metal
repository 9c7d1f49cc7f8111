// Causal attention of many query rows of one sequence on CUDA's tensor cores: output = softmax(scale * q k^T) v over the positions up to the row's
// own, or the last `window` of them, with an online softmax (Dao, 2023). Query heads that share keys are rows of one product: tile
// row r is query row r / HEADS_EACH of the r % HEADS_EACH-th of them. A threadgroup takes ROWS tile rows of one key-value head, a
// warp 16; keys and values come KEYS positions at a time, the next while these are used. Scores and sums are f32, the weights of
// values are rounded to their type. Where PARTS is not 1 the positions are split, and `attention_merge` follows.
// Grid: (tile rows / ROWS, kv_heads, PARTS), rounded up.
// Defines: THREADS, VALUE (1 or 2), HEAD_DIM and VALUE_DIM (multiples of 16), HEADS_EACH, KEYS (16, 32 or 64: of one block), PARTS, WINDOW,
// SOFTCAP, ALIBI, SINKS.

#define ROWS (THREADS / 2)               // 16 a warp
#define KEY_STRIDE (HEAD_DIM + 8)        // in threadgroup memory: away from bank conflicts
#define VALUE_STRIDE (VALUE_DIM + 8)
#define STAGE (KEYS * (KEY_STRIDE + VALUE_STRIDE))
#define KEY_STEPS (HEAD_DIM / 16)
#define BLOCKS (KEYS / 8)
#define VALUE_BLOCKS (VALUE_DIM / 8)
#define HELD (HEAD_DIM <= 128)           // queries stay in registers, and the second stage takes their room
#define QUERY_ROOM (ROWS * KEY_STRIDE)
#define ROOM (STAGE + (HELD ? (STAGE > QUERY_ROOM ? STAGE : QUERY_ROOM) : STAGE + QUERY_ROOM))
#define PARTIAL_SIZE (VALUE_DIM + 2)     // weighted values, maximum, total
#define BITS_OF_E 1.44269504f            // log2(e)

#if VALUE == 1
#define tensor_multiply tensor_multiply_f16
#define pack_values pack_f16
#else
#define tensor_multiply tensor_multiply_bf16
#define pack_values pack_bf16
#endif

struct TensorAttentionProblem {
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

// Before the factor that `score_factor` gives.
inline float adjust_score(float score, TensorAttentionProblem problem, float slope, uint position) {
    if (SOFTCAP || ALIBI)
        score *= problem.scale;
    if (SOFTCAP)
        score = problem.softcap * tanh(score / problem.softcap);
    if (ALIBI == 1) // rounded
        score += problem.alibi_factor * round_bf16(slope * round_bf16(float(position)));
    if (ALIBI == 2)
        score += problem.alibi_factor * (slope * float(position));
    return score;
}

// What adjusted scores are multiplied with on their way to powers of e.
inline float score_factor(TensorAttentionProblem problem) { return SOFTCAP || ALIBI ? 1.0f : problem.scale; }

// Brings KEYS positions of one head, which lie in one block; those from `end` on are zeros. `stored`: row of the first.
template <uint DIM, uint STRIDE>
inline void fetch_positions(device const value_t* from, uint kv_heads, uint stored, uint first, uint end, threadgroup value_t* to,
                            uint thread_number) {
#pragma unroll
    for (uint piece = thread_number; piece < KEYS * (DIM / 8); piece += THREADS) {
        const uint key = piece / (DIM / 8), col = piece % (DIM / 8) * 8;
        const bool exists = first + key < end;
        device const value_t* value = from + ulong(exists ? stored + key : 0) * kv_heads * DIM + col;
        copy_async((threadgroup uint4*)(to + key * STRIDE + col), (device const uint4*)value, exists);
    }
}

// The words of a (16, 16) tile of queries.
inline void load_queries(threadgroup const value_t* rows, uint step, uint lane, thread uint (&words)[4]) {
    load_matrices(rows + lane % 16 * KEY_STRIDE + step * 16 + lane / 16 * 8, words);
}

KERNEL(tensor_attention)(
    device const value_t* queries [[buffer(0)]], // (rows, heads, HEAD_DIM)
    device const value_t* keys [[buffer(1)]],    // (blocks, BLOCK, kv_heads, HEAD_DIM)
    device const value_t* values [[buffer(2)]],  // (blocks, BLOCK, kv_heads, VALUE_DIM)
    device const float* sinks [[buffer(3)]],     // (heads)
    device const float* slopes [[buffer(4)]],    // (heads)
    device const uint4* places [[buffer(5)]],    // (rows)
    device const uint* tables [[buffer(6)]],     // (slots, stride)
    device float* partials [[buffer(7)]],        // (rows, heads, PARTS, PARTIAL_SIZE)
    device value_t* output [[buffer(8)]],        // (rows, heads, VALUE_DIM)
    PROBLEM(TensorAttentionProblem, 9))
{
    SHARED_LARGE(value_t, stages, ROOM);
    wait_for_previous();
    const uint lane = lane_index, kv_head = group_position.y, first_head = kv_head * HEADS_EACH;
    const uint first_row = (group_count.x - 1 - group_position.x) * ROWS; // the longest first
    const uint tile_rows = problem.rows * HEADS_EACH, last_row = min(first_row + ROWS, tile_rows) - 1;

    // The positions of this part, from the beginning of a tile: `nearest` is the end of what the first row sees.
    const uint4 place = places[problem.first_row];
    device const uint* blocks = tables + place.w;
    const uint nearest = place.y + first_row / HEADS_EACH + 1;
    const uint end = place.y + last_row / HEADS_EACH + 1;
    const uint begin = WINDOW && nearest > problem.window ? (nearest - problem.window) / KEYS * KEYS : 0;
    const uint part_size = ((end - begin + KEYS - 1) / KEYS + PARTS - 1) / PARTS * KEYS;
    const uint part_begin = min(begin + group_position.z * part_size, end), part_end = min(part_begin + part_size, end);

    threadgroup value_t* room = stages + (HELD ? STAGE : 2 * STAGE); // of the queries
    keys += kv_head * HEAD_DIM, values += kv_head * VALUE_DIM;
#pragma unroll
    for (uint piece = thread_index; piece < ROWS * (HEAD_DIM / 8); piece += THREADS) {
        const uint row = first_row + piece / (HEAD_DIM / 8), col = piece % (HEAD_DIM / 8) * 8;
        const bool exists = row < tile_rows;
        const uint query = problem.first_row + (exists ? row / HEADS_EACH : 0);
        const ulong head = ulong(query) * problem.heads + first_head + (exists ? row % HEADS_EACH : 0);
        copy_async((threadgroup uint4*)(room + piece / (HEAD_DIM / 8) * KEY_STRIDE + col),
                   (device const uint4*)(queries + head * HEAD_DIM + col), exists);
    }
    const uint stored = stored_row(blocks, min(part_begin, end - 1));
    fetch_positions<HEAD_DIM, KEY_STRIDE>(keys, problem.kv_heads, stored, part_begin, part_end, stages, thread_index);
    fetch_positions<VALUE_DIM, VALUE_STRIDE>(values, problem.kv_heads, stored, part_begin, part_end, stages + KEYS * KEY_STRIDE,
                                             thread_index);
    copy_async_commit();
    copy_async_wait();
    threadgroup_barrier(mem_flags::mem_threadgroup);

    threadgroup const value_t* my_queries = room + simdgroup_index * 16 * KEY_STRIDE;
    uint held[HELD ? KEY_STEPS : 1][4];
    if (HELD) {
#pragma unroll
        for (uint step = 0; step < KEY_STEPS; step++)
            load_queries(my_queries, step, lane, held[HELD ? step : 0]);
    }

    // This lane's rows: g and g + 8 of its warp's 16.
    uint ends[2];
    float slope[2], sink[2], maximum[2], total[2], sums[VALUE_BLOCKS][4];
#pragma unroll
    for (uint i = 0; i < 2; i++) {
        const uint row = first_row + simdgroup_index * 16 + lane / 4 + 8 * i;
        ends[i] = place.y + row / HEADS_EACH + 1;
        slope[i] = ALIBI ? slopes[first_head + row % HEADS_EACH] : 0.0f;
        sink[i] = SINKS ? sinks[first_head + row % HEADS_EACH] : 0.0f;
        maximum[i] = -INFINITY, total[i] = 0;
    }
#pragma unroll
    for (uint block = 0; block < VALUE_BLOCKS; block++)
#pragma unroll
        for (uint i = 0; i < 4; i++)
            sums[block][i] = 0;

    const float factor = score_factor(problem) * BITS_OF_E;
    uint stage = 0;
    for (uint first = part_begin; first < part_end; first += KEYS, stage ^= 1) {
        threadgroup const value_t* key_rows = stages + stage * STAGE;
        threadgroup const value_t* value_rows = key_rows + KEYS * KEY_STRIDE;
        copy_async_wait();
        threadgroup_barrier(mem_flags::mem_threadgroup);
        if (first + KEYS < part_end) {
            threadgroup value_t* next = stages + (stage ^ 1) * STAGE;
            const uint from = stored_row(blocks, first + KEYS);
            fetch_positions<HEAD_DIM, KEY_STRIDE>(keys, problem.kv_heads, from, first + KEYS, part_end, next, thread_index);
            fetch_positions<VALUE_DIM, VALUE_STRIDE>(values, problem.kv_heads, from, first + KEYS, part_end, next + KEYS * KEY_STRIDE,
                                                     thread_index);
            copy_async_commit();
        }

        float scores[BLOCKS][4];
#pragma unroll
        for (uint block = 0; block < BLOCKS; block++)
#pragma unroll
            for (uint i = 0; i < 4; i++)
                scores[block][i] = 0;
#pragma unroll
        for (uint step = 0; step < KEY_STEPS; step++) {
            uint query[4];
            if (HELD) {
#pragma unroll
                for (uint i = 0; i < 4; i++)
                    query[i] = held[HELD ? step : 0][i];
            } else {
                load_queries(my_queries, step, lane, query);
            }
#pragma unroll
            for (uint block = 0; block < BLOCKS; block += 2) {
                uint words[4];
                load_matrices(key_rows + (block * 8 + lane / 16 * 8 + lane % 8) * KEY_STRIDE + step * 16 + lane / 8 % 2 * 8, words);
                const uint low[2] = {words[0], words[1]}, high[2] = {words[2], words[3]};
                tensor_multiply(scores[block], query, low);
                tensor_multiply(scores[block + 1], query, high);
            }
        }

        if (SOFTCAP || ALIBI) {
#pragma unroll
            for (uint block = 0; block < BLOCKS; block++)
#pragma unroll
                for (uint i = 0; i < 4; i++)
                    scores[block][i] = adjust_score(scores[block][i], problem, slope[i / 2], first + block * 8 + lane % 4 * 2 + i % 2);
        }
        // Only tiles at an edge hold what some row does not see.
        if (first + KEYS > nearest || (WINDOW && first + problem.window < end)) {
#pragma unroll
            for (uint block = 0; block < BLOCKS; block++)
#pragma unroll
                for (uint i = 0; i < 4; i++) {
                    const uint position = first + block * 8 + lane % 4 * 2 + i % 2;
                    if (position >= ends[i / 2] || (WINDOW && position + problem.window < ends[i / 2]))
                        scores[block][i] = -INFINITY;
                }
        }

#pragma unroll
        for (uint i = 0; i < 2; i++) {
            float highest = maximum[i];
#pragma unroll
            for (uint block = 0; block < BLOCKS; block++)
                highest = max(highest, max(scores[block][2 * i], scores[block][2 * i + 1]));
            highest = max(highest, simd_shuffle_xor(highest, 1));
            highest = max(highest, simd_shuffle_xor(highest, 2));
            // A row may have seen nothing yet.
            const float base = highest == -INFINITY ? 0.0f : highest * factor;
            const float keep = fast_exp2(fma(maximum[i], factor, -base));
            maximum[i] = highest;
            total[i] *= keep;
#pragma unroll
            for (uint block = 0; block < BLOCKS; block++)
#pragma unroll
                for (uint j = 2 * i; j < 2 * i + 2; j++) {
                    scores[block][j] = fast_exp2(fma(scores[block][j], factor, -base));
                    total[i] += scores[block][j];
                }
#pragma unroll
            for (uint block = 0; block < VALUE_BLOCKS; block++)
                sums[block][2 * i] *= keep, sums[block][2 * i + 1] *= keep;
        }

#pragma unroll
        for (uint step = 0; step < KEYS / 16; step++) {
            uint weights[4];
#pragma unroll
            for (uint i = 0; i < 4; i++)
                weights[i] = pack_values(scores[2 * step + i / 2][i % 2 * 2], scores[2 * step + i / 2][i % 2 * 2 + 1]);
#pragma unroll
            for (uint block = 0; block < VALUE_BLOCKS; block += 2) {
                uint words[4];
                load_matrices_transposed(value_rows + (step * 16 + lane % 16) * VALUE_STRIDE + block * 8 + lane / 16 * 8, words);
                const uint low[2] = {words[0], words[1]}, high[2] = {words[2], words[3]};
                tensor_multiply(sums[block], weights, low);
                tensor_multiply(sums[block + 1], weights, high);
            }
        }
    }

#pragma unroll
    for (uint i = 0; i < 2; i++) {
        const uint row = first_row + simdgroup_index * 16 + lane / 4 + 8 * i;
        total[i] += simd_shuffle_xor(total[i], 1);
        total[i] += simd_shuffle_xor(total[i], 2);
        if (row >= tile_rows)
            continue;
        const ulong head = ulong(row / HEADS_EACH) * problem.heads + first_head + row % HEADS_EACH;
        const float highest = maximum[i] * score_factor(problem);
        if (PARTS == 1) {
            // The sink may be far above all scores.
            const float above = SINKS ? max(sink[i], highest) : highest;
            const float keep = SINKS ? exp(highest - above) : 1.0f;
            const float scale = keep / (total[i] * keep + (SINKS ? exp(sink[i] - above) : 0.0f));
            device uint* to = (device uint*)(output + (ulong(problem.first_row) * problem.heads + head) * VALUE_DIM) + lane % 4;
#pragma unroll
            for (uint block = 0; block < VALUE_BLOCKS; block++)
                to[block * 4] = pack_values(sums[block][2 * i] * scale, sums[block][2 * i + 1] * scale);
        } else {
            device float* to = partials + (head * PARTS + group_position.z) * PARTIAL_SIZE;
#pragma unroll
            for (uint block = 0; block < VALUE_BLOCKS; block++) {
                to[block * 8 + lane % 4 * 2] = sums[block][2 * i];
                to[block * 8 + lane % 4 * 2 + 1] = sums[block][2 * i + 1];
            }
            if (lane % 4 == 0)
                to[VALUE_DIM] = highest, to[VALUE_DIM + 1] = total[i];
        }
    }
}
