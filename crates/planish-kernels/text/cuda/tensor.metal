// Few inputs on packed weights in the order of tiles.metal, by tensor cores (mma.sync, 16 rows x 16 columns x 8 inputs). Products are
// summed in f32, and scale and bias are applied to the sums of each group:
// output = scale * sum((OFFSET + code) x) + (bias - OFFSET * scale) * sum(x). Sums of x are products with ones.
// A threadgroup takes 16 * TILES rows, its warps share the columns. Grid: (rows / (16 * TILES), inputs / (8 * BLOCKS), 1), rounded up.
// Defines: those of tiles.metal, THREADS, OUTPUT, BLOCKS, ADDED, TILES (row tiles of a warp that share its inputs), THREADGROUPS.

#define WARPS (THREADS / 32)
#define ROWS (16 * TILES)

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

struct RowTiles {
    device const uint* at[TILES];
};

// The tiles of one step, where there is one, and on to the warp's next.
inline void load_step(thread RowTiles& tiles, thread const RowTiles& scales, uint step, uint steps, uint lane,
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
    // Warps take steps in turn; the first tiles are read before earlier launches are done.
    LoadedTile loaded[TILES];
    load_step(row_tiles, row_scales, simdgroup_index, steps, lane, loaded);
    wait_for_previous();
    launch_dependents();
    for (uint step = simdgroup_index; step < steps; step += WARPS) {
        add_step(loaded, first, problem.cols, inputs, lane, sums);
        first += WARPS * STEP;
        load_step(row_tiles, row_scales, step + WARPS, steps, lane, loaded);
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
