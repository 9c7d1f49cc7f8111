//! How likely tokens are by the model's logits, before anything changes them.

/// The natural logarithm of the probability of a token that was chosen, and of the likeliest ones in its place.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprobs {
    /// The token that was chosen.
    pub token: u32,
    /// Its own.
    pub logprob: f32,
    /// The likeliest tokens, the first of equals first.
    pub likeliest: Vec<(u32, f32)>,
}

impl TokenLogprobs {
    /// Of `token` by these logits, with so many of the likeliest. Logits that are not finite are no token's.
    pub(crate) fn of(logits: &[f32], token: u32, likeliest: usize) -> TokenLogprobs {
        let finite = || logits.iter().filter(|logit| logit.is_finite());
        let best = finite().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = finite().map(|&logit| (f64::from(logit) - f64::from(best)).exp()).sum();
        let total = f64::from(best) + sum.ln();
        let logprob = |logit: f32| match logit.is_finite() {
            true => (f64::from(logit) - total) as f32,
            false => f32::NEG_INFINITY,
        };
        let mut tokens: Vec<u32> = (0..logits.len() as u32).collect();
        tokens.retain(|&token| logits[token as usize].is_finite());
        let by_logit = |a: &u32, b: &u32| {
            let order = logits[*b as usize].total_cmp(&logits[*a as usize]);
            order.then(a.cmp(b))
        };
        if likeliest < tokens.len() {
            tokens.select_nth_unstable_by(likeliest, by_logit);
            tokens.truncate(likeliest);
        }
        tokens.sort_unstable_by(by_logit);
        TokenLogprobs {
            token,
            logprob: logits
                .get(token as usize)
                .map_or(f32::NEG_INFINITY, |&logit| logprob(logit)),
            likeliest: tokens
                .iter()
                .map(|&token| (token, logprob(logits[token as usize])))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithms_of_probabilities() {
        let quarter = 0.25f32.ln();
        let logits = [
            quarter + 3.0,
            f32::NAN,
            0.5f32.ln() + 3.0,
            quarter + 3.0,
            f32::NEG_INFINITY,
        ];
        let found = TokenLogprobs::of(&logits, 3, 2);
        let near = |a: f32, b: f32| (a - b).abs() < 1e-6;
        assert!(near(found.logprob, quarter), "{found:?}");
        let tokens: Vec<u32> = found.likeliest.iter().map(|(token, _)| *token).collect();
        assert_eq!(tokens, [2, 0], "the first of equals");
        assert!(near(found.likeliest[0].1, 0.5f32.ln()) && near(found.likeliest[1].1, quarter));
        assert_eq!(TokenLogprobs::of(&logits, 4, 20).likeliest.len(), 3);
        assert_eq!(TokenLogprobs::of(&logits, 4, 0).logprob, f32::NEG_INFINITY);
    }
}
