// CUDA's tensor cores (mma.sync, 16 rows x 16 columns x 8 inputs) on packed weights in an order of their own. Codes become 16-bit
// floats exactly (OFFSET + code, by a mask and an exponent), products are summed in f32, and scale and bias are applied to the
// sums of each group: output = scale * sum((OFFSET + code) x) + (bias - OFFSET * scale) * sum(x). Sums of x are products with ones.
// The order ("tiles"): 16 rows x 64 columns are 128 * BITS bytes; a lane's 32 codes lie together, as planes of 4 (or 2) bits and
// the bits above them, so that a shift and a mask bring two codes into the halves of a word. `tensor_repack` makes it.
// Few inputs (tensor_matmul): a threadgroup takes 16 * TILES rows, its warps share the columns.
// Grids: tensor_matmul (rows / (16 * TILES), inputs / (8 * BLOCKS), 1); tensor_repack (rows / 16, cols / 64, 1); rounded up.
// Defines: THREADS, VALUE (1 or 2), OUTPUT, WEIGHT (1 or 2), BITS, GROUP (32 or a multiple of 64), BLOCKS, ADDED, TILES (row tiles of a warp that
// share its inputs), AHEAD (steps that a warp reads at once), THREADGROUPS.

struct TensorProblem {
    uint rows;
    uint cols; // a multiple of 64
    uint inputs;
};

#define WARPS (THREADS / 32)
#define STEP 64                             // columns of a tile
#define SPAN (GROUP < STEP ? GROUP : STEP)  // columns of a tile that share a scale
#define SPANS (STEP / SPAN)
#define LOW_BITS (BITS == 8 ? 8 : BITS >= 4 ? 4 : 2) // of the first plane
#define HIGH_BITS (BITS - LOW_BITS)
#define ROWS (16 * TILES)
#define TWO_PRODUCTS (BITS == 8 && VALUE == 2) // bf16 holds 7 bits beside the offset: nibbles apart

// A code lies in the upper bits of the fraction of a number between 2^BITS and 2^(BITS + 1).
#if VALUE == 1
#define UP (10 - BITS)
#define MAGIC (0x10001u * ((15u + BITS) << 10))
#define ONES 0x3c003c00u
#define unpack_value unpack_f16
#define tensor_multiply tensor_multiply_f16
#else
#define UP (TWO_PRODUCTS ? 3 : 7 - BITS)
#define MAGIC (TWO_PRODUCTS ? 0x41804180u : 0x10001u * ((127u + BITS) << 7))
#define MAGIC_UPPER 0x43804380u // 256 + 16 * code
#define ONES 0x3f803f80u
#define unpack_value unpack_bf16
#define tensor_multiply tensor_multiply_bf16
#endif
#define OFFSET (TWO_PRODUCTS ? 272.0f : float(1 << BITS))

// A lane's 32 codes of a tile: products 0..4 of 8 codes, each of 4 pairs (rows g, g + 8, g, g + 8; columns 0, 0, 2, 2 and next).
struct TileCodes {
    uint low[LOW_BITS];
#if HIGH_BITS
    uint high[HIGH_BITS];
#endif
};

#define LANE_WORDS (LOW_BITS < 4 ? LOW_BITS : 4) // that a lane reads at once

// `tile`: this lane's first word of one.
inline TileCodes load_tile(device const uint* tile, uint lane) {
    TileCodes codes;
#if LOW_BITS == 2
    uint2 two = load_once((device const uint2*)tile);
    codes.low[0] = two.x, codes.low[1] = two.y;
#else
#pragma unroll
    for (uint i = 0; i < LOW_BITS / 4; i++) {
        uint4 four = load_once((device const uint4*)(tile + 128 * i));
        codes.low[4 * i] = four.x, codes.low[4 * i + 1] = four.y, codes.low[4 * i + 2] = four.z, codes.low[4 * i + 3] = four.w;
    }
#endif
#if HIGH_BITS == 1
    codes.high[0] = load_once(tile + (32 * LOW_BITS + lane - LANE_WORDS * lane));
#elif HIGH_BITS == 2
    uint2 above = load_once((device const uint2*)(tile + (32 * LOW_BITS + 2 * lane - LANE_WORDS * lane)));
    codes.high[0] = above.x, codes.high[1] = above.y;
#endif
    return codes;
}

inline uint shift_right(uint word, int by) { return by >= 0 ? word >> by : word << -by; }

// `count` bits from bit `from` on of the pair of codes (product, pair) of a plane of `bits`, moved to bit `to` of both halves.
template <int bits, int from, int count, int to> inline uint plane_pair(thread const uint* plane, int product, int pair) {
    const int index = product * 4 + pair, per_word = 16 / bits;
    const uint mask = ((1u << count) - 1u) * 0x10001u << to;
    return shift_right(plane[index / per_word], index % per_word * bits + from - to) & mask;
}

// OFFSET + code of the pairs of one product; with TWO_PRODUCTS 16 + lower nibble.
inline void decode_product(thread const TileCodes& codes, int product, thread uint (&a)[4]) {
#pragma unroll
    for (int pair = 0; pair < 4; pair++) {
        a[pair] = plane_pair<LOW_BITS, 0, TWO_PRODUCTS ? 4 : LOW_BITS, UP>(codes.low, product, pair) | MAGIC;
#if HIGH_BITS
        a[pair] |= plane_pair<HIGH_BITS, 0, HIGH_BITS, UP + LOW_BITS>(codes.high, product, pair);
#endif
    }
}
#if TWO_PRODUCTS
// 256 + 16 * upper nibble.
inline void decode_upper(thread const TileCodes& codes, int product, thread uint (&a)[4]) {
#pragma unroll
    for (int pair = 0; pair < 4; pair++)
        a[pair] = plane_pair<8, 4, 4, 3>(codes.low, product, pair) | MAGIC_UPPER;
}
#endif

// The first of a lane's 4 columns of a product: its columns of a span are neighbours, so that inputs are read 8 or 16 at once.
inline uint product_col(uint quarter, uint product) {
    return product / (SPAN / 16) * SPAN + quarter * (SPAN / 4) + product % (SPAN / 16) * 4;
}

// A lane's 16 values of one input row for a tile, as the words of 4 products.
inline void load_inputs(device const value_t* first, bool exists, thread uint (&words)[8]) {
#pragma unroll
    for (uint i = 0; i < 2; i++) {
        uint4 four = {0, 0, 0, 0};
        if (exists)
            four = *(device const uint4*)(first + product_col(0, 2 * i));
        words[4 * i] = four.x, words[4 * i + 1] = four.y, words[4 * i + 2] = four.z, words[4 * i + 3] = four.w;
    }
}

// A tile with the scales of this lane's rows g and g + 8 for each span, as (scale, bias) in a word.
struct LoadedTile {
    TileCodes codes;
    uint scales[SPANS][2];
};

// `from`: the scales of the row tile, from this lane's row on.
inline void load_scales(device const uint* from, uint step, thread uint (&scales)[SPANS][2]) {
#pragma unroll
    for (uint span = 0; span < SPANS; span++) {
        const uint group = (step * STEP + span * SPAN) / GROUP;
        scales[span][0] = from[group * 16];
        scales[span][1] = from[group * 16 + 8];
    }
}

inline LoadedTile load_step(device const uint* row_tiles, device const uint* scales, uint step, uint lane) {
    LoadedTile loaded;
    loaded.codes = load_tile(row_tiles + step * (32 * BITS), lane);
    load_scales(scales, step, loaded.scales);
    return loaded;
}

struct RowTiles {
    device const uint* at[TILES];
};

// The tiles of one step, where there is one, and on to the warp's next.
inline void load_steps(thread RowTiles& tiles, thread const RowTiles& scales, uint step, uint steps, uint lane,
                       thread LoadedTile (&loaded)[TILES]) {
    if (step < steps) {
#pragma unroll
        for (uint tile = 0; tile < TILES; tile++) {
            loaded[tile].codes = load_tile(tiles.at[tile], lane);
            load_scales(scales.at[tile], step, loaded[tile].scales);
            tiles.at[tile] += WARPS * 32 * BITS;
        }
    }
}

// The scale of a stored pair, and the bias of OFFSET + code.
inline float2 scale_and_bias(uint stored) {
    float2 result;
    result.x = widen(weight_of_bits(stored));
    result.y = fma(-OFFSET, result.x, widen(weight_of_bits(stored >> 16)));
    return result;
}

// Adds the products of the warp's row tiles at one step.
inline void add_step(thread const LoadedTile (&loaded)[TILES], device const value_t* input, uint cols, uint inputs,
                     uint lane, thread float (&sums)[TILES][BLOCKS][4]) {
    const uint ones[4] = {ONES, ONES, ONES, ONES};
    uint x[BLOCKS][8];
    float totals[BLOCKS][SPANS][4];
#pragma unroll
    for (uint block = 0; block < BLOCKS; block++) {
        load_inputs(input + ulong(block * 8) * cols, block * 8 + lane / 4 < inputs, x[block]);
#pragma unroll
        for (uint span = 0; span < SPANS; span++) {
#pragma unroll
            for (uint i = 0; i < 4; i++)
                totals[block][span][i] = 0;
#pragma unroll
            for (uint i = 0; i < SPAN / 16; i++) {
                const uint product = span * (SPAN / 16) + i;
                const uint b[2] = {x[block][2 * product], x[block][2 * product + 1]};
                tensor_multiply(totals[block][span], ones, b);
            }
        }
    }
#pragma unroll
    for (uint tile = 0; tile < TILES; tile++) {
#pragma unroll
        for (uint span = 0; span < SPANS; span++) {
            float products[BLOCKS][4];
#pragma unroll
            for (uint block = 0; block < BLOCKS; block++)
#pragma unroll
                for (uint i = 0; i < 4; i++)
                    products[block][i] = 0;
#pragma unroll
            for (uint i = 0; i < SPAN / 16; i++) {
                const uint product = span * (SPAN / 16) + i;
                uint a[4];
                decode_product(loaded[tile].codes, product, a);
#if TWO_PRODUCTS
                uint upper[4];
                decode_upper(loaded[tile].codes, product, upper);
#endif
#pragma unroll
                for (uint block = 0; block < BLOCKS; block++) {
                    const uint b[2] = {x[block][2 * product], x[block][2 * product + 1]};
                    tensor_multiply(products[block], a, b);
#if TWO_PRODUCTS
                    tensor_multiply(products[block], upper, b);
#endif
                }
            }
#pragma unroll
            for (uint i = 0; i < 4; i++) {
                const float2 affine = scale_and_bias(loaded[tile].scales[span][i / 2]);
#pragma unroll
                for (uint block = 0; block < BLOCKS; block++) {
                    const float rest = fma(affine.y, totals[block][span][i], sums[tile][block][i]);
                    sums[tile][block][i] = fma(affine.x, products[block][i], rest);
                }
            }
        }
    }
}

KERNEL(tensor_matmul)(
    device const uint* tiles [[buffer(0)]],    // (rows / 16, cols / 64, 32 * BITS)
    device const uint* scales [[buffer(1)]],   // (rows / 16, cols / GROUP, 16): scale, and bias in the upper half
    device const value_t* input [[buffer(2)]], // (inputs, cols)
    device const float* added [[buffer(3)]],   // (rows)
    device output_t* output [[buffer(4)]],     // (inputs, rows)
    PROBLEM(TensorProblem, 5))
{
    SHARED(float, room, WARPS * ROWS * 8 * BLOCKS);
    const uint lane = lane_index, steps = problem.cols / STEP, groups = problem.cols / GROUP;
    const uint first_input = group_position.y * 8 * BLOCKS, inputs = problem.inputs - first_input;
    const uint last_tile = (problem.rows + 15) / 16 - 1;
    RowTiles row_tiles, row_scales;
#pragma unroll
    for (uint tile = 0; tile < TILES; tile++) {
        const ulong index = min(group_position.x * TILES + tile, last_tile);
        row_tiles.at[tile] = tiles + (index * steps + simdgroup_index) * (32 * BITS);
        row_scales.at[tile] = scales + index * groups * 16 + lane / 4;
    }
    device const value_t* first = input + ulong(first_input + lane / 4) * problem.cols + simdgroup_index * STEP +
                                   product_col(lane % 4, 0);

    float sums[TILES][BLOCKS][4];
#pragma unroll
    for (uint tile = 0; tile < TILES; tile++)
#pragma unroll
        for (uint block = 0; block < BLOCKS; block++)
#pragma unroll
            for (uint i = 0; i < 4; i++)
                sums[tile][block][i] = 0;

#pragma unroll
    for (uint tile = 0; tile < TILES; tile++)
        row_tiles.at[tile] += LANE_WORDS * lane;
    // Warps take steps in turn, AHEAD of them at a time: all are read before the first is used.
    for (uint begin = simdgroup_index; begin < steps; begin += WARPS * AHEAD) {
        LoadedTile loaded[AHEAD][TILES];
#pragma unroll
        for (uint i = 0; i < AHEAD; i++)
            load_steps(row_tiles, row_scales, begin + WARPS * i, steps, lane, loaded[i]);
#pragma unroll
        for (uint i = 0; i < AHEAD; i++) {
            if (begin + WARPS * i < steps)
                add_step(loaded[i], first, problem.cols, inputs, lane, sums);
            first += WARPS * STEP;
        }
    }

    // Sums of the warps. // (WARPS, inputs, ROWS)
#pragma unroll
    for (uint tile = 0; tile < TILES; tile++)
#pragma unroll
        for (uint block = 0; block < BLOCKS; block++)
#pragma unroll
            for (uint i = 0; i < 4; i++) {
                const uint index = block * 8 + lane % 4 * 2 + i % 2, row = tile * 16 + lane / 4 + i / 2 * 8;
                if (index < inputs)
                    room[(simdgroup_index * 8 * BLOCKS + index) * ROWS + row] = sums[tile][block][i];
            }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (uint at = thread_index; at < ROWS * min(inputs, uint(8 * BLOCKS)); at += THREADS) {
        const uint index = first_input + at / ROWS, row = group_position.x * ROWS + at % ROWS;
        if (row < problem.rows) {
            float sum = ADDED ? added[row] : 0.0f;
#pragma unroll
            for (uint warp = 0; warp < WARPS; warp++)
                sum += room[warp * ROWS * 8 * BLOCKS + at];
            output[ulong(index) * problem.rows + row] = narrow<output_t>(sum);
        }
    }
}

#define WIDE_INPUTS 128
#define WIDE_BLOCKS (WIDE_INPUTS / 8)
#define WIDE_TILES 2                       // row tiles of a warp
#define WIDE_ROWS (4 * WIDE_TILES * 16)    // of 4 warps
#define WIDE_STRIDE (STEP + 8)             // of an input in threadgroup memory: away from bank conflicts

// Brings 64 columns of WIDE_INPUTS inputs; those past the last are zeros. 128 threads.
inline void fetch_inputs(device const value_t* input, uint cols, uint inputs, threadgroup value_t* room, uint thread_number) {
#pragma unroll
    for (uint i = 0; i < WIDE_INPUTS * 8 / 128; i++) {
        const uint piece = i * 128 + thread_number, index = piece / 8, col = piece % 8 * 8;
        device const value_t* from = input + ulong(index < inputs ? index : 0) * cols + col;
        copy_async((threadgroup uint4*)(room + index * WIDE_STRIDE + col), (device const uint4*)from, index < inputs);
    }
    copy_async_commit();
}

// Sums of the spans of one input in threadgroup memory.
inline void sum_spans(threadgroup const value_t* row, threadgroup float* totals) {
#pragma unroll
    for (uint span = 0; span < SPANS; span++) {
        float total = 0;
#pragma unroll
        for (uint i = 0; i < SPAN; i += 8) {
            const uint4 four = *(threadgroup const uint4*)(row + span * SPAN + i);
            const float2 a = unpack_value(four.x), b = unpack_value(four.y), c = unpack_value(four.z), d = unpack_value(four.w);
            total += ((a.x + a.y) + (b.x + b.y)) + ((c.x + c.y) + (d.x + d.y));
        }
        totals[span * WIDE_INPUTS] = total;
    }
}

// Many inputs: 4 warps share 128 inputs in threadgroup memory, each decodes 32 rows in registers.
// Grid: (inputs / 128, rows / 128, 1), rounded up; 128 threads.
KERNEL_OF(128, tensor_matmul_wide)(
    device const uint* tiles [[buffer(0)]],    // as above
    device const uint* scales [[buffer(1)]],
    device const value_t* input [[buffer(2)]], // (inputs, cols)
    device const float* added [[buffer(3)]],   // (rows)
    device output_t* output [[buffer(4)]],     // (inputs, rows)
    PROBLEM(TensorProblem, 5))
{
    SHARED(uint4, room, 2 * WIDE_INPUTS * WIDE_STRIDE / 8);
    SHARED(float, totals, SPANS * WIDE_INPUTS);
    threadgroup value_t* inputs_room = (threadgroup value_t*)room;
    const uint lane = lane_index, steps = problem.cols / STEP, groups = problem.cols / GROUP;
    const uint first_input = group_position.x * WIDE_INPUTS;
    const uint first_tile = group_position.y * (WIDE_ROWS / 16) + simdgroup_index * WIDE_TILES;
    const uint last_tile = (problem.rows + 15) / 16 - 1;
    device const value_t* first = input + ulong(first_input) * problem.cols;
    const uint inputs = problem.inputs - first_input;

    float sums[WIDE_TILES][WIDE_BLOCKS][4];
#pragma unroll
    for (uint tile = 0; tile < WIDE_TILES; tile++)
#pragma unroll
        for (uint block = 0; block < WIDE_BLOCKS; block++)
#pragma unroll
            for (uint i = 0; i < 4; i++)
                sums[tile][block][i] = 0;

    LoadedTile loaded[WIDE_TILES];
#pragma unroll
    for (uint tile = 0; tile < WIDE_TILES; tile++) {
        const ulong index = min(first_tile + tile, last_tile);
        loaded[tile] = load_step(tiles + index * steps * (32 * BITS) + LANE_WORDS * lane, scales + index * groups * 16 + lane / 4, 0, lane);
    }
    fetch_inputs(first, problem.cols, inputs, inputs_room, thread_index);

    for (uint step = 0; step < steps; step++) {
        threadgroup value_t* here = inputs_room + step % 2 * WIDE_INPUTS * WIDE_STRIDE;
        copy_async_wait();
        threadgroup_barrier(mem_flags::mem_threadgroup);
        if (step + 1 < steps)
            fetch_inputs(first + (step + 1) * STEP, problem.cols, inputs,
                         inputs_room + (step + 1) % 2 * WIDE_INPUTS * WIDE_STRIDE, thread_index);
        sum_spans(here + thread_index * WIDE_STRIDE, totals + thread_index);

        uint a[WIDE_TILES][4][4];
        float2 affine[WIDE_TILES][SPANS][2];
#if TWO_PRODUCTS
        uint upper[WIDE_TILES][4][4];
#endif
#pragma unroll
        for (uint tile = 0; tile < WIDE_TILES; tile++) {
#pragma unroll
            for (int product = 0; product < 4; product++) {
                decode_product(loaded[tile].codes, product, a[tile][product]);
#if TWO_PRODUCTS
                decode_upper(loaded[tile].codes, product, upper[tile][product]);
#endif
            }
#pragma unroll
            for (uint span = 0; span < SPANS; span++)
#pragma unroll
                for (uint i = 0; i < 2; i++)
                    affine[tile][span][i] = scale_and_bias(loaded[tile].scales[span][i]);
            if (step + 1 < steps) {
                const ulong index = min(first_tile + tile, last_tile);
                loaded[tile] = load_step(tiles + index * steps * (32 * BITS) + LANE_WORDS * lane, scales + index * groups * 16 + lane / 4, step + 1, lane);
            }
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);

#pragma unroll
        for (uint block = 0; block < WIDE_BLOCKS; block += 2) {
            // Two blocks and two tiles at once: products that do not wait for each other.
            uint x[2][8];
#pragma unroll
            for (uint n = 0; n < 2; n++) {
                threadgroup const value_t* row = here + ((block + n) * 8 + lane / 4) * WIDE_STRIDE;
#pragma unroll
                for (uint i = 0; i < 2; i++) {
                    const uint4 four = *(threadgroup const uint4*)(row + product_col(lane % 4, 2 * i));
                    x[n][4 * i] = four.x, x[n][4 * i + 1] = four.y, x[n][4 * i + 2] = four.z, x[n][4 * i + 3] = four.w;
                }
            }
#pragma unroll
            for (uint span = 0; span < SPANS; span++) {
                float products[WIDE_TILES][2][4];
#pragma unroll
                for (uint tile = 0; tile < WIDE_TILES; tile++)
#pragma unroll
                    for (uint i = 0; i < 8; i++)
                        products[tile][i / 4][i % 4] = 0;
#pragma unroll
                for (uint i = 0; i < SPAN / 16; i++) {
                    const uint product = span * (SPAN / 16) + i;
#pragma unroll
                    for (uint n = 0; n < 2; n++) {
                        const uint b[2] = {x[n][2 * product], x[n][2 * product + 1]};
#pragma unroll
                        for (uint tile = 0; tile < WIDE_TILES; tile++)
                            tensor_multiply(products[tile][n], a[tile][product], b);
#if TWO_PRODUCTS
#pragma unroll
                        for (uint tile = 0; tile < WIDE_TILES; tile++)
                            tensor_multiply(products[tile][n], upper[tile][product], b);
#endif
                    }
                }
#pragma unroll
                for (uint n = 0; n < 2; n++) {
                    const float2 total =
                        *(threadgroup const float2*)(totals + span * WIDE_INPUTS + (block + n) * 8 + lane % 4 * 2);
#pragma unroll
                    for (uint tile = 0; tile < WIDE_TILES; tile++)
#pragma unroll
                        for (uint i = 0; i < 4; i++) {
                            const float2 by = affine[tile][span][i / 2];
                            const float rest = fma(by.y, i % 2 ? total.y : total.x, sums[tile][block + n][i]);
                            sums[tile][block + n][i] = fma(by.x, products[tile][n][i], rest);
                        }
                }
            }
        }
    }

#pragma unroll
    for (uint tile = 0; tile < WIDE_TILES; tile++)
#pragma unroll
        for (uint block = 0; block < WIDE_BLOCKS; block++)
#pragma unroll
            for (uint i = 0; i < 4; i++) {
                const uint index = first_input + block * 8 + lane % 4 * 2 + i % 2;
                const uint row = (first_tile + tile) * 16 + lane / 4 + i / 2 * 8;
                if (index < problem.inputs && row < problem.rows)
                    output[ulong(index) * problem.rows + row] =
                        narrow<output_t>(ADDED ? sums[tile][block][i] + added[row] : sums[tile][block][i]);
            }
}

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
