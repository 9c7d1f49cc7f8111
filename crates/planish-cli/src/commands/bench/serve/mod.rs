//! `planish bench --serve`: how fast a server answers many clients, ours or any that speaks as OpenAI's does.

mod client;
mod prompts;

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::Context;
use planish::{Chart, ChartCurve, ChartPoint};
use serde_json::{Value, json};

use super::Arguments;
use client::{Answered, Server};

/// Flags of `planish bench --serve`.
#[derive(clap::Args, Debug)]
pub(super) struct ServeFlags {
    /// Measure a server that answers as OpenAI's does, by this address (http://127.0.0.1:8080); MODEL is its name there
    #[arg(long, value_name = "URL", conflicts_with_all = ["shape", "batch", "depth"])]
    pub serve: Option<String>,
    /// Clients at a time, one number after the other; each asks --repeat times
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_values_t = [1, 4, 16, 64], requires = "serve",
        value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub concurrency: Vec<u32>,
    /// The server's key [default: PLANISH_API_KEY, else none]
    #[arg(long, value_name = "KEY", requires = "serve")]
    pub api_key: Option<String>,
    /// Write a plot of rates over clients
    #[arg(long, value_name = "FILE", requires = "serve")]
    pub svg: Option<PathBuf>,
}

/// What a number of clients saw.
struct Level {
    clients: u32,
    answers: Vec<Answered>,
    wall: Duration,
}

pub(super) fn run(arguments: &Arguments, url: &str) -> anyhow::Result<()> {
    anyhow::ensure!(
        arguments.generate_tokens > 1,
        "--generate-tokens must be at least 2: gaps are measured"
    );
    let flags = &arguments.server;
    let key = flags.api_key.clone().or_else(|| std::env::var("PLANISH_API_KEY").ok());
    let mut server = Server::new(url, key);
    let model = match arguments.name() {
        Some(name) => name.into_owned(),
        None => server.first_model()?,
    };
    server.learn(&model)?;
    let sizes = prompts::Sizes::measure(&server, arguments.prompt_tokens)?;
    if !arguments.json {
        println!(
            "{model} at {url}{}, answers of {} tokens",
            server.route(),
            arguments.generate_tokens
        );
        println!("         tokens of answers/s   prompts,  first token, s       gaps, ms");
        println!("clients     all       each   tokens/s      p50     p99    p50    p99     most");
    }
    let mut levels = Vec::new();
    for &clients in &flags.concurrency {
        let level = measure(&server, &sizes, arguments, clients)?;
        let row = level.row();
        if !arguments.json {
            print_row(&row);
        }
        levels.push(row);
    }
    if let Some(path) = &flags.svg {
        let svg = chart(&format!("{model}, {}-token prompts", arguments.prompt_tokens), &levels);
        std::fs::write(path, svg).with_context(|| path.display().to_string())?;
    }
    if arguments.json {
        let result = json!({
            "server": url,
            "route": server.route(),
            "model": model,
            "ignores_end": server.ignores_end(),
            "prompt_tokens": arguments.prompt_tokens,
            "generate_tokens": arguments.generate_tokens,
            "repeat": arguments.repeat,
            "levels": levels,
        });
        println!("{result}");
    }
    Ok(())
}

/// Asks with so many clients at a time, each again and again. One that fails ends the measurement.
fn measure(server: &Server, sizes: &prompts::Sizes, arguments: &Arguments, clients: u32) -> anyhow::Result<Level> {
    let found = Mutex::new(Vec::new());
    let start = Instant::now();
    let ask = |client: u32| -> anyhow::Result<()> {
        for round in 0..arguments.repeat {
            // No two prompts begin alike, or the server would only have to remember.
            let prompt = sizes.prompt((u64::from(clients) << 40) | (u64::from(client) << 20) | round as u64);
            let answered = server.ask(&prompt, arguments.generate_tokens)?;
            found.lock().expect("no client panics").push(answered);
        }
        Ok(())
    };
    std::thread::scope(|scope| -> anyhow::Result<()> {
        let ask = &ask;
        let threads: Vec<_> = (0..clients).map(|client| scope.spawn(move || ask(client))).collect();
        let ends = threads
            .into_iter()
            .map(|thread| thread.join().expect("no client panics"));
        ends.collect()
    })?;
    Ok(Level {
        clients,
        answers: found.into_inner().expect("no client panics"),
        wall: start.elapsed(),
    })
}

impl Level {
    fn row(&self) -> Value {
        let seconds = self.wall.as_secs_f64();
        let generated: u64 = self.answers.iter().map(|answer| answer.tokens).sum();
        let prompts: u64 = self.answers.iter().map(|answer| answer.prompt_tokens).sum();
        let first = sorted(self.answers.iter().map(|answer| answer.first));
        let gaps = sorted(self.answers.iter().flat_map(|answer| answer.gaps.iter().copied()));
        let each = sorted(self.answers.iter().map(Answered::rate));
        let count = self.answers.len();
        json!({
            "clients": self.clients,
            "answers": count,
            "seconds": seconds,
            "tokens_per_s": generated as f64 / seconds,
            "tokens_per_s_of_each": part(&each, 0.5),
            "prompt_tokens_per_s": prompts as f64 / seconds,
            "mean_prompt_tokens": prompts as f64 / count as f64,
            "mean_answer_tokens": generated as f64 / count as f64,
            "first_token_s": {"p50": part(&first, 0.5), "p99": part(&first, 0.99)},
            "gap_s": {"p50": part(&gaps, 0.5), "p99": part(&gaps, 0.99), "most": part(&gaps, 1.0)},
        })
    }
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

/// The least value that so great a part of all does not exceed.
fn part(sorted: &[f64], part: f64) -> Option<f64> {
    let index = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(index.saturating_sub(1)).copied()
}

fn print_row(row: &Value) {
    let number = |path: &str| row.pointer(path).and_then(Value::as_f64).unwrap_or(0.0);
    println!(
        "{:7} {:7.1} {:10.1} {:10.1} {:8.3} {:7.3} {:6.1} {:6.1} {:8.1}",
        row["clients"].as_u64().unwrap_or(0),
        number("/tokens_per_s"),
        number("/tokens_per_s_of_each"),
        number("/prompt_tokens_per_s"),
        number("/first_token_s/p50"),
        number("/first_token_s/p99"),
        1e3 * number("/gap_s/p50"),
        1e3 * number("/gap_s/p99"),
        1e3 * number("/gap_s/most"),
    );
}

fn chart(title: &str, levels: &[Value]) -> String {
    let curve = |name: &str, key: &str| ChartCurve {
        name: name.to_owned(),
        points: levels
            .iter()
            .filter_map(|row| {
                let (x, y) = (row["clients"].as_f64()?, row[key].as_f64()?);
                let told = format!("{name}, {x} clients: {y:.1} tokens/s");
                Some(ChartPoint { x, y, told })
            })
            .collect(),
    };
    let chart = Chart {
        title,
        across: "clients at a time",
        up: "tokens of answers a second",
        doubling: true,
        curves: vec![
            curve("all together", "tokens_per_s"),
            curve("each", "tokens_per_s_of_each"),
        ],
    };
    chart.svg()
}

#[cfg(test)]
mod tests {
    use super::part;

    #[test]
    fn parts_are_values_that_were_there() {
        let values: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(
            (part(&values, 0.5), part(&values, 0.99), part(&values, 1.0)),
            (Some(50.0), Some(99.0), Some(100.0))
        );
        assert_eq!((part(&[3.0], 0.5), part(&[], 0.5)), (Some(3.0), None));
    }
}
