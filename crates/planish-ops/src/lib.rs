//! The operations that language models are made of.
//!
//! One file per operation: formula, Problem with its shapes, checks, a scalar reference. [`Ops`] is the narrow waist
//! between models and devices: tensors stay on the device, launches may be asynchronous, and only [`Ops::read`] waits.

#![forbid(unsafe_code)]

mod activation;
mod add;
mod append;
mod attention;
mod channel_scan;
mod choose;
mod convolution;
mod cut;
mod embed;
mod experts;
mod heads;
mod host_weight;
mod key_values;
mod linear;
mod matrix;
mod mix;
mod norm;
mod phases;
mod places;
mod recurrence;
mod rope;
mod tap;
mod work;

use std::ops::Range;

pub use activation::{Activation, Gate, Xielu, erf, gate_reference};
pub use add::Add;
pub use append::{Append, Rotation};
pub use attention::{Alibi, AlibiRule, Attention, AttentionHead, TemperatureTuning, attention_reference};
pub use channel_scan::{ChannelRow, ChannelScan, channel_scan_reference};
pub use choose::{Adjustment, Choice, Choose, Draw, RowChoice, adjust, choose_reference};
pub use convolution::{Convolution, convolution_reference};
pub use cut::{Cut, Rescale, cut_reference, rescale_reference};
pub use embed::{Embed, Tokens};
pub use experts::{
    Base, ExpertGroups, ExpertLayer, Experts, ReferenceExpert, Route, Routing, Scoring, StackShape, expert_reference,
    route_reference,
};
pub use heads::{CopyHeads, HeadLinear, HeadPart};
pub use host_weight::{HostForm, HostWeight, PlaceError, ToPack, Use};
pub use key_values::{CacheType, KeyValueSizes, REWIND};
pub use linear::{Linear, linear_reference};
pub use matrix::{Matrix, PlainMatrix};
pub use mix::{Mix, mix_reference};
pub use norm::{Norm, NormKind, Residual, norm_reference};
pub use phases::{Phases, Spent};
pub use places::{CopyRows, Places, SequenceStore, Span, check_spans};
pub use recurrence::{
    Order, Recurrence, RecurrenceRow, RecurrenceShape, Rule, STATE_COLS, Steps, recurrence_reference,
};
pub use rope::{Rope, RopeAngles, RopePairs, rope_reference};
pub use tap::{Origin, Tap};
pub use work::{Resident, ResidentKeyValues, Work};

/// Rows that go through the layers together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PassSize {
    /// At most.
    pub rows: usize,
    /// Rows of one position each of several sequences, at most. On the CPU so many rows equal each row alone, bit for bit.
    pub batch: usize,
    /// Tokens of a prompt up to which it is computed as the tokens of answers are, where longer ones are computed otherwise, see
    /// [`Ops::read_as`].
    pub few: Option<usize>,
    /// Fewer where the tensors between the operations would take more than this together, counted as f32.
    pub bytes: usize,
}

/// Calls of [`Ops::choose`] whose tokens may be under way.
pub const MOST_CHOICES: usize = 4;

/// Something of rows and columns.
pub trait Shape {
    /// Rows; of a tensor, how many there is room for.
    fn rows(&self) -> usize;
    /// Columns.
    fn cols(&self) -> usize;
}

/// A weight or a stack on a device.
pub type Placed<T, O, W> = Result<T, PlaceError<<O as Ops>::Error, <W as HostWeight>::Error>>;

/// A device that computes the operations. Sizes are checked by the Problem; a wrong one is a programmer's mistake and
/// panics. What can fail at run time (memory, a lost device) fails in the methods that return a `Result`.
pub trait Ops: Send + Sync + Sized + 'static {
    /// Contiguous activations (rows, cols) on the device.
    type Tensor: Shape + Send + Sync;
    /// A matrix (rows, cols), packed or plain, on the device.
    type Weight: Shape + Resident + Send + Sync;
    /// Matrices of equal shape, one for each expert or head.
    type Stack: StackShape + Resident + Send + Sync;
    /// Keys and values of one layer, of all sequences.
    type KeyValues: ResidentKeyValues + SequenceStore + Send + Sync;
    /// What all layers share of the sequences (which blocks are whose), and the places of the rows of the current pass.
    type Sequences: SequenceStore + Send + Sync;
    /// Tokens that the device chose, the last of every sequence among them, on their way to who asked for them.
    type Chosen: Send + Sync;
    /// What can go wrong with the device.
    type Error: std::error::Error + Send + Sync + 'static;

    /// How many rows the device likes to compute together.
    const PASS: PassSize;
    /// Whether a method returns only when its work is done, so that a clock can tell operations apart.
    const SYNCHRONOUS: bool;

    /// Zeros, in the type that the device computes in. // (rows, cols)
    ///
    /// # Errors
    /// The device is out of memory.
    fn tensor(&self, rows: usize, cols: usize) -> Result<Self::Tensor, Self::Error>;

    /// Zeros in f32 on every device: for the results of [`Ops::rope_angles`], of [`Ops::linear`] where they are read back, and
    /// for what [`Ops::convolve`], [`Ops::recur`] and [`Ops::scan_channels`] remember. // (rows, cols)
    ///
    /// # Errors
    /// The device is out of memory.
    fn tensor_f32(&self, rows: usize, cols: usize) -> Result<Self::Tensor, Self::Error>;

    /// One row of values. // (1, values.len())
    ///
    /// # Errors
    /// The device is out of memory.
    fn vector(&self, values: &[f32]) -> Result<Self::Tensor, Self::Error>;

    /// Puts a weight where the device reads it fastest. Where that is elsewhere, nothing keeps the bytes that were given.
    ///
    /// # Errors
    /// The device is out of memory, or the weight cannot be packed.
    fn place<W: HostWeight>(&self, weight: W, use_as: Use) -> Placed<Self::Weight, Self, W>;

    /// As [`Ops::place`], for matrices of equal shape of which the device reads any.
    ///
    /// # Errors
    /// As [`Ops::place`].
    ///
    /// # Panics
    /// If there is none, or their shapes differ.
    fn place_stack<W: HostWeight>(&self, weights: Vec<W>) -> Placed<Self::Stack, Self, W>;

    /// Tells who listens to products where a weight comes from. A device to which nobody listens asks for no origin.
    fn name(&self, _weight: &Self::Weight, _origin: &dyn Fn() -> Option<Origin>) {}

    /// As [`Ops::name`], for the matrices of a stack, in their order.
    fn name_stack(&self, _stack: &Self::Stack, _origins: &dyn Fn() -> Option<Vec<Origin>>) {}

    /// No sequence yet.
    ///
    /// # Errors
    /// The device is out of memory.
    fn sequences(&self) -> Result<Self::Sequences, Self::Error>;

    /// Begins a pass: makes room for the positions of its rows, in blocks that no other sequence sees, and tells the device where
    /// the rows stand. Positions of a sequence from its span on are forgotten.
    ///
    /// # Errors
    /// The device is out of memory.
    fn begin_pass(&self, spans: &[Span], sequences: &mut Self::Sequences) -> Result<(), Self::Error>;

    /// Says what the rows are that follow: of a prompt of so many tokens, or of answers (1), or of neither (0). Where a device rounds by
    /// the number of rows, it rounds by the larger of this and the rows of the operation, so that a prompt gives the same however it is
    /// cut into pieces. GPUs take no notice.
    fn read_as(&self, _tokens: usize) {}

    /// Whether a token is computed alike in prompts of so many tokens each.
    fn reads_alike(&self, _left: usize, _right: usize) -> bool {
        true
    }

    /// The pass that began last has failed: its sequences have the blocks again that they had before.
    fn abandon_pass(&self, _sequences: &mut Self::Sequences) {}

    /// An empty cache of one layer, for all sequences.
    ///
    /// # Errors
    /// The device is out of memory.
    fn key_values(&self, sizes: KeyValueSizes) -> Result<Self::KeyValues, Self::Error>;

    /// Waits for everything launched and returns rows of a tensor, in `staging` if they must be copied.
    ///
    /// # Errors
    /// The device was lost or a launch failed.
    fn read<'a>(
        &self,
        tensor: &'a Self::Tensor,
        rows: Range<usize>,
        staging: &'a mut Vec<f32>,
    ) -> Result<&'a [f32], Self::Error>;

    /// Fills in the first rows of a tensor. // (rows, cols)
    ///
    /// # Errors
    /// The device was lost.
    ///
    /// # Panics
    /// If there are more values than the tensor has.
    fn write(&self, tensor: &mut Self::Tensor, values: &[f32]) -> Result<(), Self::Error>;

    /// A place for tokens that the device chooses.
    ///
    /// # Errors
    /// The device is out of memory.
    fn chosen(&self) -> Result<Self::Chosen, Self::Error>;

    /// Chooses the token of every row by its logits.
    ///
    /// # Errors
    /// The device is out of memory.
    ///
    /// # Panics
    /// If the tokens of [`MOST_CHOICES`] earlier calls were not taken yet.
    fn choose(&self, problem: Choose<'_, Self>) -> Result<(), Self::Error>;

    /// Waits for the tokens of the first [`Ops::choose`] that were not taken yet, and for nothing launched after it. `None` is a
    /// token of logits none of which is finite. // (rows)
    ///
    /// # Errors
    /// The device was lost or a launch failed.
    ///
    /// # Panics
    /// If all were taken.
    fn take(&self, chosen: &mut Self::Chosen, tokens: &mut Vec<Option<u32>>) -> Result<(), Self::Error>;

    /// Lets the device begin what was launched, and waits for nothing.
    ///
    /// # Errors
    /// The device was lost or a launch failed.
    fn flush(&self) -> Result<(), Self::Error> {
        Ok(())
    }

    /// Begins to measure where time goes, from zero, or stops. A device whose launches go on by themselves measures nothing.
    fn measure(&self, _on: bool) {}

    /// Where time went since measuring began.
    fn phases(&self) -> Phases {
        Phases::default()
    }

    /// Bytes of device memory in use; `None` where it is the processor's.
    fn used_bytes(&self) -> Option<u64>;

    /// Bytes of the device's memory that are free; `None` where it does not tell.
    fn free_bytes(&self) -> Option<u64>;

    /// Rows of an embedding table.
    fn embed(&self, problem: Embed<'_, Self>);

    /// RMS or layer norm, with the residual added first where there is one.
    fn norm(&self, problem: Norm<'_, Self>);

    /// Adds a tensor to another.
    fn add(&self, problem: Add<'_, Self>);

    /// Weighted sums of parts of rows.
    fn mix(&self, problem: Mix<'_, Self>);

    /// Takes off rows what is below a number of standard deviations.
    fn cut(&self, problem: Cut<'_, Self>);

    /// Brings rows to the magnitude of others.
    fn rescale(&self, problem: Rescale<'_, Self>);

    /// Linear layers that share one input.
    fn linear(&self, problem: Linear<'_, '_, Self>);

    /// Cosines and sines for [`Ops::rope`].
    fn rope_angles(&self, problem: RopeAngles<'_, Self>);

    /// Rotary position embedding, in place.
    fn rope(&self, problem: Rope<'_, Self>);

    /// Stores keys and values, rotated where that is asked for.
    ///
    /// # Errors
    /// The device is out of memory.
    fn append(&self, problem: Append<'_, Self>) -> Result<(), Self::Error>;

    /// Causal attention over stored keys and values.
    fn attention(&self, problem: Attention<'_, Self>);

    /// Activation, multiplied by a second tensor where there is one.
    fn gate(&self, problem: Gate<'_, Self>);

    /// Causal convolution of every channel.
    fn convolve(&self, problem: Convolution<'_, Self>);

    /// Linear recurrence of every head.
    fn recur(&self, problem: Recurrence<'_, Self>);

    /// A state of its own for every channel.
    fn scan_channels(&self, problem: ChannelScan<'_, Self>);

    /// Rows through the experts that a router chooses for them.
    fn experts(&self, problem: Experts<'_, Self>);

    /// A matrix for each head.
    fn head_linear(&self, problem: HeadLinear<'_, Self>);

    /// Copies rows, without a change.
    fn copy_rows(&self, problem: CopyRows<'_, Self>);

    /// Copies parts of heads.
    fn copy_heads(&self, problem: CopyHeads<'_, Self>);
}
