//! Configs of families: older spellings mean the same, absent keys take the defaults of transformers' configuration classes, and
//! what would change the arithmetic in an unknown way is refused by name.

use std::path::Path;

use planish_checkpoint::Checkpoint;
use planish_model::{Architecture, BlockSpec, HeadSpec, RopeScaling};
use serde_json::{Map, Value, json};

/// config.json of a golden case with some keys replaced and some taken away.
fn config(case: &str, changes: Value, absent: &[&str]) -> Map<String, Value> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let checkpoint = Checkpoint::open(&golden.join(case).join("plain")).unwrap();
    let mut config = checkpoint.config().clone();
    config.extend(changes.as_object().unwrap().clone());
    absent.iter().for_each(|key| drop(config.remove(*key)));
    config
}

fn translate(case: &str, changes: Value, absent: &[&str]) -> Architecture {
    Architecture::from_config(&config(case, changes, absent)).unwrap()
}

/// transformers 5 writes `rope_parameters` and `layer_types`; published checkpoints have the keys of before.
#[test]
fn older_spellings_mean_the_same() {
    let cases = [
        (
            "gemma2_caps",
            json!({"rope_theta": 10000.0}),
            vec!["rope_parameters", "layer_types"],
        ),
        (
            "gemma3_text",
            json!({
                "rope_theta": 1e6, "rope_local_base_freq": 1e4, "rope_scaling": {"rope_type": "linear", "factor": 8.0},
                "sliding_window_pattern": 2
            }),
            vec!["rope_parameters", "layer_types"],
        ),
        (
            "cohere2",
            json!({"rope_theta": 10000.0, "sliding_window_pattern": 4}),
            vec!["rope_parameters", "layer_types"],
        ),
        (
            "glm",
            json!({"rope_theta": 10000.0, "partial_rotary_factor": 0.5}),
            vec!["rope_parameters"],
        ),
        ("glm4", json!({"rope_theta": 10000.0}), vec!["rope_parameters"]),
        (
            "exaone4_no_window",
            json!({
                "rope_theta": 1e6, "rope_scaling": {
                    "rope_type": "llama3", "factor": 16.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                    "original_max_position_embeddings": 32
                }
            }),
            vec!["rope_parameters", "layer_types"],
        ),
        ("exaone4", json!({"sliding_window_pattern": "LLG"}), vec!["layer_types"]),
        (
            "kimi_linear",
            json!({
                "head_dim": 4, "first_k_dense_replace": 1, "moe_layer_freq": 1, "mla_use_nope": true, "linear_attn_config": {
                    "head_dim": 8, "num_heads": 2, "short_conv_kernel_size": 3, "kda_layers": [1], "full_attn_layers": [2]
                }
            }),
            vec![
                "layer_types",
                "mlp_layer_types",
                "linear_head_dim",
                "linear_num_heads",
                "linear_conv_kernel_dim",
            ],
        ),
        ("olmo3", json!({}), vec!["layer_types"]),
        (
            "smollm3",
            json!({"rope_theta": 5000.0}),
            vec!["rope_parameters", "layer_types", "no_rope_layers"],
        ),
        (
            "granite_biases",
            json!({"rope_theta": 10000.0, "rope_scaling": {"type": "linear", "factor": 2.0}}),
            vec!["rope_parameters"],
        ),
        (
            "ministral_window",
            json!({"rope_theta": 10000.0, "rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}),
            vec!["rope_parameters", "layer_types"],
        ),
        ("lfm2", json!({"block_ff_dim": 48}), vec!["intermediate_size"]),
        (
            "olmo2_tied",
            json!({"rope_theta": 10000.0, "rope_scaling": {"rope_type": "linear", "factor": 2.0}}),
            vec!["rope_parameters"],
        ),
    ];
    for (case, changes, absent) in cases {
        let (old, new) = (translate(case, changes, &absent), translate(case, json!({}), &[]));
        assert_eq!(old, new, "{case}");
    }
}

/// OLMo 3 as published: the scaling is for layers that see everything, the base for all.
#[test]
fn scaling_beside_windows_is_for_full_layers() {
    let scaling = json!({
        "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "attention_factor": 1.2,
        "beta_fast": 32, "beta_slow": 1
    });
    let changes = json!({"rope_theta": 500000.0, "rope_scaling": scaling});
    let [full, sliding] = translate("olmo3", changes, &["rope_parameters"])
        .ropes
        .try_into()
        .unwrap();
    assert!(
        matches!(
            full.scaling,
            RopeScaling::Yarn {
                factor: 4.0,
                context: 16,
                ..
            }
        ),
        "{full:?}"
    );
    assert_eq!(
        (sliding.scaling, sliding.theta, full.theta),
        (RopeScaling::Default, 5e5, 5e5)
    );
}

/// The text part of a published multimodal Gemma 3 says only what differs from the defaults.
#[test]
fn a_short_text_config_takes_the_defaults() {
    let text = json!({
        "hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text", "num_hidden_layers": 34,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "sliding_window": 1024
    });
    let config =
        json!({"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "text_config": text});
    let architecture = Architecture::from_config(config.as_object().unwrap()).unwrap();
    assert_eq!(
        (architecture.vocabulary, architecture.layers.len(), architecture.context),
        (262_208, 34, 131_072)
    );
    assert!(matches!(architecture.head, HeadSpec::Tied(_)));
    let windows: Vec<bool> = architecture
        .layers
        .iter()
        .flat_map(|layer| layer.blocks())
        .filter_map(|block| match block {
            BlockSpec::Attention(attention) => {
                assert_eq!((attention.heads, attention.kv_heads, attention.head_dim), (8, 4, 256));
                assert_eq!(attention.rope, Some(usize::from(attention.window.is_some())));
                Some(attention.window == Some(1024))
            }
            _ => None,
        })
        .collect();
    let expected: Vec<bool> = (1..=34).map(|layer| layer % 6 != 0).collect();
    assert_eq!(windows, expected);
    let [full, sliding] = architecture.ropes.try_into().unwrap();
    assert_eq!((full.theta, full.scaling), (1e6, RopeScaling::Linear { factor: 8.0 }));
    assert_eq!((sliding.theta, sliding.scaling), (1e4, RopeScaling::Default));
}

#[test]
fn absent_keys_take_the_defaults_of_the_family() {
    let gemma = translate(
        "gemma2_no_caps",
        json!({}),
        &["final_logit_softcapping", "tie_word_embeddings"],
    );
    assert_eq!(gemma.logits.softcap, Some(30.0));
    assert!(matches!(gemma.head, HeadSpec::Tied(_)));
    assert_eq!(translate("gemma2_no_caps", json!({}), &[]).logits.softcap, None);
    let cohere = translate(
        "cohere",
        json!({}),
        &["logit_scale", "rope_parameters", "layer_norm_eps"],
    );
    assert_eq!(
        (cohere.logits.scale, cohere.ropes[0].theta, cohere.final_norm.epsilon),
        (0.0625, 5e5, 1e-5)
    );
    let helium = translate("helium", json!({}), &["rms_norm_eps"]);
    assert_eq!(helium.final_norm.epsilon, 1e-8);
    assert_eq!(
        translate("smollm3", json!({}), &["rope_parameters"]).ropes[0].theta,
        2e6
    );
}

#[test]
fn keys_of_families_that_are_not_understood_are_named() {
    let cases = [
        (
            "gemma",
            json!({"use_bidirectional_attention": true}),
            "use_bidirectional_attention",
        ),
        ("gemma", json!({"hidden_act": "softshrink"}), "hidden_act"),
        (
            "gemma2_caps",
            json!({"use_bidirectional_attention": true}),
            "use_bidirectional_attention",
        ),
        (
            "gemma2_caps",
            json!({"hidden_activation": "softshrink"}),
            "hidden_activation",
        ),
        (
            "gemma2_caps",
            json!({"query_pre_attn_scalar": 0}),
            "query_pre_attn_scalar",
        ),
        (
            "gemma2_caps",
            json!({"attn_logit_softcapping": -1.0}),
            "attn_logit_softcapping",
        ),
        (
            "gemma2_caps",
            json!({"layer_types": ["full_attention", "chunked_attention"]}),
            "layer_types",
        ),
        ("gemma2_caps", json!({"layer_types": ["full_attention"]}), "layer_types"),
        (
            "gemma3_text",
            json!({"attn_logit_softcapping": 50.0}),
            "attn_logit_softcapping",
        ),
        (
            "gemma3_text",
            json!({"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}),
            "rope_parameters.full_attention",
        ),
        (
            "gemma3_text",
            json!({"rope_parameters": {"full_attention": {"rope_type": "spiral"}, "sliding_attention": {}}}),
            "rope_parameters.full_attention.rope_type",
        ),
        ("gemma3", json!({"text_config": null}), "text_config"),
        (
            "gemma3",
            json!({"text_config": {"model_type": "llama"}}),
            "text_config.model_type",
        ),
        (
            "gemma3",
            json!({"text_config": {"hidden_size": "wide"}}),
            "text_config.hidden_size",
        ),
        ("cohere2", json!({"sliding_window": null}), "sliding_window"),
        ("cohere2", json!({"use_qk_norm": true}), "use_qk_norm"),
        ("cohere2", json!({"use_parallel_block": false}), "use_parallel_block"),
        (
            "ministral3",
            json!({"rope_parameters": {"rope_type": "default"}}),
            "rope_parameters.llama_4_scaling_beta",
        ),
        (
            "exaone4",
            json!({"layer_types": null, "sliding_window_pattern": "LLGL"}),
            "sliding_window_pattern",
        ),
        (
            "exaone4",
            json!({"layer_types": null, "sliding_window_pattern": "LLSG"}),
            "sliding_window_pattern",
        ),
        ("smollm3", json!({"no_rope_layers": [1, 0]}), "no_rope_layers"),
        ("granite", json!({"logits_scaling": 0}), "logits_scaling"),
        ("granite", json!({"residual_multiplier": "half"}), "residual_multiplier"),
        (
            "minicpm",
            json!({"sparse_config": {"kernel_size": 32}}),
            "sparse_config",
        ),
        ("minicpm", json!({"num_experts": 8}), "num_experts"),
        (
            "glm",
            json!({"partial_rotary_factor": 0.01, "rope_parameters": null}),
            "head_dim",
        ),
    ];
    for (case, changes, key) in cases {
        let error = Architecture::from_config(&config(case, changes, &[])).unwrap_err();
        let message = error.to_string();
        assert!(
            message.starts_with(&format!("config.json: {key}: expected ")),
            "{case}: {message}"
        );
    }
}

/// As in transformers, whose families rotate whole heads but for those that know the key.
#[test]
fn whole_heads_are_rotated_whatever_a_config_says() {
    for case in ["llama_tied", "qwen2_untied", "qwen3", "mistral_window"] {
        let whole = translate(case, json!({}), &[]).ropes[0].rotated;
        for changes in [
            json!({"partial_rotary_factor": 0.5}),
            json!({"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}}),
        ] {
            assert_eq!(translate(case, changes, &[]).ropes[0].rotated, whole, "{case}");
        }
    }
    for case in ["phi", "stablelm", "glm"] {
        let rotated = |factor: f64| {
            let changes = json!({ "partial_rotary_factor": factor });
            translate(case, changes, &["rope_parameters"]).ropes[0].rotated
        };
        assert_eq!(2 * rotated(0.5), rotated(1.0), "{case}");
    }
}
