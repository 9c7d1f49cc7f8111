//! Where rows stand: what the kernels of a pass write, and sequences whose blocks lie in any order for the tests of others.

use planish_kernels::launch::{BLOCK, CopyBlocks, Launch, MOST_WORDS, PLACE_WORDS, PlaceRows, WriteWords};
use planish_ops::Span;

use crate::data::Random;
use crate::device::{Device, Watch};

/// Sequences of a pass with shuffled slots and blocks.
#[derive(Clone, Debug)]
pub struct Scene {
    pub spans: Vec<Span>,
    /// Blocks of each span's sequence, in the order of positions.
    blocks: Vec<Vec<u32>>,
    /// Blocks of the pool: some are nobody's.
    pool: usize,
    stride: usize,
    slots: usize,
}

impl Scene {
    /// Rows and first position of each span, after `skipped` rows of another sequence.
    pub fn new(random: &mut Random, sizes: &[(u32, u32)], skipped: u32) -> Scene {
        let before = (skipped > 0).then_some((skipped, 3));
        let sizes: Vec<(u32, u32)> = before.into_iter().chain(sizes.iter().copied()).collect();
        let slots = sizes.len() + 2;
        let order = shuffled(random, slots);
        let mut first_row = 0;
        let mut spans = Vec::new();
        for (&(rows, first_position), &slot) in sizes.iter().zip(&order) {
            spans.push(Span {
                slot: slot as usize,
                first_row,
                rows: rows as usize,
                first_position: first_position as usize,
            });
            first_row += rows as usize;
        }
        let needed = |span: &Span| span.end_position().div_ceil(BLOCK);
        let pool = spans.iter().map(needed).sum::<usize>() + 3;
        let mut numbers = shuffled(random, pool).into_iter();
        let blocks = spans.iter().map(|span| numbers.by_ref().take(needed(span)).collect());
        Scene {
            blocks: blocks.collect(),
            pool,
            stride: spans.iter().map(needed).max().unwrap_or(1) + 1,
            slots,
            spans,
        }
    }

    /// Rows of all spans.
    pub fn rows(&self) -> usize {
        self.spans.last().map_or(0, Span::end_row)
    }

    /// The span of a row, and the row's position.
    pub fn place(&self, row: usize) -> (usize, usize) {
        let index = self.spans.iter().position(|span| row < span.end_row()).expect("a row");
        let span = &self.spans[index];
        (index, span.first_position + row - span.first_row)
    }

    /// Row of the pool at which a position of a span's sequence is stored.
    pub fn stored(&self, span: usize, position: usize) -> usize {
        self.blocks[span][position / BLOCK] as usize * BLOCK + position % BLOCK
    }

    /// Rows of the pool.
    pub fn stored_rows(&self) -> usize {
        self.pool * BLOCK
    }

    /// (slots, stride); what is no sequence's points far away.
    pub fn tables(&self) -> Vec<u8> {
        let mut tables = vec![u32::MAX; self.slots * self.stride];
        for (span, blocks) in self.spans.iter().zip(&self.blocks) {
            tables[span.slot * self.stride..][..blocks.len()].copy_from_slice(blocks);
        }
        bytes_of(&tables)
    }

    /// (rows, 4)
    pub fn places(&self) -> Vec<u8> {
        let place = |row: usize| {
            let (span, position) = self.place(row);
            let slot = self.spans[span].slot;
            let words: [usize; PLACE_WORDS] = [slot, position, self.stored(span, position), slot * self.stride];
            words.map(|word| word as u32)
        };
        let words: Vec<u32> = (0..self.rows()).flat_map(place).collect();
        bytes_of(&words)
    }

    /// (spans, 4)
    pub fn span_words(&self) -> Vec<u32> {
        let words = self.spans.iter().flat_map(|span| {
            let words = [span.slot, span.first_row, span.rows, span.first_position];
            words.map(|word| word as u32)
        });
        words.collect()
    }

    /// Index in the tables and block of each.
    fn entries(&self) -> Vec<u32> {
        let tables = self.spans.iter().zip(&self.blocks);
        let entries = tables.flat_map(|(span, blocks)| {
            let indices = span.slot * self.stride..;
            indices.zip(blocks).flat_map(|(index, &block)| [index as u32, block])
        });
        entries.collect()
    }

    /// Values (positions, width) of each span's sequence where they are stored; NaN elsewhere. // (pool * BLOCK, width)
    pub fn store(&self, values: &[Vec<f32>], width: usize) -> Vec<f32> {
        let mut stored = vec![f32::NAN; self.stored_rows() * width];
        for (span, values) in values.iter().enumerate() {
            for (position, values) in values.chunks_exact(width).enumerate() {
                stored[self.stored(span, position) * width..][..width].copy_from_slice(values);
            }
        }
        stored
    }
}

pub fn bytes_of(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

pub fn words_of(bytes: &[u8]) -> Vec<u32> {
    bytes
        .as_chunks()
        .0
        .iter()
        .map(|&word| u32::from_le_bytes(word))
        .collect()
}

fn shuffled(random: &mut Random, count: usize) -> Vec<u32> {
    let mut numbers: Vec<u32> = (0..count as u32).collect();
    for index in (1..count).rev() {
        numbers.swap(index, random.next() as usize % (index + 1));
    }
    numbers
}

/// One row of each of many sequences, a long one and one row, rows of several.
const SIZES: [&[(u32, u32)]; 4] = [
    &[(1, 0)],
    &[(300, 70)],
    &[(1, 63), (1, 64), (5, 126), (1, 0), (70, 0)],
    &[(1, 200); 40],
];

fn place_rows(scene: &Scene) -> PlaceRows<'_> {
    PlaceRows {
        entries: &[],
        spans: &[],
        first_span: 0,
        stride: scene.stride as u32,
    }
}

/// What these tests run.
pub fn launches() -> Vec<Launch> {
    let words = [7; MOST_WORDS];
    let of_sizes = [20, 100, 500, MOST_WORDS].map(|count| WriteWords {
        first: 0,
        words: &words[..count],
    });
    let copies = CopyBlocks {
        pairs: &[0, 1],
        block_bytes: 16,
    };
    let places = of_sizes.iter().map(|words| PlaceRows {
        entries: words.words,
        spans: &[],
        first_span: 0,
        stride: 0,
    });
    let places: Vec<Launch> = places.map(|places| places.launch()).collect();
    let writes = of_sizes.iter().map(WriteWords::launch);
    writes.chain(places).chain([copies.launch()]).collect()
}

fn check(device: &Device, scene: &Scene) {
    let (entries, spans) = (scene.entries(), scene.span_words());
    let mut buffers = [
        vec![0xff; scene.tables().len()],
        vec![0xff; scene.places().len()],
        vec![0xff; 4 * spans.len()],
    ];
    // Some entries and then the rest with one span, and the other spans, as where there are too many for one launch.
    let (early, late) = entries.split_at(entries.len() / 4 * 2);
    let (first, others) = spans.split_at(4);
    let plain = place_rows(scene);
    let launches = [
        PlaceRows {
            entries: early,
            ..plain
        },
        PlaceRows {
            entries: late,
            spans: first,
            ..plain
        },
        PlaceRows {
            spans: others,
            first_span: 1,
            ..plain
        },
    ];
    for launch in launches {
        device.run(&launch.launch(), &mut buffers);
    }
    assert_eq!(words_of(&buffers[0]), words_of(&scene.tables()), "{scene:?}");
    assert_eq!(words_of(&buffers[1]), words_of(&scene.places()), "{scene:?}");
    assert_eq!(words_of(&buffers[2]), spans, "{scene:?}");
}

#[test]
fn rows_are_placed_where_their_spans_say() {
    let device = Device::new(&launches(), Watch::Memory);
    let mut random = Random(31);
    for sizes in SIZES {
        check(&device, &Scene::new(&mut random, sizes, 0));
    }
}

#[test]
fn placing_rows_has_no_races() {
    let device = Device::new(&launches(), Watch::Races);
    check(&device, &Scene::new(&mut Random(32), SIZES[2], 2));
}

#[test]
fn words_are_written_where_they_belong() {
    let device = Device::new(&launches(), Watch::Memory);
    for count in [1, 20, MOST_WORDS] {
        let words: Vec<u32> = (0..count as u32).collect();
        let mut buffers = [vec![0xff; 4 * (count + 5)]];
        let launch = WriteWords {
            first: 3,
            words: &words,
        };
        device.run(&launch.launch(), &mut buffers);
        let found = words_of(&buffers[0]);
        assert_eq!(&found[3..3 + count], words);
        assert!(
            found[..3]
                .iter()
                .chain(&found[3 + count..])
                .all(|&word| word == u32::MAX)
        );
    }
}

#[test]
fn blocks_are_copied_whole() {
    const BYTES: usize = 16 * 700;
    let device = Device::new(&launches(), Watch::Memory);
    let mut random = Random(33);
    let cache: Vec<u8> = (0..5 * BYTES).map(|_| random.next() as u8).collect();
    let mut buffers = [cache.clone()];
    let copies = CopyBlocks {
        pairs: &[3, 0, 1, 4],
        block_bytes: BYTES,
    };
    device.run(&copies.launch(), &mut buffers);
    for (block, from) in [3, 1, 2, 3, 1].into_iter().enumerate() {
        let found = &buffers[0][block * BYTES..][..BYTES];
        assert!(*found == cache[from * BYTES..][..BYTES], "block {block}");
    }
}
