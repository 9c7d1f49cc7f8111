// Products of large matrices in f32, without tensor cores: to = factor * left * right, added to something or not. 256 threads
// compute a tile of 128 x 128, each 8 x 8 of it, over 8 terms at a time that pass through threadgroup memory in turns of two.
// Grid: (cols / 128, rows / 128, 1), rounded up. Defines: THREADS (256), WEIGHT (type of right), LEFT_FORM (0: (rows, depth), 1: (depth, rows)), RIGHT_FORM
// (0: (depth, cols), 1: (cols, depth)), ADDED (0 nothing, 1 what is there, 2 a vector to each row), TRIANGLE (tiles that are computed: 0
// all, 1 those that reach the diagonal from the right, 2 from the left), ZEROS (what of right is known to be zero: 0 nothing, 1 terms
// after the column's number, 2 before it). Lines along which values are neighbours are multiples of 4, their strides of 8.
//
// Floor: 2 rows cols depth operations at 67e12 a second on an H100 or H200. A thread reads 16 values of threadgroup memory for 64
// products, so that memory is no limit; each value of left and right comes to the tile once for 128 products.

#define TILE 128
#define DEPTH 8
#define STRIDE 132 // of a tile's rows: away from bank conflicts

struct MultiplyProblem {
    uint rows;
    uint cols;
    uint depth;
    uint left_stride;
    uint right_stride;
    uint to_stride;
    float factor;
};

inline float4 load4(device const f32* from) { return *(device const float4*)from; }
template <typename T> inline float4 load4(device const T* from) {
    const uint2 words = *(device const uint2*)from;
    float4 values;
#if WEIGHT == 1
    const float2 low = unpack_f16(words.x), high = unpack_f16(words.y);
#else
    const float2 low = unpack_bf16(words.x), high = unpack_bf16(words.y);
#endif
    values.x = low.x, values.y = low.y, values.z = high.x, values.w = high.y;
    return values;
}

// Four values of a tile that lie side by side: along the lines (ALONG, 128 a term) or along the terms.
template <uint ALONG, typename T>
inline float4 bring(device const T* from, uint stride, uint first_line, uint lines, uint first_term, uint terms, uint index) {
    float4 values;
    values.x = values.y = values.z = values.w = 0.0f;
    const uint line = first_line + (ALONG ? index % 32 * 4 : index / 2), term = first_term + (ALONG ? index / 32 : index % 2 * 4);
    if (line < lines && term < terms)
        values = load4(from + (ALONG ? ulong(term) * stride + line : ulong(line) * stride + term));
    return values;
}
template <uint ALONG> inline void put(threadgroup float* tile, float4 values, uint index) {
    if (ALONG) {
        *(threadgroup float4*)(tile + index / 32 * STRIDE + index % 32 * 4) = values;
    } else {
        threadgroup float* to = tile + index % 2 * 4 * STRIDE + index / 2;
        to[0] = values.x, to[STRIDE] = values.y, to[2 * STRIDE] = values.z, to[3 * STRIDE] = values.w;
    }
}
inline void take8(threadgroup const float* from, thread float (&values)[8]) {
    const float4 low = *(threadgroup const float4*)from, high = *(threadgroup const float4*)(from + TILE / 2);
    values[0] = low.x, values[1] = low.y, values[2] = low.z, values[3] = low.w;
    values[4] = high.x, values[5] = high.y, values[6] = high.z, values[7] = high.w;
}

KERNEL(multiply)(
    device const float* left [[buffer(0)]],
    device const weight_t* right [[buffer(1)]],
    device const float* added [[buffer(2)]], // (cols)
    device float* to [[buffer(3)]],          // (rows, cols)
    PROBLEM(MultiplyProblem, 4))
{
    SHARED(float4, left_room, 2 * DEPTH * STRIDE / 4);
    SHARED(float4, right_room, 2 * DEPTH * STRIDE / 4);
    threadgroup float* left_tiles = (threadgroup float*)left_room;
    threadgroup float* right_tiles = (threadgroup float*)right_room;
    const uint first_row = group_position.y * TILE, first_col = group_position.x * TILE;
    if (TRIANGLE == 1 && first_col + TILE <= first_row)
        return;
    if (TRIANGLE == 2 && first_row + TILE <= first_col)
        return;
    const uint begin = ZEROS == 2 ? min(first_col, problem.depth) : 0;
    const uint end = ZEROS == 1 ? min(first_col + TILE, problem.depth) : problem.depth;
    const uint own_row = thread_index / 16 * 4, own_col = thread_index % 16 * 4;

    float sums[8][8];
#pragma unroll
    for (uint i = 0; i < 8; i++)
#pragma unroll
        for (uint j = 0; j < 8; j++) sums[i][j] = 0.0f;

    float4 next_left = bring<LEFT_FORM>(left, problem.left_stride, first_row, problem.rows, begin, end, thread_index);
    float4 next_right = bring<1 - RIGHT_FORM>(right, problem.right_stride, first_col, problem.cols, begin, end, thread_index);
    put<LEFT_FORM>(left_tiles, next_left, thread_index);
    put<1 - RIGHT_FORM>(right_tiles, next_right, thread_index);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    uint turn = 0;
    for (uint term = begin; term < end; term += DEPTH) {
        const bool more = term + DEPTH < end;
        if (more) {
            next_left = bring<LEFT_FORM>(left, problem.left_stride, first_row, problem.rows, term + DEPTH, end, thread_index);
            next_right = bring<1 - RIGHT_FORM>(right, problem.right_stride, first_col, problem.cols, term + DEPTH, end, thread_index);
        }
        threadgroup const float* lefts = left_tiles + turn * DEPTH * STRIDE + own_row;
        threadgroup const float* rights = right_tiles + turn * DEPTH * STRIDE + own_col;
#pragma unroll
        for (uint k = 0; k < DEPTH; k++) {
            float a[8], b[8];
            take8(lefts + k * STRIDE, a);
            take8(rights + k * STRIDE, b);
#pragma unroll
            for (uint i = 0; i < 8; i++)
#pragma unroll
                for (uint j = 0; j < 8; j++) sums[i][j] = fma(a[i], b[j], sums[i][j]);
        }
        turn ^= 1;
        if (more) {
            put<LEFT_FORM>(left_tiles + turn * DEPTH * STRIDE, next_left, thread_index);
            put<1 - RIGHT_FORM>(right_tiles + turn * DEPTH * STRIDE, next_right, thread_index);
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
    }
#pragma unroll
    for (uint i = 0; i < 8; i++) {
        const uint row = first_row + own_row + i % 4 + i / 4 * (TILE / 2);
#pragma unroll
        for (uint j = 0; j < 8; j++) {
            const uint col = first_col + own_col + j % 4 + j / 4 * (TILE / 2);
            if (row < problem.rows && col < problem.cols) {
                const ulong at = ulong(row) * problem.to_stride + col;
                const float before = ADDED == 1 ? to[at] : ADDED == 2 ? added[col] : 0.0f;
                to[at] = fma(problem.factor, sums[i][j], before);
            }
        }
    }
}
