// The non-linearities of gated layers, in f32. Defines: ACTIVATION (its number in src/kernels/activation.rs).

// Of the activations that have some.
struct Factors {
    float first, second, third, fourth;
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

inline float activate(float x, Factors factors) {
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
    return factors.first * tanh(x / factors.first);
#elif ACTIVATION == 9 // xIELU: positive, negative, slope, limit
    if (x > 0.0f)
        return fma(factors.first * x, x, factors.third * x);
    const float least = min(x, factors.fourth);
    return fma(factors.second, exp_remainder(least) + (least - x), factors.third * x);
#elif ACTIVATION == 11 // softplus
    const float rest = exp(-fabs(x));
    return max(x, 0.0f) + (rest < 1e-3f ? rest - 0.5f * rest * rest : log(1.0f + rest));
#elif ACTIVATION == 12 // clamp
    return min(max(x, -factors.first), factors.first);
#elif ACTIVATION == 10 // clamped SwiGLU: slope, limit
    const float least = min(x, factors.second);
    return least / (1.0f + exp(-factors.first * least));
#endif
}

// What the activation is multiplied with.
inline float gate_factor(float up, Factors factors) {
#if ACTIVATION == 10
    return 1.0f + min(max(up, -factors.second), factors.second);
#else
    return up;
#endif
}
