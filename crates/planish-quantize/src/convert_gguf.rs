//! A checkpoint to one GGUF file: packed codes are moved where llama.cpp has blocks for them.

use planish_checkpoint::{Checkpoint, Entry, write_gguf};

use crate::report::Report;
use crate::transfer::{OnProgress, Output, Progress};
use crate::{Error, Remedy};

/// Writes `checkpoint` to the file `output.folder`. Codes of 2 to 5 bits in groups of a multiple of 32, and centred ones of 8, are
/// moved; other packed weights become half-precision floats, which the report says; plain ones keep their type.
///
/// # Errors
/// A model, tokenizer or tensor that is not written to GGUF; a file that exists or cannot be written.
pub fn convert_to_gguf(
    checkpoint: &Checkpoint,
    output: &Output,
    on_progress: &mut OnProgress,
) -> Result<Report, Error> {
    if output.resume {
        return Err(Error::inexpressible(
            "a GGUF file is written in one go: nothing is left to resume",
            None::<Remedy>,
        ));
    }
    if checkpoint.is_in(&output.folder) {
        return Err(Error::OutputIsSource {
            folder: output.folder.clone(),
        });
    }
    let source_bytes = checkpoint.entries().iter().map(|entry| entry.stored_bytes).sum();
    let mut done_bytes = 0;
    let mut on_tensor = |entry: &Entry| {
        done_bytes += entry.stored_bytes;
        on_progress(Progress {
            tensor: &entry.name,
            done_bytes,
            total_bytes: source_bytes,
        });
        !output.is_stopped()
    };
    let written = write_gguf(checkpoint, &output.folder, output.force, &mut on_tensor)?;
    let written = written.ok_or_else(|| Error::Stopped {
        folder: output.folder.clone(),
    })?;
    Ok(Report {
        packed: written.packed,
        plain: written.unpacked,
        unseen: Vec::new(),
        notes: written.notes,
        source_bytes,
        output_bytes: written.bytes,
        weights: checkpoint.entries().iter().map(Entry::element_count).sum(),
    })
}
