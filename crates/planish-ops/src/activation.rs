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
        Activation::Gelu => 0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2)),
        Activation::GeluTanh => {
            0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())
        }
        Activation::QuickGelu => x / (1.0 + (-1.702 * x).exp()),
        Activation::Relu => x.max(0.0),
        Activation::Relu2 => x.max(0.0).powi(2),
        Activation::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        Activation::Tanh => x.tanh(),
        Activation::Softcap(cap) => f64::from(cap) * (x / f64::from(cap)).tanh(),
        Activation::ClampedSwiglu { slope, limit } => {
            let x = x.min(f64::from(limit));
            x / (1.0 + (-f64::from(slope) * x).exp())
        }
        Activation::Xielu(factors) => {
            let [positive, negative, slope, limit] =
                [factors.positive, factors.negative, factors.slope, factors.limit].map(f64::from);
            slope * x
                + match x > 0.0 {
                    true => positive * x * x,
                    false => negative * (x.min(limit).exp_m1() - x),
                }
        }
    };
    let factor = match activation {
        Activation::ClampedSwiglu { limit, .. } => 1.0 + f64::from(up.clamp(-limit, limit)),
        _ => f64::from(up),
    };
    activated * factor
}

/// The error function by its Taylor series, whose terms stay small enough for |x| below 5; beyond, it is 1 to 1e-11.
fn erf(x: f64) -> f64 {
    if x.abs() > 5.0 {
        return x.signum();
    }
    let (mut term, mut sum) = (x, x);
    for n in 1..150 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * std::f64::consts::FRAC_2_SQRT_PI
}
