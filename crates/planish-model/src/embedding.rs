//! From tokens to hidden states: `norm(widen(scale * table[token]) + positions[position])`.

use planish_ops::{Embed, Linear, Ops, Tokens};

use crate::blocks::{LinearLayer, Loader, NormLayer};
use crate::step::{Pending, Stream};
use crate::{Architecture, EmbeddingSpec, Error, LinearSpec};

/// The token table and what stands around it.
pub(crate) struct Embedding<O: Ops> {
    table: O::Weight, // (vocabulary, hidden), or as many columns as `narrow` says
    scale: f32,
    narrow: Option<(LinearLayer<O>, LinearLayer<O>)>, // widen, narrow
    positions: Option<(O::Weight, usize)>,            // (rows, hidden), row of position 0
    norm: Option<NormLayer<O>>,
}

impl<O: Ops> Embedding<O> {
    pub(crate) fn load(loader: &Loader<'_, O>, architecture: &Architecture) -> Result<Embedding<O>, Error> {
        let EmbeddingSpec {
            name,
            scale,
            narrow,
            positions,
            norm,
        } = &architecture.embedding;
        let table = |name: &String, rows, cols| loader.table(&LinearSpec::new(name, rows, cols));
        let cols = narrow.as_ref().map_or(architecture.hidden, |table| table.widen.cols);
        Ok(Embedding {
            table: table(name, architecture.vocabulary, cols)?,
            scale: *scale,
            narrow: match narrow {
                Some(layers) => Some((loader.linear(&layers.widen)?, loader.linear(&layers.narrow)?)),
                None => None,
            },
            positions: match positions {
                Some(positions) => Some((
                    table(&positions.name, positions.rows, architecture.hidden)?,
                    positions.offset,
                )),
                None => None,
            },
            norm: loader.optional_norm(norm)?,
        })
    }

    /// The token table, where it serves as head.
    pub(crate) fn table(&self) -> &O::Weight {
        &self.table
    }

    /// Fills `hidden`; positions may be pending.
    pub(crate) fn run(&self, stream: &mut Stream<'_, O>, tokens: Tokens<'_, O>) {
        let (ops, rows) = (stream.ops, stream.rows);
        let workspace = &mut *stream.workspace;
        let embed = |output| {
            ops.embed(Embed {
                table: &self.table,
                tokens,
                scale: self.scale,
                output,
            });
        };
        match (&self.narrow, &mut workspace.narrow) {
            (Some((widen, _)), Some(narrow)) => {
                embed(narrow);
                apply(ops, rows, widen, narrow, &mut workspace.hidden);
            }
            _ => embed(&mut workspace.hidden),
        }
        if let Some((table, offset)) = &self.positions {
            let (places, offset) = (stream.places, *offset);
            ops.embed(Embed {
                table,
                tokens: Tokens::Positions { places, offset },
                scale: 1.0,
                output: &mut workspace.deltas[0],
            });
            stream.pending = Some(Pending::FIRST);
        }
        if let Some(norm) = &self.norm {
            stream.normalize_hidden(norm);
        }
    }

    /// What the head reads, in `output` where the table is narrow. // (rows, hidden) to (rows, narrow)
    pub(crate) fn narrow<'a>(
        &self,
        ops: &O,
        rows: usize,
        normed: &'a O::Tensor,
        output: &'a mut O::Tensor,
    ) -> &'a O::Tensor {
        let Some((_, narrow)) = &self.narrow else {
            return normed;
        };
        apply(ops, rows, narrow, normed, output);
        output
    }
}

fn apply<O: Ops>(ops: &O, rows: usize, layer: &LinearLayer<O>, input: &O::Tensor, output: &mut O::Tensor) {
    ops.linear(Linear {
        rows,
        input,
        weights: &[&layer.weight],
        biases: &[layer.bias.as_ref()],
        outputs: &mut [output],
    });
}
