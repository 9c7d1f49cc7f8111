// What the factor of a symmetric matrix and its inverse take besides products: blocks on the diagonal. A factor L of (size, size) takes
// size / 64 rounds of factor_block, a product for the rows below and one for what is right of them; its inverse as many of two products.
// Grids: factor_block (1, 1, 1); place_blocks (blocks, 1, 1). Defines: THREADS (256).

#define BLOCK 64

struct BlockProblem {
    uint size;
    uint first; // row and column of the block
};

// The lower factor of a block, in f64, and its inverse: a lower triangle with zeros above. A block that is not positive definite leaves
// 1 in `failed`.
KERNEL(factor_block)(
    device const float* values [[buffer(0)]], // (size, size); the lower triangle is read
    device float* inverses [[buffer(1)]],     // (blocks, BLOCK, BLOCK)
    device uint* failed [[buffer(2)]],        // (1)
    PROBLEM(BlockProblem, 3))
{
    SHARED(double, factor, BLOCK * BLOCK);
    const uint count = min(problem.size - problem.first, uint(BLOCK));
    for (uint i = thread_index; i < count * count; i += THREADS) {
        const uint row = i / count, col = i % count;
        factor[row * BLOCK + col] = values[ulong(problem.first + row) * problem.size + problem.first + col];
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (uint col = 0; col < count; col++) {
        const double pivot = factor[col * BLOCK + col];
        const bool good = pivot > 0.0 && pivot < 1e300;
        if (!good && thread_index == 0)
            failed[0] = 1;
        const double root = sqrt(good ? pivot : 1.0);
        threadgroup_barrier(mem_flags::mem_threadgroup);
        for (uint row = col + thread_index; row < count; row += THREADS)
            factor[row * BLOCK + col] = row == col ? root : factor[row * BLOCK + col] / root;
        threadgroup_barrier(mem_flags::mem_threadgroup);
        const uint rest = count - col - 1;
        for (uint i = thread_index; i < rest * rest; i += THREADS) {
            const uint row = col + 1 + i / rest, other = col + 1 + i % rest;
            if (other <= row)
                factor[row * BLOCK + other] -= factor[row * BLOCK + col] * factor[other * BLOCK + col];
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
    }
    // A thread solves for a column.
    device float* inverse = inverses + ulong(problem.first / BLOCK) * BLOCK * BLOCK;
    if (thread_index < BLOCK) {
        const uint col = thread_index;
        double solved[BLOCK];
        for (uint row = 0; row < BLOCK; row++) {
            double value = row == col ? 1.0 : 0.0;
            if (row >= col && row < count) {
                for (uint at = col; at < row; at++) value -= factor[row * BLOCK + at] * solved[at];
                value /= factor[row * BLOCK + row];
            }
            solved[row] = row < count ? value : 0.0;
            inverse[row * BLOCK + col] = row >= col && col < count ? float(solved[row]) : 0.0f;
        }
    }
}

// The inverses of the blocks, where those of the whole stand.
KERNEL(place_blocks)(
    device const float* inverses [[buffer(0)]], // (blocks, BLOCK, BLOCK)
    device float* to [[buffer(1)]],             // (size, size)
    PROBLEM(BlockProblem, 2))
{
    const uint first = group_position.x * BLOCK, count = min(problem.size - first, uint(BLOCK));
    device const float* inverse = inverses + ulong(group_position.x) * BLOCK * BLOCK;
    for (uint i = thread_index; i < count * count; i += THREADS)
        to[ulong(first + i / count) * problem.size + first + i % count] = inverse[i / count * BLOCK + i % count];
}
