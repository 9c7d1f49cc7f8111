//! GPU kernels: their text, and for each a problem struct that makes its [`Launch`].
//!
//! The text is in the Metal Shading Language (`text/*/*.metal`); `text/README.md` is the contract with the hosts that run it.

mod activation;
mod adjust;
mod argmax;
mod arrange;
mod attention;
mod attention_tiles;
mod attention_variants;
mod choose;
mod elementwise;
mod experts;
mod heads;
mod matmul;
mod matvec;
mod norm;
mod places;
mod product;
mod program;
mod quantize;
mod read;
mod rope;
mod route;
mod rows;
mod search;
mod stack;
mod stack_tensor;
mod stack_variants;
mod states;
mod tensor;
mod tensor_attention;
mod tensor_narrow;
mod tensor_wide;
mod tiles;
mod warpgroup;
mod weights;

pub use adjust::Adjust;
pub use argmax::{Argmax, NO_TOKEN};
pub use arrange::Arrange;
pub use attention::Attention;
pub use attention_variants::{
    ATTENTION_VARIANTS, AttentionBuffer, AttentionPlan, AttentionStep, AttentionVariant, LEAST_TILE_ROWS,
};
pub use choose::{Choose, SETTING_WORDS, Search, settings_of};
pub use elementwise::{Add, Gate};
pub use experts::{ExpertsInner, ExpertsOuter, SumBase};
pub use heads::{CopyHeads, HeadMatvec, TransposeHeads};
pub use matmul::Matmul;
pub use matvec::{Matvec, Repeat};
pub use norm::Norm;
pub use places::{BLOCK, CopyBlocks, MOST_WORDS, PLACE_WORDS, PlaceRows, WriteWords, give_back};
pub use planish_gpu::{Features, KernelLanguage};
pub use product::{PRODUCT_VARIANTS, Product, ProductBuffer, ProductPlan, ProductStep, ProductVariant};
pub use program::{Constants, Defines, File, Launch, Program, RunsOn, value_number};
use program::{constants_of, kernel_file};
pub use quantize::{NonFinite, Quantize};
pub use read::Read;
pub use rope::{Rope, RopeAndAppend, RopeAngles};
pub use route::Route;
pub use rows::Rows;
pub use search::SearchGroups;
pub use stack::{StackMatmul, StackRouting};
pub use stack_tensor::StackTensor;
pub use stack_variants::{STACK_VARIANTS, StackBuffer, StackProduct, StackVariant};
pub use states::{Convolve, Recur};
pub use tensor::TensorMatmul;
pub use tiles::TensorWeight;
pub use warpgroup::WarpgroupMatmul;
pub use weights::WeightKind;
