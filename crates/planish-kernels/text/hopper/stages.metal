// What the warpgroups of warpgroup.metal read, on its way into threadgroup memory: stages of 64 columns, INPUTS inputs and the codes
// and scales of 64 * ROWGROUPS rows, up to STAGES ahead, for one tile after another.
// Defines: those of tiles.metal (VALUE is 1), OUTPUT, INPUTS (as hopper.h has products), ROWGROUPS, SPLITS, STAGES (at least SPLITS + 1).

struct WarpgroupProblem {
    uint rows;
    uint cols; // a multiple of 64
    uint inputs;
    uint padded; // inputs that `arranged` has room for, a multiple of 8
    uint parts;  // of the columns: threadgroups of their own, whose sums are added up later
};

#define GROUP_ROWS 64                                // of a warpgroup
#define WARPGROUPS (ROWGROUPS * SPLITS)
#define ROW_TILES (4 * ROWGROUPS)
#define TILE_WORDS (32 * BITS)
#define STAGE_SCALES (16 * SPANS)
#define OUTPUT_STRIDE (GROUP_ROWS + 8)               // of an input: away from bank conflicts
#define OUTPUT_BYTES (OUTPUT == 0 ? 0 : ROWGROUPS * INPUTS * OUTPUT_STRIDE * 2)
#define PARTIAL_BYTES ((SPLITS - 1) * ROWGROUPS * INPUTS * GROUP_ROWS * 4)
#define INPUTS_BYTES (INPUTS * STEP * 2)             // of a stage
#define STAGE_BYTES (INPUTS_BYTES + ROW_TILES * (TILE_WORDS + STAGE_SCALES) * 4)
#define SHARED_BYTES (STAGES * STAGE_BYTES + OUTPUT_BYTES + PARTIAL_BYTES + 16 * STAGES) // what the host asks for
#define CODE_PIECES (ROW_TILES * 8 * BITS)           // 16 bytes each
#define SCALE_PIECES (ROW_TILES * 4 * SPANS)

// What lies where in threadgroup memory.
struct SharedLayout {
    threadgroup uchar* inputs;   // (STAGES, INPUTS_BYTES)
    threadgroup uint* codes;     // (STAGES, ROW_TILES, TILE_WORDS)
    threadgroup uint* scales;    // (STAGES, ROW_TILES, STAGE_SCALES)
    threadgroup ushort* staged;  // (ROWGROUPS, INPUTS, OUTPUT_STRIDE): outputs of 16 bits
    threadgroup float* partial;  // (SPLITS - 1, ROWGROUPS, INPUTS / 2, 128)
    threadgroup mbarrier* full;  // (STAGES): loaded
    threadgroup mbarrier* empty; // (STAGES): read
};

inline SharedLayout shared_layout(threadgroup uchar* memory) {
    SharedLayout shared;
    shared.inputs = memory;
    shared.codes = (threadgroup uint*)(memory + STAGES * INPUTS_BYTES);
    shared.scales = shared.codes + STAGES * ROW_TILES * TILE_WORDS;
    shared.staged = (threadgroup ushort*)(memory + STAGES * STAGE_BYTES);
    shared.partial = (threadgroup float*)(memory + STAGES * STAGE_BYTES + OUTPUT_BYTES);
    shared.full = (threadgroup mbarrier*)(memory + STAGES * STAGE_BYTES + OUTPUT_BYTES + PARTIAL_BYTES);
    shared.empty = shared.full + STAGES;
    return shared;
}

// A slot of the ring of stages, and the parity of the phase that ends when it is full.
struct RingSlot {
    uint stage;
    uint parity;
};

inline RingSlot slot_of(uint step) {
    RingSlot slot;
    slot.stage = step % STAGES;
    slot.parity = step / STAGES % 2;
    return slot;
}

inline void next_slot(thread RingSlot& slot, uint by) {
    slot.stage += by;
    if (slot.stage >= STAGES) {
        slot.stage -= STAGES;
        slot.parity ^= 1;
    }
}

// A weight and its inputs.
struct Operands {
    device const uint* tiles;
    device const uint* scales;
    device const uint4* arranged;
    uint steps;       // of 64 columns
    uint groups;      // of a row
    uint row_tiles;   // of 16 rows
    uint padded;      // inputs that `arranged` has room for
    uint input_tiles; // of INPUTS
    uint parts;       // of the columns
    uint count;       // tiles to compute
};

// Rows, inputs and columns that a threadgroup computes at once.
struct Tile {
    uint rows;       // which 64 * ROWGROUPS rows
    uint input;      // the first
    uint part;       // of the columns
    uint first_step; // of 64 columns
    uint steps;
};

inline Operands operands_of(device const uint* tiles, device const uint* scales, device const uint4* arranged,
                            thread const WarpgroupProblem& problem) {
    Operands operands;
    operands.tiles = tiles, operands.scales = scales, operands.arranged = arranged;
    operands.steps = problem.cols / STEP, operands.groups = problem.cols / GROUP;
    operands.row_tiles = (problem.rows + 15) / 16;
    operands.padded = problem.padded;
    operands.input_tiles = (problem.inputs + INPUTS - 1) / INPUTS;
    operands.parts = problem.parts;
    operands.count = operands.input_tiles * operands.parts * ((problem.rows + GROUP_ROWS * ROWGROUPS - 1) / (GROUP_ROWS * ROWGROUPS));
    return operands;
}

// Inputs first, then parts.
inline Tile tile_at(thread const Operands& operands, uint index) {
    Tile tile;
    tile.input = index % operands.input_tiles * INPUTS;
    tile.part = index / operands.input_tiles % operands.parts;
    tile.rows = index / operands.input_tiles / operands.parts;
    tile.first_step = operands.steps * tile.part / operands.parts;
    tile.steps = operands.steps * (tile.part + 1) / operands.parts - tile.first_step;
    return tile;
}

// Loads the stages of one tile. 128 threads, of which this has a number.
inline void load_tile(thread const Operands& operands, thread const SharedLayout& shared, Tile tile, uint number, thread RingSlot& slot) {
    const uint loaded = min(uint(INPUTS), operands.padded - tile.input);
    const uint first_row_tile = tile.rows * ROW_TILES, last_row_tile = operands.row_tiles - 1;
    device const uint* codes[(CODE_PIECES + 127) / 128];
#pragma unroll
    for (uint i = 0; i < (CODE_PIECES + 127) / 128; i++) {
        const uint piece = i * 128 + number;
        const ulong row_tile = min(first_row_tile + piece / (8 * BITS), last_row_tile);
        codes[i] = operands.tiles + (row_tile * operands.steps + tile.first_step) * TILE_WORDS + piece % (8 * BITS) * 4;
    }
    const ulong scale_tile = min(first_row_tile + number / (4 * SPANS), last_row_tile);
    device const uint* scales = operands.scales + scale_tile * operands.groups * 16 + number % (4 * SPANS) * 4;
    for (uint step = tile.first_step; step < tile.first_step + tile.steps; step++) {
        threadgroup mbarrier* full = shared.full + slot.stage;
        mbarrier_wait(shared.empty + slot.stage, slot.parity ^ 1);
        if (number == 0) {
            mbarrier_expect(full, loaded * 128);
            copy_bulk(shared.inputs + slot.stage * INPUTS_BYTES, operands.arranged + (ulong(step) * operands.padded + tile.input) * 8,
                      loaded * 128, full);
        }
#pragma unroll
        for (uint i = 0; i < (CODE_PIECES + 127) / 128; i++) {
            const uint piece = i * 128 + number;
            if (piece < CODE_PIECES)
                copy_async((threadgroup uint4*)(shared.codes + slot.stage * ROW_TILES * TILE_WORDS + piece * 4),
                           (device const uint4*)codes[i], true);
            codes[i] += TILE_WORDS;
        }
        if (number < SCALE_PIECES)
            copy_async((threadgroup uint4*)(shared.scales + slot.stage * ROW_TILES * STAGE_SCALES + number * 4),
                       (device const uint4*)(scales + step * STEP / GROUP * 16), true);
        copy_async_arrive(full);
        next_slot(slot, 1);
    }
}
