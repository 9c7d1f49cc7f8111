//! How likely a model holds one text for after another.

use std::ops::ControlFlow;

use planish_generate::Error as GenerateError;
use planish_model::{Cache, Chunk, Input, Want};

use crate::causal_lm::read;
use crate::evaluate::log_sum_exp;
use crate::{CausalLM, Error};

/// Of one continuation of a context.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Likelihood {
    /// The natural logarithm of the probability of all its tokens.
    pub log_likelihood: f64,
    /// Whether each of its tokens is the likeliest in its place.
    pub is_greedy: bool,
}

impl CausalLM {
    /// How likely each continuation is after its context, both as tokens. What several begin with is computed once, in whatever order they
    /// come. `on_done`, told how many are done, may break off; those that are not done are `None` then.
    ///
    /// # Errors
    /// An empty context, a token outside of the vocabulary, more tokens than the context holds, a failing device.
    pub fn likelihoods(
        &self,
        pairs: &[(Vec<u32>, Vec<u32>)],
        on_done: &mut dyn FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Vec<Option<Likelihood>>, Error> {
        let mut texts = Vec::new();
        for (context, continuation) in pairs {
            if context.is_empty() {
                return Err(GenerateError::EmptyPrompt.into());
            }
            let tokens = [context.as_slice(), continuation].concat();
            // The last is foreseen, and foresees nothing.
            self.check_context(tokens.len() - 1)?;
            texts.push((tokens, context.len()));
        }
        // Neighbours have the longest beginning in common.
        let mut order: Vec<usize> = (0..texts.len()).collect();
        order.sort_by(|&left, &right| texts[left].0.cmp(&texts[right].0));
        let longest = texts.iter().map(|(tokens, _)| tokens.len()).max().unwrap_or(0);
        let mut cache = self.lock().cache(longest);
        let mut cached: &[u32] = &[];
        let mut found = vec![None; texts.len()];
        for (done, &index) in order.iter().enumerate() {
            let (tokens, first) = &texts[index];
            let shared = cached.iter().zip(tokens).take_while(|(left, right)| left == right);
            let kept = cache.truncate(shared.count().min(first - 1));
            found[index] = Some(self.likelihood(&mut cache, (tokens, *first), kept)?);
            cached = &tokens[..tokens.len() - 1];
            if on_done(done + 1).is_break() {
                break;
            }
        }
        Ok(found)
    }

    /// Of the tokens from `first` on, of which the cache holds `kept`.
    fn likelihood(
        &self,
        cache: &mut Cache,
        (tokens, first): (&[u32], usize),
        kept: usize,
    ) -> Result<Likelihood, Error> {
        let mut model = self.lock();
        let vocabulary = model.architecture().vocabulary;
        if let Some(&token) = tokens.iter().find(|&&token| token as usize >= vocabulary) {
            return Err(GenerateError::UnknownToken { token, vocabulary }.into());
        }
        let mut found = Likelihood {
            log_likelihood: 0.0,
            is_greedy: true,
        };
        read(&mut model, &tokens[kept..first - 1], cache)?;
        if first == tokens.len() {
            return Ok(found);
        }
        let chunk = Chunk {
            cache,
            input: Input::Tokens(&tokens[first - 1..tokens.len() - 1]),
            want: Want::AllLogits,
        };
        model.run(&mut [chunk], &mut |row| {
            let token = tokens[first + row.token] as usize;
            let logit = row.logits[token];
            found.log_likelihood += f64::from(logit) - log_sum_exp(row.logits);
            let likelier = |(other, &value): (usize, &f32)| value > logit || (value == logit && other < token);
            found.is_greedy &= !row.logits.iter().enumerate().any(likelier);
        })?;
        Ok(found)
    }
}
