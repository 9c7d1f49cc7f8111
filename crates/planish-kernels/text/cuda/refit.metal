// Rows with codes: their errors, and scales and biases that are better, by the least squares of planish-quantize's `refit`. Sums are f64.
// Grids: (rows, 1, 1) but for gather_columns, code_means (values / THREADS rounded up, 1, 1), system_terms (rows, groups / (THREADS / 16) rounded up, 1).
// Defines: THREADS, VALUE (0), WEIGHT (type of scales and biases), GROUP, SIZE (2 groups of a row), WIDE (columns of a panel of solve_systems).
//
// A row's system takes SIZE^3 / 3 operations: 0.7e6 with 4096 columns in groups of 64, 3.0e7 with 14336. For a layer of Llama 3.1 8B
// that is 1.6e11, 5 ms at 34e12 a second in f64. What is read and written limits it: a panel is one reading and writing of what is right of it,
// SIZE^3 / (3 WIDE) times 16 bytes: 1e11 bytes a layer, 21 ms at 4.8e12 a second.

struct RowsProblem {
    uint rows;
    uint cols;
    uint index;     // of a group
    uint first_row; // of the codes, where only some rows have systems
    float ridge;
};

// Whole numbers of 64 bits, in two halves.
inline double shuffle_double(double value, ushort mask) {
    const ulong bits = as_type<ulong>(value);
    const uint low = simd_shuffle_xor(uint(bits), mask), high = simd_shuffle_xor(uint(bits >> 32), mask);
    return as_type<double>(ulong(high) << 32 | low);
}
inline double sum16_double(double value) {
    for (ushort mask = 8; mask; mask /= 2) value += shuffle_double(value, mask);
    return value;
}

KERNEL(gather_columns)(
    device const float* from [[buffer(0)]], // (rows, cols)
    device const uint* order [[buffer(1)]], // (cols)
    device float* to [[buffer(2)]],         // (rows, cols)
    PROBLEM(RowsProblem, 3))
{
    for (uint col = thread_index; col < problem.cols; col += THREADS) {
        const ulong row = ulong(group_position.x) * problem.cols;
        to[row + col] = from[row + order[col]];
    }
}

// What codes stand for, less the target.
KERNEL(errors)(
    device const uchar* codes [[buffer(0)]],  // (rows, cols)
    device const float* scales [[buffer(1)]], // (rows, cols / GROUP)
    device const float* biases [[buffer(2)]], // (rows, cols / GROUP)
    device const float* target [[buffer(3)]], // (rows, cols)
    device float* off [[buffer(4)]],          // (rows, cols)
    PROBLEM(RowsProblem, 5))
{
    const ulong row = group_position.x;
    for (uint col = thread_index; col < problem.cols; col += THREADS) {
        const ulong group = row * (problem.cols / GROUP) + col / GROUP, at = row * problem.cols + col;
        off[at] = exact_multiply(float(codes[at]), scales[group]) + biases[group] - target[at];
    }
}

// Sums of products of rows.
KERNEL(row_products)(
    device const float* left [[buffer(0)]],  // (rows, cols)
    device const float* right [[buffer(1)]], // (rows, cols)
    device double* sums [[buffer(2)]],       // (rows)
    PROBLEM(RowsProblem, 3))
{
    SHARED(double, room, THREADS);
    const ulong row = ulong(group_position.x) * problem.cols;
    double sum = 0;
    for (uint col = thread_index; col < problem.cols; col += THREADS)
        sum += double(left[row + col]) * double(right[row + col]);
    room[thread_index] = sum;
    for (uint half = THREADS / 2; half > 0; half /= 2) {
        threadgroup_barrier(mem_flags::mem_threadgroup);
        if (thread_index < half)
            room[thread_index] += room[thread_index + half];
    }
    if (thread_index == 0)
        sums[group_position.x] = room[0];
}

// Codes less the mean of their group, and these means.
KERNEL(centre_codes)(
    device const uchar* codes [[buffer(0)]], // (rows, cols)
    device float* means [[buffer(1)]],       // (rows, cols / GROUP)
    device float* centred [[buffer(2)]],     // (rows, cols)
    PROBLEM(RowsProblem, 3))
{
    const ulong row = group_position.x;
    const uint groups = problem.cols / GROUP;
    for (uint group = thread_index / 16; group < groups; group += THREADS / 16) {
        const ulong first = row * problem.cols + group * GROUP;
        uint sum = 0;
        for (uint i = 0; i < GROUP; i++) sum += codes[first + i];
        const float mean = exact_divide(float(sum), float(GROUP));
        for (uint i = thread_index % 16; i < GROUP; i += 16) centred[first + i] = float(codes[first + i]) - mean;
        if (thread_index % 16 == 0)
            means[row * groups + group] = mean;
    }
}

// What the products of group `index` with all columns say of the systems of rows.
KERNEL(system_terms)(
    device const float* products [[buffer(0)]], // (rows, cols): codes of the group, centred, times H
    device const float* centred [[buffer(1)]],  // (rows, cols)
    device double* systems [[buffer(2)]],       // (rows, SIZE + 1, SIZE)
    PROBLEM(RowsProblem, 3))
{
    const uint groups = SIZE / 2, asked = group_position.y * (THREADS / 16) + thread_index / 16;
    const bool exists = asked < groups;
    const uint other = exists ? asked : 0;
    const ulong row = group_position.x, first = row * problem.cols + other * GROUP;
    const ulong first_centred = first + ulong(problem.first_row) * problem.cols;
    double own = 0, all = 0;
    for (uint i = lane_index % 16; i < GROUP; i += 16) {
        own += double(products[first + i]) * double(centred[first_centred + i]);
        all += double(products[first + i]);
    }
    own = sum16_double(own), all = sum16_double(all);
    device double* system = systems + row * (SIZE + 1) * SIZE;
    if (exists && lane_index % 16 == 0) {
        if (other <= problem.index)
            system[problem.index * SIZE + other] = own;
        system[(groups + other) * SIZE + problem.index] = all;
    }
}

// The right sides, as the last rows of the systems.
KERNEL(system_sides)(
    device const float* products [[buffer(0)]], // (rows, cols): d H, of all rows of the codes
    device const float* centred [[buffer(1)]],  // (rows, cols)
    device double* systems [[buffer(2)]],       // (rows, SIZE + 1, SIZE)
    PROBLEM(RowsProblem, 3))
{
    const uint groups = SIZE / 2, asked = group_position.y * (THREADS / 16) + thread_index / 16;
    const bool exists = asked < groups;
    const uint group = exists ? asked : 0;
    const ulong first = (ulong(group_position.x) + problem.first_row) * problem.cols + group * GROUP;
    double own = 0, all = 0;
    for (uint i = lane_index % 16; i < GROUP; i += 16) {
        own += double(products[first + i]) * double(centred[first + i]);
        all += double(products[first + i]);
    }
    own = sum16_double(own), all = sum16_double(all);
    device double* side = systems + (ulong(group_position.x) * (SIZE + 1) + SIZE) * SIZE;
    if (exists && lane_index % 16 == 0)
        side[group] = -own, side[groups + group] = -all;
}

// Solves the system of a row: changes of scales, then of biases. Not numbers where it is not positive definite.
KERNEL(solve_systems)(
    device double* systems [[buffer(0)]],             // (rows, SIZE + 1, SIZE); lower triangles and right sides
    device const double* group_squares [[buffer(1)]], // (groups, groups)
    device double* changes [[buffer(2)]],             // (rows, SIZE)
    PROBLEM(RowsProblem, 3))
{
    SHARED(double, panel, (SIZE + 1) * WIDE);
    SHARED(double, solved, SIZE);
    const uint groups = SIZE / 2;
    device double* system = systems + ulong(group_position.x) * (SIZE + 1) * SIZE;
    for (uint i = thread_index; i < groups * groups; i += THREADS)
        if (i % groups <= i / groups)
            system[(groups + i / groups) * SIZE + groups + i % groups] = group_squares[i];
    threadgroup_barrier(mem_flags::mem_device);
    for (uint i = thread_index; i < SIZE; i += THREADS) {
        const double own = system[i * SIZE + i];
        // A group of one code has no scale that matters.
        system[i * SIZE + i] = own > 0.0 ? own * (1.0 + double(problem.ridge)) : 1.0;
    }
    threadgroup_barrier(mem_flags::mem_device);
    for (uint first = 0; first < SIZE; first += WIDE) {
        const uint width = min(SIZE - first, uint(WIDE)), count = SIZE + 1 - first;
        for (uint i = thread_index; i < count * width; i += THREADS) {
            const uint row = i / width, col = i % width;
            panel[row * WIDE + col] = col <= row ? system[(first + row) * SIZE + first + col] : 0.0;
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
        for (uint col = 0; col < width; col++) {
            const double root = sqrt(panel[col * WIDE + col]);
            threadgroup_barrier(mem_flags::mem_threadgroup);
            for (uint row = col + thread_index; row < count; row += THREADS)
                panel[row * WIDE + col] = row == col ? root : panel[row * WIDE + col] / root;
            threadgroup_barrier(mem_flags::mem_threadgroup);
            for (uint row = col + 1 + thread_index; row < count; row += THREADS)
                for (uint other = col + 1; other < width && other <= row; other++)
                    panel[row * WIDE + other] -= panel[row * WIDE + col] * panel[other * WIDE + col];
            threadgroup_barrier(mem_flags::mem_threadgroup);
        }
        for (uint i = thread_index; i < count * width; i += THREADS) {
            const uint row = i / width, col = i % width;
            if (col <= row)
                system[(first + row) * SIZE + first + col] = panel[row * WIDE + col];
        }
        for (uint row = width + simdgroup_index; row < count; row += THREADS / 32)
            for (uint col = width + lane_index; col <= row && first + col < SIZE; col += 32) {
                double sum = 0;
                for (uint term = 0; term < width; term++) sum += panel[row * WIDE + term] * panel[col * WIDE + term];
                system[(first + row) * SIZE + first + col] -= sum;
            }
        threadgroup_barrier(mem_flags::mem_device);
    }
    for (uint i = thread_index; i < SIZE; i += THREADS) solved[i] = system[SIZE * SIZE + i];
    for (uint left = SIZE; left > 0; left--) {
        const uint row = left - 1;
        threadgroup_barrier(mem_flags::mem_threadgroup);
        const double found = solved[row] / system[row * SIZE + row];
        for (uint i = thread_index; i < row; i += THREADS) solved[i] -= system[row * SIZE + i] * found;
        if (thread_index == 0)
            changes[ulong(group_position.x) * SIZE + row] = found;
    }
}

// Scales and biases changed, as they are stored, where they are numbers.
KERNEL(change_scales)(
    device const float* scales [[buffer(0)]],   // (rows, groups), likewise biases, means and results
    device const float* biases [[buffer(1)]],
    device const float* means [[buffer(2)]],    // of the codes
    device const double* changes [[buffer(3)]], // (rows, 2 groups), of the rows from `first_row` on
    device float* new_scales [[buffer(4)]],
    device float* new_biases [[buffer(5)]],
    PROBLEM(RowsProblem, 6))
{
    const uint groups = SIZE / 2;
    const ulong row = ulong(group_position.x) + problem.first_row;
    for (uint group = thread_index; group < groups; group += THREADS) {
        const ulong at = row * groups + group;
        device const double* own = changes + ulong(group_position.x) * SIZE;
        const double before = scales[at], mean = means[at];
        const float scale = widen(narrow<weight_t>(float(before + own[group])));
        const double exact = double(biases[at]) + before * mean + own[groups + group] - double(scale) * mean;
        const float bias = widen(narrow<weight_t>(float(exact)));
        const bool good = fabs(scale) < INFINITY && fabs(bias) < INFINITY;
        new_scales[at] = good ? scale : scales[at];
        new_biases[at] = good ? bias : biases[at];
    }
}

// Takes over the rows whose error is less.
KERNEL(keep_rows)(
    device uchar* codes [[buffer(0)]],               // (rows, cols)
    device float* scales [[buffer(1)]],              // (rows, cols / GROUP)
    device float* biases [[buffer(2)]],              // (rows, cols / GROUP)
    device float* products [[buffer(3)]],            // (rows, cols)
    device double* errors [[buffer(4)]],             // (rows)
    device const uchar* new_codes [[buffer(5)]],     // the same of what was tried
    device const float* new_scales [[buffer(6)]],
    device const float* new_biases [[buffer(7)]],
    device const float* new_products [[buffer(8)]],
    device const double* new_errors [[buffer(9)]],
    PROBLEM(RowsProblem, 10))
{
    const ulong row = group_position.x;
    const uint groups = problem.cols / GROUP;
    const double found = new_errors[row];
    const bool better = found < errors[row];
    threadgroup_barrier(mem_flags::mem_device);
    if (!better)
        return;
    for (uint col = thread_index; col < problem.cols; col += THREADS) {
        codes[row * problem.cols + col] = new_codes[row * problem.cols + col];
        products[row * problem.cols + col] = new_products[row * problem.cols + col];
    }
    for (uint group = thread_index; group < groups; group += THREADS) {
        scales[row * groups + group] = new_scales[row * groups + group];
        biases[row * groups + group] = new_biases[row * groups + group];
    }
    if (thread_index == 0)
        errors[row] = found;
}
