//! A client of a server: asks, and says when what came.

use std::io::{BufRead, BufReader};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

/// A server that is asked.
pub(super) struct Server {
    agent: ureq::Agent,
    base: String,
    key: Option<String>,
    model: String,
    /// Conversations are answered; else texts are continued.
    chats: bool,
    /// Answers have just so many tokens, whatever the model says.
    ignores_end: bool,
}

/// An answer as its client saw it.
pub(super) struct Answered {
    pub prompt_tokens: u64,
    pub tokens: u64,
    /// Seconds to the first piece.
    pub first: f64,
    /// Seconds between pieces.
    pub gaps: Vec<f64>,
}

impl Answered {
    /// Tokens a second, from the first piece on.
    pub(super) fn rate(&self) -> f64 {
        self.tokens.saturating_sub(1) as f64 / self.gaps.iter().sum::<f64>().max(1e-9)
    }
}

/// How long a server may be silent.
const PATIENCE: Duration = Duration::from_secs(600);

impl Server {
    /// `url` with or without `/v1`.
    pub(super) fn new(url: &str, key: Option<String>) -> Server {
        let base = url.trim_end_matches('/').trim_end_matches("/v1").to_owned();
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_recv_response(Some(PATIENCE))
            .max_idle_connections(1024)
            .max_idle_connections_per_host(1024);
        Server {
            agent: config.build().into(),
            base,
            key,
            model: String::new(),
            chats: true,
            ignores_end: true,
        }
    }

    pub(super) fn route(&self) -> &'static str {
        match self.chats {
            true => "/v1/chat/completions",
            false => "/v1/completions",
        }
    }

    pub(super) fn ignores_end(&self) -> bool {
        self.ignores_end
    }

    pub(super) fn first_model(&self) -> anyhow::Result<String> {
        let url = format!("{}/v1/models", self.base);
        let mut request = self.agent.get(&url);
        if let Some(key) = &self.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let body: Value = request
            .call()
            .with_context(|| url.clone())?
            .body_mut()
            .read_json()
            .with_context(|| url.clone())?;
        let id = body["data"][0]["id"].as_str();
        id.map(str::to_owned)
            .with_context(|| format!("{url} names no model: {body}"))
    }

    /// Finds out what the server understands. A model without a chat template continues texts.
    pub(super) fn learn(&mut self, model: &str) -> anyhow::Result<()> {
        self.model = model.to_owned();
        let mut refused = String::new();
        for (chats, ignores_end) in [(true, true), (true, false), (false, true), (false, false)] {
            (self.chats, self.ignores_end) = (chats, ignores_end);
            match self.ask("Hello", 2) {
                Ok(_) => return Ok(()),
                Err(error) => refused = format!("{error:#}"),
            }
        }
        bail!("{}: {refused}", self.base)
    }

    pub(super) fn prompt_tokens(&self, prompt: &str) -> anyhow::Result<u64> {
        Ok(self.ask(prompt, 2)?.prompt_tokens)
    }

    /// Asks for an answer of so many tokens and waits for all of it.
    pub(super) fn ask(&self, prompt: &str, tokens: usize) -> anyhow::Result<Answered> {
        let url = format!("{}{}", self.base, self.route());
        let mut body = json!({
            "model": self.model, "max_tokens": tokens, "temperature": 0, "stream": true,
            "stream_options": {"include_usage": true},
        });
        match self.chats {
            true => body["messages"] = json!([{"role": "user", "content": prompt}]),
            false => body["prompt"] = json!(prompt),
        }
        if self.ignores_end {
            body["ignore_eos"] = json!(true);
        }
        let mut request = self.agent.post(&url);
        if let Some(key) = &self.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let start = Instant::now();
        let mut response = request.send_json(&body).with_context(|| url.clone())?;
        if !response.status().is_success() {
            let text = response.body_mut().read_to_string().unwrap_or_default();
            bail!("{url} says {}: {text}", response.status());
        }
        let mut answered = Answered {
            prompt_tokens: 0,
            tokens: 0,
            first: 0.0,
            gaps: Vec::new(),
        };
        let (mut last, mut pieces, mut counted) = (None, 0, false);
        for line in BufReader::new(response.body_mut().as_reader()).lines() {
            let line = line.with_context(|| url.clone())?;
            let Some(data) = line.strip_prefix("data: ") else {
                continue;
            };
            if data == "[DONE]" {
                break;
            }
            let event: Value = serde_json::from_str(data).with_context(|| format!("{url}: {data}"))?;
            ensure!(event.get("error").is_none(), "{url}: {data}");
            if let Some(usage) = event["usage"].as_object() {
                let count = |name: &str| usage.get(name).and_then(Value::as_u64);
                answered.prompt_tokens = count("prompt_tokens").unwrap_or(0);
                answered.tokens = count("completion_tokens").unwrap_or(0);
                counted = true;
            }
            if !has_text(&event["choices"][0]) {
                continue;
            }
            let now = Instant::now();
            match last.replace(now) {
                None => answered.first = (now - start).as_secs_f64(),
                Some(before) => answered.gaps.push((now - before).as_secs_f64()),
            }
            pieces += 1;
        }
        ensure!(pieces > 0, "{url}: an answer without text");
        ensure!(counted, "{url}: no usage came, though stream_options asked for it");
        Ok(answered)
    }
}

/// Whether a choice brings text of any kind.
fn has_text(choice: &Value) -> bool {
    let delta = &choice["delta"];
    [&choice["text"], &delta["content"], &delta["reasoning_content"]]
        .into_iter()
        .any(|text| text.as_str().is_some_and(|text| !text.is_empty()))
}
