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
        let total = log_sum_exp(logits);
        let logprob = |logit: f32| match logit.is_finite() {
            true => (f64::from(logit) - total) as f32,
            false => f32::NEG_INFINITY,
        };
        let mut tokens: Vec<u32> = match likeliest {
            0 => Vec::new(),
            _ => (0..logits.len() as u32).collect(),
        };
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

/// The logarithm of what the exponentials of the finite logits sum to, to about 1e-7.
///
/// For a large vocabulary this takes as long as a layer if it is done one by one: the loops here become vectors.
fn log_sum_exp(logits: &[f32]) -> f64 {
    const LANES: usize = 16;
    const BLOCK: usize = 64 * LANES;
    let finite = |logit: f32| if logit.is_finite() { logit } else { f32::NEG_INFINITY };
    let best = logits.iter().copied().map(finite).fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for block in logits.chunks(BLOCK) {
        let mut sums = [0.0; LANES];
        let lanes = block.chunks_exact(LANES);
        let rest = lanes.remainder();
        for values in lanes {
            for (sum, &logit) in sums.iter_mut().zip(values) {
                *sum += exp(finite(logit) - best);
            }
        }
        let sums = sums
            .iter()
            .copied()
            .chain(rest.iter().map(|&logit| exp(finite(logit) - best)));
        sum += sums.map(f64::from).sum::<f64>();
    }
    f64::from(best) + sum.ln()
}

/// The exponential of a number that is at most 0, to 2e-7 of it; below 1e-37 that.
fn exp(power: f32) -> f32 {
    // Whole numbers are where the bits below the point are shifted out.
    const SHIFT: f32 = 12_582_912.0;
    const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4]; // in two parts
    let power = power.max(-85.0);
    let shifted = power * std::f32::consts::LOG2_E + SHIFT;
    let whole = shifted - SHIFT;
    let rest = power - whole * LN_2[0] - whole * LN_2[1];
    // Of Taylor's series.
    let terms = [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];
    let value = terms.iter().fold(0.0, |value, term| value * rest + term);
    let exponent = (shifted.to_bits().wrapping_sub(SHIFT.to_bits()).wrapping_add(127)) << 23;
    value * f32::from_bits(exponent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_of_exponentials_is_right() {
        for power in (0..8500).map(|step| step as f32 * -0.01) {
            let expected = f64::from(power).exp();
            let error = (f64::from(exp(power)) - expected).abs() / expected;
            assert!(error < 3e-7, "{power}: {error}");
        }
        assert!(exp(f32::NEG_INFINITY) < 1e-36);
        // Lengths around those of the loops; some logits are no numbers.
        for length in [1, 15, 16, 17, 1023, 1024, 1025, 49_152] {
            let value = |index: usize| match index % 97 {
                3 => f32::NAN,
                4 => f32::NEG_INFINITY,
                _ => ((index * 7919) % 1000) as f32 * 0.03 - 12.0,
            };
            let logits: Vec<f32> = (0..length).map(value).collect();
            let finite = logits.iter().filter(|logit| logit.is_finite());
            let expected = finite.map(|&logit| f64::from(logit).exp()).sum::<f64>().ln();
            assert!((log_sum_exp(&logits) - expected).abs() < 1e-6, "{length}");
        }
    }

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
