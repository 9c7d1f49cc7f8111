//! Layers with a state: causal convolutions and linear recurrences.

use bytemuck::{Pod, Zeroable};
use planish_format::FloatType;
use planish_ops::RecurrenceShape;
use smallvec::smallvec;

use super::{Defines, File, Launch, Program, constants_of, kernel_file, value_number};

const FILE: File = kernel_file!("portable/states", "shared/values");
const THREADS: u32 = 128;
/// Columns of the state that a threadgroup of `recur` takes.
const COLUMNS: u32 = THREADS / 4;

/// Causal convolution of every channel. Buffers: input (rows, channels) and its gate of `value`, weight (taps, channels) and bias
/// (channels) of f32, gate of the output of `value`, spans (spans, 4) of u32, history (slots, taps - 1, channels) of f32, output (rows,
/// channels) of `value`.
#[derive(Clone, Copy, Debug)]
pub struct Convolve {
    /// Type of the values.
    pub value: FloatType,
    /// Sequences whose rows are computed.
    pub spans: u32,
    /// Channels.
    pub channels: u32,
    /// Inputs of an output; at least 2.
    pub taps: u32,
    /// Whether the input is multiplied by its gate.
    pub input_gated: bool,
    /// Whether there is a bias.
    pub biased: bool,
    /// Whether the sum goes through SiLU.
    pub silu: bool,
    /// Whether the result is multiplied by its gate.
    pub output_gated: bool,
}

/// Linear recurrence of every head. Buffers: inputs (rows, shape.cols()) and steps (rows, heads) of `value`, step biases and rates
/// (heads) of f32, beta (rows, heads) of `value`, skips (heads) of f32, spans (spans, 4) of u32, states (slots) of shape.state() in
/// f32, output (rows, heads * value_dim) of `value`. Where every value of a key has a step, steps are (rows, heads * key_dim) and
/// their biases (heads * key_dim).
#[derive(Clone, Copy, Debug)]
pub struct Recur {
    /// Type of the values.
    pub value: FloatType,
    /// Sequences whose rows are taken in.
    pub spans: u32,
    /// Sizes.
    pub shape: RecurrenceShape,
    /// Whether there is a step, and a bias of steps, for every value of a key.
    pub steps_of_keys: bool,
    /// The gated delta rule, with beta; otherwise the scan of Mamba 2, with skips.
    pub delta: bool,
    /// Multiplies the steps before their bias is added.
    pub step_scale: f32,
    /// Least and largest step.
    pub limits: (f32, f32),
}

/// The scan of Mamba 1. Buffers: values and steps (rows, channels), keys and queries (rows, key_dim) of `value`, step biases (channels),
/// rates (key_dim, channels) and skips (channels) of f32, spans (spans, 4) of u32, states (slots, key_dim, channels) of f32, output
/// (rows, channels) of `value`.
#[derive(Clone, Copy, Debug)]
pub struct ScanChannels {
    /// Type of the values.
    pub value: FloatType,
    /// Sequences whose rows are taken in.
    pub spans: u32,
    /// Channels.
    pub channels: u32,
    /// Values of a key.
    pub key_dim: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct ConvolveProblem {
    channels: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct RecurProblem {
    heads: u32,
    sharing: u32,
    cols: u32,
    query: u32,
    key: u32,
    value: u32,
    value_dim: u32,
    state_cols: u32,
    step_scale: f32,
    least_step: f32,
    most_step: f32,
}

impl Convolve {
    /// The launch.
    pub fn launch(&self) -> Launch {
        let problem = ConvolveProblem {
            channels: self.channels,
        };
        let mut defines = common(self.value);
        defines.extend([
            ("TAPS", self.taps),
            ("INPUT_GATED", self.input_gated.into()),
            ("BIASED", self.biased.into()),
            ("SILU", self.silu.into()),
            ("OUTPUT_GATED", self.output_gated.into()),
            // The kernels of a file are compiled together.
            ("KEY_DIM", 4),
            ("DELTA", 0),
            ("STEPS_OF_KEYS", 0),
        ]);
        Launch {
            program: Program { file: FILE, defines },
            kernel: "convolve",
            threadgroups: [self.channels.div_ceil(THREADS), self.spans, 1],
            threads: THREADS,
            buffers: 8,
            constants: constants_of(&problem),
            shared_bytes: 0,
        }
    }
}

impl Recur {
    /// The launch.
    pub fn launch(&self) -> Launch {
        let shape = &self.shape;
        let (query, key, value) = shape.starts(0);
        let problem = RecurProblem {
            heads: shape.heads as u32,
            sharing: (shape.heads / shape.groups) as u32,
            cols: shape.cols() as u32,
            query: query as u32,
            key: key as u32,
            value: value as u32,
            value_dim: shape.value_dim as u32,
            state_cols: shape.state().1 as u32,
            step_scale: self.step_scale,
            least_step: self.limits.0,
            most_step: self.limits.1,
        };
        let mut defines = common(self.value);
        defines.extend([
            ("KEY_DIM", shape.key_dim as u32),
            ("DELTA", self.delta.into()),
            ("STEPS_OF_KEYS", self.steps_of_keys.into()),
            ("TAPS", 2),
            ("INPUT_GATED", 0),
            ("BIASED", 0),
            ("SILU", 0),
            ("OUTPUT_GATED", 0),
        ]);
        Launch {
            program: Program { file: FILE, defines },
            kernel: "recur",
            threadgroups: [
                (shape.value_dim as u32).div_ceil(COLUMNS),
                shape.heads as u32,
                self.spans,
            ],
            threads: THREADS,
            buffers: 9,
            constants: constants_of(&problem),
            shared_bytes: 0,
        }
    }
}

impl ScanChannels {
    /// The launch.
    pub fn launch(&self) -> Launch {
        let problem = ConvolveProblem {
            channels: self.channels,
        };
        let mut defines = common(self.value);
        defines.extend([
            ("KEY_DIM", self.key_dim),
            ("DELTA", 0),
            ("STEPS_OF_KEYS", 0),
            ("TAPS", 2),
            ("INPUT_GATED", 0),
            ("BIASED", 0),
            ("SILU", 0),
            ("OUTPUT_GATED", 0),
        ]);
        Launch {
            program: Program { file: FILE, defines },
            kernel: "scan_channels",
            threadgroups: [self.channels.div_ceil(THREADS), self.spans, 1],
            threads: THREADS,
            buffers: 10,
            constants: constants_of(&problem),
            shared_bytes: 0,
        }
    }
}

fn common(value: FloatType) -> Defines {
    smallvec![("THREADS", THREADS), ("VALUE", value_number(value))]
}
