// Routing: which experts compute a row and with what weights, from a router's logits (formulas: planish-cpu's `route`), and the
// choices of all rows sorted by expert, in tiles that a product takes. An entry is one choice of one row: row * CHOSEN + choice.
// Grids: route (rows / simdgroups rounded up, 1, 1), a simdgroup a row; sort_entries (EXPERTS, 1, 1), a threadgroup an expert.
// Defines: THREADS, VALUE (of the logits), EXPERTS, CHOSEN, SCORING (0 softmax, 1 sigmoid, 2 SparseMixer), CORRECTED, NORMALIZED,
// GROUPS (0: any expert can be chosen), TILE (entries of a tile).

struct RouteProblem {
    uint rows;
    uint kept;    // groups that experts are chosen from
    uint best;    // a group is as good as the sum of so many of its scores
    float least;  // NORMALIZED: the divisor at least
    float scale;  // of the weights
    float jitter; // of SparseMixer
};
struct SortProblem {
    uint entries;
};

#define SIMDGROUPS (THREADS / 32)

// The index of the largest value, the first of equals, for all lanes.
inline uint best_index(threadgroup const float* values, uint count, uint lane) {
    float largest = -INFINITY;
    for (uint i = lane; i < count; i += 32)
        largest = max(largest, values[i]);
    largest = simd_max(largest);
    float first = float(count); // indices are exact in f32
    for (uint i = lane; i < count; i += 32)
        if (values[i] == largest)
            first = min(first, float(i));
    return min(uint(simd_min(first)), count - 1);
}

// The same, and the value is out of the race.
inline uint take_best(threadgroup float* values, uint count, uint lane) {
    const uint best = best_index(values, count, lane);
    simdgroup_barrier(mem_flags::mem_threadgroup);
    if (lane == 0)
        values[best] = -INFINITY;
    simdgroup_barrier(mem_flags::mem_threadgroup);
    return best;
}

inline float largest_of(threadgroup const float* values, uint lane) {
    float largest = -INFINITY;
    for (uint i = lane; i < EXPERTS; i += 32)
        largest = max(largest, values[i]);
    return simd_max(largest);
}

inline void softmax(threadgroup float* values, uint lane) {
    const float largest = largest_of(values, lane);
    float sum = 0;
    for (uint i = lane; i < EXPERTS; i += 32) {
        values[i] = exp(values[i] - largest);
        sum += values[i];
    }
    sum = simd_sum(sum);
    for (uint i = lane; i < EXPERTS; i += 32)
        values[i] = values[i] / sum;
}

#if GROUPS
#define GROUP_SIZE (EXPERTS / GROUPS)

// The sum of the `best` largest of a group: each is the largest among those after the one before, in the order of (value, index).
inline float goodness(threadgroup const float* group, uint best) {
    float sum = 0, bound = INFINITY;
    uint bound_index = 0;
    for (uint turn = 0; turn < min(best, uint(GROUP_SIZE)); turn++) {
        float largest = -INFINITY;
        uint index = GROUP_SIZE;
        for (uint i = 0; i < GROUP_SIZE; i++) {
            const float value = group[i];
            const bool after = turn == 0 || value < bound || (value == bound && i > bound_index);
            if (after && (index == GROUP_SIZE || value > largest))
                largest = value, index = i;
        }
        sum += largest;
        bound = largest, bound_index = index;
    }
    return sum;
}

// Takes the experts of all but the best groups out of the race. `groups` (GROUPS) is scratch.
inline void keep_groups(threadgroup float* candidates, threadgroup float* groups, uint kept, uint best, uint lane) {
    for (uint group = lane; group < GROUPS; group += 32)
        groups[group] = goodness(candidates + group * GROUP_SIZE, best);
    simdgroup_barrier(mem_flags::mem_threadgroup);
    for (uint turn = 0; turn < kept; turn++)
        take_best(groups, GROUPS, lane);
    // Taken groups are -infinity now: the experts of all others leave the race.
    for (uint i = lane; i < EXPERTS; i += 32)
        if (groups[i / GROUP_SIZE] != -INFINITY)
            candidates[i] = -INFINITY;
    simdgroup_barrier(mem_flags::mem_threadgroup);
}
#endif

// SparseMixer's weight of the best of what is left.
inline float sparse_weight(threadgroup const float* logits, float jitter, uint lane) {
    const float largest = largest_of(logits, lane);
    float sum = 0;
    for (uint i = lane; i < EXPERTS; i += 32) // not a number, for those chosen before, is not near
        if ((largest - logits[i]) / max(fabs(logits[i]), largest) <= 2.0f * jitter)
            sum += exp(logits[i] - largest);
    return 1.0f / simd_sum(sum);
}

KERNEL(route)(
    device const value_t* logits [[buffer(0)]],   // (rows, EXPERTS)
    device const float* correction [[buffer(1)]], // (EXPERTS)
    device uint* experts [[buffer(2)]],           // (rows, CHOSEN)
    device float* weights [[buffer(3)]],          // (rows, CHOSEN)
    PROBLEM(RouteProblem, 4))
{
    SHARED(float, all_scores, SIMDGROUPS * EXPERTS);
    SHARED(float, all_candidates, SIMDGROUPS * EXPERTS);
    SHARED(float, all_groups, SIMDGROUPS * (GROUPS + 1));
    SHARED(float, all_weights, SIMDGROUPS * CHOSEN);
    const uint row = group_position.x * SIMDGROUPS + simdgroup_index, lane = lane_index;
    const bool exists = row < problem.rows;
    threadgroup float* scores = all_scores + simdgroup_index * EXPERTS;
    threadgroup float* candidates = all_candidates + simdgroup_index * EXPERTS;
    threadgroup float* found = all_weights + simdgroup_index * CHOSEN;
    device const value_t* row_logits = logits + ulong(exists ? row : 0) * EXPERTS;
    for (uint i = lane; i < EXPERTS; i += 32)
        scores[i] = widen(row_logits[i]);
#if SCORING == 0
    softmax(scores, lane);
#elif SCORING == 1
    for (uint i = lane; i < EXPERTS; i += 32)
        scores[i] = 1.0f / (1.0f + exp(-scores[i]));
#endif
    for (uint i = lane; i < EXPERTS; i += 32)
        candidates[i] = CORRECTED ? scores[i] + correction[i] : scores[i];
    simdgroup_barrier(mem_flags::mem_threadgroup);
#if GROUPS
    keep_groups(candidates, all_groups + simdgroup_index * (GROUPS + 1), problem.kept, problem.best, lane);
#endif
    float sum = 0;
    for (uint choice = 0; choice < CHOSEN; choice++) {
        float weight = 0;
        if (SCORING == 2)
            weight = sparse_weight(candidates, problem.jitter, lane);
        const uint best = take_best(candidates, EXPERTS, lane);
        if (SCORING != 2)
            weight = scores[best];
        sum += weight;
        if (lane == 0) {
            found[choice] = weight;
            if (exists)
                experts[row * CHOSEN + choice] = best;
        }
    }
    simdgroup_barrier(mem_flags::mem_threadgroup);
    const float factor = SCORING == 2 ? 1.0f : NORMALIZED ? problem.scale / max(sum, problem.least) : problem.scale;
    for (uint choice = lane; choice < CHOSEN; choice += 32)
        if (exists)
            weights[row * CHOSEN + choice] = found[choice] * factor;
}

KERNEL(sort_entries)(
    device const uint* experts [[buffer(0)]], // (entries)
    device uint* order [[buffer(1)]],         // (entries): entries by expert
    device uint* tiles [[buffer(2)]],         // (entries / TILE + EXPERTS, 3): expert, first place in `order`, entries (0: no tile)
    PROBLEM(SortProblem, 3))
{
    SHARED(uint, sums, SIMDGROUPS);
    SHARED(uint, smaller_sums, SIMDGROUPS);
    const uint expert = group_position.x, lane = lane_index, simdgroup = simdgroup_index;
    uint own = 0, smaller = 0; // entries of this expert, and of those before it
    for (uint i = thread_index; i < problem.entries; i += THREADS) {
        const uint other = experts[i];
        own += other == expert ? 1u : 0u;
        smaller += other < expert ? 1u : 0u;
    }
    uint up_to = own; // of this lane and those before it
    for (uint step = 1; step < 32; step *= 2) {
        const uint other = simd_shuffle(up_to, ushort(lane >= step ? lane - step : lane));
        up_to += lane >= step ? other : 0u;
    }
    for (ushort mask = 16; mask; mask /= 2)
        smaller += simd_shuffle_xor(smaller, mask);
    if (lane == 31)
        sums[simdgroup] = up_to, smaller_sums[simdgroup] = smaller;
    threadgroup_barrier(mem_flags::mem_threadgroup);
    uint first = 0, before = 0, total = 0;
    for (uint i = 0; i < SIMDGROUPS; i++) {
        first += smaller_sums[i];
        before += i < simdgroup ? sums[i] : 0u;
        total += sums[i];
    }
    uint place = first + before + up_to - own;
    for (uint i = thread_index; i < problem.entries; i += THREADS)
        if (experts[i] == expert)
            order[place++] = i;
    // An expert's tiles begin where those of the experts before it end at the latest, so that nobody need know how many there are.
    const uint begin = first / TILE + expert, end = (first + total) / TILE + expert + 1;
    for (uint tile = begin + thread_index; tile < end; tile += THREADS) {
        const uint done = (tile - begin) * TILE;
        tiles[3 * tile] = expert;
        tiles[3 * tile + 1] = first + done;
        tiles[3 * tile + 2] = total > done ? min(total - done, uint(TILE)) : 0u;
    }
}
