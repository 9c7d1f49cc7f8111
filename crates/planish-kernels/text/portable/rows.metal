// Rows of a packed or plain weight as values. `embed`: output[i] = factor * weight[tokens[i]]; `embed_chosen`: of a row whose
// token is not known the one that was chosen for its sequence; `embed_positions`: rows by position; `dequantize`: all rows in order.
// Grid: (rows of the output, cols / (8 * THREADS) rounded up, 1); a thread writes 8 columns.

struct RowsProblem {
    uint rows; // of the weight
    uint cols;
    float factor;
    uint offset; // row of position 0
};

#define NO_TOKEN 0xffffffffu

inline Weights weights_of(device const uint* codes, device const weight_t* scales, device const weight_t* biases, uint cols) {
    Weights weights;
    weights.codes = codes, weights.scales = scales, weights.biases = biases, weights.cols = cols;
    return weights;
}

// Tokens beyond the table take its first row.
inline uint within(uint token, uint rows) {
    return token < rows ? token : 0;
}

inline void copy_row(Weights weights, ulong from, device value_t* output, ulong to, uint col, float factor) {
    if (col >= weights.cols)
        return;
    float values[8];
    load_weights8(weights, from, col, values);
#pragma unroll
    for (uint i = 0; i < 8; i++)
        values[i] *= factor;
    store8(output + to * weights.cols + col, weights.cols - col, values);
}

KERNEL(embed)(
    device const uint* codes [[buffer(0)]],      // (rows, cols * BITS / 32), or plain values
    device const weight_t* scales [[buffer(1)]], // (rows, cols / GROUP)
    device const weight_t* biases [[buffer(2)]], // (rows, cols / GROUP)
    device const uint* tokens [[buffer(3)]],     // (rows of the output)
    device value_t* output [[buffer(4)]],        // (rows of the output, cols)
    PROBLEM(RowsProblem, 5))
{
    launch_dependents();
    wait_for_previous();
    const Weights weights = weights_of(codes, scales, biases, problem.cols);
    const uint token = within(tokens[group_position.x], problem.rows);
    uint col = (group_position.y * THREADS + thread_index) * 8;
    copy_row(weights, token, output, group_position.x, col, problem.factor);
}

KERNEL(embed_chosen)(
    device const uint* codes [[buffer(0)]],      // (rows, cols * BITS / 32), or plain values
    device const weight_t* scales [[buffer(1)]], // (rows, cols / GROUP)
    device const weight_t* biases [[buffer(2)]], // (rows, cols / GROUP)
    device const uint* tokens [[buffer(3)]],     // (rows of the output): NO_TOKEN is the chosen one
    device const uint4* places [[buffer(4)]],    // (rows of the output)
    device const uint* chosen [[buffer(5)]],     // (slots)
    device value_t* output [[buffer(6)]],        // (rows of the output, cols)
    PROBLEM(RowsProblem, 7))
{
    launch_dependents();
    wait_for_previous();
    const Weights weights = weights_of(codes, scales, biases, problem.cols);
    uint token = tokens[group_position.x];
    if (token == NO_TOKEN)
        token = chosen[places[group_position.x].x];
    uint col = (group_position.y * THREADS + thread_index) * 8;
    copy_row(weights, within(token, problem.rows), output, group_position.x, col, problem.factor);
}

KERNEL(embed_positions)(
    device const uint* codes [[buffer(0)]],      // (rows, cols * BITS / 32), or plain values
    device const weight_t* scales [[buffer(1)]], // (rows, cols / GROUP)
    device const weight_t* biases [[buffer(2)]], // (rows, cols / GROUP)
    device const uint4* places [[buffer(3)]],    // (rows of the output)
    device value_t* output [[buffer(4)]],        // (rows of the output, cols)
    PROBLEM(RowsProblem, 5))
{
    launch_dependents();
    wait_for_previous();
    const Weights weights = weights_of(codes, scales, biases, problem.cols);
    uint row = min(problem.offset + places[group_position.x].y, problem.rows - 1);
    uint col = (group_position.y * THREADS + thread_index) * 8;
    copy_row(weights, row, output, group_position.x, col, problem.factor);
}

KERNEL(dequantize)(
    device const uint* codes [[buffer(0)]],      // (rows, cols * BITS / 32), or plain values
    device const weight_t* scales [[buffer(1)]], // (rows, cols / GROUP)
    device const weight_t* biases [[buffer(2)]], // (rows, cols / GROUP)
    device value_t* output [[buffer(3)]],        // (rows, cols)
    PROBLEM(RowsProblem, 4))
{
    const Weights weights = weights_of(codes, scales, biases, problem.cols);
    uint col = (group_position.y * THREADS + thread_index) * 8;
    copy_row(weights, group_position.x, output, group_position.x, col, problem.factor);
}
