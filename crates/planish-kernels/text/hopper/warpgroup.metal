// Many inputs on packed weights in the order of tiles.metal, by the warpgroups of Hopper GPUs (hopper.h): output^T = weight x^T.
// Weights are decoded in registers and rounded once to f16, inputs come as f16 from arrange.metal; products are summed in f32. Powers
// of two, one for each row and one for each input, keep both in f16's range; they are undone at the end.
// A threadgroup has ROWGROUPS * SPLITS warpgroups and one that brings stages (stages.metal). Row groups share inputs; splits share a
// tile's columns in turn. Grid: any; threadgroups take the tiles (64 * ROWGROUPS rows x INPUTS inputs x a part of the columns) in turn,
// inputs first. With several parts OUTPUT is f32, and sum_parts.metal adds them up.
// Defines: those of stages.metal, OUTPUT, ADDED, THREADS (128 * ROWGROUPS * SPLITS + 128).

// Registers of a thread: those that multiply take them from those that bring.
#define EVEN_REGISTERS (65536 / THREADS / 8 * 8)
#define FEW_REGISTERS 40
#define MANY_REGISTERS ((EVEN_REGISTERS * (WARPGROUPS + 1) - FEW_REGISTERS) / WARPGROUPS / 8 * 8)

#if OUTPUT == 1
#define pack_output pack_f16
#else
#define pack_output pack_bf16
#endif

// Codes as numbers below f16's smallest normal one, code * 2^(place - 24), where a register's codes stand in its bytes.
#define TINY 16777216.0f // 2^24
#define PLACE(index) (BITS == 2 ? (index) % 4 * 2 : BITS <= 4 ? (index) % 2 * BITS : 0)

// The scale of a row and its bias, twice each, for tiny codes of every place that the row has.
struct Affine {
    uint scales[2]; // of even and odd products
    uint bias;
};

// `stored`: scale and bias as tiles.metal has them; `power`: of the row; `half`: 1 for rows g + 8.
inline Affine affine_of(uint stored, float power, uint half) {
    const float scale = widen(weight_of_bits(stored)), bias = widen(weight_of_bits(stored >> 16));
    const uint both = pack_f16(scale * (power * TINY / float(1 << PLACE(half))), bias * power);
    Affine affine;
    affine.scales[0] = affine.scales[1] = lower_twice(both), affine.bias = upper_twice(both);
#if BITS == 2
    affine.scales[1] = multiply_pair_f16(affine.scales[0], 0x2c002c00u); // 1/16
#endif
    return affine;
}

// This lane's weights of a tile, times the powers of its rows, as the four products' words.
inline void decode_tile(threadgroup const uint* tile, threadgroup const uint* scales, uint lane, thread const float (&powers)[2],
                        thread uint (&a)[4][4]) {
    const TileCodes codes = read_tile(tile, lane);
#pragma unroll
    for (uint span = 0; span < SPANS; span++) {
        const Affine affine[2] = {affine_of(scales[span * 16 + lane / 4], powers[0], 0),
                                  affine_of(scales[span * 16 + lane / 4 + 8], powers[1], 1)};
#pragma unroll
        for (int product = span * (SPAN / 16); product < int((span + 1) * (SPAN / 16)); product++) {
#pragma unroll
            for (int pair = 0; pair < 4; pair++) {
                const int index = product * 2 + pair % 2;
                const uint tiny = codes_of(codes, index, pair / 2, PLACE(index), IN_HALVES);
                a[product][pair] = fma_pair_f16(tiny, affine[pair % 2].scales[product % 2], affine[pair % 2].bias);
            }
        }
    }
}

// A warpgroup's part of a tile.
struct Part {
    uint row_tile; // of this simdgroup, in the threadgroup
    uint steps;    // that it takes
    uint lane;
    float powers[2]; // of this lane's rows
};

inline void decode_stage(thread const SharedLayout& shared, thread const Part& part, RingSlot slot, thread uint (&a)[4][4]) {
    const uint place = slot.stage * ROW_TILES + part.row_tile;
    decode_tile(shared.codes + place * TILE_WORDS, shared.scales + place * STAGE_SCALES, part.lane, part.powers, a);
}

inline void multiply_stage(thread const SharedLayout& shared, RingSlot slot, thread const uint (&a)[4][4], thread float (&sums)[INPUTS / 2]) {
    threadgroup const uchar* b = shared.inputs + slot.stage * INPUTS_BYTES;
    warpgroup_begin();
#pragma unroll
    for (uint product = 0; product < 4; product++)
        warpgroup_multiply(sums, a[product], b + 32 * product);
    warpgroup_commit();
}

// All lanes, since each has read.
inline void give_back(thread const SharedLayout& shared, RingSlot slot) {
    mbarrier_arrive(shared.empty + slot.stage);
}

// Sums of one tile: while the products of a stage run, the next one's weights are decoded.
inline void multiply_tile(thread const SharedLayout& shared, thread const Part& part, RingSlot slot, thread float (&sums)[INPUTS / 2]) {
    uint even[4][4], odd[4][4];
    RingSlot last = slot;
    mbarrier_wait(shared.full + slot.stage, slot.parity);
    decode_stage(shared, part, slot, even);
    for (uint step = 0; step + 1 < part.steps; step += 2) {
        multiply_stage(shared, slot, even, sums);
        warpgroup_wait<1>();
        if (step)
            give_back(shared, last);
        last = slot;
        next_slot(slot, SPLITS);
        mbarrier_wait(shared.full + slot.stage, slot.parity);
        decode_stage(shared, part, slot, odd);
        multiply_stage(shared, slot, odd, sums);
        warpgroup_wait<1>();
        give_back(shared, last);
        last = slot;
        next_slot(slot, SPLITS);
        if (step + 2 < part.steps) {
            mbarrier_wait(shared.full + slot.stage, slot.parity);
            decode_stage(shared, part, slot, even);
        }
    }
    if (part.steps % 2)
        multiply_stage(shared, slot, even, sums);
    warpgroup_wait<0>();
    if (part.steps > 1)
        give_back(shared, last);
    if (part.steps % 2)
        give_back(shared, slot);
}

// Adds the sums of the other splits to those of the first. All warpgroups.
inline void add_splits(thread const SharedLayout& shared, uint split, uint rowgroup, uint thread_number, thread float (&sums)[INPUTS / 2]) {
    if (split > 0)
#pragma unroll
        for (uint i = 0; i < INPUTS / 2; i++)
            shared.partial[(((split - 1) * ROWGROUPS + rowgroup) * (INPUTS / 2) + i) * 128 + thread_number] = sums[i];
    threads_barrier(1, 128 * WARPGROUPS);
    if (split == 0)
#pragma unroll
        for (int other = 0; other < SPLITS - 1; other++)
#pragma unroll
            for (uint i = 0; i < INPUTS / 2; i++)
                sums[i] += shared.partial[((other * ROWGROUPS + rowgroup) * (INPUTS / 2) + i) * 128 + thread_number];
    threads_barrier(1, 128 * WARPGROUPS);
}

// Undoes the powers of rows and of inputs. `factors`: of the inputs from this warpgroup's first on.
inline void scale_sums(device const float* factors, uint left, uint lane, thread const float (&powers)[2], thread float (&sums)[INPUTS / 2]) {
    const float of_row[2] = {inverse_power(powers[0]), inverse_power(powers[1])};
#pragma unroll
    for (uint block = 0; block < INPUTS / 8; block++) {
        float2 of_input = {0, 0};
        if (block * 8 < left)
            of_input = *(device const float2*)(factors + block * 8 + lane % 4 * 2);
#pragma unroll
        for (uint i = 0; i < 4; i++)
            sums[4 * block + i] = sums[4 * block + i] * of_row[i / 2] * (i % 2 ? of_input.y : of_input.x);
    }
}

// Where a warpgroup writes.
struct Corner {
    uint row;
    uint input;
};

#if OUTPUT == 0
inline void store_sums(device output_t* output, thread const WarpgroupProblem& problem, Corner corner, uint thread_number,
                       thread const float (&sums)[INPUTS / 2]) {
    const uint lane = thread_number % 32;
#pragma unroll
    for (uint i = 0; i < INPUTS / 2; i++) {
        const uint index = corner.input + i / 4 * 8 + lane % 4 * 2 + i % 2;
        const uint row = corner.row + thread_number / 32 * 16 + lane / 4 + i % 4 / 2 * 8;
        if (index < problem.inputs && row < problem.rows)
            output[ulong(index) * problem.rows + row] = sums[i];
    }
}
#else
// The sums as 16-bit floats, an input's rows side by side.
inline void stage_sums(threadgroup ushort* staged, uint thread_number, thread const float (&sums)[INPUTS / 2]) {
    const uint lane = thread_number % 32;
    threadgroup ushort* at = staged + (lane / 16 * 8 + lane % 8) * OUTPUT_STRIDE + thread_number / 32 * 16 + lane / 8 % 2 * 8;
#pragma unroll
    for (uint block = 0; block < INPUTS / 8; block += 2) {
        uint words[4];
#pragma unroll
        for (uint i = 0; i < 4; i++)
            words[i] = pack_output(sums[4 * block + 2 * i], sums[4 * block + 2 * i + 1]);
        store_transposed(at + block * 8 * OUTPUT_STRIDE, words);
    }
}

inline void store_staged(threadgroup const ushort* staged, device ushort* output, thread const WarpgroupProblem& problem, Corner corner,
                         uint thread_number) {
    for (uint at = thread_number; at < INPUTS * GROUP_ROWS / 8; at += 128) {
        const uint index = corner.input + at / 8, row = corner.row + at % 8 * 8;
        threadgroup const ushort* from = staged + at / 8 * OUTPUT_STRIDE + at % 8 * 8;
        device ushort* to = output + ulong(index) * problem.rows + row;
        if (index < problem.inputs && row < problem.rows) {
            if (problem.rows % 8 == 0)
                *(device uint4*)to = *(threadgroup const uint4*)from;
            else
                for (uint i = 0; i < min(8u, problem.rows - row); i++)
                    to[i] = from[i];
        }
    }
}
#endif

KERNEL(warpgroup_matmul)(
    device const uint* tiles [[buffer(0)]],     // (rows / 16, cols / 64, 32 * BITS)
    device const uint* scales [[buffer(1)]],    // (rows / 16, cols / GROUP, 16): scale, and bias in the upper half; powers of the rows
    device const uint4* arranged [[buffer(2)]], // (cols / 64, padded, 8); inverse powers of the inputs
    device const float* added [[buffer(3)]],    // (rows)
    device output_t* output [[buffer(4)]],      // (parts, inputs, rows)
    PROBLEM(WarpgroupProblem, 5))
{
    SHARED_LARGE(uchar, memory, SHARED_BYTES);
    const SharedLayout shared = shared_layout(memory);
    const Operands operands = operands_of(tiles, scales, arranged, problem);
    const uint thread_number = thread_index % 128;
    if (thread_index == 0) {
        for (uint stage = 0; stage < STAGES; stage++) {
            mbarrier_init(shared.full + stage, 1 + 128);
            mbarrier_init(shared.empty + stage, 128 * ROWGROUPS);
        }
        mbarrier_publish();
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    launch_dependents();
    wait_for_previous();

    if (simdgroup_index >= 4 * WARPGROUPS) {
        leave_registers<FEW_REGISTERS>();
        RingSlot slot = slot_of(0);
        for (uint index = group_position.x; index < operands.count; index += group_count.x)
            load_tile(operands, shared, tile_at(operands, index), thread_number, slot);
    } else {
        take_registers<MANY_REGISTERS>();
        const uint warpgroup = simdgroup_index / 4, rowgroup = warpgroup % ROWGROUPS, split = warpgroup / ROWGROUPS;
        device const float* powers = (device const float*)(scales + ulong(operands.row_tiles) * operands.groups * 16);
        device const float* factors = (device const float*)(arranged + ulong(operands.steps) * operands.padded * 8);
        uint begin = split; // the first stage
        for (uint index = group_position.x; index < operands.count; index += group_count.x) {
            const Tile tile = tile_at(operands, index);
            Corner corner;
            corner.row = (tile.rows * ROWGROUPS + rowgroup) * GROUP_ROWS;
            corner.input = tile.input;
            const uint row = corner.row + simdgroup_index % 4 * 16 + lane_index / 4;
            Part part;
            part.row_tile = rowgroup * 4 + simdgroup_index % 4;
            part.steps = (tile.steps + SPLITS - 1 - split) / SPLITS;
            part.lane = lane_index;
            part.powers[0] = powers[min(row, operands.row_tiles * 16 - 1)];
            part.powers[1] = powers[min(row + 8, operands.row_tiles * 16 - 1)];
            float sums[INPUTS / 2];
#pragma unroll
            for (uint i = 0; i < INPUTS / 2; i++)
                sums[i] = 0;
            if (SPLITS == 1 || part.steps > 0)
                multiply_tile(shared, part, slot_of(begin), sums);
            begin += tile.steps;
            if (SPLITS > 1)
                add_splits(shared, split, rowgroup, thread_number, sums);
            if (split == 0) {
                scale_sums(factors + corner.input, operands.padded - corner.input, lane_index, part.powers, sums);
#if ADDED
                const float of_row[2] = {added[min(row, problem.rows - 1)], added[min(row + 8, problem.rows - 1)]};
#pragma unroll
                for (uint i = 0; i < INPUTS / 2; i++)
                    sums[i] += of_row[i % 4 / 2];
#endif
#if OUTPUT == 0
                store_sums(output + ulong(tile.part) * problem.inputs * problem.rows, problem, corner, thread_number, sums);
#else
                threadgroup ushort* staged = shared.staged + rowgroup * INPUTS * OUTPUT_STRIDE;
                stage_sums(staged, thread_number, sums);
                threads_barrier(2 + rowgroup, 128);
                store_staged(staged, (device ushort*)output, problem, corner, thread_number);
                threads_barrier(2 + rowgroup, 128);
#endif
            }
        }
    }
}
