//! Value by value: activations, sums, and the cache's new rows.

use bytemuck::{Pod, Zeroable};
use planish_cpu::Activation;
use planish_format::FloatType;

use super::activation::activation_number;
use super::{File, Launch, Program, value_number};

const FILE: File = File {
    name: "elementwise",
    texts: &[
        include_str!("../../kernels/values.metal"),
        include_str!("../../kernels/activation.metal"),
        include_str!("../../kernels/elementwise.metal"),
    ],
};
const THREADS: u32 = 256;

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

/// Keys and values of new rows into the cache. Buffers: keys (rows, key_width) and values (rows, value_width) of `value`, then the
/// cache's (positions, key_width) and (positions, value_width) of `cache`.
#[derive(Clone, Copy, Debug)]
pub struct Append {
    /// Type of the new rows.
    pub value: FloatType,
    /// Type of the cache.
    pub cache: FloatType,
    /// New rows.
    pub rows: u32,
    /// Position of row 0.
    pub first_position: u32,
    /// Key-value heads times the dimension of a key.
    pub key_width: u32,
    /// Key-value heads times the dimension of a value.
    pub value_width: u32,
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

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct AppendProblem {
    first_position: u32,
    key_width: u32,
    value_width: u32,
}

impl Gate {
    /// The launch.
    pub fn launch(&self) -> Launch {
        let (activation, factors) = activation_number(self.activation);
        let problem = GateProblem {
            count: self.count,
            factors,
        };
        let mut defines = defines(self.value, self.value);
        defines.extend([("ACTIVATION", activation), ("GATED", u32::from(self.gated))]);
        launch("gate", defines, self.count, bytemuck::bytes_of(&problem))
    }
}

impl Add {
    /// The launch.
    pub fn launch(&self) -> Launch {
        let problem = AddProblem {
            count: self.count,
            factor: self.factor,
        };
        launch(
            "add",
            defines(self.value, self.value),
            self.count,
            bytemuck::bytes_of(&problem),
        )
    }
}

impl Append {
    /// The launch.
    pub fn launch(&self) -> Launch {
        let problem = AppendProblem {
            first_position: self.first_position,
            key_width: self.key_width,
            value_width: self.value_width,
        };
        let width = self.key_width.max(self.value_width);
        Launch {
            threadgroups: [self.rows, width.div_ceil(THREADS), 1],
            buffers: 4,
            ..launch(
                "append",
                defines(self.value, self.cache),
                width,
                bytemuck::bytes_of(&problem),
            )
        }
    }
}

fn defines(value: FloatType, cache: FloatType) -> Vec<(&'static str, u32)> {
    vec![
        ("THREADS", THREADS),
        ("VALUE", value_number(value)),
        ("CACHE", value_number(cache)),
    ]
}

/// One thread a value, two buffers.
fn launch(kernel: &'static str, mut defines: Vec<(&'static str, u32)>, count: u32, constants: &[u8]) -> Launch {
    // The kernels of a file are compiled together.
    if kernel != "gate" {
        defines.extend([("ACTIVATION", 0), ("GATED", 0)]);
    }
    Launch {
        program: Program { file: FILE, defines },
        kernel,
        threadgroups: [count.div_ceil(THREADS), 1, 1],
        threads: THREADS,
        buffers: 2,
        constants: constants.to_vec(),
        shared_bytes: 0,
    }
}
