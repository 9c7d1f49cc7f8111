//! Random packed weights in the shapes of well-known models, to measure speed and memory with no checkpoint.

use planish_format::{FloatType, FormatError, PackedMatrix, PackedShape, Packing};
use planish_ops::Matrix;
use serde_json::{Map, Value, json};

use crate::source::{PendingWeight, WeightSource};
use crate::{Architecture, Error, LinearSpec, LoadOptions, Model, StackSpec};

/// Names of the shapes that [`Model::random`] knows.
pub const SHAPES: [&str; 5] = [
    "smollm2-135m",
    "granite-3.0-1b-a400m",
    "llama-3.2-1b",
    "llama-3.1-8b",
    "qwen3-30b-a3b",
];

/// config.json of a shape.
fn config(shape: &str) -> Option<Map<String, Value>> {
    let config = match shape {
        "smollm2-135m" => json!({
            "architectures": ["LlamaForCausalLM"], "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
            "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152, "max_position_embeddings": 8192,
            "rms_norm_eps": 1e-5, "rope_theta": 100000.0, "tie_word_embeddings": true
        }),
        "granite-3.0-1b-a400m" => json!({
            "architectures": ["GraniteMoeForCausalLM"], "hidden_size": 1024, "intermediate_size": 512, "num_hidden_layers": 24,
            "num_attention_heads": 16, "num_key_value_heads": 8, "vocab_size": 49155, "max_position_embeddings": 4096,
            "num_local_experts": 32, "num_experts_per_tok": 8, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
            "embedding_multiplier": 12.0, "attention_multiplier": 0.015625, "residual_multiplier": 0.22, "logits_scaling": 6.0,
            "tie_word_embeddings": true
        }),
        "llama-3.2-1b" => json!({
            "architectures": ["LlamaForCausalLM"], "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
            "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 131072,
            "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "tie_word_embeddings": true, "rope_scaling": {
                "rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8192
            }
        }),
        "llama-3.1-8b" => json!({
            "architectures": ["LlamaForCausalLM"], "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
            "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 131072,
            "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "tie_word_embeddings": false, "rope_scaling": {
                "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8192
            }
        }),
        "qwen3-30b-a3b" => json!({
            "architectures": ["Qwen3MoeForCausalLM"], "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 48,
            "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128, "vocab_size": 151936,
            "max_position_embeddings": 40960, "num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768,
            "norm_topk_prob": true, "decoder_sparse_step": 1, "mlp_only_layers": [], "rms_norm_eps": 1e-6, "rope_theta": 1000000.0,
            "tie_word_embeddings": false
        }),
        _ => return None,
    };
    config.as_object().cloned()
}

impl Model {
    /// A model of one of [`SHAPES`] with random weights: every matrix packed, the token table included, bf16 scales.
    ///
    /// # Errors
    /// [`Error::Config`] for an unknown shape or a group that does not divide its columns; an absent device.
    pub fn random(shape: &str, packing: Packing, options: &LoadOptions) -> Result<Model, Error> {
        let config = config(shape).ok_or_else(|| wrong("shape", SHAPES.join(", "), shape.to_owned()))?;
        let architecture = Architecture::from_config(&config)?;
        Model::build(architecture, &RandomSource { packing }, options)
    }
}

fn wrong(key: &str, expected: String, found: String) -> Error {
    Error::Config {
        key: key.to_owned(),
        expected,
        found,
    }
}

struct RandomSource {
    packing: Packing,
}

impl RandomSource {
    /// Codes are uniform; scales and biases give the weights mean 0 and variance 1 / cols.
    fn packed(&self, spec: &LinearSpec) -> Result<PackedMatrix, Error> {
        let (rows, cols) = (spec.rows, spec.cols);
        let seed = spec.name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        });
        let wrong_group = |error: FormatError| wrong("group", error.to_string(), self.packing.group().to_string());
        let shape = PackedShape::new(rows, cols, self.packing, FloatType::BF16).map_err(wrong_group)?;
        let words = shape.code_bytes() / 8 + 1;
        let mut state = seed | 1;
        let mut codes = Vec::with_capacity(words * 8);
        for _ in 0..words {
            // xorshift64 (Marsaglia, 2003).
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            codes.extend_from_slice(&state.to_le_bytes());
        }
        codes.truncate(shape.code_bytes());
        let highest = ((1u32 << self.packing.bits()) - 1) as f32;
        let scale = (12.0 / cols as f32).sqrt() / highest;
        let groups = rows * shape.groups();
        let scales = repeat_bf16(scale, groups).into();
        let biases = repeat_bf16(-scale * highest / 2.0, groups).into();
        PackedMatrix::new(shape, codes.into(), scales, biases).map_err(wrong_group)
    }
}

impl WeightSource for RandomSource {
    fn matrix(&self, spec: &LinearSpec) -> Result<PendingWeight<'_>, Error> {
        self.packed(spec)
            .map(|matrix| PendingWeight::Ready(Matrix::Packed(matrix)))
    }

    /// Tied heads stay tied.
    fn has(&self, _name: &str) -> bool {
        false
    }

    fn stack(&self, spec: &StackSpec) -> Result<Vec<PendingWeight<'_>>, Error> {
        // All experts of a projection lie in one tensor, as in checkpoints.
        let all = LinearSpec::new(format!("{:?}", spec.places), spec.experts * spec.rows, spec.cols);
        let all = self.packed(&all)?;
        let rows = |expert: usize| expert * spec.rows..(expert + 1) * spec.rows;
        Ok((0..spec.experts)
            .map(|expert| PendingWeight::Ready(Matrix::Packed(all.slice_rows(rows(expert)))))
            .collect())
    }

    fn stack_biases(&self, spec: &StackSpec) -> Result<Option<Vec<f32>>, Error> {
        let some = !spec.biases.is_empty();
        Ok(some.then(|| vec![0.0; spec.experts * spec.rows]))
    }

    fn values(&self, _name: &str, shapes: &[&[usize]]) -> Result<Vec<f32>, Error> {
        Ok(vec![1.0; shapes[0].iter().product()])
    }
}

fn repeat_bf16(value: f32, count: usize) -> Vec<u8> {
    half::bf16::from_f32(value).to_le_bytes().repeat(count)
}
