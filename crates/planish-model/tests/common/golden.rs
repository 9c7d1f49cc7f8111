//! What transformers computed for the checkpoints of scripts/golden/models.py, and how far a model is from it.

use planish_model::Model;
use safetensors::SafeTensors;

use crate::common::folder;

/// What transformers computed.
pub struct Golden {
    /// Prompt and the tokens that follow one by one.
    pub tokens: Vec<u32>,
    /// Logits of every token of the prompt. // (prompt, vocabulary)
    pub prefill: Vec<f32>,
    /// Logits of every step. // (steps, vocabulary)
    pub steps: Vec<f32>,
    /// Columns of the logits.
    pub vocabulary: usize,
}

impl Golden {
    pub fn read(case: &str) -> Golden {
        Golden::read_file(case, "golden")
    }

    pub fn read_file(case: &str, name: &str) -> Golden {
        let bytes = std::fs::read(folder(case).join(name).with_extension("safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let words = |name: &str| -> Vec<u32> {
            let tensor = file.tensor(name).unwrap();
            tensor
                .data()
                .chunks_exact(4)
                .map(|word| u32::from_le_bytes(word.try_into().unwrap()))
                .collect()
        };
        let floats = |name: &str| words(name).into_iter().map(f32::from_bits).collect();
        let vocabulary = file.tensor("steps").unwrap().shape()[1];
        Golden {
            tokens: words("tokens"),
            prefill: floats("prefill"),
            steps: floats("steps"),
            vocabulary,
        }
    }

    /// Tokens before the steps.
    pub fn prompt(&self) -> &[u32] {
        &self.tokens[..self.prefill.len() / self.vocabulary]
    }

    /// Tokens of the steps.
    pub fn following(&self) -> &[u32] {
        &self.tokens[self.prompt().len()..]
    }
}

/// Largest difference, relative to the largest expected value.
pub fn error(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
    let worst = found
        .iter()
        .zip(expected)
        .fold(0.0f32, |worst, (a, b)| worst.max((a - b).abs()));
    assert!(found.iter().all(|value| value.is_finite()));
    worst / largest
}

/// The prompt at once with all logits, then one token at a time.
pub fn run(model: &mut Model, golden: &Golden) -> (Vec<f32>, Vec<f32>) {
    let mut cache = model.cache(golden.tokens.len());
    let mut prefill = Vec::new();
    let mut indices = Vec::new();
    let mut each = |index: usize, logits: &[f32]| {
        indices.push(index);
        prefill.extend_from_slice(logits);
    };
    model.forward_all(golden.prompt(), &mut cache, &mut each).unwrap();
    assert!(indices.into_iter().eq(0..golden.prompt().len()));
    let mut steps = Vec::new();
    for &token in golden.following() {
        steps.extend_from_slice(model.forward(&[token], &mut cache).unwrap());
    }
    assert_eq!(cache.len(), golden.tokens.len());
    (prefill, steps)
}
