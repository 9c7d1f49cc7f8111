// One or two inputs through packed weights in the order of tiles.metal: output[m][row] = sum over k of weight[row][k] * input[m][k]
// (+ added[row]). Codes are multiplied as bytes, exactly: a span of an input becomes integers by a power of two, whose three bytes are
// columns of the matrix product (mma.sync, 16 rows x 8 columns x 32 inputs); scales and biases are applied in f32. An input keeps
// 21 bits below the largest of its span. One input takes two spans at once, a SLOT of columns for each: together a round.
// Bound by reading the weights: each warp keeps a ring of STAGES pieces (16 rows x UNIT columns, codes and scales) on their way from
// memory, begun before earlier launches are done. Grid: (threadgroups that share the row tiles evenly, inputs / SIDE, 1).
// Defines: THREADS, THREADGROUPS, OUTPUT, those of tiles.metal, SIDE (1 or 2: inputs at once), UNIT (a multiple of 128 or of 64), WHOLE
// (cols is a multiple of UNIT), STAGES, PACE (pieces that a warp asks for at once before it has inputs), MOST_TILES (of a threadgroup), ADDED.

struct NarrowProblem {
    uint rows;
    uint cols;
    uint inputs;
    uint overlaps; // the launch before reads the same input and writes none of it
};

#define WARPS (THREADS / 32)
#define LIMBS 3 // bytes of an input; a fourth column is zeros
#define SLOTS (2 / SIDE)
#define UNIT_TILES (UNIT / STEP)
#define SPAN_WORDS (SPAN / 16) // of a lane: 4 bytes for each product of 16 columns
#define ROUNDS (UNIT / (SLOTS * SPAN))
#define UNIT_GROUPS (UNIT % GROUP ? UNIT / GROUP + 2 : UNIT / GROUP)
#define CODE_WORDS (UNIT_TILES * 32 * BITS)
#define GROUP_WORDS (16 * AFFINE_WORDS)
#define STAGE_WORDS (CODE_WORDS + UNIT_GROUPS * GROUP_WORDS)

// Where a warp is: piece `unit` of row tile `tile`.
struct Place {
    uint unit;
    uint tile;
};

// A matrix in tiles, from the first row tile of the threadgroup on.
struct NarrowWeights {
    device const uint* tiles;
    device const uint* scales;
    uint steps;     // cols / 64
    uint groups;    // cols / GROUP
    uint row_tiles; // of the threadgroup
};

inline void step_on(thread Place& place, uint row_tiles) {
    place.tile++;
    if (place.tile == row_tiles)
        place.tile = 0, place.unit++;
}

// Begins to bring a piece into a stage, and goes on to the next.
inline void fetch(NarrowWeights weights, thread Place& place, threadgroup uint* stage, threadgroup ulong* arrival, uint lane) {
    const uint step = place.unit * UNIT_TILES, steps = WHOLE ? UNIT_TILES : min(uint(UNIT_TILES), weights.steps - step);
    const uint group = step * STEP / GROUP;
    const uint groups = WHOLE && UNIT % GROUP == 0 ? UNIT_GROUPS : ((step + steps) * STEP - 1) / GROUP + 1 - group;
    const uint code_bytes = steps * 128 * BITS, scale_bytes = groups * GROUP_WORDS * 4;
    expect_bytes(arrival, code_bytes + scale_bytes, lane);
    copy_bulk(stage, weights.tiles + (ulong(place.tile) * weights.steps + step) * (32 * BITS), code_bytes, arrival, lane);
    copy_bulk(stage + CODE_WORDS, weights.scales + (ulong(place.tile) * weights.groups + group) * GROUP_WORDS, scale_bytes, arrival, lane);
    step_on(place, weights.row_tiles);
}

inline void put_words(threadgroup uint* to, thread const uint (&from)[4]) {
    uint4 four;
    four.x = from[0], four.y = from[1], four.z = from[2], four.w = from[3];
    *(threadgroup uint4*)to = four;
}
inline void put_words(threadgroup uint* to, thread const uint (&from)[2]) {
    uint2 two;
    two.x = from[0], two.y = from[1];
    *(threadgroup uint2*)to = two;
}
inline void get_words(threadgroup const uint* from, thread uint (&to)[4]) {
    const uint4 four = *(threadgroup const uint4*)from;
    to[0] = four.x, to[1] = four.y, to[2] = four.z, to[3] = four.w;
}
inline void get_words(threadgroup const uint* from, thread uint (&to)[2]) {
    const uint2 two = *(threadgroup const uint2*)from;
    to[0] = two.x, to[1] = two.y;
}

// The inputs as bytes in threadgroup memory, and what a span's sums are multiplied by and add up to.
struct Limbs {
    threadgroup uint* words;  // (SIDE, LIMBS, stride / 4)
    threadgroup float2* spans; // (SIDE, cols / SPAN)
    uint cols;   // rounded up to whole units
    uint stride; // bytes of a limb of an input, away from bank conflicts
};

inline uint padded_cols(uint cols) { return (cols + UNIT - 1) / UNIT * UNIT; }
inline uint limb_stride(uint cols) { return (padded_cols(cols) + 127) / 128 * 128 + 64; }

// A power of two that makes integers below 2^22 of a span, and what undoes it. `largest`: the bits of the largest size.
struct Scaling {
    float up;
    float down;
};

inline Scaling scaling_of(uint largest) {
    const uint exponent = largest >> 23, up = min(254 + 21 - min(exponent, 254u), 240u);
    Scaling result;
    result.up = as_type<float>(up << 23);
    // Infinity and NaN make NaN of all that they touch.
    result.down = as_type<float>(exponent == 255 ? 0x7fc00000u : (254 - up) << 23);
    return result;
}

#define EXPONENT_BITS 0x4b400000u // of 1.5 * 2^23, whose last digit is 1

// Makes limbs of the inputs. All threads; 4 lanes for a span.
inline void split_inputs(device const value_t* input, uint cols, uint inputs, Limbs limbs, uint lane, uint warp) {
    const uint each = SPAN / 4, of_input = limbs.cols / each;
    for (uint begin = warp * 32; begin < SIDE * of_input; begin += THREADS) {
        const uint at = begin + lane, index = at / of_input, col = at % of_input * each;
        const bool exists = index < inputs && col < cols && index < SIDE;
        float values[SPAN / 4];
        uint largest = 0;
#pragma unroll
        for (uint i = 0; i < SPAN / 4; i += 8) {
            float eight[8] = {0, 0, 0, 0, 0, 0, 0, 0};
            if (exists)
                load8(input + ulong(index) * cols + col + i, eight);
#pragma unroll
            for (uint j = 0; j < 8; j++) {
                values[i + j] = eight[j];
                largest = max(largest, as_type<uint>(eight[j]) & 0x7fffffffu);
            }
        }
        largest = max(largest, simd_shuffle_xor(largest, 1));
        largest = max(largest, simd_shuffle_xor(largest, 2));
        const Scaling scaling = scaling_of(largest);
        uint words[LIMBS][SPAN_WORDS];
        uint sum = 0;
#pragma unroll
        for (uint i = 0; i < SPAN_WORDS; i++) {
            uint four[4];
#pragma unroll
            for (uint j = 0; j < 4; j++) {
                const uint rounded = as_type<uint>(fma(values[4 * i + j], scaling.up, as_type<float>(EXPONENT_BITS))) - EXPONENT_BITS;
                sum += rounded;
                four[j] = rounded + 0x8080u; // so that the lower bytes less 128 are limbs
            }
#pragma unroll
            for (uint limb = 0; limb < LIMBS; limb++) // columns in the order of bytes in tiles.metal
                words[limb][i] = join_bytes(four[0], four[2], four[1], four[3], limb) ^ (limb < 2 ? 0x80808080u : 0u);
        }
        sum += simd_shuffle_xor(sum, 1);
        sum += simd_shuffle_xor(sum, 2);
        if (index < SIDE) {
#pragma unroll
            for (uint limb = 0; limb < LIMBS; limb++)
                put_words(limbs.words + ((index * LIMBS + limb) * limbs.stride + col) / 4, words[limb]);
            if (lane % 4 == 0) {
                float2 span;
                span.x = scaling.down, span.y = scaling.down * float(as_type<int>(sum));
                limbs.spans[index * (limbs.cols / SPAN) + col / SPAN] = span;
            }
        }
    }
}

// What a lane holds of the inputs of a unit.
struct UnitInputs {
    uint x[ROUNDS][SLOTS][SPAN_WORDS]; // of this lane's column; zeros in spans of the other slot
    float factors[ROUNDS];             // what makes values of the sums of this lane's two columns, which are limbs of one input
    float totals[ROUNDS];              // the sum of the inputs
};

inline void take_unit(Limbs limbs, uint unit, uint lane, thread UnitInputs& to) {
    const uint column = lane / 4, limb = column % 4, index = SIDE == 1 ? 0 : column / 4, slot = SIDE == 1 ? column / 4 : 0;
    const uint pair_index = SIDE == 1 ? 0 : lane % 4 / 2, pair_slot = SIDE == 1 ? lane % 4 / 2 : 0;
#pragma unroll
    for (uint round = 0; round < ROUNDS; round++) {
        const uint first_col = unit * UNIT + round * SLOTS * SPAN;
        uint words[SPAN_WORDS];
        get_words(limbs.words + ((index * LIMBS + min(limb, 2u)) * limbs.stride + first_col + slot * SPAN + lane % 4 * (SPAN / 4)) / 4, words);
#pragma unroll
        for (uint other = 0; other < SLOTS; other++)
#pragma unroll
            for (uint i = 0; i < SPAN_WORDS; i++)
                to.x[round][other][i] = limb < LIMBS && other == slot ? words[i] : 0u;
        const float2 span = limbs.spans[(pair_index * limbs.cols + first_col) / SPAN + pair_slot];
        to.factors[round] = lane % 2 ? span.x * 65536.0f : span.x;
        to.totals[round] = lane % 2 ? 0.0f : span.y;
    }
}

// Scale and bias of a row for a span of the unit.
inline float2 take_scale(threadgroup const uint* scales, uint unit, uint span, uint cols, uint row) {
    const uint col = unit * UNIT + span * SPAN;
    const uint group = UNIT % GROUP == 0 ? span * SPAN / GROUP : col / GROUP - unit * UNIT / GROUP;
    threadgroup const uint* stored = scales + (group * 16 + row) * AFFINE_WORDS;
    float2 result;
#if WEIGHT
    result.x = widen(weight_of_bits(stored[0])), result.y = widen(weight_of_bits(stored[0] >> 16));
#else
    result = *(threadgroup const float2*)stored;
#endif
    if (!WHOLE && col >= cols) // what lies there never came
        result.x = 0, result.y = 0;
    return result;
}

// The products of a piece with the inputs, for rows g and g + 8.
inline void multiply_piece(threadgroup const uint* stage, thread const UnitInputs& inputs, uint unit, uint cols, uint lane,
                           thread float (&sums)[2]) {
    sums[0] = 0, sums[1] = 0;
    TileCodes codes;
#pragma unroll
    for (uint round = 0; round < ROUNDS; round++) {
        int products[4] = {0, 0, 0, 0};
#pragma unroll
        for (uint i = 0; i < SLOTS * SPAN / 32; i++) {
            const uint product = round * (SLOTS * SPAN / 32) + i, slot = i / (SPAN / 32), word = i % (SPAN / 32) * 2;
            if (product % 2 == 0)
                codes = read_tile(stage + product / 2 * (32 * BITS), lane);
            uint a[4];
            decode_bytes(codes, product % 2, a);
            const uint b[2] = {inputs.x[round][slot][word], inputs.x[round][slot][word + 1]};
            tensor_multiply_bytes(products, a, b);
        }
        const uint slot = SIDE == 1 ? lane % 4 / 2 : 0;
#pragma unroll
        for (uint half = 0; half < 2; half++) {
            const float2 by = take_scale(stage + CODE_WORDS, unit, round * SLOTS + slot, cols, lane / 4 + half * 8);
            const float product = float(products[2 * half + 1] * 256 + products[2 * half]);
            const float factor = inputs.factors[round] * (half ? 1.0f / HALF_FACTOR : 1.0f);
            sums[half] = fma(by.x, product * factor, fma(by.y, inputs.totals[round], sums[half]));
        }
    }
}

// Adds a piece's products to the warp's sums of the row tile. // (16, SIDE)
inline void keep_sums(thread const float (&sums)[2], threadgroup float* room, uint lane) {
#pragma unroll
    for (uint half = 0; half < 2; half++) {
        float sum = sums[half];
        sum += simd_shuffle_xor(sum, 1);
        if (SIDE == 1)
            sum += simd_shuffle_xor(sum, 2);
        if (lane % (SIDE == 1 ? 4 : 2) == 0)
            room[(lane / 4 + half * 8) * SIDE + lane % 4 / 2] += sum;
    }
}

KERNEL(tensor_narrow)(
    device const uint* tiles [[buffer(0)]],    // (rows / 16, cols / 64, 32 * BITS)
    device const uint* scales [[buffer(1)]],   // (rows / 16, cols / GROUP, 16 * AFFINE_WORDS): scale, and bias in the upper half or after it
    device const value_t* input [[buffer(2)]], // (inputs, cols)
    device const float* added [[buffer(3)]],   // (rows)
    device output_t* output [[buffer(4)]],     // (inputs, rows)
    PROBLEM(NarrowProblem, 5))
{
    SHARED(ulong, arrivals, WARPS * STAGES);
    SHARED(float, room, MOST_TILES * WARPS * 16 * SIDE); // (row tiles, warps, 16, SIDE)
    SHARED_LARGE(uint, rings, WARPS * STAGES * STAGE_WORDS + SIDE * (LIMBS * limb_stride(problem.cols) / 4 + padded_cols(problem.cols) / SPAN * 2));
    const uint lane = lane_index, warp = simdgroup_index;
    const uint all_tiles = (problem.rows + 15) / 16;
    const uint first_tile = uint(ulong(all_tiles) * group_position.x / group_count.x);
    NarrowWeights weights;
    weights.steps = problem.cols / STEP, weights.groups = problem.cols / GROUP;
    weights.row_tiles = uint(ulong(all_tiles) * (group_position.x + 1) / group_count.x) - first_tile;
    weights.tiles = tiles + ulong(first_tile) * weights.steps * (32 * BITS);
    weights.scales = scales + ulong(first_tile) * weights.groups * GROUP_WORDS;

    const uint pieces = (problem.cols + UNIT - 1) / UNIT * weights.row_tiles;
    const uint begin = pieces * warp / WARPS, end = pieces * (warp + 1) / WARPS;
    threadgroup uint* ring = rings + warp * STAGES * STAGE_WORDS;
    threadgroup ulong* arrival = arrivals + warp * STAGES;
    Place ahead;
    ahead.unit = begin / weights.row_tiles, ahead.tile = begin % weights.row_tiles;
    Place place = ahead;
    prepare_arrivals(arrival, STAGES, lane);
#pragma unroll
    for (uint i = 0; i < STAGES; i++) {
        // PACE at a time: what the launch before has still to write must not queue behind all of them.
        if (i >= PACE && begin + i < end)
            wait_arrival<PACE - 1>(arrival + i - PACE, 0);
        if (begin + i < end)
            fetch(weights, ahead, ring + i * STAGE_WORDS, arrival + i, lane);
        copied_piece();
    }
    for (uint i = thread_index; i < weights.row_tiles * WARPS * 16 * SIDE; i += THREADS)
        room[i] = 0;
    Limbs limbs;
    limbs.cols = padded_cols(problem.cols), limbs.stride = limb_stride(problem.cols);
    limbs.words = rings + WARPS * STAGES * STAGE_WORDS;
    limbs.spans = (threadgroup float2*)(limbs.words + SIDE * LIMBS * limbs.stride / 4);
    if (!problem.overlaps)
        wait_for_previous();
    // The next launch may begin when this one has asked for its last pieces: then it asks for its first, and memory stays busy.
    const bool tells = warp == WARPS - 1; // has the most pieces
    if (tells && end - begin <= STAGES)
        launch_dependents();

    const uint first_input = group_position.y * SIDE;
    split_inputs(input + ulong(first_input) * problem.cols, problem.cols, problem.inputs - first_input, limbs, lane, warp);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    UnitInputs inputs;
    uint stage = 0, turn = 0;
    for (uint i = begin; i < end; i++) {
        if (i == begin || place.tile == 0)
            take_unit(limbs, place.unit, lane, inputs);
        wait_arrival<STAGES - 1>(arrival + stage, turn);
        float sums[2];
        multiply_piece(ring + stage * STAGE_WORDS, inputs, place.unit, problem.cols, lane, sums);
        simdgroup_barrier(mem_flags::mem_threadgroup);
        if (i + STAGES < end)
            fetch(weights, ahead, ring + stage * STAGE_WORDS, arrival + stage, lane);
        copied_piece();
        if (tells && i + STAGES + 1 == end)
            launch_dependents();
        keep_sums(sums, room + (place.tile * WARPS + warp) * (16 * SIDE), lane);
        step_on(place, weights.row_tiles);
        stage++;
        if (stage == STAGES)
            stage = 0, turn++;
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);

    const uint rows = weights.row_tiles * 16, here = min(uint(SIDE), problem.inputs - first_input);
    for (uint at = thread_index; at < rows * here; at += THREADS) {
        const uint index = at / rows, row = at % rows, whole_row = first_tile * 16 + row;
        if (whole_row < problem.rows) {
            float sum = ADDED ? added[whole_row] : 0.0f;
#pragma unroll
            for (uint other = 0; other < WARPS; other++)
                sum += room[(row / 16 * WARPS + other) * (16 * SIDE) + row % 16 * SIDE + index];
            output[ulong(first_input + index) * problem.rows + whole_row] = narrow<output_t>(sum);
        }
    }
    if (problem.overlaps)
        wait_for_previous();
}
