// The routing map of a stack of matrices (count, rows, cols), as in a grouped GEMM: tiles of TILE inputs that share a matrix, given
// by a table that routing makes on the device (ROUTED 1: inputs are rows, outputs places in the order of experts; 2: inputs are
// places, outputs entries), or every input for each matrix (ROUTED 0: heads).

struct StackProblem {
    uint rows;
    uint cols;
    uint inputs;
    uint chosen; // entries of a row
    uint input_stride, input_step, input_start;    // of an input, of a matrix, from the beginning
    uint output_stride, output_step, output_start; // likewise
};

// Inputs that share a matrix.
struct StackTile {
    uint matrix;
    uint first;
    uint count;
};

inline StackTile tile_at(device const uint* tiles, uint index, uint matrix, uint inputs) {
    StackTile tile;
    if (ROUTED)
        tile.matrix = tiles[3 * index], tile.first = tiles[3 * index + 1], tile.count = tiles[3 * index + 2];
    else
        tile.matrix = matrix, tile.first = index * TILE, tile.count = min(inputs - index * TILE, uint(TILE));
    return tile;
}

inline ulong input_offset(device const uint* order, StackTile tile, uint index, StackProblem problem) {
    const uint place = tile.first + min(index, tile.count - 1);
    const uint row = ROUTED == 1 ? order[place] / problem.chosen : place;
    return ulong(row) * problem.input_stride + ulong(tile.matrix) * problem.input_step + problem.input_start;
}

inline ulong output_offset(device const uint* order, StackTile tile, uint index, StackProblem problem) {
    const uint place = tile.first + index;
    const uint row = ROUTED == 2 ? order[place] : place;
    return ulong(row) * problem.output_stride + ulong(tile.matrix) * problem.output_step + problem.output_start;
}
