// The products of stack.metal on CUDA's tensor cores, for packed and plain matrices as they are stored. Codes become 16-bit floats
// exactly (OFFSET + code) in registers, products are summed in f32, scale and bias are applied to the sums of each group (as in
// the other tensor-core kernels). A threadgroup takes 64 inputs and 128 rows of a matrix; PAIRED: 64 rows of each of two stacks,
// whose results become activation(gate) * up.
// Grid: (rows / (128 or 64) rounded up, tiles, heads or 1); 128 threads.
// Defines: THREADS (128), TILE (64), VALUE (1 or 2), WEIGHT (1 or 2; of plain matrices as VALUE), BITS, GROUP (32 or a multiple of
// 64), ADDED, ROUTED, PAIRED, ACTIVATION, ALIGNED (outputs lie at multiples of 16 bytes), THREADGROUPS.

struct StackTensorProblem {
    StackProblem stack;
    Factors factors;
};

#define STEP 64                            // columns at a time
#if BITS
#define SPAN (GROUP < STEP ? GROUP : STEP) // columns of a step that share a scale
#else
#define SPAN STEP
#endif
#define SPANS (STEP / SPAN)
#define RUN (SPAN / 4)                     // neighbouring columns of a span that a lane holds
#define ROW_STRIDE (STEP + 8)              // of an input in threadgroup memory: away from bank conflicts
#define ROWS (PAIRED ? 64 : 128)
#define OUT_STRIDE (ROWS + 8)
#define BLOCKS (TILE / 8)

#if VALUE == 1
#define tensor_multiply tensor_multiply_f16
#define unpack_value unpack_f16
#define EXACT_OFFSET (1 << BITS)
#define UP (10 - BITS)
#define MAGIC (0x10001u * ((15u + BITS) << 10))
#else
#define tensor_multiply tensor_multiply_bf16
#define unpack_value unpack_bf16
#define EXACT_OFFSET (BITS == 8 ? 0 : 1 << BITS)
#define UP (BITS == 8 ? 0 : 7 - BITS)
#define MAGIC (0x10001u * ((127u + BITS) << 7))
#endif

#if BITS
#define RUN_BITS (RUN * BITS)
// Words that a run may touch: it begins at a multiple of its own bits.
#define RUN_SHIFT (RUN_BITS % 32 == 0 ? 0 : RUN_BITS % 16 == 0 ? 16 : 24)
#define RUN_WORDS ((RUN_BITS + RUN_SHIFT + 31) / 32)
#else
#define RUN_WORDS (RUN / 2)
#endif

// A lane's weights of one row of a step.
struct RowCodes {
    uint words[SPANS][RUN_WORDS];
    float2 affine[SPANS]; // scale and bias of OFFSET + code
};

inline uint shift_right(uint word, int by) { return by >= 0 ? word >> by : word << -by; }

#if BITS
// The words of a lane's run from its first code on. `codes`: of the row; `last`: of its words.
inline void load_run(device const uint* codes, uint last, uint bit, thread uint (&words)[RUN_WORDS]) {
    const uint first = bit / 32;
#if RUN_SHIFT == 0
#pragma unroll
    for (uint i = 0; i < RUN_WORDS; i++)
        words[i] = codes[first + i];
#else
    const uint shift = bit % 32;
    uint raw[RUN_WORDS + 1];
#pragma unroll
    for (uint i = 0; i < RUN_WORDS; i++)
        raw[i] = codes[min(first + i, last)]; // past the row there is nothing of this run
    raw[RUN_WORDS] = 0;
#pragma unroll
    for (uint i = 0; i < RUN_WORDS; i++)
        words[i] = shift ? raw[i] >> shift | raw[i + 1] << (32 - shift) : raw[i];
#endif
}

// Code `index` of a run, moved to bit `to`.
inline uint code_at(thread const uint (&words)[RUN_WORDS], uint index, int to) {
    const uint bit = index * BITS, word = bit / 32, shift = bit % 32, mask = ((1u << BITS) - 1u) << to;
    if (shift + BITS <= 32)
        return shift_right(words[word], int(shift) - to) & mask;
    const uint both = words[word] >> shift | words[word + 1 < RUN_WORDS ? word + 1 : word] << (32 - shift);
    return both << to & mask;
}
#endif

// Columns 2 * pair and the next of a run as 16-bit floats.
inline uint pair_at(thread const uint (&words)[RUN_WORDS], uint pair) {
#if BITS == 0
    return words[pair];
#elif BITS == 8 && VALUE == 2
    // 2^23 + code, less 2^23: the upper half of its bits is the bf16.
    const float low = as_type<float>(0x4b000000u | code_at(words, 2 * pair, 0)) - 8388608.0f;
    const float high = as_type<float>(0x4b000000u | code_at(words, 2 * pair + 1, 0)) - 8388608.0f;
    return as_type<uint>(low) >> 16 | (as_type<uint>(high) & 0xffff0000u);
#else
    return code_at(words, 2 * pair, UP) | code_at(words, 2 * pair + 1, 16 + UP) | MAGIC;
#endif
}

// The first of a lane's 4 columns of a product (16 columns): its columns of a span are neighbours.
inline uint product_col(uint quarter, uint product) {
    return product / (SPAN / 16) * SPAN + quarter * RUN + product % (SPAN / 16) * 4;
}

inline RowCodes load_row(Weights weights, ulong row, uint step, uint quarter) {
    RowCodes loaded;
#pragma unroll
    for (uint span = 0; span < SPANS; span++) {
        const uint col = step * STEP + span * SPAN;
#if BITS
        const uint words_each = weights.cols / 32 * BITS;
        load_run(weights.codes + row * words_each, words_each - 1, (col + quarter * RUN) * BITS, loaded.words[span]);
        const ulong group = row * (weights.cols / GROUP) + col / GROUP;
        const float scale = widen(weights.scales[group]);
        loaded.affine[span].x = scale;
        loaded.affine[span].y = fma(-float(EXACT_OFFSET), scale, widen(weights.biases[group]));
#else
        device const uint4* from =
            (device const uint4*)((device const weight_t*)weights.codes + row * weights.cols + col + quarter * RUN);
#pragma unroll
        for (uint i = 0; i < RUN_WORDS / 4; i++) {
            const uint4 four = from[i];
            loaded.words[span][4 * i] = four.x, loaded.words[span][4 * i + 1] = four.y;
            loaded.words[span][4 * i + 2] = four.z, loaded.words[span][4 * i + 3] = four.w;
        }
        loaded.affine[span].x = 1.0f, loaded.affine[span].y = 0.0f;
#endif
    }
    return loaded;
}

// Where the pieces of 8 columns that a thread brings come from.
struct Pieces {
    device const value_t* at[TILE * 8 / THREADS];
};

inline void fetch(thread const Pieces& pieces, uint count, uint step, threadgroup value_t* room, uint thread_number) {
#pragma unroll
    for (uint i = 0; i < TILE * 8 / THREADS; i++) {
        const uint piece = i * THREADS + thread_number, index = piece / 8, col = piece % 8 * 8;
        copy_async((threadgroup uint4*)(room + index * ROW_STRIDE + col), (device const uint4*)(pieces.at[i] + step * STEP),
                   index < count);
    }
    copy_async_commit();
}

// Sums of 32 columns of an input: 2 threads each.
inline float sum32(threadgroup const value_t* values) {
    float total = 0;
#pragma unroll
    for (uint i = 0; i < 32; i += 8) {
        const uint4 four = *(threadgroup const uint4*)(values + i);
        const float2 a = unpack_value(four.x), b = unpack_value(four.y), c = unpack_value(four.z), d = unpack_value(four.w);
        total += ((a.x + a.y) + (b.x + b.y)) + ((c.x + c.y) + (d.x + d.y));
    }
    return total;
}

KERNEL(stack_tensor)(
    device const uint* codes [[buffer(0)]],        // (count, rows, cols * BITS / 32), or plain values
    device const weight_t* scales [[buffer(1)]],   // (count, rows, cols / GROUP)
    device const weight_t* biases [[buffer(2)]],   // (count, rows, cols / GROUP)
    device const uint* up_codes [[buffer(3)]],     // likewise, of the second stack
    device const weight_t* up_scales [[buffer(4)]],
    device const weight_t* up_biases [[buffer(5)]],
    device const value_t* input [[buffer(6)]],
    device const float* added [[buffer(7)]],       // (count, rows)
    device const float* up_added [[buffer(8)]],    // (count, rows)
    device const uint* order [[buffer(9)]],        // (entries)
    device const uint* tiles [[buffer(10)]],       // (tiles, 3)
    device value_t* output [[buffer(11)]],
    PROBLEM(StackTensorProblem, 12))
{
    SHARED(uint4, room, 2 * TILE * ROW_STRIDE / 8); // inputs, twice; at the end the results (inputs, rows)
    SHARED(float, totals, 2 * TILE);                // of columns 0..32 and 32..64
    launch_dependents();
    wait_for_previous();
    threadgroup value_t* inputs_room = (threadgroup value_t*)room;
    const StackProblem stack = problem.stack;
    const StackTile tile = tile_at(tiles, group_position.y, group_position.z, stack.inputs);
    if (tile.count == 0)
        return; // the whole threadgroup: the table has room for more tiles than there are
    const uint lane = lane_index, quarter = lane % 4, steps = stack.cols / STEP, first_row = group_position.x * ROWS;
    Weights sources[2];
    sources[0].codes = codes, sources[0].scales = scales, sources[0].biases = biases, sources[0].cols = stack.cols;
    sources[1] = sources[0];
    if (PAIRED)
        sources[1].codes = up_codes, sources[1].scales = up_scales, sources[1].biases = up_biases;
    // Rows of this warp's two tiles of 16: neighbours, or the same rows of both stacks.
    uint tile_rows[2];
    tile_rows[0] = first_row + simdgroup_index * (PAIRED ? 16 : 32);
    tile_rows[1] = tile_rows[0] + (PAIRED ? 0 : 16);
    ulong stored_rows[2][2];
#pragma unroll
    for (uint i = 0; i < 4; i++)
        stored_rows[i / 2][i % 2] =
            ulong(tile.matrix) * stack.rows + min(tile_rows[i / 2] + lane / 4 + i % 2 * 8, stack.rows - 1);
    Pieces pieces;
#pragma unroll
    for (uint i = 0; i < TILE * 8 / THREADS; i++) {
        const uint piece = i * THREADS + thread_index;
        pieces.at[i] = input + input_offset(order, tile, piece / 8, stack) + piece % 8 * 8;
    }

    float sums[2][BLOCKS][4];
#pragma unroll
    for (uint i = 0; i < 2 * BLOCKS * 4; i++)
        sums[i / (4 * BLOCKS)][i / 4 % BLOCKS][i % 4] = 0;
    RowCodes loaded[2][2];
#pragma unroll
    for (uint i = 0; i < 4; i++)
        loaded[i / 2][i % 2] = load_row(sources[i / 2], stored_rows[i / 2][i % 2], 0, quarter);
    fetch(pieces, tile.count, 0, inputs_room, thread_index);

    for (uint step = 0; step < steps; step++) {
        threadgroup value_t* here = inputs_room + step % 2 * TILE * ROW_STRIDE;
        copy_async_wait();
        threadgroup_barrier(mem_flags::mem_threadgroup);
        if (step + 1 < steps)
            fetch(pieces, tile.count, step + 1, inputs_room + (step + 1) % 2 * TILE * ROW_STRIDE, thread_index);
        if (BITS)
            totals[thread_index] = sum32(here + thread_index % TILE * ROW_STRIDE + thread_index / TILE * 32);

        uint a[2][4][4];
        float2 affine[2][2][SPANS];
#pragma unroll
        for (uint part = 0; part < 2; part++) {
#pragma unroll
            for (uint product = 0; product < 4; product++)
#pragma unroll
                for (uint i = 0; i < 4; i++)
                    a[part][product][i] = pair_at(loaded[part][i % 2].words[product / (SPAN / 16)],
                                                  product % (SPAN / 16) * 2 + i / 2);
#pragma unroll
            for (uint i = 0; i < 2; i++) {
#pragma unroll
                for (uint span = 0; span < SPANS; span++)
                    affine[part][i][span] = loaded[part][i].affine[span];
                if (step + 1 < steps)
                    loaded[part][i] = load_row(sources[part], stored_rows[part][i], step + 1, quarter);
            }
        }
        if (BITS)
            threadgroup_barrier(mem_flags::mem_threadgroup);

#pragma unroll
        for (uint block = 0; block < BLOCKS; block++) {
            threadgroup const value_t* row = here + (block * 8 + lane / 4) * ROW_STRIDE;
            uint x[8];
#pragma unroll
            for (uint i = 0; i < 2; i++) {
                const uint4 four = *(threadgroup const uint4*)(row + product_col(quarter, 2 * i));
                x[4 * i] = four.x, x[4 * i + 1] = four.y, x[4 * i + 2] = four.z, x[4 * i + 3] = four.w;
            }
#pragma unroll
            for (uint span = 0; span < SPANS; span++) {
                float products[2][4];
#pragma unroll
                for (uint i = 0; i < 8; i++)
                    products[i / 4][i % 4] = BITS ? 0.0f : sums[i / 4][block][i % 4];
#pragma unroll
                for (uint i = 0; i < SPAN / 16; i++) {
                    const uint product = span * (SPAN / 16) + i;
                    const uint b[2] = {x[2 * product], x[2 * product + 1]};
#pragma unroll
                    for (uint part = 0; part < 2; part++)
                        tensor_multiply(products[part], a[part][product], b);
                }
#if BITS
                float2 total = *(threadgroup const float2*)(totals + (SPANS == 2 ? span * TILE : 0) + block * 8 + quarter * 2);
                if (SPANS == 1) {
                    const float2 more = *(threadgroup const float2*)(totals + TILE + block * 8 + quarter * 2);
                    total.x += more.x, total.y += more.y;
                }
#endif
#pragma unroll
                for (uint i = 0; i < 8; i++) {
#if BITS
                    const float2 by = affine[i / 4][i % 4 / 2][span];
                    const float rest = fma(by.y, i % 2 ? total.y : total.x, sums[i / 4][block][i % 4]);
                    sums[i / 4][block][i % 4] = fma(by.x, products[i / 4][i % 4], rest);
#else
                    sums[i / 4][block][i % 4] = products[i / 4][i % 4];
#endif
                }
            }
        }
    }

    // Results go through threadgroup memory, so that neighbours are written together.
    threadgroup_barrier(mem_flags::mem_threadgroup);
#pragma unroll
    for (uint i = 0; i < 2 * BLOCKS * 4; i++) {
        const uint part = i / (4 * BLOCKS), block = i / 4 % BLOCKS, slot = i % 4;
        if (PAIRED && part == 1)
            continue; // used with part 0
        const uint index = block * 8 + quarter * 2 + slot % 2, row = tile_rows[part] + lane / 4 + slot / 2 * 8;
        const ulong bias_at = ulong(tile.matrix) * stack.rows + min(row, stack.rows - 1);
        float value = ADDED ? sums[part][block][slot] + added[bias_at] : sums[part][block][slot];
        if (PAIRED) {
            const float up = ADDED ? sums[1][block][slot] + up_added[bias_at] : sums[1][block][slot];
            value = activate(value, problem.factors) * gate_factor(up, problem.factors);
        }
        inputs_room[index * OUT_STRIDE + row - first_row] = narrow<value_t>(value);
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (uint piece = thread_index; piece < TILE * ROWS / 8; piece += THREADS) {
        const uint index = piece / (ROWS / 8), row = first_row + piece % (ROWS / 8) * 8;
        if (index >= tile.count || row >= stack.rows)
            continue;
        threadgroup const value_t* from = inputs_room + index * OUT_STRIDE + row - first_row;
        device value_t* to = output + output_offset(order, tile, index, stack) + row;
        if (ALIGNED)
            *(device uint4*)to = *(threadgroup const uint4*)from;
        else
            for (uint i = 0; i < min(8u, stack.rows - row); i++)
                to[i] = from[i];
    }
}
