// Many inputs on packed weights in the order of tiles.metal, by tensor cores (mma.sync) of any GPU that has them: 4 warps share 128
// inputs in threadgroup memory, each decodes 32 rows in registers; scale and bias are applied to the sums of each group.
// Grid: (inputs / 128, rows / 128, 1), rounded up; 128 threads. Defines: those of tiles.metal, OUTPUT, ADDED.

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

KERNEL_OF(128, tensor_matmul_wide)(
    device const uint* tiles [[buffer(0)]],    // (rows / 16, cols / 64, 32 * BITS)
    device const uint* scales [[buffer(1)]],   // (rows / 16, cols / GROUP, 16): scale, and bias in the upper half
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
