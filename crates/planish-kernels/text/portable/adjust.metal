// What changes logits before a token is chosen. `adjust`: bias and penalty of single tokens, each at most once; `mask`: tokens that
// may not be chosen become negative infinity.
// Grids: adjust (adjustments / THREADS, 1, 1); mask (cols / THREADS, masks, 1); rounded up. Defines: THREADS.

struct AdjustProblem {
    uint cols;
    uint count; // adjustments, or words of a mask
};

KERNEL(adjust)(
    device float* logits [[buffer(0)]],             // (rows, cols)
    device const uint4* adjustments [[buffer(1)]],  // (count): row, token, penalty, bias
    PROBLEM(AdjustProblem, 2))
{
    launch_dependents();
    wait_for_previous();
    const uint index = group_position.x * THREADS + thread_index;
    if (index < problem.count) {
        const uint4 adjustment = adjustments[index];
        device float* logit = logits + ulong(adjustment.x) * problem.cols + adjustment.y;
        const float penalty = as_type<float>(adjustment.z), value = *logit + as_type<float>(adjustment.w);
        *logit = value > 0.0f ? exact_divide(value, penalty) : value * penalty;
    }
}

KERNEL(mask)(
    device float* logits [[buffer(0)]],     // (rows, cols)
    device const uint* masks [[buffer(1)]], // (masks, 1 + count): the row, then a bit for each token that may be chosen
    PROBLEM(AdjustProblem, 2))
{
    launch_dependents();
    wait_for_previous();
    const uint token = group_position.x * THREADS + thread_index;
    device const uint* words = masks + ulong(group_position.y) * (problem.count + 1);
    if (token < problem.cols && !(words[1 + token / 32] >> token % 32 & 1u))
        logits[ulong(words[0]) * problem.cols + token] = -INFINITY;
}
