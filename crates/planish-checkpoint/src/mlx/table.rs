//! The models whose tensors mlx-lm 0.32 names or arranges otherwise than Hugging Face, as data.
//!
//! Source: the `sanitize` methods of <https://github.com/ml-explore/mlx-lm/tree/main/mlx_lm/models>.

/// A row of the table.
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

/// What becomes of tensors whose name holds a path. Paths are given between layer and `.weight`.
pub(crate) enum Rule {
    /// `EXPERTS.<number>.PART` of all experts are one tensor `STACK.PART` (experts, rows, cols).
    Stack {
        experts: &'static str,
        stack: &'static str,
        /// Hugging Face and MLX.
        parts: &'static [(&'static str, &'static str)],
    },
    /// Another name.
    Name(&'static str, &'static str),
    /// The rows of each expert, or of the one matrix, are those of two.
    Halves {
        joined: &'static str,
        halves: [&'static str; 2],
    },
    /// Matrices stored (cols, rows), of one or all experts: the columns in turn are rows of several tensors.
    Turned {
        joined: &'static str,
        /// Names that may lack `.weight` at Hugging Face; in MLX they have it.
        parts: &'static [&'static str],
    },
    /// Vectors whose values in turn are those of several.
    InTurn {
        joined: &'static str,
        parts: &'static [&'static str],
    },
    /// A convolution over time: (channels, 1, width) becomes (channels, width, 1).
    Convolution(&'static str),
    /// One is added to the weights of norms whose name ends so.
    AddOne(&'static [&'static str]),
    /// Rows of each head: keys without position, then values. The keys' are turned over.
    KeysAndValues {
        joined: &'static str,
        keys: &'static str,
        values: &'static str,
    },
    /// A rule for models that have no experts.
    WithoutExperts(&'static Rule),
    /// A copy where there is no tensor of that name: of what, and its name.
    Copy(&'static str, &'static str),
}

const GATED: &[(&str, &str)] = &[
    ("gate_proj", "gate_proj"),
    ("up_proj", "up_proj"),
    ("down_proj", "down_proj"),
];
const NUMBERED: &[(&str, &str)] = &[("w1", "gate_proj"), ("w3", "up_proj"), ("w2", "down_proj")];
const EXPERTS: Rule = Rule::Stack {
    experts: "mlp.experts",
    stack: "mlp.switch_mlp",
    parts: GATED,
};
const JOINED_EXPERTS: Rule = Rule::Halves {
    joined: "mlp.experts.gate_up_proj",
    halves: ["mlp.switch_mlp.gate_proj", "mlp.switch_mlp.up_proj"],
};
const JOINED_DOWN: Rule = Rule::Name("mlp.experts.down_proj", "mlp.switch_mlp.down_proj");
const GRANITE_EXPERTS: Rule = Rule::Halves {
    joined: "block_sparse_moe.input_linear",
    halves: [
        "block_sparse_moe.switch_mlp.gate_proj",
        "block_sparse_moe.switch_mlp.up_proj",
    ],
};
const GRANITE_DOWN: Rule = Rule::Name(
    "block_sparse_moe.output_linear",
    "block_sparse_moe.switch_mlp.down_proj",
);

pub(crate) static MODELS: &[Model] = &[
    Model {
        model_types: &["mixtral", "phimoe"],
        prefixes: &[],
        dropped: &[],
        rules: &[Rule::Stack {
            experts: "block_sparse_moe.experts",
            stack: "block_sparse_moe.switch_mlp",
            parts: NUMBERED,
        }],
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
            Rule::KeysAndValues {
                joined: "self_attn.kv_b_proj",
                keys: "self_attn.embed_q",
                values: "self_attn.unembed_out",
            },
        ],
    },
    Model {
        model_types: &["dots1"],
        prefixes: &[],
        dropped: &[],
        rules: &[Rule::Stack {
            experts: "mlp.experts",
            stack: "mlp.experts",
            parts: GATED,
        }],
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
            Rule::WithoutExperts(&Rule::Halves {
                joined: "shared_mlp.input_linear",
                halves: ["mlp.gate_proj", "mlp.up_proj"],
            }),
            Rule::WithoutExperts(&Rule::Name("shared_mlp.output_linear", "mlp.down_proj")),
            Rule::Convolution("mamba.conv1d"),
        ],
    },
    Model {
        model_types: &["gpt_oss"],
        prefixes: &[],
        dropped: &[],
        rules: &[
            Rule::Turned {
                joined: "mlp.experts.gate_up_proj",
                parts: &["mlp.experts.gate_proj", "mlp.experts.up_proj"],
            },
            Rule::Turned {
                joined: "mlp.experts.down_proj",
                parts: &["mlp.experts.down_proj"],
            },
            Rule::InTurn {
                joined: "mlp.experts.gate_up_proj_bias",
                parts: &["mlp.experts.gate_proj.bias", "mlp.experts.up_proj.bias"],
            },
            Rule::InTurn {
                joined: "mlp.experts.down_proj_bias",
                parts: &["mlp.experts.down_proj.bias"],
            },
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
            Rule::Convolution("linear_attn.conv1d"),
            Rule::AddOne(&[
                "input_layernorm",
                "post_attention_layernorm",
                "model.norm",
                "q_norm",
                "k_norm",
            ]),
        ],
    },
    Model {
        model_types: &["lfm2"],
        prefixes: &[],
        dropped: &[],
        rules: &[Rule::Convolution("conv.conv")],
    },
    Model {
        model_types: &["lfm2_moe"],
        prefixes: &[],
        dropped: &[],
        rules: &[
            Rule::Stack {
                experts: "feed_forward.experts",
                stack: "feed_forward.switch_mlp",
                parts: NUMBERED,
            },
            Rule::Name("feed_forward.w1", "feed_forward.gate_proj"),
            Rule::Name("feed_forward.w2", "feed_forward.down_proj"),
            Rule::Name("feed_forward.w3", "feed_forward.up_proj"),
            Rule::Convolution("conv.conv"),
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
            Rule::Turned {
                joined: "attn.c_attn",
                parts: &["attn.c_attn"],
            },
            Rule::Turned {
                joined: "attn.c_proj",
                parts: &["attn.c_proj"],
            },
            Rule::Turned {
                joined: "mlp.c_fc",
                parts: &["mlp.c_fc"],
            },
            Rule::Turned {
                joined: "mlp.c_proj",
                parts: &["mlp.c_proj"],
            },
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
        rules: &[Rule::Convolution("mixer.conv1d")],
    },
    Model {
        model_types: &["falcon_h1"],
        prefixes: &[],
        dropped: &[],
        rules: &[Rule::Convolution("mamba.conv1d")],
    },
    Model {
        model_types: &["minicpm"],
        prefixes: &[],
        dropped: &[],
        rules: &[Rule::Copy("model.embed_tokens", "lm_head")],
    },
];

/// The row for a model; `None` where MLX names and arranges tensors as Hugging Face does.
pub(crate) fn model(model_type: &str) -> Option<&'static Model> {
    MODELS.iter().find(|model| model.model_types.contains(&model_type))
}
