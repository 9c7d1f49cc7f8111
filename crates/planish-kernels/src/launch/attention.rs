//! Causal attention of query rows over the cache.

use bytemuck::{Pod, Zeroable};
use planish_format::FloatType;

use super::{File, Launch, Program, kernel_file, value_number};

const FILE: File = kernel_file!("portable/attention", "shared/values");
const THREADS: u32 = 256;
const SIMDGROUPS: u32 = THREADS / 32;
/// Floats of threadgroup memory that the simdgroups' results may take.
const ROOM: u32 = 6 << 10;
/// Positions of a part, where there are so many.
const PART: u32 = 128;
const MOST_PARTS: u32 = 32;
/// Up to so many positions each head reads keys and values for itself: the device has room, and caches hold them.
const APART: u32 = 512;

/// `output = softmax(scale * q k^T) v`. Buffers of [`Attention::launch`]: queries (rows, heads, head_dim) of `value`, keys
/// (positions, kv_heads, head_dim) and values (positions, kv_heads, value_dim) of `cache`, sinks (heads) and slopes (heads) of
/// f32, partials ([`Attention::scratch_bytes`]), output (rows, heads, value_dim) of `value`. If there is a
/// [`Attention::merge`], it follows.
#[derive(Clone, Copy, Debug)]
pub struct Attention {
    /// Type of queries and output.
    pub value: FloatType,
    /// Type of keys and values.
    pub cache: FloatType,
    /// Query rows.
    pub rows: u32,
    /// Position of row 0.
    pub first_position: u32,
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
    /// A row sees so many positions, its own included.
    pub window: Option<u32>,
    /// Scores become `cap * tanh(score / cap)`.
    pub softcap: Option<f32>,
    /// Linear biases of positions: multiplies what the slopes give.
    pub alibi_factor: Option<f32>,
    /// Whether heads have sinks.
    pub sinks: bool,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct AttentionProblem {
    heads: u32,
    kv_heads: u32,
    first_position: u32,
    window: u32,
    scale: f32,
    softcap: f32,
    alibi_factor: f32,
}

impl Attention {
    /// The launch.
    pub fn launch(&self) -> Launch {
        Launch {
            program: self.program(self.parts()),
            kernel: "attention",
            threadgroups: [self.rows, self.heads / self.heads_each(), self.parts()],
            threads: THREADS,
            buffers: 7,
            constants: self.constants(),
            shared_bytes: 0,
        }
    }

    /// Joins the parts, where the positions were split. Buffers: partials, sinks, output.
    pub fn merge(&self) -> Option<Launch> {
        self.merge_of(self.parts())
    }

    /// Joins so many parts.
    pub(super) fn merge_of(&self, parts: u32) -> Option<Launch> {
        (parts > 1).then(|| Launch {
            program: self.program(parts),
            kernel: "attention_merge",
            threadgroups: [self.rows, self.heads, 1],
            threads: THREADS,
            buffers: 3,
            constants: self.constants(),
            shared_bytes: 0,
        })
    }

    /// Bytes of the partials; 0 where nothing is split.
    pub fn scratch_bytes(&self) -> usize {
        self.partial_bytes(self.parts())
    }

    /// Bytes of so many parts.
    pub(super) fn partial_bytes(&self, parts: u32) -> usize {
        match parts {
            1 => 0,
            parts => self.rows as usize * self.heads as usize * parts as usize * (self.value_dim as usize + 2) * 4,
        }
    }

    /// Changes only when the length passes a power of two, so that recorded launches stay as they are.
    fn parts(&self) -> u32 {
        // Many rows fill the device without parts.
        let enough = (1024 / (self.rows * self.heads / self.heads_each())).max(1);
        match self.seen() / PART {
            // To join two parts takes longer than to read them one after another.
            ..=2 => 1,
            parts => parts.min(MOST_PARTS).min(enough.next_power_of_two()),
        }
    }

    /// Positions that a row sees, rounded up to a power of two.
    fn seen(&self) -> u32 {
        let seen = self.first_position + self.rows;
        self.window.map_or(seen, |window| seen.min(window)).next_power_of_two()
    }

    /// Lanes that read one position, 8 values each.
    fn lanes(&self) -> u32 {
        let eights = self.head_dim.max(self.value_dim).div_ceil(8);
        eights.next_power_of_two().min(32)
    }

    /// Heads that share one read of keys and values: a divisor of the heads of a key-value head.
    fn heads_each(&self) -> u32 {
        let group = self.heads / self.kv_heads;
        if self.seen() <= APART {
            return 1;
        }
        let fits = |heads: u32| group.is_multiple_of(heads) && SIMDGROUPS * heads * (self.value_dim + 2) <= ROOM;
        [4, 3, 2].into_iter().find(|&heads| fits(heads)).unwrap_or(1)
    }

    fn program(&self, parts: u32) -> Program {
        let flag = |is: bool| u32::from(is);
        let defines = vec![
            ("THREADS", THREADS),
            ("VALUE", value_number(self.value)),
            ("CACHE", value_number(self.cache)),
            ("HEAD_DIM", self.head_dim),
            ("VALUE_DIM", self.value_dim),
            ("HEADS_EACH", self.heads_each()),
            ("PARTS", parts),
            ("LANES", self.lanes()),
            ("WINDOW", flag(self.window.is_some())),
            ("SOFTCAP", flag(self.softcap.is_some())),
            ("ALIBI", flag(self.alibi_factor.is_some())),
            ("SINKS", flag(self.sinks)),
        ];
        Program { file: FILE, defines }
    }

    fn constants(&self) -> Vec<u8> {
        let problem = AttentionProblem {
            heads: self.heads,
            kv_heads: self.kv_heads,
            first_position: self.first_position,
            window: self.window.unwrap_or_default(),
            scale: self.scale,
            softcap: self.softcap.unwrap_or_default(),
            alibi_factor: self.alibi_factor.unwrap_or_default(),
        };
        bytemuck::bytes_of(&problem).to_vec()
    }
}
