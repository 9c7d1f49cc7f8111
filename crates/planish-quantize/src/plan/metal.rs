//! The plan for the metal format of transformers: every entry is a tensor of the output, and config.json lists what stays plain.

use planish_checkpoint::Entry;
use planish_checkpoint::mlx::Arranged;
use planish_format::Packing;
use serde_json::{Map, Value};

use super::{Plan, Planner, Reason, fit, module};
use crate::layers::{Role, TIED_HEADS};
use crate::{Error, Patterns, Remedy, Target};

impl Planner<'_> {
    /// A listed name may, as a pattern, match more modules than the one it names: those become plain as well, because
    /// transformers would expect them so.
    pub(super) fn metal(&self, entries: &[Entry]) -> Result<Plan, Error> {
        let roles: Vec<Role> = entries.iter().map(|entry| self.classifier.role(entry)).collect();
        if self.recipe.include_head && !roles.contains(&Role::Head) {
            let what =
                "there is no output head to pack: it is tied to the embeddings, which the metal format leaves plain";
            return Err(Error::inexpressible(what, Remedy::PackBoth(Target::Mlx)));
        }
        let packings = entries.iter().zip(&roles);
        let packings: Vec<_> = packings.map(|(entry, role)| self.metal_packing(entry, *role)).collect();
        let layers: Vec<Listed> = entries
            .iter()
            .zip(roles)
            .zip(&packings)
            .map(|((entry, role), packing)| Listed {
                module: module(&entry.name),
                role,
                packed: packing.is_ok(),
            })
            .collect();
        let names = modules_to_not_convert(self.config, &layers, &self.recipe.exclude);
        let patterns = Patterns::new(names.iter().flatten())?;
        let decided = |(index, (entry, packing)): (usize, (&Entry, Result<Packing, Reason>))| {
            let packing = match packing {
                Ok(_) if patterns.matches(module(&entry.name)) => Err(Reason::Excluded),
                packing => packing,
            };
            self.decided(Arranged::whole(index, entry), entry, packing)
        };
        Ok(Plan {
            tensors: entries.iter().zip(packings).enumerate().map(decided).collect(),
            modules_to_not_convert: names,
        })
    }

    fn metal_packing(&self, entry: &Entry, role: Role) -> Result<Packing, Reason> {
        let packs = match role {
            Role::Other | Role::Transposed => return Err(Reason::NotAMatrix),
            Role::Linear => true,
            Role::Head => self.recipe.include_head,
            // A stack without `.weight` has no module whose scales could stand beside it.
            Role::Expert => self.recipe.include_experts && entry.module().is_some(),
            Role::Embedding | Role::Router | Role::LinearRouter | Role::LinearF32 => false,
        };
        match packs {
            false => Err(Reason::NotPackedByDialect),
            true if self.exclude.matches(module(&entry.name)) => Err(Reason::Excluded),
            true => fit(entry, &entry.shape, self.recipe.packing),
        }
    }
}

/// A layer, as the list of exceptions in a metal config sees it.
pub(crate) struct Listed<'a> {
    pub module: &'a str,
    pub role: Role,
    pub packed: bool,
}

/// The list that makes transformers leave plain what is plain here: `asked` for by the user, or plain for another reason.
/// `None` where its own default, which keeps the output head and tied weights, says the same.
pub(crate) fn modules_to_not_convert(
    config: &Map<String, Value>,
    layers: &[Listed],
    asked: &[String],
) -> Option<Vec<String>> {
    let head_packed = layers.iter().any(|layer| layer.role == Role::Head && layer.packed);
    let plain_linear = layers
        .iter()
        .filter(|layer| layer.role == Role::Linear && !layer.packed);
    let mut names: Vec<String> = plain_linear.map(|layer| layer.module.to_owned()).collect();
    if layers.iter().any(|layer| layer.role == Role::LinearRouter) {
        names.push("mlp.router".to_owned()); // as transformers calls it
    }
    if names.is_empty() && asked.is_empty() && !head_packed {
        return None;
    }
    // transformers 5 holds the language model of a multimodal checkpoint under another name than the file.
    let moved = |name: &String| {
        Some(format!(
            "model.language_model.{}",
            name.strip_prefix("language_model.model.")?
        ))
    };
    names.extend(names.iter().filter_map(moved).collect::<Vec<_>>());
    // A name that the user's own patterns cover need not be listed again.
    if let Ok(patterns) = Patterns::new(asked) {
        names.retain(|name| !patterns.matches(name));
    }
    // A tied head has no tensor of its own, and is a linear layer to transformers all the same.
    let plain_heads = layers
        .iter()
        .filter(|layer| layer.role == Role::Head && !layer.packed)
        .map(|layer| layer.module);
    let mut list: Vec<String> = Vec::new();
    let heads = (!head_packed)
        .then_some("lm_head")
        .into_iter()
        .chain(plain_heads)
        .map(str::to_owned)
        .chain(tied_heads(config));
    for name in heads.chain(asked.iter().cloned()).chain(names) {
        if !list.contains(&name) {
            list.push(name);
        }
    }
    Some(list)
}

/// The heads that models other than causal language models may have without a tensor of their own.
fn tied_heads(config: &Map<String, Value>) -> Vec<String> {
    let class = config.get("architectures").and_then(|names| names.get(0)?.as_str());
    if class.is_none_or(|class| class.ends_with("ForCausalLM")) {
        return Vec::new();
    }
    let pattern = |(above, name): &(&str, &str)| match *above {
        "" => format!("{name}$"), // at the top level only
        above => format!("{above}.{name}"),
    };
    TIED_HEADS.iter().map(pattern).collect()
}
