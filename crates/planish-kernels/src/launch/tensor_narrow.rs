//! Products of packed weights in the order of tensor cores with one or two inputs at once; any number in f32.

use bytemuck::{Pod, Zeroable};

use super::tensor::TensorMatmul;
use super::tiles::{TILE_COLS, TILE_ROWS, TensorWeight};
use super::{File, Launch, Program, constants_of, kernel_file, value_number};

const FILE: File = kernel_file!("cuda/tensor_narrow", "shared/values", "cuda/tiles");
/// Most inputs that share one read of the weight.
const MOST_SIDE: u32 = 2;
/// Row tiles of a threadgroup: few kinds of kernels, and their sums fit into static shared memory.
const FEW_TILES: u32 = 8;
const MOST_TILES: u32 = 48;
/// Columns on their way to a warp, at most: more are no faster.
const COLS_AHEAD: u32 = 1024;

/// What a threadgroup has: the fastest found on an H100, 2026-11.
#[derive(Clone, Copy)]
struct Room {
    threads: u32,
    /// Threadgroups that fit onto a multiprocessor.
    threadgroups: u32,
    shared_bytes: u32,
    /// Bytes of weights on their way.
    ring_bytes: u32,
}

/// A small part of the weight, all of which is on its way while the launch before still runs.
const SMALL: Room = Room {
    threads: 256,
    threadgroups: 2,
    shared_bytes: 112 << 10,
    ring_bytes: 76 << 10,
};
const LARGE: Room = Room {
    threads: 512,
    threadgroups: 1,
    shared_bytes: 225 << 10,
    ring_bytes: 160 << 10,
};

/// How a product is shared out.
struct Sharing {
    room: Room,
    side: u32,
    /// Columns of a piece.
    unit: u32,
    most_tiles: u32,
    threadgroups: u32,
    /// Pieces on their way to a warp, and how many it asks for at once before it has the inputs.
    stages: u32,
    pace: u32,
    shared_bytes: u32,
}

impl Sharing {
    fn of(matmul: &TensorMatmul) -> Sharing {
        let weight = &matmul.weight;
        let side = matmul.inputs.min(MOST_SIDE);
        let tiles = weight.rows.div_ceil(TILE_ROWS);
        // As many threadgroups as multiprocessors, or times as many.
        let turns = tiles.div_ceil(weight.processors * MOST_TILES / side);
        let threadgroups = tiles.min(weight.processors * turns);
        let each = tiles.div_ceil(threadgroups);
        let most_tiles = if each <= FEW_TILES {
            FEW_TILES
        } else {
            MOST_TILES / side
        };
        let is_small = each * weight.cols.div_ceil(TILE_COLS) * piece_bytes(weight, TILE_COLS) <= SMALL.ring_bytes;
        let room = if is_small { SMALL } else { LARGE };
        let unit = if is_small || weight.packing.bits() <= 4 {
            512
        } else {
            256
        };

        let warps = room.threads / 32;
        let (stage, inputs) = (warps * piece_bytes(weight, unit), side * input_bytes(weight, unit));
        let sums = most_tiles * warps * TILE_ROWS * side * 4;
        let ring = room.shared_bytes.saturating_sub(inputs + sums).min(room.ring_bytes);
        let stages = (ring / stage).clamp(1, COLS_AHEAD / unit);
        Sharing {
            room,
            side,
            unit,
            most_tiles,
            threadgroups,
            stages,
            // What the launch before has still to write must not queue behind all of them.
            pace: if is_small { 1 } else { stages },
            shared_bytes: stages * stage + inputs,
        }
    }
}

/// Codes and scales of a piece of so many columns, as tensor_narrow.metal lays them out.
fn piece_bytes(weight: &TensorWeight, unit: u32) -> u32 {
    let (bits, group) = (weight.packing.bits(), weight.packing.group() as u32);
    let groups = unit / group + if unit.is_multiple_of(group) { 0 } else { 2 };
    unit / TILE_COLS * 128 * bits + groups * TILE_ROWS * 4 * weight.scale_words()
}

/// An input as three bytes for each value, and two floats for each span.
fn input_bytes(weight: &TensorWeight, unit: u32) -> u32 {
    let cols = weight.cols.next_multiple_of(unit);
    let span = (weight.packing.group() as u32).min(TILE_COLS);
    3 * (cols.next_multiple_of(128) + 64) + cols / span * 8
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct NarrowProblem {
    rows: u32,
    cols: u32,
    inputs: u32,
    overlaps: u32,
}

/// `overlaps`: right after a launch with the same input.
pub(super) fn narrow_launch(matmul: &TensorMatmul, overlaps: bool) -> Launch {
    let weight = &matmul.weight;
    let sharing = Sharing::of(matmul);
    let mut defines = weight.defines(matmul.value);
    defines.extend([
        ("THREADS", sharing.room.threads),
        ("THREADGROUPS", sharing.room.threadgroups),
        ("OUTPUT", value_number(matmul.output)),
        ("SIDE", sharing.side),
        ("UNIT", sharing.unit),
        ("WHOLE", u32::from(weight.cols.is_multiple_of(sharing.unit))),
        ("STAGES", sharing.stages),
        ("PACE", sharing.pace),
        ("MOST_TILES", sharing.most_tiles),
        ("ADDED", u32::from(matmul.added)),
    ]);
    let problem = NarrowProblem {
        rows: weight.rows,
        cols: weight.cols,
        inputs: matmul.inputs,
        overlaps: u32::from(overlaps),
    };
    Launch {
        program: Program { file: FILE, defines },
        kernel: "tensor_narrow",
        threadgroups: [sharing.threadgroups, matmul.inputs.div_ceil(sharing.side), 1],
        threads: sharing.room.threads,
        buffers: TensorMatmul::BUFFERS.len() as u32,
        constants: constants_of(&problem),
        shared_bytes: sharing.shared_bytes,
    }
}
