// hidden += factor * residual; output = normalized(hidden) * weight + bias, over `width` neighbouring values at a time. RMS norm:
// x / sqrt(mean(x^2) + epsilon); layer norm (LAYER): (x - mean) / sqrt(variance + epsilon); IDENTITY: x.
// Grid: (rows, cols / width, 1); a threadgroup normalizes one width, a thread every THREADS-th 8 values of it, which it reads once.
// Sums are f32, of the stored (rounded) hidden values.
// Defines: THREADS, EACH (eights of a thread: width / (8 * THREADS), rounded up), WHOLE (width is a multiple of 8), LAYER, IDENTITY, RESIDUAL,
// SCALED (weight), SHIFTED (bias), IN_PLACE (the output is hidden itself).

struct NormProblem {
    uint cols;
    uint width;
    uint size;      // of weight and bias, which repeat along the columns
    uint first_row; // of hidden and residual; the output begins at its row 0
    float factor;
    float epsilon;
};

// 8 values, of which `count` exist.
template <typename T> inline void read8(device const T* from, uint count, thread float (&to)[8]) {
    if (WHOLE)
        load8(from, to);
    else
        load8_partial(from, count, to);
}
template <typename T> inline void put8(device T* to, uint count, thread const float (&from)[8]) {
    if (WHOLE)
        write8(to, from);
    else
        store8(to, count, from);
}

KERNEL(normalize)(
    device value_t* hidden [[buffer(0)]],         // (rows, cols)
    device const value_t* residual [[buffer(1)]], // (rows, cols)
    device const float* weight [[buffer(2)]],     // (size)
    device const float* bias [[buffer(3)]],       // (size)
    device value_t* output [[buffer(4)]],         // (rows, cols)
    PROBLEM(NormProblem, 5))
{
    SHARED(float, room, THREADS / 32);
    launch_dependents();
    const uint width = problem.width, begin = group_position.y * width, weights_from = begin % problem.size;
    const ulong from = ulong(problem.first_row + group_position.x) * problem.cols + begin;
    const ulong to = IN_PLACE ? from : ulong(group_position.x) * problem.cols + begin;
    device value_t* target = IN_PLACE ? hidden : output;

    float values[EACH][8], factors[EACH][8], sum = 0, squares = 0;
    // Weights depend on nothing that ran before.
#pragma unroll
    for (uint e = 0; e < EACH; e++) {
        const uint i = (thread_index + e * THREADS) * 8;
        if (SCALED && i < width)
            read8(weight + weights_from + i, width - i, factors[e]);
    }
    wait_for_previous();
#pragma unroll
    for (uint e = 0; e < EACH; e++) {
        const uint i = (thread_index + e * THREADS) * 8;
#pragma unroll
        for (uint j = 0; j < 8; j++)
            values[e][j] = 0;
        if (i < width) {
            read8(hidden + from + i, width - i, values[e]);
            if (RESIDUAL) {
                float added[8];
                read8(residual + from + i, width - i, added);
#pragma unroll
                for (uint j = 0; j < 8; j++)
                    values[e][j] = widen(narrow<value_t>(fma(problem.factor, added[j], values[e][j])));
                put8(hidden + from + i, width - i, values[e]);
            }
        }
#pragma unroll
        for (uint j = 0; j < 8; j++) {
            sum += values[e][j];
            squares = fma(values[e][j], values[e][j], squares);
        }
    }
    float mean = 0;
    if (LAYER) {
        mean = threadgroup_sum(sum, room, lane_index, simdgroup_index) / float(width);
        squares = 0;
#pragma unroll
        for (uint e = 0; e < EACH; e++)
#pragma unroll
            for (uint j = 0; j < 8; j++) {
                const float value = (thread_index + e * THREADS) * 8 + j < width ? values[e][j] - mean : 0.0f;
                squares = fma(value, value, squares);
            }
    }
    squares = threadgroup_sum(squares, room, lane_index, simdgroup_index);
    const float scale = IDENTITY ? 1.0f : 1.0f / sqrt(squares / float(width) + problem.epsilon);
#pragma unroll
    for (uint e = 0; e < EACH; e++) {
        const uint i = (thread_index + e * THREADS) * 8;
        if (i < width) {
            float shifts[8];
            if (SHIFTED)
                read8(bias + weights_from + i, width - i, shifts);
#pragma unroll
            for (uint j = 0; j < 8; j++) {
                values[e][j] = (values[e][j] - mean) * scale;
                if (SCALED)
                    values[e][j] *= factors[e][j];
                if (SHIFTED)
                    values[e][j] += shifts[j];
            }
            put8(target + to + i, width - i, values[e]);
        }
    }
}
