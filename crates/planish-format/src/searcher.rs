//! What searches for codes in place of the processor.

use std::error::Error;
use std::fmt::Debug;

use crate::{FloatMatrix, FloatType, PackedMatrix, Packing};

/// A device that packs by search, to the bytes of [`quantize_with`](crate::quantize_with) and [`Rule::Search`](crate::Rule::Search).
pub trait Searcher: Debug + Send + Sync {
    /// Codes, scales and biases of weights of `source`, with how much the error of each column counts, `None` where all count alike.
    /// `None` for what the device has no way to pack. Weights that are no numbers are not told from others. // importance (cols)
    ///
    /// # Errors
    /// Columns that do not hold whole groups or whole words; a failing device.
    fn search(
        &self,
        source: FloatMatrix<'_>,
        packing: Packing,
        scale_type: FloatType,
        importance: Option<&[f32]>,
    ) -> Result<Option<PackedMatrix>, Box<dyn Error + Send + Sync>>;
}
