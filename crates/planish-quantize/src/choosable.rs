//! Layers whose bits may be chosen one by one, as a recipe for MLX packs them.

use std::collections::HashMap;

use planish_checkpoint::Checkpoint;
use planish_format::Packing;

use crate::plan::{Fate, OutputTensor};
use crate::quantize::planned;
use crate::{Error, Recipe};

/// Tensors that must have the same bits: mostly one, more where they are made of the same entries of the checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Choosable {
    /// The names of their modules in MLX.
    pub modules: Vec<String>,
    /// The entries that they are made of.
    pub entries: Vec<String>,
    /// How many weights they have.
    pub weights: u64,
}

/// What a recipe packs.
#[derive(Clone, Debug, PartialEq)]
pub struct Choices {
    /// Layers whose bits are those of [`Recipe::packing`], in the order of the output.
    pub layers: Vec<Choosable>,
    /// Bits of scales and biases of these for each of their weights.
    pub overhead: f64,
    /// Bits of all layers that an exception or mlx-lm gives other bits, scales and biases counted.
    pub fixed_bits: f64,
    /// Weights of these.
    pub fixed_weights: u64,
}

impl Choices {
    /// Weights of all layers that may be chosen for.
    pub fn weights(&self) -> u64 {
        self.layers.iter().map(|layer| layer.weights).sum()
    }

    /// The bits that codes may have on average, where all packed weights may have `budget` bits, scales and biases counted.
    pub fn code_bits(&self, budget: f64) -> f64 {
        let free = self.weights() as f64;
        let all = free + self.fixed_weights as f64;
        (budget * all - self.fixed_bits) / free.max(1.0) - self.overhead
    }

    /// The inverse of [`Choices::code_bits`].
    pub fn budget(&self, code_bits: f64) -> f64 {
        let free = self.weights() as f64;
        let all = free + self.fixed_weights as f64;
        ((code_bits + self.overhead) * free + self.fixed_bits) / all.max(1.0)
    }
}

/// The layers that `recipe` packs and whose bits it does not fix by an exception.
///
/// # Errors
/// As [`quantize`](crate::quantize).
pub fn choices(checkpoint: &Checkpoint, recipe: &Recipe) -> Result<Choices, Error> {
    let group = recipe.packing.group();
    let of_bits = |bits: u32| {
        let recipe = Recipe {
            packing: Packing::checked(bits, group)?,
            allocation: None,
            ..recipe.clone()
        };
        Ok::<_, Error>(planned(checkpoint, &recipe)?.plan.tensors)
    };
    // What follows the recipe's bits differs between two recipes.
    let (few, more) = (of_bits(2)?, of_bits(3)?);
    let mut found = Choices {
        layers: Vec::new(),
        overhead: 0.0,
        fixed_bits: 0.0,
        fixed_weights: 0,
    };
    let mut scale_bits = 0.0;
    let mut place_of_entry: HashMap<usize, usize> = HashMap::new();
    for (tensor, other) in few.iter().zip(&more) {
        let Fate::Quantize(packing, scale_type) = tensor.fate else {
            continue;
        };
        let weights = tensor.shape.iter().product::<usize>() as u64;
        let overhead = 16.0 * scale_type.size_bytes() as f64 / packing.group() as f64;
        if tensor.packing() == other.packing() {
            found.fixed_bits += (f64::from(packing.bits()) + overhead) * weights as f64;
            found.fixed_weights += weights;
            continue;
        }
        scale_bits += overhead * weights as f64;
        add(&mut found.layers, &mut place_of_entry, checkpoint, tensor, weights);
    }
    found.overhead = scale_bits / (found.weights() as f64).max(1.0);
    Ok(found)
}

/// Counts a tensor as a layer, or to one that shares an entry with it.
fn add(
    layers: &mut Vec<Choosable>,
    place_of_entry: &mut HashMap<usize, usize>,
    checkpoint: &Checkpoint,
    tensor: &OutputTensor,
    weights: u64,
) {
    let shared = tensor.parts.iter().find_map(|part| place_of_entry.get(&part.entry));
    let place = shared.copied().unwrap_or(layers.len());
    if place == layers.len() {
        layers.push(Choosable {
            modules: Vec::new(),
            entries: Vec::new(),
            weights: 0,
        });
    }
    let layer = &mut layers[place];
    layer.modules.push(tensor.module().to_owned());
    layer.weights += weights;
    for part in &tensor.parts {
        if place_of_entry.insert(part.entry, place).is_none() {
            layer.entries.push(checkpoint.entries()[part.entry].name.clone());
        }
    }
}
