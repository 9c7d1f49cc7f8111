//! A plain checkpoint or GGUF file to a packed one.

use std::collections::BTreeMap;

use planish_checkpoint::{Checkpoint, Dialect, Override, Scheme};
use planish_format::{FloatMode, FloatType, Packing};
use serde_json::{Map, Value};

use crate::card::{self, Card};
use crate::pack::type_name;
use crate::plan::{Fate, OutputTensor, Plan};
use crate::report::Report;
use crate::tied::StoredHead;
use crate::transfer::{self, OnProgress, Output, Transfer};
use crate::unseen::{note, unseen};
use crate::{Error, Method, Recipe, Remedy, Target, blocks, loaders, source};

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
    let Planned { recipe, plan, config } = planned(checkpoint, recipe)?;
    let dialect = dialect(&recipe, &plan);
    let unseen = unseen(checkpoint, &recipe, &plan);
    let (plain, notes) = (notable(&plan), notes(checkpoint, &recipe, &plan, &unseen));
    let transfer = Transfer {
        checkpoint,
        tensors: plan.tensors,
        config: source::config(config, &dialect, recipe.dtype),
        dialect,
        recipe: Some(&recipe),
        check_finite: !recipe.allow_non_finite,
    };
    let report = Report {
        unseen,
        ..transfer.report(plain, notes, output)?
    };
    transfer.run(&card(&recipe, &report, output), output, on_progress)?;
    Ok(report)
}

/// What a recipe means for a checkpoint.
pub(crate) struct Planned {
    /// With the type of what stays plain.
    recipe: Recipe,
    pub(crate) plan: Plan,
    config: Map<String, Value>,
}

/// Decides everything, and refuses what cannot be packed.
pub(crate) fn planned(checkpoint: &Checkpoint, recipe: &Recipe) -> Result<Planned, Error> {
    recipe.check()?;
    let packed = source::packed_as(checkpoint.dialect()).filter(|_| !source::is_respelled(checkpoint));
    if let Some(packed) = packed {
        let what = format!("{} is packed already ({packed})", checkpoint.path().display());
        return Err(Error::source(what, Remedy::StartFromPlain));
    }
    let recipe = Recipe {
        dtype: source::float_type(checkpoint, recipe.dtype),
        ..recipe.clone()
    };
    loaders::check(recipe.target, checkpoint.config())?;
    let head = StoredHead::of(checkpoint)?;
    let config = head.config(checkpoint.config().clone(), recipe.target);
    let mut plan = recipe.plan(&config, checkpoint.entries())?;
    head.drop_copy(&mut plan.tensors);
    blocks::keep(checkpoint, &mut plan.tensors, |fate| {
        matches!(fate, Fate::Floats(FloatMode::Mxfp4, _))
    });
    Ok(Planned { recipe, plan, config })
}

/// The entries that [`quantize`] packs whole rows of as they are stored, by index, with their packing and the type of their scales.
///
/// # Errors
/// As [`quantize`], but for the output.
pub fn packed_entries(
    checkpoint: &Checkpoint,
    recipe: &Recipe,
) -> Result<BTreeMap<usize, (Packing, FloatType)>, Error> {
    let plan = planned(checkpoint, recipe)?.plan;
    let mut packed = BTreeMap::new();
    let parts = plan
        .tensors
        .iter()
        .flat_map(|tensor| tensor.parts.iter().map(move |part| (tensor.fate, part)));
    for (fate, part) in parts.clone() {
        if let Fate::Quantize(packing, scale_type) = fate {
            packed.insert(part.entry, (packing, scale_type));
        }
    }
    for (fate, part) in parts {
        let is_so = |(packing, scale_type): &(Packing, FloatType)| fate == Fate::Quantize(*packing, *scale_type);
        if !(part.view.is_rows() && packed.get(&part.entry).is_some_and(is_so)) {
            packed.remove(&part.entry);
        }
    }
    Ok(packed)
}

fn dialect(recipe: &Recipe, plan: &Plan) -> Dialect {
    match recipe.target {
        Target::Metal => Dialect::Metal {
            packing: recipe.packing,
            modules_to_not_convert: plan.modules_to_not_convert.clone(),
        },
        Target::Mlx => {
            let exception = |tensor: &OutputTensor| match tensor.packing() {
                Some(packing) if packing == recipe.packing => None,
                Some(packing) => Some(Override::Packed(Scheme::affine(packing))),
                None => tensor.notable().map(|_| Override::Plain),
            };
            let overrides = plan
                .tensors
                .iter()
                .filter_map(|tensor| Some((tensor.module().to_owned(), exception(tensor)?)))
                .collect();
            Dialect::Mlx {
                default: recipe.floats.map_or(Scheme::affine(recipe.packing), Scheme::floats),
                overrides,
            }
        }
    }
}

/// Layers that one would expect to be packed.
fn notable(plan: &Plan) -> Vec<(String, String)> {
    plan.tensors
        .iter()
        .filter_map(|tensor| Some((tensor.module().to_owned(), tensor.notable()?.to_string())))
        .collect()
}

fn notes(checkpoint: &Checkpoint, recipe: &Recipe, plan: &Plan, unseen: &[String]) -> Vec<String> {
    let mut notes = loaders::notes(recipe.target, checkpoint, plan);
    notes.extend(note(unseen));
    if let Method::Chosen(codes) = &recipe.method {
        notes.extend(codes.notes());
    }
    if let Some(float_type) = recipe.dtype.filter(|_| source::is_respelled(checkpoint)) {
        let weights = source::method(checkpoint).map_or("GGUF".to_owned(), |method| method.to_string());
        notes.push(format!(
            "the {weights} weights are decoded, and stored as {} where they stay plain",
            type_name(float_type)
        ));
    }
    notes
}

fn card(recipe: &Recipe, report: &Report, output: &Output) -> Card {
    let (bits, group) = (recipe.packing.bits(), recipe.packing.group());
    let (source, version) = card::origin(output);
    let codes = recipe.floats.map_or("codes", |_| "floats");
    let made = format!(
        "Made from {source} by planish {version}: its layers are packed into {bits}-bit {codes}, by groups of {group}."
    );
    let mut facts = vec![
        ("format", recipe.target.description().to_owned()),
        ("bits", bits.to_string()),
        ("group size", group.to_string()),
        ("codes chosen by", recipe.rule()),
    ];
    facts.extend(card::sizes(report));
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
    if let Some(allocation) = &recipe.allocation {
        let named = allocation.layers().len();
        facts.push((
            "bits of each layer",
            format!("{named} layers in `{}`", transfer::ALLOCATION),
        ));
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
        unseen: report.unseen.clone(),
        plain: report.plain.clone(),
        usage: card::usage(recipe.target, output),
    }
}
