//! What cannot be run is refused by name.

mod common;

use common::{exact, folder, load};
use planish_checkpoint::Checkpoint;
use planish_model::{Architecture, Device, Error, LoadOptions, Model};
use serde_json::{Value, json};

/// The message for the config of a tiny Llama with some keys replaced.
fn refusal(changes: Value) -> String {
    refusal_of("llama_tied", changes)
}

/// The same for another golden checkpoint.
fn refusal_of(case: &str, changes: Value) -> String {
    let checkpoint = Checkpoint::open(&folder(&format!("{case}/plain"))).unwrap();
    let mut config = checkpoint.config().clone();
    config.extend(changes.as_object().unwrap().clone());
    Architecture::from_config(&config).unwrap_err().to_string()
}

#[test]
fn unknown_architectures_are_named_with_those_that_exist() {
    let message = refusal(json!({"architectures": ["BertModel"]}));
    for name in [
        "BertModel",
        "LlamaForCausalLM",
        "MistralForCausalLM",
        "Qwen2ForCausalLM",
        "Qwen3ForCausalLM",
    ] {
        assert!(message.contains(name), "{message}");
    }
}

#[test]
fn keys_that_are_not_understood_are_named() {
    let cases = [
        (json!({"hidden_act": "xielu"}), "hidden_act"),
        (
            json!({"rope_parameters": {"rope_type": "spiral"}}),
            "rope_parameters.rope_type",
        ),
        (
            json!({"rope_scaling": {"type": "su", "factor": 2.0}}),
            "rope_scaling.short_factor",
        ),
        (
            json!({"rope_scaling": {"type": "longrope", "short_factor": [1, 2], "long_factor": [1, 2]}}),
            "rope_scaling.short_factor",
        ),
        (json!({"rope_scaling": {"type": "linear"}}), "rope_scaling.factor"),
        (
            json!({"rope_scaling": {"type": "linear", "factor": 0}}),
            "rope_scaling.factor",
        ),
        (json!({"hidden_size": null}), "hidden_size"),
        (json!({"hidden_size": "many"}), "hidden_size"),
        (json!({"hidden_size": -48}), "hidden_size"),
        (json!({"vocab_size": 1e30}), "vocab_size"),
        (json!({"num_key_value_heads": 3}), "num_key_value_heads"),
        (
            json!({"num_attention_heads": 7, "head_dim": null, "num_key_value_heads": 7}),
            "num_attention_heads",
        ),
        (json!({"head_dim": 13}), "head_dim"),
        (json!({"architectures": "LlamaForCausalLM"}), "architectures"),
    ];
    for (changes, key) in cases {
        let message = refusal(changes);
        assert!(
            message.starts_with(&format!("config.json: {key}: expected ")),
            "{key}: {message}"
        );
    }
}

/// Flags of single families that would change the arithmetic.
#[test]
fn flags_that_are_not_understood_are_named() {
    let cases = [
        ("apertus", json!({"post_norm": true}), "post_norm"),
        ("apertus", json!({"qk_norm": false}), "qk_norm"),
        ("apertus", json!({"hidden_act": "mish"}), "hidden_act"),
        (
            "falcon_groups",
            json!({"num_ln_in_parallel_attn": 3}),
            "num_ln_in_parallel_attn",
        ),
        ("falcon_groups", json!({"parallel_attn": false}), "parallel_attn"),
        ("falcon_groups", json!({"num_kv_heads": 3}), "num_kv_heads"),
        (
            "falcon_alibi",
            json!({"apply_residual_connection_post_layernorm": true}),
            "apply_residual_connection_post_layernorm",
        ),
        ("gpt2", json!({"add_cross_attention": true}), "add_cross_attention"),
        ("gpt2", json!({"n_head": 5}), "n_head"),
        ("gpt2", json!({"activation_function": "mish"}), "activation_function"),
        ("hunyuan_v1_dense", json!({"use_cla": true}), "use_cla"),
        ("hunyuan_v1_dense", json!({"use_qk_norm": false}), "use_qk_norm"),
        (
            "opt",
            json!({"_remove_final_layer_norm": true}),
            "_remove_final_layer_norm",
        ),
        ("phi", json!({"tie_word_embeddings": true}), "tie_word_embeddings"),
        (
            "phi",
            json!({"rope_parameters": {"partial_rotary_factor": 0.2}}),
            "head_dim",
        ),
        ("phi3", json!({"lm_head_bias": true}), "lm_head_bias"),
        (
            "phi3",
            json!({"rope_parameters": {"rope_type": "linear", "factor": 2.0}}),
            "rope_parameters",
        ),
        (
            "phi3_long_factors",
            json!({"rope_parameters": {"rope_type": "longrope", "short_factor": [1], "long_factor": [1]}}),
            "rope_parameters.short_factor",
        ),
        ("stablelm", json!({"hidden_act": "mish"}), "hidden_act"),
        ("bloom", json!({"slow_but_exact": true}), "slow_but_exact"),
        (
            "cohere2_moe",
            json!({"expert_selection_fn": "sparsemax"}),
            "expert_selection_fn",
        ),
        ("ctrl", json!({"n_head": 5}), "n_head"),
        (
            "dbrx",
            json!({"attn_config": {"kv_n_heads": 3}}),
            "attn_config.kv_n_heads",
        ),
        (
            "gemma4_text",
            json!({"use_bidirectional_attention": "all"}),
            "use_bidirectional_attention",
        ),
        (
            "laguna",
            json!({"moe_router_logit_softcapping": 5.0}),
            "moe_router_logit_softcapping",
        ),
        ("laguna", json!({"gating": "per-layer"}), "gating"),
        ("mpt", json!({"attn_config": {"qk_ln": true}}), "attn_config.qk_ln"),
        ("nemotron_h", json!({"moe_latent_size": 8}), "moe_latent_size"),
        (
            "nemotron_h",
            json!({"layers_block_type": null, "hybrid_override_pattern": "M*?"}),
            "hybrid_override_pattern",
        ),
        ("openai_gpt", json!({"afn": "mish"}), "afn"),
        ("xglm", json!({"add_cross_attention": true}), "add_cross_attention"),
    ];
    for (case, changes, key) in cases {
        let message = refusal_of(case, changes);
        assert!(
            message.starts_with(&format!("config.json: {key}: expected ")),
            "{case}: {key}: {message}"
        );
    }
}

/// A copy of a golden checkpoint with some keys of config.json replaced.
fn changed_checkpoint(case: &str, changes: Value) -> (tempfile::TempDir, Checkpoint) {
    let folder = folder(case);
    let copy = tempfile::tempdir().unwrap();
    std::fs::copy(folder.join("model.safetensors"), copy.path().join("model.safetensors")).unwrap();
    let text = std::fs::read_to_string(folder.join("config.json")).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    config
        .as_object_mut()
        .unwrap()
        .extend(changes.as_object().unwrap().clone());
    std::fs::write(copy.path().join("config.json"), config.to_string()).unwrap();
    let checkpoint = Checkpoint::open(copy.path()).unwrap();
    (copy, checkpoint)
}

fn load_error(case: &str, changes: Value, options: &LoadOptions) -> Error {
    let (_copy, checkpoint) = changed_checkpoint(case, changes);
    match Model::load(&checkpoint, options) {
        Ok(_) => panic!("{case} was loaded"),
        Err(error) => error,
    }
}

/// Weights of three values whose inputs are rounded are another model than BitNet's plain class.
#[test]
fn weights_of_three_values_are_refused() {
    let message = refusal_of("bitnet", json!({"quantization_config": {"quant_method": "bitnet"}}));
    assert!(
        message.starts_with("config.json: quantization_config: expected nothing"),
        "{message}"
    );
}

/// Beyond `index_topk` layers choose what they see.
#[test]
fn positions_beyond_a_limit_are_refused() {
    let (_copy, checkpoint) = changed_checkpoint("deepseek_v32/plain", json!({"index_topk": 6}));
    let mut model = Model::load(&checkpoint, &exact()).unwrap();
    let mut cache = model.cache(8);
    model.forward(&[1, 2, 3, 4, 5, 6], &mut cache).unwrap();
    let message = model.forward(&[7], &mut cache).unwrap_err().to_string();
    assert!(
        message.starts_with("7 positions are more than the 6 of index_topk"),
        "{message}"
    );
    assert_eq!(cache.len(), 6);
}

#[test]
fn missing_and_misshapen_tensors_are_named() {
    let error = load_error("llama_tied/plain", json!({"intermediate_size": 81}), &exact());
    let Error::Shape { name, expected, found } = error else {
        panic!("{error}")
    };
    assert_eq!(name, "model.layers.0.mlp.gate_proj.weight");
    assert_eq!((expected, found), (vec![81, 48], vec![80, 48]));
    let error = load_error("llama_tied/plain", json!({"tie_word_embeddings": false}), &exact());
    assert!(matches!(error, Error::MissingTensor { name } if name == "lm_head.weight"));
}

/// A machine that has one of them computes on it.
#[test]
fn absent_devices_are_named() {
    let (_copy, checkpoint) = changed_checkpoint("llama_tied/plain", json!({}));
    for (device, name) in [(Device::Metal, "metal"), (Device::Cuda, "NVIDIA")] {
        if let Err(error) = Model::load(&checkpoint, &LoadOptions { device, ..exact() }) {
            let message = error.to_string();
            assert!(message.contains(name) && !message.contains("--"), "{message}");
        }
    }
}

#[test]
fn wrong_calls_change_nothing() {
    let mut model = load("llama_tied/plain", exact());
    let mut cache = model.cache(3);
    assert!(matches!(model.forward(&[], &mut cache), Err(Error::NoTokens)));
    assert!(matches!(
        model.forward(&[1, 96], &mut cache),
        Err(Error::Token {
            token: 96,
            vocabulary: 96
        })
    ));
    model.forward(&[1, 2], &mut cache).unwrap();
    assert!(matches!(
        model.forward(&[1, 2], &mut cache),
        Err(Error::CacheFull { needed: 4, capacity: 3 })
    ));
    assert_eq!(cache.len(), 2);
}

#[test]
fn positions_without_a_learned_embedding_are_refused() {
    let mut model = load("gpt2/plain", exact());
    let known = model.architecture().context;
    let mut cache = model.cache(known + 8);
    model.forward(&vec![1; known], &mut cache).unwrap();
    let error = model.forward(&[1], &mut cache).unwrap_err();
    assert!(matches!(error, Error::UnknownPosition { needed, known: rows } if needed == rows + 1 && rows == known));
    assert_eq!(cache.len(), known);
}

/// Before a layer is built that has no tensor.
#[test]
fn more_layers_than_there_are_tensors_of_are_refused() {
    for (case, key) in [
        ("llama_tied/plain", "num_hidden_layers"),
        ("gpt2/plain", "n_layer"),
        ("smollm3/plain", "num_hidden_layers"),
        ("falcon_groups/plain", "num_hidden_layers"),
        ("opt/plain", "num_hidden_layers"),
    ] {
        for layers in [100usize, 1 << 31] {
            let error = load_error(case, json!({ key: layers }), &exact()).to_string();
            assert!(
                error.starts_with(&format!("config.json: {key}: expected "))
                    && error.ends_with(&format!("found {layers}")),
                "{case}: {error}"
            );
        }
    }
    let error = load_error("llama_tied/plain", json!({"num_hidden_layers": 3}), &exact());
    assert!(
        matches!(
            error,
            Error::Layers {
                present: 2,
                found: 3,
                ..
            }
        ),
        "{error}"
    );
    let mut config = serde_json::Map::new();
    config.extend(
        json!({"architectures": ["LlamaForCausalLM"]})
            .as_object()
            .unwrap()
            .clone(),
    );
    for key in [
        "hidden_size",
        "intermediate_size",
        "vocab_size",
        "max_position_embeddings",
    ] {
        config.insert(key.to_owned(), json!(64));
    }
    config.insert("num_attention_heads".to_owned(), json!(4));
    config.insert("num_hidden_layers".to_owned(), json!(1_000_000_000));
    let error = Architecture::from_config(&config).unwrap_err().to_string();
    assert!(error.contains("at most 4096 layers"), "{error}");
}

#[test]
fn limits_on_the_wrong_side_of_zero_are_refused() {
    let error = load_error("gpt_oss/plain", json!({"swiglu_limit": -128}), &exact()).to_string();
    assert!(
        error.contains("swiglu_limit: expected a number of at least 0, found -128"),
        "{error}"
    );
}

#[test]
fn threads_without_bound_are_refused() {
    for threads in [100_000, usize::MAX] {
        let options = LoadOptions {
            threads: Some(threads),
            ..exact()
        };
        let error = load_error("llama_tied/plain", json!({}), &options).to_string();
        assert!(
            error.starts_with(&format!("{threads} threads are more than the ")),
            "{error}"
        );
    }
}
