// Reads memory as fast as the device can: what the rates of other kernels are compared with. The words are folded together, so that
// no compiler leaves a read out.
// Grid: (any, 1, 1); threads take turns, four reads at a time. Defines: THREADS.

struct ReadProblem {
    uint count; // of 16 bytes; a multiple of 4 * THREADS * threadgroups
};

KERNEL(read)(
    device const uint4* data [[buffer(0)]], // (count)
    device uint* folded [[buffer(1)]],      // (threads of the grid)
    PROBLEM(ReadProblem, 2))
{
    const uint threads = group_count.x * THREADS, index = group_position.x * THREADS + thread_index;
    uint fold = 0;
    for (uint first = index; first < problem.count; first += 4 * threads) {
#pragma unroll
        for (uint i = 0; i < 4; i++) {
            uint4 words = data[first + i * threads];
            fold ^= words.x ^ words.y ^ words.z ^ words.w;
        }
    }
    folded[index] = fold;
}
