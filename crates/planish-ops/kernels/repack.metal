// Makes the order of tiles.metal from packed weights as checkpoints hold them. Grid: (rows / 16, cols / 64, 1), rounded up; 32 threads.
// Defines: those of tiles.metal.

// One code of the format's bit stream.
inline uint code_at(device const uint* row, uint col) {
    const uint bit = col * BITS, word = bit / 32, shift = bit % 32;
    uint code = row[word] >> shift;
    if (shift + BITS > 32)
        code |= row[word + 1] << (32 - shift);
    return code & ((1u << BITS) - 1u);
}

// Rows past the last are zeros. 32 threads.
KERNEL_OF(32, tensor_repack)(
    device const uint* codes [[buffer(0)]],      // (rows, cols * BITS / 32)
    device const weight_t* scales [[buffer(1)]], // (rows, cols / GROUP)
    device const weight_t* biases [[buffer(2)]], // (rows, cols / GROUP)
    device uint* tiles [[buffer(3)]],            // (rows / 16, cols / 64, 32 * BITS)
    device uint* tile_scales [[buffer(4)]],      // (rows / 16, cols / GROUP, 16)
    PROBLEM(TensorProblem, 5))
{
    const uint lane = lane_index, step = group_position.y, groups = problem.cols / GROUP;
    if (simdgroup_index == 0) {
        uint low[LOW_BITS], high[HIGH_BITS + 1];
#pragma unroll
        for (uint i = 0; i < LOW_BITS; i++)
            low[i] = 0;
#pragma unroll
        for (uint i = 0; i < HIGH_BITS + 1; i++)
            high[i] = 0;
#pragma unroll
        for (uint index = 0; index < 16; index++) {
            const uint product = index / 4, pair = index % 4;
            const uint row = group_position.x * 16 + lane / 4 + pair % 2 * 8;
            const uint col = step * STEP + product_col(lane % 4, product) + pair / 2 * 2;
            device const uint* stream = codes + ulong(min(row, problem.rows - 1)) * (problem.cols / 32 * BITS);
#pragma unroll
            for (uint second = 0; second < 2; second++) {
                const uint code = row < problem.rows ? code_at(stream, col + second) : 0u;
                low[index * LOW_BITS / 16] |= (code & ((1u << LOW_BITS) - 1u)) << (index * LOW_BITS % 16 + 16 * second);
                if (HIGH_BITS)
                    high[index * HIGH_BITS / 16] |= (code >> LOW_BITS) << (index * HIGH_BITS % 16 + 16 * second);
            }
        }
        device uint* tile = tiles + (ulong(group_position.x) * (problem.cols / STEP) + step) * (32 * BITS);
#pragma unroll
        for (uint i = 0; i < LOW_BITS; i++)
            tile[i / LANE_WORDS * 32 * LANE_WORDS + lane * LANE_WORDS + i % LANE_WORDS] = low[i];
#if HIGH_BITS
#pragma unroll
        for (uint i = 0; i < HIGH_BITS; i++)
            tile[32 * LOW_BITS + lane * HIGH_BITS + i] = high[i];
#endif
        for (uint group = (step * STEP + GROUP - 1) / GROUP; group < ((step + 1) * STEP + GROUP - 1) / GROUP; group++) {
            const uint row = group_position.x * 16 + lane;
            if (lane < 16) {
                uint both = 0;
                if (row < problem.rows) {
                    const ulong from = ulong(row) * groups + group;
                    both = bits_of_weight(scales[from]) | bits_of_weight(biases[from]) << 16;
                }
                tile_scales[(ulong(group_position.x) * groups + group) * 16 + lane] = both;
            }
        }
    }
}
