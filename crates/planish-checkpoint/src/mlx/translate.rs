//! Entries under the names of mlx-lm as entries under those of Hugging Face: the way back of [`super::arrange()`].
//!
//! Stacks become one entry for each expert, a view of the stack. What cannot be told apart without arithmetic on packed words
//! (transposed stacks) keeps its name.

use std::collections::HashMap;

use planish_format::FloatType;
use serde_json::{Map, Value};

use super::rule::{Fit, Share};
use super::table::{self, How, Model, Rule};
use crate::assemble::PartsByName;
use crate::order::natural_order;
use crate::tensor::rows_cols;
use crate::{Dtype, Entry, Layout, Part, View};

/// An entry under its Hugging Face name and the parts of the stored entries that it is made of.
type Translated = (Entry, Vec<Part>);

/// The entries under Hugging Face names, and the parts of those that are not stored so; `None` where all are.
pub(crate) fn translate(config: &Map<String, Value>, stored: &[Entry]) -> Option<(Vec<Entry>, PartsByName)> {
    translate_by(table::model(config.get("model_type")?.as_str()?)?, config, stored)
}

/// The same by a row that the caller has.
pub(crate) fn translate_by(
    model: &Model,
    config: &Map<String, Value>,
    stored: &[Entry],
) -> Option<(Vec<Entry>, PartsByName)> {
    let entries: Vec<Entry> = stored.iter().map(|entry| without_prefix(model, entry)).collect();
    let translator = Translator {
        model,
        config,
        rearranged: stored.iter().any(is_rearranged),
        by_name: entries
            .iter()
            .enumerate()
            .map(|(index, entry)| (entry.name.as_str(), index))
            .collect(),
        entries: &entries,
        stored,
    };
    let mut translated = Vec::with_capacity(stored.len());
    let mut places = PartsByName::new();
    for (index, entry) in stored.iter().enumerate() {
        let Some(found) = translator.entry(index) else {
            translated.push(entry.clone());
            continue;
        };
        for (entry, parts) in found {
            places.insert(entry.name.clone(), parts);
            translated.push(entry);
        }
    }
    if places.is_empty() {
        return None;
    }
    translated.sort_by(|left, right| natural_order(&left.name, &right.name));
    Some((translated, places))
}

/// An entry with the beginning that its name has at Hugging Face.
fn without_prefix(model: &Model, entry: &Entry) -> Entry {
    let mut prefixes = model.prefixes.iter();
    let name =
        prefixes.find_map(|(hugging_face, mlx)| Some(format!("{hugging_face}{}", entry.name.strip_prefix(mlx)?)));
    Entry {
        name: name.unwrap_or_else(|| entry.name.clone()),
        ..entry.clone()
    }
}

/// Whether a tensor is one that only mlx-lm has in this form.
fn is_rearranged(entry: &Entry) -> bool {
    let convolution = entry.name.ends_with(".conv1d.weight") && matches!(entry.shape[..], [_, width, 1] if width > 1);
    convolution || entry.name.contains(".switch_mlp.")
}

struct Translator<'a> {
    model: &'a Model,
    config: &'a Map<String, Value>,
    /// The checkpoint has been through mlx-lm, so that norms have had their one added.
    rearranged: bool,
    /// By the names of `entries`.
    by_name: HashMap<&'a str, usize>,
    /// With the beginnings of names that they have at Hugging Face.
    entries: &'a [Entry],
    stored: &'a [Entry],
}

impl Translator<'_> {
    /// `None` for an entry that stays as it is.
    fn entry(&self, index: usize) -> Option<Vec<Translated>> {
        let entry = &self.entries[index];
        let mut rules = self.model.rules.iter().filter(|rule| rule.applies(self.config));
        let found = rules.find_map(|rule| match rule.how {
            How::Stack(parts) => unstacked(index, entry, rule, parts),
            _ => self.joined(index, rule),
        });
        found.or_else(|| {
            let part = Part {
                entry: index,
                view: View::whole(entry.rows_cols().0),
            };
            self.is_renamed(index).then(|| vec![(entry.clone(), vec![part])])
        })
    }

    fn is_renamed(&self, index: usize) -> bool {
        self.entries[index].name != self.stored[index].name
    }

    /// The first of the tensors that a rule made becomes the one that they were made of, the others nothing.
    fn joined(&self, index: usize, rule: &Rule) -> Option<Vec<Translated>> {
        let fit = rule
            .to
            .iter()
            .find_map(|path| Fit::new(&self.entries[index].name, path));
        let fit = fit.filter(|fit| !fit.suffix.is_empty())?;
        let indices: Option<Vec<usize>> = rule
            .to
            .iter()
            .map(|path| self.by_name.get(fit.named(path).as_str()).copied())
            .collect();
        let indices = indices?;
        let entries: Vec<&Entry> = indices.iter().map(|&index| &self.entries[index]).collect();
        let shapes: Vec<&[usize]> = entries.iter().map(|entry| &entry.shape[..]).collect();
        let (shape, head_rows) = rule.joined(&shapes)?;
        let name = fit.named(rule.from);
        if rule.takes(&name, &shape, head_rows) != Ok(true) {
            return None;
        }
        let shares = rule.shares(&shape, head_rows);
        if !shares.iter().map(|share| &share.shape[..]).eq(shapes) {
            return None;
        }
        let layout = self.layout(rule, &indices)?;
        if index != indices[0] {
            return Some(Vec::new());
        }
        let cols = rows_cols(&shape).1;
        let part = |(&entry, share): (&usize, &Share)| {
            let view = share.view.inverse(cols)?;
            Some(Part { entry, view })
        };
        let parts: Option<Vec<Part>> = indices.iter().zip(&shares).map(part).collect();
        let entry = Entry {
            name,
            shape,
            layout,
            stored_bytes: entries.iter().map(|entry| entry.stored_bytes).sum(),
        };
        Some(vec![(entry, parts?)])
    }

    /// How the joined tensor is stored; `None` where it cannot be joined.
    fn layout(&self, rule: &Rule, indices: &[usize]) -> Option<Layout> {
        let layouts = || indices.iter().map(|&index| &self.entries[index].layout);
        let same = || {
            layouts()
                .next()
                .filter(|first| layouts().all(|layout| layout == *first))
                .cloned()
        };
        match rule.how {
            How::AddOne => {
                let float = matches!(same()?, Layout::Plain(dtype) if dtype.float_type().is_some());
                (self.rearranged && float).then_some(Layout::Plain(Dtype::F32))
            }
            How::KeysAndValues => {
                let mut types = layouts().map(unpacked_type);
                let first = types.next()??;
                types
                    .all(|other| other == Some(first))
                    .then_some(Layout::Plain(first.into()))
            }
            How::Transposed => {
                same().filter(|layout| self.is_renamed(indices[0]) && matches!(layout, Layout::Plain(_)))
            }
            _ => same(),
        }
    }
}

/// The float type that an entry has, or is unpacked to.
fn unpacked_type(layout: &Layout) -> Option<FloatType> {
    match layout {
        Layout::Plain(dtype) => dtype.float_type(),
        Layout::Packed { scale_type, .. } => Some(*scale_type),
    }
}

/// One entry for each expert of a stack.
fn unstacked(index: usize, entry: &Entry, rule: &Rule, parts: &[(&str, &str)]) -> Option<Vec<Translated>> {
    let fits = parts.iter().find_map(|(hugging_face, mlx)| {
        let fit = Fit::new(&entry.name, &format!("{}.{mlx}", rule.to[0]))?;
        Some((hugging_face, fit))
    });
    let (part, fit) = fits.filter(|(_, fit)| !fit.suffix.is_empty())?;
    let sizes = if fit.suffix == ".bias" { 2 } else { 3 };
    if entry.shape.len() != sizes {
        return None;
    }
    let (experts, shape) = (entry.shape[0], &entry.shape[1..]);
    let rows = if sizes == 3 { shape[0] } else { 1 };
    let one = |expert: usize| {
        let one = Entry {
            name: fit.named(&format!("{}.{expert}.{part}", rule.from)),
            shape: shape.to_vec(),
            layout: entry.layout.clone(),
            stored_bytes: entry.stored_bytes / experts as u64,
        };
        let view = View::of_blocks(experts * rows, expert * rows..(expert + 1) * rows);
        (one, vec![Part { entry: index, view }])
    };
    Some((0..experts).map(one).collect())
}
