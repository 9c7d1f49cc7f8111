//! Value by value: activations and sums.

use bytemuck::{Pod, Zeroable};
use planish_format::FloatType;
use planish_ops::Activation;
use smallvec::smallvec;

use super::activation::activation_number;
use super::{Constants, File, Launch, Program, kernel_file, value_number};

const FILE: File = kernel_file!("portable/elementwise", "shared/values", "shared/activation");
const THREADS: u32 = 128;
/// Values of a thread.
const EACH: u32 = 8;

/// `values = activation(values) * up`. Buffers: values (count) and up (count) of `value`.
#[derive(Clone, Copy, Debug)]
pub struct Gate {
    /// The non-linearity.
    pub activation: Activation,
    /// Type of the values.
    pub value: FloatType,
    /// How many values.
    pub count: u32,
    /// Whether there is something to multiply by.
    pub gated: bool,
}

/// `values += factor * other`. Buffers: values (count) and other (count) of `value`.
#[derive(Clone, Copy, Debug)]
pub struct Add {
    /// Type of the values.
    pub value: FloatType,
    /// How many values.
    pub count: u32,
    /// Multiplies the other values.
    pub factor: f32,
}

/// `values[row] *= factors[entries[row]]`. Buffers: values (rows, cols) of `value`, factors (rows) of f32, entries (rows) of u32.
#[derive(Clone, Copy, Debug)]
pub struct ScaleRows {
    /// Type of the values.
    pub value: FloatType,
    /// How many rows.
    pub rows: u32,
    /// Values of a row.
    pub cols: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct ScaleProblem {
    count: u32,
    cols: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct GateProblem {
    count: u32,
    factors: [f32; 4],
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct AddProblem {
    count: u32,
    factor: f32,
}

impl Gate {
    /// The launch.
    pub fn launch(&self) -> Launch {
        let (activation, factors) = activation_number(self.activation);
        let problem = GateProblem {
            count: self.count,
            factors,
        };
        let program = program(self.value, activation, self.gated);
        launch("gate", program, self.count, bytemuck::bytes_of(&problem))
    }
}

impl Add {
    /// The launch.
    pub fn launch(&self) -> Launch {
        let problem = AddProblem {
            count: self.count,
            factor: self.factor,
        };
        let program = program(self.value, 0, false);
        launch("add", program, self.count, bytemuck::bytes_of(&problem))
    }
}

impl ScaleRows {
    /// The launch.
    pub fn launch(&self) -> Launch {
        let problem = ScaleProblem {
            count: self.rows * self.cols,
            cols: self.cols,
        };
        let program = program(self.value, 0, false);
        Launch {
            buffers: 3,
            ..launch("scale_rows", program, problem.count, bytemuck::bytes_of(&problem))
        }
    }
}

/// The kernels of a file are compiled together: a sum has no activation, and names one.
fn program(value: FloatType, activation: u32, gated: bool) -> Program {
    let defines = smallvec![
        ("THREADS", THREADS),
        ("VALUE", value_number(value)),
        ("ACTIVATION", activation),
        ("GATED", u32::from(gated)),
    ];
    Program { file: FILE, defines }
}

fn launch(kernel: &'static str, program: Program, count: u32, constants: &[u8]) -> Launch {
    Launch {
        program,
        kernel,
        threadgroups: [count.div_ceil(EACH * THREADS), 1, 1],
        threads: THREADS,
        buffers: 2,
        constants: Constants::from_slice(constants),
        shared_bytes: 0,
    }
}
