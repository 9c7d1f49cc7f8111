//! Rotary position embedding, and its cosines and sines.

use bytemuck::{Pod, Zeroable};
use planish_format::FloatType;

use super::{File, Launch, Program, value_number};

const FILE: File = File {
    name: "rope",
    texts: &[
        include_str!("../../kernels/values.metal"),
        include_str!("../../kernels/rope.metal"),
    ],
};
const THREADS: u32 = 64;

/// Rotates heads in place. Buffers: values (rows, heads * head_dim) of `value`, angles (rows, rotated) of f32.
#[derive(Clone, Copy, Debug)]
pub struct Rope {
    /// Values 2i and 2i + 1 are rotated together, else i and i + rotated / 2.
    pub neighbours: bool,
    /// Type of the values.
    pub value: FloatType,
    /// Rows to rotate.
    pub rows: u32,
    /// Heads side by side.
    pub heads: u32,
    /// Values of a head.
    pub head_dim: u32,
    /// Values of a head that are rotated, from its first on.
    pub rotated: u32,
}

/// `factor` times cosines, then sines, of `position * frequency`. Buffers: frequencies (rotated / 2) of f32, angles (rows,
/// rotated) of f32.
#[derive(Clone, Copy, Debug)]
pub struct RopeAngles {
    /// Positions to fill.
    pub rows: u32,
    /// Position of row 0.
    pub first_position: u32,
    /// Twice the number of frequencies.
    pub rotated: u32,
    /// Multiplies cosines and sines.
    pub factor: f32,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct RopeProblem {
    heads: u32,
    head_dim: u32,
    rotated: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct RopeAnglesProblem {
    rotated: u32,
    first_position: u32,
    factor: f32,
}

impl Rope {
    /// The launch.
    pub fn launch(&self) -> Launch {
        let problem = RopeProblem {
            heads: self.heads,
            head_dim: self.head_dim,
            rotated: self.rotated,
        };
        Launch {
            program: program(self.value, self.neighbours),
            kernel: "rope",
            threadgroups: [self.rows, (self.heads * self.rotated / 2).div_ceil(THREADS), 1],
            threads: THREADS,
            buffers: 2,
            constants: bytemuck::bytes_of(&problem).to_vec(),
            shared_bytes: 0,
        }
    }
}

impl RopeAngles {
    /// The launch.
    pub fn launch(&self) -> Launch {
        let problem = RopeAnglesProblem {
            rotated: self.rotated,
            first_position: self.first_position,
            factor: self.factor,
        };
        Launch {
            program: program(FloatType::F32, false),
            kernel: "rope_angles",
            threadgroups: [self.rows, (self.rotated / 2).div_ceil(THREADS), 1],
            threads: THREADS,
            buffers: 2,
            constants: bytemuck::bytes_of(&problem).to_vec(),
            shared_bytes: 0,
        }
    }
}

fn program(value: FloatType, neighbours: bool) -> Program {
    let defines = vec![
        ("THREADS", THREADS),
        ("VALUE", value_number(value)),
        ("NEIGHBOURS", u32::from(neighbours)),
    ];
    Program { file: FILE, defines }
}
