//! The tensors between the operations, allocated once for the largest pass.

use planish_ops::Ops;

use crate::blocks::device_error;
use crate::{Architecture, Error, LayerSpec};

/// Rows of a pass, unless the memory below allows fewer.
const MOST_ROWS: usize = 512;
const LEAST_ROWS: usize = 64;
/// What the tensors may take together.
const BUDGET_BYTES: usize = 24 << 20;

/// All (rows, ..) with the columns that the widest layer needs.
pub(crate) struct Workspace<O: Ops> {
    /// Rows of a pass at most.
    pub(crate) rows: usize,
    pub(crate) hidden: O::Tensor,      // (rows, hidden)
    pub(crate) normed: O::Tensor,      // (rows, hidden)
    pub(crate) delta: O::Tensor,       // (rows, hidden)
    pub(crate) queries: O::Tensor,     // (rows, heads * head_dim)
    pub(crate) keys: O::Tensor,        // (rows, kv_heads * head_dim)
    pub(crate) values: O::Tensor,      // (rows, kv_heads * head_dim)
    pub(crate) attended: O::Tensor,    // (rows, heads * head_dim)
    pub(crate) gate: O::Tensor,        // (rows, inner)
    pub(crate) up: O::Tensor,          // (rows, inner)
    pub(crate) angles: Vec<O::Tensor>, // each (rows, rotated)
    pub(crate) logits: O::Tensor,      // (1, vocabulary)
}

impl<O: Ops> Workspace<O> {
    /// Layers are of one size; families whose layers differ need a workspace for each size.
    pub(crate) fn new(ops: &O, architecture: &Architecture) -> Result<Workspace<O>, Error> {
        let widest = |size: fn(&LayerSpec) -> usize| architecture.layers.iter().map(size).max().unwrap_or(1);
        let queries = widest(|layer| layer.attention.query.rows);
        let keys = widest(|layer| layer.attention.key.rows);
        let inner = widest(|layer| layer.feed_forward.inner());
        let row_bytes = 4 * (3 * architecture.hidden + 2 * queries + 2 * keys + 2 * inner);
        let rows = (BUDGET_BYTES / row_bytes).clamp(LEAST_ROWS, MOST_ROWS) / 32 * 32;
        let tensor = |cols| ops.tensor(rows, cols).map_err(device_error);
        Ok(Workspace {
            rows,
            hidden: tensor(architecture.hidden)?,
            normed: tensor(architecture.hidden)?,
            delta: tensor(architecture.hidden)?,
            queries: tensor(queries)?,
            keys: tensor(keys)?,
            values: tensor(keys)?,
            attended: tensor(queries)?,
            gate: tensor(inner)?,
            up: tensor(inner)?,
            angles: architecture
                .ropes
                .iter()
                .map(|rope| tensor(rope.rotated))
                .collect::<Result<_, _>>()?,
            logits: ops.tensor(1, architecture.vocabulary).map_err(device_error)?,
        })
    }
}
