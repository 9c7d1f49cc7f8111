//! Codes of an entry of a checkpoint, part by part, and codes that were chosen before a conversion.

use std::fmt::Debug;

use planish_checkpoint::{Checkpoint, Entry};
use planish_format::{FloatMatrix, FloatType, PackedMatrix, Packing, first_non_finite, memory};

use super::{Basis, Calibrated};
use crate::pack::Floats;
use crate::{Error, Method, Recipe, UnseenParts};

/// Codes, scales and biases of entries, chosen before a conversion writes them.
pub trait ChosenCodes: Debug + Send + Sync {
    /// What a card says of how they were chosen.
    fn description(&self) -> String;
    /// Of all of them.
    fn checksum(&self) -> String;
    /// What else the user should know.
    fn notes(&self) -> Vec<String>;
    /// The parts of an entry whose codes had to be searched for without inputs.
    fn unseen(&self, entry: &str) -> UnseenParts;
    /// All rows of an entry, as they are stored; `None` where nothing was chosen.
    ///
    /// # Errors
    /// They cannot be read.
    fn of(&self, entry: &str) -> Result<Option<PackedMatrix>, Error>;
}

/// One part of an entry.
#[derive(Clone, Debug)]
pub struct PartCodes {
    /// As the search finds them, without inputs.
    pub searched: PackedMatrix,
    /// By the inputs, where these tell something and the weights are numbers.
    pub calibrated: Option<Calibrated>,
}

/// Packs part `part` of `parts` equal runs of an entry's rows, by search and by the inputs that go into it.
///
/// # Errors
/// As [`crate::pack_weight`]; an entry that cannot be read.
pub fn calibrate_part(
    checkpoint: &Checkpoint,
    entry: &Entry,
    (part, parts): (usize, usize),
    (packing, scale_type): (Packing, FloatType),
    (recipe, clamp): (&Recipe, bool),
    basis: Option<&dyn Basis>,
) -> Result<PartCodes, Error> {
    let recipe = Recipe {
        method: Method::Search,
        ..recipe.clone()
    };
    let weight = checkpoint.read(entry)?;
    let floats = Floats::new(&entry.name, &weight, Some(scale_type))?.clamped(clamp);
    let part_rows = floats.rows / parts.max(1);
    let rows = part * part_rows..(part + 1) * part_rows;
    let columns = floats.told_by_columns_of(rows.clone(), || ());
    let searched = floats.pack(rows.clone(), packing, &recipe, Some(&columns))?;
    let values = match clamp {
        true => floats.narrowed(rows.clone())?,
        false => floats.rows(rows.clone()),
    };
    let matrix = FloatMatrix::new(rows.len(), floats.cols, scale_type, &values);
    let is_finite = matrix.is_ok_and(|matrix| first_non_finite(matrix).is_none());
    let fits = |basis: &&dyn Basis| is_finite && basis.cols() == floats.cols && basis.group() == packing.group();
    let calibrated = match basis.filter(fits) {
        Some(basis) => {
            let mut weights = memory::filled("weights", rows.len() * floats.cols, 0.0);
            scale_type.decode(&values, &mut weights);
            drop(values);
            Some(basis.calibrate(&weights, &searched)?)
        }
        None => None,
    };
    checkpoint.release(entry);
    Ok(PartCodes { searched, calibrated })
}
