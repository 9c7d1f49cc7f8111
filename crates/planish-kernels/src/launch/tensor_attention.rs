//! Causal attention of many query rows on CUDA's tensor cores.

use bytemuck::{Pod, Zeroable};
use planish_format::FloatType;

use super::{Attention, File, Launch, Program, kernel_file, value_number};

const FILE: File = kernel_file!("cuda/tensor_attention", "shared/values");
const THREADS: u32 = 128;
/// Tile rows of a threadgroup.
const ROWS: u32 = THREADS / 2;
/// Fewer query rows leave most of a tile empty.
const LEAST_ROWS: u32 = 8;
const MOST_DIM: u32 = 256;
/// Queries of no larger dimension stay in registers.
const MOST_HELD: u32 = 128;
/// Threadgroups that keep all of a large device busy.
const ENOUGH: u32 = 256;
const MOST_PARTS: u32 = 32;

/// [`Attention`] with the same buffers, of f16 or bf16 throughout. If there is a [`TensorAttention::merge`], it follows.
#[derive(Clone, Copy, Debug)]
pub struct TensorAttention {
    problem: Attention,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct TensorAttentionProblem {
    rows: u32,
    heads: u32,
    kv_heads: u32,
    first_position: u32,
    window: u32,
    scale: f32,
    softcap: f32,
    alibi_factor: f32,
}

impl TensorAttention {
    /// `None` where [`Attention::launch`] must do: values of 32 bits, few rows, dimensions that are not multiples of 16.
    pub fn new(problem: Attention) -> Option<TensorAttention> {
        let fits = |dim: u32| dim.is_multiple_of(16) && dim <= MOST_DIM;
        let narrow = problem.value != FloatType::F32 && problem.value == problem.cache;
        let is_fit = narrow && problem.rows >= LEAST_ROWS && fits(problem.head_dim) && fits(problem.value_dim);
        is_fit.then_some(TensorAttention { problem })
    }

    /// The launch.
    pub fn launch(&self) -> Launch {
        let Attention {
            rows,
            heads,
            kv_heads,
            first_position,
            window,
            scale,
            softcap,
            alibi_factor,
            ..
        } = self.problem;
        let problem = TensorAttentionProblem {
            rows,
            heads,
            kv_heads,
            first_position,
            window: window.unwrap_or_default(),
            scale,
            softcap: softcap.unwrap_or_default(),
            alibi_factor: alibi_factor.unwrap_or_default(),
        };
        Launch {
            program: self.program(),
            kernel: "tensor_attention",
            threadgroups: [self.tiles(), kv_heads, self.parts()],
            threads: THREADS,
            buffers: 7,
            constants: bytemuck::bytes_of(&problem).to_vec(),
            shared_bytes: self.shared_bytes(),
        }
    }

    /// Joins the parts, as [`Attention::merge`].
    pub fn merge(&self) -> Option<Launch> {
        self.problem.merge_of(self.parts())
    }

    /// Bytes of the partials; 0 where nothing is split.
    pub fn scratch_bytes(&self) -> usize {
        self.problem.partial_bytes(self.parts())
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
            first_position,
            kv_heads,
            window,
            ..
        } = self.problem;
        let seen = first_position + rows;
        let seen = window.map_or(seen, |window| seen.min(window + rows));
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
        let defines = vec![
            ("THREADS", THREADS),
            ("VALUE", value_number(problem.value)),
            ("HEAD_DIM", problem.head_dim),
            ("VALUE_DIM", problem.value_dim),
            ("HEADS_EACH", self.heads_each()),
            ("KEYS", self.keys()),
            ("PARTS", self.parts()),
            ("WINDOW", flag(problem.window.is_some())),
            ("SOFTCAP", flag(problem.softcap.is_some())),
            ("ALIBI", flag(problem.alibi_factor.is_some())),
            ("SINKS", flag(problem.sinks)),
        ];
        Program { file: FILE, defines }
    }
}
