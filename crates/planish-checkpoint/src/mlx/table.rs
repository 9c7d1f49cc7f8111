//! The models whose tensors mlx-lm 0.32 names or arranges otherwise than Hugging Face, as data.
//!
//! Source: the `sanitize` methods of <https://github.com/ml-explore/mlx-lm/tree/main/mlx_lm/models>.

/// A row of the table.
#[derive(Debug)]
pub(crate) struct Model {
    /// `model_type` of config.json.
    pub model_types: &'static [&'static str],
    /// Beginnings of names, Hugging Face and MLX; the first that fits counts.
    pub prefixes: &'static [(&'static str, &'static str)],
    /// Parts of the names of tensors that mlx-lm throws away and that it would stumble over.
    pub dropped: &'static [&'static str],
    /// The first rule that fits a tensor counts.
    pub rules: &'static [Rule],
}

/// Tensors of MLX that are made of one of Hugging Face, or of one for each expert. Paths stand between layer and `.weight`.
#[derive(Debug)]
pub(crate) struct Rule {
    pub how: How,
    /// At Hugging Face.
    pub from: &'static str,
    /// In MLX.
    pub to: &'static [&'static str],
    /// Only for models that have no experts.
    pub without_experts: bool,
}

/// How the tensors of a rule follow from each other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum How {
    /// `FROM.<number>.PART` of all experts are one tensor `TO.PART` (experts, rows, cols). Parts at Hugging Face and in MLX.
    Stack(&'static [(&'static str, &'static str)]),
    /// Another name. `FROM` may lack `.weight`; in MLX all have it.
    Name,
    /// Under its own name, and a copy under the last name where there is no such tensor.
    Copy,
    /// The rows of each expert, or of the one matrix, are those of two. `FROM` may lack `.weight`; in MLX all have it.
    Halves,
    /// Matrices stored (cols, rows), of one or all experts: the columns in turn are rows of several tensors. `FROM` may lack
    /// `.weight`.
    Transposed,
    /// Vectors whose values in turn are those of several; paths are names.
    InTurn,
    /// A convolution over time: (channels, 1, width) becomes (channels, width, 1).
    Convolution,
    /// One is added to the weights of norms whose name ends so.
    AddOne,
    /// Rows of each head: keys without position, then values. The keys' are transposed.
    KeysAndValues,
}

pub(crate) const fn rule(how: How, from: &'static str, to: &'static [&'static str]) -> Rule {
    Rule {
        how,
        from,
        to,
        without_experts: false,
    }
}

const fn convolution(path: &'static [&'static str]) -> Rule {
    rule(How::Convolution, path[0], path)
}

const fn norm(path: &'static [&'static str]) -> Rule {
    rule(How::AddOne, path[0], path)
}

const GATED: How = How::Stack(&[
    ("gate_proj", "gate_proj"),
    ("up_proj", "up_proj"),
    ("down_proj", "down_proj"),
]);
const NUMBERED: How = How::Stack(&[("w1", "gate_proj"), ("w3", "up_proj"), ("w2", "down_proj")]);
const EXPERTS: Rule = rule(GATED, "mlp.experts", &["mlp.switch_mlp"]);
const JOINED_EXPERTS: Rule = rule(
    How::Halves,
    "mlp.experts.gate_up_proj",
    &["mlp.switch_mlp.gate_proj", "mlp.switch_mlp.up_proj"],
);
const JOINED_DOWN: Rule = rule(How::Name, "mlp.experts.down_proj", &["mlp.switch_mlp.down_proj"]);
pub(crate) const GRANITE_EXPERTS: Rule = rule(
    How::Halves,
    "block_sparse_moe.input_linear",
    &[
        "block_sparse_moe.switch_mlp.gate_proj",
        "block_sparse_moe.switch_mlp.up_proj",
    ],
);
pub(crate) const GRANITE_DOWN: Rule = rule(
    How::Name,
    "block_sparse_moe.output_linear",
    &["block_sparse_moe.switch_mlp.down_proj"],
);

pub(crate) static MODELS: &[Model] = &[
    Model {
        model_types: &["mixtral", "phimoe"],
        prefixes: &[],
        dropped: &[],
        rules: &[rule(
            NUMBERED,
            "block_sparse_moe.experts",
            &["block_sparse_moe.switch_mlp"],
        )],
    },
    Model {
        model_types: &[
            "qwen2_moe",
            "qwen3_moe",
            "olmoe",
            "deepseek",
            "deepseek_v2",
            "glm4_moe",
            "ernie4_5_moe",
            "hunyuan",
        ],
        prefixes: &[],
        dropped: &[],
        rules: &[EXPERTS, JOINED_EXPERTS, JOINED_DOWN],
    },
    Model {
        model_types: &["deepseek_v3"],
        prefixes: &[],
        dropped: &[],
        rules: &[
            EXPERTS,
            JOINED_EXPERTS,
            JOINED_DOWN,
            rule(
                How::KeysAndValues,
                "self_attn.kv_b_proj",
                &["self_attn.embed_q", "self_attn.unembed_out"],
            ),
        ],
    },
    Model {
        model_types: &["dots1"],
        prefixes: &[],
        dropped: &[],
        rules: &[rule(GATED, "mlp.experts", &["mlp.experts"])],
    },
    Model {
        model_types: &["granitemoe"],
        prefixes: &[],
        dropped: &[],
        rules: &[GRANITE_EXPERTS, GRANITE_DOWN],
    },
    Model {
        model_types: &["granitemoehybrid"],
        prefixes: &[],
        dropped: &[],
        rules: &[
            GRANITE_EXPERTS,
            GRANITE_DOWN,
            // Of models without experts only; those with experts keep this layer whole.
            Rule {
                without_experts: true,
                ..rule(
                    How::Halves,
                    "shared_mlp.input_linear",
                    &["mlp.gate_proj", "mlp.up_proj"],
                )
            },
            Rule {
                without_experts: true,
                ..rule(How::Name, "shared_mlp.output_linear", &["mlp.down_proj"])
            },
            convolution(&["mamba.conv1d"]),
        ],
    },
    Model {
        model_types: &["gpt_oss"],
        prefixes: &[],
        dropped: &[],
        rules: &[
            rule(
                How::Transposed,
                "mlp.experts.gate_up_proj",
                &["mlp.experts.gate_proj", "mlp.experts.up_proj"],
            ),
            rule(How::Transposed, "mlp.experts.down_proj", &["mlp.experts.down_proj"]),
            rule(
                How::InTurn,
                "mlp.experts.gate_up_proj_bias",
                &["mlp.experts.gate_proj.bias", "mlp.experts.up_proj.bias"],
            ),
            rule(
                How::InTurn,
                "mlp.experts.down_proj_bias",
                &["mlp.experts.down_proj.bias"],
            ),
        ],
    },
    Model {
        model_types: &["qwen3_next"],
        prefixes: &[],
        dropped: &["mtp."],
        rules: &[
            EXPERTS,
            JOINED_EXPERTS,
            JOINED_DOWN,
            convolution(&["linear_attn.conv1d"]),
            norm(&["input_layernorm"]),
            norm(&["post_attention_layernorm"]),
            norm(&["model.norm"]),
            norm(&["q_norm"]),
            norm(&["k_norm"]),
        ],
    },
    Model {
        model_types: &["lfm2"],
        prefixes: &[],
        dropped: &[],
        rules: &[convolution(&["conv.conv"])],
    },
    Model {
        model_types: &["lfm2_moe"],
        prefixes: &[],
        dropped: &[],
        rules: &[
            rule(NUMBERED, "feed_forward.experts", &["feed_forward.switch_mlp"]),
            rule(How::Name, "feed_forward.w1", &["feed_forward.gate_proj"]),
            rule(How::Name, "feed_forward.w2", &["feed_forward.down_proj"]),
            rule(How::Name, "feed_forward.w3", &["feed_forward.up_proj"]),
            convolution(&["conv.conv"]),
        ],
    },
    Model {
        model_types: &["gpt_neox"],
        prefixes: &[
            ("embed_out.", "model.embed_out."),
            ("gpt_neox.layers.", "model.h."),
            ("gpt_neox.", "model."),
        ],
        dropped: &[".attention.bias", ".attention.masked_bias", ".rotary_emb.inv_freq"],
        rules: &[],
    },
    Model {
        model_types: &["gpt2"],
        prefixes: &[
            ("transformer.", "model."),
            ("h.", "model.h."),
            ("wte.", "model.wte."),
            ("wpe.", "model.wpe."),
            ("ln_f.", "model.ln_f."),
        ],
        dropped: &[".attn.bias", ".attn.masked_bias"],
        rules: &[
            rule(How::Transposed, "attn.c_attn", &["attn.c_attn"]),
            rule(How::Transposed, "attn.c_proj", &["attn.c_proj"]),
            rule(How::Transposed, "mlp.c_fc", &["mlp.c_fc"]),
            rule(How::Transposed, "mlp.c_proj", &["mlp.c_proj"]),
        ],
    },
    Model {
        model_types: &["gptj"],
        prefixes: &[("transformer.", "model.")],
        dropped: &[".attn.bias", ".attn.masked_bias"],
        rules: &[],
    },
    Model {
        model_types: &["mamba", "mamba2", "falcon_mamba"],
        prefixes: &[],
        dropped: &[],
        rules: &[convolution(&["mixer.conv1d"])],
    },
    Model {
        model_types: &["falcon_h1"],
        prefixes: &[],
        dropped: &[],
        rules: &[convolution(&["mamba.conv1d"])],
    },
    Model {
        model_types: &["minicpm"],
        prefixes: &[],
        dropped: &[],
        rules: &[rule(
            How::Copy,
            "model.embed_tokens",
            &["model.embed_tokens", "lm_head"],
        )],
    },
];

/// The row for a model; `None` where MLX names and arranges tensors as Hugging Face does.
pub(crate) fn model(model_type: &str) -> Option<&'static Model> {
    MODELS.iter().find(|model| model.model_types.contains(&model_type))
}
