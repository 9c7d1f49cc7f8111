// Scale and bias of a group by the rules of planish-format's `affine`, before they are rounded to the stored type. `encoder`: 0
// transformers, 1 MLX on the CPU, 2 MLX on Metal.

#define LEVELS float((1u << BITS) - 1u)

template <uint encoder> inline float round_code(float value) { return encoder == 2 ? round(value) : rint(value); }

template <uint encoder> inline float2 fit(float low, float high) {
    float2 affine;
    if (encoder == 2)
        high = max(high, 0.0f);
    const float step = max(exact_divide(high - low, LEVELS), encoder == 0 ? 1e-8f : 1e-7f);
    affine.x = step, affine.y = low;
    if (encoder != 0) {
        // The edge farther from zero is the bias, and the scale is bent so that zero has a code.
        const bool is_low = fabs(low) > fabs(high);
        const float edge = is_low ? low : high, scale = is_low ? step : -step;
        const float code_of_zero = round_code<encoder>(exact_divide(edge, scale));
        affine.x = code_of_zero == 0.0f ? scale : exact_divide(edge, code_of_zero);
        affine.y = code_of_zero == 0.0f ? 0.0f : edge;
    }
    return affine;
}
