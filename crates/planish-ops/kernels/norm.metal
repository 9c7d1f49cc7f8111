// hidden += factor * residual; output = normalized(hidden) * weight + bias, over `width` neighbouring values at a time. RMS norm:
// x / sqrt(mean(x^2) + epsilon); layer norm (LAYER): (x - mean) / sqrt(variance + epsilon).
// Grid: (rows, cols / width, 1); a threadgroup normalizes one width, a thread every THREADS-th value of it, which it reads once.
// Sums are f32, of the stored (rounded) hidden values.
// Defines: THREADS, EACH (values of a thread: width / THREADS, rounded up), LAYER, RESIDUAL, SCALED (weight), SHIFTED (bias),
// IN_PLACE (the output is hidden itself).

struct NormProblem {
    uint cols;
    uint width;
    uint size;      // of weight and bias, which repeat along the columns
    uint first_row; // of hidden and residual; the output begins at its row 0
    float factor;
    float epsilon;
};

KERNEL(normalize)(
    device value_t* hidden [[buffer(0)]],         // (rows, cols)
    device const value_t* residual [[buffer(1)]], // (rows, cols)
    device const float* weight [[buffer(2)]],     // (size)
    device const float* bias [[buffer(3)]],       // (size)
    device value_t* output [[buffer(4)]],         // (rows, cols)
    PROBLEM(NormProblem, 5))
{
    SHARED(float, room, THREADS / 32);
    const uint width = problem.width, begin = group_position.y * width;
    const ulong from = ulong(problem.first_row + group_position.x) * problem.cols + begin;
    const ulong to = IN_PLACE ? from : ulong(group_position.x) * problem.cols + begin;
    device value_t* target = IN_PLACE ? hidden : output;

    float values[EACH], factors[EACH], sum = 0, squares = 0;
#pragma unroll
    for (uint e = 0; e < EACH; e++) {
        const uint i = thread_index + e * THREADS;
        values[e] = i < width ? widen(hidden[from + i]) : 0.0f;
        factors[e] = SCALED && i < width ? weight[(begin + i) % problem.size] : 1.0f;
        if (RESIDUAL && i < width) {
            value_t stored = narrow<value_t>(fma(problem.factor, widen(residual[from + i]), values[e]));
            hidden[from + i] = stored;
            values[e] = widen(stored);
        }
        sum += values[e];
        squares = fma(values[e], values[e], squares);
    }
    float mean = 0;
    if (LAYER) {
        mean = threadgroup_sum(sum, room, lane_index, simdgroup_index) / float(width);
        squares = 0;
#pragma unroll
        for (uint e = 0; e < EACH; e++) {
            float value = thread_index + e * THREADS < width ? values[e] - mean : 0.0f;
            squares = fma(value, value, squares);
        }
    }
    squares = threadgroup_sum(squares, room, lane_index, simdgroup_index);
    const float scale = 1.0f / sqrt(squares / float(width) + problem.epsilon);
#pragma unroll
    for (uint e = 0; e < EACH; e++) {
        const uint i = thread_index + e * THREADS;
        if (i < width) {
            float value = (values[e] - mean) * scale * factors[e];
            if (SHIFTED)
                value += bias[(begin + i) % problem.size];
            target[to + i] = narrow<value_t>(value);
        }
    }
}
