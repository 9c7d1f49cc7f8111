// Scale, bias and codes of a group by search, as planish-format's `search` finds them, bit for bit: the same candidates, and sums in the
// same order, for which products are rounded before they are added up (`exact_multiply`). 16 lanes hold a group: lane l the weights l,
// l + 16, .., and beyond the group zeros that count nothing. Needs affine.metal; defines: BITS, GROUP, WEIGHT.

#define HELD ((GROUP + 15) / 16) // weights of a lane
#define ROUNDS 2

// Parts of the range about the mean, and additions to the largest code with which the whole range is divided.
#if BITS == 2
#define PARTS {0.9f, 0.8f, 0.7f, 0.6f, 0.5f}
#define PART_COUNT 5
#elif BITS == 3
#define PARTS {0.94f, 0.88f, 0.82f, 0.76f, 0.7f}
#define PART_COUNT 5
#elif BITS == 4
#define PARTS {0.96f, 0.92f, 0.88f, 0.84f}
#define PART_COUNT 4
#else
#define PARTS {0.98f, 0.96f}
#define PART_COUNT 2
#endif
#define ADDITION_COUNT (BITS == 6 || BITS == 8 ? 4u : 0u)

// Over the 16 lanes of a group, halves upon halves.
inline float sum16(float value) {
    for (ushort mask = 8; mask; mask /= 2) value += simd_shuffle_xor(value, mask);
    return value;
}
inline float min16(float value) {
    for (ushort mask = 8; mask; mask /= 2) value = min(value, simd_shuffle_xor(value, mask));
    return value;
}
// One after another.
inline float sum_in_order(thread const float (&values)[HELD], uint lane) {
    float total = -0.0f;
#pragma unroll
    for (uint i = 0; i < HELD; i++)
        for (uint other = 0; other < 16 && i * 16 + other < GROUP; other++)
            total += simd_shuffle(values[i], ushort((lane & 16) + other));
    return total;
}
inline float dot16(thread const float (&a)[HELD], thread const float (&b)[HELD]) {
    float sum = 0;
#pragma unroll
    for (uint i = 0; i < HELD; i++) sum += exact_multiply(a[i], b[i]);
    return sum16(sum);
}
// As it is stored.
inline float stored(float value) { return widen(narrow<weight_t>(value)); }

// The nearest code, ties to even: from 2^23 on the gap between neighbouring floats is one.
inline float nearest_code(float exact) {
    float code = exact > 0.0f ? exact : 0.0f; // 0 for NaN
    code = code < LEVELS ? code : LEVELS;
    return (code + 8388608.0f) - 8388608.0f;
}

// |x| / rms(x) + 1, times the importance of the columns, for the weights that there are.
inline void weigh(thread const float (&x)[HELD], thread const float (&importance)[HELD], uint lane, thread float (&w)[HELD]) {
    const float rms = sqrt(exact_divide(dot16(x, x), float(GROUP)));
    const float unit = rms > 0.0f && rms < INFINITY ? rms : 1.0f;
#pragma unroll
    for (uint i = 0; i < HELD; i++)
        w[i] = i * 16 + lane % 16 < GROUP ? exact_multiply(exact_divide(fabs(x[i]), unit) + 1.0f, importance[i]) : 0.0f;
}

// A scale and a bias to begin with. `low`, `high`: of the weights; `first_low`: as the first of equal ones spells it.
inline float2 candidate(uint index, float low, float first_low, float high, float mean) {
    const float parts[PART_COUNT] = PARTS;
    if (index == 0)
        return fit<0>(first_low, high);
    if (index < 3)
        return index == 1 ? fit<2>(low, high) : fit<1>(low, high);
    index -= 3;
    low -= mean, high -= mean;
    float levels = LEVELS;
    if (index < PART_COUNT) {
        low = exact_multiply(parts[index], low), high = exact_multiply(parts[index], high);
    } else if (index < PART_COUNT + 4) {
        const float part = parts[(index - PART_COUNT) / 2];
        if ((index - PART_COUNT) % 2 == 0)
            low = exact_multiply(part, low);
        else
            high = exact_multiply(part, high);
    } else {
        index -= PART_COUNT + 4;
        levels += index < 2 ? 0.5f * float(index) - 1.0f : 0.5f * float(index) - 0.5f;
    }
    float2 affine;
    affine.x = exact_divide(high - low, levels), affine.y = mean + low;
    return affine;
}

// What one reading of the group finds: sums of w (s q + b - x)^2, w q, w q^2, w q x. `bias` is less the mean, as x is.
struct Sums { float error, q, qq, qx; };

inline Sums read_group(thread const float (&x)[HELD], thread const float (&w)[HELD], float scale, float bias,
                       thread float (&codes)[HELD]) {
    const float inverse = exact_divide(1.0f, scale);
    Sums sums;
    sums.error = sums.q = sums.qq = sums.qx = 0.0f;
#pragma unroll
    for (uint i = 0; i < HELD; i++) {
        codes[i] = nearest_code(exact_multiply(x[i] - bias, inverse));
        const float off = exact_multiply(codes[i], scale) + bias - x[i], weighted = exact_multiply(w[i], codes[i]);
        sums.error += exact_multiply(w[i], exact_multiply(off, off));
        sums.q += weighted;
        sums.qq += exact_multiply(weighted, codes[i]);
        sums.qx += exact_multiply(weighted, x[i]);
    }
    sums.error = sum16(sums.error), sums.q = sum16(sums.q), sums.qq = sum16(sums.qq), sums.qx = sum16(sums.qx);
    return sums;
}

// Scale and bias as they are stored, and the codes. Of x nothing is left.
inline float2 search(thread float (&x)[HELD], thread const float (&w)[HELD], uint lane, thread float (&codes)[HELD]) {
    float low = INFINITY, high = -INFINITY, first_zero = INFINITY;
#pragma unroll
    for (uint i = 0; i < HELD; i++) {
        const uint at = i * 16 + lane % 16;
        low = at < GROUP ? min(low, x[i]) : low;
        high = at < GROUP ? max(high, x[i]) : high;
        if (at < GROUP && x[i] == 0.0f) // twice its place, and 1 for a negative zero
            first_zero = min(first_zero, float(2 * at + (as_type<uint>(x[i]) >> 31)));
    }
    low = min16(low), high = -min16(-high), first_zero = min16(first_zero);
    const float first_low = low != 0.0f ? low : uint(first_zero) % 2 == 1 ? -0.0f : 0.0f;
    const float plain_mean = exact_divide(sum_in_order(x, lane), float(GROUP)), total = sum_in_order(w, lane);
    const float products = dot16(w, x), mean = total > 0.0f ? exact_divide(products, total) : 0.0f;
#pragma unroll
    for (uint i = 0; i < HELD; i++) x[i] -= mean;

    float least = 0;
    float2 best;
    best.x = best.y = 0.0f;
#pragma unroll 1
    for (uint index = 0; index < 3 + PART_COUNT + 4 + ADDITION_COUNT; index++) {
        float2 affine = candidate(index, low, first_low, high, plain_mean);
        affine.x = stored(affine.x), affine.y = stored(affine.y);
#pragma unroll 1
        for (uint round = 0; round <= ROUNDS; round++) {
            const Sums sums = read_group(x, w, affine.x, affine.y - mean, codes);
            if ((index == 0 && round == 0) || sums.error < least)
                least = sums.error, best = affine;
            // Least squares for scale and bias with these codes; the bias for the scale as it is stored.
            const float mean_code = exact_divide(sums.q, total), variance = sums.qq - exact_multiply(mean_code, sums.q);
            const float scale = stored(exact_divide(sums.qx, variance));
            if (variance > 0.0f && fabs(scale) < INFINITY)
                affine.x = scale, affine.y = stored(mean - exact_multiply(scale, mean_code));
        }
    }
    read_group(x, w, best.x, best.y - mean, codes);
    return best;
}
