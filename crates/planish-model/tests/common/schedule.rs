//! Random schedules of pieces, steps, forks, cuts and drops over several sequences, and what came of each sequence.

use planish_model::{Cache, Chunk, Input, Model, Want};

/// Sequences at once, at most: with rounded activations up to 16 rows are rounded as one.
const MOST_SEQUENCES: usize = 16;
/// Numbers that are the same in every run.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(0x9e37_79b9_7f4a_7c15 ^ seed)
    }

    pub fn below(&mut self, count: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as usize % count
    }
}

/// What happened to a sequence, and what came of it.
#[derive(Clone)]
pub enum Event {
    /// These tokens in one chunk, and the logits after the last one if they were asked for.
    Ran(Vec<u32>, Option<Vec<f32>>),
    /// Positions from this one on forgotten.
    Cut(usize),
}

struct Sequence {
    cache: Cache,
    events: Vec<Event>,
}

/// Tokens for the next chunk: one, a piece, or more than a block.
fn tokens(random: &mut Random, vocabulary: usize, room: usize) -> Vec<u32> {
    let count = match random.below(4) {
        0 => 2 + random.below(5),
        1 => 10 + random.below(70),
        _ => 1,
    };
    (0..count.min(room)).map(|_| random.below(vocabulary) as u32).collect()
}

/// One call for some of the sequences.
fn run(model: &mut Model, sequences: &mut [Sequence], random: &mut Random) {
    let vocabulary = model.architecture().vocabulary;
    let mut inputs = Vec::new();
    for (index, sequence) in sequences.iter().enumerate() {
        let room = sequence.cache.capacity() - sequence.cache.len();
        if room > 0 && random.below(4) > 0 {
            inputs.push((index, tokens(random, vocabulary, room), random.below(4) > 0));
        }
    }
    let mut caches: Vec<Option<&mut Cache>> = Vec::new();
    let (mut events, mut logits) = (Vec::new(), vec![None; inputs.len()]);
    for Sequence { cache, events: own } in sequences {
        caches.push(Some(cache));
        events.push(own);
    }
    let mut chunks: Vec<Chunk<'_>> = Vec::new();
    for (index, tokens, wanted) in &inputs {
        chunks.push(Chunk {
            cache: caches[*index].take().unwrap(),
            input: Input::Tokens(tokens),
            want: if *wanted { Want::Logits } else { Want::Nothing },
        });
    }
    let ticket = model
        .run(&mut chunks, &mut |row| {
            assert_eq!(row.token + 1, inputs[row.chunk].1.len());
            assert!(logits[row.chunk].replace(row.logits.to_vec()).is_none());
        })
        .unwrap();
    assert!(ticket.is_none());
    for ((index, tokens, wanted), logits) in inputs.into_iter().zip(logits) {
        assert_eq!(logits.is_some(), wanted);
        events[index].push(Event::Ran(tokens, logits));
    }
}

/// So many calls. What happened to each sequence, from its beginning on, forks included.
pub fn schedule(model: &mut Model, capacity: usize, calls: usize, seed: u64) -> Vec<Vec<Event>> {
    let mut random = Random::new(seed);
    let new = |model: &Model| Sequence {
        cache: model.cache(capacity),
        events: Vec::new(),
    };
    let mut sequences = vec![new(model), new(model)];
    let mut histories = Vec::new();
    for _ in 0..calls {
        match random.below(6) {
            0 if sequences.len() < MOST_SEQUENCES => sequences.push(new(model)),
            1 | 2 if sequences.len() < MOST_SEQUENCES => {
                let parent = &sequences[random.below(sequences.len())];
                let events = parent.events.clone();
                let cache = model.fork(&parent.cache).unwrap();
                sequences.push(Sequence { cache, events });
            }
            3 => {
                let index = random.below(sequences.len());
                let Sequence { cache, events } = &mut sequences[index];
                let length = random.below(cache.len() + 1);
                cache.truncate(length);
                events.push(Event::Cut(length));
            }
            4 if sequences.len() > 2 => {
                let index = random.below(sequences.len());
                histories.push(sequences.swap_remove(index).events);
            }
            _ => {}
        }
        // A full sequence has room again.
        for Sequence { cache, events } in &mut sequences {
            if cache.len() == cache.capacity() {
                let length = random.below(cache.len());
                cache.truncate(length);
                events.push(Event::Cut(length));
            }
        }
        run(model, &mut sequences, &mut random);
    }
    histories.extend(sequences.into_iter().map(|sequence| sequence.events));
    histories
}
