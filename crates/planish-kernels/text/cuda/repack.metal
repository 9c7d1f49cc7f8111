// Makes the order of tiles.metal from packed weights as checkpoints hold them, and for every row the power of two that brings it to
// f16's range (`tensor_repack`); and the other way round (`tensor_restore`). Grid: (rows / 16, cols / 64, 1), rounded up; 32 threads.
// Defines: those of tiles.metal.

// One code of the format's bit stream.
inline uint code_at(device const uint* row, uint col) {
    const uint bit = col * BITS, word = bit / 32, shift = bit % 32;
    uint code = row[word] >> shift;
    if (shift + BITS > 32)
        code |= row[word + 1] << (32 - shift);
    return code & ((1u << BITS) - 1u);
}

// Moves `count` bits from bit `from` of every byte to bit `to`.
inline uint put_bits(uint bytes, uint from, uint count, uint to) { return (bytes >> from & ((1u << count) - 1u) * IN_BYTES) << to; }

// Puts a register where `codes_of` finds it.
inline void put_register(thread TileCodes& codes, uint index, uint bytes) {
    if (index < BESIDE * BITS) {
        codes.words[index / BESIDE] |= bytes << (index % BESIDE * BITS);
        return;
    }
#if BITS == 3
    codes.words[index - 6] |= put_bits(bytes, 0, 2, 6);
    codes.words[2] |= put_bits(bytes, 2, 1, index);
#elif BITS == 5
    codes.words[index - 5] |= put_bits(bytes, 0, 3, 5);
    if (index == 5)
        codes.words[3] |= put_bits(bytes, 3, 2, 5);
    else if (index == 7)
        codes.words[4] |= put_bits(bytes, 3, 2, 6);
    else
        codes.words[3] |= put_bits(bytes, 3, 1, 7), codes.words[4] |= put_bits(bytes, 4, 1, 5);
#elif BITS == 6
#pragma unroll
    for (uint i = 0; i < 3; i++)
        codes.words[(index - 6) * 3 + i] |= put_bits(bytes, 2 * i, 2, 6);
#endif
}

// The word of a tile that holds word `index` of a lane.
inline uint tile_word(uint index, uint lane) {
    if (index < LOW_WORDS)
        return index / LANE_WORDS * 32 * LANE_WORDS + lane * LANE_WORDS + index % LANE_WORDS;
    return 32 * LOW_WORDS + lane * (BITS - LOW_WORDS) + index - LOW_WORDS;
}

// The power of row lane % 16 of a row tile: scales times 2^24 and biases must fit.
inline float row_power(device const weight_t* scales, device const weight_t* biases, uint row, uint rows, uint groups, uint lane) {
    float size = 0;
    for (uint group = lane / 16; group < groups; group += 2)
        if (row < rows) {
            const ulong from = ulong(row) * groups + group;
            size = max(size, max(16777216.0f * fabs(widen(scales[from])), fabs(widen(biases[from]))));
        }
    return power_for(max(size, simd_shuffle_xor(size, 16)));
}

// Rows past the last are zeros.
KERNEL_OF(32, tensor_repack)(
    device const uint* streams [[buffer(0)]],    // (rows, cols * BITS / 32)
    device const weight_t* scales [[buffer(1)]], // (rows, cols / GROUP)
    device const weight_t* biases [[buffer(2)]], // (rows, cols / GROUP)
    device uint* tiles [[buffer(3)]],            // (rows / 16, cols / 64, 32 * BITS)
    device uint* tile_scales [[buffer(4)]],      // (rows / 16, cols / GROUP, 16 * AFFINE_WORDS), then powers (rows / 16, 16) of f32
    PROBLEM(TensorProblem, 5))
{
    const uint lane = lane_index, step = group_position.y, groups = problem.cols / GROUP;
    if (simdgroup_index == 0) {
        TileCodes codes;
#pragma unroll
        for (uint i = 0; i < BITS; i++)
            codes.words[i] = 0;
#pragma unroll
        for (uint index = 0; index < 8; index++) {
            const uint row = group_position.x * 16 + lane / 4 + index % 2 * 8;
            device const uint* stream = streams + ulong(min(row, problem.rows - 1)) * (problem.cols / 32 * BITS);
            uint bytes = 0;
#pragma unroll
            for (uint col = 0; col < 4; col++) {
                const uint code = row < problem.rows ? code_at(stream, step * STEP + product_col(lane % 4, index / 2) + col) : 0u;
                bytes |= code << (col % 2 * 16 + col / 2 * 8);
            }
            put_register(codes, index, bytes);
        }
        device uint* tile = tiles + (ulong(group_position.x) * (problem.cols / STEP) + step) * (32 * BITS);
#pragma unroll
        for (uint i = 0; i < BITS; i++)
            tile[tile_word(i, lane)] = codes.words[i];
        for (uint group = (step * STEP + GROUP - 1) / GROUP; group < ((step + 1) * STEP + GROUP - 1) / GROUP; group++) {
            const uint row = group_position.x * 16 + lane;
            if (lane < 16) {
                const ulong from = ulong(min(row, problem.rows - 1)) * groups + group;
                const weight_t scale = scales[from], bias = biases[from];
                device uint* to = tile_scales + ((ulong(group_position.x) * groups + group) * 16 + lane) * AFFINE_WORDS;
#if WEIGHT
                to[0] = row < problem.rows ? bits_of_weight(scale) | bits_of_weight(bias) << 16 : 0u;
#else
                to[0] = row < problem.rows ? as_type<uint>(scale) : 0u;
                to[1] = row < problem.rows ? as_type<uint>(bias) : 0u;
#endif
            }
        }
        if (step == 0) {
            const uint row = group_position.x * 16 + lane % 16;
            const float power = row_power(scales, biases, row, problem.rows, groups, lane);
            if (lane < 16)
                tile_scales[ulong(group_count.x) * groups * (16 * AFFINE_WORDS) + row] = as_type<uint>(power);
        }
    }
}

// A lane writes the 32 columns of half a row of the tile.
KERNEL_OF(32, tensor_restore)(
    device const uint* tiles [[buffer(0)]],       // (rows / 16, cols / 64, 32 * BITS)
    device const uint* tile_scales [[buffer(1)]], // (rows / 16, cols / GROUP, 16 * AFFINE_WORDS), then powers
    device uint* streams [[buffer(2)]],           // (rows, cols * BITS / 32)
    device weight_t* scales [[buffer(3)]],        // (rows, cols / GROUP)
    device weight_t* biases [[buffer(4)]],        // (rows, cols / GROUP)
    PROBLEM(TensorProblem, 5))
{
    const uint lane = lane_index, step = group_position.y, groups = problem.cols / GROUP;
    const uint in_tile = lane / 2, row = group_position.x * 16 + in_tile;
    if (simdgroup_index == 0 && row < problem.rows) {
        device const uint* tile = tiles + (ulong(group_position.x) * (problem.cols / STEP) + step) * (32 * BITS);
        uint words[BITS];
#pragma unroll
        for (uint i = 0; i < BITS; i++)
            words[i] = 0;
        for (uint four = 0; four < 8; four++) {
            // Where `product_col` begins with these four columns.
            const uint first = lane % 2 * 32 + four * 4, rest = first % SPAN % (SPAN / 4);
            const uint quarter = first % SPAN / (SPAN / 4), product = first / SPAN * (SPAN / 16) + rest / 4;
            const uint holder = in_tile % 8 * 4 + quarter;
            TileCodes codes;
            for (uint i = 0; i < BITS; i++)
                codes.words[i] = tile[tile_word(i, holder)];
            const uint bytes = codes_of(codes, int(product * 2 + in_tile / 8), 0, 0, IN_BYTES);
            for (uint col = 0; col < 4; col++) {
                const uint code = bytes >> (col % 2 * 16 + col / 2 * 8) & ((1u << BITS) - 1u);
                const uint bit = (four * 4 + col) * BITS, shift = bit % 32;
                words[bit / 32] |= code << shift;
                if (shift + BITS > 32)
                    words[bit / 32 + 1] |= code >> (32 - shift);
            }
        }
        device uint* stream = streams + ulong(row) * (problem.cols / 32 * BITS) + (step * 2 + lane % 2) * BITS;
#pragma unroll
        for (uint i = 0; i < BITS; i++)
            stream[i] = words[i];
        for (uint group = (step * STEP + GROUP - 1) / GROUP; group < ((step + 1) * STEP + GROUP - 1) / GROUP; group++) {
            device const uint* from = tile_scales + ((ulong(group_position.x) * groups + group) * 16 + in_tile) * AFFINE_WORDS;
            const ulong to = ulong(row) * groups + group;
            if (lane % 2 == 0) {
#if WEIGHT
                scales[to] = weight_of_bits(from[0]);
                biases[to] = weight_of_bits(from[0] >> 16);
#else
                scales[to] = as_type<float>(from[0]);
                biases[to] = as_type<float>(from[1]);
#endif
            }
        }
    }
}
