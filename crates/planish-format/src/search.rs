//! Scale, bias and codes of a group by search: weights x (group) -> the stored scale s and bias b with the least
//! `sum of w (s q + b - x)^2`, where `q = clamp(round((x - b) / s), 0, L)` and `L = 2^bits - 1`.
//!
//! w is `importance * (|x| + rms(x))`, the importance being that of the column: 1, or what is known of the layer's inputs. Plain least
//! squares (w = 1) shrinks large weights, which costs models more than the error it saves. Tried are narrowed ranges and what the
//! peers would store; each is refined by weighted least squares for (s, b) with the codes held.
//! All is computed with s and b as they are stored. Sums are kept by lane and added up in one order, so that every instruction set
//! and any number of threads gives the same bits.

use crate::affine::{Affine, fit_range, range};
use crate::float::rounded;
use crate::{Encoder, FloatType, Packing};

/// Weights that are computed side by side.
pub(crate) const LANES: usize = 16;
/// One value of each lane.
pub(crate) type Lanes = [f32; LANES];

/// Times that scale and bias are fitted to the codes of a candidate.
const ROUNDS: usize = 2;
/// From here on up the gap between neighbouring `f32` is one.
const WHOLE: f32 = 8_388_608.0; // 2^23

/// Three peers, five factors, four with one edge, four additions.
const MOST_CANDIDATES: usize = 16;

/// Parts of the range about the mean that are tried.
fn factors(bits: u32) -> &'static [f32] {
    match bits {
        2 => &[1.0, 0.9, 0.8, 0.7, 0.6, 0.5],
        3 => &[1.0, 0.94, 0.88, 0.82, 0.76, 0.7],
        4 => &[1.0, 0.96, 0.92, 0.88, 0.84],
        _ => &[1.0, 0.98, 0.96],
    }
}

/// Additions to the largest code with which the whole range is divided, for wide codes.
fn additions(bits: u32) -> &'static [f32] {
    match bits {
        6 | 8 => &[-1.0, -0.5, 0.5, 1.0],
        _ => &[],
    }
}

/// Room for a group, filled up to whole lanes with weights of no importance, used again for every group.
pub(crate) struct SearchScratch {
    values: Vec<f32>,  // x less its weighted mean
    weights: Vec<f32>, // w; 0 beyond the group
    codes: Vec<f32>,
}

impl SearchScratch {
    pub(crate) fn new(group: usize) -> SearchScratch {
        let [values, weights, codes] = [0; 3].map(|_| vec![0.0; group.next_multiple_of(LANES)]);
        SearchScratch { values, weights, codes }
    }
}

/// A group to search for.
pub(crate) struct Group<'a> {
    pub bits: u32,
    pub scale_type: FloatType,
    /// x. // (group)
    pub weights: &'a [f32],
    pub weighting: Weighting<'a>,
}

/// What the squared error of each x is multiplied by.
#[derive(Clone, Copy)]
pub(crate) enum Weighting<'a> {
    /// `|x| + rms(x)`, times the importance of the columns where it is known. // (group)
    Size(Option<&'a [f32]>),
    /// These numbers, nothing more. // (group)
    Given(&'a [f32]),
}

/// Searches group after group with weights of the error that are given. For methods that choose codes one after another, which
/// take only scale and bias from here.
pub struct GroupSearch {
    bits: u32,
    scale_type: FloatType,
    codes: Vec<u8>,
    scratch: SearchScratch,
}

impl GroupSearch {
    /// For groups of a packing, with scales and biases of a type.
    pub fn new(packing: Packing, scale_type: FloatType) -> GroupSearch {
        GroupSearch {
            bits: packing.bits(),
            scale_type,
            codes: vec![0; packing.group()],
            scratch: SearchScratch::new(packing.group()),
        }
    }

    /// The stored scale and bias with the least `sum of weights (s q + b - x)^2` that the search finds. // (group) each
    ///
    /// # Panics
    /// If there are not as many values and weights as the group has.
    pub fn find(&mut self, x: &[f32], weights: &[f32]) -> (f32, f32) {
        assert!(
            x.len() == self.codes.len() && weights.len() == self.codes.len(),
            "a group of {}",
            self.codes.len()
        );
        let group = Group {
            bits: self.bits,
            scale_type: self.scale_type,
            weights: x,
            weighting: Weighting::Given(weights),
        };
        let affine = crate::instructions::search_group(&group, &mut self.scratch, &mut self.codes);
        (affine.scale, affine.bias)
    }
}

/// What one reading of the group with a scale and a bias finds.
#[derive(Clone, Copy)]
struct Moments {
    /// Sum of `w (s q + b - x)^2`.
    error: f32,
    /// Sums of `w q`, `w q^2` and `w q x`.
    q: f32,
    qq: f32,
    qx: f32,
}

/// The stored scale and bias, and the codes.
#[inline(always)]
pub(crate) fn search(group: &Group, scratch: &mut SearchScratch, codes: &mut [u8]) -> Affine {
    let levels = ((1u32 << group.bits) - 1) as f32;
    let (mean, total) = prepare(group, scratch);
    let room = &mut scratch.codes;
    let centred = Centred {
        values: &scratch.values,
        weights: &scratch.weights,
        mean,
        total,
        levels,
        scale_type: group.scale_type,
    };
    let mut best: Option<(f32, Affine)> = None;
    let candidates = Candidates::new(group, levels);
    for candidate in &candidates.all[..candidates.count] {
        let mut affine = centred.stored(*candidate);
        for round in 0..=ROUNDS {
            let moments = centred.moments(affine, room);
            // An error that is no number never wins.
            if best.is_none_or(|(least, _)| moments.error < least) {
                best = Some((moments.error, affine));
            }
            if round < ROUNDS {
                affine = centred.refit(moments, affine);
            }
        }
    }
    let affine = best.map_or(Affine { scale: 0.0, bias: 0.0 }, |(_, affine)| affine);
    centred.moments(affine, room);
    for (code, nearest) in codes.iter_mut().zip(room) {
        *code = *nearest as u8;
    }
    affine
}

/// Scales and biases to begin with, in a fixed order.
struct Candidates {
    all: [Affine; MOST_CANDIDATES],
    count: usize,
}

impl Candidates {
    #[inline(always)]
    fn new(group: &Group, levels: f32) -> Candidates {
        let x = group.weights;
        let mut list = Candidates {
            all: [Affine { scale: 0.0, bias: 0.0 }; MOST_CANDIDATES],
            count: 0,
        };
        let (low, high) = range(x);
        for encoder in [Encoder::Transformers, Encoder::MlxMetal, Encoder::MlxCpu] {
            list.push(fit_range(encoder, levels, x, (low, high)));
        }
        let mean = x.iter().sum::<f32>() / x.len() as f32;
        let (low, high) = (low - mean, high - mean);
        let factors = factors(group.bits);
        let both = factors[1..].iter().map(|&factor| (factor, factor));
        let one = factors[1..3].iter().flat_map(|&factor| [(factor, 1.0), (1.0, factor)]);
        for (of_low, of_high) in both.chain(one) {
            let (low, high) = (of_low * low, of_high * high);
            list.push(Affine {
                scale: (high - low) / levels,
                bias: mean + low,
            });
        }
        for &addition in additions(group.bits) {
            list.push(Affine {
                scale: (high - low) / (levels + addition),
                bias: mean + low,
            });
        }
        list
    }

    #[inline(always)]
    fn push(&mut self, candidate: Affine) {
        self.all[self.count] = candidate;
        self.count += 1;
    }
}

/// Fills in values and weights. The weighted mean and the sum of the weights.
#[inline(always)]
fn prepare(group: &Group, scratch: &mut SearchScratch) -> (f32, f32) {
    let count = group.weights.len();
    let SearchScratch { values, weights, .. } = scratch;
    values[..count].copy_from_slice(group.weights);
    values[count..].fill(0.0);
    let rms = (dot(values, values) / count as f32).sqrt();
    // In units of the root mean square, so that sums neither overflow nor vanish.
    let unit = if rms > 0.0 && rms.is_finite() { rms } else { 1.0 };
    match group.weighting {
        Weighting::Size(importance) => {
            for (weight, value) in weights[..count].iter_mut().zip(&*values) {
                *weight = value.abs() / unit + 1.0;
            }
            for (weight, importance) in weights.iter_mut().zip(importance.unwrap_or_default()) {
                *weight *= importance;
            }
        }
        Weighting::Given(given) => weights[..count].copy_from_slice(given),
    }
    let total = weights.iter().sum::<f32>();
    let mean = if total > 0.0 { dot(weights, values) / total } else { 0.0 };
    for value in values {
        *value -= mean;
    }
    (mean, total)
}

/// A group whose values are less their weighted mean.
struct Centred<'a> {
    values: &'a [f32],
    weights: &'a [f32],
    mean: f32,
    /// Sum of w.
    total: f32,
    levels: f32,
    scale_type: FloatType,
}

impl Centred<'_> {
    /// As it will be stored.
    #[inline(always)]
    fn stored(&self, affine: Affine) -> Affine {
        Affine {
            scale: rounded(self.scale_type, affine.scale),
            bias: rounded(self.scale_type, affine.bias),
        }
    }

    /// Least squares for scale and bias with the codes of `moments`; the bias for the scale as it is stored. `before` where all
    /// codes are one.
    #[inline(always)]
    fn refit(&self, moments: Moments, before: Affine) -> Affine {
        let mean_code = moments.q / self.total;
        let variance = moments.qq - mean_code * moments.q;
        // The values are centred: their mean drops out.
        let scale = rounded(self.scale_type, moments.qx / variance);
        if variance.is_nan() || variance <= 0.0 || !scale.is_finite() {
            return before;
        }
        Affine {
            scale,
            bias: rounded(self.scale_type, self.mean - scale * mean_code),
        }
    }

    /// Leaves the codes in `codes`.
    #[inline(always)]
    fn moments(&self, affine: Affine, codes: &mut [f32]) -> Moments {
        let (scale, bias) = (affine.scale, affine.bias - self.mean);
        let inverse = 1.0 / scale;
        for (code, x) in codes.iter_mut().zip(self.values) {
            *code = nearest((x - bias) * inverse, self.levels);
        }
        let mut error = [0.0; LANES];
        let (mut q, mut qq, mut qx) = (error, error, error);
        let lanes = in_lanes(self.values).zip(in_lanes(self.weights)).zip(in_lanes(codes));
        for ((x, w), code) in lanes {
            for lane in 0..LANES {
                let off = code[lane] * scale + bias - x[lane];
                let weighted = w[lane] * code[lane];
                error[lane] += w[lane] * (off * off);
                q[lane] += weighted;
                qq[lane] += weighted * code[lane];
                qx[lane] += weighted * x[lane];
            }
        }
        Moments {
            error: sum(error),
            q: sum(q),
            qq: sum(qq),
            qx: sum(qx),
        }
    }
}

/// The nearest code, ties to even; 0 for what is no number, as where a scale of zero has no inverse.
#[inline(always)]
fn nearest(exact: f32, levels: f32) -> f32 {
    let clamped = if exact > 0.0 { exact } else { 0.0 };
    let clamped = if clamped < levels { clamped } else { levels };
    (clamped + WHOLE) - WHOLE
}

#[inline(always)]
fn in_lanes(values: &[f32]) -> impl Iterator<Item = &Lanes> {
    values.as_chunks::<LANES>().0.iter()
}

/// Sum of products.
#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0; LANES];
    for (a, b) in in_lanes(a).zip(in_lanes(b)) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    sum(sums)
}

/// Of all lanes, halves upon halves.
#[inline(always)]
fn sum(mut lanes: Lanes) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            lanes[lane] += lanes[lane + half];
        }
        half /= 2;
    }
    lanes[0]
}
