//! Listening to products: who loads a model with a [`Tap`] is told the inputs of every linear layer, expert and head.

use std::fmt::Debug;

/// Where the rows of a weight stand in a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// The entry.
    pub entry: String,
    /// Which of `parts` equal runs of the entry's rows they are in: the number of an expert or a head.
    pub part: usize,
    /// 1 for a weight that is no part of a stack.
    pub parts: usize,
}

/// Told of products, in the order in which they are computed. Calls come from one thread at a time.
pub trait Tap: Debug + Send + Sync {
    /// From now on `weight` stands for what has this origin. Several weights may be cut from one part.
    fn name(&self, weight: usize, origin: Origin);

    /// Whether the inputs of a weight are asked for: a device need not bring others.
    fn wants(&self, _weight: usize) -> bool {
        true
    }

    /// Rows of `cols` values are multiplied by `weight`. // (rows, cols)
    fn inputs(&self, weight: usize, values: &[f32], cols: usize);
}
