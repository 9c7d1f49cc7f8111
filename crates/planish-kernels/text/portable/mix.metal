// Weighted sums of neighbouring parts of a row: target[b] (+)= sum over a of factors[b, a] * source[a].
// Grid: (width / THREADS rounded up, parts of the target, rows); a thread makes one value.
// Defines: THREADS, VALUE, WEIGHED (there are factors), ADDS (to what is there).

struct MixProblem {
    uint width;       // of a part
    uint inputs;      // parts of a row of the source
    uint target_cols;
    uint first_part;  // of the target
};

KERNEL(mix)(
    device const float* factors [[buffer(0)]],  // (rows, parts, inputs)
    device const value_t* source [[buffer(1)]], // (rows, inputs, width)
    device value_t* target [[buffer(2)]],       // (rows, target_cols)
    PROBLEM(MixProblem, 3))
{
    launch_dependents();
    wait_for_previous();
    const uint i = group_position.x * THREADS + thread_index, row = group_position.z;
    if (i < problem.width) {
        const ulong to = ulong(row) * problem.target_cols + (problem.first_part + group_position.y) * problem.width + i;
        const ulong from = ulong(row) * problem.inputs * problem.width + i;
        device const float* own = factors + (ulong(row) * group_count.y + group_position.y) * problem.inputs;
        float sum = ADDS ? widen(target[to]) : 0.0f;
        for (uint input = 0; input < problem.inputs; input++)
            sum = fma(WEIGHED ? own[input] : 1.0f, widen(source[from + ulong(input) * problem.width]), sum);
        target[to] = narrow<value_t>(sum);
    }
}
