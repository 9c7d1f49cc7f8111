//! Every way to compute attention, as rows of one table: models take the first that fits, tests and measurements run each.

use planish_gpu::Features;

use smallvec::SmallVec;

use super::{Attention, Launch, attention, attention_tiles, tensor_attention};

/// One way to compute it.
#[derive(Clone, Copy)]
pub struct AttentionVariant {
    /// Its name in tables.
    pub name: &'static str,
    /// Whether there are the words that it uses.
    pub runs_on: fn(&Features) -> bool,
    /// `None` where it cannot compute the problem, or another is faster.
    pub plan: fn(&Attention) -> Option<AttentionPlan>,
}

/// What to allocate and to launch.
#[derive(Clone, Debug)]
pub struct AttentionPlan {
    /// Bytes of the partials; 0 where nothing is split.
    pub scratch_bytes: usize,
    /// Launches in order.
    pub steps: SmallVec<[AttentionStep; 2]>,
}

/// A launch and what is bound to it.
#[derive(Clone, Debug)]
pub struct AttentionStep {
    /// The launch.
    pub launch: Launch,
    /// Its buffers in order.
    pub buffers: &'static [AttentionBuffer],
}

/// A buffer of attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttentionBuffer {
    /// (rows, heads, head_dim) of the value's type.
    Queries,
    /// (blocks, 64, kv_heads, head_dim) of the cache's type.
    Keys,
    /// (blocks, 64, kv_heads, value_dim) of the cache's type.
    Values,
    /// (heads) of f32.
    Sinks,
    /// (heads) of f32.
    Slopes,
    /// (rows, 4) of u32, by [`super::PlaceRows`].
    Places,
    /// (slots, stride) of u32.
    Tables,
    /// [`AttentionPlan::scratch_bytes`].
    Partials,
    /// (rows, heads, value_dim) of the value's type.
    Output,
}

/// Rows of one sequence from which on those of others do not join them in a launch.
pub const LEAST_TILE_ROWS: u32 = 8;

/// All of them, the fastest first.
pub const ATTENTION_VARIANTS: &[AttentionVariant] = &[
    AttentionVariant {
        name: "tensor_attention",
        runs_on: |features| features.tensor_cores,
        plan: tensor_attention::plan,
    },
    AttentionVariant {
        name: "attention_tiles",
        runs_on: |features| features.simdgroup_matrices,
        plan: attention_tiles::plan,
    },
    AttentionVariant {
        name: "attention",
        runs_on: |_| true,
        plan: attention::plan,
    },
];

impl Attention {
    /// The first that runs there and takes the problem.
    pub fn plan(&self, features: &Features) -> AttentionPlan {
        let mut running = ATTENTION_VARIANTS.iter().filter(|variant| (variant.runs_on)(features));
        running
            .find_map(|variant| (variant.plan)(self))
            .expect("the last takes every problem")
    }

    /// Whether tiles of many rows of one sequence pay.
    pub(super) fn has_tiles(&self) -> bool {
        self.spans == 1 && self.rows >= LEAST_TILE_ROWS
    }
}
