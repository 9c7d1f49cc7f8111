//! What scored tokens come to: perplexity and divergence with intervals, percentiles, agreement.
//!
//! With n_i scored tokens and a sum s_i in piece i of K, the mean is `m = sum s_i / sum n_i` and its standard error, pieces being
//! drawn independently, `sqrt(K / (K - 1) sum (s_i - m n_i)^2) / sum n_i`. An interval is 1.96 of them to both sides.

/// Standard errors to each side that hold the true mean 19 times of 20.
pub(crate) const TO_EACH_SIDE: f64 = 1.96;
/// The likeliest tokens of the reference of which the model's likeliest should be one.
pub(crate) const FEW: usize = 5;

/// The bounds that hold a true mean 19 times of 20, as the differences between pieces tell.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// The lower bound.
    pub low: f64,
    /// The upper bound.
    pub high: f64,
}

/// How a token was foreseen.
pub(crate) struct Score {
    pub nats: f64,
    pub compared: Option<Compared>,
}

/// Beside the reference.
pub(crate) struct Compared {
    pub nats: f64,
    pub divergence: f64,
    pub agrees: bool,
    /// Whether the model's likeliest token is among the reference's [`FEW`] likeliest.
    pub among_few: bool,
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evaluation {
    /// How many tokens were scored.
    pub scored_tokens: usize,
    /// The exponential of the mean surprise in nats; 1 is certainty.
    pub perplexity: f64,
    /// Of the perplexity; `None` with less than two pieces.
    pub interval: Option<Interval>,
    /// Beside the reference.
    pub comparison: Option<Comparison>,
}

/// A model beside its reference.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Comparison {
    /// Of the reference.
    pub perplexity: f64,
    /// Of the reference from the model, in nats.
    pub mean_kl_divergence: f64,
    /// Of the mean divergence; `None` with less than two pieces.
    pub interval: Option<Interval>,
    /// The divergence that 99 of 100 positions stay at or below.
    pub percentile_99: f64,
    /// The largest divergence of a position.
    pub largest: f64,
    /// The share of positions at which both hold the same token for likeliest.
    pub top1_agreement: f64,
    /// The share of positions at which the model's likeliest token is among the reference's five likeliest.
    pub top5_agreement: f64,
}

/// Scores of pieces, added up.
#[derive(Default)]
pub(crate) struct Sums {
    pieces: Vec<Piece>,
    divergences: Vec<f64>,
    agreements: usize,
    among_few: usize,
}

/// Sums over one piece.
#[derive(Clone, Copy, Default)]
struct Piece {
    count: usize,
    nats: f64,
    reference_nats: f64,
    divergence: f64,
}

impl Sums {
    /// Counts the scores of a piece.
    pub fn add(&mut self, scores: &[Score]) {
        let mut piece = Piece::default();
        for Score { nats, compared } in scores {
            piece.count += 1;
            piece.nats += nats;
            if let Some(compared) = compared {
                piece.reference_nats += compared.nats;
                piece.divergence += compared.divergence;
                self.divergences.push(compared.divergence);
                self.agreements += usize::from(compared.agrees);
                self.among_few += usize::from(compared.among_few);
            }
        }
        self.pieces.push(piece);
    }

    /// Of all pieces so far.
    pub fn perplexity(&self) -> f64 {
        self.mean(|piece| piece.nats).exp()
    }

    /// What all pieces come to.
    pub fn evaluation(mut self, compared: bool) -> Evaluation {
        let of_nats = self.interval(|piece| piece.nats);
        Evaluation {
            scored_tokens: self.count(),
            perplexity: self.perplexity(),
            interval: of_nats.map(|Interval { low, high }| Interval {
                low: low.exp(),
                high: high.exp(),
            }),
            comparison: compared.then(|| self.comparison()),
        }
    }

    fn comparison(&mut self) -> Comparison {
        let count = self.divergences.len();
        self.divergences.sort_by(f64::total_cmp);
        let rank = (count * 99).div_ceil(100).max(1) - 1;
        let share = |agreements: usize| agreements as f64 / count as f64;
        Comparison {
            perplexity: self.mean(|piece| piece.reference_nats).exp(),
            mean_kl_divergence: self.mean(|piece| piece.divergence),
            interval: self.interval(|piece| piece.divergence),
            percentile_99: self.divergences.get(rank).copied().unwrap_or(f64::NAN),
            largest: self.divergences.last().copied().unwrap_or(f64::NAN),
            top1_agreement: share(self.agreements),
            top5_agreement: share(self.among_few),
        }
    }

    fn count(&self) -> usize {
        self.pieces.iter().map(|piece| piece.count).sum()
    }

    fn mean(&self, sum: fn(&Piece) -> f64) -> f64 {
        self.pieces.iter().map(sum).sum::<f64>() / self.count() as f64
    }

    fn interval(&self, sum: fn(&Piece) -> f64) -> Option<Interval> {
        let scored: Vec<&Piece> = self.pieces.iter().filter(|piece| piece.count > 0).collect();
        let pieces = scored.len() as f64;
        if scored.len() < 2 {
            return None;
        }
        let mean = self.mean(sum);
        let off = |piece: &&Piece| (sum(piece) - mean * piece.count as f64).powi(2);
        let squares: f64 = scored.iter().map(off).sum();
        let reach = TO_EACH_SIDE * (pieces / (pieces - 1.0) * squares).sqrt() / self.count() as f64;
        Some(Interval {
            low: mean - reach,
            high: mean + reach,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(nats: f64, divergence: f64) -> Score {
        Score {
            nats,
            compared: Some(Compared {
                nats: 1.0,
                divergence,
                agrees: divergence < 0.5,
                among_few: divergence < 1.5,
            }),
        }
    }

    #[test]
    fn means_are_by_token_and_intervals_by_piece() {
        let mut sums = Sums::default();
        sums.add(&[score(1.0, 0.0), score(3.0, 1.0)]);
        sums.add(&[score(2.0, 2.0)]);
        let found = sums.evaluation(true);
        assert_eq!(found.scored_tokens, 3);
        assert!((found.perplexity - 2f64.exp()).abs() < 1e-12);
        let interval = found.interval.unwrap();
        assert!(
            (interval.low - interval.high).abs() < 1e-12,
            "both pieces have a mean of 2: {interval:?}"
        );
        let beside = found.comparison.unwrap();
        assert_eq!(
            (beside.mean_kl_divergence, beside.largest, beside.percentile_99),
            (1.0, 2.0, 2.0)
        );
        assert_eq!((beside.top1_agreement, beside.top5_agreement), (1.0 / 3.0, 2.0 / 3.0));
        // Residuals are -1 and 1: the standard error is sqrt(2 * 2) / 3.
        let reach = 1.96 * 2.0 / 3.0;
        let interval = beside.interval.unwrap();
        assert!((interval.low - (1.0 - reach)).abs() < 1e-12 && (interval.high - (1.0 + reach)).abs() < 1e-12);
    }

    #[test]
    fn the_percentile_passes_over_one_in_a_hundred() {
        let mut sums = Sums::default();
        let scores: Vec<Score> = (1..=200).map(|index| score(1.0, f64::from(index))).collect();
        sums.add(&scores);
        let found = sums.evaluation(true);
        assert_eq!(found.interval, None);
        let beside = found.comparison.unwrap();
        assert_eq!((beside.percentile_99, beside.largest), (198.0, 200.0));
    }
}
