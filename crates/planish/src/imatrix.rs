//! llama.cpp's importance matrices, for `Method::Weighted`.

use std::path::Path;

use planish_checkpoint::Imatrix;
use planish_quantize::InputSquares;

use crate::{Error, Source};

/// What a file of llama-imatrix (GGUF, or the older .dat) tells of the inputs of a model's layers.
///
/// # Errors
/// A file that is damaged, or of another model; an architecture whose names in GGUF are not known.
pub fn read_imatrix(source: &Source, path: &Path) -> Result<InputSquares, Error> {
    let checkpoint = source.checkpoint();
    let read = Imatrix::read(path, checkpoint.config(), checkpoint.entries());
    Ok(InputSquares::from(read?))
}
