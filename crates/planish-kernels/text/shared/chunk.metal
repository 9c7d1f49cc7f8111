// 32 neighbouring columns of one row of weights, as a lane holds them between loading and decoding. A code lies in the upper bits of
// the fraction of a number between 1 and 2, which is cheaper than a conversion. Needs WHOLE: cols is a multiple of 32.

struct Chunk {
#if BITS
    uint words[BITS]; // 32 codes
#else
    device const weight_t* plain; // 32 values
#endif
    device const weight_t* scales; // of the row
    device const weight_t* biases;
};

inline Chunk load_chunk(Weights weights, ulong row, uint col) {
    Chunk chunk;
#if BITS
    const uint words_each = weights.cols / 8 * BITS / 4, first = col / 32 * BITS;
    device const uint* codes = weights.codes + row * words_each + first;
    if (WHOLE)
        load_words(codes, chunk.words);
    else
        load_words_partial(codes, words_each - first, chunk.words);
    const ulong groups = row * (weights.cols / GROUP);
    chunk.scales = weights.scales + groups;
    chunk.biases = weights.biases + groups;
#else
    chunk.plain = (device const weight_t*)weights.codes + row * weights.cols + col;
#endif
    return chunk;
}

#if BITS
#define FRACTION_BITS 23
// Codes 8 * EIGHT .. + 8 as 1 + code / 2^BITS.
template <uint EIGHT> inline void decode_near_one(thread const uint (&words)[BITS], thread float (&values)[8]) {
#pragma unroll
    for (uint i = 0; i < 8; i++) {
        const uint bit = (8 * EIGHT + i) * BITS, word = bit / 32, shift = bit % 32, up = FRACTION_BITS - BITS;
        uint code;
        if (shift + BITS > 32)
            code = (words[word] >> shift | words[word + 1 < BITS ? word + 1 : word] << (32 - shift)) << up;
        else
            code = shift > up ? words[word] >> (shift - up) : words[word] << (up - shift);
        values[i] = as_type<float>((code & CODE_MASK << up) | 0x3f800000u);
    }
}
#endif

// Columns 8 * EIGHT .. + 8 of a chunk that begins at `col`: the weights are values * scale + bias, which are returned.
template <uint EIGHT> inline float2 decode_chunk8(thread const Chunk& chunk, uint cols, uint col, thread float (&values)[8]) {
    float2 affine;
#if BITS
    decode_near_one<EIGHT>(chunk.words, values);
    const uint group = min(col + 8 * EIGHT, cols - 1) / GROUP;
    affine.x = widen(chunk.scales[group]) * float(1 << BITS);
    affine.y = widen(chunk.biases[group]) - affine.x;
#else
    if (WHOLE)
        load8(chunk.plain + 8 * EIGHT, values);
    else
        load8_partial(chunk.plain + 8 * EIGHT, col + 8 * EIGHT < cols ? cols - col - 8 * EIGHT : 0u, values);
    affine.x = 1.0f, affine.y = 0.0f;
#endif
    return affine;
}
