// The order ("tiles") of packed weights for CUDA's tensor cores: 16 rows x 64 columns are 128 * BITS bytes; a lane's 32 codes lie
// together, so that masks bring four into the bytes of a word, and a shift and a mask two into its halves.
// Codes become bytes, or 16-bit floats exactly (OFFSET + code, by a mask and an exponent); scale and bias lie apart, in one word (f32: two).
// Shared by tensor.metal, tensor_wide.metal and repack.metal (which makes the order).
// Defines: VALUE, WEIGHT, BITS, GROUP (32 or a multiple of 64).

struct TensorProblem {
    uint rows;
    uint cols; // a multiple of 64
    uint inputs;
};

#define STEP 64                             // columns of a tile
#define SPAN (GROUP < STEP ? GROUP : STEP)  // columns of a tile that share a scale
#define SPANS (STEP / SPAN)
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

// A lane's 32 codes of a tile are 8 registers of 4 codes, a code in each byte: register 2 * product + half holds row g + 8 * half and the
// lane's 4 columns of the product, in the order 0, 2, 1, 3, so that the halves of a word are pairs of neighbours for 16-bit floats too.
// A word holds the BESIDE registers that fit into its bytes; the bits of the rest lie in what is left of the bytes.
struct TileCodes {
    uint words[BITS];
};

#define BESIDE (8 / BITS)
#define LOW_WORDS (BITS < 4 ? 2 : BITS / 4 * 4) // of a lane, that lie apart from the rest
#define LANE_WORDS (LOW_WORDS < 4 ? LOW_WORDS : 4) // that a lane reads at once
#define IN_BYTES 0x01010101u
#define IN_HALVES 0x00010001u

// `tile`: this lane's first word of one.
inline TileCodes load_tile(device const uint* tile, uint lane) {
    TileCodes codes;
#if BITS < 4
    uint2 two = load_once((device const uint2*)tile);
    codes.words[0] = two.x, codes.words[1] = two.y;
#else
#pragma unroll
    for (uint i = 0; i < BITS / 4; i++) {
        uint4 four = load_once((device const uint4*)(tile + 128 * i));
        codes.words[4 * i] = four.x, codes.words[4 * i + 1] = four.y, codes.words[4 * i + 2] = four.z, codes.words[4 * i + 3] = four.w;
    }
#endif
#if BITS - LOW_WORDS == 1
    codes.words[LOW_WORDS] = load_once(tile + (32 * LOW_WORDS + lane - LANE_WORDS * lane));
#elif BITS - LOW_WORDS == 2
    uint2 above = load_once((device const uint2*)(tile + (32 * LOW_WORDS + 2 * lane - LANE_WORDS * lane)));
    codes.words[LOW_WORDS] = above.x, codes.words[LOW_WORDS + 1] = above.y;
#endif
    return codes;
}

// The same of a tile in threadgroup memory, from its first word on.
inline TileCodes read_tile(threadgroup const uint* tile, uint lane) {
    TileCodes codes;
#if BITS < 4
    const uint2 two = *(threadgroup const uint2*)(tile + 2 * lane);
    codes.words[0] = two.x, codes.words[1] = two.y;
#if BITS == 3
    codes.words[2] = tile[64 + lane];
#endif
#else
#pragma unroll
    for (uint i = 0; i < BITS / 4; i++) {
        const uint4 four = *(threadgroup const uint4*)(tile + 128 * i + 4 * lane);
        codes.words[4 * i] = four.x, codes.words[4 * i + 1] = four.y, codes.words[4 * i + 2] = four.z, codes.words[4 * i + 3] = four.w;
    }
#if BITS == 5
    codes.words[4] = tile[128 + lane];
#elif BITS == 6
    const uint2 two = *(threadgroup const uint2*)(tile + 128 + 2 * lane);
    codes.words[4] = two.x, codes.words[5] = two.y;
#endif
#endif
    return codes;
}

inline uint shift_right(uint word, int by) { return by >= 0 ? word >> by : word << -by; }

// `count` bits from bit `from` on of every byte or half, moved to bit `to`.
inline uint move_bits(uint word, int from, int count, int to, uint every) {
    return shift_right(word, from - to) & (((1u << count) - 1u) * every << to);
}

// The codes of a register at bit `to` of every byte; or those of its even or odd bytes (`odd`) in halves.
inline uint codes_of(thread const TileCodes& codes, int index, int odd, int to, uint every) {
    const int up = 8 * odd;
    if (index < BESIDE * BITS)
        return move_bits(codes.words[index / BESIDE], up + index % BESIDE * BITS, BITS, to, every);
#if BITS == 3
    return move_bits(codes.words[index - 6], up + 6, 2, to, every) | move_bits(codes.words[2], up + index, 1, to + 2, every);
#elif BITS == 5
    const uint low = move_bits(codes.words[index - 5], up + 5, 3, to, every);
    if (index == 6)
        return low | move_bits(codes.words[3], up + 7, 1, to + 3, every) | move_bits(codes.words[4], up + 5, 1, to + 4, every);
    return low | (index == 5 ? move_bits(codes.words[3], up + 5, 2, to + 3, every) : move_bits(codes.words[4], up + 6, 2, to + 3, every));
#elif BITS == 6
    uint result = 0;
#pragma unroll
    for (int i = 0; i < 3; i++)
        result |= move_bits(codes.words[(index - 6) * 3 + i], up + 6, 2, to + 2 * i, every);
    return result;
#else
    return 0;
#endif
}

// Registers of a product of bytes, which is two products of 16-bit floats. Those of rows g + 8 are HALF_FACTOR times as large.
#define HALF_PLACE (BITS <= 4 ? BITS : 0)
#define HALF_FACTOR float(1 << HALF_PLACE)
inline void decode_bytes(thread const TileCodes& codes, int product, thread uint (&a)[4]) {
#pragma unroll
    for (int i = 0; i < 4; i++)
        a[i] = codes_of(codes, product * 4 + i, 0, i % 2 * HALF_PLACE, IN_BYTES);
}

// OFFSET + code of the pairs of one product; with TWO_PRODUCTS 16 + lower nibble.
inline void decode_product(thread const TileCodes& codes, int product, thread uint (&a)[4]) {
#pragma unroll
    for (int pair = 0; pair < 4; pair++) {
        const int index = product * 2 + pair % 2, odd = pair / 2;
#if TWO_PRODUCTS
        a[pair] = move_bits(codes.words[index], 8 * odd, 4, UP, IN_HALVES) | MAGIC;
#else
        a[pair] = codes_of(codes, index, odd, UP, IN_HALVES) | MAGIC;
#endif
    }
}
#if TWO_PRODUCTS
// 256 + 16 * upper nibble.
inline void decode_upper(thread const TileCodes& codes, int product, thread uint (&a)[4]) {
#pragma unroll
    for (int pair = 0; pair < 4; pair++)
        a[pair] = move_bits(codes.words[product * 2 + pair % 2], 8 * (pair / 2) + 4, 4, 3, IN_HALVES) | MAGIC_UPPER;
}
#endif

// The first of a lane's 4 columns of a product: its columns of a span are neighbours, so that inputs are read 8 or 16 at once.
inline uint product_col(uint quarter, uint product) {
    return product / (SPAN / 16) * SPAN + quarter * (SPAN / 4) + product % (SPAN / 16) * 4;
}

#define AFFINE_WORDS (WEIGHT == 0 ? 2 : 1) // for scale and bias of a row's group: f32 only few inputs take
#if WEIGHT

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

#endif

// The power of two that brings a size to 2^14 .. 2^15, which f16 can hold, and its inverse.
inline float power_for(float size) {
    const uint exponent = as_type<uint>(size) >> 23; // of a number that is not negative
    return as_type<float>((exponent < 41u ? 227u : 268u - exponent) << 23);
}
inline float inverse_power(float power) { return as_type<float>((254u << 23) - as_type<uint>(power)); }
