//! One weight to codes, scales and biases.

use planish_checkpoint::Weight;
use planish_format::{PackedMatrix, Packing};

use crate::{Error, Recipe};

/// Packs the weight called `name` with `packing`, the rule and the types that `recipe` asks for. A plain weight of more than
/// two dimensions counts as the matrix of all its rows; a packed one (from a GGUF file) is decoded first.
///
/// # Errors
/// NaN or infinity unless the recipe allows them; a shape or type that cannot be packed.
pub fn pack_weight(name: &str, weight: &Weight, packing: Packing, recipe: &Recipe) -> Result<PackedMatrix, Error> {
    let _ = (weight, packing, recipe);
    Err(Error::Weight {
        tensor: name.to_owned(),
        what: "packing is not there yet".to_owned(),
    })
}
