// Codes of rows by error feedback, a group after another, and the sweep that goes over them: 16 lanes have a row. Between launches
// products pass errors on to other columns. Grid: (rows / (THREADS / 16) rounded up, 1, 1). Defines: THREADS, VALUE (0), WEIGHT (type of scales
// and biases), BITS, GROUP, and what shared/search.metal says.
//
// A search takes some 925 operations for a weight, the feedback within a group 2 GROUP: 1.2e3 for each of the 218e6 weights of a layer
// of Llama 3.1 8B are 2.6e11, 8 ms at 33e12 a second; the products beside it 1.5e12, 23 ms at 67e12.

struct FeedbackProblem {
    uint rows;
    uint cols;
    uint first; // column of the group or block
};

#define SWEPT 64 // columns of a block

// Chooses scale, bias and codes of the group at `first`. `errors` are what is to be added to later columns, times rows of `upper`.
KERNEL(feedback)(
    device const float* left [[buffer(0)]],    // (rows, cols), in the order in which columns are coded
    device const float* weights [[buffer(1)]], // (cols): of errors, likewise
    device const float* upper [[buffer(2)]],   // (cols, cols)
    device const uint* order [[buffer(3)]],    // (cols): the column that is n-th
    device uchar* codes [[buffer(4)]],         // (rows, cols), as columns stand
    device float* scales [[buffer(5)]],        // (rows, cols / GROUP)
    device float* biases [[buffer(6)]],        // (rows, cols / GROUP)
    device float* errors [[buffer(7)]],        // (rows, GROUP)
    PROBLEM(FeedbackProblem, 8))
{
    const uint lane = lane_index, asked = group_position.x * (THREADS / 16) + thread_index / 16;
    const bool exists = asked < problem.rows;
    const ulong row = exists ? asked : 0;
    float x[HELD], w[HELD], centred[HELD], found[HELD];
#pragma unroll
    for (uint i = 0; i < HELD; i++) {
        const uint at = i * 16 + lane % 16;
        x[i] = at < GROUP ? left[row * problem.cols + problem.first + at] : 0.0f;
        w[i] = at < GROUP ? weights[problem.first + at] : 0.0f;
        centred[i] = x[i];
    }
    const float2 affine = search(centred, w, lane, found);
#pragma unroll
    for (uint i = 0; i < HELD; i++) {
        for (uint other = 0; other < 16 && i * 16 + other < GROUP; other++) {
            const uint at = i * 16 + other;
            const float value = simd_shuffle(x[i], ushort((lane & 16) + other));
            const float code = nearest_code(exact_divide(value - affine.y, affine.x));
            device const float* own = upper + ulong(problem.first + at) * problem.cols + problem.first;
            const float error = exact_divide(value - (exact_multiply(code, affine.x) + affine.y), own[at]);
            if (exists && lane % 16 == other) {
                codes[row * problem.cols + order[problem.first + at]] = uchar(uint(code));
                errors[row * GROUP + at] = -error;
            }
#pragma unroll
            for (uint j = 0; j < HELD; j++) {
                const uint later = j * 16 + lane % 16;
                if (later > at && later < GROUP)
                    x[j] -= exact_multiply(error, own[later]);
            }
        }
    }
    if (exists && lane % 16 == 0) {
        const ulong at = row * (problem.cols / GROUP) + order[problem.first] / GROUP;
        scales[at] = affine.x, biases[at] = affine.y;
    }
}

// Gives the codes of the block at `first`, one after another, the values at which the row's error is least, the others being what they
// are. `changes` of weights are for the products of later columns.
KERNEL(sweep)(
    device uchar* codes [[buffer(0)]],          // (rows, cols)
    device const float* scales [[buffer(1)]],   // (rows, cols / GROUP)
    device const float* biases [[buffer(2)]],   // (rows, cols / GROUP)
    device const float* squares [[buffer(3)]],  // (cols, cols)
    device const float* products [[buffer(4)]], // (rows, cols): d H
    device float* changes [[buffer(5)]],        // (rows, SWEPT)
    PROBLEM(FeedbackProblem, 6))
{
    const uint lane = lane_index, asked = group_position.x * (THREADS / 16) + thread_index / 16;
    const bool exists = asked < problem.rows;
    const ulong row = exists ? asked : 0, begin = row * problem.cols + problem.first;
    const uint count = min(problem.cols - problem.first, uint(SWEPT)), groups = problem.cols / GROUP;
    float own_products[SWEPT / 16], own_codes[SWEPT / 16], own_scales[SWEPT / 16], own_biases[SWEPT / 16];
#pragma unroll
    for (uint i = 0; i < SWEPT / 16; i++) {
        const uint at = i * 16 + lane % 16;
        const bool there = at < count;
        const ulong group = row * groups + (there ? problem.first + at : 0) / GROUP;
        own_products[i] = there ? products[begin + at] : 0.0f;
        own_codes[i] = there ? float(codes[begin + at]) : 0.0f;
        own_scales[i] = scales[group], own_biases[i] = biases[group];
    }
#pragma unroll
    for (uint i = 0; i < SWEPT / 16; i++) {
        for (uint other = 0; other < 16; other++) {
            const uint at = i * 16 + other;
            const ushort from = ushort((lane & 16) + other);
            const float scale = simd_shuffle(own_scales[i], from), bias = simd_shuffle(own_biases[i], from);
            const float code = simd_shuffle(own_codes[i], from), product = simd_shuffle(own_products[i], from);
            float change = 0.0f;
            if (at < count) {
                device const float* own = squares + ulong(problem.first + at) * problem.cols + problem.first;
                const float weight = exact_multiply(code, scale) + bias;
                const float better = nearest_code(exact_divide(weight - exact_divide(product, own[at]) - bias, scale));
                change = exact_multiply(better, scale) + bias - weight;
                change = fabs(change) < INFINITY ? change : 0.0f;
                if (lane % 16 == other && change != 0.0f)
                    own_codes[i] = better;
#pragma unroll
                for (uint j = 0; j < SWEPT / 16; j++)
                    if (j * 16 + lane % 16 < count)
                        own_products[j] += exact_multiply(change, own[j * 16 + lane % 16]);
            }
            if (exists && lane % 16 == other)
                changes[row * SWEPT + at] = change;
        }
    }
#pragma unroll
    for (uint i = 0; i < SWEPT / 16; i++)
        if (exists && i * 16 + lane % 16 < count)
            codes[begin + i * 16 + lane % 16] = uchar(uint(own_codes[i]));
}
