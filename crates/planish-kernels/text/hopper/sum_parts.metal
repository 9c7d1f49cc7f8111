// Sums of the parts of a product's columns, as warpgroup.metal leaves them, in the order of the parts, so that equal inputs give equal
// sums: output = sum(partial) + added. A thread takes 8 rows of an input.
// Grid: (rows / (8 * THREADS) rounded up, inputs, 1). Defines: THREADS, OUTPUT, ADDED.

struct SumPartsProblem {
    uint rows;
    uint inputs;
    uint parts;
};

KERNEL(sum_parts)(
    device const float* partial [[buffer(0)]], // (parts, inputs, rows)
    device const float* added [[buffer(1)]],   // (rows)
    device output_t* output [[buffer(2)]],     // (inputs, rows)
    PROBLEM(SumPartsProblem, 3))
{
    launch_dependents();
    wait_for_previous();
    const uint first = (group_position.x * THREADS + thread_index) * 8;
    if (first < problem.rows) {
        const bool is_whole = problem.rows % 8 == 0;
        const uint count = min(8u, problem.rows - first);
        const ulong stride = ulong(problem.inputs) * problem.rows, at = ulong(group_position.y) * problem.rows + first;
        float sums[8] = {0, 0, 0, 0, 0, 0, 0, 0};
#pragma unroll 4
        for (uint part = 0; part < problem.parts; part++) {
            float more[8];
            if (is_whole)
                load8(partial + part * stride + at, more);
            else
                load8_partial(partial + part * stride + at, count, more);
#pragma unroll
            for (uint i = 0; i < 8; i++)
                sums[i] += more[i];
        }
#if ADDED
#pragma unroll
        for (uint i = 0; i < 8; i++)
            sums[i] += i < count ? added[first + i] : 0.0f;
#endif
        if (is_whole)
            write8(output + at, sums);
        else
            store8(output + at, count, sums);
    }
}
