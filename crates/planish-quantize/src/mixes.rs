//! Mixes of widths that peers call by name: the recipes of mlx-lm, layer by layer as mlx-lm 0.32 has them (tests/mixes.rs), and the
//! mixtures of llama.cpp with its K-quants taken for their widths (Q4_K is 4 bits).

use planish_checkpoint::Entry;
use planish_format::Packing;
use serde_json::{Map, Value, json};

use crate::plan::{OutputTensor, Reason};
use crate::{Allocation, Error, Recipe, Remedy, Target};

/// A mix of widths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mix {
    name: &'static str,
    low: u32,
    rule: Rule,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// These bits for values and down projections of the first and last eighth of the layers and of every third between, and for
    /// an output head of its own.
    MlxLm(u32),
    /// More bits for values, down projections, fused projections and outputs of attention.
    LlamaCpp(LlamaCpp),
}

/// Bits by kind of layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct LlamaCpp {
    /// Of values and down projections in the layers where mlx-lm gives more bits, too.
    more: Option<u32>,
    /// Of the values of the first two layers, and of those of the others.
    values: [u32; 2],
    /// Of the down projections of the first sixteenth of the layers, and of the others.
    down: [u32; 2],
    outputs: u32,
    fused: u32,
}

/// Bits of the head, and of an embedding that serves as one.
const HEAD_BITS: u32 = 6;

const MIXES: [Mix; 7] = [
    mlx_lm("mixed_2_6", 2, 6),
    mlx_lm("mixed_3_4", 3, 4),
    mlx_lm("mixed_3_6", 3, 6),
    mlx_lm("mixed_4_6", 4, 6),
    Mix {
        name: "q3_k_m",
        low: 3,
        rule: Rule::LlamaCpp(LlamaCpp {
            more: None,
            values: [5, 4],
            down: [5, 4],
            outputs: 4,
            fused: 4,
        }),
    },
    Mix {
        name: "q4_k_m",
        low: 4,
        rule: Rule::LlamaCpp(LlamaCpp {
            more: Some(6),
            values: [4, 4],
            down: [4, 4],
            outputs: 4,
            fused: 5,
        }),
    },
    Mix {
        name: "q5_k_m",
        low: 5,
        rule: Rule::LlamaCpp(LlamaCpp {
            more: Some(6),
            values: [5, 5],
            down: [5, 5],
            outputs: 5,
            fused: 6,
        }),
    },
];

const fn mlx_lm(name: &'static str, low: u32, high: u32) -> Mix {
    Mix {
        name,
        low,
        rule: Rule::MlxLm(high),
    }
}

impl Mix {
    /// The names of all.
    pub fn names() -> impl Iterator<Item = &'static str> {
        MIXES.iter().map(|mix| mix.name)
    }

    /// The mix of that name.
    pub fn named(name: &str) -> Option<Mix> {
        MIXES.into_iter().find(|mix| mix.name == name)
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The bits that most layers have.
    pub fn bits(&self) -> u32 {
        self.low
    }

    /// What each layer of a checkpoint gets that `recipe` would pack for MLX, in the recipe's group.
    ///
    /// # Errors
    /// As [`Recipe::plan`]; a model without layers of the names that the mix tells apart, as in mlx-lm.
    pub fn allocation(
        &self,
        recipe: &Recipe,
        config: &Map<String, Value>,
        entries: &[Entry],
    ) -> Result<Allocation, Error> {
        let group = recipe.packing.group();
        let default = Packing::checked(self.low, group)?;
        let plan = Recipe {
            target: Target::Mlx,
            packing: default,
            allocation: None,
            ..recipe.clone()
        }
        .plan(config, entries)?;
        // What the group does not divide is told so by the next plan, too.
        let is_layer = |tensor: &&OutputTensor| {
            tensor.packing().is_some() || matches!(tensor.reason, Some(Reason::NotDivisible { .. }))
        };
        let modules: Vec<&str> = plan.tensors.iter().filter(is_layer).map(OutputTensor::module).collect();
        let layers = Layers::of(&plan.tensors).ok_or_else(|| {
            let what = format!(
                "{}: the model has no layers called down_proj, which the mix is about",
                self.name
            );
            Error::source(what, Remedy::OtherRecipe)
        })?;
        let tied = !modules.iter().any(|module| module.contains("lm_head"));
        let bits = |module: &str| self.bits_of(module, &layers, tied);
        let chosen = modules.iter().map(|module| {
            let packing = Packing::checked(bits(module), group)?;
            Ok(((*module).to_owned(), Some(packing)))
        });
        let chosen = chosen.collect::<Result<Vec<_>, Error>>()?;
        Ok(Allocation::new(default, chosen).about(json!({"recipe": self.name})))
    }

    fn bits_of(&self, module: &str, layers: &Layers, tied: bool) -> u32 {
        let contains = |parts: &[&str]| parts.iter().any(|part| module.contains(part));
        let down = contains(&["down_proj"]);
        let index = layers.index(module);
        match self.rule {
            // A fused `qkv_proj` contains `v_proj`: mlx-lm takes it for values, too.
            Rule::MlxLm(high)
                if (down || contains(&["v_proj", "v_a_proj", "v_b_proj"])) && layers.has_more_bits(index) =>
            {
                high
            }
            Rule::MlxLm(high) if contains(&["lm_head"]) => high,
            Rule::MlxLm(_) => self.low,
            Rule::LlamaCpp(_) if contains(&["lm_head"]) || (tied && contains(&["embed_tokens"])) => HEAD_BITS,
            Rule::LlamaCpp(rule) if contains(&["qkv_proj", "query_key_value"]) => rule.fused,
            Rule::LlamaCpp(rule) => {
                let values = contains(&["v_proj", "kv_b_proj"]);
                match rule.more {
                    Some(more) if (values || down) && layers.has_more_bits(index) => more,
                    _ if values => rule.values[usize::from(index >= 2)],
                    _ if down => rule.down[usize::from(index >= layers.count / 16)],
                    _ if contains(&[".o_proj"]) => rule.outputs,
                    _ => self.low,
                }
            }
        }
    }
}

/// Where names of modules say which layer they are of.
struct Layers {
    place: usize, // of the number among the words
    count: usize,
}

impl Layers {
    /// As mlx-lm finds them: by the first down projection.
    fn of(tensors: &[OutputTensor]) -> Option<Layers> {
        let down = tensors.iter().find(|tensor| tensor.name.contains("down_proj"))?;
        let words: Vec<&str> = down.module().split('.').collect();
        let is_number = |word: &str| word.parse::<usize>().is_ok();
        let place = words.iter().position(|word| is_number(word)).unwrap_or(words.len() - 1);
        let layers = Layers { place, count: 0 };
        let last = tensors.iter().map(|tensor| layers.index(tensor.module())).max();
        Some(Layers {
            count: last? + 1,
            ..layers
        })
    }

    fn index(&self, module: &str) -> usize {
        let word = module.split('.').nth(self.place);
        word.and_then(|word| word.parse().ok()).unwrap_or(0)
    }

    fn has_more_bits(&self, index: usize) -> bool {
        let eighth = self.count / 8;
        index < eighth || index >= 7 * self.count / 8 || (index - eighth) % 3 == 2
    }
}
