//! Logits and greedy tokens of a model, for comparing planish with other implementations in f32 arithmetic.
//!
//! `logits MODEL OUT.f32 < prompts.json`: the input is `{"prompts": [[id, ..], ..], "new_tokens": N}`. OUT.f32 receives the logits
//! after every prompt token as little-endian f32 // (sum of prompt lengths, vocabulary); standard output one JSON object
//! `{"greedy": [[id, ..], ..]}`.

use std::io::{Read, Write};

use anyhow::Context;
use planish_checkpoint::Checkpoint;
use planish_model::{LoadOptions, Model};
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

    let checkpoint = Checkpoint::open(model.as_ref())?;
    let mut model = Model::load(
        &checkpoint,
        &LoadOptions {
            exact: true,
            ..LoadOptions::default()
        },
    )?;
    let mut file = std::io::BufWriter::new(std::fs::File::create(out)?);
    let mut greedy = Vec::new();
    for prompt in &prompts {
        let mut cache = model.cache(prompt.len() + new_tokens)?;
        let (mut written, mut last) = (Ok(()), 0);
        model.forward_all(prompt, &mut cache, &mut |_, logits| {
            last = largest(logits);
            let bytes: Vec<u8> = logits.iter().flat_map(|logit| logit.to_le_bytes()).collect();
            if written.is_ok() {
                written = file.write_all(&bytes);
            }
        })?;
        written?;
        let mut tokens = vec![last];
        while tokens.len() < new_tokens {
            last = largest(model.forward(&[last], &mut cache)?);
            tokens.push(last);
        }
        greedy.push(tokens);
    }
    file.flush()?;
    println!("{}", json!({ "greedy": greedy }));
    Ok(())
}

/// The first token with the largest logit.
fn largest(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (token, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = token;
        }
    }
    best as u32
}
