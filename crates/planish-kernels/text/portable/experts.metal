// Routed experts of few rows: each row reads the weights of its experts. `experts_inner`: inner[entry] = activation(gate(x)) * up(x)
// (or activation(up(x))) of the entry's expert, an entry being one choice of one row; `experts_outer`: output[row] = base + the sum
// over its entries of weight * down(inner[entry]). `experts_sum`: the same sum where the products are there already.
// Grids: experts_inner (inner / (ROWS_EACH * simdgroups), rows * chosen, 1); experts_outer (hidden / ROWS_EACH, rows, 1); experts_sum (hidden / THREADS, rows, 1); rounded up. Sums are f32.
// Defines: THREADS, ROWS_EACH, VALUE, WEIGHT, BITS, GROUP, WHOLE (cols is a multiple of 32), ADDED (there are bias vectors), GATED,
// ACTIVATION, BASE (0 nothing, 1 what the output holds, 2 that times the logistic function of a value for each row), WEIGHED (experts_inner: what the
// gate gives is multiplied by the entry's weight before the activation).

struct InnerProblem {
    uint rows; // of the matrices
    uint cols;
    uint chosen;
    Factors factors;
};
struct OuterProblem {
    uint rows; // of the matrices
    uint cols;
    uint chosen;
};

struct Inputs32 {
    float x[4][8];
    float sums[4];
};

inline Inputs32 load_inputs32(device const value_t* input, uint cols, uint col) {
    Inputs32 inputs;
#pragma unroll
    for (uint i = 0; i < 4; i++) {
        if (WHOLE)
            load8(input + col + 8 * i, inputs.x[i]);
        else
            load8_partial(input + col + 8 * i, col + 8 * i < cols ? cols - col - 8 * i : 0u, inputs.x[i]);
        thread const float (&x)[8] = inputs.x[i];
        inputs.sums[i] = ((x[0] + x[1]) + (x[2] + x[3])) + ((x[4] + x[5]) + (x[6] + x[7]));
    }
    return inputs;
}

// Products of columns 8 * EIGHT .. + 8 of a chunk.
template <uint EIGHT> inline float dot8(thread const Chunk& chunk, thread const Inputs32& inputs, uint cols, uint col) {
    float weights[8];
    const float2 affine = decode_chunk8<EIGHT>(chunk, cols, col, weights);
    float dot = 0;
#pragma unroll
    for (uint i = 0; i < 8; i++)
        dot = fma(weights[i], inputs.x[EIGHT][i], dot);
    return fma(affine.x, dot, affine.y * inputs.sums[EIGHT]);
}

inline float dot32(thread const Chunk& chunk, thread const Inputs32& inputs, uint cols, uint col) {
    return (dot8<0>(chunk, inputs, cols, col) + dot8<1>(chunk, inputs, cols, col)) +
           (dot8<2>(chunk, inputs, cols, col) + dot8<3>(chunk, inputs, cols, col));
}

// What the sum over experts begins with.
inline float base_of(device const value_t* output, device const value_t* shared_gate, uint row) {
#if BASE == 0
    return 0.0f;
#elif BASE == 1
    return widen(*output);
#else
    return widen(*output) / (1.0f + exp(-widen(shared_gate[row])));
#endif
}

KERNEL(experts_inner)(
    device const uint* gate_codes [[buffer(0)]],      // (experts, rows, cols * BITS / 32), or plain values
    device const weight_t* gate_scales [[buffer(1)]], // (experts, rows, cols / GROUP)
    device const weight_t* gate_biases [[buffer(2)]], // (experts, rows, cols / GROUP)
    device const uint* up_codes [[buffer(3)]],        // likewise
    device const weight_t* up_scales [[buffer(4)]],
    device const weight_t* up_biases [[buffer(5)]],
    device const value_t* input [[buffer(6)]],        // (entries / chosen, cols)
    device const float* gate_added [[buffer(7)]],     // (experts, rows)
    device const float* up_added [[buffer(8)]],       // (experts, rows)
    device const uint* experts [[buffer(9)]],         // (entries)
    device value_t* inner [[buffer(10)]],             // (entries, rows)
    device const float* entry_weights [[buffer(11)]], // (entries), WEIGHED
    PROBLEM(InnerProblem, 12))
{
    launch_dependents();
    wait_for_previous();
    const uint rows = problem.rows, cols = problem.cols, entry = group_position.y;
    const uint first_row = (group_position.x * (THREADS / 32) + simdgroup_index) * ROWS_EACH;
    const ulong expert = experts[entry];
    device const value_t* x = input + ulong(entry / problem.chosen) * cols;
    Weights gates, ups;
    gates.codes = gate_codes, gates.scales = gate_scales, gates.biases = gate_biases, gates.cols = cols;
    ups.codes = up_codes, ups.scales = up_scales, ups.biases = up_biases, ups.cols = cols;

    float gate_sums[ROWS_EACH], up_sums[ROWS_EACH];
#pragma unroll
    for (uint r = 0; r < ROWS_EACH; r++)
        gate_sums[r] = 0, up_sums[r] = 0;
    for (uint col = lane_index * 32; col < cols; col += 32 * 32) {
        Chunk gate_chunks[ROWS_EACH], up_chunks[ROWS_EACH];
#pragma unroll
        for (uint r = 0; r < ROWS_EACH; r++) {
            const ulong row = expert * rows + min(first_row + r, rows - 1);
            if (GATED)
                gate_chunks[r] = load_chunk(gates, row, col);
            up_chunks[r] = load_chunk(ups, row, col);
        }
        const Inputs32 inputs = load_inputs32(x, cols, col);
#pragma unroll
        for (uint r = 0; r < ROWS_EACH; r++) {
            if (GATED)
                gate_sums[r] += dot32(gate_chunks[r], inputs, cols, col);
            up_sums[r] += dot32(up_chunks[r], inputs, cols, col);
        }
    }

#pragma unroll
    for (uint r = 0; r < ROWS_EACH; r++) {
        const float gate_sum = GATED ? simd_sum(gate_sums[r]) : 0.0f, up_sum = simd_sum(up_sums[r]);
        const uint row = first_row + r;
        if (lane_index == 0 && row < rows) {
            const float up = ADDED ? up_sum + up_added[expert * rows + row] : up_sum;
            const float gate = (GATED && ADDED ? gate_sum + gate_added[expert * rows + row] : gate_sum) * (WEIGHED ? entry_weights[entry] : 1.0f);
            const float value = GATED ? activate(gate, problem.factors) * gate_factor(up, problem.factors)
                                      : activate(up, problem.factors);
            inner[ulong(entry) * rows + row] = narrow<value_t>(value);
        }
    }
}

KERNEL(experts_outer)(
    device const uint* codes [[buffer(0)]],          // (experts, rows, cols * BITS / 32), or plain values
    device const weight_t* scales [[buffer(1)]],     // (experts, rows, cols / GROUP)
    device const weight_t* biases [[buffer(2)]],     // (experts, rows, cols / GROUP)
    device const value_t* inner [[buffer(3)]],       // (entries, cols)
    device const float* added [[buffer(4)]],         // (experts, rows)
    device const uint* experts [[buffer(5)]],        // (entries)
    device const float* entry_weights [[buffer(6)]], // (entries)
    device const value_t* shared_gate [[buffer(7)]], // (entries / chosen)
    device value_t* output [[buffer(8)]],            // (entries / chosen, rows)
    PROBLEM(OuterProblem, 9))
{
    SHARED(float, room, THREADS / 32 * ROWS_EACH);
    launch_dependents();
    wait_for_previous();
    const uint rows = problem.rows, cols = problem.cols, first_entry = group_position.y * problem.chosen;
    const uint first_row = group_position.x * ROWS_EACH;
    Weights weights;
    weights.codes = codes, weights.scales = scales, weights.biases = biases, weights.cols = cols;

    float sums[ROWS_EACH];
#pragma unroll
    for (uint r = 0; r < ROWS_EACH; r++)
        sums[r] = 0;
    // All threads share the chunks of all entries: one entry alone has too few.
    const uint chunks = (cols + 31) / 32;
    for (uint item = thread_index; item < problem.chosen * chunks; item += THREADS) {
        const uint entry = first_entry + item / chunks, col = item % chunks * 32;
        const ulong expert = experts[entry];
        Chunk loaded[ROWS_EACH];
#pragma unroll
        for (uint r = 0; r < ROWS_EACH; r++)
            loaded[r] = load_chunk(weights, expert * rows + min(first_row + r, rows - 1), col);
        const Inputs32 inputs = load_inputs32(inner + ulong(entry) * cols, cols, col);
#pragma unroll
        for (uint r = 0; r < ROWS_EACH; r++)
            sums[r] = fma(entry_weights[entry], dot32(loaded[r], inputs, cols, col), sums[r]);
    }
    if (ADDED) {
        for (uint choice = thread_index; choice < problem.chosen; choice += THREADS) {
            const uint entry = first_entry + choice;
#pragma unroll
            for (uint r = 0; r < ROWS_EACH; r++) {
                const ulong row = ulong(experts[entry]) * rows + min(first_row + r, rows - 1);
                sums[r] = fma(entry_weights[entry], added[row], sums[r]);
            }
        }
    }

#pragma unroll
    for (uint r = 0; r < ROWS_EACH; r++) {
        const float sum = simd_sum(sums[r]);
        if (lane_index == 0)
            room[simdgroup_index * ROWS_EACH + r] = sum;
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    const uint row = first_row + thread_index;
    if (thread_index < ROWS_EACH && row < rows) {
        device value_t* to = output + ulong(group_position.y) * rows + row;
        float sum = base_of(to, shared_gate, group_position.y);
        for (uint simdgroup = 0; simdgroup < THREADS / 32; simdgroup++)
            sum += room[simdgroup * ROWS_EACH + thread_index];
        *to = narrow<value_t>(sum);
    }
}

KERNEL(experts_sum)(
    device const value_t* products [[buffer(0)]],    // (entries, rows)
    device const float* entry_weights [[buffer(1)]], // (entries)
    device const value_t* shared_gate [[buffer(2)]], // (entries / chosen)
    device value_t* output [[buffer(3)]],            // (entries / chosen, rows)
    PROBLEM(OuterProblem, 4))
{
    launch_dependents();
    wait_for_previous();
    const uint col = group_position.x * THREADS + thread_index, row = group_position.y;
    if (col < problem.rows) {
        device value_t* to = output + ulong(row) * problem.rows + col;
        float sum = base_of(to, shared_gate, row);
        for (uint entry = row * problem.chosen; entry < (row + 1) * problem.chosen; entry++)
            sum = fma(entry_weights[entry], widen(products[ulong(entry) * problem.rows + col]), sum);
        *to = narrow<value_t>(sum);
    }
}
