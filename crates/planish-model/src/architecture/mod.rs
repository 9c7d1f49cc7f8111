//! What a decoder is made of, as data: a family file fills it in, the loader and the blocks follow it.
//!
//! Weights are named by their Hugging Face module path; `.weight` and `.bias` follow it in the checkpoint.

mod attention;
mod channel_scan;
mod convolution;
mod experts;
mod feed_forward;
mod latent_attention;
mod laurel;
mod layer_input;
mod linear;
mod norm;
mod recurrence;
mod streams;

pub use attention::{AlibiSpec, AttentionSpec, GateSpec, HeadSizes};
pub use channel_scan::ChannelScanSpec;
pub use convolution::{ConvolutionSpec, ShortConvolutionSpec};
pub use experts::{ExpertsSpec, FusedRows, FusedStack, ScoreCorrectionSpec, SharedExpertsSpec, StackPlace, StackSpec};
pub use feed_forward::{ActivationSpec, FeedForwardSpec};
pub use latent_attention::{LatentAttentionSpec, LatentQuerySpec};
pub use laurel::LaurelSpec;
pub use layer_input::{LayerInputSpec, LayerInputsSpec};
pub use linear::{LinearSpec, Stored};
pub use norm::NormSpec;
pub use recurrence::{RecurrenceSpec, RuleSpec, StepsSpec};
pub use streams::{MixerSpec, StreamUse, StreamsSpec};

use crate::{Error, RopeSpec};

/// A decoder-only model.
#[derive(Clone, Debug, PartialEq)]
pub struct Architecture {
    /// The name in `architectures` of config.json.
    pub name: String,
    /// Values of a hidden state.
    pub hidden: usize,
    /// Tokens.
    pub vocabulary: usize,
    /// Positions that the model was made for.
    pub context: usize,
    /// Positions after which layers would choose what they see, and the key that says so: sequences end there.
    pub limit: Option<PositionLimit>,
    /// From tokens to hidden states.
    pub embedding: EmbeddingSpec,
    /// Position encodings that layers refer to by index.
    pub ropes: Vec<RopeSpec>,
    /// From first to last.
    pub layers: Vec<LayerSpec>,
    /// Before the head.
    pub final_norm: NormSpec,
    /// From hidden states to logits.
    pub head: HeadSpec,
    /// What happens to the logits.
    pub logits: LogitsSpec,
    /// Other names that weights may have in a checkpoint, tried in this order where the usual one is missing.
    pub prefix_aliases: Vec<PrefixAlias>,
}

/// As many positions as can be computed, since beyond them the model computes something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PositionLimit {
    /// How many.
    pub positions: usize,
    /// The key of config.json.
    pub key: &'static str,
}

/// A prefix of names that checkpoints also write otherwise: the module that holds the decoder may have another name, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefixAlias {
    /// The prefix in this architecture.
    pub prefix: &'static str,
    /// The prefix in the checkpoint.
    pub alias: &'static str,
}

impl PrefixAlias {
    /// `alias` in place of `prefix`.
    pub fn new(prefix: &'static str, alias: &'static str) -> PrefixAlias {
        PrefixAlias { prefix, alias }
    }
}

/// `x = norm(project_in(scale * table[token]) + positions[position + offset])`.
#[derive(Clone, Debug, PartialEq)]
pub struct EmbeddingSpec {
    /// Module path of the token table, (vocabulary, hidden).
    pub name: String,
    /// Multiplies embedded tokens.
    pub scale: f32,
    /// A table of fewer columns than the hidden state.
    pub factorized: Option<FactorizedEmbedding>,
    /// A vector for every position, added.
    pub positions: Option<PositionTable>,
    /// Normalizes the sum.
    pub norm: Option<NormSpec>,
    /// What layers are given beside the hidden state.
    pub layer_inputs: Option<LayerInputsSpec>,
    /// Hidden states beside the one that layers compute.
    pub streams: Option<StreamsSpec>,
}

impl EmbeddingSpec {
    /// A token table and nothing else.
    pub fn new(name: impl Into<String>) -> EmbeddingSpec {
        EmbeddingSpec {
            name: name.into(),
            scale: 1.0,
            factorized: None,
            positions: None,
            norm: None,
            layer_inputs: None,
            streams: None,
        }
    }
}

/// The layers between the hidden state and a token table of fewer columns, `table_cols`; the head has as few.
#[derive(Clone, Debug, PartialEq)]
pub struct FactorizedEmbedding {
    /// From embedded tokens to hidden states, (hidden, table_cols).
    pub project_in: LinearSpec,
    /// From normalized hidden states to what the head reads, (table_cols, hidden).
    pub project_out: LinearSpec,
}

/// Position embeddings, (rows, hidden).
#[derive(Clone, Debug, PartialEq)]
pub struct PositionTable {
    /// Module path.
    pub name: String,
    /// Stored rows; a sequence is at most `rows - offset` long.
    pub rows: usize,
    /// Row of position 0.
    pub offset: usize,
    /// Where the rows are computed, not stored: the sines of `row * 10000^(-i / spread)` for half of the values, then the cosines.
    pub sinusoids: Option<usize>,
}

/// The last product.
#[derive(Clone, Debug, PartialEq)]
pub enum HeadSpec {
    /// The token table serves again, unless the checkpoint does have this layer, (vocabulary, hidden).
    Tied(LinearSpec),
    /// A layer of its own, (vocabulary, hidden).
    Separate(LinearSpec),
}

/// `softcap * tanh(scale * logits / softcap)`, or just `scale * logits`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogitsSpec {
    /// Multiplies the logits; 1 where the head has a bias.
    pub scale: f32,
    /// Bounds them smoothly.
    pub softcap: Option<f32>,
}

impl Default for LogitsSpec {
    fn default() -> LogitsSpec {
        LogitsSpec {
            scale: 1.0,
            softcap: None,
        }
    }
}

/// One layer: steps that run one after another. Llama has two of one branch; parallel attention and feed-forward blocks are
/// one step of two branches.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerSpec {
    /// From first to last.
    pub steps: Vec<StepSpec>,
}

/// `x = scale * factor * (x + sum_norm(sum over branches of scale * post_norm(block(norm(x)))))`: all branches read the same x.
#[derive(Clone, Debug, PartialEq)]
pub struct StepSpec {
    /// At least one.
    pub branches: Vec<BranchSpec>,
    /// Normalizes the sum before it is added.
    pub sum_norm: Option<NormSpec>,
    /// Normalizes x itself after the sum, as the first transformers did.
    pub norm: Option<NormSpec>,
    /// Multiplies x at last.
    pub scale: f32,
    /// Name of a tensor of one value that does, too.
    pub factor: Option<String>,
    /// What happens to the streams beside x.
    pub streams: Option<StreamUse>,
}

impl StepSpec {
    /// Branches side by side.
    pub fn new(branches: Vec<BranchSpec>) -> StepSpec {
        StepSpec {
            branches,
            sum_norm: None,
            norm: None,
            scale: 1.0,
            factor: None,
            streams: None,
        }
    }
}

/// A block between two norms.
#[derive(Clone, Debug, PartialEq)]
pub struct BranchSpec {
    /// Before the block. Equal norms of a step's neighbouring branches are computed once.
    pub norm: Option<NormSpec>,
    /// What computes.
    pub block: BlockSpec,
    /// After the block.
    pub post_norm: Option<NormSpec>,
    /// Multiplies the result.
    pub scale: f32,
}

impl BranchSpec {
    /// `x += block(norm(x))`.
    pub fn new(norm: NormSpec, block: BlockSpec) -> BranchSpec {
        BranchSpec {
            norm: Some(norm),
            block,
            post_norm: None,
            scale: 1.0,
        }
    }
}

/// What mixes positions or channels in a layer.
#[derive(Clone, Debug, PartialEq)]
pub enum BlockSpec {
    /// Causal self-attention.
    Attention(Box<AttentionSpec>),
    /// Causal self-attention over latent vectors.
    LatentAttention(Box<LatentAttentionSpec>),
    /// A gated or plain feed-forward block.
    FeedForward(Box<FeedForwardSpec>),
    /// Routed experts.
    Experts(Box<ExpertsSpec>),
    /// A gated short convolution.
    ShortConvolution(Box<ShortConvolutionSpec>),
    /// A gated delta net or Mamba 2.
    Recurrence(Box<RecurrenceSpec>),
    /// Mamba 1.
    ChannelScan(Box<ChannelScanSpec>),
    /// The layer's own embedding of the token.
    LayerInput(Box<LayerInputSpec>),
    /// The input again, with a correction of low rank.
    Laurel(Box<LaurelSpec>),
}

impl From<AttentionSpec> for BlockSpec {
    fn from(spec: AttentionSpec) -> BlockSpec {
        BlockSpec::Attention(Box::new(spec))
    }
}

impl From<LatentAttentionSpec> for BlockSpec {
    fn from(spec: LatentAttentionSpec) -> BlockSpec {
        BlockSpec::LatentAttention(Box::new(spec))
    }
}

impl From<FeedForwardSpec> for BlockSpec {
    fn from(spec: FeedForwardSpec) -> BlockSpec {
        BlockSpec::FeedForward(Box::new(spec))
    }
}

impl From<ExpertsSpec> for BlockSpec {
    fn from(spec: ExpertsSpec) -> BlockSpec {
        BlockSpec::Experts(Box::new(spec))
    }
}

impl From<ShortConvolutionSpec> for BlockSpec {
    fn from(spec: ShortConvolutionSpec) -> BlockSpec {
        BlockSpec::ShortConvolution(Box::new(spec))
    }
}

impl From<LayerInputSpec> for BlockSpec {
    fn from(spec: LayerInputSpec) -> BlockSpec {
        BlockSpec::LayerInput(Box::new(spec))
    }
}

impl From<LaurelSpec> for BlockSpec {
    fn from(spec: LaurelSpec) -> BlockSpec {
        BlockSpec::Laurel(Box::new(spec))
    }
}

impl From<ChannelScanSpec> for BlockSpec {
    fn from(spec: ChannelScanSpec) -> BlockSpec {
        BlockSpec::ChannelScan(Box::new(spec))
    }
}

impl From<RecurrenceSpec> for BlockSpec {
    fn from(spec: RecurrenceSpec) -> BlockSpec {
        BlockSpec::Recurrence(Box::new(spec))
    }
}

impl LayerSpec {
    /// Branches one after another.
    pub fn sequential(branches: impl IntoIterator<Item = BranchSpec>) -> LayerSpec {
        let step = |branch| StepSpec::new(vec![branch]);
        LayerSpec {
            steps: branches.into_iter().map(step).collect(),
        }
    }

    /// Branches side by side, their results added up.
    pub fn parallel(branches: impl IntoIterator<Item = BranchSpec>) -> LayerSpec {
        LayerSpec {
            steps: vec![StepSpec::new(branches.into_iter().collect())],
        }
    }

    /// All branches, in order.
    pub fn branches_mut(&mut self) -> impl Iterator<Item = &mut BranchSpec> {
        self.steps.iter_mut().flat_map(|step| &mut step.branches)
    }

    /// The blocks of all branches, in order.
    pub fn blocks(&self) -> impl Iterator<Item = &BlockSpec> {
        let branches = self.steps.iter().flat_map(|step| &step.branches);
        branches.map(|branch| &branch.block)
    }
}

impl Architecture {
    /// Checks that sequences may be so long.
    pub(crate) fn check_positions(&self, needed: usize) -> Result<(), Error> {
        if let Some(positions) = &self.embedding.positions {
            let known = positions.rows.saturating_sub(positions.offset);
            if needed > known {
                return Err(Error::UnknownPosition { needed, known });
            }
        }
        match self.limit {
            Some(PositionLimit { positions: most, key }) if needed > most => {
                Err(Error::BeyondLimit { needed, most, key })
            }
            _ => Ok(()),
        }
    }

    /// Positions after which scales of attention change, the same in all layers that have such.
    pub(crate) fn period(&self) -> Option<usize> {
        let blocks = self.layers.iter().flat_map(LayerSpec::blocks);
        let mut tunings = blocks.filter_map(|block| match block {
            BlockSpec::Attention(attention) => attention.temperature_tuning,
            BlockSpec::LatentAttention(attention) => attention.temperature_tuning,
            _ => None,
        });
        tunings.next().map(|tuning| tuning.period)
    }

    /// Whether layers read what others left beside the hidden state: none of them runs alone.
    pub(crate) fn is_entangled(&self) -> bool {
        let mut blocks = self.layers.iter().flat_map(LayerSpec::blocks);
        let shares = |block: &BlockSpec| matches!(block, BlockSpec::Attention(spec) if spec.shares.is_some());
        self.embedding.layer_inputs.is_some() || self.embedding.streams.is_some() || blocks.any(shares)
    }

    /// Of every step, in order, the step whose states it uses: its own, or that of the layer whose keys and values it shares.
    pub(crate) fn state_steps(&self) -> Vec<usize> {
        let starts: Vec<usize> = self
            .layers
            .iter()
            .scan(0, |next, layer| {
                Some(std::mem::replace(next, *next + layer.steps.len()))
            })
            .collect();
        let of_step = |(index, step): (usize, &StepSpec)| {
            let shared = step.branches.iter().find_map(|branch| match &branch.block {
                BlockSpec::Attention(spec) => spec.shares,
                _ => None,
            });
            shared.map_or(index, |layer| starts[layer])
        };
        let steps = self.layers.iter().flat_map(|layer| &layer.steps);
        steps.enumerate().map(of_step).collect()
    }

    /// Whether any layer sees a window only.
    pub fn has_windows(&self) -> bool {
        let mut blocks = self.layers.iter().flat_map(LayerSpec::blocks);
        blocks.any(|block| matches!(block, BlockSpec::Attention(spec) if spec.window.is_some()))
    }
}
