// Value by value. `gate`: gate = activation(gate) * up (GATED) or activation(gate); `add`: values += factor * other; `scale_rows`: values
// of a row times the factor of the entry that the row is.
// Grid: (count / (8 * THREADS), 1, 1), rounded up; a thread takes 8 neighbours.
// Defines: THREADS, VALUE, ACTIVATION (activation.metal), GATED.

struct GateProblem {
    uint count;
    Factors factors;
};
struct AddProblem {
    uint count;
    float factor;
};
struct ScaleProblem {
    uint count;
    uint cols;
};

KERNEL(gate)(
    device value_t* values [[buffer(0)]],   // (count)
    device const value_t* up [[buffer(1)]], // (count)
    PROBLEM(GateProblem, 2))
{
    launch_dependents();
    wait_for_previous();
    const ulong first = (ulong(group_position.x) * THREADS + thread_index) * 8;
    if (first + 8 <= problem.count) {
        float gates[8], factors[8];
        load8(values + first, gates);
        if (GATED)
            load8(up + first, factors);
#pragma unroll
        for (uint i = 0; i < 8; i++) {
            gates[i] = activate(gates[i], problem.factors);
            if (GATED)
                gates[i] *= gate_factor(factors[i], problem.factors);
        }
        write8(values + first, gates);
    } else {
        for (ulong i = first; i < problem.count; i++) {
            const float value = activate(widen(values[i]), problem.factors);
            values[i] = narrow<value_t>(GATED ? value * gate_factor(widen(up[i]), problem.factors) : value);
        }
    }
}

KERNEL(add)(
    device value_t* values [[buffer(0)]],      // (count)
    device const value_t* other [[buffer(1)]], // (count)
    PROBLEM(AddProblem, 2))
{
    launch_dependents();
    wait_for_previous();
    const ulong first = (ulong(group_position.x) * THREADS + thread_index) * 8;
    if (first + 8 <= problem.count) {
        float sums[8], added[8];
        load8(values + first, sums);
        load8(other + first, added);
#pragma unroll
        for (uint i = 0; i < 8; i++)
            sums[i] = fma(problem.factor, added[i], sums[i]);
        write8(values + first, sums);
    } else {
        for (ulong i = first; i < problem.count; i++)
            values[i] = narrow<value_t>(fma(problem.factor, widen(other[i]), widen(values[i])));
    }
}

KERNEL(scale_rows)(
    device value_t* values [[buffer(0)]],      // (count / cols, cols)
    device const float* factors [[buffer(1)]], // (count / cols)
    device const uint* entries [[buffer(2)]],  // (count / cols): of which factor a row is
    PROBLEM(ScaleProblem, 3))
{
    launch_dependents();
    wait_for_previous();
    const ulong first = (ulong(group_position.x) * THREADS + thread_index) * 8;
    for (ulong i = first; i < first + 8 && i < problem.count; i++)
        values[i] = narrow<value_t>(widen(values[i]) * factors[entries[i / problem.cols]]);
}
