// Types of stored values and their conversions: `widen` to f32, `narrow<T>` from f32 (round to nearest even).
// bf16 is bits in a struct on every platform: Metal knows the type only from macOS 14 on.

#ifndef WEIGHT
#define WEIGHT VALUE
#endif
#ifndef OUTPUT
#define OUTPUT VALUE
#endif

typedef float f32;
struct bf16 { ushort bits; };

#define TYPE_0 f32
#define TYPE_1 f16
#define TYPE_2 bf16
#define TYPE_NAMED(number) TYPE_##number
#define TYPE_OF(number) TYPE_NAMED(number)
typedef TYPE_OF(VALUE) value_t;   // activations
typedef TYPE_OF(WEIGHT) weight_t; // scales, biases, plain weights
typedef TYPE_OF(OUTPUT) output_t; // of linear layers

inline float widen(f32 value) { return value; }
inline float widen(f16 value) { return float(value); }
inline float widen(bf16 value) { return as_type<float>(uint(value.bits) << 16); }

template <typename T> struct Narrow;
template <> struct Narrow<f32> { static f32 from(float value) { return value; } };
template <> struct Narrow<f16> { static f16 from(float value) { return f16(value); } };
template <> struct Narrow<bf16> {
    static bf16 from(float value) {
        bf16 result;
#ifdef BF16_BITS // the header knows an instruction
        result.bits = BF16_BITS(value);
#else
        uint bits = as_type<uint>(value);
        // A NaN must not be rounded up to infinity.
        uint rounded = value != value ? bits | 0x400000u : bits + 0x7fffu + ((bits >> 16) & 1u);
        result.bits = ushort(rounded >> 16);
#endif
        return result;
    }
};
template <typename T> inline T narrow(float value) { return Narrow<T>::from(value); }

inline float2 unpack_bf16(uint word) {
    float2 two;
    two.x = as_type<float>(word << 16), two.y = as_type<float>(word & 0xffff0000u);
    return two;
}

// Eight neighbouring values, from an address that is a multiple of 16 bytes.
inline void load8(device const f32* values, thread float (&result)[8]) {
    float4 low = *(device const float4*)values;
    float4 high = *(device const float4*)(values + 4);
    result[0] = low.x, result[1] = low.y, result[2] = low.z, result[3] = low.w;
    result[4] = high.x, result[5] = high.y, result[6] = high.z, result[7] = high.w;
}
inline void load8(device const f16* values, thread float (&result)[8]) {
    uint4 words = *(device const uint4*)values;
    float2 a = unpack_f16(words.x), b = unpack_f16(words.y), c = unpack_f16(words.z), d = unpack_f16(words.w);
    result[0] = a.x, result[1] = a.y, result[2] = b.x, result[3] = b.y;
    result[4] = c.x, result[5] = c.y, result[6] = d.x, result[7] = d.y;
}
inline void load8(device const bf16* values, thread float (&result)[8]) {
    uint4 words = *(device const uint4*)values;
    result[0] = as_type<float>(words.x << 16), result[1] = as_type<float>(words.x & 0xffff0000u);
    result[2] = as_type<float>(words.y << 16), result[3] = as_type<float>(words.y & 0xffff0000u);
    result[4] = as_type<float>(words.z << 16), result[5] = as_type<float>(words.z & 0xffff0000u);
    result[6] = as_type<float>(words.w << 16), result[7] = as_type<float>(words.w & 0xffff0000u);
}
// The same with no alignment; values from `count` on are zeros.
template <typename T> inline void load8_partial(device const T* values, uint count, thread float (&result)[8]) {
#pragma unroll
    for (uint i = 0; i < 8; i++)
        result[i] = i < count ? widen(values[i]) : 0.0f;
}

// Writes 8 neighbouring values, to an address that is a multiple of 16 bytes.
inline void write8(device f32* values, thread const float (&from)[8]) {
    float4 low, high;
    low.x = from[0], low.y = from[1], low.z = from[2], low.w = from[3];
    high.x = from[4], high.y = from[5], high.z = from[6], high.w = from[7];
    *(device float4*)values = low;
    *(device float4*)(values + 4) = high;
}
inline uint two_in_word(f16 low, f16 high) { return uint(as_type<ushort>(low)) | uint(as_type<ushort>(high)) << 16; }
inline uint two_in_word(bf16 low, bf16 high) { return uint(low.bits) | uint(high.bits) << 16; }
template <typename T> inline void write8(device T* values, thread const float (&from)[8]) {
    uint4 words;
    words.x = two_in_word(narrow<T>(from[0]), narrow<T>(from[1])), words.y = two_in_word(narrow<T>(from[2]), narrow<T>(from[3]));
    words.z = two_in_word(narrow<T>(from[4]), narrow<T>(from[5])), words.w = two_in_word(narrow<T>(from[6]), narrow<T>(from[7]));
    *(device uint4*)values = words;
}

// Writes up to 8 neighbouring values.
template <typename T> inline void store8(device T* values, uint count, thread const float (&from)[8]) {
#pragma unroll
    for (uint i = 0; i < 8; i++)
        if (i < count)
            values[i] = narrow<T>(from[i]);
}

// 16-bit types as the lower half of a word.
#if WEIGHT == 1
inline weight_t weight_of_bits(uint word) { return as_type<weight_t>(ushort(word)); }
inline uint bits_of_weight(weight_t value) { return as_type<ushort>(value); }
#elif WEIGHT == 2
inline weight_t weight_of_bits(uint word) {
    weight_t value;
    value.bits = ushort(word);
    return value;
}
inline uint bits_of_weight(weight_t value) { return value.bits; }
#endif
