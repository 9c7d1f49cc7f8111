//! The tensors of an MLX checkpoint, each as parts of the tensors of a Hugging Face checkpoint.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::rule::{Fit, Share};
use super::table::{self, How, Model, Rule};
use crate::{Entry, Part};

/// One tensor of an MLX checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Arranged {
    /// Its name there.
    pub name: String,
    /// As plain floats, outermost first.
    pub shape: Vec<usize>,
    /// What it is made of; one part for each expert of a stack.
    pub parts: Vec<Part>,
}

impl Arranged {
    /// An entry as it is.
    pub fn whole(index: usize, entry: &Entry) -> Arranged {
        Arranged::new(entry.name.clone(), index, Share::whole(&entry.shape))
    }

    fn new(name: String, entry: usize, share: Share) -> Arranged {
        Arranged {
            name,
            shape: share.shape,
            parts: vec![Part {
                entry,
                view: share.view,
            }],
        }
    }
}

/// The tensors that mlx-lm's model has, in the order of `entries`; those that it does not rearrange stay as they are.
///
/// # Errors
/// In words: a stack of which an expert is missing, a size that is not what config.json says.
pub fn arrange(config: &Map<String, Value>, entries: &[Entry]) -> Result<Vec<Arranged>, String> {
    let model_type = config.get("model_type").and_then(Value::as_str).unwrap_or_default();
    let Some(model) = table::model(model_type) else {
        let entries = entries.iter().enumerate();
        return Ok(entries.map(|(index, entry)| Arranged::whole(index, entry)).collect());
    };
    let arranger = Arranger { model, config, entries };
    let mut stacks = Stacks::default();
    for (index, entry) in entries.iter().enumerate() {
        if model.dropped.iter().any(|part| entry.name.contains(part)) {
            continue;
        }
        if let Some((name, slot)) = arranger.expert(entry) {
            stacks.add(arranger.with_prefix(&name), slot, index, entry)?;
            continue;
        }
        for (name, share) in arranger.shares(entry)? {
            let name = arranger.with_prefix(&name);
            stacks.tensors.push(Arranged::new(name, index, share));
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
    /// Adds an expert to the stack called `name`.
    fn add(&mut self, name: String, slot: usize, entry: usize, expert: &Entry) -> Result<(), String> {
        let index = *self.by_name.entry(name).or_insert_with_key(|name| {
            let mut stack = Arranged::new(name.clone(), entry, Share::whole(&expert.shape));
            stack.shape.insert(0, 0);
            stack.parts.clear();
            self.tensors.push(stack);
            self.tensors.len() - 1
        });
        let stack = &mut self.tensors[index];
        if stack.shape[1..] != expert.shape {
            return Err(format!(
                "experts of `{}` differ in shape: {:?} and {:?}",
                stack.name,
                &stack.shape[1..],
                expert.shape
            ));
        }
        stack.shape[0] += 1;
        let view = Share::whole(&expert.shape).view;
        stack.parts.push(Part { entry, view });
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
            stack.parts = order.iter().map(|&position| stack.parts[position].clone()).collect();
        }
        Ok(())
    }
}

struct Arranger<'a> {
    model: &'a Model,
    config: &'a Map<String, Value>,
    entries: &'a [Entry],
}

impl Arranger<'_> {
    /// The stack and the number of an expert's weight or bias.
    fn expert(&self, entry: &Entry) -> Option<(String, usize)> {
        self.model.rules.iter().find_map(|rule| expert(&entry.name, rule))
    }

    /// The tensors made of an entry, by their names.
    fn shares(&self, entry: &Entry) -> Result<Vec<(String, Share)>, String> {
        let head_rows = ["qk_nope_head_dim", "v_head_dim"].map(|key| self.number(key).unwrap_or(0));
        for rule in self.model.rules {
            let Some(fit) = Fit::new(&entry.name, rule.from).filter(|_| rule.applies(self.config)) else {
                continue;
            };
            let names: Vec<String> = rule.to.iter().map(|path| rule.name(&fit, path)).collect();
            let exists = |name: &String| self.entries.iter().any(|entry| entry.name == *name);
            if rule.how == How::Copy && names.iter().all(exists) {
                continue;
            }
            if rule.takes(&entry.name, &entry.shape, head_rows)? {
                let shares = rule.shares(&entry.shape, head_rows);
                return Ok(names.into_iter().zip(shares).collect());
            }
        }
        Ok(vec![(entry.name.clone(), Share::whole(&entry.shape))])
    }

    fn with_prefix(&self, name: &str) -> String {
        let mut prefixes = self.model.prefixes.iter();
        prefixes
            .find_map(|(hugging_face, mlx)| Some(format!("{mlx}{}", name.strip_prefix(hugging_face)?)))
            .unwrap_or_else(|| name.to_owned())
    }

    fn number(&self, key: &str) -> Option<usize> {
        usize::try_from(self.config.get(key)?.as_u64()?).ok()
    }
}

/// The stack that a rule puts an expert's tensor into, and the number of the expert.
fn expert(name: &str, rule: &Rule) -> Option<(String, usize)> {
    let How::Stack(parts) = rule.how else { return None };
    let (before, _) = name.split_once(&format!("{}.", rule.from))?;
    let (number, rest) = name[before.len() + rule.from.len() + 1..].split_once('.')?;
    let (part, suffix) = rest.split_at(rest.rfind('.')?);
    let (_, translated) = parts.iter().find(|(hugging_face, _)| *hugging_face == part)?;
    Some((
        format!("{before}{}.{translated}{suffix}", rule.to[0]),
        number.parse().ok()?,
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{Dtype, Layout};

    /// As `sanitize` of mlx-lm's qwen3_5_moe, qwen3_vl_moe and mistral4 names them.
    #[test]
    fn joined_experts_get_the_suffix_that_they_lack() {
        let entry = |name: &str, shape: &[usize]| Entry {
            name: format!("model.layers.0.mlp.experts.{name}"),
            shape: shape.to_vec(),
            layout: Layout::Plain(Dtype::BF16),
            stored_bytes: 2 * shape.iter().product::<usize>() as u64,
        };
        let config = json!({ "model_type": "qwen3_moe" });
        for suffix in ["", ".weight"] {
            let entries = [
                entry(&format!("gate_up_proj{suffix}"), &[4, 16, 32]),
                entry(&format!("down_proj{suffix}"), &[4, 32, 8]),
            ];
            let found = arrange(config.as_object().unwrap(), &entries).unwrap();
            let found: Vec<(&str, &[usize])> = found.iter().map(|tensor| (&*tensor.name, &*tensor.shape)).collect();
            let expected: [(&str, &[usize]); 3] = [
                ("model.layers.0.mlp.switch_mlp.gate_proj.weight", &[4, 8, 32]),
                ("model.layers.0.mlp.switch_mlp.up_proj.weight", &[4, 8, 32]),
                ("model.layers.0.mlp.switch_mlp.down_proj.weight", &[4, 32, 8]),
            ];
            assert_eq!(found, expected);
        }
    }
}
