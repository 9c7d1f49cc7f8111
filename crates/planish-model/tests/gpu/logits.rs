//! Logits of a model in one way or another, and how far some are from others.

use planish_model::Model;

/// The position of the largest, the first of equals.
pub fn likeliest(logits: &[f32]) -> u32 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    logits.iter().position(|&logit| logit == largest).unwrap() as u32
}

/// The logits of all tokens, which come so many at a time. // (tokens, vocabulary)
pub fn logits_at_once(model: &mut Model, tokens: &[u32], at_once: usize) -> Vec<f32> {
    let mut cache = model.cache(tokens.len());
    let mut all = Vec::new();
    for tokens in tokens.chunks(at_once) {
        model
            .forward_all(tokens, &mut cache, &mut |_, logits| all.extend_from_slice(logits))
            .unwrap();
    }
    all
}

/// Root mean square of the differences, relative to that of the expected values.
pub fn mean_error(found: &[f32], expected: &[f32]) -> f32 {
    let squares = |values: &mut dyn Iterator<Item = f32>| values.map(|value| f64::from(value).powi(2)).sum::<f64>();
    let differences = squares(&mut found.iter().zip(expected).map(|(a, b)| a - b));
    (differences / squares(&mut expected.iter().copied())).sqrt() as f32
}
