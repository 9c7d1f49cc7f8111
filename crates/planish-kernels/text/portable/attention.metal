// Causal attention of query rows of any sequences, split over the positions: output = softmax(scale * q k^T) v over the positions of
// its sequence up to the row's own, or the last `window` of them. A threadgroup takes one row, HEADS_EACH heads that share their keys,
// and one part of the positions; how many parts a row has depends on its own length and the number of rows. LANES lanes read one position, 8 neighbouring values each at a time; a simdgroup takes POSITIONS_EACH positions for
// each such group of lanes at once. Scores and sums are f32 (online softmax).
// Grids: attention (rows, heads / HEADS_EACH, parts); attention_merge (rows, heads, 1), which only follows where rows are SPLIT.
// Defines: THREADS, THREADGROUPS, VALUE, CACHE, HEAD_DIM, VALUE_DIM, HEADS_EACH, SPLIT, PART, MOST_PARTS, WINDOW, SOFTCAP, ALIBI, SINKS,
// TEMPERATURE_TUNING, LANES (a power of two).

typedef TYPE_OF(CACHE) cache_t;

#define SIMDGROUPS (THREADS / 32)
#define GROUPS (32 / LANES)                                // positions beside each other
#define KEY_EACH ((HEAD_DIM + 8 * LANES - 1) / (8 * LANES)) // eights of a lane
#define VALUE_EACH ((VALUE_DIM + 8 * LANES - 1) / (8 * LANES))
#define POSITIONS_EACH 2                                    // scored together, so that reads overlap
#define STEP (GROUPS * POSITIONS_EACH)                      // positions of a simdgroup
#define PARTIAL_SIZE (VALUE_DIM + 2)                        // weighted values, maximum, total

struct AttentionProblem {
    uint heads;
    uint kv_heads;
    uint first_row;
    uint parts;      // that there is room for
    uint most_parts; // enough for the device, unless they are longer than `long_part`; 0: all rows have `parts`
    uint long_part;
    uint window;
    float scale;
    float softcap;
    float alibi_factor;
    float tuning_rate; // of the scale
    uint tuning_period;
};

struct Softmax {
    float maximum;
    float total;
    float values[VALUE_EACH][8];
};

inline float round_bf16(float value) { return widen(narrow<bf16>(value)); }

// First and end of the positions that a row sees.
inline uint2 seen_positions(uint position, uint window) {
    uint2 seen;
    seen.y = position + 1, seen.x = WINDOW && seen.y > window ? seen.y - window : 0;
    return seen;
}

// Parts of a row: powers of two that depend on what it sees, not on other rows.
inline uint parts_of(uint2 seen, AttentionProblem problem) {
    const uint count = seen.y - seen.x;
    if (!SPLIT || problem.most_parts == 0)
        return problem.parts;
    uint parts = 1;
    // To join two parts takes longer than to read them one after another.
    if (count > 2 * PART)
        while (parts < MOST_PARTS && parts * PART < count && (parts < problem.most_parts || parts * problem.long_part < count))
            parts *= 2;
    return parts;
}

// What one score becomes before the softmax.
inline float adjust_score(float score, AttentionProblem problem, float scale, float slope, uint position) {
    score *= scale;
    if (SOFTCAP)
        score = problem.softcap * tanh(score / problem.softcap);
    if (ALIBI == 1) // rounded
        score += problem.alibi_factor * round_bf16(slope * round_bf16(float(position)));
    if (ALIBI == 2)
        score += problem.alibi_factor * (slope * float(position));
    return score;
}

// A lane's eights of a vector of DIM values; zeros past its end.
template <uint DIM, uint EACH, typename T>
inline void load_lane(device const T* from, uint lane, thread float (&to)[EACH][8]) {
#pragma unroll
    for (uint e = 0; e < EACH; e++) {
        const uint at = (lane + e * LANES) * 8;
        if (DIM % 8 == 0 && at < DIM)
            load8(from + at, to[e]);
        else
            load8_partial(from + at, at < DIM ? DIM - at : 0, to[e]);
    }
}

// The weight of what had this maximum under a new one.
inline float weight_of(float maximum, float under) { return maximum == -INFINITY ? 0.0f : exp(maximum - under); }

// Takes up scores with their values; a score of -INFINITY is of no position.
inline void take_up(thread Softmax& softmax, thread const float (&scores)[POSITIONS_EACH],
                    thread const float (&values)[POSITIONS_EACH][VALUE_EACH][8]) {
    float maximum = softmax.maximum;
#pragma unroll
    for (uint p = 0; p < POSITIONS_EACH; p++)
        maximum = max(maximum, scores[p]);
    const float keep = weight_of(softmax.maximum, maximum);
    softmax.maximum = maximum;
    softmax.total *= keep;
#pragma unroll
    for (uint e = 0; e < VALUE_EACH; e++)
#pragma unroll
        for (uint i = 0; i < 8; i++)
            softmax.values[e][i] *= keep;
#pragma unroll
    for (uint p = 0; p < POSITIONS_EACH; p++) {
        const float weight = weight_of(scores[p], maximum);
        softmax.total += weight;
#pragma unroll
        for (uint e = 0; e < VALUE_EACH; e++)
#pragma unroll
            for (uint i = 0; i < 8; i++)
                softmax.values[e][i] = fma(weight, values[p][e][i], softmax.values[e][i]);
    }
}

// Joins the groups of lanes of a simdgroup.
inline void join_groups(thread Softmax& softmax) {
#pragma unroll
    for (ushort mask = 16; mask >= LANES; mask /= 2) {
        const float other = simd_shuffle_xor(softmax.maximum, mask), maximum = max(softmax.maximum, other);
        const float mine = weight_of(softmax.maximum, maximum), others = weight_of(other, maximum);
        softmax.maximum = maximum;
        softmax.total = fma(mine, softmax.total, others * simd_shuffle_xor(softmax.total, mask));
#pragma unroll
        for (uint e = 0; e < VALUE_EACH; e++)
#pragma unroll
            for (uint i = 0; i < 8; i++)
                softmax.values[e][i] =
                    fma(mine, softmax.values[e][i], others * simd_shuffle_xor(softmax.values[e][i], mask));
    }
}

KERNEL(attention)(
    device const value_t* queries [[buffer(0)]], // (rows, heads, HEAD_DIM)
    device const cache_t* keys [[buffer(1)]],    // (blocks, BLOCK, kv_heads, HEAD_DIM)
    device const cache_t* values [[buffer(2)]],  // (blocks, BLOCK, kv_heads, VALUE_DIM)
    device const float* sinks [[buffer(3)]],     // (heads)
    device const float* slopes [[buffer(4)]],    // (heads)
    device const uint4* places [[buffer(5)]],    // (rows)
    device const uint* tables [[buffer(6)]],     // (slots, stride)
    device float* partials [[buffer(7)]],        // (rows, heads, parts, PARTIAL_SIZE)
    device value_t* output [[buffer(8)]],        // (rows, heads, VALUE_DIM)
    PROBLEM(AttentionProblem, 9))
{
    SHARED(float, room, SIMDGROUPS * HEADS_EACH * PARTIAL_SIZE);
    launch_dependents();
    wait_for_previous();
    const uint lane = lane_index % LANES, group = lane_index / LANES;
    const uint row = problem.first_row + group_position.x, first_head = group_position.y * HEADS_EACH;
    const uint kv_head = first_head / (problem.heads / problem.kv_heads);

    // The positions of this part.
    const uint4 place = places[row];
    const uint2 seen = seen_positions(place.y, problem.window);
    const uint parts = parts_of(seen, problem);
    if (group_position.z >= parts)
        return; // the whole threadgroup
    const uint part_size = (seen.y - seen.x + parts - 1) / parts;
    const uint part_begin = seen.x + group_position.z * part_size, part_end = min(part_begin + part_size, seen.y);
    device const uint* blocks = tables + place.w;
    const float scale = TEMPERATURE_TUNING
        ? problem.scale * (1.0f + problem.tuning_rate * log(1.0f + float(place.y / problem.tuning_period))) : problem.scale;

    float query[HEADS_EACH][KEY_EACH][8];
    Softmax softmax[HEADS_EACH];
#pragma unroll
    for (uint h = 0; h < HEADS_EACH; h++) {
        load_lane<HEAD_DIM, KEY_EACH>(queries + (ulong(row) * problem.heads + first_head + h) * HEAD_DIM, lane, query[h]);
        softmax[h].maximum = -INFINITY;
        softmax[h].total = 0;
#pragma unroll
        for (uint e = 0; e < VALUE_EACH; e++)
#pragma unroll
            for (uint i = 0; i < 8; i++)
                softmax[h].values[e][i] = 0;
    }

    uint first = part_begin + simdgroup_index * STEP, stored[POSITIONS_EACH];
#pragma unroll
    for (uint p = 0; p < POSITIONS_EACH; p++)
        stored[p] = stored_row(blocks, min(first + p * GROUPS + group, part_end - 1));
    for (; first < part_end; first += SIMDGROUPS * STEP) {
        float key[POSITIONS_EACH][KEY_EACH][8], value[POSITIONS_EACH][VALUE_EACH][8];
#pragma unroll
        for (uint p = 0; p < POSITIONS_EACH; p++) {
            const ulong from = ulong(stored[p]) * problem.kv_heads + kv_head;
            load_lane<HEAD_DIM, KEY_EACH>(keys + from * HEAD_DIM, lane, key[p]);
            load_lane<VALUE_DIM, VALUE_EACH>(values + from * VALUE_DIM, lane, value[p]);
        }
        // Where the next ones lie is known by then.
#pragma unroll
        for (uint p = 0; p < POSITIONS_EACH; p++)
            stored[p] = stored_row(blocks, min(first + SIMDGROUPS * STEP + p * GROUPS + group, part_end - 1));
#pragma unroll
        for (uint h = 0; h < HEADS_EACH; h++) {
            const float slope = ALIBI ? slopes[first_head + h] : 0.0f;
            float scores[POSITIONS_EACH];
#pragma unroll
            for (uint p = 0; p < POSITIONS_EACH; p++) {
                float dot = 0;
#pragma unroll
                for (uint e = 0; e < KEY_EACH; e++)
#pragma unroll
                    for (uint i = 0; i < 8; i++)
                        dot = fma(query[h][e][i], key[p][e][i], dot);
#pragma unroll
                for (ushort mask = LANES / 2; mask; mask /= 2)
                    dot += simd_shuffle_xor(dot, mask);
                const uint position = first + p * GROUPS + group;
                scores[p] = position < part_end ? adjust_score(dot, problem, scale, slope, position) : -INFINITY;
            }
            take_up(softmax[h], scores, value);
        }
    }

#pragma unroll
    for (uint h = 0; h < HEADS_EACH; h++) {
        join_groups(softmax[h]);
        threadgroup float* mine = room + (simdgroup_index * HEADS_EACH + h) * PARTIAL_SIZE;
#pragma unroll
        for (uint e = 0; e < VALUE_EACH; e++)
#pragma unroll
            for (uint i = 0; i < 8; i++) {
                const uint at = (lane + e * LANES) * 8 + i;
                if (group == 0 && at < VALUE_DIM)
                    mine[at] = softmax[h].values[e][i];
            }
        if (lane_index == 0) {
            mine[VALUE_DIM] = softmax[h].maximum;
            mine[VALUE_DIM + 1] = softmax[h].total;
        }
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);

    // One value of one head a thread, over the simdgroups.
    for (uint index = thread_index; index < HEADS_EACH * VALUE_DIM; index += THREADS) {
        const uint h = index / VALUE_DIM, i = index % VALUE_DIM;
        float maximum = parts == 1 && SINKS ? sinks[first_head + h] : -INFINITY;
        for (uint s = 0; s < SIMDGROUPS; s++)
            maximum = max(maximum, room[(s * HEADS_EACH + h) * PARTIAL_SIZE + VALUE_DIM]);
        float total = parts == 1 && SINKS ? exp(sinks[first_head + h] - maximum) : 0.0f, sum = 0;
        for (uint s = 0; s < SIMDGROUPS; s++) {
            threadgroup const float* partial = room + (s * HEADS_EACH + h) * PARTIAL_SIZE;
            if (partial[VALUE_DIM + 1] > 0.0f) {
                const float weight = exp(partial[VALUE_DIM] - maximum);
                total = fma(weight, partial[VALUE_DIM + 1], total);
                sum = fma(weight, partial[i], sum);
            }
        }
        if (parts == 1) {
            output[(ulong(row) * problem.heads + first_head + h) * VALUE_DIM + i] = narrow<value_t>(sum / total);
        } else {
            const ulong head = ulong(group_position.x) * problem.heads + first_head + h;
            device float* partial = partials + (head * problem.parts + group_position.z) * PARTIAL_SIZE;
            partial[i] = sum;
            if (i == 0) {
                partial[VALUE_DIM] = maximum;
                partial[VALUE_DIM + 1] = total;
            }
        }
    }
}

KERNEL(attention_merge)(
    device const float* sinks [[buffer(0)]],    // (heads)
    device const uint4* places [[buffer(1)]],   // (rows)
    device const float* partials [[buffer(2)]], // (rows, heads, parts, PARTIAL_SIZE)
    device value_t* output [[buffer(3)]],       // (rows, heads, VALUE_DIM)
    PROBLEM(AttentionProblem, 4))
{
    launch_dependents();
    wait_for_previous();
    const uint row = problem.first_row + group_position.x;
    const uint count = parts_of(seen_positions(places[row].y, problem.window), problem);
    if (count == 1)
        return; // done already
    const ulong head = ulong(group_position.x) * problem.heads + group_position.y;
    device const float* parts = partials + head * problem.parts * PARTIAL_SIZE;
    device value_t* to = output + (ulong(row) * problem.heads + group_position.y) * VALUE_DIM;
    // A lane weighs one part, of MOST_PARTS = 32 at most; all lanes then take turns with it.
    const float sink = SINKS ? sinks[group_position.y] : -INFINITY;
    const float own = lane_index < count ? parts[lane_index * PARTIAL_SIZE + VALUE_DIM] : -INFINITY;
    const float maximum = max(simd_max(own), sink);
    const float weight = weight_of(own, maximum);
    float total = lane_index < count ? weight * parts[lane_index * PARTIAL_SIZE + VALUE_DIM + 1] : 0.0f;
    total = simd_sum(total) + (SINKS ? exp(sink - maximum) : 0.0f);
    for (uint first = 0; first < VALUE_DIM; first += THREADS) {
        const uint i = min(first + thread_index, uint(VALUE_DIM - 1));
        float sum = 0;
        // Reads of several parts overlap; lanes past the last part weigh nothing.
        for (uint p = 0; p < count; p += 4) {
            float values[4];
#pragma unroll
            for (uint k = 0; k < 4; k++)
                values[k] = parts[min(p + k, count - 1) * PARTIAL_SIZE + i];
#pragma unroll
            for (uint k = 0; k < 4; k++)
                sum = fma(simd_shuffle(weight, ushort(p + k)), values[k], sum);
        }
        if (first + thread_index < VALUE_DIM)
            to[i] = narrow<value_t>(sum / total);
    }
}
