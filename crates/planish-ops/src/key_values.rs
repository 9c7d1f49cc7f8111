//! Sizes of the keys and values that an attention layer remembers, and how they are stored.

/// Sizes of the keys and values of one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyValueSizes {
    /// Heads of keys and of values.
    pub heads: usize,
    /// Values of a head of keys.
    pub head_dim: usize,
    /// Values of a head of values.
    pub value_dim: usize,
    /// Rows see this many positions, their own included; `None` is all. Positions more than [`REWIND`] before any that a row
    /// can see need not be kept.
    pub window: Option<usize>,
}

/// Positions that stay beyond the window, so that a sequence can be taken back by so many and go on.
pub const REWIND: usize = 1024;

/// How keys and values are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheType {
    /// As they are: 4 bytes a value.
    Float32,
    /// 2 bytes a value.
    #[default]
    Float16,
    /// 1 byte a value, and a scale in f32 for each head's keys and values of a position: `scale * code` with
    /// `scale = max|value| / 127`.
    Int8,
}
