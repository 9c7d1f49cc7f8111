// Value by value. `gate`: gate = activation(gate) * up (GATED) or activation(gate); `add`: values += factor * other;
// `append`: keys and values of new rows, as `cache_t`, at their positions of the cache.
// Grids: gate and add (count / THREADS, 1, 1); append (rows, most of the two widths / THREADS, 1); rounded up.
// Defines: THREADS, VALUE, CACHE, ACTIVATION (activation.metal), GATED.

typedef TYPE_OF(CACHE) cache_t;

struct GateProblem {
    uint count;
    Factors factors;
};
struct AddProblem {
    uint count;
    float factor;
};
struct AppendProblem {
    uint first_position;
    uint key_width;   // kv_heads * head_dim
    uint value_width; // kv_heads * value_dim
};

KERNEL(gate)(
    device value_t* values [[buffer(0)]],   // (count)
    device const value_t* up [[buffer(1)]], // (count)
    PROBLEM(GateProblem, 2))
{
    const ulong index = ulong(group_position.x) * THREADS + thread_index;
    if (index < problem.count) {
        float value = activate(widen(values[index]), problem.factors);
        values[index] = narrow<value_t>(GATED ? value * gate_factor(widen(up[index]), problem.factors) : value);
    }
}

KERNEL(add)(
    device value_t* values [[buffer(0)]],      // (count)
    device const value_t* other [[buffer(1)]], // (count)
    PROBLEM(AddProblem, 2))
{
    const ulong index = ulong(group_position.x) * THREADS + thread_index;
    if (index < problem.count)
        values[index] = narrow<value_t>(fma(problem.factor, widen(other[index]), widen(values[index])));
}

KERNEL(append)(
    device const value_t* keys [[buffer(0)]],     // (rows, key_width)
    device const value_t* values [[buffer(1)]],   // (rows, value_width)
    device cache_t* key_cache [[buffer(2)]],   // (positions, key_width)
    device cache_t* value_cache [[buffer(3)]], // (positions, value_width)
    PROBLEM(AppendProblem, 4))
{
    const uint index = group_position.y * THREADS + thread_index;
    const ulong row = group_position.x, position = problem.first_position + row;
    if (index < problem.key_width)
        key_cache[position * problem.key_width + index] = narrow<cache_t>(widen(keys[row * problem.key_width + index]));
    if (index < problem.value_width)
        value_cache[position * problem.value_width + index] =
            narrow<cache_t>(widen(values[row * problem.value_width + index]));
}
