//! Causal attention of many query rows by matrices of 8 x 8.

use bytemuck::{Pod, Zeroable};

use super::{Attention, File, Launch, Program, kernel_file, value_number};

const FILE: File = kernel_file!("portable/attention_tiles", "shared/values");
/// Fewer query rows leave most of a tile empty.
const LEAST_ROWS: u32 = 8;
/// Threadgroup memory that every Apple GPU has.
const ROOM_BYTES: u32 = 32 << 10;

/// [`Attention`] by tiles. Buffers: queries, keys, values, sinks, slopes, output, as there.
#[derive(Clone, Copy, Debug)]
pub struct TileAttention {
    problem: Attention,
    tile: Tile,
}

#[derive(Clone, Copy, Debug)]
struct Tile {
    threads: u32,
    /// Positions that are brought together.
    keys: u32,
}

/// The fastest first: more rows share what is brought.
const TILES: [Tile; 2] = [Tile { threads: 128, keys: 16 }, Tile { threads: 64, keys: 8 }];

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct TileAttentionProblem {
    rows: u32,
    heads: u32,
    kv_heads: u32,
    first_position: u32,
    window: u32,
    scale: f32,
    softcap: f32,
    alibi_factor: f32,
}

impl Tile {
    fn rows(self) -> u32 {
        self.threads / 4
    }

    fn bytes(self, problem: &Attention) -> u32 {
        let brought = self.keys * problem.head_dim.max(problem.value_dim);
        4 * (self.rows() * problem.head_dim + brought + self.rows() * (self.keys + 8))
    }
}

impl TileAttention {
    /// `None` where [`Attention::launch`] must do: few rows, dimensions that are no multiples of 8 or too large.
    pub fn new(problem: Attention) -> Option<TileAttention> {
        let whole = problem.head_dim.is_multiple_of(8) && problem.value_dim.is_multiple_of(8);
        if problem.rows < LEAST_ROWS || !whole {
            return None;
        }
        let tile = TILES.into_iter().find(|tile| tile.bytes(&problem) <= ROOM_BYTES)?;
        Some(TileAttention { problem, tile })
    }

    /// The launch.
    pub fn launch(&self) -> Launch {
        let TileAttention { problem, tile } = self;
        let heads_each = problem.heads / problem.kv_heads;
        let flag = |is: bool| u32::from(is);
        let defines = vec![
            ("THREADS", tile.threads),
            ("VALUE", value_number(problem.value)),
            ("CACHE", value_number(problem.cache)),
            ("HEAD_DIM", problem.head_dim),
            ("VALUE_DIM", problem.value_dim),
            ("HEADS_EACH", heads_each),
            ("KEYS", tile.keys),
            ("WINDOW", flag(problem.window.is_some())),
            ("SOFTCAP", flag(problem.softcap.is_some())),
            ("ALIBI", flag(problem.alibi_factor.is_some())),
            ("SINKS", flag(problem.sinks)),
        ];
        let constants = TileAttentionProblem {
            rows: problem.rows,
            heads: problem.heads,
            kv_heads: problem.kv_heads,
            first_position: problem.first_position,
            window: problem.window.unwrap_or_default(),
            scale: problem.scale,
            softcap: problem.softcap.unwrap_or_default(),
            alibi_factor: problem.alibi_factor.unwrap_or_default(),
        };
        Launch {
            program: Program { file: FILE, defines },
            kernel: "attention_tiles",
            threadgroups: [(problem.rows * heads_each).div_ceil(tile.rows()), problem.kv_heads, 1],
            threads: tile.threads,
            buffers: 6,
            constants: bytemuck::bytes_of(&constants).to_vec(),
            shared_bytes: 0,
        }
    }
}
