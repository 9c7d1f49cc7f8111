//! Rules of sampling by how sure the model is, and ends that grow likelier: as in transformers, by logits that were read. All other
//! rules are the device's.

use planish_model::{Candidate, Chooser, Draw, drawn};

/// Tokens that top-h looks at.
const TOP_H_TOKENS: usize = 100;

/// What is left of the tokens besides top-k, top-p and min-p. `None` leaves all.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cutoffs {
    /// The likeliest of 100 whose entropies add up to this share of the entropy of all, in (0, 1]; before top-k.
    pub top_h: Option<f32>,
    /// Those whose surprise is nearest to the entropy, until they reach this probability, in (0, 1). (Meister et al., 2022)
    pub typical_p: Option<f32>,
    /// Those at least so probable, in (0, 1), and the likeliest.
    pub epsilon: Option<f32>,
    /// The same by `min(eta, sqrt(eta) * exp(-entropy))`, in (0, 1). (Hewitt et al., 2022)
    pub eta: Option<f32>,
}

impl Cutoffs {
    /// Whether all tokens are left.
    pub fn is_idle(&self) -> bool {
        *self == Cutoffs::default()
    }
}

/// How the logits of end tokens grow with the answer: by `|logit| * (factor ^ n - 1)`, `n` tokens after the first `after`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Growth {
    /// Tokens of the answer without growth.
    pub after: usize,
    /// Above 1 ends grow likelier.
    pub factor: f32,
}

impl Growth {
    /// Changes the logits of the end tokens after so many tokens of the answer. They stay finite: an end must not become impossible.
    pub fn apply(&self, logits: &mut [f32], ends: &[u32], written: usize) {
        let over = written.saturating_sub(self.after);
        if over == 0 {
            return;
        }
        let share = f64::from(self.factor).powf(over as f64) - 1.0;
        for &end in ends {
            let Some(logit) = logits.get_mut(end as usize).filter(|logit| logit.is_finite()) else {
                continue;
            };
            let before = f64::from(*logit);
            let grown = if before == 0.0 {
                0.0
            } else {
                before + before.abs() * share
            };
            *logit = grown.clamp(f32::MIN.into(), f32::MAX.into()) as f32;
        }
    }
}

/// Draws by logits that were read; keeps the memory that drawing takes.
#[derive(Clone, Debug, Default)]
pub struct Drawer {
    chooser: Chooser,
    kept: Vec<Candidate>,
    masses: Vec<(f64, f64)>, // of the candidates: how far from typical, probability
}

impl Drawer {
    /// The token that is drawn; `None` if no logit is finite. Top-h changes logits.
    pub fn draw(&mut self, logits: &mut [f32], draw: &Draw, cutoffs: &Cutoffs) -> Option<u32> {
        drawn(self.candidates(logits, draw, cutoffs), draw.unit)
    }

    /// The tokens that may be drawn, in the order of tokens.
    pub fn candidates(&mut self, logits: &mut [f32], draw: &Draw, cutoffs: &Cutoffs) -> &[Candidate] {
        if let Some(share) = cutoffs.top_h {
            self.keep_top_h(logits, draw.temperature, share);
        }
        self.kept.clear();
        self.kept.extend_from_slice(self.chooser.candidates(logits, draw));
        if let Some(mass) = cutoffs.typical_p {
            self.keep_typical(mass);
        }
        if let Some(least) = cutoffs.epsilon {
            self.keep_from(f64::from(least));
        }
        if let Some(eta) = cutoffs.eta {
            let eta = f64::from(eta);
            let entropy = Distribution::of(&self.kept).entropy(&self.kept);
            self.keep_from(eta.min(eta.sqrt() * (-entropy).exp()));
        }
        &self.kept
    }

    fn keep_top_h(&mut self, logits: &mut [f32], temperature: f32, share: f32) {
        let best = Draw {
            temperature,
            top_k: TOP_H_TOKENS,
            top_p: 1.0,
            min_p: 0.0,
            unit: 0.0,
        };
        self.kept.clear();
        self.kept.extend_from_slice(self.chooser.candidates(logits, &best));
        self.kept
            .sort_by(|left, right| right.score.total_cmp(&left.score).then(left.token.cmp(&right.token)));
        self.kept.truncate(TOP_H_TOKENS);
        let distribution = Distribution::of(&self.kept);
        let most = distribution.entropy(&self.kept) * f64::from(share);
        let mut entropy = 0.0;
        let beyond = self.kept.iter().position(|candidate| {
            entropy += distribution.entropy(std::slice::from_ref(candidate));
            entropy > most
        });
        self.kept.truncate(beyond.unwrap_or(usize::MAX).max(1));
        for candidate in &mut self.kept {
            candidate.score = logits[candidate.token as usize];
        }
        logits.fill(f32::NEG_INFINITY);
        for candidate in &self.kept {
            logits[candidate.token as usize] = candidate.score;
        }
    }

    fn keep_typical(&mut self, mass: f32) {
        let distribution = Distribution::of(&self.kept);
        let entropy = distribution.entropy(&self.kept);
        let shift = |candidate: &Candidate| (-distribution.logarithm(candidate) - entropy).abs();
        self.masses.clear();
        let of_candidates = self
            .kept
            .iter()
            .map(|one| (shift(one), distribution.logarithm(one).exp()));
        self.masses.extend(of_candidates);
        self.masses.sort_by(|left, right| left.0.total_cmp(&right.0));
        let mut sum = 0.0;
        let reached = self.masses.iter().find(|(_, probability)| {
            sum += probability;
            sum >= f64::from(mass)
        });
        if let Some(&(farthest, _)) = reached.or(self.masses.last()) {
            self.kept.retain(|candidate| shift(candidate) <= farthest);
        }
    }

    /// Keeps what is at least so probable, and the likeliest.
    fn keep_from(&mut self, least: f64) {
        let distribution = Distribution::of(&self.kept);
        self.kept.retain(|candidate| {
            candidate.score == distribution.best || distribution.logarithm(candidate).exp() >= least
        });
    }
}

/// The softmax of scores.
#[derive(Clone, Copy, Debug)]
struct Distribution {
    best: f32,
    logarithm_of_sum: f64,
}

impl Distribution {
    fn of(candidates: &[Candidate]) -> Distribution {
        let scores = candidates.iter().map(|candidate| candidate.score);
        let best = scores.clone().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = scores.map(|score| f64::from(score - best).exp()).sum();
        Distribution {
            best,
            logarithm_of_sum: sum.ln(),
        }
    }

    /// The logarithm of a token's probability.
    fn logarithm(&self, candidate: &Candidate) -> f64 {
        f64::from(candidate.score - self.best) - self.logarithm_of_sum
    }

    /// What these tokens add to the entropy.
    fn entropy(&self, candidates: &[Candidate]) -> f64 {
        let term = |candidate: &Candidate| {
            let logarithm = self.logarithm(candidate);
            -logarithm * logarithm.exp()
        };
        candidates.iter().map(term).sum()
    }
}
