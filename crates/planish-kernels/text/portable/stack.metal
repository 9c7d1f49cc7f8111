// Many rows through a stack of matrices (count, rows, cols) with matrix units: tiles of TILE inputs that share a matrix, given by a
// table that routing makes on the device (ROUTED), or every input for each matrix (heads): output[m] = matrix x input[m] (+ added).
// TRANSPOSED: matrices are stored as (count, cols, rows), packed along their rows: x W without unpacking (`qmm_n`).
// Grid: (rows / 32 rounded up, tiles, heads or 1); 4 simdgroups share a tile of 32 inputs x 32 rows as in matmul.metal.
// Defines: THREADS (128), TILE (32), VALUE, WEIGHT, BITS, GROUP, ALIGNED (cols and strides of the input are multiples of 8), ADDED,
// TRANSPOSED, ROUTED (0 heads; 1 inputs are rows, outputs places in the order of experts; 2 inputs are places, outputs entries).

#define STRIDE 36 // of a tile's rows: away from bank conflicts

inline void put8(threadgroup float* to, thread const float (&values)[8]) {
#pragma unroll
    for (uint i = 0; i < 8; i++)
        to[i] = values[i];
}

KERNEL(stack_matmul)(
    device const uint* codes [[buffer(0)]],      // (count, rows, cols * BITS / 32), or plain values
    device const weight_t* scales [[buffer(1)]], // (count, rows, cols / GROUP)
    device const weight_t* biases [[buffer(2)]], // (count, rows, cols / GROUP)
    device const value_t* input [[buffer(3)]],
    device const float* added [[buffer(4)]],     // (count, rows)
    device const uint* order [[buffer(5)]],      // (entries)
    device const uint* tiles [[buffer(6)]],      // (tiles, 3)
    device value_t* output [[buffer(7)]],
    PROBLEM(StackProblem, 8))
{
    SHARED(float, input_tile, TILE * STRIDE);  // (inputs, columns); at the end the results (inputs, rows)
    SHARED(float, weight_tile, TILE * STRIDE); // (rows, columns), or (columns, rows) if TRANSPOSED
    launch_dependents();
    wait_for_previous();
    const uint rows = problem.rows, cols = problem.cols, first_row = group_position.x * TILE;
    const StackTile tile = tile_at(tiles, group_position.y, group_position.z, problem.inputs);
    if (tile.count == 0)
        return; // the whole threadgroup: the table has room for more tiles than there are
    Weights weights;
    weights.codes = codes, weights.scales = scales, weights.biases = biases, weights.cols = TRANSPOSED ? rows : cols;
    const ulong first_stored = ulong(tile.matrix) * (TRANSPOSED ? cols : rows);

    // A thread brings 8 columns of one input, and 8 weights of one stored row.
    const uint line = thread_index / 4, offset = thread_index % 4 * 8;
    device const value_t* line_input = input + input_offset(order, tile, line, problem);
    const uint part_input = simdgroup_index / 2 * 16, part_row = simdgroup_index % 2 * 16;

    simdgroup_float8x8 sums[2][2];
#pragma unroll
    for (uint i = 0; i < 2; i++)
#pragma unroll
        for (uint j = 0; j < 2; j++)
            sums[i][j] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);

    for (uint begin = 0; begin < cols; begin += TILE) {
        const uint col = begin + offset;
        float x[8] = {0, 0, 0, 0, 0, 0, 0, 0}, w[8] = {0, 0, 0, 0, 0, 0, 0, 0};
        if (col < cols) {
            if (ALIGNED)
                load8(line_input + col, x);
            else
                load8_partial(line_input + col, cols - col, x);
        }
        const uint stored_row = TRANSPOSED ? begin + line : min(first_row + line, rows - 1);
        const uint stored_col = TRANSPOSED ? first_row + offset : col;
        if (stored_row < (TRANSPOSED ? cols : rows) && stored_col < (TRANSPOSED ? rows : cols))
            load_weights8(weights, first_stored + stored_row, stored_col, w);
        put8(input_tile + line * STRIDE + offset, x);
        put8(weight_tile + line * STRIDE + offset, w);
        threadgroup_barrier(mem_flags::mem_threadgroup);
#pragma unroll
        for (uint k = 0; k < TILE; k += 8) {
            simdgroup_float8x8 left[2], right[2];
#pragma unroll
            for (uint i = 0; i < 2; i++) {
                simdgroup_load(left[i], input_tile + (part_input + 8 * i) * STRIDE + k, STRIDE);
                if (TRANSPOSED)
                    simdgroup_load(right[i], weight_tile + k * STRIDE + part_row + 8 * i, STRIDE);
                else
                    load_transposed(right[i], weight_tile + (part_row + 8 * i) * STRIDE + k, STRIDE);
            }
#pragma unroll
            for (uint i = 0; i < 2; i++)
#pragma unroll
                for (uint j = 0; j < 2; j++)
                    simdgroup_multiply_accumulate(sums[i][j], left[i], right[j], sums[i][j]);
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
    }

#pragma unroll
    for (uint i = 0; i < 2; i++)
#pragma unroll
        for (uint j = 0; j < 2; j++)
            simdgroup_store(sums[i][j], input_tile + (part_input + 8 * i) * STRIDE + part_row + 8 * j, STRIDE);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (uint index = thread_index; index < TILE * TILE; index += THREADS) {
        const uint m = index / TILE, n = index % TILE, row = first_row + n;
        if (m < tile.count && row < rows) {
            const float sum = input_tile[m * STRIDE + n];
            output[output_offset(order, tile, m, problem) + row] =
                narrow<value_t>(ADDED ? sum + added[ulong(tile.matrix) * rows + row] : sum);
        }
    }
}
