//! A packed checkpoint or GGUF file to a plain Hugging Face folder.

use planish_checkpoint::mlx::Arranged;
use planish_checkpoint::{Checkpoint, Dialect, Entry, Layout};
use planish_format::FloatType;

use crate::card::{self, Card};
use crate::layers::{Classifier, Role};
use crate::pack::type_name;
use crate::plan::{Fate, OutputTensor};
use crate::report::Report;
use crate::tied::StoredHead;
use crate::transfer::{OnProgress, Output, Transfer};
use crate::{Error, Remedy, source};

/// Writes every packed weight of `checkpoint` as plain floats: of `float_type`, else of the type of its scales (bfloat16 for
/// GGUF blocks whose scales need f32). With a `float_type` the plain tensors are cast as well.
///
/// # Errors
/// A source that is plain already and of the type asked for; a value that the type cannot hold; an output that exists or
/// cannot be written.
pub fn dequantize(
    checkpoint: &Checkpoint,
    float_type: Option<FloatType>,
    output: &Output,
    on_progress: &mut OnProgress,
) -> Result<Report, Error> {
    let packed = checkpoint
        .entries()
        .iter()
        .filter(|entry| matches!(entry.layout, Layout::Packed { .. }))
        .count();
    if packed == 0 && float_type.is_none() && !checkpoint.is_adapted() && !source::is_respelled(checkpoint) {
        let what = format!("{} is plain already", checkpoint.path().display());
        return Err(Error::source(what, Remedy::ChangeType));
    }
    let float_type = source::float_type(checkpoint, float_type);
    let mut tensors = tensors(checkpoint, float_type);
    StoredHead::of(checkpoint)?.drop_copy(&mut tensors);
    let transfer = Transfer {
        checkpoint,
        tensors,
        dialect: Dialect::Plain,
        config: source::config(checkpoint.config().clone(), &Dialect::Plain, float_type),
        recipe: None,
        check_finite: false,
    };
    let notes = note(float_type, packed).into_iter().collect();
    let report = transfer.report(Vec::new(), notes, output)?;
    transfer.run(&card(checkpoint, packed, output), output, on_progress)?;
    Ok(report)
}

fn tensors(checkpoint: &Checkpoint, float_type: Option<FloatType>) -> Vec<OutputTensor> {
    let classifier = Classifier::new(checkpoint.config(), checkpoint.entries());
    let plain = |(index, entry): (usize, &Entry)| {
        let mut tensor = Arranged::whole(index, entry);
        // Packed, a `Conv1D` lies as other layers do; plain it is transposed.
        if classifier.role(entry) == Role::Transposed && matches!(entry.layout, Layout::Packed { .. }) {
            tensor.shape.reverse();
            tensor.parts.iter_mut().for_each(|part| part.view.transposed = true);
        }
        OutputTensor::new(tensor, Fate::plain(entry, float_type))
    };
    checkpoint.entries().iter().enumerate().map(plain).collect()
}

fn note(float_type: Option<FloatType>, packed: usize) -> Option<String> {
    match float_type {
        Some(float_type) => Some(format!("every float tensor is {}", type_name(float_type))),
        None if packed > 0 => Some("each unpacked weight has the type of its scales".to_owned()),
        None => None,
    }
}

fn card(checkpoint: &Checkpoint, packed: usize, output: &Output) -> Card {
    let (source, version) = card::origin(output);
    let stored = match source::packed_as(checkpoint.dialect()) {
        Some(packed_as) => format!("{packed} packed weights ({packed_as})"),
        None if source::is_gguf(checkpoint) => "the weights of a GGUF file".to_owned(),
        None => "its weights".to_owned(),
    };
    Card {
        library: "transformers",
        tags: vec!["planish".to_owned()],
        relation: None,
        made: format!("Made from {source} by planish {version}: {stored} are written as plain floats."),
        facts: Vec::new(),
        notes: Vec::new(),
        unseen: Vec::new(),
        plain: Vec::new(),
        usage: Vec::new(),
    }
}
