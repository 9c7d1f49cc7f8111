//! Entries under the names of mlx-lm as entries under those of Hugging Face: the way back of [`super::arrange()`].
//!
//! Stacks become one entry for each expert, a view of the stack. What cannot be told apart without arithmetic on packed words
//! (turned stacks) keeps its name.

use std::collections::HashMap;
use std::ops::Range;

use bytes::Bytes;
use planish_format::{FloatType, PackedMatrix, dequantize};
use serde_json::{Map, Value};

use super::table::{self, Model, Rule};
use crate::order::natural_order;
use crate::{Dtype, Entry, Layout, Tensor, Weight};

/// Where a translated entry is.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// The stored tensor, under another name or in another shape.
    Same(Entry),
    /// Some rows of it.
    Rows(Entry, Range<usize>),
    /// Blocks of rows of two tensors in turn.
    Halves([Entry; 2], usize),
    /// The stored tensor turned over.
    Turned(Entry),
    /// One less than stored, in f32.
    LessOne(Entry),
    /// Of each head the keys, turned back, then the values; unpacked.
    KeysAndValues([Entry; 2]),
}

/// The entries under Hugging Face names, and the places of those that are not stored so; `None` where all are.
pub(crate) fn translate(
    config: &Map<String, Value>,
    entries: &[Entry],
) -> Option<(Vec<Entry>, HashMap<String, Place>)> {
    let model = table::model(config.get("model_type")?.as_str()?)?;
    let by_name: HashMap<&str, &Entry> = entries.iter().map(|entry| (entry.name.as_str(), entry)).collect();
    let translator = Translator {
        model,
        without_experts: matches!(
            config.get("num_local_experts").map(Value::as_u64),
            None | Some(None | Some(0))
        ),
        rearranged: entries.iter().any(is_rearranged),
        by_name,
    };
    let mut translated = Vec::with_capacity(entries.len());
    let mut places = HashMap::new();
    for entry in entries {
        let Some(found) = translator.entry(entry) else {
            translated.push(entry.clone());
            continue;
        };
        for (entry, place) in found {
            places.insert(entry.name.clone(), place);
            translated.push(entry);
        }
    }
    if places.is_empty() {
        return None;
    }
    translated.sort_by(|left, right| natural_order(&left.name, &right.name));
    Some((translated, places))
}

/// Whether a tensor is one that only mlx-lm has in this form.
fn is_rearranged(entry: &Entry) -> bool {
    let convolution = entry.name.ends_with(".conv1d.weight") && matches!(entry.shape[..], [_, width, 1] if width > 1);
    convolution || entry.name.contains(".switch_mlp.")
}

struct Translator<'a> {
    model: &'a Model,
    without_experts: bool,
    /// The checkpoint has been through mlx-lm, so that norms have had their one added.
    rearranged: bool,
    by_name: HashMap<&'a str, &'a Entry>,
}

impl Translator<'_> {
    /// `None` for an entry that stays as it is.
    fn entry(&self, stored: &Entry) -> Option<Vec<(Entry, Place)>> {
        let prefixes = self.model.prefixes.iter();
        let renamed = prefixes
            .filter_map(|(hugging_face, mlx)| Some(format!("{hugging_face}{}", stored.name.strip_prefix(mlx)?)))
            .next();
        let entry = Entry {
            name: renamed.clone().unwrap_or_else(|| stored.name.clone()),
            ..stored.clone()
        };
        let by_rule = |rule| self.by_rule(rule, &entry, stored, renamed.is_some());
        let found = self.model.rules.iter().find_map(by_rule);
        found.or_else(|| renamed.map(|_| vec![(entry, Place::Same(stored.clone()))]))
    }

    fn by_rule(&self, rule: &Rule, entry: &Entry, stored: &Entry, renamed: bool) -> Option<Vec<(Entry, Place)>> {
        let same = |name: String| Some(vec![(Entry { name, ..entry.clone() }, Place::Same(stored.clone()))]);
        match rule {
            Rule::Stack { experts, stack, parts } => parts.iter().find_map(|(hugging_face, mlx)| {
                let fit = fit(&entry.name, &format!("{stack}.{mlx}"))?;
                let named = |expert: usize| format!("{}{experts}.{expert}.{hugging_face}.{}", fit.before, fit.suffix);
                unstacked(entry, stored, named, if fit.suffix == "bias" { 2 } else { 3 })
            }),
            Rule::Name(to, from) => {
                let fit = fit(&entry.name, from)?;
                same(format!("{}{to}.{}", fit.before, fit.suffix))
            }
            Rule::Halves { joined, halves } => self.joined(entry, joined, halves),
            Rule::Turned { joined, parts } => {
                let [part] = parts else { return None };
                let fit = fit(&entry.name, part)?;
                let plain = matches!(entry.layout, Layout::Plain(_)) && entry.shape.len() == 2;
                if !renamed || fit.suffix != "weight" || !plain {
                    return None;
                }
                let entry = Entry {
                    name: format!("{}{joined}.weight", fit.before),
                    shape: vec![entry.shape[1], entry.shape[0]],
                    ..entry.clone()
                };
                Some(vec![(entry, Place::Turned(stored.clone()))])
            }
            Rule::Convolution(path) => {
                let fit = fit(&entry.name, path)?;
                if fit.suffix != "weight" || entry.shape.len() != 3 || entry.shape[2] != 1 {
                    return None;
                }
                let shape = vec![entry.shape[0], 1, entry.shape[1]];
                Some(vec![(Entry { shape, ..entry.clone() }, Place::Same(stored.clone()))])
            }
            Rule::AddOne(paths) => {
                let is_norm = paths.iter().any(|path| fit(&entry.name, path).is_some());
                if !self.rearranged || !is_norm {
                    return None;
                }
                let layout = Layout::Plain(Dtype::F32);
                Some(vec![(
                    Entry {
                        layout,
                        ..entry.clone()
                    },
                    Place::LessOne(stored.clone()),
                )])
            }
            Rule::WithoutExperts(rule) if self.without_experts => self.by_rule(rule, entry, stored, renamed),
            Rule::KeysAndValues { joined, keys, values } => self.keys_and_values(entry, joined, [keys, values]),
            // Turned stacks cannot be joined again while packed; what was copied stays.
            Rule::WithoutExperts(_) | Rule::InTurn { .. } | Rule::Copy(..) => None,
        }
    }

    /// The keys (heads, rank, size) become the joined tensor (heads * (size + value size), rank), the values nothing.
    fn keys_and_values(&self, entry: &Entry, joined: &str, names: [&str; 2]) -> Option<Vec<(Entry, Place)>> {
        let fit = names.iter().find_map(|name| fit(&entry.name, name))?;
        let part = |name: &str| {
            self.by_name
                .get(format!("{}{name}.{}", fit.before, fit.suffix).as_str())
                .copied()
        };
        let [keys, values] = [part(names[0])?, part(names[1])?];
        let (&[heads, rank, key_rows], &[value_heads, value_rows, value_rank]) = (&keys.shape[..], &values.shape[..])
        else {
            return None;
        };
        let float_type = unpacked_type(keys)?;
        if (heads, rank) != (value_heads, value_rank) || unpacked_type(values) != Some(float_type) {
            return None;
        }
        if entry.name == values.name {
            return Some(Vec::new());
        }
        let entry = Entry {
            name: format!("{}{joined}.{}", fit.before, fit.suffix),
            shape: vec![heads * (key_rows + value_rows), rank],
            layout: Layout::Plain(float_type.into()),
            stored_bytes: keys.stored_bytes + values.stored_bytes,
        };
        Some(vec![(entry, Place::KeysAndValues([keys.clone(), values.clone()]))])
    }

    /// The first half becomes the joined tensor, the second nothing.
    fn joined(&self, entry: &Entry, joined: &str, names: &[&str; 2]) -> Option<Vec<(Entry, Place)>> {
        let fit = names.iter().find_map(|name| fit(&entry.name, name))?;
        let half = |name: &str| {
            self.by_name
                .get(format!("{}{name}.{}", fit.before, fit.suffix).as_str())
                .copied()
        };
        let halves = [half(names[0])?, half(names[1])?];
        if halves[0].shape != halves[1].shape || halves[0].layout != halves[1].layout || entry.shape.len() < 2 {
            return None;
        }
        if entry.name == halves[1].name {
            return Some(Vec::new());
        }
        let mut shape = entry.shape.clone();
        let place = shape.len() - 2;
        let half_rows = shape[place];
        shape[place] = 2 * half_rows;
        let entry = Entry {
            name: format!("{}{joined}.{}", fit.before, fit.suffix),
            shape,
            layout: entry.layout.clone(),
            stored_bytes: halves[0].stored_bytes + halves[1].stored_bytes,
        };
        Some(vec![(entry, Place::Halves(halves.map(Entry::clone), half_rows))])
    }
}

/// The float type that an entry has, or is unpacked to.
fn unpacked_type(entry: &Entry) -> Option<FloatType> {
    match &entry.layout {
        Layout::Plain(dtype) => dtype.float_type(),
        Layout::Packed { scale_type, .. } => Some(*scale_type),
        Layout::Unsupported(_) => None,
    }
}

/// One entry for each expert of a stack.
fn unstacked(
    entry: &Entry,
    stored: &Entry,
    named: impl Fn(usize) -> String,
    sizes: usize,
) -> Option<Vec<(Entry, Place)>> {
    if entry.shape.len() != sizes || matches!(entry.layout, Layout::Unsupported(_)) {
        return None;
    }
    let (experts, shape) = (entry.shape[0], &entry.shape[1..]);
    let rows = if sizes == 3 { shape[0] } else { 1 };
    let one = |expert: usize| {
        let one = Entry {
            name: named(expert),
            shape: shape.to_vec(),
            layout: entry.layout.clone(),
            stored_bytes: entry.stored_bytes / experts as u64,
        };
        (one, Place::Rows(stored.clone(), expert * rows..(expert + 1) * rows))
    };
    Some((0..experts).map(one).collect())
}

/// A name taken apart at a path.
struct Fit<'a> {
    /// Ends in a dot, or is empty.
    before: &'a str,
    /// `weight` or `bias`.
    suffix: &'a str,
}

fn fit<'a>(name: &'a str, path: &str) -> Option<Fit<'a>> {
    let (module, suffix) = name.rsplit_once('.')?;
    let before = module.strip_suffix(path)?;
    let fits = (before.is_empty() || before.ends_with('.')) && matches!(suffix, "weight" | "bias");
    fits.then_some(Fit { before, suffix })
}

impl Place {
    /// The stored entries that this one is made of.
    pub fn stored(&self) -> Vec<&Entry> {
        match self {
            Place::Same(stored) | Place::Rows(stored, _) | Place::Turned(stored) | Place::LessOne(stored) => {
                vec![stored]
            }
            Place::Halves(halves, _) | Place::KeysAndValues(halves) => halves.iter().collect(),
        }
    }

    /// The weight of `entry`, made of what `read` gives for the stored entries.
    pub fn read<E>(&self, entry: &Entry, read: impl Fn(&Entry) -> Result<Weight, E>) -> Result<Weight, E> {
        Ok(match self {
            Place::Same(stored) => shaped(read(stored)?, entry),
            Place::Rows(stored, rows) => shaped(rows_of(&read(stored)?, rows.clone()), entry),
            Place::Halves([first, second], block) => {
                let (first, second) = (read(first)?, read(second)?);
                shaped(in_turn(&first, &second, *block), entry)
            }
            Place::Turned(stored) => turned(read(stored)?, entry),
            Place::LessOne(stored) => less_one(read(stored)?, entry),
            Place::KeysAndValues(parts) => {
                let [keys, values] = [plain(read(&parts[0])?), plain(read(&parts[1])?)];
                Weight::Plain(keys_and_values(&keys, &values, parts, entry))
            }
        })
    }
}

/// With the shape of the entry.
fn shaped(weight: Weight, entry: &Entry) -> Weight {
    match weight {
        Weight::Plain(tensor) => Weight::Plain(Tensor {
            shape: entry.shape.clone(),
            ..tensor
        }),
        packed @ Weight::Packed(_) => packed,
    }
}

/// Some rows, without a copy.
fn rows_of(weight: &Weight, rows: Range<usize>) -> Weight {
    match weight {
        Weight::Plain(tensor) => {
            let row_bytes = tensor.shape.last().copied().unwrap_or(1) * tensor.dtype.size_bytes();
            Weight::Plain(Tensor {
                dtype: tensor.dtype,
                shape: vec![rows.len(), tensor.shape.last().copied().unwrap_or(1)],
                data: tensor.data.slice(rows.start * row_bytes..rows.end * row_bytes),
            })
        }
        Weight::Packed(matrix) => Weight::Packed(matrix.slice_rows(rows)),
    }
}

/// `block` rows of the first, as many of the second, and so on.
fn in_turn(first: &Weight, second: &Weight, block: usize) -> Weight {
    let join = |first: &Bytes, second: &Bytes, row_bytes: usize| -> Bytes {
        let step = (block * row_bytes).max(1);
        let blocks = first.chunks(step).zip(second.chunks(step));
        blocks
            .flat_map(|(first, second)| [first, second])
            .collect::<Vec<_>>()
            .concat()
            .into()
    };
    match (first, second) {
        (Weight::Packed(first), Weight::Packed(second)) => {
            let shape = first.shape();
            let mut joined: PackedMatrix = first.clone();
            joined.rows += second.rows;
            joined.codes = join(&first.codes, &second.codes, shape.code_row_bytes());
            joined.scales = join(&first.scales, &second.scales, shape.scale_row_bytes());
            joined.biases = join(&first.biases, &second.biases, shape.scale_row_bytes());
            Weight::Packed(joined)
        }
        (Weight::Plain(first), Weight::Plain(second)) => {
            let row_bytes = first.shape.last().copied().unwrap_or(1) * first.dtype.size_bytes();
            Weight::Plain(Tensor {
                data: join(&first.data, &second.data, row_bytes),
                ..first.clone()
            })
        }
        // The translator joins entries of one layout only.
        (first, _) => first.clone(),
    }
}

/// A plain matrix (cols, rows) as (rows, cols).
fn turned(weight: Weight, entry: &Entry) -> Weight {
    let Weight::Plain(tensor) = weight else { return weight };
    let (rows, cols) = entry.rows_cols();
    let size = tensor.dtype.size_bytes();
    let mut data = Vec::with_capacity(tensor.data.len());
    for row in 0..rows {
        for col in 0..cols {
            data.extend_from_slice(&tensor.data[(col * rows + row) * size..][..size]);
        }
    }
    Weight::Plain(Tensor {
        shape: entry.shape.clone(),
        data: data.into(),
        ..tensor
    })
}

/// The tensor, unpacked to the type of its scales.
fn plain(weight: Weight) -> Tensor {
    match weight {
        Weight::Plain(tensor) => tensor,
        Weight::Packed(matrix) => Tensor {
            dtype: matrix.scale_type.into(),
            shape: vec![matrix.rows, matrix.cols],
            data: dequantize(&matrix, matrix.scale_type).into(),
        },
    }
}

/// Of each head the keys (rank, size) turned over, then the values (size, rank).
fn keys_and_values(keys: &Tensor, values: &Tensor, parts: &[Entry; 2], entry: &Entry) -> Tensor {
    let size = keys.dtype.size_bytes();
    let (heads, rank, key_rows) = (parts[0].shape[0], parts[0].shape[1], parts[0].shape[2]);
    let value_bytes = values.data.len() / heads.max(1);
    let mut data = Vec::with_capacity(keys.data.len() + values.data.len());
    for head in 0..heads {
        for row in 0..key_rows {
            for col in 0..rank {
                let place = ((head * rank + col) * key_rows + row) * size;
                data.extend_from_slice(&keys.data[place..place + size]);
            }
        }
        data.extend_from_slice(&values.data[head * value_bytes..(head + 1) * value_bytes]);
    }
    Tensor {
        dtype: keys.dtype,
        shape: entry.shape.clone(),
        data: data.into(),
    }
}

fn less_one(weight: Weight, entry: &Entry) -> Weight {
    let (Weight::Plain(tensor), Some(float_type)) = (&weight, float_type(&weight)) else {
        return weight;
    };
    let mut values = vec![0.0; tensor.data.len() / float_type.size_bytes()];
    float_type.decode(&tensor.data, &mut values);
    let data: Vec<u8> = values.iter().flat_map(|value| (value - 1.0).to_le_bytes()).collect();
    Weight::Plain(Tensor {
        dtype: Dtype::F32,
        shape: entry.shape.clone(),
        data: data.into(),
    })
}

fn float_type(weight: &Weight) -> Option<FloatType> {
    match weight {
        Weight::Plain(tensor) => tensor.dtype.float_type(),
        Weight::Packed(_) => None,
    }
}
