//! The runs of `planish bench`: rates in tokens per second, and one more run that says where time goes.

use std::time::{Duration, Instant};

use planish_cpu::{Cpu, MEMORY_BYTES, operation_rate, read_rate};
use planish_generate::{Sampler, Sampling};
use planish_model::{Cache, Choice, Model, NextInput, Phases};

/// As transformers samples unless told otherwise.
const SAMPLING: Sampling = Sampling {
    do_sample: true,
    temperature: 1.0,
    top_k: 50,
    top_p: 1.0,
    min_p: 0.0,
    repetition_penalty: 1.0,
    seed: 0,
};

/// Where the time of one prefill and of one decode goes, and what the machine can do at most.
pub(super) struct Profile {
    pub(super) prefill: Phases,
    pub(super) decode: Phases,
    /// Of all tokens of the decode; not part of the rates.
    pub(super) sampling: Duration,
    /// Bytes of weights that a decoded token reads.
    pub(super) token_bytes: u64,
    pub(super) limits: Limits,
}

/// What all threads together can do at most.
pub(super) struct Limits {
    /// Bytes per second, from memory.
    pub(super) memory: f64,
    /// Bytes per second, from a buffer as large as the weights that a token reads: caches may hold some of it.
    pub(super) weights: f64,
    /// Operations per second of the fastest dot product, on registers.
    pub(super) operations: f64,
}

/// Rates of prefills into an empty cache, after one to warm up. Empty without tokens.
pub(super) fn prefill(model: &mut Model, tokens: &[u32], repeat: usize) -> anyhow::Result<Vec<f64>> {
    let mut run = || {
        let mut cache = model.cache(tokens.len())?;
        timed(tokens.len(), || Ok(model.forward(tokens, &mut cache).map(|_| ())?))
    };
    rates(tokens.len(), repeat, &mut run)
}

/// Rates of decodes one token at a time after `before`, after one to warm up. Empty without tokens. A device that chooses tokens goes
/// on with the likeliest, as it generates; elsewhere the logits of `tokens` are computed.
pub(super) fn decode(model: &mut Model, before: &[u32], tokens: &[u32], repeat: usize) -> anyhow::Result<Vec<f64>> {
    let mut cache = model.cache(before.len() + tokens.len())?;
    let mut run = || {
        rewind(model, before, &mut cache)?;
        timed(tokens.len(), || {
            if model.chooses() {
                return generate(model, tokens, &mut cache);
            }
            for token in tokens {
                model.forward(std::slice::from_ref(token), &mut cache)?;
            }
            Ok(())
        })
    };
    rates(tokens.len(), repeat, &mut run)
}

/// The first of `tokens` and as many more as there are, each begun before the one before is known.
fn generate(model: &mut Model, tokens: &[u32], cache: &mut Cache) -> anyhow::Result<()> {
    for index in 0..tokens.len() {
        let input = match index {
            0 => NextInput::Tokens(&tokens[..1]),
            _ => NextInput::Chosen,
        };
        model.choose(input, cache, Choice::Likeliest)?;
        if index > 0 {
            model.take()?;
        }
    }
    model.take()?;
    Ok(())
}

fn rates(tokens: usize, repeat: usize, run: &mut dyn FnMut() -> anyhow::Result<f64>) -> anyhow::Result<Vec<f64>> {
    if tokens == 0 {
        return Ok(Vec::new());
    }
    run()?;
    (0..repeat).map(|_| run()).collect()
}

/// Tokens per second.
fn timed(tokens: usize, run: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let start = Instant::now();
    run()?;
    Ok(tokens as f64 / start.elapsed().as_secs_f64())
}

/// Leaves exactly `before` in the cache.
fn rewind(model: &mut Model, before: &[u32], cache: &mut Cache) -> anyhow::Result<()> {
    let kept = cache.truncate(before.len());
    if kept < before.len() {
        model.forward(&before[kept..], cache)?;
    }
    Ok(())
}

/// One more run of both kinds, on the CPU only: a GPU is not done when an operation returns, so its laps would say nothing.
pub(super) fn profile(
    model: &mut Model,
    prompt: &[u32],
    before: &[u32],
    tokens: &[u32],
) -> anyhow::Result<Option<Profile>> {
    if !model.device().starts_with("cpu") {
        return Ok(None);
    }
    model.measure(true);
    if !prompt.is_empty() {
        let mut cache = model.cache(prompt.len())?;
        model.forward(prompt, &mut cache)?;
    }
    let prefill = model.phases();
    let mut cache = model.cache(before.len() + tokens.len())?;
    rewind(model, before, &mut cache)?;
    model.measure(true);
    let mut sampler = Sampler::new(SAMPLING);
    let mut sampling = Duration::ZERO;
    for (index, token) in tokens.iter().enumerate() {
        let logits = model.forward(std::slice::from_ref(token), &mut cache)?;
        let start = Instant::now();
        sampler.choose(logits, &tokens[..=index])?;
        sampling += start.elapsed();
    }
    let decode = model.phases();
    model.measure(false);
    drop(cache);
    let token_bytes = (decode.matmul.work.bytes + decode.head.work.bytes) / tokens.len().max(1) as u64;
    Ok(Some(Profile {
        prefill,
        decode,
        sampling,
        token_bytes,
        limits: Limits::measure(model.threads(), token_bytes as usize)?,
    }))
}

impl Limits {
    fn measure(threads: usize, token_bytes: usize) -> anyhow::Result<Limits> {
        let cpu = Cpu::new(threads)?;
        Ok(Limits {
            memory: read_rate(cpu.pool(), MEMORY_BYTES),
            weights: read_rate(cpu.pool(), token_bytes),
            operations: operation_rate(&cpu),
        })
    }
}

/// `None` of nothing.
pub(super) fn median(rates: &[f64]) -> Option<f64> {
    let mut rates = rates.to_vec();
    rates.sort_by(f64::total_cmp);
    let middle = rates.len().checked_sub(1)? / 2;
    Some((rates[middle] + rates[rates.len() / 2]) / 2.0)
}
