// Inputs of bf16 as warpgroup.metal reads them: f16, each input times a power of two that brings its largest value to 2^14 .. 2^15, so
// that nothing is lost but what is 2^-31 of the largest. For every 64 columns all inputs, 128 bytes each, as hopper.h's products take
// them; columns of a tile in the order of its lanes (product_col of tiles.metal), so that weights need no shuffles.
// Grid: (inputs, 1, 1); THREADS threads. Defines: THREADS, and those of tiles.metal, of which GROUP (32, or 64 for all others) matters.

struct ArrangeProblem {
    uint cols;
    uint padded; // inputs that `arranged` has room for, a multiple of 8
};

KERNEL(arrange_inputs)(
    device const uint* input [[buffer(0)]], // (inputs, cols / 2): pairs of values
    device uint4* arranged [[buffer(1)]],   // (cols / 64, padded, 8), then inverse powers (padded) of f32
    PROBLEM(ArrangeProblem, 2))
{
    SHARED(float, room, THREADS / 32);
    launch_dependents();
    wait_for_previous();
    const uint index = group_position.x, pieces = problem.cols / 8;
    device const uint* row = input + ulong(index) * (problem.cols / 2);
    float size = 0;
    for (uint piece = thread_index; piece < pieces; piece += THREADS) {
        const uint4 four = *(device const uint4*)(row + 4 * piece);
        const uint words[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
        for (uint i = 0; i < 4; i++) {
            const float2 pair = unpack_bf16(words[i]);
            size = max(size, max(fabs(pair.x), fabs(pair.y)));
        }
    }
    const float power = power_for(threadgroup_max(size, room, lane_index, simdgroup_index));
    for (uint piece = thread_index; piece < pieces; piece += THREADS) {
        const uint step = piece / 8, place = piece % 8, from = place ^ index % 8;
        uint words[4];
#pragma unroll
        for (uint quarter = 0; quarter < 4; quarter++) {
            const float2 pair = unpack_bf16(row[(step * STEP + product_col(quarter, from / 2) + from % 2 * 2) / 2]);
            words[quarter] = pack_f16(pair.x * power, pair.y * power);
        }
        const uint4 four = {words[0], words[1], words[2], words[3]};
        arranged[(ulong(step) * problem.padded + index) * 8 + place] = four;
    }
    if (thread_index == 0)
        ((device float*)(arranged + ulong(problem.padded) * pieces))[index] = inverse_power(power);
}
