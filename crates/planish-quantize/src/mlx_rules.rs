//! Layers that mlx-lm 0.32 packs with more bits than asked for: the `quant_predicate` of its models, by model type.

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

/// The packing that mlx-lm insists on for a module, if it does.
pub(crate) fn packing(model_type: &str, module: &str) -> Option<Packing> {
    let rule = RULES.iter().find(|rule| rule.model_types.contains(&model_type))?;
    let insists = rule.layers.iter().any(|layer| module.ends_with(layer));
    insists.then(|| Packing::new(8, 64)).flatten()
}
