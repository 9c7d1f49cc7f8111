//! What a pass changes on the device before its first layer: places of its rows, tables of blocks, private copies of blocks, small
//! settings. The words come with the launch, so that nothing waits for a copy.

use smallvec::smallvec;

use super::{Constants, File, Launch, Program, kernel_file};

const FILE: File = kernel_file!("portable/places", "shared/values", "shared/blocks");
const THREADS: u32 = 512;
/// Threadgroups that copy one block.
const COPYING: u32 = 8;
/// Words of a launch: few sizes, so that few programs are compiled. The largest fits into 4 KB with what stands before it.
const WORDS: [usize; 4] = [32, 128, 512, 960];

/// Positions of a block of keys and values.
pub const BLOCK: usize = 64;
/// Words that one launch can bring.
pub const MOST_WORDS: usize = WORDS[WORDS.len() - 1];
/// Words of a place (slot, position, stored row, first entry of the tables) and of a span (slot, first row, rows, first position).
pub const PLACE_WORDS: usize = 4;

/// Blocks into the tables, then spans and the places of their rows. Buffers: tables (slots, stride), places (rows, 4), spans (spans, 4),
/// all of u32.
#[derive(Clone, Copy, Debug)]
pub struct PlaceRows<'a> {
    /// An index in the tables and a block for each entry. // (entries * 2)
    pub entries: &'a [u32],
    /// Slot, first row, rows and first position of each. // (spans * 4)
    pub spans: &'a [u32],
    /// Where the first of these spans lies among all.
    pub first_span: u32,
    /// Blocks of a table.
    pub stride: u32,
}

/// Words from index `first` of a buffer on. Buffers: that one.
#[derive(Clone, Copy, Debug)]
pub struct WriteWords<'a> {
    /// Where the first goes.
    pub first: u32,
    /// At most [`MOST_WORDS`].
    pub words: &'a [u32],
}

/// Copies whole blocks of a cache. Buffers: the cache (blocks, block_bytes).
#[derive(Clone, Copy, Debug)]
pub struct CopyBlocks<'a> {
    /// From and to of each; no block is both. At most [`MOST_WORDS`] words. // (pairs * 2)
    pub pairs: &'a [u32],
    /// Bytes of a block, a multiple of 16.
    pub block_bytes: usize,
}

impl PlaceRows<'_> {
    /// The launch.
    pub fn launch(&self) -> Launch {
        self.launch_in(&mut Vec::new())
    }

    /// The launch, whose constants lie in `memory` where they are many: [`give_back`] returns it.
    pub fn launch_in(&self, memory: &mut Vec<u8>) -> Launch {
        // Room for an entry of each span, so that a step that begins a block is the same program.
        let usual = self.spans.len() + self.spans.len() / 2;
        let words = [self.entries, self.spans];
        let header = [
            self.entries.len() as u32 / 2,
            self.spans.len() as u32 / 4,
            self.first_span,
            self.stride,
        ];
        launch("place_rows", [1, 1], 3, (&header, &words), usual, memory)
    }
}

impl WriteWords<'_> {
    /// The launch.
    pub fn launch(&self) -> Launch {
        self.launch_in(&mut Vec::new())
    }

    /// As [`PlaceRows::launch_in`].
    pub fn launch_in(&self, memory: &mut Vec<u8>) -> Launch {
        let header = [self.first, self.words.len() as u32];
        launch("write_words", [1, 1], 1, (&header, &[self.words]), 0, memory)
    }
}

impl CopyBlocks<'_> {
    /// The launch.
    pub fn launch(&self) -> Launch {
        let header = [(self.block_bytes / 16) as u32];
        let grid = [COPYING, self.pairs.len() as u32 / 2];
        launch("copy_blocks", grid, 1, (&header, &[self.pairs]), 0, &mut Vec::new())
    }
}

/// Takes back the memory of a launch that is not needed any more.
pub fn give_back(launch: Launch, memory: &mut Vec<u8>) {
    if launch.constants.spilled() {
        *memory = launch.constants.into_vec();
    }
}

/// The constants are a header, then words.
fn launch(
    kernel: &'static str,
    grid: [u32; 2],
    buffers: u32,
    (header, words): (&[u32], &[&[u32]]),
    usual: usize,
    memory: &mut Vec<u8>,
) -> Launch {
    let count: usize = words.iter().map(|words| words.len()).sum();
    let fits = |room: &&usize| **room >= count.max(usual.min(MOST_WORDS));
    let room = *WORDS.iter().find(fits).expect("no more than the most words");
    let mut constants = Constants::from_vec(std::mem::take(memory));
    constants.clear();
    constants.reserve(4 * (header.len() + room));
    for part in [header].iter().chain(words) {
        constants.extend_from_slice(bytemuck::cast_slice(part));
    }
    constants.resize(4 * (header.len() + room), 0);
    let defines = smallvec![("THREADS", THREADS), ("VALUE", 0), ("WORDS", room as u32)];
    Launch {
        program: Program { file: FILE, defines },
        kernel,
        threadgroups: [grid[0], grid[1], 1],
        threads: THREADS,
        buffers,
        constants,
        shared_bytes: 0,
    }
}
