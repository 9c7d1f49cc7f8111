// Packs plain weights by search: scale, bias and codes of each group, the same bits as planish-format's. 16 lanes search for one group.
// Grid: (groups / (THREADS / 16) rounded up, 1, 1). Defines: THREADS, VALUE (of the plain weights), WEIGHT (of scales and biases), BITS, GROUP.
//
// A group of 64 is read 37 times at 2 and 3 bits, 34 at 4, 28 at 5, 40 at 6 and 8; a weight takes 17 operations each time (6 to its code, 11
// in sums), and a lane 32 for its share of the sums: 16 * 32 for a group, half as many as for its weights. So 8 billion weights
// are 8e9 * 37 * 25 = 7.4e12 operations, 0.22 s at 33e12 a second (an H200 that does one at a time); reading them as bf16 and
// writing 2 bits takes 0.004 s. What is around the kernel takes longer: the way over the bus is 0.3 s at 55 GB/s.

struct SearchProblem {
    uint groups; // of all rows
    uint row_groups;
};

KERNEL(search_groups)(
    device const value_t* plain [[buffer(0)]],    // (groups, GROUP)
    device const float* importance [[buffer(1)]], // (row_groups, GROUP)
    device uchar* codes [[buffer(2)]],            // (groups, GROUP / 8 * BITS)
    device weight_t* scales [[buffer(3)]],        // (groups)
    device weight_t* biases [[buffer(4)]],        // (groups)
    PROBLEM(SearchProblem, 5))
{
    const uint lane = lane_index, asked = group_position.x * (THREADS / 16) + thread_index / 16;
    const bool exists = asked < problem.groups;
    const uint group = exists ? asked : 0;
    float x[HELD], w[HELD], columns[HELD], found[HELD];
#pragma unroll
    for (uint i = 0; i < HELD; i++) {
        const uint at = i * 16 + lane % 16;
        x[i] = at < GROUP ? widen(plain[ulong(group) * GROUP + at]) : 0.0f;
        columns[i] = at < GROUP ? importance[group % problem.row_groups * GROUP + at] : 0.0f;
    }
    weigh(x, columns, lane, w);
    const float2 affine = search(x, w, lane, found);
    // 8 neighbouring lanes hold 8 neighbouring codes: BITS bytes.
    const uint bit = lane % 8 * BITS;
#pragma unroll
    for (uint i = 0; i < HELD; i++) {
        const uint code = uint(found[i]), at = i * 16 + lane % 16;
        uint low = bit < 32 ? code << (bit & 31) : 0, high = bit < 32 ? 0 : code << (bit & 31);
        if (bit < 32 && bit + BITS > 32)
            high = code >> ((32 - bit) & 31);
        for (ushort mask = 4; mask; mask /= 2)
            low |= simd_shuffle_xor(low, mask), high |= simd_shuffle_xor(high, mask);
        const uint byte = lane % 8;
        if (exists && at < GROUP && byte < BITS)
            codes[ulong(group) * (GROUP / 8 * BITS) + at / 8 * BITS + byte] = uchar(byte < 4 ? low >> (8 * byte) : high >> (8 * (byte - 4)));
    }
    if (exists && lane % 16 == 0) {
        scales[group] = narrow<weight_t>(affine.x);
        biases[group] = narrow<weight_t>(affine.y);
    }
}
