//! Routing: which experts compute a row, and with what weights, from the logits of a router.

use planish_format::memory;
use planish_ops::{ExpertGroups, Route, Routing, Scoring, Shape};
use smallvec::{SmallVec, smallvec};

use crate::Pool;
use crate::ops::CpuOps;
use crate::share::{SharedSlice, share_rows};

/// One for each expert; more than 512 take memory for each share.
type Scores = SmallVec<[f32; 512]>;

/// The experts of some rows.
#[derive(Clone, Debug, Default)]
pub struct Choices {
    /// Best first. // (rows, chosen)
    pub experts: Vec<u32>,
    /// What their results are multiplied with. // (rows, chosen)
    pub weights: Vec<f32>,
}

/// Routes the first rows.
pub fn route(pool: &Pool, rows: usize, problem: &Route<'_, CpuOps>, choices: &mut Choices) {
    let (experts, rule) = (problem.logits.cols(), &problem.rule);
    let logits = problem.logits.first(rows);
    let correction = problem.score_correction.map(|correction| correction.values());
    let factors = problem.factors.map(|factors| factors.values());
    assert!(rule.chosen <= experts);
    memory::resize("experts", &mut choices.experts, rows * rule.chosen, 0);
    memory::resize("experts", &mut choices.weights, rows * rule.chosen, 0.0);
    let chosen = SharedSlice::new(&mut choices.experts);
    let weights = SharedSlice::new(&mut choices.weights);
    share_rows(pool, rows, experts * rule.chosen, |share| {
        let (mut scores, mut candidates): (Scores, Scores) = (smallvec![0.0; experts], smallvec![0.0; experts]);
        for row in share {
            let range = row * rule.chosen..(row + 1) * rule.chosen;
            // SAFETY: every row belongs to one share.
            let mut row_choices = unsafe {
                RowChoices {
                    experts: chosen.range(range.clone()),
                    weights: weights.range(range),
                }
            };
            scores.copy_from_slice(&logits[row * experts..][..experts]);
            route_row(rule, correction, &mut scores, &mut candidates, &mut row_choices);
            if let Some(factors) = factors {
                let choices = row_choices.experts.iter().zip(row_choices.weights.iter_mut());
                choices.for_each(|(&expert, weight)| *weight *= factors[expert as usize]);
            }
        }
    });
}

/// What is found for one row. // (chosen)
struct RowChoices<'a> {
    experts: &'a mut [u32],
    weights: &'a mut [f32],
}

/// `scores` holds the logits.
fn route_row(
    rule: &Routing,
    correction: Option<&[f32]>,
    scores: &mut [f32],
    candidates: &mut [f32],
    choices: &mut RowChoices<'_>,
) {
    match rule.scoring {
        Scoring::SparseMixer { jitter } => return sparse_mixer(scores, jitter, choices),
        Scoring::Softmax => softmax(scores),
        Scoring::Sigmoid => sigmoid(scores),
        Scoring::SigmoidOfChosen => {}
    }
    candidates.copy_from_slice(scores);
    if let Scoring::SigmoidOfChosen = rule.scoring {
        sigmoid(scores);
    }
    if let Some(correction) = correction {
        candidates
            .iter_mut()
            .zip(correction)
            .for_each(|(score, add)| *score += add);
    }
    if let Some(groups) = rule.groups {
        keep_groups(candidates, groups);
    }
    for (expert, weight) in choices.experts.iter_mut().zip(choices.weights.iter_mut()) {
        let best = take_best(candidates);
        (*expert, *weight) = (best as u32, scores[best]);
    }
    let sum: f32 = choices.weights.iter().sum();
    let divisor = rule.normalize.map_or(1.0, |least| sum.max(least));
    let factor = rule.scale / divisor;
    choices.weights.iter_mut().for_each(|weight| *weight *= factor);
}

fn sigmoid(values: &mut [f32]) {
    values
        .iter_mut()
        .for_each(|value| *value = 1.0 / (1.0 + (-*value).exp()));
}

fn softmax(values: &mut [f32]) {
    let largest = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    values.iter_mut().for_each(|value| *value = (*value - largest).exp());
    let sum: f32 = values.iter().sum();
    values.iter_mut().for_each(|value| *value /= sum);
}

/// Index of the largest, the first of equals; it is out of the race afterwards.
fn take_best(candidates: &mut [f32]) -> usize {
    let mut best = 0;
    for (index, &value) in candidates.iter().enumerate() {
        if value > candidates[best] {
            best = index;
        }
    }
    candidates[best] = f32::NEG_INFINITY;
    best
}

/// Takes the experts of all but the best groups out of the race.
fn keep_groups(candidates: &mut [f32], groups: ExpertGroups) {
    let size = candidates.len() / groups.count;
    let mut goodness: Scores = candidates
        .chunks_exact(size)
        .map(|group| {
            let mut group = Scores::from_slice(group);
            group.sort_unstable_by(|left, right| right.total_cmp(left));
            group.iter().take(groups.best).sum()
        })
        .collect();
    let kept: SmallVec<[usize; 32]> = (0..groups.kept).map(|_| take_best(&mut goodness)).collect();
    for (index, group) in candidates.chunks_exact_mut(size).enumerate() {
        if !kept.contains(&index) {
            group.fill(f32::NEG_INFINITY);
        }
    }
}

/// `logits` lose the chosen experts.
fn sparse_mixer(logits: &mut [f32], jitter: f32, choices: &mut RowChoices<'_>) {
    for (expert, weight) in choices.experts.iter_mut().zip(choices.weights.iter_mut()) {
        let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let near = |&&logit: &&f32| (largest - logit) / logit.abs().max(largest) <= 2.0 * jitter;
        let sum: f32 = logits.iter().filter(near).map(|logit| (logit - largest).exp()).sum();
        (*expert, *weight) = (take_best(logits) as u32, 1.0 / sum);
    }
}
