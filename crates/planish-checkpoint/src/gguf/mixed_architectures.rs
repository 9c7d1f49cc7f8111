//! Rows of models whose layers are of several kinds: the continuation of `architectures.rs`, with the same sources.

use super::architecture::{Architecture, Epsilon, Experts, Key, Literal};
use super::architectures::{BASE, FEED_FORWARD_AFTER, GELU_TANH, NAMED_EXPERTS, NORMS_AFTER, PARTIAL_ROTATION, WINDOW};
use super::parted::{GRANITE, LATENT};

/// Experts in all layers but the first ones, with a correction of scores and shared experts.
const LATE_EXPERTS: Architecture = Architecture {
    mixed_layers: true,
    experts: Some(NAMED_EXPERTS),
    names: &SHARED_EXPERTS,
    tensors: &[("exp_probs_b.bias", "mlp.gate.e_score_correction_bias")],
    ..BASE
};
const SHARED_EXPERTS: [(&str, &str); 3] = [
    ("ffn_gate_shexp", "mlp.shared_experts.gate_proj"),
    ("ffn_up_shexp", "mlp.shared_experts.up_proj"),
    ("ffn_down_shexp", "mlp.shared_experts.down_proj"),
];
const FIRST_DENSE: Key = Key::Whole("leading_dense_block_count", "first_k_dense_replace", 0);
const ROUTED: Key = Key::Count("expert_count", "n_routed_experts");
const CHOSEN: Key = Key::Count("expert_used_count", "num_experts_per_tok");
const SHARED: Key = Key::Whole("expert_shared_count", "n_shared_experts", 0);
const EXPERT_SIZE: Key = Key::Count("expert_feed_forward_length", "moe_intermediate_size");
const EXPERT_SCALE: Key = Key::FloatOr("expert_weights_scale", "routed_scaling_factor", 1.0);
const ATTENTION_BIAS: Key = Key::AttentionBias("attention_bias");
const ATTENDING: Key = Key::LayerKinds("layer_types", ["full_attention", "linear_attention"]);

/// Names and keys of Granite's experts and Mamba layers.
const GRANITE_NAMES: [(&str, &str); 11] = [
    ("ffn_gate_inp", "block_sparse_moe.router.layer"),
    ("ffn_gate_exps", "block_sparse_moe.switch_mlp.gate_proj"),
    ("ffn_up_exps", "block_sparse_moe.switch_mlp.up_proj"),
    ("ffn_down_exps", "block_sparse_moe.switch_mlp.down_proj"),
    ("ffn_gate_shexp", "shared_mlp.gate_proj"),
    ("ffn_up_shexp", "shared_mlp.up_proj"),
    ("ffn_down_shexp", "shared_mlp.output_linear"),
    ("ssm_in", "mamba.in_proj"),
    ("ssm_out", "mamba.out_proj"),
    ("ssm_conv1d", "mamba.conv1d"),
    ("ssm_norm", "mamba.norm"),
];
const GRANITE_DENSE_NAMES: [(&str, &str); 7] = [
    ("ffn_gate", "shared_mlp.gate_proj"),
    ("ffn_up", "shared_mlp.up_proj"),
    ("ffn_down", "shared_mlp.output_linear"),
    ("ssm_in", "mamba.in_proj"),
    ("ssm_out", "mamba.out_proj"),
    ("ssm_conv1d", "mamba.conv1d"),
    ("ssm_norm", "mamba.norm"),
];
const MAMBA_TENSORS: [(&str, &str); 3] = [
    ("ssm_a", "mamba.A_log"),
    ("ssm_d", "mamba.D"),
    ("ssm_dt.bias", "mamba.dt_bias"),
];
const GRANITE_SCALES: [Key; 4] = [
    Key::Float("attention.scale", "attention_multiplier"),
    Key::FloatOr("embedding_scale", "embedding_multiplier", 1.0),
    Key::FloatOr("residual_scale", "residual_multiplier", 1.0),
    Key::FloatOr("logit_scale", "logits_scaling", 1.0),
];
const LOCAL_EXPERTS: Key = Key::Whole("expert_count", "num_local_experts", 0);
const SHARED_SIZE: Key = Key::Whole("expert_shared_feed_forward_length", "shared_intermediate_size", 0);
const GRANITE_HYBRID: Architecture = Architecture {
    name: "granitehybrid",
    model_type: "granitemoehybrid",
    class: "GraniteMoeHybridForCausalLM",
    neighbours: true,
    mixed_layers: true,
    names: &GRANITE_NAMES,
    tensors: &MAMBA_TENSORS,
    parted: Some(&GRANITE),
    keys: &[
        GRANITE_SCALES[0],
        GRANITE_SCALES[1],
        GRANITE_SCALES[2],
        GRANITE_SCALES[3],
        LOCAL_EXPERTS,
        CHOSEN,
        SHARED_SIZE,
        ATTENTION_BIAS,
        Key::Mamba2,
        Key::LayerKinds("layer_types", ["attention", "mamba"]),
        Key::Positions("position_embedding_type"),
    ],
    ..BASE
};

const DELTA_NET_NAMES: [(&str, &str); 14] = [
    NORMS_AFTER,
    ("ffn_gate_inp_shexp", "mlp.shared_expert_gate"),
    ("ffn_gate_shexp", "mlp.shared_expert.gate_proj"),
    ("ffn_up_shexp", "mlp.shared_expert.up_proj"),
    ("ffn_down_shexp", "mlp.shared_expert.down_proj"),
    ("attn_qkv", "linear_attn.in_proj_qkv"),
    ("attn_gate", "linear_attn.in_proj_z"),
    ("ssm_in", "linear_attn.in_proj_qkvz"),
    ("ssm_ba", "linear_attn.in_proj_ba"),
    ("ssm_alpha", "linear_attn.in_proj_a"),
    ("ssm_beta", "linear_attn.in_proj_b"),
    ("ssm_conv1d", "linear_attn.conv1d"),
    ("ssm_norm", "linear_attn.norm"),
    ("ssm_out", "linear_attn.out_proj"),
];
const DELTA_NET: Architecture = Architecture {
    norms_less_one: true,
    gated_queries: true,
    mixed_layers: true,
    names: &DELTA_NET_NAMES,
    tensors: &[("ssm_a", "linear_attn.A_log"), ("ssm_dt.bias", "linear_attn.dt_bias")],
    keys: &DELTA_NET_KEYS,
    ..BASE
};
const DELTA_NET_KEYS: [Key; 8] = [
    PARTIAL_ROTATION,
    Key::DeltaNet,
    ATTENDING,
    Key::Whole("expert_count", "num_experts", 0),
    Key::Whole("expert_used_count", "num_experts_per_tok", 1),
    Key::Whole("expert_feed_forward_length", "moe_intermediate_size", 1),
    Key::Whole(
        "expert_shared_feed_forward_length",
        "shared_expert_intermediate_size",
        1,
    ),
    Key::Set("norm_topk_prob", Literal::Flag(true)),
];

const DEEPSEEK: Architecture = Architecture {
    name: "deepseek2",
    latent: true,
    names: &[
        SHARED_EXPERTS[0],
        SHARED_EXPERTS[1],
        SHARED_EXPERTS[2],
        ("attn_q_a", "self_attn.q_a_proj"),
        ("attn_q_a_norm", "self_attn.q_a_layernorm"),
        ("attn_q_b", "self_attn.q_b_proj"),
        ("attn_kv_a_mqa", "self_attn.kv_a_proj_with_mqa"),
        ("attn_kv_a_norm", "self_attn.kv_a_layernorm"),
        ("attn_kv_b", "self_attn.kv_b_proj"),
        ("attn_k_b", "self_attn.embed_q"),
        ("attn_v_b", "self_attn.unembed_out"),
    ],
    parted: Some(&LATENT),
    keys: &[
        Key::Latent,
        Key::Groups,
        FIRST_DENSE,
        ROUTED,
        CHOSEN,
        SHARED,
        EXPERT_SIZE,
        EXPERT_SCALE,
        Key::FlagOr("expert_weights_norm", "norm_topk_prob", false),
    ],
    ..LATE_EXPERTS
};

const LFM2_NAMES: [(&str, &str); 13] = [
    ("token_embd_norm", "model.embedding_norm"),
    ("output_norm", "model.embedding_norm"),
    ("attn_norm", "operator_norm"),
    ("ffn_norm", "ffn_norm"),
    ("ffn_gate", "feed_forward.w1"),
    ("ffn_up", "feed_forward.w3"),
    ("ffn_down", "feed_forward.w2"),
    ("attn_output", "self_attn.out_proj"),
    ("attn_q_norm", "self_attn.q_layernorm"),
    ("attn_k_norm", "self_attn.k_layernorm"),
    ("shortconv.conv", "conv.conv"),
    ("shortconv.in_proj", "conv.in_proj"),
    ("shortconv.out_proj", "conv.out_proj"),
];
const LFM2_KINDS: Key = Key::LayerKinds("layer_types", ["full_attention", "conv"]);
const TAPS: Key = Key::Count("shortconv.l_cache", "conv_L_cache");

pub(super) static MIXED: [Architecture; 18] = [
    Architecture {
        name: "gpt-oss",
        model_type: "gpt_oss",
        class: "GptOssForCausalLM",
        names: &[
            NORMS_AFTER,
            ("ffn_gate_inp", "mlp.router"),
            ("ffn_gate_exps", "mlp.experts.gate_proj"),
            ("ffn_up_exps", "mlp.experts.up_proj"),
            ("ffn_down_exps", "mlp.experts.down_proj"),
        ],
        tensors: &[("attn_sinks.weight", "self_attn.sinks")],
        keys: &[
            Key::Count("expert_count", "num_local_experts"),
            CHOSEN,
            Key::Count("expert_feed_forward_length", "intermediate_size"),
            ATTENTION_BIAS,
            WINDOW,
            Key::LayerTypes(2),
            Key::Untruncated,
        ],
        ..BASE
    },
    Architecture {
        model_type: "deepseek_v2",
        class: "DeepseekV2ForCausalLM",
        corrected: Some(false),
        ..DEEPSEEK
    },
    Architecture {
        model_type: "deepseek_v3",
        class: "DeepseekV3ForCausalLM",
        corrected: Some(true),
        ..DEEPSEEK
    },
    Architecture {
        name: "glm4moe",
        model_type: "glm4_moe",
        class: "Glm4MoeForCausalLM",
        names: &[NORMS_AFTER, SHARED_EXPERTS[0], SHARED_EXPERTS[1], SHARED_EXPERTS[2]],
        keys: &[
            PARTIAL_ROTATION,
            Key::Groups,
            FIRST_DENSE,
            ROUTED,
            CHOSEN,
            SHARED,
            EXPERT_SIZE,
            EXPERT_SCALE,
            Key::FlagOr("expert_weights_norm", "norm_topk_prob", true),
            ATTENTION_BIAS,
            Key::QueryNorm("use_qk_norm"),
        ],
        ..LATE_EXPERTS
    },
    Architecture {
        name: "dots1",
        model_type: "dots1",
        class: "Dots1ForCausalLM",
        keys: &[
            Key::Groups,
            FIRST_DENSE,
            ROUTED,
            CHOSEN,
            SHARED,
            EXPERT_SIZE,
            EXPERT_SCALE,
            Key::FlagOr("expert_weights_norm", "norm_topk_prob", false),
            ATTENTION_BIAS,
            Key::Set("sliding_window", Literal::Null),
        ],
        ..LATE_EXPERTS
    },
    Architecture {
        name: "ernie4_5-moe",
        model_type: "ernie4_5_moe",
        class: "Ernie4_5_MoeForCausalLM",
        tensors: &[("exp_probs_b.bias", "mlp.moe_statics.e_score_correction_bias")],
        keys: &[
            Key::Count("expert_count", "moe_num_experts"),
            Key::Count("expert_used_count", "moe_k"),
            EXPERT_SIZE,
            Key::Whole("expert_shared_count", "moe_num_shared_experts", 0),
            Key::Whole("leading_dense_block_count", "moe_layer_start_index", 0),
            Key::Count("interleave_moe_layer_step", "moe_layer_interval"),
            Key::LastWith("ffn_gate_inp.weight", "moe_layer_end_index"),
            Key::AttentionBias("use_bias"),
        ],
        ..LATE_EXPERTS
    },
    Architecture {
        name: "granitemoe",
        model_type: "granitemoe",
        class: "GraniteMoeForCausalLM",
        shared: Some(false),
        neighbours: true,
        names: &GRANITE_NAMES,
        parted: Some(&GRANITE),
        keys: &[
            GRANITE_SCALES[0],
            GRANITE_SCALES[1],
            GRANITE_SCALES[2],
            GRANITE_SCALES[3],
            LOCAL_EXPERTS,
            CHOSEN,
            ATTENTION_BIAS,
        ],
        ..BASE
    },
    Architecture {
        name: "granitemoe",
        model_type: "granitemoeshared",
        class: "GraniteMoeSharedForCausalLM",
        shared: Some(true),
        neighbours: true,
        names: &GRANITE_NAMES,
        parted: Some(&GRANITE),
        keys: &[
            GRANITE_SCALES[0],
            GRANITE_SCALES[1],
            GRANITE_SCALES[2],
            GRANITE_SCALES[3],
            LOCAL_EXPERTS,
            CHOSEN,
            SHARED_SIZE,
            ATTENTION_BIAS,
        ],
        ..BASE
    },
    GRANITE_HYBRID,
    // Without experts.
    Architecture {
        names: &GRANITE_DENSE_NAMES,
        ..GRANITE_HYBRID
    },
    Architecture {
        name: "lfm2",
        model_type: "lfm2",
        class: "Lfm2ForCausalLM",
        mixed_layers: true,
        names: &LFM2_NAMES,
        epsilon: Epsilon::Rms("norm_eps"),
        keys: &[
            TAPS,
            LFM2_KINDS,
            Key::Set("block_auto_adjust_ff_dim", Literal::Flag(false)),
        ],
        ..BASE
    },
    Architecture {
        name: "lfm2moe",
        model_type: "lfm2_moe",
        class: "Lfm2MoeForCausalLM",
        mixed_layers: true,
        names: &LFM2_NAMES,
        tensors: &[("exp_probs_b.bias", "feed_forward.expert_bias")],
        experts: Some(Experts {
            router: "feed_forward.gate",
            path: "feed_forward.experts",
            parts: ["w1", "w3", "w2"],
        }),
        epsilon: Epsilon::Rms("norm_eps"),
        keys: &[
            TAPS,
            LFM2_KINDS,
            Key::Count("expert_count", "num_experts"),
            CHOSEN,
            EXPERT_SIZE,
            EXPERT_SCALE,
            Key::Whole("leading_dense_block_count", "num_dense_layers", 0),
            Key::Has("exp_probs_b.bias", "use_expert_bias"),
        ],
        ..BASE
    },
    Architecture {
        name: "qwen3next",
        model_type: "qwen3_next",
        class: "Qwen3NextForCausalLM",
        experts: Some(NAMED_EXPERTS),
        ..DELTA_NET
    },
    Architecture {
        name: "qwen35",
        model_type: "qwen3_5_text",
        class: "Qwen3_5ForCausalLM",
        tiled_heads: true,
        ..DELTA_NET
    },
    Architecture {
        name: "qwen35moe",
        model_type: "qwen3_5_moe_text",
        class: "Qwen3_5MoeForCausalLM",
        tiled_heads: true,
        experts: Some(NAMED_EXPERTS),
        ..DELTA_NET
    },
    GEMMA4,
    // With experts beside the dense block.
    Architecture {
        names: &GEMMA4_EXPERT_NAMES,
        tensors: &[
            ("layer_output_scale.weight", "layer_scalar"),
            ("ffn_gate_inp.scale", "router.scale"),
            ("ffn_down_exps.scale", "router.per_expert_scale"),
        ],
        keys: &[
            GEMMA4.keys[0],
            GEMMA4.keys[1],
            Key::Gemma4,
            Key::Count("expert_count", "num_experts"),
            Key::Count("expert_used_count", "top_k_experts"),
            EXPERT_SIZE,
        ],
        ..GEMMA4
    },
    Architecture {
        name: "olmo",
        model_type: "olmo",
        class: "OlmoForCausalLM",
        neighbours: true,
        epsilon: Epsilon::Layer("layer_norm_eps"),
        keys: &[ATTENTION_BIAS, Key::Float("attention.clamp_kqv", "clip_qkv")],
        ..BASE
    },
];

const GEMMA4: Architecture = Architecture {
    name: "gemma4",
    model_type: "gemma4_text",
    class: "Gemma4ForCausalLM",
    mixed_layers: true,
    names: &GEMMA4_NAMES,
    tensors: &[("layer_output_scale.weight", "layer_scalar")],
    keys: &[
        Key::Set("hidden_activation", GELU_TANH),
        Key::Float("final_logit_softcapping", "final_logit_softcapping"),
        Key::Gemma4,
    ],
    ..BASE
};
const GEMMA4_NAMES: [(&str, &str); 9] = [
    ("per_layer_token_embd", "model.embed_tokens_per_layer"),
    ("per_layer_model_proj", "model.per_layer_model_projection"),
    ("per_layer_proj_norm", "model.per_layer_projection_norm"),
    ("ffn_norm", "pre_feedforward_layernorm"),
    NORMS_AFTER,
    FEED_FORWARD_AFTER,
    ("inp_gate", "per_layer_input_gate"),
    ("proj", "per_layer_projection"),
    ("post_norm", "post_per_layer_input_norm"),
];
const GEMMA4_EXPERT_NAMES: [(&str, &str); 15] = [
    GEMMA4_NAMES[0],
    GEMMA4_NAMES[1],
    GEMMA4_NAMES[2],
    GEMMA4_NAMES[3],
    GEMMA4_NAMES[4],
    GEMMA4_NAMES[5],
    GEMMA4_NAMES[6],
    GEMMA4_NAMES[7],
    GEMMA4_NAMES[8],
    ("ffn_gate_inp", "router.proj"),
    ("ffn_gate_up_exps", "experts.gate_up_proj"),
    ("ffn_down_exps", "experts.down_proj"),
    ("pre_ffw_norm_2", "pre_feedforward_layernorm_2"),
    ("post_ffw_norm_1", "post_feedforward_layernorm_1"),
    ("post_ffw_norm_2", "post_feedforward_layernorm_2"),
];
