//! Causal attention of query rows over the cache.

use bytemuck::{Pod, Zeroable};
use planish_format::FloatType;
use planish_ops::{AlibiRule, TemperatureTuning};
use smallvec::smallvec;

use super::attention_variants::{AttentionBuffer, AttentionPlan, AttentionStep};
use super::{Constants, File, Launch, Program, constants_of, kernel_file, value_number};

const FILE: File = kernel_file!("portable/attention", "shared/values", "shared/blocks");
const THREADS: u32 = 256;
const SIMDGROUPS: u32 = THREADS / 32;
/// Floats of threadgroup memory that the simdgroups' results may take.
const ROOM: u32 = 6 << 10;
/// Positions of a part, where there are so many.
const PART: u32 = 128;
const MOST_PARTS: u32 = 32;
/// Positions that one threadgroup takes of a few rows, though others have enough to do.
const LONG_PART: u32 = 1024;
/// No part is so long.
const NEVER: u32 = 1 << 26;
/// Rows whose parts are few enough to be kept.
const FEW_ROWS: u32 = 64;
/// Threadgroups that a multiprocessor should hold: one computes while another waits for keys and values.
const THREADGROUPS: u32 = 2;
/// Threadgroups that keep a large device busy: of one row, whose parts are all there is, and of several.
const ENOUGH_ALONE: u32 = 1024;
const ENOUGH: u32 = 256;
/// Up to so many positions each head reads keys and values for itself: the device has room, and caches hold them.
const APART: u32 = 512;
/// From so many threadgroups on the device has no room for that.
const CROWD: u32 = 128;

/// `output = softmax(scale * q k^T) v`: what every row of [`super::ATTENTION_VARIANTS`] computes.
#[derive(Clone, Copy, Debug)]
pub struct Attention {
    /// Type of queries and output.
    pub value: FloatType,
    /// Type of keys and values.
    pub cache: FloatType,
    /// Query rows.
    pub rows: u32,
    /// The first of them.
    pub first_row: u32,
    /// Sequences that they belong to, each with rows of neighbouring positions.
    pub spans: u32,
    /// Positions of the longest of these sequences, the rows' own included.
    pub longest: u32,
    /// Query heads, a multiple of the key-value heads.
    pub heads: u32,
    /// Key-value heads.
    pub kv_heads: u32,
    /// Dimension of queries and keys.
    pub head_dim: u32,
    /// Dimension of values.
    pub value_dim: u32,
    /// Multiplies the scores.
    pub scale: f32,
    /// How the scale grows along the sequence.
    pub temperature_tuning: Option<TemperatureTuning>,
    /// A row sees so many positions, its own included.
    pub window: Option<u32>,
    /// Scores become `cap * tanh(score / cap)`.
    pub softcap: Option<f32>,
    /// Linear biases of positions.
    pub alibi: Option<AlibiRule>,
    /// Whether heads have sinks.
    pub sinks: bool,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct AttentionProblem {
    heads: u32,
    kv_heads: u32,
    first_row: u32,
    parts: u32,
    most_parts: u32,
    long_part: u32,
    window: u32,
    scale: f32,
    softcap: f32,
    alibi_factor: f32,
    tuning_rate: f32,
    tuning_period: u32,
}

/// How rows are split.
#[derive(Clone, Copy)]
struct Split {
    /// Parts of the longest row.
    parts: u32,
    /// As in attention.metal.
    most_parts: u32,
    long_part: u32,
}

/// Rows of any sequences, each with parts of its own.
pub(super) fn plan(problem: &Attention) -> Option<AttentionPlan> {
    use AttentionBuffer::{Keys, Output, Partials, Places, Queries, Sinks, Slopes, Tables, Values};
    let split = problem.split();
    let launch = Launch {
        program: problem.program(split.parts),
        kernel: "attention",
        threadgroups: [problem.rows, problem.heads / problem.heads_each(), split.parts],
        threads: THREADS,
        buffers: 9,
        constants: problem.constants(split),
        shared_bytes: 0,
    };
    let first = AttentionStep {
        launch,
        buffers: &[Queries, Keys, Values, Sinks, Slopes, Places, Tables, Partials, Output],
    };
    Some(AttentionPlan {
        scratch_bytes: problem.partial_bytes(split.parts),
        steps: [first].into_iter().chain(problem.merge(split)).collect(),
    })
}

impl Attention {
    /// Joins so many parts of every row.
    pub(super) fn merge_of(&self, parts: u32) -> Option<AttentionStep> {
        self.merge(Split {
            parts,
            most_parts: 0,
            long_part: NEVER,
        })
    }

    fn merge(&self, split: Split) -> Option<AttentionStep> {
        use AttentionBuffer::{Output, Partials, Places, Sinks};
        (split.parts > 1).then(|| AttentionStep {
            launch: Launch {
                program: self.program(split.parts),
                kernel: "attention_merge",
                threadgroups: [self.rows, self.heads, 1],
                threads: THREADS,
                buffers: 4,
                constants: self.constants(split),
                shared_bytes: 0,
            },
            buffers: &[Sinks, Places, Partials, Output],
        })
    }

    /// Bytes of so many parts; 0 where nothing is split.
    pub(super) fn partial_bytes(&self, parts: u32) -> usize {
        match parts {
            1 => 0,
            parts => self.rows as usize * self.heads as usize * parts as usize * (self.value_dim as usize + 2) * 4,
        }
    }

    /// How many parts a row has depends on its own length and on the number of rows. Together they change only when the longest passes
    /// a power of two, so that recorded launches stay as they are.
    fn split(&self) -> Split {
        let groups = self.rows * (self.heads / self.heads_together());
        let enough = if self.rows == 1 { ENOUGH_ALONE } else { ENOUGH };
        let most_parts = (enough / groups).max(1).next_power_of_two().min(MOST_PARTS);
        let long_part = if self.rows <= FEW_ROWS { LONG_PART } else { NEVER };
        let seen = self.window.map_or(self.longest, |window| self.longest.min(window));
        let mut parts = 1;
        // As `parts_of` in attention.metal.
        if seen > 2 * PART {
            while parts < MOST_PARTS && parts * PART < seen && (parts < most_parts || parts * long_part < seen) {
                parts *= 2;
            }
        }
        Split {
            parts,
            most_parts,
            long_part,
        }
    }

    /// Lanes that read one position, 8 values each.
    fn lanes(&self) -> u32 {
        let eights = self.head_dim.max(self.value_dim).div_ceil(8);
        eights.next_power_of_two().min(32)
    }

    /// Heads that share one read of keys and values where sequences are long or many.
    fn heads_together(&self) -> u32 {
        let group = self.heads / self.kv_heads;
        let fits = |heads: u32| group.is_multiple_of(heads) && SIMDGROUPS * heads * (self.value_dim + 2) <= ROOM;
        [4, 3, 2].into_iter().find(|&heads| fits(heads)).unwrap_or(1)
    }

    /// Heads of a threadgroup: a divisor of the heads of a key-value head. What a head computes does not depend on it.
    fn heads_each(&self) -> u32 {
        let seen = self.window.map_or(self.longest, |window| self.longest.min(window));
        let together = self.heads_together();
        let is_small = seen <= APART && self.rows * (self.heads / together) < CROWD;
        if is_small { 1 } else { together }
    }

    fn program(&self, parts: u32) -> Program {
        let flag = |is: bool| u32::from(is);
        let defines = smallvec![
            ("THREADS", THREADS),
            ("THREADGROUPS", THREADGROUPS),
            ("VALUE", value_number(self.value)),
            ("CACHE", value_number(self.cache)),
            ("HEAD_DIM", self.head_dim),
            ("VALUE_DIM", self.value_dim),
            ("HEADS_EACH", self.heads_each()),
            ("SPLIT", flag(parts > 1)),
            ("PART", PART),
            ("MOST_PARTS", MOST_PARTS),
            ("LANES", self.lanes()),
            ("WINDOW", flag(self.window.is_some())),
            ("SOFTCAP", flag(self.softcap.is_some())),
            ("ALIBI", self.alibi_number()),
            ("SINKS", flag(self.sinks)),
            ("TEMPERATURE_TUNING", flag(self.temperature_tuning.is_some())),
        ];
        Program { file: FILE, defines }
    }

    /// `ALIBI`: 1 where positions are rounded, 2 where they are not.
    pub(super) fn alibi_number(&self) -> u32 {
        self.alibi.map_or(0, |rule| if rule.rounded { 1 } else { 2 })
    }

    pub(super) fn alibi_factor(&self) -> f32 {
        self.alibi.map_or(0.0, |rule| rule.factor)
    }

    fn constants(&self, split: Split) -> Constants {
        let tuning = self
            .temperature_tuning
            .unwrap_or(TemperatureTuning { rate: 0.0, period: 1 });
        let problem = AttentionProblem {
            heads: self.heads,
            kv_heads: self.kv_heads,
            first_row: self.first_row,
            parts: split.parts,
            most_parts: split.most_parts,
            long_part: split.long_part,
            window: self.window.unwrap_or_default(),
            scale: self.scale,
            softcap: self.softcap.unwrap_or_default(),
            alibi_factor: self.alibi_factor(),
            tuning_rate: tuning.rate,
            tuning_period: tuning.period as u32,
        };
        constants_of(&problem)
    }

    /// The scale of rows that stand between two steps of its tuning.
    pub(super) fn scale_of_span(&self) -> f32 {
        let first_position = self.longest - self.rows;
        let factor = self
            .temperature_tuning
            .map(|tuning| tuning.factor(first_position as usize));
        self.scale * factor.unwrap_or(1.0)
    }
}
