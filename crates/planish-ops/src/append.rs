//! Cache append: keys and values of new positions go where attention reads them.

use crate::{Ops, Shape};

/// Rows to store.
pub struct Append<'a, O: Ops> {
    /// Rows to store.
    pub rows: usize,
    /// Position of row 0; what was stored there and after is replaced.
    pub first_position: usize,
    /// Rotated keys. // (rows, kv_heads * head_dim)
    pub keys: &'a O::Tensor,
    /// Values. // (rows, kv_heads * value_dim)
    pub values: &'a O::Tensor,
    /// The layer's cache.
    pub key_values: &'a mut O::KeyValues,
}

impl<O: Ops> Append<'_, O> {
    /// Panics on sizes that do not fit.
    pub fn check(&self) {
        assert!(self.rows <= self.keys.rows() && self.rows <= self.values.rows());
    }
}
