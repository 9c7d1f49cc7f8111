// Rotary position embedding: for the pairs (i, i + rotated / 2) or, with NEIGHBOURS, (2i, 2i + 1) of a head:
// a' = a cos - b sin, b' = b cos + a sin. `rope_angles` makes cosines and sines of factor and position * frequency.
// Grids: rope (rows, heads * rotated / 2 / THREADS, 1); rope_angles (rows, rotated / 2 / THREADS, 1); rounded up.

struct RopeProblem {
    uint heads;
    uint head_dim;
    uint rotated; // values of a head, from its first on
};
struct RopeAnglesProblem {
    uint rotated;
    uint first_position; // of row 0
    float factor;
};

KERNEL(rope)(
    device value_t* values [[buffer(0)]],     // (rows, heads * head_dim), in place
    device const float* angles [[buffer(1)]], // (rows, rotated): cosines, then sines
    PROBLEM(RopeProblem, 2))
{
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
    device float* angles [[buffer(1)]],            // (rows, rotated)
    PROBLEM(RopeAnglesProblem, 2))
{
    const uint half_dim = problem.rotated / 2, pair = group_position.y * THREADS + thread_index;
    if (pair < half_dim) {
        const float angle = float(problem.first_position + group_position.x) * frequencies[pair];
        device float* row = angles + ulong(group_position.x) * problem.rotated;
        row[pair] = problem.factor * cos(angle);
        row[half_dim + pair] = problem.factor * sin(angle);
    }
}
