// Sums of products of inputs to what codes are chosen by: means, diagonals, orders. Each value is read and written once or twice, which
// takes 12 bytes: 0.5 ms for 14336 columns at 4.8e12 bytes a second.
// Grids: (values / THREADS rounded up, 1, 1); of sum_groups a thread is a sum. Defines: THREADS, GROUP (of sum_groups).

struct SquareProblem {
    uint size;
    uint count;    // of values
    float if_zero; // for a diagonal of zero
    float added;   // to the diagonal
    uint parts;    // that sums are divided by
};

// The number of the value of a thread.
#define VALUE_INDEX (ulong(group_position.x) * THREADS + thread_index)

KERNEL(subtract)(
    device float* from [[buffer(0)]],       // (count)
    device const float* other [[buffer(1)]], // (count)
    PROBLEM(SquareProblem, 2))
{
    if (VALUE_INDEX < problem.count)
        from[VALUE_INDEX] -= other[VALUE_INDEX];
}

KERNEL(mean)(
    device float* sums [[buffer(0)]], // (size, size)
    PROBLEM(SquareProblem, 1))
{
    if (VALUE_INDEX < problem.count)
        sums[VALUE_INDEX] = float(double(sums[VALUE_INDEX]) / double(problem.parts));
}

// The same of a symmetric matrix of which nothing left of the diagonal is known.
KERNEL(mean_symmetric)(
    device float* sums [[buffer(0)]], // (size, size)
    PROBLEM(SquareProblem, 1))
{
    const ulong at = VALUE_INDEX;
    const uint row = uint(at / problem.size), col = uint(at % problem.size);
    if (row < problem.size && col >= row) {
        const float value = float(double(sums[at]) / double(problem.parts));
        sums[at] = value;
        sums[ulong(col) * problem.size + row] = value;
    }
}

KERNEL(read_diagonal)(
    device const float* square [[buffer(0)]], // (size, size)
    device float* diagonal [[buffer(1)]],     // (size)
    PROBLEM(SquareProblem, 2))
{
    if (VALUE_INDEX < problem.size)
        diagonal[VALUE_INDEX] = square[VALUE_INDEX * (problem.size + 1)];
}

KERNEL(change_diagonal)(
    device float* square [[buffer(0)]], // (size, size)
    PROBLEM(SquareProblem, 1))
{
    if (VALUE_INDEX < problem.size) {
        const float own = square[VALUE_INDEX * (problem.size + 1)];
        square[VALUE_INDEX * (problem.size + 1)] = (own == 0.0f ? problem.if_zero : own) + problem.added;
    }
}

// The lower triangle in another order, with something added to its diagonal.
KERNEL(arrange_triangle)(
    device const float* square [[buffer(0)]], // (size, size)
    device const uint* order [[buffer(1)]],   // (size)
    device float* to [[buffer(2)]],           // (size, size)
    PROBLEM(SquareProblem, 3))
{
    const ulong at = VALUE_INDEX;
    const uint row = uint(at / problem.size), col = uint(at % problem.size);
    if (row < problem.size) {
        const float value = col <= row ? square[ulong(order[row]) * problem.size + order[col]] : 0.0f;
        to[at] = row == col ? value + problem.added : value;
    }
}

KERNEL(reverse)(
    device const float* from [[buffer(0)]], // (size, size)
    device float* to [[buffer(1)]],         // (size, size)
    PROBLEM(SquareProblem, 2))
{
    const ulong count = ulong(problem.size) * problem.size;
    if (VALUE_INDEX < count)
        to[VALUE_INDEX] = from[count - 1 - VALUE_INDEX];
}

// Sums over the blocks of two groups.
KERNEL(sum_groups)(
    device const float* square [[buffer(0)]], // (size, size)
    device double* sums [[buffer(1)]],        // (size / GROUP, size / GROUP)
    PROBLEM(SquareProblem, 2))
{
    const uint groups = problem.size / GROUP;
    const ulong at = VALUE_INDEX;
    if (at >= ulong(groups) * groups)
        return;
    const uint row = uint(at / groups) * GROUP, col = uint(at % groups) * GROUP;
    double sum = 0;
    for (uint i = 0; i < GROUP; i++)
        for (uint j = 0; j < GROUP; j++) sum += double(square[ulong(row + i) * problem.size + col + j]);
    sums[at] = sum;
}
