//! A normalization with its stored weight.

use planish_ops::NormKind;

/// A normalization: `(normalized(x) * (weight + offset) + bias) * scale`.
#[derive(Clone, Debug, PartialEq)]
pub struct NormSpec {
    /// Module path.
    pub name: String,
    /// The tensor of the weight where it is not `{name}.weight`.
    pub stored: Option<String>,
    /// RMS or layer norm.
    pub kind: NormKind,
    /// Stored values.
    pub size: usize,
    /// So many tensors `NAME.0`, `NAME.1` and so on hold the values, one after the other; `None` is one tensor `NAME`.
    pub pieces: Option<usize>,
    /// Values normalized together; divides the size. Smaller where every head has weights of its own.
    pub width: usize,
    /// Added to the mean square or the variance.
    pub epsilon: f32,
    /// Added to the stored weight.
    pub offset: f32,
    /// Whether there is a weight.
    pub weight: bool,
    /// Whether there is a bias.
    pub bias: bool,
    /// Multiplies the result.
    pub scale: f32,
}

impl NormSpec {
    /// An RMS norm with a weight.
    pub fn rms(name: impl Into<String>, size: usize, epsilon: f32) -> NormSpec {
        NormSpec {
            name: name.into(),
            stored: None,
            kind: NormKind::Rms,
            size,
            pieces: None,
            width: size,
            epsilon,
            offset: 0.0,
            weight: true,
            bias: false,
            scale: 1.0,
        }
    }

    /// A layer norm with a weight, and with a bias if `bias` says so.
    pub fn layer(name: impl Into<String>, size: usize, epsilon: f32, bias: bool) -> NormSpec {
        NormSpec {
            kind: NormKind::Layer,
            bias,
            ..NormSpec::rms(name, size, epsilon)
        }
    }
}
