// Few rows through a weight (rows, cols): output[m][row] = sum over k of weight[row][k] * input[m][k] (+ added[row]).
// Grid: (rows / (ROWS_EACH * simdgroups), inputs / BATCH or pairs, 1), rounded up. A simdgroup computes ROWS_EACH rows for BATCH
// inputs; a lane takes 32 columns at a time, so codes are read once, 16 bytes a lane at 4 bits. Sums are f32.
// Defines: THREADS, ROWS_EACH, BATCH, WHOLE (cols is a multiple of 32), ADDED (there is a bias vector), GATHER (the weight is a
// stack of experts and each output row picks one).

struct MatvecProblem {
    uint rows;
    uint cols;
    uint inputs;       // rows of the output
    uint input_repeat; // GATHER: so many output rows in a row read the same input row
};

struct Chunk {
#if BITS
    uint words[BITS]; // 32 codes
#else
    device const weight_t* plain; // 32 values
#endif
    device const weight_t* scales; // from the chunk's first group on
    device const weight_t* biases;
};

struct Inputs {
    device const value_t* at[BATCH]; // (cols) each
};

inline Chunk load_chunk(Weights weights, ulong row, uint col) {
    Chunk chunk;
#if BITS
    uint words_each = weights.cols / 8 * BITS / 4;
    uint first = col / 32 * BITS;
    device const uint* codes = weights.codes + row * words_each + first;
    if (WHOLE)
        load_words(codes, chunk.words);
    else
        load_words_partial(codes, words_each - first, chunk.words);
    ulong groups = row * (weights.cols / GROUP);
    chunk.scales = weights.scales + groups;
    chunk.biases = weights.biases + groups;
#else
    chunk.plain = (device const weight_t*)weights.codes + row * weights.cols + col;
#endif
    return chunk;
}

inline void load_input8(device const value_t* input, uint cols, uint col, thread float (&x)[8]) {
    if (WHOLE)
        load8(input + col, x);
    else
        load8_partial(input + col, col < cols ? cols - col : 0u, x);
}

// Adds the products of 8 columns of one chunk.
template <uint EIGHT>
inline void add_products(thread const Chunk& chunk, uint cols, uint col, thread const float (&x)[BATCH][8],
                         thread const float (&x_sums)[BATCH], thread float (&sums)[BATCH]) {
    float w[8];
#if BITS
    decode8<EIGHT>(chunk.words, w);
    uint group = min(col, cols - 1) / GROUP;
    float scale = widen(chunk.scales[group]), bias = widen(chunk.biases[group]);
#pragma unroll
    for (uint m = 0; m < BATCH; m++) {
        float dot = 0;
#pragma unroll
        for (uint i = 0; i < 8; i++)
            dot = fma(w[i], x[m][i], dot);
        sums[m] = fma(scale, dot, fma(bias, x_sums[m], sums[m]));
    }
#else
    if (WHOLE)
        load8(chunk.plain + 8 * EIGHT, w);
    else
        load8_partial(chunk.plain + 8 * EIGHT, col < cols ? cols - col : 0u, w);
#pragma unroll
    for (uint m = 0; m < BATCH; m++) {
#pragma unroll
        for (uint i = 0; i < 8; i++)
            sums[m] = fma(w[i], x[m][i], sums[m]);
    }
#endif
}

// Products of columns col + 8 * EIGHT .. + 8 of all rows and inputs.
template <uint EIGHT>
inline void add_columns(thread const Chunk (&chunks)[ROWS_EACH], thread const Inputs& inputs, uint cols,
                        uint col, thread float (&sums)[ROWS_EACH][BATCH]) {
    float x[BATCH][8], x_sums[BATCH];
#pragma unroll
    for (uint m = 0; m < BATCH; m++) {
        load_input8(inputs.at[m], cols, col + 8 * EIGHT, x[m]);
        x_sums[m] = ((x[m][0] + x[m][1]) + (x[m][2] + x[m][3])) + ((x[m][4] + x[m][5]) + (x[m][6] + x[m][7]));
    }
#pragma unroll
    for (uint r = 0; r < ROWS_EACH; r++)
        add_products<EIGHT>(chunks[r], cols, col + 8 * EIGHT, x, x_sums, sums[r]);
}

KERNEL(matvec)(
    device const uint* codes [[buffer(0)]],      // (experts, rows, cols * BITS / 32), or plain values
    device const weight_t* scales [[buffer(1)]], // (experts, rows, cols / GROUP)
    device const weight_t* biases [[buffer(2)]], // (experts, rows, cols / GROUP)
    device const value_t* input [[buffer(3)]],   // (inputs, cols)
    device const float* added [[buffer(4)]],     // (rows)
    device const uint* experts [[buffer(5)]],    // (inputs)
    device output_t* output [[buffer(6)]],       // (inputs, rows)
    PROBLEM(MatvecProblem, 7))
{
    const uint rows = problem.rows, cols = problem.cols;
    const uint first_row = (group_position.x * (THREADS / 32) + simdgroup_index) * ROWS_EACH;
    const uint first_input = group_position.y * BATCH;
    Weights weights;
    weights.codes = codes, weights.scales = scales, weights.biases = biases, weights.cols = cols;

    Inputs inputs;
#pragma unroll
    for (uint m = 0; m < BATCH; m++) {
        uint index = min(first_input + m, problem.inputs - 1);
        inputs.at[m] = input + ulong(GATHER ? index / problem.input_repeat : index) * cols;
    }
    const ulong expert_row = GATHER ? ulong(experts[first_input]) * rows : 0;

    float sums[ROWS_EACH][BATCH];
#pragma unroll
    for (uint r = 0; r < ROWS_EACH; r++)
#pragma unroll
        for (uint m = 0; m < BATCH; m++)
            sums[r][m] = 0;

    for (uint col = lane_index * 32; col < cols; col += 32 * 32) {
        Chunk chunks[ROWS_EACH];
#pragma unroll
        for (uint r = 0; r < ROWS_EACH; r++)
            chunks[r] = load_chunk(weights, expert_row + min(first_row + r, rows - 1), col);
        add_columns<0>(chunks, inputs, cols, col, sums);
        add_columns<1>(chunks, inputs, cols, col, sums);
        add_columns<2>(chunks, inputs, cols, col, sums);
        add_columns<3>(chunks, inputs, cols, col, sums);
    }

#pragma unroll
    for (uint r = 0; r < ROWS_EACH; r++) {
#pragma unroll
        for (uint m = 0; m < BATCH; m++) {
            float sum = simd_sum(sums[r][m]);
            const uint row = first_row + r, index = first_input + m;
            if (lane_index == 0 && row < rows && index < problem.inputs)
                output[ulong(index) * rows + row] = narrow<output_t>(ADDED ? sum + added[row] : sum);
        }
    }
}
