// A matrix for each head, few rows, and copies of parts of heads (latent attention): output[row][head] = matrix[head] x
// input[row][head]. `head_matvec`: matrices (heads, rows, cols); `head_matvec_transposed`: the same with matrices stored as
// (heads, cols, rows), packed along their rows, so that x W is computed without unpacking; `transpose_heads`: such matrices as plain ones
// (heads, rows, cols); `copy_heads`: parts as they are.
// Grids: head_matvec (rows / (ROWS_EACH * simdgroups), inputs, heads); head_matvec_transposed (rows / 256, inputs, heads);
// transpose_heads (rows / 8, cols / THREADS, heads); copy_heads (inputs * heads * width / THREADS, 1, 1); rounded up.
// Defines: THREADS, ROWS_EACH, VALUE, WEIGHT, BITS, GROUP, ALIGNED (cols and strides of the input are multiples of 8).

struct HeadsProblem {
    uint rows;
    uint cols;
    uint heads;
    uint from_stride, from_start; // of a head in the input
    uint to_stride, to_start;     // of a head in the output
};
struct CopyProblem {
    uint parts; // inputs * heads
    uint width;
    uint from_stride, from_start;
    uint to_stride, to_start;
};

inline void load_head8(device const value_t* input, uint cols, uint col, thread float (&x)[8]) {
    if (ALIGNED)
        load8(input + col, x);
    else
        load8_partial(input + col, cols - col, x);
}

KERNEL(head_matvec)(
    device const uint* codes [[buffer(0)]],      // (heads, rows, cols * BITS / 32), or plain values
    device const weight_t* scales [[buffer(1)]], // (heads, rows, cols / GROUP)
    device const weight_t* biases [[buffer(2)]], // (heads, rows, cols / GROUP)
    device const value_t* input [[buffer(3)]],   // (inputs, heads, from_stride)
    device value_t* output [[buffer(4)]],        // (inputs, heads, to_stride)
    PROBLEM(HeadsProblem, 5))
{
    launch_dependents();
    wait_for_previous();
    const uint rows = problem.rows, cols = problem.cols, head = group_position.z;
    const uint first_row = (group_position.x * (THREADS / 32) + simdgroup_index) * ROWS_EACH;
    const ulong part = ulong(group_position.y) * problem.heads + head;
    device const value_t* from = input + part * problem.from_stride + problem.from_start;
    Weights weights;
    weights.codes = codes, weights.scales = scales, weights.biases = biases, weights.cols = cols;
    float sums[ROWS_EACH];
#pragma unroll
    for (uint r = 0; r < ROWS_EACH; r++)
        sums[r] = 0;
    for (uint col = lane_index * 8; col < cols; col += 32 * 8) {
        float x[8];
        load_head8(from, cols, col, x);
#pragma unroll
        for (uint r = 0; r < ROWS_EACH; r++) {
            float w[8];
            load_weights8(weights, ulong(head) * rows + min(first_row + r, rows - 1), col, w);
#pragma unroll
            for (uint i = 0; i < 8; i++)
                sums[r] = fma(w[i], x[i], sums[r]);
        }
    }
#pragma unroll
    for (uint r = 0; r < ROWS_EACH; r++) {
        const float sum = simd_sum(sums[r]);
        if (lane_index == 0 && first_row + r < rows)
            output[part * problem.to_stride + problem.to_start + first_row + r] = narrow<value_t>(sum);
    }
}

KERNEL(head_matvec_transposed)(
    device const uint* codes [[buffer(0)]],      // (heads, cols, rows * BITS / 32), or plain values
    device const weight_t* scales [[buffer(1)]], // (heads, cols, rows / GROUP)
    device const weight_t* biases [[buffer(2)]], // (heads, cols, rows / GROUP)
    device const value_t* input [[buffer(3)]],   // (inputs, heads, from_stride)
    device value_t* output [[buffer(4)]],        // (inputs, heads, to_stride)
    PROBLEM(HeadsProblem, 5))
{
    SHARED(float, room, THREADS / 32 * 256);
    launch_dependents();
    wait_for_previous();
    const uint rows = problem.rows, cols = problem.cols, head = group_position.z;
    const uint row = group_position.x * 256 + lane_index * 8; // a lane computes 8
    const ulong part = ulong(group_position.y) * problem.heads + head;
    device const value_t* from = input + part * problem.from_stride + problem.from_start;
    Weights weights;
    weights.codes = codes, weights.scales = scales, weights.biases = biases, weights.cols = rows;
    float sums[8] = {0, 0, 0, 0, 0, 0, 0, 0};
    if (row < rows) {
        for (uint col = simdgroup_index; col < cols; col += THREADS / 32) {
            float w[8];
            load_weights8(weights, ulong(head) * cols + col, row, w);
            const float x = widen(from[col]);
#pragma unroll
            for (uint i = 0; i < 8; i++)
                sums[i] = fma(w[i], x, sums[i]);
        }
    }
#pragma unroll
    for (uint i = 0; i < 8; i++)
        room[simdgroup_index * 256 + lane_index * 8 + i] = sums[i];
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (uint i = thread_index; i < 256; i += THREADS) {
        float sum = 0;
#pragma unroll
        for (uint simdgroup = 0; simdgroup < THREADS / 32; simdgroup++)
            sum += room[simdgroup * 256 + i];
        const uint at = group_position.x * 256 + i;
        if (at < rows)
            output[part * problem.to_stride + problem.to_start + at] = narrow<value_t>(sum);
    }
}

KERNEL(transpose_heads)(
    device const uint* codes [[buffer(0)]],      // (heads, cols, rows * BITS / 32), or plain values
    device const weight_t* scales [[buffer(1)]], // (heads, cols, rows / GROUP)
    device const weight_t* biases [[buffer(2)]], // (heads, cols, rows / GROUP)
    device value_t* output [[buffer(3)]],        // (heads, rows, cols)
    PROBLEM(HeadsProblem, 4))
{
    launch_dependents();
    wait_for_previous();
    const uint rows = problem.rows, cols = problem.cols, head = group_position.z;
    const uint row = group_position.x * 8, col = group_position.y * THREADS + thread_index;
    Weights weights;
    weights.codes = codes, weights.scales = scales, weights.biases = biases, weights.cols = rows;
    if (col < cols) {
        float w[8];
        load_weights8(weights, ulong(head) * cols + col, row, w);
        // Neighbours among the threads write neighbours.
        for (uint i = 0; i < min(8u, rows - row); i++)
            output[(ulong(head) * rows + row + i) * cols + col] = narrow<value_t>(w[i]);
    }
}

KERNEL(copy_heads)(
    device const value_t* input [[buffer(0)]], // (parts, from_stride)
    device value_t* output [[buffer(1)]],      // (parts, to_stride)
    PROBLEM(CopyProblem, 2))
{
    launch_dependents();
    wait_for_previous();
    const uint index = group_position.x * THREADS + thread_index, part = index / problem.width, col = index % problem.width;
    if (part < problem.parts)
        output[ulong(part) * problem.to_stride + problem.to_start + col] =
            input[ulong(part) * problem.from_stride + problem.from_start + col];
}
