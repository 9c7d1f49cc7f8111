//! The table of architectures that are read from GGUF: here those of one kind of layer, in `mixed_architectures.rs` those of several,
//! and of experts that do not stand in every layer.
//!
//! Source: <https://github.com/ggml-org/llama.cpp/blob/master/gguf-py/gguf/tensor_mapping.py> for names, and the converters in
//! <https://github.com/ggml-org/llama.cpp/tree/master/conversion> for what they change in tensors.

use super::architecture::{Architecture, Epsilon, Experts, Key, Literal};
use super::mixed_architectures::MIXED;

/// An architecture like Llama, without its order of rows.
pub(super) const BASE: Architecture = Architecture {
    name: "",
    model_type: "",
    class: "",
    windowed: None,
    corrected: None,
    shared: None,
    gated_queries: false,
    mixed_layers: false,
    latent: false,
    tiled_heads: false,
    tensors: &[],
    parted: None,
    neighbours: false,
    joined_heads: false,
    norms_less_one: false,
    layers: "model.layers",
    names: &[],
    experts: None,
    transposed: &[],
    epsilon: Epsilon::Rms("rms_norm_eps"),
    keys: &[],
};

/// Norms after the blocks instead of before them.
pub(super) const NORMS_AFTER: (&str, &str) = ("post_attention_norm", "post_attention_layernorm");
pub(super) const FEED_FORWARD_AFTER: (&str, &str) = ("post_ffw_norm", "post_feedforward_layernorm");
pub(super) const PARTIAL_ROTATION: Key = Key::RotatedPart("partial_rotary_factor");
const BIASES: [Key; 2] = [Key::AttentionBias("attention_bias"), Key::FeedForwardBias("mlp_bias")];
pub(super) const GELU_TANH: Literal = Literal::Text("gelu_pytorch_tanh");
pub(super) const WINDOW: Key = Key::Count("attention.sliding_window", "sliding_window");
const NUMBERED_EXPERTS: Experts = Experts {
    router: "block_sparse_moe.gate",
    path: "block_sparse_moe.experts",
    parts: ["w1", "w3", "w2"],
};
pub(super) const NAMED_EXPERTS: Experts = Experts {
    router: "mlp.gate",
    path: "mlp.experts",
    parts: ["gate_proj", "up_proj", "down_proj"],
};

/// Every row.
pub(super) fn all() -> impl Iterator<Item = &'static Architecture> + Clone {
    ALIKE.iter().chain(&MIXED)
}

static ALIKE: [Architecture; 29] = [
    Architecture {
        name: "llama",
        model_type: "llama",
        class: "LlamaForCausalLM",
        neighbours: true,
        keys: &BIASES,
        ..BASE
    },
    Architecture {
        name: "llama",
        model_type: "mixtral",
        class: "MixtralForCausalLM",
        neighbours: true,
        experts: Some(NUMBERED_EXPERTS),
        keys: &[
            Key::Count("expert_count", "num_local_experts"),
            Key::Count("expert_used_count", "num_experts_per_tok"),
            Key::Set("sliding_window", Literal::Null),
        ],
        ..BASE
    },
    Architecture {
        name: "qwen2",
        model_type: "qwen2",
        class: "Qwen2ForCausalLM",
        ..BASE
    },
    Architecture {
        name: "qwen3",
        model_type: "qwen3",
        class: "Qwen3ForCausalLM",
        ..BASE
    },
    Architecture {
        name: "qwen2moe",
        model_type: "qwen2_moe",
        class: "Qwen2MoeForCausalLM",
        experts: Some(NAMED_EXPERTS),
        names: &[
            ("ffn_gate_inp_shexp", "mlp.shared_expert_gate"),
            ("ffn_gate_shexp", "mlp.shared_expert.gate_proj"),
            ("ffn_up_shexp", "mlp.shared_expert.up_proj"),
            ("ffn_down_shexp", "mlp.shared_expert.down_proj"),
        ],
        keys: &[
            Key::Count("expert_count", "num_experts"),
            Key::Count("expert_used_count", "num_experts_per_tok"),
            Key::Count("expert_feed_forward_length", "moe_intermediate_size"),
            Key::Count("expert_shared_feed_forward_length", "shared_expert_intermediate_size"),
            Key::Set("norm_topk_prob", Literal::Flag(false)),
        ],
        ..BASE
    },
    Architecture {
        name: "qwen3moe",
        model_type: "qwen3_moe",
        class: "Qwen3MoeForCausalLM",
        experts: Some(NAMED_EXPERTS),
        keys: &[
            Key::Count("expert_count", "num_experts"),
            Key::Count("expert_used_count", "num_experts_per_tok"),
            Key::Count("expert_feed_forward_length", "moe_intermediate_size"),
            Key::Set("norm_topk_prob", Literal::Flag(true)),
        ],
        ..BASE
    },
    Architecture {
        name: "olmoe",
        model_type: "olmoe",
        class: "OlmoeForCausalLM",
        experts: Some(NAMED_EXPERTS),
        keys: &[
            Key::Count("expert_count", "num_experts"),
            Key::Count("expert_used_count", "num_experts_per_tok"),
            Key::Set("norm_topk_prob", Literal::Flag(false)),
        ],
        ..BASE
    },
    Architecture {
        name: "gemma",
        model_type: "gemma",
        class: "GemmaForCausalLM",
        norms_less_one: true,
        keys: &[
            Key::Set("hidden_act", GELU_TANH),
            Key::Set("hidden_activation", GELU_TANH),
        ],
        ..BASE
    },
    Architecture {
        name: "gemma2",
        model_type: "gemma2",
        class: "Gemma2ForCausalLM",
        norms_less_one: true,
        names: &[
            ("ffn_norm", "pre_feedforward_layernorm"),
            NORMS_AFTER,
            FEED_FORWARD_AFTER,
        ],
        keys: &[
            Key::Set("hidden_activation", GELU_TANH),
            Key::Float("attn_logit_softcapping", "attn_logit_softcapping"),
            Key::Float("final_logit_softcapping", "final_logit_softcapping"),
            WINDOW,
            Key::LayerTypes(2),
            Key::QueryScale(46),
        ],
        ..BASE
    },
    Architecture {
        name: "gemma3",
        model_type: "gemma3_text",
        class: "Gemma3ForCausalLM",
        norms_less_one: true,
        names: &[
            ("ffn_norm", "pre_feedforward_layernorm"),
            NORMS_AFTER,
            FEED_FORWARD_AFTER,
        ],
        keys: &[
            Key::Set("hidden_activation", GELU_TANH),
            Key::Float("final_logit_softcapping", "final_logit_softcapping"),
            WINDOW,
            Key::LayerTypes(6),
            Key::QueryScale(62),
            Key::FloatOr("rope.freq_base_swa", "rope_local_base_freq", 10000.0),
        ],
        ..BASE
    },
    Architecture {
        name: "phi2",
        model_type: "phi",
        class: "PhiForCausalLM",
        names: &[
            ("output_norm", "model.final_layernorm"),
            ("attn_output", "self_attn.dense"),
            ("ffn_up", "mlp.fc1"),
            ("ffn_down", "mlp.fc2"),
        ],
        epsilon: Epsilon::Layer("layer_norm_eps"),
        keys: &[PARTIAL_ROTATION, Key::Set("hidden_act", Literal::Text("gelu_new"))],
        ..BASE
    },
    Architecture {
        name: "phi3",
        model_type: "phi3",
        class: "Phi3ForCausalLM",
        names: &[("attn_qkv", "self_attn.qkv_proj"), ("ffn_up", "mlp.gate_up_proj")],
        keys: &[
            PARTIAL_ROTATION,
            Key::Window,
            Key::Count(
                "rope.scaling.original_context_length",
                "original_max_position_embeddings",
            ),
        ],
        ..BASE
    },
    Architecture {
        name: "starcoder2",
        model_type: "starcoder2",
        class: "Starcoder2ForCausalLM",
        names: &[("ffn_up", "mlp.c_fc"), ("ffn_down", "mlp.c_proj")],
        epsilon: Epsilon::Layer("norm_epsilon"),
        keys: &[
            Key::AttentionBias("use_bias"),
            Key::Set("hidden_act", GELU_TANH),
            Key::Set("sliding_window", Literal::Null),
        ],
        ..BASE
    },
    Architecture {
        name: "stablelm",
        model_type: "stablelm",
        class: "StableLmForCausalLM",
        epsilon: Epsilon::Layer("layer_norm_eps"),
        keys: &[
            PARTIAL_ROTATION,
            Key::Flag("use_parallel_residual", "use_parallel_residual"),
            Key::AttentionBias("use_qkv_bias"),
        ],
        ..BASE
    },
    Architecture {
        name: "gptneox",
        model_type: "gpt_neox",
        class: "GPTNeoXForCausalLM",
        joined_heads: true,
        layers: "gpt_neox.layers",
        names: &[
            ("token_embd", "gpt_neox.embed_in"),
            ("output_norm", "gpt_neox.final_layer_norm"),
            ("output", "embed_out"),
            ("attn_qkv", "attention.query_key_value"),
            ("attn_output", "attention.dense"),
            ("ffn_up", "mlp.dense_h_to_4h"),
            ("ffn_down", "mlp.dense_4h_to_h"),
        ],
        epsilon: Epsilon::Layer("layer_norm_eps"),
        keys: &[
            Key::RotatedPart("rotary_pct"),
            Key::Flag("use_parallel_residual", "use_parallel_residual"),
            Key::AttentionBias("attention_bias"),
            Key::Set("hidden_act", Literal::Text("gelu")),
        ],
        ..BASE
    },
    Architecture {
        name: "gpt2",
        model_type: "gpt2",
        class: "GPT2LMHeadModel",
        layers: "transformer.h",
        names: &[
            ("token_embd", "transformer.wte"),
            ("position_embd", "transformer.wpe"),
            ("output_norm", "transformer.ln_f"),
            ("attn_norm", "ln_1"),
            ("attn_qkv", "attn.c_attn"),
            ("attn_output", "attn.c_proj"),
            ("ffn_norm", "ln_2"),
            ("ffn_up", "mlp.c_fc"),
            ("ffn_down", "mlp.c_proj"),
        ],
        transposed: &["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"],
        epsilon: Epsilon::Layer("layer_norm_epsilon"),
        keys: &[
            Key::Set("activation_function", Literal::Text("gelu_new")),
            Key::Rename("hidden_size", "n_embd"),
            Key::Rename("num_hidden_layers", "n_layer"),
            Key::Rename("num_attention_heads", "n_head"),
            Key::Rename("intermediate_size", "n_inner"),
            Key::Rename("max_position_embeddings", "n_positions"),
        ],
        ..BASE
    },
    Architecture {
        name: "olmo2",
        model_type: "olmo2",
        class: "Olmo2ForCausalLM",
        windowed: Some(false),
        names: &[NORMS_AFTER, FEED_FORWARD_AFTER],
        keys: &BIASES,
        ..BASE
    },
    Architecture {
        name: "olmo2",
        model_type: "olmo3",
        class: "Olmo3ForCausalLM",
        windowed: Some(true),
        names: &[NORMS_AFTER, FEED_FORWARD_AFTER],
        keys: &[Key::AttentionBias("attention_bias"), WINDOW, Key::LayerTypes(4)],
        ..BASE
    },
    Architecture {
        name: "command-r",
        model_type: "cohere",
        class: "CohereForCausalLM",
        epsilon: Epsilon::Layer("layer_norm_eps"),
        keys: &[
            Key::FloatOr("logit_scale", "logit_scale", 1.0),
            Key::QueryNorm("use_qk_norm"),
            Key::AttentionBias("attention_bias"),
        ],
        ..BASE
    },
    Architecture {
        name: "cohere2",
        model_type: "cohere2",
        class: "Cohere2ForCausalLM",
        epsilon: Epsilon::Layer("layer_norm_eps"),
        keys: &[
            Key::FloatOr("logit_scale", "logit_scale", 1.0),
            WINDOW,
            Key::LayerTypes(4),
            Key::AttentionBias("attention_bias"),
        ],
        ..BASE
    },
    Architecture {
        name: "glm4",
        model_type: "glm4",
        class: "Glm4ForCausalLM",
        names: &[
            ("ffn_up", "mlp.gate_up_proj"),
            ("post_attention_norm", "post_self_attn_layernorm"),
            ("post_ffw_norm", "post_mlp_layernorm"),
        ],
        keys: &[PARTIAL_ROTATION, Key::AttentionBias("attention_bias")],
        ..BASE
    },
    Architecture {
        name: "exaone4",
        model_type: "exaone4",
        class: "Exaone4ForCausalLM",
        names: &[NORMS_AFTER, FEED_FORWARD_AFTER],
        keys: &[Key::Window, Key::LayerTypes(4)],
        ..BASE
    },
    Architecture {
        name: "smollm3",
        model_type: "smollm3",
        class: "SmolLM3ForCausalLM",
        neighbours: true,
        keys: &[
            Key::NoRotation(4),
            Key::AttentionBias("attention_bias"),
            Key::FeedForwardBias("mlp_bias"),
        ],
        ..BASE
    },
    Architecture {
        name: "granite",
        model_type: "granite",
        class: "GraniteForCausalLM",
        neighbours: true,
        keys: &[
            Key::Float("attention.scale", "attention_multiplier"),
            Key::FloatOr("embedding_scale", "embedding_multiplier", 1.0),
            Key::FloatOr("residual_scale", "residual_multiplier", 1.0),
            Key::FloatOr("logit_scale", "logits_scaling", 1.0),
            Key::AttentionBias("attention_bias"),
            Key::FeedForwardBias("mlp_bias"),
        ],
        ..BASE
    },
    Architecture {
        name: "nemotron",
        model_type: "nemotron",
        class: "NemotronForCausalLM",
        norms_less_one: true,
        epsilon: Epsilon::Layer("norm_eps"),
        keys: &[
            PARTIAL_ROTATION,
            Key::Set("hidden_act", Literal::Text("relu2")),
            Key::AttentionBias("attention_bias"),
            Key::FeedForwardBias("mlp_bias"),
        ],
        ..BASE
    },
    Architecture {
        name: "arcee",
        model_type: "arcee",
        class: "ArceeForCausalLM",
        neighbours: true,
        keys: &[
            Key::Set("hidden_act", Literal::Text("relu2")),
            Key::AttentionBias("attention_bias"),
            Key::FeedForwardBias("mlp_bias"),
        ],
        ..BASE
    },
    Architecture {
        name: "seed_oss",
        model_type: "seed_oss",
        class: "SeedOssForCausalLM",
        names: &[NORMS_AFTER],
        keys: &[
            Key::AttentionBias("attention_bias"),
            Key::OutputBias("attention_out_bias"),
            Key::FeedForwardBias("mlp_bias"),
        ],
        ..BASE
    },
    Architecture {
        name: "hunyuan-dense",
        model_type: "hunyuan_v1_dense",
        class: "HunYuanDenseV1ForCausalLM",
        names: &[
            ("attn_q_norm", "self_attn.query_layernorm"),
            ("attn_k_norm", "self_attn.key_layernorm"),
        ],
        keys: &[Key::AttentionBias("attention_bias")],
        ..BASE
    },
    Architecture {
        name: "ernie4_5",
        model_type: "ernie4_5",
        class: "Ernie4_5ForCausalLM",
        keys: &[Key::AttentionBias("use_bias")],
        ..BASE
    },
];
