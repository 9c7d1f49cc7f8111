// Rows that are measured as a whole and changed in place. `cut`: max(x - mean - deviations * deviation, 0); `rescale`: x * sqrt(mean(like^2)) /
// sqrt(max(mean(x^2), floor)).
// Grid: (rows, 1, 1); a threadgroup takes a row, a thread every THREADS-th value of it. Sums are f32.
// Defines: THREADS, VALUE.

struct CutProblem {
    uint cols;
    float number; // deviations, or the floor
};

KERNEL(cut)(
    device value_t* values [[buffer(0)]], // (rows, cols)
    PROBLEM(CutProblem, 1))
{
    SHARED(float, room, THREADS / 32);
    launch_dependents();
    wait_for_previous();
    device value_t* row = values + ulong(group_position.x) * problem.cols;
    float sum = 0, squares = 0;
    for (uint i = thread_index; i < problem.cols; i += THREADS)
        sum += widen(row[i]);
    const float mean = threadgroup_sum(sum, room, lane_index, simdgroup_index) / float(problem.cols);
    for (uint i = thread_index; i < problem.cols; i += THREADS) {
        const float value = widen(row[i]) - mean;
        squares = fma(value, value, squares);
    }
    squares = threadgroup_sum(squares, room, lane_index, simdgroup_index);
    const float least = mean + problem.number * sqrt(squares / float(problem.cols));
    for (uint i = thread_index; i < problem.cols; i += THREADS)
        row[i] = narrow<value_t>(max(widen(row[i]) - least, 0.0f));
}

KERNEL(rescale)(
    device value_t* values [[buffer(0)]],     // (rows, cols)
    device const value_t* like [[buffer(1)]], // (rows, cols)
    PROBLEM(CutProblem, 2))
{
    SHARED(float, room, THREADS / 32);
    launch_dependents();
    wait_for_previous();
    const ulong begin = ulong(group_position.x) * problem.cols;
    float squares = 0, wanted = 0;
    for (uint i = thread_index; i < problem.cols; i += THREADS) {
        const float value = widen(values[begin + i]), other = widen(like[begin + i]);
        squares = fma(value, value, squares);
        wanted = fma(other, other, wanted);
    }
    squares = threadgroup_sum(squares, room, lane_index, simdgroup_index) / float(problem.cols);
    wanted = threadgroup_sum(wanted, room, lane_index, simdgroup_index) / float(problem.cols);
    const float factor = sqrt(wanted) / sqrt(max(squares, problem.number));
    for (uint i = thread_index; i < problem.cols; i += THREADS)
        values[begin + i] = narrow<value_t>(widen(values[begin + i]) * factor);
}
