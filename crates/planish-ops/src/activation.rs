//! Gated activation (Shazeer, 2020): `gate = activation(gate) * up`; without `up` just the activation.

use crate::{Ops, Shape};

/// A non-linearity of single values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    /// x / (1 + e^-x).
    Silu,
    /// GELU (Hendrycks and Gimpel, 2016): x * (1 + erf(x / sqrt 2)) / 2.
    Gelu,
    /// GELU in its tanh form.
    GeluTanh,
    /// x / (1 + e^-1.702x).
    QuickGelu,
    /// max(x, 0).
    Relu,
    /// max(x, 0)^2.
    Relu2,
    /// 1 / (1 + e^-x).
    Sigmoid,
    /// tanh x.
    Tanh,
    /// ln(1 + e^x).
    Softplus,
    /// x, held between -limit and limit.
    Clamp(f32),
    /// cap * tanh(x / cap).
    Softcap(f32),
    /// Clamped SwiGLU (gpt-oss): `x / (1 + e^-(slope * x))` of min(x, limit), and what it is multiplied with becomes
    /// `1 + clamp(up, -limit, limit)`.
    ClampedSwiglu {
        /// Steepness of the logistic function.
        slope: f32,
        /// Bounds both factors.
        limit: f32,
    },
    /// xIELU (Huang and Schlag, 2024) with its learned factors.
    Xielu(Xielu),
}

/// `positive * x^2 + slope * x` above 0, `negative * (e^min(x, limit) - 1 - x) + slope * x` elsewhere.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Xielu {
    /// Bend above 0.
    pub positive: f32,
    /// Bend below 0.
    pub negative: f32,
    /// Slope at 0.
    pub slope: f32,
    /// Just below 0.
    pub limit: f32,
}

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
        Activation::Softplus => x.max(0.0) + (-x.abs()).exp().ln_1p(),
        Activation::Clamp(limit) => x.clamp(-f64::from(limit), f64::from(limit)),
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

/// The error function, by its Taylor series, whose terms stay small enough for |x| below 5; beyond, it is 1 to 1e-11.
pub fn erf(x: f64) -> f64 {
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
