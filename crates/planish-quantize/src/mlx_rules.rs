//! Layers that mlx-lm 0.32 treats otherwise than the rest, by model type and by the names of MLX: those that it packs with more
//! bits than asked for (`quant_predicate`), and those that it does not pack.

use planish_format::Packing;

/// Layers whose module name ends with one of `layers` get 8 bits in groups of 64.
struct Rule {
    model_types: &'static [&'static str],
    layers: &'static [&'static str],
}

const RULES: [Rule; 9] = [
    Rule {
        model_types: &["granite"],
        layers: &["self_attn.o_proj", "mlp.down_proj", "lm_head"],
    },
    Rule {
        model_types: &["granitemoe"],
        layers: &[
            "block_sparse_moe.router.layer",
            "self_attn.o_proj",
            "mlp.down_proj",
            "lm_head",
        ],
    },
    Rule {
        model_types: &["granitemoehybrid"],
        layers: &["router.layer"],
    },
    Rule {
        model_types: &["qwen3_moe", "qwen3_vl_moe", "Klear", "kimi_linear", "mellum"],
        layers: &["mlp.gate"],
    },
    Rule {
        model_types: &["qwen3_next", "qwen3_5_moe"],
        layers: &["mlp.gate", "shared_expert_gate"],
    },
    Rule {
        model_types: &["minimax", "minimax_m3_vl"],
        layers: &["block_sparse_moe.gate"],
    },
    Rule {
        model_types: &["lfm2_moe"],
        layers: &["feed_forward.gate"],
    },
    Rule {
        model_types: &["gpt_oss", "jamba"],
        layers: &["router"],
    },
    Rule {
        model_types: &["gemma4", "gemma4_text"],
        layers: &["router.proj"],
    },
];

/// Routers that are no linear layers in mlx-lm.
const PLAIN_ROUTERS: [&str; 11] = [
    "deepseek",
    "deepseek_v2",
    "deepseek_v3",
    "deepseek_v32",
    "dots1",
    "exaone_moe",
    "glm4_moe",
    "glm4_moe_lite",
    "joyai_llm_flash",
    "kimi_k2",
    "mimo_v2_flash",
];
/// Parts of multimodal models that mlx-lm does not load: it runs the language model only.
const NOT_LANGUAGE: [&str; 8] = [
    "vision_tower",
    "vision_model",
    "vision_encoder",
    "visual",
    "audio_tower",
    "multi_modal_projector",
    "mm_projector",
    "connector",
];

/// Whether a module is a router that mlx-lm leaves plain.
pub(crate) fn is_plain_router(model_type: &str, module: &str) -> bool {
    PLAIN_ROUTERS.contains(&model_type) && module.ends_with("mlp.gate")
}

/// Whether a module of a multimodal model is outside of its language model.
pub(crate) fn is_not_language(module: &str) -> bool {
    module.split('.').any(|part| NOT_LANGUAGE.contains(&part))
}

/// The packing that mlx-lm insists on for a module, if it does.
pub(crate) fn packing(model_type: &str, module: &str) -> Option<Packing> {
    let rule = RULES.iter().find(|rule| rule.model_types.contains(&model_type))?;
    let insists = rule.layers.iter().any(|layer| module.ends_with(layer));
    insists.then(|| Packing::new(8, 64)).flatten()
}
