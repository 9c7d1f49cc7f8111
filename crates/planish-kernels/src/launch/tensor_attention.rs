//! Causal attention of many query rows of one sequence on CUDA's tensor cores.

use bytemuck::{Pod, Zeroable};
use planish_format::FloatType;
use smallvec::smallvec;

use super::attention_variants::{AttentionBuffer, AttentionPlan, AttentionStep};
use super::{Attention, File, Launch, Program, constants_of, kernel_file, value_number};

const FILE: File = kernel_file!("cuda/tensor_attention", "shared/values", "shared/blocks");
const THREADS: u32 = 128;
/// Tile rows of a threadgroup.
const ROWS: u32 = THREADS / 2;
const MOST_DIM: u32 = 256;
/// Queries of no larger dimension stay in registers.
const MOST_HELD: u32 = 128;
/// Threadgroups that keep all of a large device busy.
const ENOUGH: u32 = 256;
const MOST_PARTS: u32 = 32;

/// [`Attention`] of f16 or bf16 throughout.
struct TensorAttention {
    problem: Attention,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct TensorAttentionProblem {
    rows: u32,
    heads: u32,
    kv_heads: u32,
    first_row: u32,
    window: u32,
    scale: f32,
    softcap: f32,
    alibi_factor: f32,
}

/// `None` where another must do: values of 32 bits, few rows or several sequences, dimensions that are not multiples of 16.
pub(super) fn plan(problem: &Attention) -> Option<AttentionPlan> {
    let fits = |dim: u32| dim.is_multiple_of(16) && dim <= MOST_DIM;
    let narrow = problem.value != FloatType::F32 && problem.value == problem.cache;
    let is_fit = narrow && problem.has_tiles() && fits(problem.head_dim) && fits(problem.value_dim);
    is_fit.then(|| TensorAttention { problem: *problem }.plan())
}

impl TensorAttention {
    fn plan(&self) -> AttentionPlan {
        let parts = self.parts();
        AttentionPlan {
            scratch_bytes: self.problem.partial_bytes(parts),
            steps: [self.step()].into_iter().chain(self.problem.merge_of(parts)).collect(),
        }
    }

    fn step(&self) -> AttentionStep {
        use AttentionBuffer::{Keys, Output, Partials, Places, Queries, Sinks, Slopes, Tables, Values};
        let Attention {
            rows,
            first_row,
            heads,
            kv_heads,
            window,
            softcap,
            ..
        } = self.problem;
        let problem = TensorAttentionProblem {
            rows,
            heads,
            kv_heads,
            first_row,
            window: window.unwrap_or_default(),
            scale: self.problem.scale_of_span(),
            softcap: softcap.unwrap_or_default(),
            alibi_factor: self.problem.alibi_factor(),
        };
        AttentionStep {
            launch: Launch {
                program: self.program(),
                kernel: "tensor_attention",
                threadgroups: [self.tiles(), kv_heads, self.parts()],
                threads: THREADS,
                buffers: 9,
                constants: constants_of(&problem),
                shared_bytes: self.shared_bytes(),
            },
            buffers: &[Queries, Keys, Values, Sinks, Slopes, Places, Tables, Partials, Output],
        }
    }

    fn tiles(&self) -> u32 {
        (self.problem.rows * self.heads_each()).div_ceil(ROWS)
    }

    fn heads_each(&self) -> u32 {
        self.problem.heads / self.problem.kv_heads
    }

    /// Positions that are brought together: as many as the registers take.
    fn keys(&self) -> u32 {
        match self.problem.head_dim.max(self.problem.value_dim) {
            ..=128 => 64,
            _ => 32,
        }
    }

    /// Few rows over many positions fill the device only if those are split.
    fn parts(&self) -> u32 {
        let Attention {
            rows,
            longest,
            kv_heads,
            window,
            ..
        } = self.problem;
        let seen = window.map_or(longest, |window| longest.min(window + rows));
        let enough = ENOUGH / (self.tiles() * kv_heads).max(1);
        (seen / (4 * self.keys())).min(enough).clamp(1, MOST_PARTS)
    }

    fn shared_bytes(&self) -> u32 {
        let (key, value) = (self.problem.head_dim + 8, self.problem.value_dim + 8);
        let (stage, queries) = (self.keys() * (key + value), ROWS * key);
        let rest = match self.problem.head_dim {
            ..=MOST_HELD => stage.max(queries),
            _ => stage + queries,
        };
        2 * (stage + rest)
    }

    fn program(&self) -> Program {
        let problem = &self.problem;
        let flag = |is: bool| u32::from(is);
        let defines = smallvec![
            ("THREADS", THREADS),
            ("VALUE", value_number(problem.value)),
            ("HEAD_DIM", problem.head_dim),
            ("VALUE_DIM", problem.value_dim),
            ("HEADS_EACH", self.heads_each()),
            ("KEYS", self.keys()),
            ("PARTS", self.parts()),
            ("WINDOW", flag(problem.window.is_some())),
            ("SOFTCAP", flag(problem.softcap.is_some())),
            ("ALIBI", problem.alibi_number()),
            ("SINKS", flag(problem.sinks)),
        ];
        Program { file: FILE, defines }
    }
}
