// Where rows stand: of each a uint4 of the sequence's slot, the position, the row at which its keys and values are stored, and where
// the sequence's blocks begin in the tables. Keys and values lie in blocks of BLOCK positions, in any order.

#define BLOCK 64

// Row of a position's keys and values. `blocks`: of its sequence, in the order of positions.
inline uint stored_row(device const uint* blocks, uint position) { return blocks[position / BLOCK] * BLOCK + position % BLOCK; }
