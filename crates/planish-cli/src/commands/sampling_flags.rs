//! Flags by which `generate` and `chat` choose tokens. What is not given comes from the model's generation_config.json.

use planish::{GenerationConfig, GenerationPlan};

/// How tokens are chosen.
#[derive(clap::Args, Clone, Debug)]
pub struct SamplingFlags {
    /// Sample with this temperature; 0 always takes the likeliest token [default: from generation_config.json, else 0]
    #[arg(long, visible_alias = "temp", value_name = "T")]
    pub temperature: Option<f32>,
    /// Sample only from the likeliest tokens that together reach this probability [default: from generation_config.json,
    /// else 1]
    #[arg(long, value_name = "P")]
    pub top_p: Option<f32>,
    /// Sample only from this many likeliest tokens; 0 is all [default: from generation_config.json, else 50]
    #[arg(long, value_name = "K", value_parser = top_k)]
    pub top_k: Option<usize>,
    /// Sample only tokens at least this probable relative to the likeliest [default: from generation_config.json,
    /// else 0]
    #[arg(long, value_name = "P")]
    pub min_p: Option<f32>,
    /// Divide the scores of tokens that occurred by this [default: from generation_config.json, else 1]
    #[arg(long, visible_alias = "repeat-penalty", value_name = "X")]
    pub repetition_penalty: Option<f32>,
    /// The same seed gives the same text [default: a new one each time]
    #[arg(long, value_name = "S", value_parser = seed)]
    pub seed: Option<u64>,
    /// End the answer before this text (repeatable) [default: from generation_config.json, else none]
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub stop: Vec<String>,
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
            stop_strings: Some(self.stop.clone()).filter(|stop| !stop.is_empty()),
            ..GenerationConfig::default()
        }
    }

    /// Says on standard error which flags do nothing, since the likeliest token is always taken.
    pub fn print_idle(&self, plan: &GenerationPlan) {
        let given = [
            ("--top-p", self.top_p.is_some()),
            ("--top-k", self.top_k.is_some()),
            ("--min-p", self.min_p.is_some()),
            ("--seed", self.seed.is_some()),
        ];
        let given: Vec<&str> = given
            .iter()
            .filter(|(_, given)| *given)
            .map(|(flag, _)| *flag)
            .collect();
        if plan.sampling.draws() || given.is_empty() {
            return;
        }
        let (names, have) = match given.as_slice() {
            [one] => ((*one).to_owned(), "has"),
            several => (several.join(", "), "have"),
        };
        eprintln!("note: {names} {have} no effect: tokens are drawn only with a --temperature above 0");
    }
}

/// For clap: how many tokens are left to choose from.
fn top_k(text: &str) -> Result<usize, String> {
    text.parse()
        .map_err(|_| "expected a whole number of at least 0, where 0 is all tokens".to_owned())
}

/// For clap: where a random stream begins.
fn seed(text: &str) -> Result<u64, String> {
    text.parse()
        .map_err(|_| format!("expected a whole number from 0 to {}", u64::MAX))
}

/// For clap: a number of tokens. `-ngl 99` of llama.cpp arrives here as `-n gl`.
pub fn new_tokens(text: &str) -> Result<usize, String> {
    if text == "gl" {
        let hint = "there is no -ngl: a model runs whole on one device, a GPU where there is one that it fits (--device chooses)";
        return Err(hint.to_owned());
    }
    text.parse()
        .map_err(|_| "expected a whole number of at least 0".to_owned())
}
