//! Which experts compute a row, and the rows of each expert.

use bytemuck::{Pod, Zeroable};
use planish_format::FloatType;
use planish_ops::{Routing, Scoring};
use smallvec::smallvec;

use super::{File, Launch, Program, constants_of, kernel_file, value_number};

const FILE: File = kernel_file!("portable/route", "shared/values", "shared/reduce");
const ROUTE_THREADS: u32 = 128;
const SORT_THREADS: u32 = 256;

/// A router's choices. An entry is one choice of one row: `row * chosen + choice`.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// How to choose.
    pub rule: Routing,
    /// Type of the logits.
    pub value: FloatType,
    /// Rows of logits.
    pub rows: u32,
    /// How many experts there are to choose from.
    pub experts: u32,
    /// Whether something is added to the scores for choosing.
    pub corrected: bool,
    /// Whether the weight of each expert is multiplied by a factor of its own.
    pub factors: bool,
    /// Entries of a tile that [`Route::sort`] makes.
    pub tile: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct RouteProblem {
    kept: u32,
    best: u32,
    least: f32,
    scale: f32,
    jitter: f32,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct SortProblem {
    entries: u32,
}

impl Route {
    /// Chooses. Buffers: logits (rows, experts) of `value`, score corrections (experts) of f32, the chosen (rows, chosen) of u32, best first,
    /// their weights (rows, chosen) of f32, factors (experts) of f32.
    pub fn launch(&self) -> Launch {
        let Routing {
            groups,
            normalize,
            scale,
            ..
        } = self.rule;
        let problem = RouteProblem {
            kept: groups.map_or(0, |groups| groups.kept as u32),
            best: groups.map_or(0, |groups| groups.best as u32),
            least: normalize.unwrap_or_default(),
            scale,
            jitter: match self.rule.scoring {
                Scoring::SparseMixer { jitter } => jitter,
                _ => 0.0,
            },
        };
        Launch {
            program: self.program(ROUTE_THREADS),
            kernel: "route",
            threadgroups: [self.rows, 1, 1],
            threads: ROUTE_THREADS,
            buffers: 5,
            constants: constants_of(&problem),
            shared_bytes: 0,
        }
    }

    /// Sorts entries by expert. Buffers: the chosen (entries) of u32, the order (entries) of u32, tiles ([`Route::tiles`], 3) of u32:
    /// expert, first place in the order, how many entries.
    pub fn sort(&self) -> Launch {
        let problem = SortProblem {
            entries: self.entries(),
        };
        Launch {
            program: self.program(SORT_THREADS),
            kernel: "sort_entries",
            threadgroups: [self.experts, 1, 1],
            threads: SORT_THREADS,
            buffers: 3,
            constants: constants_of(&problem),
            shared_bytes: 0,
        }
    }

    /// Choices of all rows.
    pub fn entries(&self) -> u32 {
        self.rows * self.rule.chosen as u32
    }

    /// Tiles at most, those without entries included.
    pub fn tiles(&self) -> u32 {
        self.entries() / self.tile + self.experts
    }

    fn program(&self, threads: u32) -> Program {
        let scoring = match self.rule.scoring {
            Scoring::Softmax => 0,
            Scoring::Sigmoid => 1,
            Scoring::SparseMixer { .. } => 2,
            Scoring::SigmoidOfChosen => 3,
        };
        let defines = smallvec![
            ("THREADS", threads),
            ("VALUE", value_number(self.value)),
            ("EXPERTS", self.experts),
            ("CHOSEN", self.rule.chosen as u32),
            ("SCORING", scoring),
            ("CORRECTED", u32::from(self.corrected && scoring != 2)),
            ("NORMALIZED", u32::from(self.rule.normalize.is_some())),
            ("FACTORS", u32::from(self.factors)),
            ("GROUPS", self.rule.groups.map_or(0, |groups| groups.count as u32)),
            ("TILE", self.tile),
        ];
        Program { file: FILE, defines }
    }
}
