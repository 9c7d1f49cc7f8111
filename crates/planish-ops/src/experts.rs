//! Routed experts (Shazeer et al., 2017): `output = base + sum over the chosen of weight * down(activation(gate(x)) * up(x))`.
//! Which experts compute a row, and with what weights, is decided on the device, from the router's logits.

use crate::{Activation, Ops, Shape, gate_reference, linear_reference};

/// How a router chooses experts and weighs them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Routing {
    /// Experts of a row.
    pub chosen: usize,
    /// From logits to scores.
    pub scoring: Scoring,
    /// Only experts of the best groups can be chosen.
    pub groups: Option<ExpertGroups>,
    /// The weights of a row are divided by their sum, or by this where the sum is smaller. A softmax over the chosen
    /// experts alone is a softmax over all that is divided so.
    pub normalize: Option<f32>,
    /// Multiplies the weights.
    pub scale: f32,
}

/// From logits to scores. A chosen expert's score is its weight.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scoring {
    /// Softmax over all experts.
    Softmax,
    /// `1 / (1 + e^-logit)`.
    Sigmoid,
    /// `1 / (1 + e^-logit)`; who is chosen is decided by the logits themselves, corrections included.
    SigmoidOfChosen,
    /// SparseMixer (Liu et al., 2023) at inference: experts are chosen one after another, each weighed by a softmax over those
    /// not chosen yet whose logit is within `2 * jitter`, relative, of the best.
    SparseMixer {
        /// Relative width of the comparison.
        jitter: f32,
    },
}

/// Experts in groups of equal size that lie side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpertGroups {
    /// How many groups.
    pub count: usize,
    /// How many of them experts are chosen from.
    pub kept: usize,
    /// A group is as good as the sum of so many of its best scores.
    pub best: usize,
}

/// Matrices of equal shape (rows, cols), one for each expert.
pub trait StackShape: Shape {
    /// How many.
    fn count(&self) -> usize;
}

/// Rows through their experts.
pub struct Experts<'a, O: Ops> {
    /// Rows to compute.
    pub rows: usize,
    /// Activations. // (rows, hidden)
    pub input: &'a O::Tensor,
    /// Who computes what.
    pub route: Route<'a, O>,
    /// (intermediate, hidden) of every expert; without it `activation(up(x))`.
    pub gate: Option<ExpertLayer<'a, O>>,
    /// (intermediate, hidden) of every expert.
    pub up: ExpertLayer<'a, O>,
    /// (hidden, intermediate) of every expert.
    pub down: ExpertLayer<'a, O>,
    /// The non-linearity.
    pub activation: Activation,
    /// What the sum begins with.
    pub base: Base<'a, O>,
    /// The result. // (rows, hidden)
    pub output: &'a mut O::Tensor,
}

/// Which experts compute a row.
pub struct Route<'a, O: Ops> {
    /// From the router. // (rows, experts)
    pub logits: &'a O::Tensor,
    /// Added to the scores for choosing, not for weighing. // (1, experts)
    pub score_correction: Option<&'a O::Tensor>,
    /// Multiplies the weight of each expert. // (1, experts)
    pub factors: Option<&'a O::Tensor>,
    /// How to choose.
    pub rule: Routing,
    /// Weights multiply what experts read, not what they give. Since products are linear, they multiply what the gates give, before the
    /// activation, and the results: there are gates, and no biases.
    pub weighs_inputs: bool,
}

/// The same projection of every expert.
pub struct ExpertLayer<'a, O: Ops> {
    /// (features, cols) of every expert.
    pub weights: &'a O::Stack,
    /// Where there are some. // (1, experts * features)
    pub biases: Option<&'a O::Tensor>,
}

/// What the sum over experts begins with.
pub enum Base<'a, O: Ops> {
    /// Nothing.
    Zero,
    /// What the output holds: the shared experts' part.
    Output,
    /// That, times the logistic function of a value for each row. // (rows, 1)
    Gated(&'a O::Tensor),
}

impl<O: Ops> Experts<'_, O> {
    /// Panics on sizes that do not fit.
    pub fn check(&self) {
        let (count, rows) = (self.up.weights.count(), self.rows);
        let (intermediate, hidden) = (self.up.weights.rows(), self.input.cols());
        assert!(rows <= self.input.rows() && rows <= self.output.rows() && rows <= self.route.logits.rows());
        assert!(self.output.cols() == hidden && self.route.logits.cols() == count && self.route.rule.chosen <= count);
        let of_experts = [self.route.score_correction, self.route.factors];
        assert!(of_experts.into_iter().flatten().all(|values| values.cols() == count));
        let gate = self.gate.as_ref().map(|gate| (gate, intermediate, hidden));
        for (layer, features, cols) in [(&self.up, intermediate, hidden), (&self.down, hidden, intermediate)]
            .into_iter()
            .chain(gate)
        {
            assert!((layer.weights.rows(), layer.weights.cols(), layer.weights.count()) == (features, cols, count));
            assert!(layer.biases.is_none_or(|biases| biases.cols() == count * features));
        }
        let mut layers = [Some(&self.up), Some(&self.down), self.gate.as_ref()]
            .into_iter()
            .flatten();
        assert!(!self.route.weighs_inputs || self.gate.is_some() && layers.all(|layer| layer.biases.is_none()));
        if let Base::Gated(gate) = self.base {
            assert!(gate.cols() == 1 && rows <= gate.rows());
        }
    }
}

/// The experts of one row and their weights but for [`Route::factors`], by the formulas, in f64.
pub fn route_reference(logits: &[f32], score_correction: &[f32], rule: &Routing) -> Vec<(usize, f64)> {
    let logits: Vec<f64> = logits.iter().map(|&logit| f64::from(logit)).collect();
    let total: f64 = logits.iter().map(|logit| logit.exp()).sum();
    let scores: Vec<f64> = match rule.scoring {
        Scoring::Softmax => logits.iter().map(|logit| logit.exp() / total).collect(),
        Scoring::Sigmoid | Scoring::SigmoidOfChosen => {
            logits.iter().map(|logit| 1.0 / (1.0 + (-logit).exp())).collect()
        }
        Scoring::SparseMixer { jitter } => return sparse_mixer_reference(logits, f64::from(jitter), rule.chosen),
    };
    let judged = match rule.scoring {
        Scoring::SigmoidOfChosen => &logits,
        _ => &scores,
    };
    let candidates: Vec<f64> = judged
        .iter()
        .zip(score_correction)
        .map(|(score, &add)| score + f64::from(add))
        .collect();
    let allowed = allowed_reference(&candidates, rule);
    let mut order: Vec<usize> = (0..scores.len()).filter(|&expert| allowed[expert]).collect();
    order.sort_by(|&left, &right| candidates[right].total_cmp(&candidates[left]));
    order.truncate(rule.chosen);
    let sum: f64 = order.iter().map(|&expert| scores[expert]).sum();
    let divisor = rule.normalize.map_or(1.0, |least| sum.max(f64::from(least)));
    let weight = |expert: usize| scores[expert] * f64::from(rule.scale) / divisor;
    order.into_iter().map(|expert| (expert, weight(expert))).collect()
}

/// Which experts are in one of the best groups.
fn allowed_reference(candidates: &[f64], rule: &Routing) -> Vec<bool> {
    let Some(groups) = rule.groups else {
        return vec![true; candidates.len()];
    };
    let size = candidates.len() / groups.count;
    let goodness = |group: usize| -> f64 {
        let mut scores = candidates[group * size..(group + 1) * size].to_vec();
        scores.sort_by(|left, right| right.total_cmp(left));
        scores[..groups.best].iter().sum()
    };
    let mut order: Vec<usize> = (0..groups.count).collect();
    order.sort_by(|&left, &right| goodness(right).total_cmp(&goodness(left)));
    (0..candidates.len())
        .map(|expert| order[..groups.kept].contains(&(expert / size)))
        .collect()
}

fn sparse_mixer_reference(mut logits: Vec<f64>, jitter: f64, chosen: usize) -> Vec<(usize, f64)> {
    let mut choose = || {
        let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let expert = logits.iter().position(|&logit| logit == largest).unwrap_or(0);
        let far = |logit: f64| (largest - logit) / logit.abs().max(largest) > 2.0 * jitter;
        let near = logits.iter().filter(|&&logit| logit.is_finite() && !far(logit));
        let sum: f64 = near.map(|logit| (logit - largest).exp()).sum();
        logits[expert] = f64::NEG_INFINITY;
        (expert, 1.0 / sum)
    };
    (0..chosen).map(|_| choose()).collect()
}

/// The matrices of one expert for [`expert_reference`], plain, and their biases.
pub struct ReferenceExpert<'a> {
    /// // (intermediate, hidden)
    pub gate: &'a [f32],
    /// // (intermediate, hidden)
    pub up: &'a [f32],
    /// // (hidden, intermediate)
    pub down: &'a [f32],
    /// // (intermediate), (intermediate), (hidden)
    pub biases: [&'a [f32]; 3],
}

/// What one expert makes of one row, in f64 but for the rounding of what stands between the products.
pub fn expert_reference(input: &[f32], expert: &ReferenceExpert<'_>, activation: Activation) -> Vec<f64> {
    let [gate_bias, up_bias, down_bias] = expert.biases;
    let gate = linear_reference(input, expert.gate, Some(gate_bias));
    let up = linear_reference(input, expert.up, Some(up_bias));
    let pairs = gate.iter().zip(&up);
    let intermediate: Vec<f32> = pairs
        .map(|(&gate, &up)| gate_reference(activation, gate as f32, up as f32) as f32)
        .collect();
    linear_reference(&intermediate, expert.down, Some(down_bias))
}
