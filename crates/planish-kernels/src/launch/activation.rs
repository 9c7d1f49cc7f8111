//! How kernels name the non-linearities.

use planish_ops::Activation;

/// `ACTIVATION`, and the factors of those that have some.
pub(super) fn activation_number(activation: Activation) -> (u32, [f32; 4]) {
    let plain = |number| (number, [0.0; 4]);
    match activation {
        Activation::Silu => plain(0),
        Activation::Gelu => plain(1),
        Activation::GeluTanh => plain(2),
        Activation::QuickGelu => plain(3),
        Activation::Relu => plain(4),
        Activation::Relu2 => plain(5),
        Activation::Sigmoid => plain(6),
        Activation::Tanh => plain(7),
        Activation::Softcap(cap) => (8, [cap, 0.0, 0.0, 0.0]),
        Activation::Xielu(factors) => (9, [factors.positive, factors.negative, factors.slope, factors.limit]),
        Activation::Softplus => plain(11),
        Activation::Clamp(limit) => (12, [limit, 0.0, 0.0, 0.0]),
        Activation::ClampedSwiglu { slope, limit } => (10, [slope, limit, 0.0, 0.0]),
    }
}
