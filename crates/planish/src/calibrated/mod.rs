//! `Method::Chosen` by the inputs of layers: the model goes over a text one layer at a time, each layer is packed for little error of
//! its outputs on what really goes into it, and what comes out of the packed layer goes into the next.
//!
//! Two streams of hidden states go through the model: of the model as it was, and of the model as it is packed so far. A layer is
//! packed in stages, in the order in which its products are computed: the inputs of a stage come from the layer with all earlier
//! stages packed. Held at a time are the hidden states of both streams, one layer twice and the sums of products of one stage's
//! inputs; codes go to a file for each layer. Held-out pieces go along, also through the model packed by search: at the end the
//! divergences of both from the model as it was decide which codes are kept.

mod layer;
mod outcome;
mod store;
mod streams;
mod writing;

use std::collections::HashMap;
use std::sync::Arc;

use planish_checkpoint::Checksum;
use planish_format::PackedMatrix;
use planish_format::memory::or_out_of_memory;
use planish_model::LayerRunner;
use planish_quantize::{
    Calibrator, Method, OnProcessor, OnProgress, Output, Recipe, Report, calibrate_part, packed_entries,
};

use crate::convert::{check_stop, from};
use crate::{CalibrationText, Device, Error, Source};

use layer::LayerJob;
use outcome::{Outcome, Verdict};
use store::{LayerFile, Store};
use streams::Streams;
use writing::Text;

pub(crate) use store::is_unfinished;

/// Pieces of the text that only judge.
const HELD_OUT: usize = 2;

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum CalibratedProgress {
    /// Tokens of the text that the model writes: how many there are, of how many about.
    Writing(usize, usize),
    /// Weights that are packed, of how many.
    Packing(u64, u64),
}

/// How to pack by the inputs of layers; by default by what the model writes.
#[derive(Clone, Debug, Default)]
pub struct CalibratedOptions {
    /// What the model runs over.
    pub text: CalibrationText,
    /// Threads of the processor; `None` is one per physical core.
    pub threads: Option<usize>,
    /// What adds up and chooses codes in place of the processor; sums have another order there, so that single codes may differ.
    pub calibrator: Option<Arc<dyn Calibrator>>,
    /// Where layers run: [`Device::Cuda`], or the processor.
    pub device: Device,
}

/// Packs a plain model as `recipe` says, but for its method: by search, improved by the inputs of layers where that brings the
/// model closer to what it was on text that was held out.
///
/// # Errors
/// As [`crate::quantize`]; a model that cannot be run; a text that is too short.
pub fn quantize_calibrated(
    source: &Source,
    recipe: &Recipe,
    options: &CalibratedOptions,
    output: &Output,
    on_calibration: &mut dyn FnMut(CalibratedProgress),
    on_progress: &mut OnProgress,
) -> Result<Report, Error> {
    or_out_of_memory(|| run(source, recipe, options, output, on_calibration, on_progress))?
}

fn run(
    source: &Source,
    recipe: &Recipe,
    options: &CalibratedOptions,
    output: &Output,
    on_calibration: &mut dyn FnMut(CalibratedProgress),
    on_progress: &mut OnProgress,
) -> Result<Report, Error> {
    let recipe = Recipe {
        method: Method::Search,
        ..recipe.clone()
    };
    let output = &from(source, output);
    planish_checkpoint::Writer::check_target(&output.folder, output.force)?;
    let packed = packed_entries(source.checkpoint(), &recipe)?.into_iter();
    let named = packed.map(|(index, pack_as)| (source.checkpoint().entries()[index].name.clone(), pack_as));
    let store = Store::open(output, identity(source, &recipe, options, output)?)?;
    let text = match store.text()? {
        Some(text) => text,
        None => {
            let text = Text::of(source, options, output, on_calibration)?;
            store.keep_text(&text)?;
            text
        }
    };
    let mut run = Run {
        source,
        recipe: &recipe,
        output,
        runner: LayerRunner::new(source.checkpoint(), options.threads, options.device)?,
        calibrator: options.calibrator.as_deref().unwrap_or(&OnProcessor),
        packed: named.collect(),
        store,
        text,
    };
    let verdict = run.layers(on_calibration)?;
    let layers = run.runner.architecture().layers.len();
    let codes = run.store.into_codes(layers, verdict)?;
    let codes = Arc::new(codes);
    let method = Method::Chosen(codes.clone());
    let chosen = Recipe {
        method,
        ..recipe.clone()
    };
    let report = planish_quantize::quantize(source.checkpoint(), &chosen, output, on_progress)?;
    drop(chosen);
    if let Some(codes) = Arc::into_inner(codes) {
        codes.done();
    }
    Ok(report)
}

/// Everything that codes depend on.
fn identity(
    source: &Source,
    recipe: &Recipe,
    options: &CalibratedOptions,
    output: &Output,
) -> Result<planish_checkpoint::Run, Error> {
    let mut identity = source.checkpoint().identity()?;
    identity.extend(recipe.identity());
    identity.push(("clamping".to_owned(), output.clamp.to_string()));
    let text = match &options.text {
        CalibrationText::OwnWriting { seed, tokens, longest } => format!("{tokens} from seed {seed} by {longest}"),
        CalibrationText::Pieces { pieces, .. } => {
            let mut sum = Checksum::default();
            for token in pieces.iter().flatten() {
                sum.update(&token.to_le_bytes());
            }
            format!("{} pieces, {:016x}", pieces.len(), sum.value())
        }
    };
    identity.push(("the calibration text".to_owned(), text));
    if let Some(calibrator) = &options.calibrator {
        identity.push(("what calibrates".to_owned(), calibrator.name()));
    }
    identity.push((
        "the version of planish".to_owned(),
        env!("CARGO_PKG_VERSION").to_owned(),
    ));
    Ok(identity)
}

/// A run over all layers.
struct Run<'a> {
    source: &'a Source,
    recipe: &'a Recipe,
    output: &'a Output,
    runner: LayerRunner<'a>,
    calibrator: &'a dyn Calibrator,
    packed: HashMap<String, layer::PackAs>,
    store: Store,
    text: Text,
}

impl Run<'_> {
    fn layers(&mut self, on_calibration: &mut dyn FnMut(CalibratedProgress)) -> Result<Verdict, Error> {
        let layers = self.runner.architecture().layers.len();
        let checkpoint = self.source.checkpoint();
        let entries = checkpoint
            .entries()
            .iter()
            .filter(|entry| self.packed.contains_key(&entry.name));
        let total = entries.map(planish_checkpoint::Entry::element_count).sum();
        let mut streams = match self.store.streams(&self.text)? {
            Some(streams) => streams,
            None => Streams::begin(&self.runner, &self.text, &self.embedding()?)?,
        };
        let mut outcomes = self.store.outcomes(streams.layer)?;
        let mut done = outcomes.iter().map(|outcome| outcome.weights).sum();
        on_calibration(CalibratedProgress::Packing(done, total));
        while streams.layer < layers {
            let job = LayerJob {
                checkpoint,
                recipe: self.recipe,
                clamp: self.output.clamp,
                runner: &self.runner,
                calibrator: self.calibrator,
                packed: &self.packed,
                stop: &|| check_stop(self.output),
            };
            let mut step = |weights: u64| {
                done += weights;
                on_calibration(CalibratedProgress::Packing(done.min(total), total));
            };
            let packed = job.run(&mut streams, &mut step)?;
            let file = LayerFile {
                outcomes: packed.outcomes.clone(),
                kept: packed.calibrated,
            };
            self.store.keep_layer(streams.layer, &file)?;
            outcomes.extend(packed.outcomes);
            streams.layer += 1;
            self.store.keep_streams(&streams, self.runner.architecture().hidden)?;
        }
        self.verdict(&streams, &outcomes)
    }

    /// The token table, where it is packed: its inputs are no sums of products, so it is searched for.
    fn embedding(&self) -> Result<HashMap<String, PackedMatrix>, Error> {
        let checkpoint = self.source.checkpoint();
        let Some(name) = self.runner.table() else {
            return Ok(HashMap::new());
        };
        let packed = self.packed.get(&name).zip(checkpoint.entry(&name));
        let search = |(pack_as, entry): (&layer::PackAs, _)| {
            let recipe = (self.recipe, self.output.clamp);
            let codes = calibrate_part(checkpoint, entry, (0, 1), *pack_as, recipe, None)?;
            Ok((name.clone(), codes.searched))
        };
        packed.map(search).into_iter().collect()
    }

    /// Which codes bring the model closer to what it was.
    fn verdict(&self, streams: &Streams, outcomes: &[Outcome]) -> Result<Verdict, Error> {
        let mut notes: Vec<String> = outcome::gain(outcomes).into_iter().collect();
        let text = &self.text.description;
        let calibrated = format!("error feedback, refit and sweep by the layers' inputs, over {text}");
        let Some(found) = streams.divergences(&self.runner)? else {
            notes.push("the text was too short to hold some of it out: nothing says whether it helped".to_owned());
            return Ok(Verdict {
                used: true,
                description: calibrated,
                notes,
                unseen: outcome::unseen(outcomes),
            });
        };
        let used = found.calibrated < found.searched;
        let kept = if used {
            "the calibrated codes are kept"
        } else {
            "the searched codes are kept"
        };
        notes.push(format!(
            "on {} held-out tokens the mean divergence from the plain model is {:.4} calibrated and {:.4} searched: {kept}",
            found.tokens, found.calibrated, found.searched
        ));
        Ok(Verdict {
            used,
            description: match used {
                true => calibrated,
                false => format!(
                    "{} (calibration over {text} did not help)",
                    Method::Search.description()
                ),
            },
            notes,
            unseen: outcome::unseen(outcomes),
        })
    }
}
