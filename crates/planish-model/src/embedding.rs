//! From tokens to hidden states: `norm(project_in(scale * table[token]) + positions[position])`.

use planish_format::memory;
use planish_ops::{Add, Embed, Ops, Tokens};

use crate::blocks::{LinearLayer, Loader, NormLayer};
use crate::step::{Pending, Stream};
use crate::streams::StreamEnds;
use crate::workspace::Workspace;
use crate::{Architecture, EmbeddingSpec, Error, LinearSpec, PositionTable};

/// The token table and what stands around it.
pub(crate) struct Embedding<O: Ops> {
    table: O::Weight, // (vocabulary, hidden), or fewer columns where factorized
    scale: f32,
    factorized: Option<(LinearLayer<O>, LinearLayer<O>)>, // project_in, project_out
    positions: Option<(O::Weight, usize)>,                // (rows, hidden), row of position 0
    norm: Option<NormLayer<O>>,
    layer_inputs: Option<LayerInputs<O>>,
    streams: Option<StreamEnds<O>>,
}

/// What layers are given beside the hidden state.
struct LayerInputs<O: Ops> {
    table: O::Weight, // (rows, layers * width)
    scale: f32,
    projection: LinearLayer<O>, // (layers * width, hidden)
    norm: NormLayer<O>,
}

impl<O: Ops> Embedding<O> {
    pub(crate) fn load(loader: &Loader<'_, O>, architecture: &Architecture) -> Result<Embedding<O>, Error> {
        let EmbeddingSpec {
            name,
            scale,
            factorized,
            positions,
            norm,
            layer_inputs,
            streams,
        } = &architecture.embedding;
        let table = |name: &String, rows, cols| loader.table(&LinearSpec::new(name, rows, cols));
        let cols = factorized
            .as_ref()
            .map_or(architecture.hidden, |layers| layers.project_in.cols);
        Ok(Embedding {
            table: table(name, architecture.vocabulary, cols)?,
            scale: *scale,
            factorized: match factorized {
                Some(layers) => Some((
                    loader.merged_linear(&layers.project_in)?,
                    loader.merged_linear(&layers.project_out)?,
                )),
                None => None,
            },
            positions: match positions {
                Some(positions) => Some((
                    match positions.sinusoids {
                        Some(spread) => {
                            loader.made_table(architecture.hidden, sinusoids(positions, architecture.hidden, spread))?
                        }
                        None => table(&positions.name, positions.rows, architecture.hidden)?,
                    },
                    positions.offset,
                )),
                None => None,
            },
            norm: loader.optional_norm(norm)?,
            layer_inputs: match layer_inputs {
                Some(spec) => Some(LayerInputs {
                    table: table(&spec.table, spec.rows, spec.layers * spec.width)?,
                    scale: spec.scale,
                    projection: loader.merged_linear(&spec.projection)?,
                    norm: loader.norm(&spec.norm)?,
                }),
                None => None,
            },
            streams: match streams {
                Some(spec) => Some(StreamEnds::load(loader, spec)?),
                None => None,
            },
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
        match (&self.factorized, &mut workspace.embedded) {
            (Some((project_in, _)), Some(embedded)) => {
                embed(embedded);
                project_in.apply(ops, rows, embedded, &mut workspace.hidden);
            }
            _ => embed(&mut workspace.hidden),
        }
        self.run_layer_inputs((ops, rows), workspace, tokens);
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
        if let Some(streams) = &self.streams {
            streams.begin(stream);
        }
    }

    /// Ends what [`Embedding::run`] began: after all steps `hidden` is what the final norm reads.
    pub(crate) fn end(&self, stream: &mut Stream<'_, O>) {
        if let Some(streams) = &self.streams {
            streams.end(stream);
        }
    }

    /// What layers are given beside the hidden state, from embedded tokens.
    fn run_layer_inputs(&self, (ops, rows): (&O, usize), workspace: &mut Workspace<O>, tokens: Tokens<'_, O>) {
        let Workspace {
            hidden, layer_inputs, ..
        } = workspace;
        let (Some(inputs), Some([sum, term])) = (&self.layer_inputs, layer_inputs) else {
            return;
        };
        inputs.projection.apply(ops, rows, hidden, sum);
        ops.norm(inputs.norm.of(0..rows, sum));
        ops.embed(Embed {
            table: &inputs.table,
            tokens,
            scale: inputs.scale,
            output: &mut *term,
        });
        ops.add(Add {
            rows,
            target: sum,
            source: term,
            factor: 1.0,
        });
    }

    /// What the head reads, in `output` where the table is factorized. // (rows, hidden) to (rows, cols of the table)
    pub(crate) fn project_out<'a>(
        &self,
        ops: &O,
        rows: usize,
        normed: &'a O::Tensor,
        output: &'a mut O::Tensor,
    ) -> &'a O::Tensor {
        let Some((_, project_out)) = &self.factorized else {
            return normed;
        };
        project_out.apply(ops, rows, normed, output);
        output
    }
}

/// Of every row the sines, then the cosines. // (rows, hidden)
fn sinusoids(positions: &PositionTable, hidden: usize, spread: usize) -> Vec<f32> {
    let half = hidden / 2;
    let frequency = |index: usize| (-(10_000f64.ln()) * index as f64 / spread as f64).exp() as f32;
    let frequencies: Vec<f32> = (0..half).map(frequency).collect();
    let mut values = memory::filled("positions", positions.rows * hidden, 0.0);
    for (row, values) in values.chunks_exact_mut(hidden).enumerate() {
        let (sines, cosines) = values.split_at_mut(half);
        for ((sine, cosine), frequency) in sines.iter_mut().zip(cosines).zip(&frequencies) {
            (*sine, *cosine) = (row as f32 * frequency).sin_cos();
        }
    }
    values
}
