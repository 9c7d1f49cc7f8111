//! A token drawn by its probability.

use bytemuck::{Pod, Zeroable};
use planish_format::FloatType;

use super::argmax::PARTS;
use super::{File, Launch, Program, kernel_file, value_number};
use planish_ops::Draw;

const FILE: File = kernel_file!("portable/choose", "shared/values");
const THREADS: u32 = 256;
/// As in choose.metal.
const DIGIT_BITS: u32 = 4;
const DIGITS: usize = 1 << DIGIT_BITS;

/// Launches that draw a token from `cols` logits of f32, after [`super::Argmax::parts`] of them. Sums are
/// [`Choose::SUM_BYTES`] each, thresholds and what searches found [`Choose::FOUND_BYTES`]; the first threshold is zeros.
#[derive(Clone, Copy, Debug)]
pub struct Choose {
    /// Logits.
    pub cols: u32,
    /// What is left of them, and the number to draw by.
    pub draw: Draw,
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
    temperature: f32,
    shift: u32,
    first: u32,
    mass: u32,
    enough: f32,
    unit: f32,
    least: f32,
}

impl Choose {
    /// Bytes of the sums that a search leaves.
    pub const SUM_BYTES: usize = PARTS as usize * DIGITS * 4;
    /// Bytes of what a search has found, and of a threshold.
    pub const FOUND_BYTES: usize = 8;

    /// The searches that are needed, in order.
    pub fn searches(&self) -> Vec<Search> {
        let Draw { top_k, top_p, .. } = self.draw;
        let tokens = (top_k > 0 && top_k < self.cols as usize).then_some(Search::Tokens);
        let mass = (top_p < 1.0).then_some(Search::Mass);
        tokens.into_iter().chain(mass).collect()
    }

    /// One launch a digit. Buffers: logits, the largest of parts, threshold so far, then sums and findings of the launch before,
    /// sums and findings of this one.
    pub fn search(&self, search: Search) -> Vec<Launch> {
        let shifts = (0..32).step_by(DIGIT_BITS as usize).rev();
        let launch = |shift| {
            let problem = ChooseProblem {
                shift,
                first: u32::from(shift + DIGIT_BITS == 32),
                ..self.problem(Some(search))
            };
            self.launch("search", PARTS, 7, &problem)
        };
        shifts.map(launch).collect()
    }

    /// Ends a search. Buffers: sums and findings of its last launch, threshold before it, threshold.
    pub fn settle(&self, search: Search) -> Launch {
        self.launch("settle", 1, 4, &self.problem(Some(search)))
    }

    /// Buffers: logits, the largest of parts, threshold, masses ([`Choose::SUM_BYTES`] are enough).
    pub fn weigh(&self) -> Launch {
        self.launch("weigh", PARTS, 4, &self.problem(None))
    }

    /// Buffers: logits, the largest of parts, threshold, masses, the token (1) of u32, [`super::NO_TOKEN`] where there is none.
    pub fn token(&self) -> Launch {
        self.launch("draw", 1, 5, &self.problem(None))
    }

    fn problem(&self, search: Option<Search>) -> ChooseProblem {
        let Draw {
            temperature,
            top_k,
            top_p,
            min_p,
            unit,
        } = self.draw;
        ChooseProblem {
            cols: self.cols,
            temperature,
            shift: 0,
            first: 0,
            mass: u32::from(search == Some(Search::Mass)),
            enough: match search {
                Some(Search::Tokens) => top_k as f32,
                _ => top_p,
            },
            unit,
            least: min_p,
        }
    }

    fn launch(&self, kernel: &'static str, threadgroups: u32, buffers: u32, problem: &ChooseProblem) -> Launch {
        let defines = vec![
            ("THREADS", THREADS),
            ("VALUE", value_number(FloatType::F32)),
            ("PARTS", PARTS),
        ];
        Launch {
            program: Program { file: FILE, defines },
            kernel,
            threadgroups: [threadgroups, 1, 1],
            threads: THREADS,
            buffers,
            constants: bytemuck::bytes_of(problem).to_vec(),
            shared_bytes: 0,
        }
    }
}
