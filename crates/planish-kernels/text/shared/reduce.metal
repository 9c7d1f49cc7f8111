// Sums and maxima over a threadgroup of THREADS threads. `room` holds one value for each simdgroup.

inline float threadgroup_sum(float value, threadgroup float* room, uint lane, uint simdgroup) {
    value = simd_sum(value);
    if (lane == 0)
        room[simdgroup] = value;
    threadgroup_barrier(mem_flags::mem_threadgroup);
    float total = 0;
    for (uint i = 0; i < THREADS / 32; i++)
        total += room[i];
    threadgroup_barrier(mem_flags::mem_threadgroup); // the room may be used again
    return total;
}

inline float threadgroup_max(float value, threadgroup float* room, uint lane, uint simdgroup) {
    value = simd_max(value);
    if (lane == 0)
        room[simdgroup] = value;
    threadgroup_barrier(mem_flags::mem_threadgroup);
    float largest = room[0];
    for (uint i = 1; i < THREADS / 32; i++)
        largest = max(largest, room[i]);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    return largest;
}
