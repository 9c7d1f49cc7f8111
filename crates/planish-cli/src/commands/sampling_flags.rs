//! Flags by which `generate` and `chat` choose tokens. What is not given comes from the model's generation_config.json.

use planish_generate::GenerationConfig;

/// How tokens are chosen.
#[derive(clap::Args, Clone, Debug)]
pub struct SamplingFlags {
    /// Sample with this temperature; 0 always takes the likeliest token
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    pub temperature: Option<f32>,
    /// Sample only from the likeliest tokens that together reach this probability
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub top_p: Option<f32>,
    /// Sample only from this many likeliest tokens; 0 is all
    #[arg(long, value_name = "K")]
    pub top_k: Option<usize>,
    /// Sample only tokens at least this probable relative to the likeliest
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub min_p: Option<f32>,
    /// Divide the scores of tokens that occurred by this
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub repetition_penalty: Option<f32>,
    /// The same seed gives the same text [default: another one each time]
    #[arg(long, value_name = "S")]
    pub seed: Option<u64>,
}

impl SamplingFlags {
    /// The flags as a configuration.
    pub fn config(&self, max_new_tokens: usize) -> GenerationConfig {
        GenerationConfig {
            max_new_tokens,
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: self.top_k,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            seed: self.seed,
            ..GenerationConfig::default()
        }
    }
}
