//! Models whose layers remember a state of fixed size: how a sequence is cut into passes must not matter, and a state that
//! cannot go back must not be taken for one that can.

mod common;

use common::{exact, folder, load};
use planish_checkpoint::Checkpoint;
use planish_model::{Architecture, Model};
use serde_json::{Value, json};

/// A case of every kind of layer, with attention in some or all layers.
const CASES: [&str; 6] = [
    "lfm2/plain",
    "granitemoehybrid/metal",
    "granitemoehybrid_experts/plain",
    "falcon_h1/plain",
    "qwen3_next/plain",
    "qwen3_next_dense/metal",
];
/// The norm after a delta net makes rounding up to 1000 times larger where it gives next to nothing.
const TOLERANCE: f32 = 1e-3;

fn tokens(count: usize) -> Vec<u32> {
    (0..count as u32)
        .map(|index| (index * index + 7 * index + 3) % 61)
        .collect()
}

/// Logits after each token, the sequence in passes of these lengths.
fn logits(model: &mut Model, tokens: &[u32], passes: &[usize]) -> Vec<f32> {
    let mut cache = model.cache(tokens.len());
    let mut logits = Vec::new();
    for &count in passes {
        let tokens = &tokens[cache.len()..cache.len() + count];
        let mut each = |_: usize, row: &[f32]| logits.extend_from_slice(row);
        model.forward_all(tokens, &mut cache, &mut each).unwrap();
    }
    assert_eq!(cache.len(), tokens.len());
    logits
}

#[track_caller]
fn close(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
    for (found, expected) in found.iter().zip(expected) {
        assert!(
            found.is_finite() && (found - expected).abs() < TOLERANCE * largest,
            "{found} and {expected}"
        );
    }
}

#[test]
fn a_prompt_may_be_cut_anywhere() {
    for case in CASES {
        let mut model = load(case, exact());
        let tokens = tokens(23);
        let whole = logits(&mut model, &tokens, &[23]);
        for first in 1..23 {
            close(&logits(&mut model, &tokens, &[first, 23 - first]), &whole);
        }
        close(&logits(&mut model, &tokens, &[1; 23]), &whole);
    }
}

/// Longer than a pass of the workspace.
#[test]
fn a_long_sequence_step_by_step_equals_its_prefill() {
    for case in CASES {
        let mut model = load(case, exact());
        let tokens = tokens(1200);
        let whole = logits(&mut model, &tokens, &[1200]);
        close(&logits(&mut model, &tokens, &[1; 1200]), &whole);
    }
}

#[test]
fn a_state_goes_back_to_the_start_or_not_at_all() {
    for case in CASES {
        let mut model = load(case, exact());
        let tokens = tokens(12);
        let mut cache = model.cache(12);
        let expected = model.forward(&tokens, &mut cache).unwrap().to_vec();
        assert_eq!(cache.truncate(20), 12);
        assert_eq!(cache.truncate(12), 12);
        assert_eq!(cache.truncate(5), 0, "{case} has layers that cannot keep 5 positions");
        assert!(cache.is_empty());
        // The states still hold the old sequence; a new one must not see it.
        close(model.forward(&tokens, &mut cache).unwrap(), &expected);
    }
    let mut model = load("llama_tied/plain", exact());
    let mut cache = model.cache(12);
    model.forward(&tokens(12), &mut cache).unwrap();
    assert_eq!(cache.truncate(5), 5);
}

/// The message for a case's config with some keys replaced.
fn refusal(case: &str, changes: &Value) -> String {
    let mut config = Checkpoint::open(&folder(case)).unwrap().config().clone();
    config.extend(changes.as_object().unwrap().clone());
    Architecture::from_config(&config).unwrap_err().to_string()
}

#[test]
fn keys_that_are_not_understood_are_named() {
    let cases = [
        (
            "lfm2/plain",
            json!({"layer_types": ["conv", "sliding_attention", "conv"]}),
            "layer_types",
        ),
        ("lfm2/plain", json!({"conv_L_cache": 1}), "conv_L_cache"),
        (
            "lfm2/plain",
            json!({"block_auto_adjust_ff_dim": true, "block_ffn_dim_multiplier": 1e200}),
            "block_ffn_dim_multiplier",
        ),
        ("granitemoehybrid/plain", json!({"layer_types": ["moe"]}), "layer_types"),
        ("granitemoehybrid/plain", json!({"mamba_n_groups": 3}), "mamba_n_groups"),
        ("granitemoehybrid/plain", json!({"mamba_d_head": 9}), "mamba_d_head"),
        ("granitemoehybrid/plain", json!({"mamba_d_conv": 1}), "mamba_d_conv"),
        (
            "granitemoehybrid/plain",
            json!({"time_step_limit": [2.0, 1.0]}),
            "time_step_limit",
        ),
        (
            "granitemoehybrid/plain",
            json!({"position_embedding_type": "alibi"}),
            "position_embedding_type",
        ),
        ("granitemoehybrid/plain", json!({"logits_scaling": 0}), "logits_scaling"),
        (
            "falcon_h1/plain",
            json!({"mlp_multipliers": [0.0, 1.0]}),
            "mlp_multipliers",
        ),
        (
            "falcon_h1/plain",
            json!({"ssm_multipliers": [1.0, 1.0]}),
            "ssm_multipliers",
        ),
        (
            "qwen3_next/plain",
            json!({"linear_num_key_heads": 3}),
            "linear_num_key_heads",
        ),
        ("qwen3_next/plain", json!({"layer_types": ["conv"]}), "layer_types"),
        (
            "falcon_h1/plain",
            json!({"quantization": {"bits": 4}}),
            "embedding_multiplier",
        ),
        (
            "falcon_h1_norm_first/plain",
            json!({"quantization": {"bits": 4}, "mlp_multipliers": [1, 2]}),
            "mlp_multipliers",
        ),
        ("falcon_h1/plain", json!({"mlp_bias": true}), "mlp_multipliers"),
        ("falcon_h1/plain", json!({"mamba_proj_bias": true}), "ssm_multipliers"),
    ];
    for (case, changes, key) in cases {
        let message = refusal(case, &changes);
        assert!(message.starts_with(&format!("config.json: {key}:")), "{message}");
    }
}
