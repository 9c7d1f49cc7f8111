//! A plain checkpoint or GGUF file to a packed one.

use planish_checkpoint::{Checkpoint, Dialect, Entry, Layout, Override, Scheme};
use planish_format::{Encoder, FloatType};

use crate::card::Card;
use crate::pack::type_name;
use crate::report::{Report, stored_bytes, weight_count};
use crate::transfer::{Made, OnProgress, Outcome, Output, Transfer};
use crate::{Action, Error, Plan, Reason, Recipe, Target, Written, loaders, source};

/// Packs `checkpoint` as `recipe` says, into a new folder, in memory that does not grow with the model.
///
/// # Errors
/// A source that is packed already; what the dialect cannot hold; NaN or infinity in the weights; an output that exists or
/// cannot be written.
pub fn quantize(
    checkpoint: &Checkpoint,
    recipe: &Recipe,
    output: &Output,
    on_progress: &mut OnProgress,
) -> Result<Report, Error> {
    recipe.check()?;
    source::check_plain(checkpoint)?;
    if let Some(packed) = source::packed_as(checkpoint.dialect()) {
        return Err(Error::Source(format!(
            "{} is packed already ({packed}): quantize the plain checkpoint it was made from, `planish dequantize` it first, \
             or change its dialect with `planish convert`",
            checkpoint.path().display()
        )));
    }
    let recipe = Recipe {
        dtype: source::float_type(checkpoint, recipe.dtype),
        ..recipe.clone()
    };
    loaders::check(recipe.target, checkpoint.config())?;
    let plan = recipe.plan(checkpoint.config(), checkpoint.entries())?;
    let dialect = dialect(&recipe, &plan);
    let mut transfer = Transfer {
        checkpoint,
        made: plan
            .written
            .iter()
            .map(|written| made(checkpoint, written, recipe.dtype))
            .collect(),
        config: source::config(checkpoint, &dialect, recipe.dtype),
        dialect,
        card: String::new(),
        recipe: Some(&recipe),
        check_finite: !recipe.allow_nonfinite,
    };
    let report = Report {
        packed: plan.packed_count(),
        plain: notable(&plan),
        notes: notes(checkpoint, &recipe, &plan),
        source_bytes: stored_bytes(checkpoint),
        output_bytes: transfer.output_bytes()?,
        weights: weight_count(checkpoint),
    };
    transfer.card = card(&recipe, &report, output).render(checkpoint, output)?;
    transfer.run(output, on_progress)?;
    Ok(report)
}

fn made(checkpoint: &Checkpoint, written: &Written, float_type: Option<FloatType>) -> Made {
    let entry = written
        .tensor
        .pieces
        .first()
        .map(|piece| &checkpoint.entries()[piece.entry]);
    let outcome = match (written.action, entry) {
        (Action::Pack(packing), Some(entry)) => Outcome::Pack(packing, float_type.unwrap_or_else(|| scale_type(entry))),
        (Action::Keep(_), Some(entry)) => kept(entry, float_type),
        (_, None) => Outcome::Copy,
    };
    Made {
        tensor: written.tensor.clone(),
        outcome,
    }
}

/// What becomes of an entry that ends up plain, with a float type asked for or each entry's own.
pub(crate) fn kept(entry: &Entry, float_type: Option<FloatType>) -> Outcome {
    match (&entry.layout, float_type) {
        (Layout::Packed { .. }, asked) => Outcome::Float(asked.unwrap_or_else(|| scale_type(entry))),
        (Layout::Plain(dtype), Some(asked)) if dtype.float_type().is_some() && !stays_f32(&entry.name) => {
            Outcome::Float(asked)
        }
        _ => Outcome::Copy,
    }
}

/// The type that the scales of an entry have without a wish.
fn scale_type(entry: &Entry) -> FloatType {
    match &entry.layout {
        Layout::Plain(dtype) => dtype.float_type().unwrap_or(FloatType::F32),
        Layout::Packed { scale_type, .. } => *scale_type,
        Layout::Unsupported(_) => FloatType::F32,
    }
}

/// Tensors whose small differences decide something; mlx-lm and transformers keep them in f32 as well.
fn stays_f32(name: &str) -> bool {
    ["e_score_correction_bias", "expert_bias", "A_log"]
        .iter()
        .any(|part| name.contains(part))
}

fn dialect(recipe: &Recipe, plan: &Plan) -> Dialect {
    match recipe.target {
        Target::Metal => Dialect::Metal {
            packing: recipe.packing,
            modules_to_not_convert: plan.modules_to_not_convert.clone(),
        },
        Target::Mlx => {
            let exception = |action: Action| match action {
                Action::Pack(packing) if packing == recipe.packing => None,
                Action::Pack(packing) => Some(Override::Packed(Scheme::affine(packing))),
                Action::Keep(Reason::NotAMatrix | Reason::NotPackedByDialect) => None,
                Action::Keep(_) => Some(Override::Plain),
            };
            let overrides = plan
                .written
                .iter()
                .filter_map(|written| Some((written.module().to_owned(), exception(written.action)?)))
                .collect();
            Dialect::Mlx {
                default: Scheme::affine(recipe.packing),
                overrides,
            }
        }
    }
}

/// Layers that one would expect to be packed.
fn notable(plan: &Plan) -> Vec<(String, String)> {
    let reason = |action: Action| match action {
        Action::Pack(_) | Action::Keep(Reason::NotAMatrix | Reason::NotPackedByDialect) => None,
        Action::Keep(reason) => Some(reason.to_string()),
    };
    plan.written
        .iter()
        .filter_map(|written| Some((written.module().to_owned(), reason(written.action)?)))
        .collect()
}

fn notes(checkpoint: &Checkpoint, recipe: &Recipe, plan: &Plan) -> Vec<String> {
    let mut notes = loaders::notes(recipe.target, checkpoint.config(), plan);
    if let Some(float_type) = recipe.dtype.filter(|_| source::is_gguf(checkpoint)) {
        notes.push(format!(
            "the GGUF weights are decoded and stored as {} where they stay plain",
            type_name(float_type)
        ));
    }
    notes
}

fn card(recipe: &Recipe, report: &Report, output: &Output) -> Card {
    let (bits, group) = (recipe.packing.bits(), recipe.packing.group());
    let version = env!("CARGO_PKG_VERSION");
    let source = output
        .base_model
        .as_ref()
        .map_or_else(|| "a local model".to_owned(), |id| format!("`{id}`"));
    let made = format!(
        "Made from {source} by planish {version}: its layers are packed into {bits}-bit codes, by groups of {group}."
    );
    let mut facts = vec![
        ("format", recipe.target.description().to_owned()),
        ("bits", bits.to_string()),
        ("group size", group.to_string()),
        ("codes chosen by", encoder_description(recipe.encoder).to_owned()),
        ("packed tensors", report.packed.to_string()),
        (
            "bits per weight, all tensors",
            format!("{:.3}", report.bits_per_weight()),
        ),
    ];
    if let Some(float_type) = recipe.dtype {
        facts.push(("scales and plain tensors", type_name(float_type).to_owned()));
    }
    if !recipe.overrides.is_empty() {
        let exceptions: Vec<&str> = recipe
            .overrides
            .iter()
            .map(|exception| exception.pattern.as_str())
            .collect();
        facts.push(("layers with other bits match", format!("`{}`", exceptions.join("`, `"))));
    }
    Card {
        library: recipe.target.library(),
        tags: vec![
            recipe.target.name().to_owned(),
            format!("{bits}-bit"),
            "planish".to_owned(),
        ],
        relation: Some("quantized"),
        made,
        facts,
        notes: report.notes.clone(),
        plain: report.plain.clone(),
        usage: usage(recipe.target, output),
    }
}

/// How the output is run, by planish and by the library whose dialect it has.
pub(crate) fn usage(target: Target, output: &Output) -> Vec<(&'static str, String)> {
    let folder = output
        .folder
        .file_name()
        .unwrap_or(output.folder.as_os_str())
        .to_string_lossy();
    let python = match target {
        Target::Metal => format!(
            "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n\
             model = AutoModelForCausalLM.from_pretrained(\"{folder}\", device_map=\"auto\")\n\
             tokenizer = AutoTokenizer.from_pretrained(\"{folder}\")"
        ),
        Target::Mlx => format!("from mlx_lm import load\n\nmodel, tokenizer = load(\"{folder}\")"),
    };
    vec![
        (
            "sh",
            format!("planish generate {folder} --prompt \"Why is the sky blue?\""),
        ),
        ("python", python),
    ]
}

fn encoder_description(encoder: Encoder) -> &'static str {
    match encoder {
        Encoder::Transformers => "the rule of transformers",
        Encoder::MlxMetal => "the rule of MLX on Metal and CUDA",
        Encoder::MlxCpu => "the rule of MLX on the CPU",
    }
}
