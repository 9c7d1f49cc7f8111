// Draws a token by its probability: softmax(logits / temperature) over the tokens that top-k, top-p and min-p leave, added up in the
// order of tokens. What is left are scores from a threshold on. `search` finds one digit of a threshold at a time, from the sums over
// parts of the logits that the search before left: the largest at which enough tokens (top-k), or enough of the probability (top-p), lie.
// `weigh` adds up the weights of each part, and `draw` finds the token at which a number from 0 to 1 is passed.
// Equal scores stay or go together. A logit that is no number, or infinite, is no token's. Every row has its own settings; rows that
// need nothing of a launch pass it over.
// Grids: search and weigh (PARTS, rows, 1); settle and draw (1, rows, 1). Defines: THREADS, PARTS (a multiple of 32).

#define DIGIT_BITS 4
#define DIGITS (1 << DIGIT_BITS)
#define NO_TOKEN 0xffffffffu

struct ChooseProblem {
    uint cols;
    uint shift;     // of the digit that this search looks for
    uint first;     // whether no digit is known yet
    uint mass;      // whether it looks for probability, else for tokens
};

// How the token of a row is chosen: two uint4 of slot, temperature, top_k, top_p; min_p, unit, two unused.
struct Settings {
    uint slot;         // of the row's sequence
    float temperature; // 0: the likeliest, by other kernels
    uint top_k;        // tokens that are left; 0 is all
    float top_p;       // share of the probability that is left
    float min_p;       // times as probable as the likeliest
    float unit;        // what is drawn by, in 0 .. 1
};

inline Settings settings_of(device const uint4* settings, uint row) {
    const uint4 first = settings[2 * row], second = settings[2 * row + 1];
    Settings result;
    result.slot = first.x, result.temperature = as_type<float>(first.y);
    result.top_k = first.z, result.top_p = as_type<float>(first.w);
    result.min_p = as_type<float>(second.x), result.unit = as_type<float>(second.y);
    return result;
}

// Whether a row needs this search.
inline bool is_searched(Settings settings, ChooseProblem problem) {
    const bool needed = problem.mass ? settings.top_p < 1.0f : settings.top_k > 0 && settings.top_k < problem.cols;
    return settings.temperature > 0.0f && needed;
}

// Grows with the score; 0 for what is no number.
inline uint key_of(float score) {
    const uint bits = as_type<uint>(score);
    const bool finite = (bits & 0x7f800000u) != 0x7f800000u;
    return finite ? (bits & 0x80000000u ? ~bits : bits | 0x80000000u) : 0u;
}

inline float weight_of(float score, float best) { return exp(score - best); }

// The likeliest score. // (PARTS) largest logits
inline float best_score(device const float* part_values, float temperature, uint lane) {
    float best = -INFINITY;
    for (uint i = lane; i < PARTS; i += 32)
        best = max(best, part_values[i]);
    return exact_divide(simd_max(best), temperature);
}

// The digits that earlier searches found, and the one that the last one's sums tell.
inline uint known_digits(device const float* sums, device const uint* found, ChooseProblem problem, Settings settings,
                         uint begin_shift, threadgroup float* room, uint thread_number) {
    if (thread_number < DIGITS) {
        float sum = 0;
        for (uint part = 0; part < PARTS; part++)
            sum += sums[part * DIGITS + thread_number];
        room[thread_number] = sum;
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    // The share is of what the first search saw at its lowest threshold: everything.
    const float everything = begin_shift + DIGIT_BITS == 32 ? room[0] : as_type<float>(found[1]);
    const float wanted = problem.mass ? settings.top_p * everything : float(settings.top_k);
    uint digit = 0;
    for (uint i = 1; i < DIGITS; i++)
        if (room[i] >= wanted)
            digit = i;
    return found[0] | digit << begin_shift;
}

KERNEL(search)(
    device const float* logits [[buffer(0)]],      // (rows, cols)
    device const float* part_values [[buffer(1)]], // (rows, PARTS): the largest logits of parts
    device const uint4* settings [[buffer(2)]],    // (rows, 2)
    device const uint* floors [[buffer(3)]],       // (rows, 2): no threshold below the first
    device const float* sums [[buffer(4)]],        // (rows, PARTS, DIGITS), of the search before
    device const uint* found [[buffer(5)]],        // (rows, 2): digits that it knew, and the sum of everything
    device float* next_sums [[buffer(6)]],         // (rows, PARTS, DIGITS)
    device uint* next_found [[buffer(7)]],         // (rows, 2)
    PROBLEM(ChooseProblem, 8))
{
    SHARED(float, room, DIGITS);
    SHARED(float, of_simdgroups, THREADS / 32 * DIGITS);
    launch_dependents();
    wait_for_previous();
    const uint row = group_position.y;
    const Settings own = settings_of(settings, row);
    if (!is_searched(own, problem))
        return; // the whole threadgroup
    logits += ulong(row) * problem.cols, part_values += row * PARTS, floors += 2 * row;
    sums += row * PARTS * DIGITS, found += 2 * row, next_sums += row * PARTS * DIGITS, next_found += 2 * row;
    const float temperature = own.temperature, best = best_score(part_values, temperature, lane_index);
    const uint known =
        problem.first ? 0u : known_digits(sums, found, problem, own, problem.shift + DIGIT_BITS, room, thread_index);
    const uint floor_key = max(floors[0], 1u), size = (problem.cols + PARTS - 1) / PARTS;
    const uint begin = group_position.x * size, end = min(begin + size, problem.cols);

    float mine[DIGITS];
#pragma unroll
    for (uint i = 0; i < DIGITS; i++)
        mine[i] = 0;
    for (uint token = begin + thread_index; token < end; token += THREADS) {
        const float score = exact_divide(logits[token], temperature);
        const uint key = key_of(score);
        const float weight = problem.mass ? (key ? weight_of(score, best) : 0.0f) : 1.0f;
#pragma unroll
        for (uint i = 0; i < DIGITS; i++)
            if (key >= floor_key && key >= (known | i << problem.shift))
                mine[i] += weight;
    }
#pragma unroll
    for (uint i = 0; i < DIGITS; i++) {
        const float sum = simd_sum(mine[i]);
        if (lane_index == 0)
            of_simdgroups[simdgroup_index * DIGITS + i] = sum;
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    if (thread_index < DIGITS) {
        float sum = 0;
        for (uint i = 0; i < THREADS / 32; i++)
            sum += of_simdgroups[i * DIGITS + thread_index];
        next_sums[group_position.x * DIGITS + thread_index] = sum;
    }
    if (group_position.x == 0 && thread_index == 0) {
        next_found[0] = known;
        // After the first search its sums at the lowest threshold are known.
        const bool second = problem.shift + 2 * DIGIT_BITS == 32;
        next_found[1] = second ? as_type<uint>(room[0]) : problem.first ? 0u : found[1];
    }
}

// Ends a search: the threshold is its last digit's too. One threadgroup for a row.
KERNEL(settle)(
    device const uint4* settings [[buffer(0)]], // (rows, 2)
    device const float* sums [[buffer(1)]],     // (rows, PARTS, DIGITS), of the last search
    device const uint* found [[buffer(2)]],     // (rows, 2)
    device const uint* floors [[buffer(3)]],    // (rows, 2)
    device uint* threshold [[buffer(4)]],       // (rows, 2): the first is a floor for what comes next
    PROBLEM(ChooseProblem, 5))
{
    SHARED(float, room, DIGITS);
    launch_dependents();
    wait_for_previous();
    const uint row = group_position.y;
    const Settings own = settings_of(settings, row);
    floors += 2 * row, threshold += 2 * row;
    uint key = 0;
    if (is_searched(own, problem)) // the whole threadgroup, or none
        key = known_digits(sums + row * PARTS * DIGITS, found + 2 * row, problem, own, 0, room, thread_index);
    if (thread_index == 0)
        threshold[0] = max(key, floors[0]), threshold[1] = 0;
}

// The least key that is drawn: never above the likeliest.
inline uint least_key(device const uint* floors, float best, float min_p) {
    uint least = max(floors[0], 1u);
    if (min_p > 0.0f)
        least = max(least, key_of(best + log(min_p)));
    return min(least, key_of(best));
}

KERNEL(weigh)(
    device const float* logits [[buffer(0)]],      // (rows, cols)
    device const float* part_values [[buffer(1)]], // (rows, PARTS)
    device const uint4* settings [[buffer(2)]],    // (rows, 2)
    device const uint* floors [[buffer(3)]],       // (rows, 2)
    device float* masses [[buffer(4)]],            // (rows, PARTS)
    PROBLEM(ChooseProblem, 5))
{
    SHARED(float, room, THREADS);
    launch_dependents();
    wait_for_previous();
    const uint row = group_position.y;
    const Settings own = settings_of(settings, row);
    const float temperature = own.temperature;
    if (temperature == 0.0f)
        return; // the whole threadgroup
    logits += ulong(row) * problem.cols, part_values += row * PARTS, floors += 2 * row, masses += row * PARTS;
    const float best = best_score(part_values, temperature, lane_index);
    const uint least = least_key(floors, best, own.min_p), size = (problem.cols + PARTS - 1) / PARTS;
    const uint each = (size + THREADS - 1) / THREADS, begin = group_position.x * size;
    const uint end = min(begin + size, problem.cols), mine = begin + thread_index * each;
    float sum = 0;
    for (uint token = mine; token < min(mine + each, end); token++) {
        const float score = exact_divide(logits[token], temperature);
        if (key_of(score) >= least)
            sum += weight_of(score, best);
    }
    room[thread_index] = sum;
    threadgroup_barrier(mem_flags::mem_threadgroup);
    // One after another, as `draw` takes them.
    if (thread_index == 0) {
        float total = 0;
        for (uint i = 0; i < THREADS; i++)
            total += room[i];
        masses[group_position.x] = total;
    }
}

// The first of `count` sums that `left` does not reach beyond, or the last that is not 0; `left` becomes what is left for it.
inline uint passed_at(threadgroup const float* sums, uint count, thread float& left) {
    uint last = 0;
    float before_last = left;
    for (uint i = 0; i < count; i++) {
        if (left < sums[i])
            return i;
        if (sums[i] > 0.0f)
            last = i, before_last = left;
        left -= sums[i];
    }
    left = before_last;
    return last;
}

KERNEL(draw)(
    device const float* logits [[buffer(0)]],      // (rows, cols)
    device const float* part_values [[buffer(1)]], // (rows, PARTS)
    device const uint4* settings [[buffer(2)]],    // (rows, 2)
    device const uint* floors [[buffer(3)]],       // (rows, 2)
    device const float* masses [[buffer(4)]],      // (rows, PARTS)
    device uint* tokens [[buffer(5)]],             // (rows): NO_TOKEN where no logit is a number
    device uint* last_chosen [[buffer(6)]],          // (slots): the same for the sequence
    PROBLEM(ChooseProblem, 7))
{
    SHARED(float, parts, PARTS);
    SHARED(float, room, THREADS);
    launch_dependents();
    wait_for_previous();
    const uint row = group_position.y;
    const Settings own = settings_of(settings, row);
    const float temperature = own.temperature;
    if (temperature == 0.0f)
        return; // the whole threadgroup
    logits += ulong(row) * problem.cols, part_values += row * PARTS, floors += 2 * row, masses += row * PARTS;
    const float best = best_score(part_values, temperature, lane_index);
    const uint least = least_key(floors, best, own.min_p), size = (problem.cols + PARTS - 1) / PARTS;
    const uint each = (size + THREADS - 1) / THREADS;
    if (thread_index < PARTS)
        parts[thread_index] = masses[thread_index];
    threadgroup_barrier(mem_flags::mem_threadgroup);
    float left = 0;
    for (uint i = 0; i < PARTS; i++)
        left += parts[i];
    left *= own.unit;
    const uint part = passed_at(parts, PARTS, left);

    const uint begin = part * size, end = min(begin + size, problem.cols), mine = begin + thread_index * each;
    float sum = 0;
    for (uint i = mine; i < min(mine + each, end); i++) {
        const float score = exact_divide(logits[i], temperature);
        if (key_of(score) >= least)
            sum += weight_of(score, best);
    }
    room[thread_index] = sum;
    threadgroup_barrier(mem_flags::mem_threadgroup);
    const uint taker = passed_at(room, THREADS, left);
    if (thread_index == taker) {
        uint chosen = NO_TOKEN;
        for (uint i = mine; i < min(mine + each, end) && (chosen == NO_TOKEN || left >= 0.0f); i++) {
            const float score = exact_divide(logits[i], temperature);
            if (key_of(score) >= least) {
                chosen = i;
                left -= weight_of(score, best);
            }
        }
        chosen = key_of(best) ? chosen : NO_TOKEN;
        tokens[row] = chosen;
        last_chosen[own.slot] = chosen;
    }
}
