//! Rates of a model in tokens per second, and one more run that says where time goes.
//!
//! As llama-bench does it: prefill processes random tokens into an empty cache, decode feeds them one by one into an empty cache
//! (or one filled with `depth` tokens). Rates are of `repeat` runs after one unmeasured run.

use std::time::Instant;

use planish_cpu::{Cpu, MEMORY_BYTES, operation_rate, read_rate};
use planish_format::memory::or_out_of_memory;
use planish_generate::{Cutoffs, Sampler, Sampling};
use planish_model::{Cache, Choice, Chunk, Input, Model, Phases, Ticket, Want};

use crate::{CausalLM, Error};

/// As transformers samples unless told otherwise.
const SAMPLING: Sampling = Sampling {
    do_sample: true,
    temperature: 1.0,
    top_k: 50,
    top_p: 1.0,
    min_p: 0.0,
    repetition_penalty: 1.0,
    presence_penalty: 0.0,
    frequency_penalty: 0.0,
    seed: 0,
    cutoffs: Cutoffs {
        top_h: None,
        typical_p: None,
        epsilon: None,
        eta: None,
    },
};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BenchOptions {
    /// Tokens of a prefill; 0 measures none.
    pub prompt_tokens: usize,
    /// Tokens of a decode; 0 measures none.
    pub generate_tokens: usize,
    /// Tokens in the cache before a decode.
    pub depth: usize,
    /// Measured runs.
    pub repeat: usize,
}

/// Tokens per second of each run; empty where nothing was to be measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Rates {
    /// Of prefills.
    pub prefill: Vec<f64>,
    /// Of decodes.
    pub decode: Vec<f64>,
}

/// Where the time of one prefill and of one decode goes, and what the machine can do at most.
#[derive(Clone, Copy, Debug)]
pub struct Profile {
    /// Of the prefill.
    pub prefill: Phases,
    /// Of the decode.
    pub decode: Phases,
    /// Bytes of weights that a decoded token reads.
    pub token_bytes: u64,
    /// What the machine can do at most.
    pub limits: Limits,
}

/// What all threads together can do at most.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes per second, from memory.
    pub memory: f64,
    /// Bytes per second, from a buffer as large as the weights that a token reads: caches may hold some of it.
    pub weights: f64,
    /// Operations per second of the fastest dot product, on registers.
    pub operations: f64,
}

impl CausalLM {
    /// Measures rates.
    ///
    /// # Errors
    /// More tokens than the context holds; a failing device.
    pub fn bench(&self, options: &BenchOptions) -> Result<Rates, Error> {
        let longest = options
            .prompt_tokens
            .max(options.depth.saturating_add(options.generate_tokens));
        self.check_context(longest)?;
        let tokens = Tokens::new(self, options);
        let mut model = self.lock();
        Ok(Rates {
            prefill: prefill(&mut model, &tokens.prompt, options.repeat)?,
            decode: decode(&mut model, &tokens.before, &tokens.generated, options.repeat)?,
        })
    }

    pub(crate) fn check_context(&self, tokens: usize) -> Result<(), Error> {
        let context = self.architecture().context;
        match tokens > context {
            true => Err(Error::Context { tokens, context }),
            false => Ok(()),
        }
    }

    /// One more run of both kinds that says where time goes, beside the limits of the machine measured in the same minute. On the
    /// CPU only (`None` elsewhere): a GPU is not done when an operation returns, so its laps would say nothing.
    ///
    /// # Errors
    /// As [`CausalLM::bench`].
    pub fn profile(&self, options: &BenchOptions) -> Result<Option<Profile>, Error> {
        if !self.device().starts_with("cpu") {
            return Ok(None);
        }
        let tokens = Tokens::new(self, options);
        profile(&mut self.lock(), &tokens).map(Some)
    }
}

/// Ids that are the same in every run.
struct Tokens {
    prompt: Vec<u32>,
    before: Vec<u32>,
    generated: Vec<u32>,
}

impl Tokens {
    fn new(model: &CausalLM, options: &BenchOptions) -> Tokens {
        let longest = options.prompt_tokens.max(options.generate_tokens).max(options.depth);
        let tokens = random_tokens(model.architecture().vocabulary as u64, longest);
        Tokens {
            prompt: tokens[..options.prompt_tokens].to_vec(),
            before: tokens[..options.depth].to_vec(),
            generated: tokens[..options.generate_tokens].to_vec(),
        }
    }
}

/// A linear congruence.
pub(crate) fn random_tokens(vocabulary: u64, count: usize) -> Vec<u32> {
    let next = |state: &u64| {
        Some(
            state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407),
        )
    };
    std::iter::successors(Some(1u64), next)
        .map(|state| ((state >> 33) % vocabulary) as u32)
        .take(count)
        .collect()
}

/// Rates of prefills into an empty cache, after one to warm up. Empty without tokens.
fn prefill(model: &mut Model, tokens: &[u32], repeat: usize) -> Result<Vec<f64>, Error> {
    let mut run = || {
        let mut cache = model.cache(tokens.len());
        timed(tokens.len(), || Ok(model.forward(tokens, &mut cache).map(|_| ())?))
    };
    rates(tokens.len(), repeat, &mut run)
}

/// Rates of decodes one token at a time after `before`, after one to warm up. Empty without tokens. A device that runs ahead goes on
/// with the likeliest, as it generates; elsewhere the logits of `tokens` are computed.
fn decode(model: &mut Model, before: &[u32], tokens: &[u32], repeat: usize) -> Result<Vec<f64>, Error> {
    let mut cache = model.cache(before.len() + tokens.len());
    let mut run = || {
        rewind(model, before, &mut cache)?;
        timed(tokens.len(), || {
            if model.runs_ahead() {
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
fn generate(model: &mut Model, tokens: &[u32], cache: &mut Cache) -> Result<(), Error> {
    let mut taken = Vec::new();
    let mut before: Option<Ticket> = None;
    for index in 0..tokens.len() {
        let input = match index {
            0 => Input::Tokens(&tokens[..1]),
            _ => Input::Chosen,
        };
        let want = Want::choice(Choice::Likeliest);
        let ticket = model.run(&mut [Chunk { cache, input, want }], &mut |_| {})?;
        if let Some(ticket) = std::mem::replace(&mut before, ticket) {
            model.take(ticket, &mut taken)?;
        }
    }
    if let Some(ticket) = before {
        model.take(ticket, &mut taken)?;
    }
    Ok(())
}

fn rates(tokens: usize, repeat: usize, run: &mut dyn FnMut() -> Result<f64, Error>) -> Result<Vec<f64>, Error> {
    if tokens == 0 {
        return Ok(Vec::new());
    }
    run()?;
    (0..repeat).map(|_| run()).collect()
}

/// Tokens per second.
fn timed(tokens: usize, run: impl FnOnce() -> Result<(), Error>) -> Result<f64, Error> {
    let start = Instant::now();
    run()?;
    Ok(tokens as f64 / start.elapsed().as_secs_f64())
}

/// Leaves exactly `before` in the cache.
fn rewind(model: &mut Model, before: &[u32], cache: &mut Cache) -> Result<(), Error> {
    let kept = cache.truncate(before.len());
    if kept < before.len() {
        model.forward(&before[kept..], cache)?;
    }
    Ok(())
}

fn profile(model: &mut Model, tokens: &Tokens) -> Result<Profile, Error> {
    let (prompt, before, generated) = (&tokens.prompt, &tokens.before, &tokens.generated);
    model.measure(true);
    if !prompt.is_empty() {
        let mut cache = model.cache(prompt.len());
        model.forward(prompt, &mut cache)?;
    }
    let prefill = model.phases();
    let mut cache = model.cache(before.len() + generated.len());
    rewind(model, before, &mut cache)?;
    model.measure(true);
    let mut sampler = Sampler::new(SAMPLING);
    let mut chosen = Vec::new();
    for token in generated {
        let chunk = Chunk {
            cache: &mut cache,
            input: Input::Tokens(std::slice::from_ref(token)),
            want: Want::choice(sampler.next_choice(&[])),
        };
        if let Some(ticket) = model.run(&mut [chunk], &mut |_| {})? {
            model.take(ticket, &mut chosen)?;
        }
    }
    let decode = model.phases();
    model.measure(false);
    drop(cache);
    let token_bytes = (decode.matmul.work.bytes + decode.head.work.bytes) / generated.len().max(1) as u64;
    Ok(Profile {
        prefill,
        decode,
        token_bytes,
        limits: Limits::measure(model.threads(), token_bytes as usize)?,
    })
}

impl Limits {
    fn measure(threads: usize, token_bytes: usize) -> Result<Limits, Error> {
        let cpu = Cpu::new(threads).map_err(|error| planish_model::Error::Device(Box::new(error)))?;
        Ok(or_out_of_memory(|| Limits {
            memory: read_rate(cpu.pool(), MEMORY_BYTES),
            weights: read_rate(cpu.pool(), token_bytes),
            operations: operation_rate(&cpu),
        })?)
    }
}
