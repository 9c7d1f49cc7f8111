//! Cache append: keys and values of new positions go where attention reads them, rotated on the way where there are angles.

use crate::{Ops, Places, RopePairs, Shape};

/// Rows to store.
pub struct Append<'a, O: Ops> {
    /// Rows to store, and where.
    pub places: Places<'a, O>,
    /// Rotated first, together with queries.
    pub rotation: Option<Rotation<'a, O>>,
    /// Keys; whether they are rotated afterwards is the device's choice. // (rows, kv_heads * head_dim)
    pub keys: &'a mut O::Tensor,
    /// Values. // (rows, kv_heads * value_dim)
    pub values: &'a O::Tensor,
    /// The layer's cache, of all sequences.
    pub key_values: &'a mut O::KeyValues,
}

/// What [`crate::Rope`] does to queries and keys.
pub struct Rotation<'a, O: Ops> {
    /// Rotated in place. // (rows, heads * head_dim)
    pub queries: &'a mut O::Tensor,
    /// Values of a head of queries and of keys.
    pub head_dim: usize,
    /// From [`Ops::rope_angles`]. // (rows, rotated)
    pub angles: &'a O::Tensor,
    /// Which values are rotated together.
    pub pairs: RopePairs,
}

impl<O: Ops> Append<'_, O> {
    /// Panics on sizes that do not fit.
    pub fn check(&self) {
        self.places.check_rows([&*self.keys, self.values]);
        if let Some(rotation) = &self.rotation {
            let Rotation {
                queries,
                head_dim,
                angles,
                ..
            } = rotation;
            self.places.check_rows([&**queries, *angles]);
            assert!(angles.cols() <= *head_dim);
            let whole = |heads: &O::Tensor| heads.cols().is_multiple_of(*head_dim);
            assert!(whole(queries) && whole(self.keys));
        }
    }
}
