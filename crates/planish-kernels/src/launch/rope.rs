//! Rotary position embedding, its cosines and sines, and keys and values on their way to the cache.

use bytemuck::{Pod, Zeroable};
use planish_format::FloatType;
use smallvec::smallvec;

use super::{File, Launch, Program, constants_of, kernel_file, value_number};

const FILE: File = kernel_file!("portable/rope", "shared/values", "shared/blocks");
const THREADS: u32 = 64;
/// Values that a thread of [`RopeAndAppend`] takes at once where all sizes are multiples of it.
const EACH: u32 = 8;

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

/// `factor` times cosines, then sines, of `position * frequency`. Buffers: frequencies (rotated / 2) of f32, places (rows, 4) of u32, angles
/// (rows, rotated) of f32.
#[derive(Clone, Copy, Debug)]
pub struct RopeAngles {
    /// Rows to fill.
    pub rows: u32,
    /// The first of them.
    pub first_row: u32,
    /// Twice the number of frequencies.
    pub rotated: u32,
    /// Multiplies cosines and sines.
    pub factor: f32,
}

/// What is between a layer's products and its attention: queries are rotated in place, rotated keys and values go to the cache.
/// Buffers: queries (rows, heads * head_dim), keys (rows, kv_heads * head_dim) and values (rows, kv_heads * value_dim) of `value`,
/// angles (rows, rotated) of f32, places (rows, 4) of u32, the cache's (blocks * 64, kv_heads * head_dim) and (blocks * 64, kv_heads *
/// value_dim) of `cache`.
#[derive(Clone, Copy, Debug)]
pub struct RopeAndAppend {
    /// As in [`Rope`].
    pub neighbours: bool,
    /// Type of the new rows.
    pub value: FloatType,
    /// Type of the cache.
    pub cache: FloatType,
    /// New rows.
    pub rows: u32,
    /// The first of them.
    pub first_row: u32,
    /// Heads of queries to rotate; 0 leaves them as they are.
    pub heads: u32,
    /// Heads of keys, and of values.
    pub kv_heads: u32,
    /// Values of a head of queries and keys.
    pub head_dim: u32,
    /// Values of a head of values.
    pub value_dim: u32,
    /// Values of a head that are rotated, from its first on; 0 for none.
    pub rotated: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct RopeAndAppendProblem {
    heads: u32,
    kv_heads: u32,
    head_dim: u32,
    value_dim: u32,
    rotated: u32,
    first_row: u32,
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
    first_row: u32,
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
            program: program([self.value, self.value], self.neighbours, 1),
            kernel: "rope",
            threadgroups: [self.rows, (self.heads * self.rotated / 2).div_ceil(THREADS), 1],
            threads: THREADS,
            buffers: 2,
            constants: constants_of(&problem),
            shared_bytes: 0,
        }
    }
}

impl RopeAngles {
    /// The launch.
    pub fn launch(&self) -> Launch {
        let problem = RopeAnglesProblem {
            rotated: self.rotated,
            first_row: self.first_row,
            factor: self.factor,
        };
        Launch {
            program: program([FloatType::F32; 2], false, 1),
            kernel: "rope_angles",
            threadgroups: [self.rows, (self.rotated / 2).div_ceil(THREADS), 1],
            threads: THREADS,
            buffers: 3,
            constants: constants_of(&problem),
            shared_bytes: 0,
        }
    }
}

impl RopeAndAppend {
    /// The launch.
    pub fn launch(&self) -> Launch {
        let &RopeAndAppend {
            rows,
            heads,
            kv_heads,
            head_dim,
            value_dim,
            rotated,
            first_row,
            ..
        } = self;
        let sizes = [rotated / 2, head_dim, value_dim];
        let each = if sizes.iter().all(|size| size.is_multiple_of(EACH)) {
            EACH
        } else {
            1
        };
        let pairs = (heads + kv_heads) * (rotated / 2);
        let work = pairs + kv_heads * (head_dim - rotated + value_dim);
        let problem = RopeAndAppendProblem {
            heads,
            kv_heads,
            head_dim,
            value_dim,
            rotated,
            first_row,
        };
        Launch {
            program: program([self.value, self.cache], self.neighbours, each),
            kernel: "rope_and_append",
            threadgroups: [rows, (work / each).div_ceil(THREADS), 1],
            threads: THREADS,
            buffers: 7,
            constants: constants_of(&problem),
            shared_bytes: 0,
        }
    }
}

/// `types`: of values and of the cache.
fn program(types: [FloatType; 2], neighbours: bool, each: u32) -> Program {
    let defines = smallvec![
        ("THREADS", THREADS),
        ("VALUE", value_number(types[0])),
        ("CACHE", value_number(types[1])),
        ("NEIGHBOURS", u32::from(neighbours)),
        ("EACH", each),
    ];
    Program { file: FILE, defines }
}
