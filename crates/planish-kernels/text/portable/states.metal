// Layers with a state, of which every sequence has one; a span is a uint4 of the sequence's slot, first row, rows and first position.
// `convolve`: activation(bias + sum over TAPS of weight * x) channel by channel, x = input * input_gate, the
// result times output_gate; `history` holds the last inputs. `recur`: the scan of Mamba 2 or (DELTA) the gated delta rule, formulas in
// src/recurrence.rs; a thread keeps every PARTS-th row of one column of the state in registers while rows pass.
// `scan_channels`: the scan of Mamba 1, formula in src/channel_scan.rs; a thread keeps the state of a channel.
// Grids: convolve and scan_channels (channels / THREADS, spans, 1); recur (value_dim / COLUMNS, heads, spans); rounded up.
// Defines: THREADS, VALUE; convolve: TAPS, INPUT_GATED, BIASED, SILU, OUTPUT_GATED; recur: KEY_DIM, DELTA,
// STEPS_OF_KEYS (every value of a key has a step of its own); scan_channels: KEY_DIM.

#define PARTS 4                        // threads that share a column: lanes 8 apart
#define COLUMNS (THREADS / PARTS)      // of a threadgroup
#define LENGTH ((KEY_DIM + PARTS - 1) / PARTS)

struct ConvolveProblem { // of scan_channels too
    uint channels;
};
struct RecurProblem {
    uint heads;
    uint sharing;    // heads in a row that share queries and keys
    uint cols;       // of the inputs
    uint query;      // first columns of the first head's query, key and value
    uint key;
    uint value;
    uint value_dim;
    uint state_cols; // at least value_dim, a multiple of 32
    float step_scale;
    float least_step;
    float most_step;
};

KERNEL(convolve)(
    device const value_t* input [[buffer(0)]],       // (rows, channels)
    device const value_t* input_gate [[buffer(1)]],  // (rows, channels)
    device const float* weight [[buffer(2)]],        // (TAPS, channels)
    device const float* bias [[buffer(3)]],          // (channels)
    device const value_t* output_gate [[buffer(4)]], // (rows, channels)
    device const uint4* spans [[buffer(5)]],         // (spans)
    device float* history [[buffer(6)]],             // (slots, TAPS - 1, channels)
    device value_t* output [[buffer(7)]],            // (rows, channels)
    PROBLEM(ConvolveProblem, 8))
{
    const uint4 span = spans[group_position.y];
    const uint channel = group_position.x * THREADS + thread_index, channels = problem.channels;
    if (channel < channels) {
        float weights[TAPS], window[TAPS];
        history += ulong(span.x) * (TAPS - 1) * channels;
#pragma unroll
        for (uint tap = 0; tap < TAPS; tap++)
            weights[tap] = weight[ulong(tap) * channels + channel];
        window[0] = 0;
#pragma unroll
        for (uint tap = 1; tap < TAPS; tap++)
            window[tap] = span.w == 0 ? 0.0f : history[ulong(tap - 1) * channels + channel];
        const float added = BIASED ? bias[channel] : 0.0f;
        for (uint row = span.y; row < span.y + span.z; row++) {
            const ulong at = ulong(row) * channels + channel;
#pragma unroll
            for (uint tap = 1; tap < TAPS; tap++)
                window[tap - 1] = window[tap];
            window[TAPS - 1] = widen(input[at]) * (INPUT_GATED ? widen(input_gate[at]) : 1.0f);
            float sum = added;
#pragma unroll
            for (uint tap = 0; tap < TAPS; tap++)
                sum = fma(weights[tap], window[tap], sum);
            if (SILU)
                sum = sum / (1.0f + exp(-sum));
            output[at] = narrow<value_t>(OUTPUT_GATED ? sum * widen(output_gate[at]) : sum);
        }
#pragma unroll
        for (uint tap = 1; tap < TAPS; tap++)
            history[ulong(tap - 1) * channels + channel] = window[tap];
    }
}

// log(1 + exp(x)), exact where it is small.
inline float softplus(float x) {
    const float e = exp(-fabs(x));
    return max(x, 0.0f) + (e < 1e-3f ? e - 0.5f * e * e : log(1.0f + e));
}

// A step held within its limits.
inline float step_of(float x, float bias, RecurProblem problem) {
    return min(max(softplus(fma(x, problem.step_scale, bias)), problem.least_step), problem.most_step);
}

// The sum over the threads that share a column.
inline float column_sum(float value) {
    value += simd_shuffle_xor(value, 8);
    return value + simd_shuffle_xor(value, 16);
}

KERNEL(recur)(
    device const value_t* inputs [[buffer(0)]],    // (rows, cols): queries, keys and values
    device const value_t* steps [[buffer(1)]],     // (rows, heads), (rows, heads * KEY_DIM) if STEPS_OF_KEYS
    device const float* step_bias [[buffer(2)]],   // (heads), (heads * KEY_DIM)
    device const float* rates [[buffer(3)]],       // (heads)
    device const value_t* beta [[buffer(4)]], // (rows, heads), DELTA
    device const float* skip [[buffer(5)]],        // (heads), unless DELTA
    device const uint4* spans [[buffer(6)]],       // (spans)
    device float* state [[buffer(7)]],             // (slots, heads, KEY_DIM, state_cols)
    device value_t* output [[buffer(8)]],          // (rows, heads * value_dim)
    PROBLEM(RecurProblem, 9))
{
    const uint4 span = spans[group_position.z];
    const uint part = lane_index / 8, head = group_position.y;
    const uint column = group_position.x * COLUMNS + simdgroup_index * 8 + lane_index % 8;
    const bool exists = column < problem.value_dim;
    device const value_t* query = inputs + problem.query + head / problem.sharing * KEY_DIM;
    device const value_t* key = inputs + problem.key + head / problem.sharing * KEY_DIM;
    device const value_t* value = inputs + problem.value + head * problem.value_dim + (exists ? column : 0);
    device float* stored = state + (ulong(span.x) * problem.heads + head) * KEY_DIM * problem.state_cols + (exists ? column : 0);
    const float rate = rates[head], bias = STEPS_OF_KEYS ? 0.0f : step_bias[head], skipped = DELTA ? 0.0f : skip[head];

    float column_state[LENGTH];
#pragma unroll
    for (uint n = 0; n < LENGTH; n++) {
        const uint i = n * PARTS + part;
        column_state[n] = span.w == 0 || i >= KEY_DIM ? 0.0f : stored[ulong(i) * problem.state_cols];
    }
    for (uint row = span.y; row < span.y + span.z; row++) {
        const ulong from = ulong(row) * problem.cols, at = ulong(row) * problem.heads + head;
        float step = 0, decay = 1;
        if (STEPS_OF_KEYS) {
#pragma unroll
            for (uint n = 0; n < LENGTH; n++) {
                const uint i = n * PARTS + part;
                if (i < KEY_DIM)
                    column_state[n] *= exp(-rate * step_of(widen(steps[at * KEY_DIM + i]), step_bias[head * KEY_DIM + i], problem));
            }
        } else {
            step = step_of(widen(steps[at]), bias, problem);
            decay = exp(-rate * step);
        }
        const float given = widen(value[from]);
        float key_factor = 1.0f, query_factor = 1.0f, written = step * given;
        if (DELTA) {
            float answer = 0, keys = 0, queries = 0;
#pragma unroll
            for (uint n = 0; n < LENGTH; n++) {
                const uint i = n * PARTS + part;
                const float k = i < KEY_DIM ? widen(key[from + i]) : 0.0f, q = i < KEY_DIM ? widen(query[from + i]) : 0.0f;
                answer = fma(column_state[n], k, answer);
                keys = fma(k, k, keys);
                queries = fma(q, q, queries);
            }
            key_factor = 1.0f / sqrt(column_sum(keys) + 1e-6f);
            query_factor = 1.0f / sqrt((column_sum(queries) + 1e-6f) * float(KEY_DIM));
            written = (given - decay * key_factor * column_sum(answer)) / (1.0f + exp(-widen(beta[at])));
        }
        written *= key_factor;
        float sum = 0;
#pragma unroll
        for (uint n = 0; n < LENGTH; n++) {
            const uint i = n * PARTS + part;
            const float k = i < KEY_DIM ? widen(key[from + i]) : 0.0f, q = i < KEY_DIM ? widen(query[from + i]) : 0.0f;
            column_state[n] = fma(k, written, decay * column_state[n]);
            sum = fma(column_state[n], q, sum);
        }
        sum = fma(column_sum(sum), query_factor, skipped * given);
        if (exists && part == 0)
            output[at * problem.value_dim + column] = narrow<value_t>(sum);
    }
    if (exists) {
#pragma unroll
        for (uint n = 0; n < LENGTH; n++) {
            const uint i = n * PARTS + part;
            if (i < KEY_DIM)
                stored[ulong(i) * problem.state_cols] = column_state[n];
        }
    }
}

KERNEL(scan_channels)(
    device const value_t* values [[buffer(0)]],  // (rows, channels)
    device const value_t* steps [[buffer(1)]],   // (rows, channels)
    device const value_t* keys [[buffer(2)]],    // (rows, KEY_DIM)
    device const value_t* queries [[buffer(3)]], // (rows, KEY_DIM)
    device const float* step_bias [[buffer(4)]], // (channels)
    device const float* rates [[buffer(5)]],     // (KEY_DIM, channels)
    device const float* skip [[buffer(6)]],      // (channels)
    device const uint4* spans [[buffer(7)]],     // (spans)
    device float* state [[buffer(8)]],           // (slots, KEY_DIM, channels)
    device value_t* output [[buffer(9)]],        // (rows, channels)
    PROBLEM(ConvolveProblem, 10))
{
    const uint4 span = spans[group_position.y];
    const uint channel = group_position.x * THREADS + thread_index, channels = problem.channels;
    if (channel < channels) {
        device float* stored = state + ulong(span.x) * KEY_DIM * channels + channel;
        float kept[KEY_DIM], own_rates[KEY_DIM];
#pragma unroll
        for (uint i = 0; i < KEY_DIM; i++) {
            own_rates[i] = rates[ulong(i) * channels + channel];
            kept[i] = span.w == 0 ? 0.0f : stored[ulong(i) * channels];
        }
        const float bias = step_bias[channel], skipped = skip[channel];
        for (uint row = span.y; row < span.y + span.z; row++) {
            const ulong at = ulong(row) * channels + channel, from = ulong(row) * KEY_DIM;
            const float step = softplus(widen(steps[at]) + bias), value = widen(values[at]), written = step * value;
            float sum = skipped * value;
#pragma unroll
            for (uint i = 0; i < KEY_DIM; i++) {
                kept[i] = fma(exp(-own_rates[i] * step), kept[i], widen(keys[from + i]) * written);
                sum = fma(kept[i], widen(queries[from + i]), sum);
            }
            output[at] = narrow<value_t>(sum);
        }
#pragma unroll
        for (uint i = 0; i < KEY_DIM; i++)
            stored[ulong(i) * channels] = kept[i];
    }
}
