//! Gated activation (Shazeer, 2020): `gate = activation(gate) * up`; without `up` just the activation.

use crate::{Activation, Ops, Shape};

/// Rows to activate in place.
pub struct Gate<'a, O: Ops> {
    /// Rows to activate.
    pub rows: usize,
    /// The non-linearity.
    pub activation: Activation,
    /// Input and output. // (rows, cols)
    pub gate: &'a mut O::Tensor,
    /// Multiplies the activation. // (rows, cols)
    pub up: Option<&'a O::Tensor>,
}

impl<O: Ops> Gate<'_, O> {
    /// Panics on sizes that do not fit.
    pub fn check(&self) {
        assert!(self.rows <= self.gate.rows());
        assert!(
            self.up
                .is_none_or(|up| up.cols() == self.gate.cols() && self.rows <= up.rows())
        );
    }
}

/// The formula for one value, in f64.
pub fn gate_reference(activation: Activation, gate: f32, up: f32) -> f64 {
    let x = f64::from(gate);
    let activated = match activation {
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::GeluTanh => {
            0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())
        }
        Activation::Relu => x.max(0.0),
        Activation::Softcap(cap) => f64::from(cap) * (x / f64::from(cap)).tanh(),
    };
    activated * f64::from(up)
}
