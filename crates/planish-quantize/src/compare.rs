//! How far the weights of a packed checkpoint are from those they were made of: relative root mean square error.

use planish_checkpoint::{Checkpoint, Entry, Layout};
use planish_format::FloatType;
use planish_format::memory::or_out_of_memory;

use crate::Error;
use crate::pack::Floats;

/// Weights that are decoded at once.
const CHUNK_WEIGHTS: usize = 1 << 20;

/// The root of (sum of squared errors / sum of squared weights) over the packed weights of `packed`.
///
/// # Errors
/// A packed weight that `original` lacks or has in another shape; a tensor that cannot be read.
pub fn relative_error(original: &Checkpoint, packed: &Checkpoint) -> Result<f64, Error> {
    let mut squares = Squares::default();
    for entry in packed_entries(packed) {
        or_out_of_memory(|| compare(original, packed, entry, &mut squares))??;
    }
    Ok(squares.relative())
}

/// As [`relative_error`], of each packed weight by itself: its name and error, in the order of `packed`.
///
/// # Errors
/// As [`relative_error`].
pub fn relative_errors(original: &Checkpoint, packed: &Checkpoint) -> Result<Vec<(String, f64)>, Error> {
    let of_entry = |entry: &Entry| {
        let mut squares = Squares::default();
        or_out_of_memory(|| compare(original, packed, entry, &mut squares))??;
        Ok((entry.name.clone(), squares.relative()))
    };
    packed_entries(packed).map(of_entry).collect()
}

fn packed_entries(checkpoint: &Checkpoint) -> impl Iterator<Item = &Entry> {
    let entries = checkpoint.entries().iter();
    entries.filter(|entry| matches!(entry.layout, Layout::Packed { .. }))
}

fn compare(original: &Checkpoint, packed: &Checkpoint, entry: &Entry, squares: &mut Squares) -> Result<(), Error> {
    let source = original
        .entry(&entry.name)
        .filter(|source| source.shape == entry.shape)
        .ok_or_else(|| {
            let (path, name, shape) = (original.path().display(), &entry.name, &entry.shape);
            Error::source(format!("{path} has no weight `{name}` of shape {shape:?}"), None)
        })?;
    let (before, after) = (original.read(source)?, packed.read(entry)?);
    let before = Floats::new(&entry.name, &before, Some(FloatType::F32))?;
    let after = Floats::new(&entry.name, &after, Some(FloatType::F32))?;
    for rows in before.chunks(CHUNK_WEIGHTS) {
        squares.add(&before.rows(rows.clone()), &after.rows(rows));
    }
    original.release(source);
    packed.release(entry);
    Ok(())
}

/// Sums over weights.
#[derive(Default)]
pub(crate) struct Squares {
    error: f64,
    weight: f64,
}

impl Squares {
    /// Counts little-endian f32 weights and what they became.
    pub fn add(&mut self, before: &[u8], after: &[u8]) {
        for (before, after) in before.as_chunks::<4>().0.iter().zip(after.as_chunks::<4>().0) {
            let (before, after) = (
                f64::from(f32::from_le_bytes(*before)),
                f64::from(f32::from_le_bytes(*after)),
            );
            self.error += (before - after) * (before - after);
            self.weight += before * before;
        }
    }

    /// The root of their quotient; 0 where all weights are 0.
    pub fn relative(&self) -> f64 {
        if self.weight == 0.0 {
            0.0
        } else {
            (self.error / self.weight).sqrt()
        }
    }
}
