//! A packed checkpoint from one dialect to the other: codes, scales and biases stay as they are.
//!
//! Toward MLX everything can be said. The metal format has one packing of 2, 4 or 8 bits and packs linear layers only, so toward it
//! embeddings become plain, codes of other bits are written in the next more that hold those of all layers, and layers of several
//! groups are refused.

use planish_checkpoint::mlx::{self, Arranged};
use planish_checkpoint::{Checkpoint, Dialect, Entry, Layout, Mode, Override, Scheme};
use planish_format::{FloatMode, FloatType, Packing};

use crate::card::{self, Card};
use crate::layers::{Classifier, Role};
use crate::plan::{Fate, Listed, OutputTensor, modules_to_not_convert};
use crate::recipe::check_mlx_group;
use crate::report::Report;
use crate::tied::StoredHead;
use crate::transfer::{OnProgress, Output, Transfer};
use crate::{Error, Remedy, Target, blocks, source};

/// Writes `checkpoint` in the dialect `target`; packed words are moved untouched, those of other quantizers in our order.
///
/// # Errors
/// A source that is not packed or is in that dialect already; what the target cannot hold; an output that exists or cannot be
/// written.
pub fn convert(
    checkpoint: &Checkpoint,
    target: Target,
    output: &Output,
    on_progress: &mut OnProgress,
) -> Result<Report, Error> {
    check_source(checkpoint, target)?;
    let head = StoredHead::of(checkpoint)?;
    let mut converted = match target {
        Target::Mlx => to_mlx(checkpoint)?,
        Target::Metal => to_metal(checkpoint)?,
    };
    head.drop_copy(&mut converted.tensors);
    let config = head.config(checkpoint.config().clone(), target);
    let packing = match converted.dialect {
        Dialect::Metal { packing, .. } => Some(packing),
        _ => None,
    };
    let transfer = Transfer {
        checkpoint,
        config: source::config(config, &converted.dialect, None),
        tensors: converted.tensors,
        dialect: converted.dialect,
        recipe: None,
        check_finite: false,
    };
    let notes = wide_scales(checkpoint).into_iter().chain(converted.note).collect();
    let report = transfer.report(converted.unpacked, notes, output)?;
    let card = card(checkpoint, (target, packing), &report, output);
    transfer.run(&card, output, on_progress)?;
    Ok(report)
}

/// What is to be known of scales in f32.
fn wide_scales(checkpoint: &Checkpoint) -> Option<String> {
    let is_wide = |entry: &Entry| {
        matches!(
            entry.layout,
            Layout::Packed {
                scale_type: FloatType::F32,
                ..
            }
        )
    };
    let wide = checkpoint.entries().iter().any(is_wide) && source::method(checkpoint).is_some();
    wide.then(|| {
        "scales and biases are float32, which alone holds the products of scales and zero points exactly: MLX computes in float32 \
         with them, transformers rounds them"
            .to_owned()
    })
}

fn check_source(checkpoint: &Checkpoint, target: Target) -> Result<(), Error> {
    let path = checkpoint.path().display();
    let has_blocks = |entry: &Entry| {
        let name = format!("{}{}", entry.name, blocks::PARTS[0]);
        !checkpoint.is_adapted() && checkpoint.packed_part(&name).is_some()
    };
    let is_packed =
        |entry: &Entry| matches!(entry.layout, Layout::Packed { .. }) || (target == Target::Mlx && has_blocks(entry));
    let same = match (checkpoint.dialect(), target) {
        (Dialect::Method(_), Target::Metal) if checkpoint.entries().iter().any(has_blocks) => {
            let what = format!(
                "{path}: its experts are 4-bit floats with a scale for 32 inputs each, and the metal format packs these experts along \
                 their outputs: no codes of it are the same numbers"
            );
            return Err(Error::inexpressible(what, Remedy::Quantize(target)));
        }
        (Dialect::Mlx { default, .. }, Target::Metal) if default.mode == Mode::Mxfp8 => {
            let what = format!(
                "{path} is packed in 8-bit floats (mxfp8), which span 18 bits of whole numbers: no codes of 8 bits with a scale and a \
                 bias are the same numbers"
            );
            return Err(Error::inexpressible(what, Remedy::Requantize(target)));
        }
        (Dialect::Plain | Dialect::Method(_), _) if !checkpoint.entries().iter().any(is_packed) => {
            return Err(Error::source(format!("{path} is not packed"), Remedy::Quantize(target)));
        }
        (Dialect::Metal { .. }, Target::Metal) | (Dialect::Mlx { .. }, Target::Mlx) => true,
        _ => false,
    };
    if same {
        let what = format!("{path} is in the {} format already: nothing to convert", target.name());
        return Err(Error::source(what, None));
    }
    Ok(())
}

/// What is written, and the words for the config.
struct Converted {
    tensors: Vec<OutputTensor>,
    dialect: Dialect,
    /// Modules that were packed and no longer are, with the reason.
    unpacked: Vec<(String, String)>,
    note: Option<String>,
}

fn to_mlx(checkpoint: &Checkpoint) -> Result<Converted, Error> {
    let classifier = Classifier::new(checkpoint.config(), checkpoint.entries());
    let tensors = mlx::arrange(checkpoint.config(), checkpoint.entries()).map_err(|what| Error::source(what, None))?;
    let moved = |tensor: Arranged| {
        let layout = &checkpoint.entries()[tensor.parts[0].entry].layout;
        let fate = match layout {
            Layout::Packed { .. } => Fate::Move,
            Layout::Plain(_) => Fate::Copy,
        };
        OutputTensor::new(tensor, fate)
    };
    let mut tensors: Vec<OutputTensor> = tensors.into_iter().map(moved).collect();
    blocks::keep(checkpoint, &mut tensors, |_| true);
    let default = match tensors.iter().any(|tensor| tensor.fate == Fate::Blocks) {
        true => Scheme::floats(FloatMode::Mxfp4),
        false => Scheme::affine(commonest_packing(checkpoint)?),
    };
    let entry_of = |tensor: &OutputTensor| &checkpoint.entries()[tensor.parts[0].entry];
    let exception = |tensor: &OutputTensor| {
        let entry = entry_of(tensor);
        let exception = match entry.layout {
            _ if tensor.fate == Fate::Blocks => return None,
            Layout::Packed { packing, .. } if Scheme::affine(packing) == default => return None,
            Layout::Packed { packing, .. } => Override::Packed(Scheme::affine(packing)),
            _ if classifier.role(entry).is_layer() => Override::Plain,
            _ => return None,
        };
        Some((tensor.name.strip_suffix(".weight")?.to_owned(), exception))
    };
    let overrides = tensors.iter().filter_map(exception).collect();
    Ok(Converted {
        tensors,
        dialect: Dialect::Mlx { default, overrides },
        unpacked: Vec::new(),
        note: None,
    })
}

/// The packing that most weights have, all being such as MLX has kernels for.
fn commonest_packing(checkpoint: &Checkpoint) -> Result<Packing, Error> {
    let mut counts: Vec<(Packing, usize)> = Vec::new();
    for entry in checkpoint.entries() {
        let Layout::Packed { packing, .. } = entry.layout else {
            continue;
        };
        check_mlx_group(packing.group()).map_err(|_| {
            let what = format!(
                "MLX has kernels for groups of 32, 64 and 128, and this checkpoint has groups of {}",
                packing.group()
            );
            Error::inexpressible(what, Remedy::Requantize(Target::Mlx))
        })?;
        match counts.iter_mut().find(|(known, _)| *known == packing) {
            Some((_, count)) => *count += 1,
            None => counts.push((packing, 1)),
        }
    }
    let commonest = counts.into_iter().max_by_key(|(_, count)| *count);
    let (packing, _) = commonest.ok_or_else(|| Error::source("no weight is packed", Remedy::Quantize(Target::Mlx)))?;
    Ok(packing)
}

fn to_metal(checkpoint: &Checkpoint) -> Result<Converted, Error> {
    let classifier = Classifier::new(checkpoint.config(), checkpoint.entries());
    let packing = shared_packing(checkpoint, &classifier)?;
    let mut converted = Converted {
        tensors: Vec::new(),
        dialect: Dialect::Plain,
        unpacked: Vec::new(),
        note: None,
    };
    let mut widened = Vec::new();
    let mut layers = Vec::new();
    for (index, entry) in checkpoint.entries().iter().enumerate() {
        let role = classifier.role(entry);
        let fate = match entry.layout {
            Layout::Packed { packing: own, .. } if own == packing && is_packed_role(role) => Fate::Move,
            Layout::Packed { packing: own, .. } if can_hold(packing, own) && is_packed_role(role) => {
                widened.push(own.bits());
                Fate::Widen(packing)
            }
            _ => Fate::plain(entry, None),
        };
        let module = entry.module().unwrap_or(&entry.name);
        if matches!(fate, Fate::Cast(_)) {
            let reason = match role {
                Role::Head => "its bits or group differ from those of the layers",
                _ => "the metal format packs linear layers only",
            };
            converted
                .unpacked
                .push((module.to_owned(), format!("unpacked, because {reason}")));
        }
        layers.push(Listed {
            module,
            role,
            packed: fate.is_packed(),
        });
        converted
            .tensors
            .push(OutputTensor::new(Arranged::whole(index, entry), fate));
    }
    converted.note = widening_note(packing, &widened);
    let modules_to_not_convert = modules_to_not_convert(checkpoint.config(), &layers, &[]);
    converted.dialect = Dialect::Metal {
        packing,
        modules_to_not_convert,
    };
    Ok(converted)
}

fn is_packed_role(role: Role) -> bool {
    matches!(role, Role::Linear | Role::Expert | Role::Head)
}

/// Whether codes of `own` can be written in `packing`.
fn can_hold(packing: Packing, own: Packing) -> bool {
    packing.group() == own.group() && packing.bits() >= own.bits()
}

/// What is to be known of codes in more bits than they need.
fn widening_note(packing: Packing, widened: &[u32]) -> Option<String> {
    let (least, most) = (widened.iter().min()?, widened.iter().max()?);
    let bits = match least == most {
        true => format!("{least}"),
        false => format!("{least} to {most}"),
    };
    Some(format!(
        "codes of {bits} bits in {} layers are written in {} bits, since the metal format has 2, 4 or 8 bits, the same for all layers: every weight is the same",
        widened.len(),
        packing.bits()
    ))
}

/// The packing that can hold all packed linear layers.
fn shared_packing(checkpoint: &Checkpoint, classifier: &Classifier) -> Result<Packing, Error> {
    let mut shared: Option<(Packing, &str)> = None;
    for entry in checkpoint.entries() {
        let packing = match &entry.layout {
            Layout::Packed { packing, .. } => *packing,
            Layout::Plain(_) => continue,
        };
        match classifier.role(entry) {
            Role::Linear => {}
            // Stacks that only MLX has, under its names.
            Role::Expert if entry.shape.len() == 3 && is_mlx_stack(entry) => return Err(stacked_experts(entry)),
            Role::Expert => {}
            _ => continue,
        }
        let wider = |width: &&u32| **width >= packing.bits();
        let width = Target::Metal.widths().iter().find(wider);
        let width = width.ok_or_else(|| {
            let what = format!(
                "{}: the metal format holds up to 8 bits, not {}",
                entry.name,
                packing.bits()
            );
            Error::inexpressible(what, Remedy::Requantize(Target::Metal))
        })?;
        let packing = Packing::new(*width, packing.group()).expect("a group that was there");
        match shared {
            Some((first, name)) if first.group() != packing.group() => {
                let what = format!(
                    "the metal format has one packing for all layers, but {name} has groups of {} and {} of {}",
                    first.group(),
                    entry.name,
                    packing.group()
                );
                return Err(Error::inexpressible(what, Remedy::Requantize(Target::Metal)));
            }
            Some((first, _)) if first.bits() >= packing.bits() => {}
            _ => shared = Some((packing, &entry.name)),
        }
    }
    shared.map(|(packing, _)| packing).ok_or_else(|| {
        let what = "no linear layer is packed, and the metal format packs nothing else";
        Error::inexpressible(what, Remedy::Dequantize)
    })
}

fn is_mlx_stack(entry: &Entry) -> bool {
    let projections = [".gate_proj.weight", ".up_proj.weight", ".down_proj.weight"];
    projections.iter().any(|end| entry.name.ends_with(end))
}

fn stacked_experts(entry: &Entry) -> Error {
    let what = format!(
        "{}: transformers holds these experts in another order than MLX, which packed words cannot be brought into",
        entry.name
    );
    Error::inexpressible(what, Remedy::QuantizePlain(Target::Metal))
}

/// `packing` is that of all layers, where the target has one for all.
fn card(
    checkpoint: &Checkpoint,
    (target, packing): (Target, Option<Packing>),
    report: &Report,
    output: &Output,
) -> Card {
    let (source, version) = card::origin(output);
    let packed_as = source::packed_as(checkpoint.dialect()).unwrap_or_default();
    let of_source = || {
        checkpoint.entries().iter().find_map(|entry| match entry.layout {
            Layout::Packed { packing, .. } => Some(packing),
            _ => None,
        })
    };
    let bits = packing.or_else(of_source).map(Packing::bits);
    let same = match source::method(checkpoint) {
        None if packing.is_none_or(|packing| of_source() == Some(packing)) => {
            "Packed words, scales and biases are those of the source, bit for bit."
        }
        _ => "Packed codes are those of the source, and every weight is the same number in float32.",
    };
    let bit_tag = bits.map(|bits| format!("{bits}-bit"));
    Card {
        library: target.library(),
        tags: std::iter::once(target.name().to_owned())
            .chain(bit_tag)
            .chain(["planish".to_owned()])
            .collect(),
        relation: Some("quantized"),
        made: format!(
            "Converted from {source} ({packed_as}) to the format of {} by planish {version}. {same}",
            target.description()
        ),
        facts: card::sizes(report).into(),
        notes: report.notes.clone(),
        unseen: Vec::new(),
        plain: report.plain.clone(),
        usage: card::usage(target, output),
    }
}
