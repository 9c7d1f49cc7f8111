//! Errors of rows of codes, and better scales and biases for them.

use bytemuck::{Pod, Zeroable};
use planish_format::FloatType;
use smallvec::smallvec;

use super::{File, Launch, Program, constants_of, kernel_file, value_number};

const FILE: File = kernel_file!("cuda/refit", "shared/values");
const THREADS: u32 = 128;
/// Bytes of threadgroup memory that a panel and a solution may take.
const MOST_SHARED: u32 = 45_056;

/// What is done to rows. Rows of weights, targets, errors d, products d H and codes less their means are (rows, cols) of f32, codes (rows, cols)
/// of u8, scales, biases and means of codes (rows, groups) of f32, sums (rows) of f64, systems (rows, 2 groups + 1, 2 groups) of f64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowStep {
    /// Columns in another order. Buffers: from, order (cols) of u32, to.
    Gather,
    /// Buffers: codes, scales, biases, target, errors.
    Errors,
    /// Sums of products of rows. Buffers: left, right, sums.
    Products,
    /// Buffers: codes, means, codes less their means.
    Centre,
    /// Buffers: products of a group with H, codes less their means, systems.
    Terms,
    /// Buffers: products, codes less their means, systems.
    Sides,
    /// Buffers: systems, sums of H over two groups (groups, groups) of f64, changes (rows, 2 groups) of f64.
    Solve,
    /// Buffers: scales, biases, means, changes, new scales, new biases.
    Change,
    /// Takes over rows with less error. Buffers: codes, scales, biases, products, sums, the same of what was tried.
    Keep,
}

/// A step on some rows.
#[derive(Clone, Copy, Debug)]
pub struct CodeRows {
    /// What is done.
    pub step: RowStep,
    /// Type of scales and biases.
    pub scale: FloatType,
    /// Rows.
    pub rows: u32,
    /// Columns.
    pub cols: u32,
    /// Columns of a group.
    pub group: u32,
    /// Of [`RowStep::Terms`]: the group.
    pub index: u32,
    /// The row of codes at which the systems begin.
    pub first_row: u32,
    /// Added to the diagonals of systems, in parts of them.
    pub ridge: f32,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct RowsProblem {
    rows: u32,
    cols: u32,
    index: u32,
    first_row: u32,
    ridge: f32,
}

impl CodeRows {
    /// Bytes of the system of a row.
    pub fn system_bytes(cols: usize, group: usize) -> usize {
        let size = 2 * (cols / group);
        8 * size * (size + 1)
    }

    /// Whether systems of so many groups fit into a threadgroup's memory, a column at least at a time.
    pub fn has_room(cols: usize, group: usize) -> bool {
        wide(2 * (cols / group) as u32).is_some()
    }

    /// The launch.
    pub fn launch(&self) -> Launch {
        let groups = self.cols / self.group;
        let shared = groups.div_ceil(THREADS / 16);
        let (kernel, buffers, each) = match self.step {
            RowStep::Gather => ("gather_columns", 3, 1),
            RowStep::Errors => ("errors", 5, 1),
            RowStep::Products => ("row_products", 3, 1),
            RowStep::Centre => ("centre_codes", 3, 1),
            RowStep::Terms => ("system_terms", 3, shared),
            RowStep::Sides => ("system_sides", 3, shared),
            RowStep::Solve => ("solve_systems", 3, 1),
            RowStep::Change => ("change_scales", 6, 1),
            RowStep::Keep => ("keep_rows", 10, 1),
        };
        let problem = RowsProblem {
            rows: self.rows,
            cols: self.cols,
            index: self.index,
            first_row: self.first_row,
            ridge: self.ridge,
        };
        let defines = smallvec![
            ("THREADS", THREADS),
            ("VALUE", 0),
            ("WEIGHT", value_number(self.scale)),
            ("GROUP", self.group),
            ("SIZE", 2 * groups),
            ("WIDE", wide(2 * groups).unwrap_or(1)),
        ];
        Launch {
            program: Program { file: FILE, defines },
            kernel,
            threadgroups: [self.rows, each, 1],
            threads: THREADS,
            buffers,
            constants: constants_of(&problem),
            shared_bytes: 0,
        }
    }
}

/// Columns of a panel of systems of this size.
fn wide(size: u32) -> Option<u32> {
    let fits = |wide: &u32| 8 * ((size + 1) * wide + size) <= MOST_SHARED;
    [16, 8, 4, 2, 1].into_iter().find(fits)
}
