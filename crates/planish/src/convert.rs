//! Whole checkpoints: quantize, dequantize, convert, inspect. Memory does not grow with the model, and an output folder appears
//! only when it is whole.

use std::path::Path;
use std::sync::atomic::Ordering;

use planish_format::FloatType;
use planish_quantize::{Error as QuantizeError, Inspection, OnProgress, Output, Recipe, Report, Target};

use crate::{Error, Source};

/// Packs a plain model as `recipe` says, into a new folder.
///
/// ```no_run
/// use planish::{Output, Packing, Recipe, Source, Target, quantize};
///
/// # fn main() -> Result<(), planish::Error> {
/// let source = Source::open("HuggingFaceTB/SmolLM2-135M-Instruct")?;
/// let recipe = Recipe::new(Target::Mlx, Packing::checked(4, 64)?);
/// let report = quantize(&source, &recipe, &Output::new("smollm2-4bit"), &mut |progress| {
///     eprintln!("{} of {} bytes", progress.done_bytes, progress.total_bytes);
/// })?;
/// println!("{:.3} bits per weight", report.bits_per_weight());
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// A source that is packed already, or has fewer layers than it says; what the dialect cannot hold; NaN or infinity in the weights;
/// an output that exists or cannot be written.
pub fn quantize(
    source: &Source,
    recipe: &Recipe,
    output: &Output,
    on_progress: &mut OnProgress,
) -> Result<Report, Error> {
    source.check_layers()?;
    let output = from(source, output);
    Ok(planish_quantize::quantize(
        source.checkpoint(),
        recipe,
        &output,
        on_progress,
    )?)
}

/// Writes a packed model or a GGUF file as plain floats: of `float_type`, else of the type of its scales.
///
/// # Errors
/// A source that is plain already and of the type asked for, or has fewer layers than it says; a value that the type cannot hold;
/// an output that exists or cannot be written.
pub fn dequantize(
    source: &Source,
    float_type: Option<FloatType>,
    output: &Output,
    on_progress: &mut OnProgress,
) -> Result<Report, Error> {
    source.check_layers()?;
    let output = from(source, output);
    Ok(planish_quantize::dequantize(
        source.checkpoint(),
        float_type,
        &output,
        on_progress,
    )?)
}

/// Moves a packed model to another dialect; codes, scales and biases stay as they are.
///
/// # Errors
/// A source that is not packed, is in that dialect already or has fewer layers than it says; what the target cannot hold; an output
/// that exists or cannot be written.
pub fn convert(
    source: &Source,
    target: Target,
    output: &Output,
    on_progress: &mut OnProgress,
) -> Result<Report, Error> {
    source.check_layers()?;
    let output = from(source, output);
    Ok(planish_quantize::convert(
        source.checkpoint(),
        target,
        &output,
        on_progress,
    )?)
}

/// Writes a model as one GGUF file, `output.folder`, for llama.cpp: packed codes are moved where it has blocks for them.
///
/// # Errors
/// A model, tokenizer or tensor that is not written to GGUF, or fewer layers than the model says; a file that exists or cannot be
/// written.
pub fn convert_to_gguf(source: &Source, output: &Output, on_progress: &mut OnProgress) -> Result<Report, Error> {
    source.check_layers()?;
    let output = from(source, output);
    Ok(planish_quantize::convert_to_gguf(
        source.checkpoint(),
        &output,
        on_progress,
    )?)
}

/// Whether a conversion to `folder` that is no longer alive left something that another can go on with ([`Output::resume`]).
pub fn is_unfinished(folder: &Path) -> bool {
    planish_checkpoint::Writer::is_unfinished(folder) || crate::calibrated::is_unfinished(folder)
}

/// Lists every tensor; of a plain model, measures the error of packing its layers at each width in groups of `group`.
///
/// # Errors
/// A group that is no positive multiple of 8; a tensor that cannot be read.
pub fn inspect(source: &Source, group: usize, on_progress: &mut OnProgress) -> Result<Inspection, Error> {
    planish_format::Packing::checked(4, group)?;
    Ok(planish_quantize::inspect(source.checkpoint(), group, on_progress)?)
}

/// The relative root mean square error of a packed model's packed weights against those they were made of.
///
/// # Errors
/// A packed weight that `original` lacks or has in another shape; a tensor that cannot be read.
pub fn relative_error(original: &Source, packed: &Source) -> Result<f64, Error> {
    Ok(planish_quantize::relative_error(
        original.checkpoint(),
        packed.checkpoint(),
    )?)
}

/// As [`relative_error`], of each packed weight by itself: its name and error.
///
/// # Errors
/// As [`relative_error`].
pub fn relative_errors(original: &Source, packed: &Source) -> Result<Vec<(String, f64)>, Error> {
    Ok(planish_quantize::relative_errors(
        original.checkpoint(),
        packed.checkpoint(),
    )?)
}

/// Whether the caller asked for an end.
pub(crate) fn check_stop(output: &Output) -> Result<(), Error> {
    match output.stop.load(Ordering::Relaxed) {
        true => Err(Error::Quantize(QuantizeError::Stopped {
            folder: output.folder.clone(),
        })),
        false => Ok(()),
    }
}

/// The output with the Hub id of its source, which the model card names.
pub(crate) fn from(source: &Source, output: &Output) -> Output {
    let base_model = output.base_model.clone().or(source.hub_id().map(str::to_owned));
    Output {
        base_model,
        ..output.clone()
    }
}
