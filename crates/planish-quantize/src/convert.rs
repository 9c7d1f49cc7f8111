//! A packed checkpoint from one dialect to the other: codes, scales and biases stay as they are.
//!
//! Toward MLX everything can be said. The metal format has one packing and packs linear layers only, so toward it embeddings
//! become plain, and what differs between linear layers is refused.

use planish_checkpoint::mlx::{self, Arranged};
use planish_checkpoint::{Checkpoint, Dialect, Entry, Layout, Mode, Override, Scheme};
use planish_format::Packing;

use crate::card::{self, Card};
use crate::layers::{Classifier, Role};
use crate::plan::{Fate, Listed, OutputTensor, modules_to_not_convert};
use crate::recipe::check_mlx_group;
use crate::report::Report;
use crate::tied::StoredHead;
use crate::transfer::{OnProgress, Output, Transfer};
use crate::{Error, Remedy, Target, source};

/// Writes `checkpoint` in the dialect `target`; packed words are moved untouched.
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
    let transfer = Transfer {
        checkpoint,
        config: source::config(config, &converted.dialect, None),
        tensors: converted.tensors,
        dialect: converted.dialect,
        recipe: None,
        check_finite: false,
    };
    let report = transfer.report(converted.unpacked, Vec::new(), output)?;
    transfer.run(&card(checkpoint, target, &report, output), output, on_progress)?;
    Ok(report)
}

fn check_source(checkpoint: &Checkpoint, target: Target) -> Result<(), Error> {
    let path = checkpoint.path().display();
    let same = match (checkpoint.dialect(), target) {
        (Dialect::Plain, _) => {
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
}

fn to_mlx(checkpoint: &Checkpoint) -> Result<Converted, Error> {
    let Dialect::Metal { packing, .. } = checkpoint.dialect() else {
        unreachable!("checked before")
    };
    check_mlx_group(packing.group()).map_err(|_| {
        let what = format!(
            "MLX has kernels for groups of 32, 64 and 128, and this checkpoint has groups of {}",
            packing.group()
        );
        Error::inexpressible(what, Remedy::Requantize(Target::Mlx))
    })?;
    let classifier = Classifier::new(checkpoint.config(), checkpoint.entries());
    let tensors = mlx::arrange(checkpoint.config(), checkpoint.entries()).map_err(|what| Error::source(what, None))?;
    let entry_of = |tensor: &Arranged| &checkpoint.entries()[tensor.parts[0].entry];
    let is_plain_layer = |tensor: &&Arranged| {
        let entry = entry_of(tensor);
        matches!(entry.layout, Layout::Plain(_)) && classifier.role(entry).is_layer()
    };
    let plain = tensors.iter().filter(is_plain_layer);
    let overrides = plain
        .filter_map(|tensor| Some((tensor.name.strip_suffix(".weight")?.to_owned(), Override::Plain)))
        .collect();
    let moved = |tensor: Arranged| {
        let fate = match entry_of(&tensor).layout {
            Layout::Packed { .. } => Fate::Move,
            Layout::Plain(_) | Layout::Unsupported(_) => Fate::Copy,
        };
        OutputTensor::new(tensor, fate)
    };
    Ok(Converted {
        tensors: tensors.into_iter().map(moved).collect(),
        dialect: Dialect::Mlx {
            default: Scheme::affine(*packing),
            overrides,
        },
        unpacked: Vec::new(),
    })
}

fn to_metal(checkpoint: &Checkpoint) -> Result<Converted, Error> {
    let classifier = Classifier::new(checkpoint.config(), checkpoint.entries());
    let packing = shared_packing(checkpoint, &classifier)?;
    let mut converted = Converted {
        tensors: Vec::new(),
        dialect: Dialect::Plain,
        unpacked: Vec::new(),
    };
    let mut layers = Vec::new();
    for (index, entry) in checkpoint.entries().iter().enumerate() {
        let role = classifier.role(entry);
        let fate = match entry.layout {
            Layout::Packed { packing: own, .. }
                if matches!(role, Role::Linear | Role::Expert) || (role == Role::Head && own == packing) =>
            {
                Fate::Move
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
            packed: fate == Fate::Move,
        });
        converted
            .tensors
            .push(OutputTensor::new(Arranged::whole(index, entry), fate));
    }
    let modules_to_not_convert = modules_to_not_convert(checkpoint.config(), &layers, &[]);
    converted.dialect = Dialect::Metal {
        packing,
        modules_to_not_convert,
    };
    Ok(converted)
}

/// The packing that all packed linear layers have in common.
fn shared_packing(checkpoint: &Checkpoint, classifier: &Classifier) -> Result<Packing, Error> {
    let mut shared: Option<(Packing, &str)> = None;
    for entry in checkpoint.entries() {
        let packing = match &entry.layout {
            Layout::Packed { packing, .. } => *packing,
            Layout::Unsupported(scheme) => return Err(unsupported_mode(entry, scheme.mode)),
            Layout::Plain(_) => continue,
        };
        match classifier.role(entry) {
            Role::Linear => {}
            // Stacks that only MLX has, under its names.
            Role::Expert if entry.shape.len() == 3 && is_mlx_stack(entry) => return Err(stacked_experts(entry)),
            Role::Expert => {}
            _ => continue,
        }
        if !Target::Metal.widths().contains(&packing.bits()) {
            let what = format!(
                "{}: the metal format holds 2, 4 and 8 bits, not {}",
                entry.name,
                packing.bits()
            );
            return Err(Error::inexpressible(what, Remedy::Requantize(Target::Metal)));
        }
        match shared {
            Some((first, name)) if first != packing => {
                let what = format!(
                    "the metal format has one packing for all layers, but {name} has {} and {} has {}",
                    words(first),
                    entry.name,
                    words(packing)
                );
                return Err(Error::inexpressible(what, Remedy::Requantize(Target::Metal)));
            }
            _ => shared = shared.or(Some((packing, &entry.name))),
        }
    }
    shared.map(|(packing, _)| packing).ok_or_else(|| {
        let what = "no linear layer is packed, and the metal format packs nothing else";
        Error::inexpressible(what, Remedy::Dequantize)
    })
}

fn words(packing: Packing) -> String {
    format!("{} bits in groups of {}", packing.bits(), packing.group())
}

fn unsupported_mode(entry: &Entry, mode: Mode) -> Error {
    let what = format!(
        "{}: the metal format has no {} mode, only affine",
        entry.name,
        mode.name()
    );
    Error::inexpressible(what, None)
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

fn card(checkpoint: &Checkpoint, target: Target, report: &Report, output: &Output) -> Card {
    let (source, version) = card::origin(output);
    let packed_as = source::packed_as(checkpoint.dialect()).unwrap_or_default();
    let bits = checkpoint.entries().iter().find_map(|entry| match entry.layout {
        Layout::Packed { packing, .. } => Some(packing.bits()),
        _ => None,
    });
    let bit_tag = bits.map(|bits| format!("{bits}-bit"));
    Card {
        library: target.library(),
        tags: std::iter::once(target.name().to_owned())
            .chain(bit_tag)
            .chain(["planish".to_owned()])
            .collect(),
        relation: Some("quantized"),
        made: format!(
            "Converted from {source} ({packed_as}) to the format of {} by planish {version}. Packed words, scales and \
             biases are those of the source, bit for bit.",
            target.description()
        ),
        facts: card::sizes(report).into(),
        notes: Vec::new(),
        unseen: Vec::new(),
        plain: report.plain.clone(),
        usage: card::usage(target, output),
    }
}
