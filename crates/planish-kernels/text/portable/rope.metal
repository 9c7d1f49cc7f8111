// Rotary position embedding: for the pairs (i, i + rotated / 2) or, with NEIGHBOURS, (2i, 2i + 1) of a head:
// a' = a cos - b sin, b' = b cos + a sin. `rope_angles` makes cosines and sines of factor and position * frequency.
// `rope_and_append` does all that is between a layer's products and its attention: rotates queries in place, and puts rotated
// keys, and values, as `cache_t` where their positions are stored.
// Grids: rope (rows, heads * rotated / 2 / THREADS, 1); rope_angles (rows, rotated / 2 / THREADS, 1); rope_and_append (rows, all of a
// row's pairs, other keys and values / (EACH * THREADS), 1); rounded up.
// Defines: THREADS, VALUE, CACHE, NEIGHBOURS, EACH (1 or 8: neighbouring pairs, or values, of a thread in `rope_and_append`).

typedef TYPE_OF(CACHE) cache_t;

struct RopeProblem {
    uint heads;
    uint head_dim;
    uint rotated; // values of a head, from its first on
};
struct RopeAndAppendProblem {
    uint heads;          // of queries; 0 where they stay as they are
    uint kv_heads;
    uint head_dim;
    uint value_dim;
    uint rotated;        // values of a head, from its first on; 0 for none
    uint first_row;
};
struct RopeAnglesProblem {
    uint rotated;
    uint first_row;
    float factor;
};

KERNEL(rope)(
    device value_t* values [[buffer(0)]],     // (rows, heads * head_dim), in place
    device const float* angles [[buffer(1)]], // (rows, rotated): cosines, then sines
    PROBLEM(RopeProblem, 2))
{
    wait_for_previous();
    const uint half_dim = problem.rotated / 2, index = group_position.y * THREADS + thread_index;
    const uint head = index / half_dim, pair = index % half_dim;
    if (head < problem.heads) {
        device const float* row = angles + ulong(group_position.x) * problem.rotated;
        const float cosine = row[pair], sine = row[half_dim + pair];
        device value_t* first = values + (ulong(group_position.x) * problem.heads + head) * problem.head_dim
            + (NEIGHBOURS ? 2 * pair : pair);
        device value_t* second = first + (NEIGHBOURS ? 1 : half_dim);
        const float a = widen(*first), b = widen(*second);
        *first = narrow<value_t>(a * cosine - b * sine);
        *second = narrow<value_t>(b * cosine + a * sine);
    }
}

KERNEL(rope_angles)(
    device const float* frequencies [[buffer(0)]], // (rotated / 2), radians per position
    device const uint4* places [[buffer(1)]],      // (rows)
    device float* angles [[buffer(2)]],            // (rows, rotated)
    PROBLEM(RopeAnglesProblem, 3))
{
    launch_dependents();
    wait_for_previous();
    const uint half_dim = problem.rotated / 2, pair = group_position.y * THREADS + thread_index;
    if (pair < half_dim) {
        const uint index = problem.first_row + group_position.x;
        const float angle = float(places[index].y) * frequencies[pair];
        device float* row = angles + ulong(index) * problem.rotated;
        row[pair] = problem.factor * cos(angle);
        row[half_dim + pair] = problem.factor * sin(angle);
    }
}

template <typename T> inline void load_each(device const T* from, thread float (&to)[8]) { load8(from, to); }
template <typename T> inline void load_each(device const T* from, thread float (&to)[1]) { to[0] = widen(*from); }
template <typename T> inline void store_each(device T* to, thread const float (&from)[8]) { write8(to, from); }
template <typename T> inline void store_each(device T* to, thread const float (&from)[1]) { *to = narrow<T>(from[0]); }

// Rotates EACH pairs of a head from pair `first` on; angles: cosines of the row, then sines.
template <typename T>
inline void rotate_pairs(device const value_t* from, device T* to, uint first, uint half_dim, device const float* angles) {
    float low[EACH], high[EACH], cosines[EACH], sines[EACH], rotated_low[EACH], rotated_high[EACH];
    const uint low_at = NEIGHBOURS ? 2 * first : first, high_at = NEIGHBOURS ? low_at + EACH : half_dim + first;
    load_each(from + low_at, low);
    load_each(from + high_at, high);
    load_each(angles + first, cosines);
    load_each(angles + half_dim + first, sines);
    // With NEIGHBOURS the 2 * EACH values in a row are low, then high.
#pragma unroll
    for (uint i = 0; i < EACH; i++) {
        const uint at = 2 * i % EACH, next = EACH == 1 ? 0 : at + 1;
        const float a = NEIGHBOURS ? (2 * i < EACH ? low[at] : high[at]) : low[i];
        const float b = NEIGHBOURS ? (2 * i + 1 < EACH ? low[next] : high[next]) : high[i];
        const float first_value = a * cosines[i] - b * sines[i], second_value = b * cosines[i] + a * sines[i];
        if (!NEIGHBOURS)
            rotated_low[i] = first_value, rotated_high[i] = second_value;
        else if (EACH == 1)
            rotated_low[0] = first_value, rotated_high[0] = second_value;
        else if (2 * i < EACH)
            rotated_low[at] = first_value, rotated_low[next] = second_value;
        else
            rotated_high[at] = first_value, rotated_high[next] = second_value;
    }
    store_each(to + low_at, rotated_low);
    store_each(to + high_at, rotated_high);
}

KERNEL(rope_and_append)(
    device value_t* queries [[buffer(0)]],      // (rows, heads * head_dim), in place
    device const value_t* keys [[buffer(1)]],   // (rows, kv_heads * head_dim)
    device const value_t* values [[buffer(2)]], // (rows, kv_heads * value_dim)
    device const float* angles [[buffer(3)]],   // (rows, rotated): cosines, then sines
    device const uint4* places [[buffer(4)]],   // (rows)
    device cache_t* key_cache [[buffer(5)]],    // (blocks, BLOCK, kv_heads * head_dim)
    device cache_t* value_cache [[buffer(6)]],  // (blocks, BLOCK, kv_heads * value_dim)
    PROBLEM(RopeAndAppendProblem, 7))
{
    launch_dependents();
    wait_for_previous();
    const uint half_dim = problem.rotated / 2, each_head = half_dim / EACH, rest = problem.head_dim - problem.rotated;
    const ulong row = problem.first_row + group_position.x, stored = places[row].z;
    device const float* row_angles = angles + row * problem.rotated;
    key_cache += stored * problem.kv_heads * problem.head_dim;
    keys += row * problem.kv_heads * problem.head_dim;

    // What this thread does: EACH pairs of a query or key, EACH keys that are not rotated, or EACH values.
    const uint of_queries = problem.heads * each_head, of_keys = problem.kv_heads * each_head;
    const uint of_rest = problem.kv_heads * rest / EACH, of_values = problem.kv_heads * problem.value_dim / EACH;
    uint index = group_position.y * THREADS + thread_index;
    if (index < of_queries) {
        device value_t* head = queries + (row * problem.heads + index / each_head) * problem.head_dim;
        rotate_pairs(head, head, index % each_head * EACH, half_dim, row_angles);
    } else if ((index -= of_queries) < of_keys) {
        const uint head = index / each_head * problem.head_dim;
        rotate_pairs(keys + head, key_cache + head, index % each_head * EACH, half_dim, row_angles);
    } else if ((index -= of_keys) < of_rest) {
        const uint at = index * EACH / rest * problem.head_dim + problem.rotated + index * EACH % rest;
        float copied[EACH];
        load_each(keys + at, copied);
        store_each(key_cache + at, copied);
    } else if ((index -= of_rest) < of_values) {
        const ulong width = problem.kv_heads * problem.value_dim;
        float copied[EACH];
        load_each(values + row * width + index * EACH, copied);
        store_each(value_cache + stored * width + index * EACH, copied);
    }
}
