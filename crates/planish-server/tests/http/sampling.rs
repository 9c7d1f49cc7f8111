//! Penalties, biases and log probabilities, each request's own, against the model's logits.

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::server::{Running, model};

const PROMPTS: [&str; 4] = ["The cat", "Once upon a time", "One day, a dog", "Tom"];
const TOKENS: usize = 24;

/// How a request changes logits.
#[derive(Clone, Copy)]
struct Changes {
    presence: f32,
    frequency: f32,
    bias: &'static [(u32, f32)],
}

const CHANGES: [Changes; 4] = [
    Changes {
        presence: 0.0,
        frequency: 0.0,
        bias: &[],
    },
    Changes {
        presence: 2.0,
        frequency: 0.0,
        bias: &[],
    },
    Changes {
        presence: 0.0,
        frequency: 1.5,
        bias: &[(300, 2.0)],
    },
    Changes {
        presence: -0.5,
        frequency: 2.0,
        bias: &[(13, -100.0), (400, 3.5)],
    },
];

fn likeliest(logits: &[f32]) -> u32 {
    let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    logits.iter().position(|&logit| logit == best).unwrap() as u32
}

/// The greedy answer by the definition of the penalties, and the logits of every step.
fn expected(prompt: &[u32], changes: Changes, ends: &[u32]) -> (Vec<u32>, Vec<Vec<f32>>) {
    let (mut tokens, mut steps) = (prompt.to_vec(), Vec::new());
    let mut counts: HashMap<u32, f32> = HashMap::new();
    while tokens.len() < prompt.len() + TOKENS {
        let logits = model().logits(&tokens).unwrap();
        let mut changed = logits.clone();
        for (&token, &count) in &counts {
            changed[token as usize] -= changes.presence + changes.frequency * count;
        }
        for &(token, bias) in changes.bias {
            changed[token as usize] += bias;
        }
        let token = likeliest(&changed);
        if ends.contains(&token) {
            break;
        }
        steps.push(logits);
        *counts.entry(token).or_default() += 1.0;
        tokens.push(token);
    }
    (tokens.split_off(prompt.len()), steps)
}

fn logprob(logits: &[f32], token: u32) -> f64 {
    let sum: f64 = logits.iter().map(|&logit| f64::from(logit).exp()).sum();
    f64::from(logits[token as usize]) - sum.ln()
}

fn near(found: &Value, expected: f64) -> bool {
    (found.as_f64().unwrap() - expected).abs() < 1e-4
}

#[test]
fn penalties_and_biases_are_each_requests_own() {
    let server = Running::usual();
    let tokenizer = model().tokenizer().unwrap();
    let ends = model().plan(&crate::server::config(1)).unwrap().eos_token_id;
    let asked: Vec<(&str, Changes)> = PROMPTS.into_iter().zip(CHANGES).collect();
    let found: Vec<Value> = std::thread::scope(|scope| {
        let ask = |&(prompt, changes): &(&'static str, Changes)| {
            let bias: HashMap<String, f32> = changes
                .bias
                .iter()
                .map(|(token, bias)| (token.to_string(), *bias))
                .collect();
            let body = json!({
                "prompt": prompt, "max_tokens": TOKENS, "temperature": 0, "logprobs": 2, "logit_bias": bias,
                "presence_penalty": changes.presence, "frequency_penalty": changes.frequency,
            });
            let server = &server;
            scope.spawn(move || server.post("/v1/completions", &body).1)
        };
        let threads: Vec<_> = asked.iter().map(ask).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let mut changed = 0;
    for ((prompt, changes), answer) in asked.iter().zip(&found) {
        let prompt = tokenizer.encode(prompt).unwrap();
        let (tokens, steps) = expected(&prompt, *changes, &ends);
        changed += usize::from(tokens != expected(&prompt, CHANGES[0], &ends).0);
        let likely = &answer["choices"][0]["logprobs"];
        let texts: Vec<String> = tokens
            .iter()
            .map(|&token| String::from_utf8(tokenizer.tokenizer().token_bytes(token).unwrap()).unwrap())
            .collect();
        assert_eq!(likely["tokens"], json!(texts), "{answer}");
        assert_eq!(answer["choices"][0]["text"], json!(texts.concat()));
        let mut offset = 0;
        for (index, (token, logits)) in tokens.iter().zip(&steps).enumerate() {
            assert!(near(&likely["token_logprobs"][index], logprob(logits, *token)));
            assert_eq!(likely["text_offset"][index], json!(offset));
            offset += texts[index].chars().count();
            let best = tokenizer.tokenizer().token_bytes(likeliest(logits)).unwrap();
            let best = &likely["top_logprobs"][index][String::from_utf8_lossy(&best).as_ref()];
            assert!(near(best, logprob(logits, likeliest(logits))), "{likely}");
        }
    }
    assert!(changed >= 2, "the changes change something");
}

#[test]
fn streams_tell_the_log_probabilities_that_whole_answers_have() {
    let server = Running::usual();
    let messages = json!([{"role": "user", "content": "Once"}]);
    let mut body = json!({
        "messages": messages, "max_tokens": TOKENS, "temperature": 0, "logprobs": true, "top_logprobs": 3, "n": 2,
    });
    let (status, whole) = server.post("/v1/chat/completions", &body);
    assert_eq!(status, 200, "{whole}");
    body["stream"] = json!(true);
    let mut events = server.stream("/v1/chat/completions", &body);
    assert_eq!(events.pop().unwrap(), "[DONE]");
    let events: Vec<Value> = events
        .iter()
        .map(|event| serde_json::from_str(event).unwrap())
        .collect();
    for index in 0..2 {
        let choices = events.iter().map(|event| &event["choices"][0]);
        let own = choices.filter(|choice| choice["index"] == index);
        let pieces: Vec<Value> = own
            .filter_map(|choice| choice["logprobs"]["content"].as_array())
            .flatten()
            .cloned()
            .collect();
        let choice = &whole["choices"][index];
        assert_eq!(choice["logprobs"]["content"], json!(pieces));
        let text: String = pieces.iter().map(|token| token["token"].as_str().unwrap()).collect();
        assert_eq!(choice["message"]["content"], json!(text));
        assert!(
            pieces
                .iter()
                .all(|token| token["top_logprobs"].as_array().unwrap().len() == 3)
        );
        let first = |token: &Value| token["top_logprobs"][0]["logprob"] == token["logprob"];
        assert!(pieces.iter().all(first), "the likeliest was chosen");
    }
}
