// The order ("tiles") of packed weights for CUDA's tensor cores: 16 rows x 64 columns are 128 * BITS bytes; a lane's 32 codes lie
// together, as planes of 4 (or 2) bits and the bits above them, so that a shift and a mask bring two codes into the halves of a word.
// Codes become 16-bit floats exactly (OFFSET + code, by a mask and an exponent); scale and bias lie apart, a word for both.
// Shared by tensor.metal, tensor_wide.metal and repack.metal (which makes the order).
// Defines: VALUE (1 or 2), WEIGHT (1 or 2), BITS, GROUP (32 or a multiple of 64).

struct TensorProblem {
    uint rows;
    uint cols; // a multiple of 64
    uint inputs;
};

#define STEP 64                             // columns of a tile
#define SPAN (GROUP < STEP ? GROUP : STEP)  // columns of a tile that share a scale
#define SPANS (STEP / SPAN)
#define LOW_BITS (BITS == 8 ? 8 : BITS >= 4 ? 4 : 2) // of the first plane
#define HIGH_BITS (BITS - LOW_BITS)
#define TWO_PRODUCTS (BITS == 8 && VALUE == 2) // bf16 holds 7 bits beside the offset: nibbles apart

// A code lies in the upper bits of the fraction of a number between 2^BITS and 2^(BITS + 1).
#if VALUE == 1
#define UP (10 - BITS)
#define MAGIC (0x10001u * ((15u + BITS) << 10))
#define ONES 0x3c003c00u
#define unpack_value unpack_f16
#define tensor_multiply tensor_multiply_f16
#else
#define UP (TWO_PRODUCTS ? 3 : 7 - BITS)
#define MAGIC (TWO_PRODUCTS ? 0x41804180u : 0x10001u * ((127u + BITS) << 7))
#define MAGIC_UPPER 0x43804380u // 256 + 16 * code
#define ONES 0x3f803f80u
#define unpack_value unpack_bf16
#define tensor_multiply tensor_multiply_bf16
#endif
#define OFFSET (TWO_PRODUCTS ? 272.0f : float(1 << BITS))

// A lane's 32 codes of a tile: products 0..4 of 8 codes, each of 4 pairs (rows g, g + 8, g, g + 8; columns 0, 0, 2, 2 and next).
struct TileCodes {
    uint low[LOW_BITS];
#if HIGH_BITS
    uint high[HIGH_BITS];
#endif
};

#define LANE_WORDS (LOW_BITS < 4 ? LOW_BITS : 4) // that a lane reads at once

// `tile`: this lane's first word of one.
inline TileCodes load_tile(device const uint* tile, uint lane) {
    TileCodes codes;
#if LOW_BITS == 2
    uint2 two = load_once((device const uint2*)tile);
    codes.low[0] = two.x, codes.low[1] = two.y;
#else
#pragma unroll
    for (uint i = 0; i < LOW_BITS / 4; i++) {
        uint4 four = load_once((device const uint4*)(tile + 128 * i));
        codes.low[4 * i] = four.x, codes.low[4 * i + 1] = four.y, codes.low[4 * i + 2] = four.z, codes.low[4 * i + 3] = four.w;
    }
#endif
#if HIGH_BITS == 1
    codes.high[0] = load_once(tile + (32 * LOW_BITS + lane - LANE_WORDS * lane));
#elif HIGH_BITS == 2
    uint2 above = load_once((device const uint2*)(tile + (32 * LOW_BITS + 2 * lane - LANE_WORDS * lane)));
    codes.high[0] = above.x, codes.high[1] = above.y;
#endif
    return codes;
}

inline uint shift_right(uint word, int by) { return by >= 0 ? word >> by : word << -by; }

// `count` bits from bit `from` on of the pair of codes (product, pair) of a plane of `bits`, moved to bit `to` of both halves.
template <int bits, int from, int count, int to> inline uint plane_pair(thread const uint* plane, int product, int pair) {
    const int index = product * 4 + pair, per_word = 16 / bits;
    const uint mask = ((1u << count) - 1u) * 0x10001u << to;
    return shift_right(plane[index / per_word], index % per_word * bits + from - to) & mask;
}

// OFFSET + code of the pairs of one product; with TWO_PRODUCTS 16 + lower nibble.
inline void decode_product(thread const TileCodes& codes, int product, thread uint (&a)[4]) {
#pragma unroll
    for (int pair = 0; pair < 4; pair++) {
        a[pair] = plane_pair<LOW_BITS, 0, TWO_PRODUCTS ? 4 : LOW_BITS, UP>(codes.low, product, pair) | MAGIC;
#if HIGH_BITS
        a[pair] |= plane_pair<HIGH_BITS, 0, HIGH_BITS, UP + LOW_BITS>(codes.high, product, pair);
#endif
    }
}
#if TWO_PRODUCTS
// 256 + 16 * upper nibble.
inline void decode_upper(thread const TileCodes& codes, int product, thread uint (&a)[4]) {
#pragma unroll
    for (int pair = 0; pair < 4; pair++)
        a[pair] = plane_pair<8, 4, 4, 3>(codes.low, product, pair) | MAGIC_UPPER;
}
#endif

// The first of a lane's 4 columns of a product: its columns of a span are neighbours, so that inputs are read 8 or 16 at once.
inline uint product_col(uint quarter, uint product) {
    return product / (SPAN / 16) * SPAN + quarter * (SPAN / 4) + product % (SPAN / 16) * 4;
}

// A tile with the scales of this lane's rows g and g + 8 for each span, as (scale, bias) in a word.
struct LoadedTile {
    TileCodes codes;
    uint scales[SPANS][2];
};

// `from`: the scales of the row tile, from this lane's row on.
inline void load_scales(device const uint* from, uint step, thread uint (&scales)[SPANS][2]) {
#pragma unroll
    for (uint span = 0; span < SPANS; span++) {
        const uint group = (step * STEP + span * SPAN) / GROUP;
        scales[span][0] = from[group * 16];
        scales[span][1] = from[group * 16 + 8];
    }
}

inline LoadedTile load_step(device const uint* row_tiles, device const uint* scales, uint step, uint lane) {
    LoadedTile loaded;
    loaded.codes = load_tile(row_tiles + step * (32 * BITS), lane);
    load_scales(scales, step, loaded.scales);
    return loaded;
}

// The scale of a stored pair, and the bias of OFFSET + code.
inline float2 scale_and_bias(uint stored) {
    float2 result;
    result.x = widen(weight_of_bits(stored));
    result.y = fma(-OFFSET, result.x, widen(weight_of_bits(stored >> 16)));
    return result;
}
