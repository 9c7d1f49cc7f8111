//! All that a quantization can be asked for: what runs the model first (what goes into layers, bits to a budget), then the conversion.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use planish_format::{FormatError, Packing};
use planish_model::{Device, QuantizingDevice};
use planish_quantize::{Allocation, Method, Mix, OnProgress, Output, Recipe, Report};

use crate::{
    BudgetOptions, BudgetProgress, CalibratedOptions, CalibratedProgress, CalibrationProgress, CalibrationText, Error,
    Sensitivities, Source, allocate, calibrate, quantize, quantize_calibrated, read_imatrix,
};

/// Bytes of a file of widths at most.
const MOST_BYTES: u64 = 64 << 20;

/// How codes are chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CodeChoice {
    /// As the recipe's method says.
    ByRecipe,
    /// By search, weighted by what goes into layers while the model runs over the text.
    Weighted,
    /// The same by this file of llama-imatrix.
    Imatrix(PathBuf),
    /// Layer after layer by what really goes into them, on the text.
    Calibrated,
}

/// Where widths by layer come from.
#[derive(Clone, Debug)]
pub enum Widths {
    /// They are measured to spend so many bits for each packed weight.
    Budget {
        /// Scales and biases counted.
        bits: f64,
        /// Of the text, at most.
        tokens: usize,
        /// What was measured before.
        known: Sensitivities,
    },
    /// A mix.
    Mix(Mix),
    /// What a file said.
    File(Box<Allocation>),
}

/// What to do with a plain model.
#[derive(Clone, Debug)]
pub struct Quantizing {
    /// Dialect, bits, group and exceptions; its method is for [`CodeChoice::ByRecipe`].
    pub recipe: Recipe,
    /// How codes are chosen.
    pub choice: CodeChoice,
    /// Widths by layer, if not all have the recipe's.
    pub widths: Option<Widths>,
    /// Name and contents of the text that the model runs over; without one it writes.
    pub text: Option<(String, String)>,
    /// Tokens of it for weighted and calibrated codes.
    pub text_tokens: usize,
    /// Of the first text that the model writes.
    pub seed: u64,
    /// What chooses codes, where there is a choice.
    pub device: Device,
}

/// What happens before the weights are written.
#[derive(Debug)]
#[non_exhaustive]
pub enum QuantizingStep<'a> {
    /// The processor chooses codes in place of the GPU that is there.
    OnProcessor(&'a Error),
    /// Layers are measured for a budget.
    Measuring(BudgetProgress<'a>),
    /// The widths of all layers.
    Widths(&'a Allocation),
    /// The model runs over the text.
    Inputs(CalibrationProgress),
    /// It ran over this.
    Seen(&'a str),
    /// Layers are packed by what goes into them.
    Calibrated(CalibratedProgress),
}

impl Widths {
    /// The mix of this name, or what the file of this name says.
    ///
    /// # Errors
    /// [`Error::Widths`]: no such mix and no file that can be read, or a file with something else.
    pub fn of_recipe(name: &str) -> Result<Widths, Error> {
        if let Some(mix) = Mix::named(name) {
            return Ok(Widths::Mix(mix));
        }
        let wrong = |what: String| Error::Widths {
            recipe: name.to_owned(),
            what,
        };
        let text = read(Path::new(name)).map_err(|error| {
            let names: Vec<&str> = Mix::names().collect();
            wrong(format!(
                "neither one of {} nor a file that can be read: {error}",
                names.join(", ")
            ))
        })?;
        let allocation = Allocation::from_json(&text).map_err(|error| wrong(error.to_string()))?;
        Ok(Widths::File(Box::new(allocation)))
    }

    /// Bits and group that most layers get, in groups of `group` where that is left to say.
    ///
    /// # Errors
    /// A group that there is not.
    pub fn packing(&self, group: Option<usize>) -> Result<Packing, FormatError> {
        let group = group.unwrap_or(Packing::DEFAULT_GROUP);
        match self {
            // The budget says the bits; these stand for the layers that it is about.
            Widths::Budget { .. } => Packing::checked(2, group),
            Widths::Mix(mix) => Packing::checked(mix.bits(), group),
            Widths::File(allocation) => Ok(allocation.default_packing()),
        }
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MOST_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

impl Quantizing {
    /// Does it.
    ///
    /// # Errors
    /// As [`quantize`]; a model that cannot be run, where it is to be run; a text that is too short; a device that does not quantize.
    pub fn run(
        self,
        source: &Source,
        output: &Output,
        on_step: &mut dyn FnMut(QuantizingStep<'_>),
        on_progress: &mut OnProgress,
    ) -> Result<Report, Error> {
        // The codes of peers are chosen on the processor.
        let searches = self.choice != CodeChoice::ByRecipe || !matches!(self.recipe.method, Method::Peer(_));
        let mut device = QuantizingDevice::open(if searches { self.device } else { Device::Cpu })?;
        if let Some(notice) = device.notice.take() {
            on_step(QuantizingStep::OnProcessor(&notice.into()));
        }
        let mut recipe = Recipe {
            searcher: device.searcher.take(),
            ..self.recipe.clone()
        };
        if let Some(widths) = &self.widths {
            let allocation = self.allocation((source, output), &recipe, widths, on_step)?;
            on_step(QuantizingStep::Widths(&allocation));
            recipe.packing = allocation.default_packing();
            recipe.allocation = Some(Arc::new(allocation));
        }
        match &self.choice {
            CodeChoice::ByRecipe => {}
            CodeChoice::Imatrix(path) => recipe.method = Method::Weighted(Arc::new(read_imatrix(source, path)?)),
            CodeChoice::Weighted => {
                let text = self.text(source, self.text_tokens, CalibrationText::LONGEST)?;
                let mut on_tokens = |progress| on_step(QuantizingStep::Inputs(progress));
                let inputs = calibrate(source, &text, None, output, &mut on_tokens)?;
                on_step(QuantizingStep::Seen(inputs.description()));
                recipe.method = Method::Weighted(Arc::new(inputs));
            }
            CodeChoice::Calibrated => {
                let options = CalibratedOptions {
                    text: self.text(source, self.text_tokens, CalibrationText::LONGEST)?,
                    threads: None,
                    device: device.device,
                    calibrator: device.calibrator.take(),
                };
                let mut on_layers = |progress| on_step(QuantizingStep::Calibrated(progress));
                return quantize_calibrated(source, &recipe, &options, output, &mut on_layers, on_progress);
            }
        }
        quantize(source, &recipe, output, on_progress)
    }

    /// The width of every layer.
    fn allocation(
        &self,
        (source, output): (&Source, &Output),
        recipe: &Recipe,
        widths: &Widths,
        on_step: &mut dyn FnMut(QuantizingStep<'_>),
    ) -> Result<Allocation, Error> {
        match widths {
            Widths::Budget { bits, tokens, known } => {
                let options = BudgetOptions {
                    budget: *bits,
                    text: self.text(source, *tokens, BudgetOptions::LONGEST)?,
                    threads: None,
                };
                let mut on_layer = |progress: BudgetProgress<'_>| on_step(QuantizingStep::Measuring(progress));
                allocate(source, recipe, &options, &mut known.clone(), output, &mut on_layer)
            }
            Widths::Mix(mix) => {
                let checkpoint = source.checkpoint();
                Ok(mix.allocation(recipe, checkpoint.config(), checkpoint.entries())?)
            }
            Widths::File(allocation) => Ok(Allocation::clone(allocation)),
        }
    }

    /// `tokens` of the text, if it is given, or of what the model is to write, in texts of `longest` at most.
    fn text(&self, source: &Source, tokens: usize, longest: usize) -> Result<CalibrationText, Error> {
        match &self.text {
            Some((name, text)) => CalibrationText::given(source, name, text, tokens),
            None => Ok(CalibrationText::OwnWriting {
                seed: self.seed,
                tokens,
                longest,
            }),
        }
    }
}
