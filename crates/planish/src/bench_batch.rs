//! Rates of many sequences on one model, as they are generated: each with a prompt of its own, all begun at once.

use std::ops::ControlFlow;
use std::time::Instant;

use planish_generate::{Batch, Cutoffs, GenerationPlan, Reading, Restrictions, Sampling, Session, Step};
use planish_model::{DeviceMemory, Model};

use crate::bench::random_tokens;
use crate::{CausalLM, Error};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchBenchOptions {
    /// Sequences side by side; they share nothing.
    pub sequences: usize,
    /// Tokens of each prompt.
    pub prompt_tokens: usize,
    /// Passes that are measured, once every sequence has its first token: each adds a token to every sequence.
    pub generate_tokens: usize,
    /// Measured runs, after one that is not.
    pub repeat: usize,
}

impl BatchBenchOptions {
    /// Of a sequence at most: those that are first have some more tokens when the last has its first.
    fn positions(&self) -> usize {
        let tokens = self.prompt_tokens.saturating_add(self.generate_tokens);
        tokens.saturating_add(self.sequences).saturating_add(2)
    }
}

/// Of each run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BatchRates {
    /// Tokens of all prompts per second.
    pub prefill: Vec<f64>,
    /// Tokens of all sequences per second, once every one has its first.
    pub decode: Vec<f64>,
    /// Seconds until a sequence has its first token, their mean.
    pub mean_first_token_s: Vec<f64>,
    /// Seconds until every sequence has its first token.
    pub last_first_token_s: Vec<f64>,
    /// What all sequences remember at the end.
    pub sequence_bytes: usize,
    /// With all sequences in it; `None` where it is the processor's.
    pub device_memory: Option<DeviceMemory>,
}

impl CausalLM {
    /// Measures many sequences side by side.
    ///
    /// # Errors
    /// More tokens than the context holds; a failing device.
    ///
    /// # Panics
    /// Without a sequence, a token of a prompt or a token to generate.
    pub fn bench_batch(&self, options: &BatchBenchOptions) -> Result<BatchRates, Error> {
        assert!(options.sequences > 0 && options.prompt_tokens > 0 && options.generate_tokens > 0);
        self.check_context(options.positions())?;
        let mut model = self.lock();
        let mut rates = BatchRates::default();
        run(&mut model, options, &mut BatchRates::default())?;
        for _ in 0..options.repeat {
            run(&mut model, options, &mut rates)?;
        }
        Ok(rates)
    }
}

fn run(model: &mut Model, options: &BatchBenchOptions, rates: &mut BatchRates) -> Result<(), Error> {
    let count = options.sequences;
    let tokens = random_tokens(model.architecture().vocabulary as u64, count * options.prompt_tokens);
    let plan = GenerationPlan {
        // As many as there may be passes: nobody ends before the measuring does.
        max_new_tokens: usize::MAX,
        sampling: Sampling {
            do_sample: false,
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            seed: 0,
            cutoffs: Cutoffs::default(),
        },
        eos_token_id: Vec::new(),
        restrictions: Restrictions::default(),
        stop_strings: Vec::new(),
        max_time: None,
        logprobs: None,
        reading: Reading::default(),
        by_logits: false,
        grammar: None,
    };
    let mut batch = Batch::default();
    let start = Instant::now();
    for prompt in tokens.chunks(options.prompt_tokens) {
        let mut session = Session::with_capacity(model, options.positions());
        session.begin(model, prompt, &plan)?;
        batch.add(session);
    }
    let mut first = vec![None; count];
    while first.contains(&None) {
        batch.step(model, &mut |member, step| {
            if let Step::Token(_) = step {
                first[member.number()].get_or_insert_with(|| start.elapsed().as_secs_f64());
            }
            ControlFlow::Continue(())
        })?;
    }
    let last = start.elapsed().as_secs_f64();
    let mut decoded = 0;
    let start = Instant::now();
    for _ in 0..options.generate_tokens {
        batch.step(model, &mut |_, _| {
            decoded += 1;
            ControlFlow::Continue(())
        })?;
    }
    rates.decode.push(decoded as f64 / start.elapsed().as_secs_f64());
    rates.prefill.push(tokens.len() as f64 / last);
    let sum: f64 = first.iter().flatten().sum();
    rates.mean_first_token_s.push(sum / count as f64);
    rates.last_first_token_s.push(last);
    rates.sequence_bytes = model.sequence_bytes();
    rates.device_memory = model.device_memory();
    Ok(())
}
