//! Logits and greedy tokens of a model, for comparing planish with other implementations in f32 arithmetic.
//!
//! `logits MODEL OUT.f32 < prompts.json`: the input is `{"prompts": [[id, ..], ..], "new_tokens": N}`. OUT.f32 receives the logits
//! after every prompt token as little-endian f32 // (sum of prompt lengths, vocabulary); standard output one JSON object
//! `{"greedy": [[id, ..], ..]}`.

use std::io::{Read, Write};

use anyhow::Context;
use planish::{AutoModelForCausalLM, GenerationConfig};
use serde_json::json;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, out] = arguments.as_slice() else {
        anyhow::bail!("usage: logits MODEL OUT.f32 < prompts.json")
    };
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    let input: serde_json::Value = serde_json::from_str(&text)?;
    let prompts: Vec<Vec<u32>> = serde_json::from_value(input["prompts"].clone()).context("prompts")?;
    let new_tokens: usize = serde_json::from_value(input["new_tokens"].clone()).context("new_tokens")?;
    let model = AutoModelForCausalLM::from_pretrained(model).exact(true).load()?;
    let options = GenerationConfig {
        max_new_tokens: new_tokens,
        do_sample: Some(false),
        repetition_penalty: Some(1.0),
        eos_token_id: Some(vec![]),
        ..GenerationConfig::default()
    };
    let mut file = std::io::BufWriter::new(std::fs::File::create(out)?);
    let mut greedy = Vec::new();
    for prompt in &prompts {
        let mut written = Ok(());
        model.logits_from(prompt, 0, &mut |_, logits| {
            let bytes: Vec<u8> = logits.iter().flat_map(|logit| logit.to_le_bytes()).collect();
            if written.is_ok() {
                written = file.write_all(&bytes);
            }
        })?;
        written?;
        greedy.push(model.generate(prompt, &options)?.split_off(prompt.len()));
    }
    file.flush()?;
    println!("{}", json!({ "greedy": greedy }));
    Ok(())
}
