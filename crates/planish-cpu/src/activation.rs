//! Activations of feed-forward blocks: `gate = activation(gate) * up`, or the activation alone.

use planish_ops::{Activation, Gate};

use crate::share::{SharedSlice, share_rows};
use crate::{Cpu, CpuOps};

/// Values handled together: a share of a long row.
const CHUNK: usize = 1024;

/// Applies the activation to every value.
pub(crate) fn activate(cpu: &Cpu, problem: Gate<'_, CpuOps>) {
    let Gate {
        rows,
        activation,
        gate,
        up,
    } = problem;
    activate_values(cpu, activation, gate.first_mut(rows), up.map(|up| up.first(rows)));
}

/// The same for values of any shape.
pub(crate) fn activate_values(cpu: &Cpu, activation: Activation, gate: &mut [f32], up: Option<&[f32]>) {
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
