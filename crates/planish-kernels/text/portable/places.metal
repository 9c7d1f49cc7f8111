// What a pass changes on the device before its first layer, by words that come with the launch, so that nothing waits for a copy.
// `place_rows`: blocks into the tables of sequences, then spans, and the places of their rows (blocks.metal); `write_words`: words;
// `copy_blocks`: whole blocks of a cache, which two sequences shared until one of them writes.
// Grids: place_rows and write_words (1, 1, 1); copy_blocks (any, pairs, 1), whose threadgroups take turns.
// Defines: THREADS, WORDS (at most).

struct PlaceRowsProblem {
    uint entries;     // words: an index in the tables and a block for each,
    uint spans;       // then slot, first row, rows and first position of each
    uint first_span;  // where the first of these lies
    uint stride;      // blocks of a table
    uint words[WORDS];
};
struct WriteWordsProblem {
    uint first;
    uint count;
    uint words[WORDS];
};
struct CopyBlocksProblem {
    uint size; // 16 bytes each
    uint words[WORDS]; // from and to of each pair
};

KERNEL(place_rows)(
    device uint* tables [[buffer(0)]],  // (slots, stride)
    device uint4* places [[buffer(1)]], // (rows)
    device uint4* spans [[buffer(2)]],  // (spans)
    PROBLEM(PlaceRowsProblem, 3))
{
    launch_dependents();
    wait_for_previous();
    for (uint i = thread_index; i < problem.entries; i += THREADS)
        tables[problem.words[2 * i]] = problem.words[2 * i + 1];
    threadgroup_barrier(mem_flags::mem_device);
    for (uint s = simdgroup_index; s < problem.spans; s += THREADS / 32) {
        const uint at = 2 * problem.entries + 4 * s;
        uint4 span;
        span.x = problem.words[at], span.y = problem.words[at + 1];
        span.z = problem.words[at + 2], span.w = problem.words[at + 3];
        if (lane_index == 0)
            spans[problem.first_span + s] = span;
        for (uint i = lane_index; i < span.z; i += 32) {
            uint4 place;
            place.x = span.x, place.y = span.w + i, place.w = span.x * problem.stride;
            place.z = stored_row(tables + place.w, place.y);
            places[span.y + i] = place;
        }
    }
}

KERNEL(write_words)(
    device uint* to [[buffer(0)]],
    PROBLEM(WriteWordsProblem, 1))
{
    launch_dependents();
    wait_for_previous();
    for (uint i = thread_index; i < problem.count; i += THREADS)
        to[problem.first + i] = problem.words[i];
}

KERNEL(copy_blocks)(
    device uint4* cache [[buffer(0)]], // (blocks, size)
    PROBLEM(CopyBlocksProblem, 1))
{
    launch_dependents();
    wait_for_previous();
    device const uint4* from = cache + ulong(problem.words[2 * group_position.y]) * problem.size;
    device uint4* to = cache + ulong(problem.words[2 * group_position.y + 1]) * problem.size;
    for (uint i = group_position.x * THREADS + thread_index; i < problem.size; i += group_count.x * THREADS)
        to[i] = from[i];
}
