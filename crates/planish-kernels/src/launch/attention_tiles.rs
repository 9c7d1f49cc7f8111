//! Causal attention of many query rows of one sequence by matrices of 8 x 8.

use bytemuck::{Pod, Zeroable};
use smallvec::smallvec;

use super::attention_variants::{AttentionBuffer, AttentionPlan, AttentionStep};
use super::{Attention, File, Launch, Program, constants_of, kernel_file, value_number};

const FILE: File = kernel_file!("portable/attention_tiles", "shared/values", "shared/blocks");
/// Threadgroup memory that every Apple GPU has.
const SHARED_BYTES: u32 = 32 << 10;

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
    first_row: u32,
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

/// `None` where another must do: few rows or several sequences, dimensions that are no multiples of 8 or too large.
pub(super) fn plan(problem: &Attention) -> Option<AttentionPlan> {
    use AttentionBuffer::{Keys, Output, Places, Queries, Sinks, Slopes, Tables, Values};
    let whole = problem.head_dim.is_multiple_of(8) && problem.value_dim.is_multiple_of(8);
    if !problem.has_tiles() || !whole {
        return None;
    }
    let tile = TILES.into_iter().find(|tile| tile.bytes(problem) <= SHARED_BYTES)?;
    let step = AttentionStep {
        launch: launch(problem, tile),
        buffers: &[Queries, Keys, Values, Sinks, Slopes, Places, Tables, Output],
    };
    Some(AttentionPlan {
        scratch_bytes: 0,
        steps: smallvec![step],
    })
}

fn launch(problem: &Attention, tile: Tile) -> Launch {
    let heads_each = problem.heads / problem.kv_heads;
    let flag = |is: bool| u32::from(is);
    let defines = smallvec![
        ("THREADS", tile.threads),
        ("VALUE", value_number(problem.value)),
        ("CACHE", value_number(problem.cache)),
        ("HEAD_DIM", problem.head_dim),
        ("VALUE_DIM", problem.value_dim),
        ("HEADS_EACH", heads_each),
        ("KEYS", tile.keys),
        ("WINDOW", flag(problem.window.is_some())),
        ("SOFTCAP", flag(problem.softcap.is_some())),
        ("ALIBI", problem.alibi_number()),
        ("SINKS", flag(problem.sinks)),
    ];
    let constants = TileAttentionProblem {
        rows: problem.rows,
        heads: problem.heads,
        kv_heads: problem.kv_heads,
        first_row: problem.first_row,
        window: problem.window.unwrap_or_default(),
        scale: problem.scale_of_span(),
        softcap: problem.softcap.unwrap_or_default(),
        alibi_factor: problem.alibi_factor(),
    };
    Launch {
        program: Program { file: FILE, defines },
        kernel: "attention_tiles",
        threadgroups: [(problem.rows * heads_each).div_ceil(tile.rows()), problem.kv_heads, 1],
        threads: tile.threads,
        buffers: 8,
        constants: constants_of(&constants),
        shared_bytes: 0,
    }
}
