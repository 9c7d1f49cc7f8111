// Many rows through a weight (rows, cols) with matrix units: output[m][row] = sum over k of input[m][k] * weight[row][k]
// (+ added[row]). Grid: (rows / 32, inputs / 32, 1), rounded up; 4 simdgroups share a tile of 32 inputs x 32 rows, each computes
// 16 x 16 of it in 8 x 8 fragments. Input and decoded weights pass through threadgroup memory 32 columns at a time, in f32.
// Defines: THREADS (128), VALUE, OUTPUT, WEIGHT, BITS, GROUP, ALIGNED (cols is a multiple of 8), ADDED.

#define TILE 32
#define STRIDE 36 // of a tile's rows: away from bank conflicts

struct MatmulProblem {
    uint rows;
    uint cols;
    uint inputs;
};

inline void put8(threadgroup float* to, thread const float (&values)[8]) {
#pragma unroll
    for (uint i = 0; i < 8; i++)
        to[i] = values[i];
}

inline void load_input8(device const value_t* input, uint cols, uint col, thread float (&x)[8]) {
    if (ALIGNED)
        load8(input + col, x);
    else
        load8_partial(input + col, cols - col, x);
}

KERNEL(matmul)(
    device const uint* codes [[buffer(0)]],      // (rows, cols * BITS / 32), or plain values
    device const weight_t* scales [[buffer(1)]], // (rows, cols / GROUP)
    device const weight_t* biases [[buffer(2)]], // (rows, cols / GROUP)
    device const value_t* input [[buffer(3)]],   // (inputs, cols)
    device const float* added [[buffer(4)]],     // (rows)
    device output_t* output [[buffer(5)]],       // (inputs, rows)
    PROBLEM(MatmulProblem, 6))
{
    SHARED(float, input_tile, TILE * STRIDE);  // (inputs, columns); at the end the results (inputs, rows)
    SHARED(float, weight_tile, TILE * STRIDE); // (rows, columns)
    const uint first_row = group_position.x * TILE, first_input = group_position.y * TILE;
    Weights weights;
    weights.codes = codes, weights.scales = scales, weights.biases = biases, weights.cols = problem.cols;

    // A thread brings 8 columns of one input and of one row.
    const uint line = thread_index / 4, offset = thread_index % 4 * 8;
    const ulong row = min(first_row + line, problem.rows - 1);
    device const value_t* line_input = input + ulong(min(first_input + line, problem.inputs - 1)) * problem.cols;
    // Where this simdgroup's part of the tile begins.
    const uint part_input = simdgroup_index / 2 * 16, part_row = simdgroup_index % 2 * 16;

    simdgroup_float8x8 sums[2][2];
#pragma unroll
    for (uint i = 0; i < 2; i++)
#pragma unroll
        for (uint j = 0; j < 2; j++)
            sums[i][j] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);

    for (uint begin = 0; begin < problem.cols; begin += TILE) {
        const uint col = begin + offset;
        float x[8] = {0, 0, 0, 0, 0, 0, 0, 0}, w[8] = {0, 0, 0, 0, 0, 0, 0, 0};
        if (col < problem.cols) {
            load_input8(line_input, problem.cols, col, x);
            load_weights8(weights, row, col, w);
        }
        put8(input_tile + line * STRIDE + offset, x);
        put8(weight_tile + line * STRIDE + offset, w);
        threadgroup_barrier(mem_flags::mem_threadgroup);
#pragma unroll
        for (uint k = 0; k < TILE; k += 8) {
            simdgroup_float8x8 left[2], right[2];
#pragma unroll
            for (uint i = 0; i < 2; i++) {
                simdgroup_load(left[i], input_tile + (part_input + 8 * i) * STRIDE + k, STRIDE);
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
        const uint m = index / TILE, n = index % TILE;
        if (first_input + m < problem.inputs && first_row + n < problem.rows) {
            const float sum = input_tile[m * STRIDE + n];
            output[ulong(first_input + m) * problem.rows + first_row + n] =
                narrow<output_t>(ADDED ? sum + added[first_row + n] : sum);
        }
    }
}
