//! How well a model predicts tokens: the logits along a piece of text, surprise in nats, perplexity.

use planish_model::Model;

/// How tokens go through a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feed {
    /// Many at once, as a prompt.
    AtOnce,
    /// One after the other, as they are generated.
    OneByOne,
}

/// What `each` makes of the logits after every token of `tokens` from index `first` to the last but one.
pub fn logits_from<T>(
    model: &mut Model,
    tokens: &[u32],
    first: usize,
    feed: Feed,
    mut each: impl FnMut(&[f32]) -> T,
) -> anyhow::Result<Vec<T>> {
    let mut cache = model.cache(tokens.len())?;
    if first > 0 {
        model.forward(&tokens[..first], &mut cache)?;
    }
    let scored = &tokens[first..tokens.len() - 1];
    if feed == Feed::OneByOne {
        let step = |token: &u32| Ok(each(model.forward(&[*token], &mut cache)?));
        return scored.iter().map(step).collect();
    }
    let mut results = Vec::new();
    model.forward_all(scored, &mut cache, &mut |_, logits| results.push(each(logits)))?;
    Ok(results)
}

/// The logarithm of what the exponentials of the logits sum to.
pub fn log_sum_exp(logits: &[f32]) -> f64 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&logit| f64::from((logit - largest).exp())).sum();
    f64::from(largest) + sum.ln()
}

/// Surprise at tokens, summed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Surprise {
    /// Tokens.
    pub count: usize,
    /// Sum of -ln of their probabilities.
    pub nats: f64,
}

impl Surprise {
    /// Counts `token` where the model gave these logits, whose [`log_sum_exp`] is `normalizer`.
    pub fn add(&mut self, logits: &[f32], normalizer: f64, token: u32) {
        self.count += 1;
        self.nats += normalizer - f64::from(logits[token as usize]);
    }

    /// The exponential of the mean.
    pub fn perplexity(&self) -> f64 {
        (self.nats / self.count as f64).exp()
    }
}
