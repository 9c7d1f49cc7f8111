// Packed weights: a row of codes of BITS bits is one little-endian bit stream (planish-format defines it), so 32 codes are BITS
// words and 8 codes are BITS bytes. Every GROUP codes share a scale and a bias. BITS 0: plain weights of `weight_t`.

#if BITS

#define CODE_MASK ((1u << BITS) - 1u)

// BITS words, which are 32 codes, from an address that is a multiple of their size's largest power of two (at most 16 bytes).
inline void load_words(device const uint* codes, thread uint (&words)[BITS]) {
#if BITS % 4 == 0
#pragma unroll
    for (uint i = 0; i < BITS; i += 4) {
        uint4 four = *(device const uint4*)(codes + i);
        words[i] = four.x, words[i + 1] = four.y, words[i + 2] = four.z, words[i + 3] = four.w;
    }
#elif BITS % 2 == 0
#pragma unroll
    for (uint i = 0; i < BITS; i += 2) {
        uint2 two = *(device const uint2*)(codes + i);
        words[i] = two.x, words[i + 1] = two.y;
    }
#else
#pragma unroll
    for (uint i = 0; i < BITS; i++)
        words[i] = codes[i];
#endif
}
// The same at the end of a row: words from `count` on are zeros.
inline void load_words_partial(device const uint* codes, uint count, thread uint (&words)[BITS]) {
#pragma unroll
    for (uint i = 0; i < BITS; i++)
        words[i] = i < count ? codes[i] : 0u;
}

// Codes 8 * EIGHT .. 8 * EIGHT + 8 of 32.
template <uint EIGHT> inline void decode8(thread const uint (&words)[BITS], thread float (&codes)[8]) {
#pragma unroll
    for (uint i = 0; i < 8; i++) {
        const uint bit = (8 * EIGHT + i) * BITS, word = bit / 32, shift = bit % 32;
        uint code = words[word] >> shift;
        if (shift + BITS > 32)
            code |= words[word + 1 < BITS ? word + 1 : word] << (32 - shift);
        codes[i] = float(code & CODE_MASK);
    }
}

// 8 codes that begin at a multiple of 8 anywhere: BITS bytes.
inline void load_codes8(device const uchar* bytes, thread float (&codes)[8]) {
    uint low = 0, high = 0;
#if BITS == 8
    uint2 words = *(device const uint2*)bytes;
    low = words.x, high = words.y;
#elif BITS == 4
    low = *(device const uint*)bytes;
#else
#pragma unroll
    for (uint i = 0; i < BITS; i++) {
        if (i < 4)
            low |= uint(bytes[i]) << (8 * i);
        else
            high |= uint(bytes[i]) << (8 * (i - 4));
    }
#endif
#pragma unroll
    for (uint i = 0; i < 8; i++) {
        const uint bit = i * BITS;
        uint code = bit < 32 ? low >> (bit % 32) : high >> (bit % 32);
        if (bit < 32 && bit + BITS > 32)
            code |= high << (32 - bit);
        codes[i] = float(code & CODE_MASK);
    }
}

#endif

// A matrix of weights (rows, cols), packed or plain.
struct Weights {
    device const uint* codes;      // (rows, cols * BITS / 32), or plain (rows, cols) of weight_t
    device const weight_t* scales; // (rows, cols / GROUP)
    device const weight_t* biases; // (rows, cols / GROUP)
    uint cols;
};

// 8 weights from column `col`, a multiple of 8; those past the last column are zeros.
inline void load_weights8(Weights weights, ulong row, uint col, thread float (&result)[8]) {
#if BITS
    ulong first = row * weights.cols + col;
    load_codes8((device const uchar*)weights.codes + first / 8 * BITS, result);
    ulong group = row * (weights.cols / GROUP) + col / GROUP;
    float scale = widen(weights.scales[group]), bias = widen(weights.biases[group]);
#pragma unroll
    for (uint i = 0; i < 8; i++)
        result[i] = fma(scale, result[i], bias);
#else
    device const weight_t* plain = (device const weight_t*)weights.codes + row * weights.cols + col;
    if (weights.cols % 8 == 0)
        load8(plain, result);
    else
        load8_partial(plain, weights.cols - col, result);
#endif
}
