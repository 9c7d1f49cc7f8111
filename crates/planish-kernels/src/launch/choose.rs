//! Tokens drawn by their probability.

use bytemuck::{Pod, Zeroable};
use planish_format::FloatType;
use smallvec::smallvec;

use super::argmax::PARTS;
use super::{File, Launch, Program, constants_of, kernel_file, value_number};
use planish_ops::{Choice, Draw};

const FILE: File = kernel_file!("portable/choose", "shared/values");
const THREADS: u32 = 256;
/// As in choose.metal.
const DIGIT_BITS: u32 = 4;
const DIGITS: usize = 1 << DIGIT_BITS;
/// The largest f32 below 1.
const MOST_UNIT: f32 = 1.0 - f32::EPSILON / 2.0;

/// Words of a row's settings.
pub const SETTING_WORDS: usize = 8;

/// Launches that draw tokens from logits (rows, cols) of f32, after [`super::Argmax::parts`] of them. Settings are
/// [`settings_of`] each row. Sums are [`Choose::sum_bytes`], thresholds and what searches found [`Choose::found_bytes`]; the first
/// thresholds are zeros.
#[derive(Clone, Copy, Debug)]
pub struct Choose {
    /// Rows of logits.
    pub rows: u32,
    /// Logits of a row.
    pub cols: u32,
}

/// What a search looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Search {
    /// The tokens of top-k.
    Tokens,
    /// The probability of top-p.
    Mass,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct ChooseProblem {
    cols: u32,
    shift: u32,
    first: u32,
    mass: u32,
}

/// How the token of a row is chosen, as `argmax` and the kernels of [`Choose`] read it: slot, temperature (0 for the likeliest), top-k,
/// top-p, min-p, unit.
pub fn settings_of(slot: u32, choice: Choice) -> [u32; SETTING_WORDS] {
    let Choice::Drawn(draw) = choice else {
        return [slot, 0, 0, 0, 0, 0, 0, 0];
    };
    let top_k = draw.top_k.try_into().unwrap_or(u32::MAX);
    let unit = (draw.unit as f32).min(MOST_UNIT);
    let [temperature, top_p, min_p, unit] = [draw.temperature, draw.top_p, draw.min_p, unit].map(f32::to_bits);
    [slot, temperature, top_k, top_p, min_p, unit, 0, 0]
}

impl Choose {
    /// Bytes of the sums that a search leaves.
    pub fn sum_bytes(&self) -> usize {
        self.rows as usize * PARTS as usize * DIGITS * 4
    }

    /// Bytes of what a search has found, and of thresholds.
    pub fn found_bytes(&self) -> usize {
        self.rows as usize * 8
    }

    /// The searches that are needed for one row or more, in order.
    pub fn searches<'a>(&self, draws: impl Iterator<Item = &'a Draw> + Clone) -> impl Iterator<Item = Search> {
        let limits_tokens = |draw: &Draw| draw.top_k > 0 && draw.top_k < self.cols as usize;
        let tokens = draws.clone().any(limits_tokens).then_some(Search::Tokens);
        let mass = { draws }.any(|draw| draw.top_p < 1.0).then_some(Search::Mass);
        tokens.into_iter().chain(mass)
    }

    /// One launch a digit. Buffers: logits, the largest of parts, settings, thresholds so far, then sums and findings of the launch
    /// before, sums and findings of this one.
    pub fn search(&self, search: Search) -> impl Iterator<Item = Launch> {
        let shifts = (0..32).step_by(DIGIT_BITS as usize).rev();
        shifts.map(move |shift| {
            let first = shift + DIGIT_BITS == 32;
            self.launch("search", PARTS, 8, self.problem(Some(search), shift, first))
        })
    }

    /// Ends a search. Buffers: settings, sums and findings of its last launch, thresholds before it, thresholds.
    pub fn settle(&self, search: Search) -> Launch {
        self.launch("settle", 1, 5, self.problem(Some(search), 0, false))
    }

    /// Buffers: logits, the largest of parts, settings, thresholds, masses ([`Choose::sum_bytes`] are enough).
    pub fn weigh(&self) -> Launch {
        self.launch("weigh", PARTS, 5, self.problem(None, 0, false))
    }

    /// Buffers: logits, the largest of parts, settings, thresholds, masses, tokens (rows) and tokens (slots) of u32,
    /// [`super::NO_TOKEN`] where there is none. Those of rows that are not drawn stay.
    pub fn tokens(&self) -> Launch {
        self.launch("draw", 1, 7, self.problem(None, 0, false))
    }

    fn problem(&self, search: Option<Search>, shift: u32, first: bool) -> ChooseProblem {
        ChooseProblem {
            cols: self.cols,
            shift,
            first: u32::from(first),
            mass: u32::from(search == Some(Search::Mass)),
        }
    }

    fn launch(&self, kernel: &'static str, parts: u32, buffers: u32, problem: ChooseProblem) -> Launch {
        let defines = smallvec![
            ("THREADS", THREADS),
            ("VALUE", value_number(FloatType::F32)),
            ("PARTS", PARTS),
        ];
        Launch {
            program: Program { file: FILE, defines },
            kernel,
            threadgroups: [parts, self.rows, 1],
            threads: THREADS,
            buffers,
            constants: constants_of(&problem),
            shared_bytes: 0,
        }
    }
}
