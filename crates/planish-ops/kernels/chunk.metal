// 32 neighbouring columns of one row of weights, as a lane holds them between loading and decoding. Needs WHOLE: cols is a multiple
// of 32.

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

// Columns 8 * EIGHT .. + 8 of a chunk that begins at `col`: the weights are values * scale + bias, which are returned.
template <uint EIGHT> inline float2 decode_chunk8(thread const Chunk& chunk, uint cols, uint col, thread float (&values)[8]) {
    float2 affine;
#if BITS
    decode8<EIGHT>(chunk.words, values);
    const uint group = min(col + 8 * EIGHT, cols - 1) / GROUP;
    affine.x = widen(chunk.scales[group]), affine.y = widen(chunk.biases[group]);
#else
    if (WHOLE)
        load8(chunk.plain + 8 * EIGHT, values);
    else
        load8_partial(chunk.plain + 8 * EIGHT, col + 8 * EIGHT < cols ? cols - col - 8 * EIGHT : 0u, values);
    affine.x = 1.0f, affine.y = 0.0f;
#endif
    return affine;
}
