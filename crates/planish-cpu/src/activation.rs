//! Activations of feed-forward blocks: `gate = activation(gate) * up`, or the activation alone.

use crate::Cpu;
use crate::share::{SharedSlice, share_rows};
use planish_ops::Activation;

/// Rows to activate.
pub struct Activate<'a> {
    /// The non-linearity.
    pub activation: Activation,
    /// Input and output. // (rows, cols)
    pub gate: &'a mut [f32],
    /// Multiplies the activation where there is one. // (rows, cols)
    pub up: Option<&'a [f32]>,
}

/// Values handled together: a share of a long row.
const CHUNK: usize = 1024;

/// Applies the activation to every value.
pub fn activate(cpu: &Cpu, problem: Activate<'_>) {
    let Activate { activation, gate, up } = problem;
    let len = gate.len();
    assert!(up.is_none_or(|up| up.len() == len));
    let functions = cpu.vector();
    let gate = SharedSlice::new(gate);
    share_rows(cpu.pool(), len.div_ceil(CHUNK), CHUNK, |share| {
        let range = share.start * CHUNK..(share.end * CHUNK).min(len);
        // SAFETY: shares do not overlap; the functions are those this machine supports.
        unsafe { (functions.activate)(activation, gate.range(range.clone()), up.map(|up| &up[range])) }
    });
}
