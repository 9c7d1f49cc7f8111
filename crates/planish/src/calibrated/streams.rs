//! Hidden states between layers: of the plain model, of the model packed so far and, of held-out pieces, of the model packed by search.

use std::collections::HashMap;

use planish_format::PackedMatrix;
use planish_model::{LayerRunner, LoadedLayer};

use crate::Error;
use crate::evaluate::{divergence, log_sum_exp};

use super::writing::Text;

/// Hidden states of all pieces before a layer. // (tokens, hidden) each
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Streams {
    /// The layer that is next.
    pub layer: usize,
    /// Of the plain model: pieces, then those held out.
    pub plain: Vec<Vec<f32>>,
    /// Of the calibrated one, likewise.
    pub calibrated: Vec<Vec<f32>>,
    /// Of the searched one, of the pieces held out.
    pub searched: Vec<Vec<f32>>,
}

impl Streams {
    /// Before the first layer, some entries being packed in what stands before it.
    pub fn begin(
        runner: &LayerRunner<'_>,
        text: &Text,
        packed: &HashMap<String, PackedMatrix>,
    ) -> Result<Streams, Error> {
        let pieces = [&text.pieces[..], &text.held_out].concat();
        let plain = runner.embed(&pieces, &HashMap::new())?;
        let calibrated = match packed.is_empty() {
            true => plain.clone(),
            false => runner.embed(&pieces, packed)?,
        };
        Ok(Streams {
            layer: 0,
            searched: calibrated[text.pieces.len()..].to_vec(),
            calibrated,
            plain,
        })
    }

    /// Pieces that layers are packed by.
    pub fn pieces(&self) -> usize {
        self.plain.len() - self.searched.len()
    }

    /// Takes all through a layer as the plain, the calibrated and the searched model have it; `known` are the first of what the plain
    /// one gives.
    pub fn advance(
        &mut self,
        runner: &LayerRunner<'_>,
        known: Vec<Vec<f32>>,
        layers: [&mut LoadedLayer; 3],
    ) -> Result<(), Error> {
        let done = known.len();
        self.plain.splice(..done, known);
        let streams = [&mut self.plain[done..], &mut self.calibrated, &mut self.searched];
        for (stream, layer) in streams.into_iter().zip(layers) {
            for hidden in stream {
                *hidden = runner.run(layer, hidden, &|_| false)?.0;
            }
        }
        Ok(())
    }

    /// What the held-out pieces say; `None` where there are none.
    pub fn divergences(&self, runner: &LayerRunner<'_>) -> Result<Option<Divergences>, Error> {
        let cols = runner.architecture().hidden;
        let held_out = self.pieces()..self.plain.len();
        let mut rows = Vec::new();
        for (piece, searched) in held_out.zip(&self.searched) {
            let [plain, calibrated] = [&self.plain[piece], &self.calibrated[piece]];
            // The second half, as `planish evaluate` scores it.
            let first = plain.len() / cols / 2 * cols;
            let of_piece = plain
                .chunks_exact(cols)
                .zip(searched.chunks_exact(cols))
                .zip(calibrated.chunks_exact(cols));
            for ((plain, searched), calibrated) in of_piece.skip(first / cols) {
                rows.extend([plain, searched, calibrated].concat());
            }
        }
        let tokens = rows.len() / (3 * cols);
        if tokens == 0 {
            return Ok(None);
        }
        let mut expected: (Vec<f32>, f64) = Default::default();
        let mut sums = [0.0; 2];
        runner.logits(&rows, &mut |row, logits| match row % 3 {
            0 => expected = (logits.to_vec(), log_sum_exp(logits)),
            stream => sums[stream - 1] += divergence(&expected.0, expected.1, logits, log_sum_exp(logits)),
        })?;
        let [searched, calibrated] = sums.map(|sum| sum / tokens as f64);
        Ok(Some(Divergences {
            tokens,
            searched,
            calibrated,
        }))
    }
}

/// Means over held-out tokens, in nats, from the plain model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Divergences {
    pub tokens: usize,
    pub searched: f64,
    pub calibrated: f64,
}
