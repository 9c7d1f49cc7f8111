// Routing: which experts compute a row and with what weights, from a router's logits (formulas: planish-cpu's `route`), and the
// choices of all rows sorted by expert, in tiles that a product takes. An entry is one choice of one row: row * CHOSEN + choice.
// An expert's rank is the number of those before it, counted by a thread of its own: no choice waits for another (but SparseMixer's).
// Grids: route (rows, 1, 1), a threadgroup a row; sort_entries (EXPERTS, 1, 1), a threadgroup an expert.
// Defines: THREADS, VALUE (of the logits), EXPERTS, CHOSEN, SCORING (0 softmax, 1 sigmoid, 2 SparseMixer, 3 sigmoid of those chosen by logits), CORRECTED, NORMALIZED, FACTORS,
// GROUPS (0: any expert can be chosen), TILE (entries of a tile).

struct RouteProblem {
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

// How many values come before one: larger ones, and equal ones that stand before it.
inline uint rank_of(threadgroup const float* values, uint count, uint index) {
    const float value = values[index];
    uint before = 0;
    for (uint i = 0; i < count; i++)
        before += values[i] > value || (values[i] == value && i < index) ? 1u : 0u;
    return before;
}

#if GROUPS
#define GROUP_SIZE (EXPERTS / GROUPS)

// The sum of the `best` largest of a group: those of the lowest ranks.
inline float goodness(threadgroup const float* group, uint best) {
    float sum = 0;
    for (uint i = 0; i < GROUP_SIZE; i++)
        sum += rank_of(group, GROUP_SIZE, i) < best ? group[i] : 0.0f;
    return sum;
}
#endif

// SparseMixer: the best of what is left, the first of equals, is out of the race then; its weight is a softmax over what is near it.
// For one simdgroup.
inline void sparse_mixer(threadgroup float* logits, float jitter, threadgroup float* found, threadgroup uint* chosen, uint lane) {
    for (uint choice = 0; choice < CHOSEN; choice++) {
        float largest = -INFINITY;
        for (uint i = lane; i < EXPERTS; i += 32)
            largest = max(largest, logits[i]);
        largest = simd_max(largest);
        float sum = 0, first = float(EXPERTS - 1); // indices are exact in f32
        for (uint i = lane; i < EXPERTS; i += 32) {
            // Not a number, for those chosen before, is not near.
            if ((largest - logits[i]) / max(fabs(logits[i]), largest) <= 2.0f * jitter)
                sum += exp(logits[i] - largest);
            if (logits[i] == largest)
                first = min(first, float(i));
        }
        sum = simd_sum(sum);
        const uint best = uint(simd_min(first));
        simdgroup_barrier(mem_flags::mem_threadgroup);
        if (lane == 0)
            found[choice] = 1.0f / sum, chosen[choice] = best, logits[best] = -INFINITY;
        simdgroup_barrier(mem_flags::mem_threadgroup);
    }
}

KERNEL(route)(
    device const value_t* logits [[buffer(0)]],   // (rows, EXPERTS)
    device const float* score_correction [[buffer(1)]], // (EXPERTS)
    device uint* experts [[buffer(2)]],           // (rows, CHOSEN)
    device float* weights [[buffer(3)]],          // (rows, CHOSEN)
    device const float* expert_factors [[buffer(4)]], // (EXPERTS)
    PROBLEM(RouteProblem, 5))
{
    SHARED(float, scores, EXPERTS);
    SHARED(float, candidates, EXPERTS);
    SHARED(float, groups, GROUPS + 1);
    SHARED(float, found, CHOSEN);
    SHARED(uint, chosen, CHOSEN);
    SHARED(float, room, SIMDGROUPS);
    launch_dependents();
    wait_for_previous();
    device const value_t* row_logits = logits + ulong(group_position.x) * EXPERTS;
    float largest = -INFINITY, sum = 0;
    for (uint i = thread_index; i < EXPERTS; i += THREADS) {
        scores[i] = widen(row_logits[i]);
        largest = max(largest, scores[i]);
    }
    if (SCORING == 0)
        largest = threadgroup_max(largest, room, lane_index, simdgroup_index);
    for (uint i = thread_index; i < EXPERTS; i += THREADS) {
        if (SCORING == 0)
            scores[i] = exp(scores[i] - largest);
        if (SCORING == 1)
            scores[i] = 1.0f / (1.0f + exp(-scores[i]));
        sum += scores[i];
    }
    if (SCORING == 0)
        sum = threadgroup_sum(sum, room, lane_index, simdgroup_index);
    for (uint i = thread_index; i < EXPERTS; i += THREADS) {
        if (SCORING == 0)
            scores[i] = scores[i] / sum;
        const float candidate = CORRECTED ? scores[i] + score_correction[i] : scores[i];
        // Not a number is never chosen: every rank must be somebody's.
        candidates[i] = candidate == candidate ? candidate : -INFINITY;
        if (SCORING == 3)
            scores[i] = 1.0f / (1.0f + exp(-scores[i]));
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
#if GROUPS
    for (uint group = thread_index; group < GROUPS; group += THREADS)
        groups[group] = goodness(candidates + group * GROUP_SIZE, problem.best);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (uint i = thread_index; i < EXPERTS; i += THREADS)
        if (rank_of(groups, GROUPS, i / GROUP_SIZE) >= problem.kept)
            candidates[i] = -INFINITY;
    threadgroup_barrier(mem_flags::mem_threadgroup);
#endif
#if SCORING == 2
    if (simdgroup_index == 0)
        sparse_mixer(candidates, problem.jitter, found, chosen, lane_index);
#else
    for (uint i = thread_index; i < EXPERTS; i += THREADS) {
        const uint rank = rank_of(candidates, EXPERTS, i);
        if (rank < CHOSEN)
            found[rank] = scores[i], chosen[rank] = i;
    }
#endif
    threadgroup_barrier(mem_flags::mem_threadgroup);
    float total = 0;
    for (uint choice = 0; choice < CHOSEN; choice++)
        total += found[choice];
    const float factor = SCORING == 2 ? 1.0f : NORMALIZED ? problem.scale / max(total, problem.least) : problem.scale;
    for (uint choice = thread_index; choice < CHOSEN; choice += THREADS) {
        experts[group_position.x * CHOSEN + choice] = chosen[choice];
        weights[group_position.x * CHOSEN + choice] = found[choice] * factor * (FACTORS ? expert_factors[chosen[choice]] : 1.0f);
    }
}

KERNEL(sort_entries)(
    device const uint* experts [[buffer(0)]], // (entries)
    device uint* order [[buffer(1)]],         // (entries): entries by expert
    device uint* tiles [[buffer(2)]],         // (entries / TILE + EXPERTS, 3): expert, first place in `order`, entries (0: no tile)
    PROBLEM(SortProblem, 3))
{
    SHARED(uint, sums, SIMDGROUPS);
    SHARED(uint, smaller_sums, SIMDGROUPS);
    launch_dependents();
    wait_for_previous();
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
