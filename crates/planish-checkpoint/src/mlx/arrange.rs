//! The tensors of an MLX checkpoint, each as pieces of the tensors of a Hugging Face checkpoint.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::View;
use super::table::{self, Model, Rule};
use crate::Entry;

/// One tensor of an MLX checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Arranged {
    /// Its name there.
    pub name: String,
    /// As plain floats, outermost first.
    pub shape: Vec<usize>,
    /// What it is made of, rows of one after rows of the other.
    pub pieces: Vec<Piece>,
}

/// A part of a tensor of the source.
#[derive(Clone, Debug, PartialEq)]
pub struct Piece {
    /// Index of the entry.
    pub entry: usize,
    /// Which of its values.
    pub view: View,
}

/// A tensor, or one expert's share of a stack.
struct Part {
    name: String,
    shape: Vec<usize>,
    /// The number of the expert.
    slot: Option<usize>,
    view: View,
}

/// The tensors that mlx-lm's model has, in the order of `entries`; those that it does not rearrange stay as they are.
///
/// # Errors
/// In words: a stack of which an expert is missing, a size that is not what config.json says.
pub fn arrange(config: &Map<String, Value>, entries: &[Entry]) -> Result<Vec<Arranged>, String> {
    let model_type = config.get("model_type").and_then(Value::as_str).unwrap_or_default();
    let mut stacks = Stacks::default();
    for (index, entry) in entries.iter().enumerate() {
        let model = table::model(model_type);
        let parts = match model {
            Some(model) if model.dropped.iter().any(|part| entry.name.contains(part)) => Vec::new(),
            Some(model) => Arranger { model, config, entries }.parts(entry)?,
            None => vec![unchanged(entry)],
        };
        for part in parts {
            stacks.add(index, part)?;
        }
    }
    stacks.check()?;
    Ok(stacks.tensors)
}

/// Tensors so far.
#[derive(Default)]
struct Stacks {
    tensors: Vec<Arranged>,
    by_name: HashMap<String, usize>,
    /// Experts of each stack, by its index.
    slots: HashMap<usize, Vec<usize>>,
}

impl Stacks {
    fn add(&mut self, entry: usize, part: Part) -> Result<(), String> {
        let piece = Piece { entry, view: part.view };
        let Some(slot) = part.slot else {
            self.by_name.insert(part.name.clone(), self.tensors.len());
            self.tensors.push(Arranged {
                name: part.name,
                shape: part.shape,
                pieces: vec![piece],
            });
            return Ok(());
        };
        let Some(&index) = self.by_name.get(&part.name) else {
            self.by_name.insert(part.name.clone(), self.tensors.len());
            self.slots.insert(self.tensors.len(), vec![slot]);
            self.tensors.push(Arranged {
                name: part.name,
                shape: [&[1], &part.shape[..]].concat(),
                pieces: vec![piece],
            });
            return Ok(());
        };
        let stack = &mut self.tensors[index];
        if stack.shape[1..] != part.shape {
            return Err(format!(
                "experts of `{}` differ in shape: {:?} and {:?}",
                part.name,
                &stack.shape[1..],
                part.shape
            ));
        }
        stack.shape[0] += 1;
        stack.pieces.push(piece);
        self.slots.entry(index).or_default().push(slot);
        Ok(())
    }

    /// Sorts the experts of each stack.
    fn check(&mut self) -> Result<(), String> {
        for (index, slots) in &self.slots {
            let stack = &mut self.tensors[*index];
            let mut order: Vec<usize> = (0..slots.len()).collect();
            order.sort_by_key(|&position| slots[position]);
            if let Some(missing) = (0..slots.len()).find(|&slot| slots[order[slot]] != slot) {
                return Err(format!("expert {missing} of `{}` is missing", stack.name));
            }
            stack.pieces = order.iter().map(|&position| stack.pieces[position].clone()).collect();
        }
        Ok(())
    }
}

fn unchanged(entry: &Entry) -> Part {
    Part {
        name: entry.name.clone(),
        shape: entry.shape.clone(),
        slot: None,
        view: View::whole(entry.rows_cols().0),
    }
}

struct Arranger<'a> {
    model: &'a Model,
    config: &'a Map<String, Value>,
    entries: &'a [Entry],
}

impl Arranger<'_> {
    fn parts(&self, entry: &Entry) -> Result<Vec<Part>, String> {
        let mut parts = None;
        for rule in self.model.rules {
            parts = self.by_rule(rule, entry)?;
            if parts.is_some() {
                break;
            }
        }
        let mut parts = parts.unwrap_or_else(|| vec![unchanged(entry)]);
        for part in &mut parts {
            part.name = self.with_prefix(&part.name);
        }
        Ok(parts)
    }

    fn with_prefix(&self, name: &str) -> String {
        let prefixes = self.model.prefixes.iter();
        let found =
            prefixes.filter_map(|(hugging_face, mlx)| Some(format!("{mlx}{}", name.strip_prefix(hugging_face)?)));
        found.into_iter().next().unwrap_or_else(|| name.to_owned())
    }

    /// `None` where the rule does not fit.
    fn by_rule(&self, rule: &Rule, entry: &Entry) -> Result<Option<Vec<Part>>, String> {
        let whole = unchanged(entry);
        let renamed = |name: String| Part {
            name,
            ..unchanged(entry)
        };
        Ok(match rule {
            Rule::Stack { experts, stack, parts } => {
                expert(&entry.name, experts, parts).map(|(before, slot, part, suffix)| {
                    let name = format!("{before}{stack}.{part}{suffix}");
                    vec![Part {
                        slot: Some(slot),
                        name,
                        ..whole
                    }]
                })
            }
            Rule::Name(from, to) => fits(entry, from).map(|fit| vec![renamed(fit.named(to))]),
            Rule::Halves { joined, halves } => match fits(entry, joined) {
                Some(fit) => Some(self::halves(entry, &fit, halves)?),
                None => None,
            },
            Rule::Turned { joined, parts } => {
                match fits(entry, joined).filter(|fit| fit.suffix != ".bias" && entry.shape.len() > 1) {
                    Some(fit) => Some(turned(entry, &fit, parts)?),
                    None => None,
                }
            }
            Rule::InTurn { joined, parts } => fits(entry, joined).map(|fit| in_turn(entry, &fit, parts)),
            Rule::Convolution(path) => fits(entry, path)
                .filter(|fit| fit.suffix == ".weight" && entry.shape.len() == 3)
                .map(|_| {
                    let shape = vec![entry.shape[0], entry.shape[2], entry.shape[1]];
                    vec![Part { shape, ..whole }]
                }),
            Rule::AddOne(paths) => paths.iter().find_map(|path| fits(entry, path)).map(|_| {
                let view = View {
                    add: 1.0,
                    ..whole.view.clone()
                };
                vec![Part { view, ..whole }]
            }),
            Rule::KeysAndValues { joined, keys, values } => match fits(entry, joined) {
                Some(fit) => Some(self.keys_and_values(entry, &fit, keys, values)?),
                None => None,
            },
            Rule::WithoutExperts(rule) => match self.number("num_local_experts") {
                None | Some(0) => self.by_rule(rule, entry)?,
                Some(_) => None,
            },
            Rule::Copy(from, to) => fits(entry, from)
                .filter(|fit| {
                    let name = fit.named(to);
                    !self.entries.iter().any(|entry| entry.name == name)
                })
                .map(|fit| vec![unchanged(entry), renamed(fit.named(to))]),
        })
    }

    fn number(&self, key: &str) -> Option<usize> {
        usize::try_from(self.config.get(key)?.as_u64()?).ok()
    }

    fn keys_and_values(&self, entry: &Entry, fit: &Fit, keys: &str, values: &str) -> Result<Vec<Part>, String> {
        let (rows, cols) = entry.rows_cols();
        let [key_rows, value_rows] = ["qk_nope_head_dim", "v_head_dim"].map(|key| self.number(key).unwrap_or(0));
        let block_rows = key_rows + value_rows;
        if block_rows == 0 || !rows.is_multiple_of(block_rows) {
            return Err(format!(
                "`{}` has {rows} rows, not a multiple of qk_nope_head_dim + v_head_dim = {block_rows}",
                entry.name
            ));
        }
        let heads = rows / block_rows;
        let view = View {
            block_rows,
            ..View::whole(rows)
        };
        Ok(vec![
            Part {
                name: fit.named(keys),
                shape: vec![heads, cols, key_rows],
                slot: None,
                view: View {
                    rows: 0..key_rows,
                    turned: true,
                    ..view.clone()
                },
            },
            Part {
                name: fit.named(values),
                shape: vec![heads, value_rows, cols],
                slot: None,
                view: View {
                    rows: key_rows..block_rows,
                    ..view
                },
            },
        ])
    }
}

/// The name of a tensor taken apart at the path of a rule.
struct Fit<'a> {
    /// Ends in a dot, or is empty.
    before: &'a str,
    /// `.weight`, `.bias` or nothing.
    suffix: &'a str,
}

impl Fit<'_> {
    fn named(&self, path: &str) -> String {
        format!("{}{path}{}", self.before, self.suffix)
    }

    /// As [`Fit::named`], for weights that have no suffix at Hugging Face.
    fn weight(&self, path: &str) -> String {
        let suffix = if self.suffix.is_empty() { ".weight" } else { self.suffix };
        format!("{}{path}{suffix}", self.before)
    }
}

fn fits<'a>(entry: &'a Entry, path: &str) -> Option<Fit<'a>> {
    let name = &entry.name;
    let (module, suffix) = [".weight", ".bias"]
        .iter()
        .find_map(|suffix| Some((name.strip_suffix(suffix)?, &name[name.len() - suffix.len()..])))
        .unwrap_or((name, ""));
    let before = module.strip_suffix(path)?;
    (before.is_empty() || before.ends_with('.')).then_some(Fit { before, suffix })
}

/// What stands before the experts, the number of one, its part in the words of MLX, and `.weight` or `.bias`.
fn expert<'a>(
    name: &'a str,
    experts: &str,
    parts: &[(&str, &'static str)],
) -> Option<(&'a str, usize, &'static str, &'a str)> {
    let position = name.find(&format!("{experts}."))?;
    let (before, rest) = name.split_at(position);
    let (number, rest) = rest[experts.len() + 1..].split_once('.')?;
    let (part, suffix) = rest.split_at(rest.rfind('.')?);
    let (_, translated) = parts.iter().find(|(hugging_face, _)| *hugging_face == part)?;
    Some((before, number.parse().ok()?, translated, suffix))
}

fn halves(entry: &Entry, fit: &Fit, names: &[&str; 2]) -> Result<Vec<Part>, String> {
    let (rows, _) = entry.rows_cols();
    let Some(&block_rows) = entry.shape.iter().rev().nth(1).filter(|rows| rows.is_multiple_of(2)) else {
        let what = format!(
            "`{}`: expected an even number of rows, found shape {:?}",
            entry.name, entry.shape
        );
        return Err(what);
    };
    let half = block_rows / 2;
    let mut shape = entry.shape.clone();
    let place = shape.len() - 2;
    shape[place] = half;
    let part = |index: usize| Part {
        name: fit.weight(names[index]),
        shape: shape.clone(),
        slot: None,
        view: View {
            block_rows,
            rows: index * half..(index + 1) * half,
            ..View::whole(rows)
        },
    };
    Ok(vec![part(0), part(1)])
}

fn turned(entry: &Entry, fit: &Fit, names: &[&str]) -> Result<Vec<Part>, String> {
    let (rows, cols) = entry.rows_cols();
    let block_rows = entry.shape[entry.shape.len() - 2];
    if !cols.is_multiple_of(names.len()) {
        return Err(format!(
            "`{}`: {cols} columns are not those of {} tensors",
            entry.name,
            names.len()
        ));
    }
    let mut shape = entry.shape.clone();
    let place = shape.len() - 2;
    shape[place] = cols / names.len();
    shape[place + 1] = block_rows;
    let part = |(index, name): (usize, &&str)| Part {
        name: fit.weight(name),
        shape: shape.clone(),
        slot: None,
        view: View {
            block_rows,
            rows: 0..block_rows,
            first_col: index,
            col_step: names.len(),
            turned: true,
            ..View::whole(rows)
        },
    };
    Ok(names.iter().enumerate().map(part).collect())
}

fn in_turn(entry: &Entry, fit: &Fit, names: &[&str]) -> Vec<Part> {
    let (rows, cols) = entry.rows_cols();
    let mut shape = entry.shape.clone();
    if let Some(last) = shape.last_mut() {
        *last = cols / names.len();
    }
    let part = |(index, name): (usize, &&str)| Part {
        name: format!("{}{name}", fit.before),
        shape: shape.clone(),
        slot: None,
        view: View {
            first_col: index,
            col_step: names.len(),
            ..View::whole(rows)
        },
    };
    names.iter().enumerate().map(part).collect()
}
