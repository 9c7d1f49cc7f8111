// Value by value. `gate`: gate = activation(gate) * up (GATED) or activation(gate); `add`: values += factor * other;
// `append`: keys and values of new rows, as `cache_t`, at their positions of the cache.
// Grids: gate and add (count / THREADS, 1, 1); append (rows, most of the two widths / THREADS, 1); rounded up.
// Defines: THREADS, VALUE, CACHE, ACTIVATION (its number in src/kernels/elementwise.rs), GATED.

typedef TYPE_OF(CACHE) cache_t;

struct GateProblem {
    uint count;
    float factors[4]; // of the activations that have some
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

// The error function to 1.5e-7 (Abramowitz and Stegun 7.1.26).
inline float error_function(float x) {
    const float size = fabs(x), t = 1.0f / fma(0.3275911f, size, 1.0f);
    float sum = fma(1.061405429f, t, -1.453152027f);
    sum = fma(sum, t, 1.421413741f);
    sum = fma(sum, t, -0.284496736f);
    sum = fma(sum, t, 0.254829592f) * t;
    const float result = 1.0f - sum * exp(-size * size);
    return x < 0.0f ? -result : result;
}

// exp(x) - 1 - x for x <= 0, without cancellation near 0.
inline float exp_remainder(float x) {
    if (x < -0.3f)
        return exp(x) - 1.0f - x;
    float sum = fma(x, 1.0f / 5040.0f, 1.0f / 720.0f);
    sum = fma(sum, x, 1.0f / 120.0f);
    sum = fma(sum, x, 1.0f / 24.0f);
    sum = fma(sum, x, 1.0f / 6.0f);
    return fma(sum, x, 0.5f) * x * x;
}

inline float activate(float x, GateProblem problem) {
#if ACTIVATION == 0 // SiLU
    return x / (1.0f + exp(-x));
#elif ACTIVATION == 1 // GELU
    return 0.5f * x * (1.0f + error_function(x * 0.70710678f));
#elif ACTIVATION == 2 // GELU with tanh
    return 0.5f * x * (1.0f + tanh(0.79788456f * fma(0.044715f * x, x * x, x)));
#elif ACTIVATION == 3 // quick GELU
    return x / (1.0f + exp(-1.702f * x));
#elif ACTIVATION == 4 // ReLU
    return max(x, 0.0f);
#elif ACTIVATION == 5 // squared ReLU
    return max(x, 0.0f) * max(x, 0.0f);
#elif ACTIVATION == 6 // sigmoid
    return 1.0f / (1.0f + exp(-x));
#elif ACTIVATION == 7 // tanh
    return tanh(x);
#elif ACTIVATION == 8 // soft cap
    return problem.factors[0] * tanh(x / problem.factors[0]);
#elif ACTIVATION == 9 // xIELU: positive, negative, slope, limit
    if (x > 0.0f)
        return fma(problem.factors[0] * x, x, problem.factors[2] * x);
    const float least = min(x, problem.factors[3]);
    return fma(problem.factors[1], exp_remainder(least) + (least - x), problem.factors[2] * x);
#elif ACTIVATION == 10 // clamped SwiGLU: slope, limit
    const float least = min(x, problem.factors[1]);
    return least / (1.0f + exp(-problem.factors[0] * least));
#endif
}

// What the activation is multiplied with.
inline float gate_factor(float up, GateProblem problem) {
#if ACTIVATION == 10
    return 1.0f + min(max(up, -problem.factors[1]), problem.factors[1]);
#else
    return up;
#endif
}

KERNEL(gate)(
    device value_t* values [[buffer(0)]],   // (count)
    device const value_t* up [[buffer(1)]], // (count)
    PROBLEM(GateProblem, 2))
{
    const ulong index = ulong(group_position.x) * THREADS + thread_index;
    if (index < problem.count) {
        float value = activate(widen(values[index]), problem);
        values[index] = narrow<value_t>(GATED ? value * gate_factor(widen(up[index]), problem) : value);
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
