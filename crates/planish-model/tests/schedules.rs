//! Several sequences at once: whatever the schedule of pieces, steps, forks, cuts and drops, every sequence gives what it gives
//! alone, bit for bit. On every golden family, in f32 and with rounded activations, for every type of cache.

mod common;

use common::{exact, folder, load};
use planish_model::{Cache, CacheType, Chunk, Input, LoadOptions, Model, Want};

/// Sequences at once, at most: with rounded activations up to 16 rows are rounded as one.
const MOST_SEQUENCES: usize = 16;
/// Calls of a schedule.
const CALLS: usize = 24;
/// Positions of a sequence: more than two blocks of keys and values.
const POSITIONS: usize = 150;

/// Numbers that are the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, count: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as usize % count
    }
}

/// What happened to a sequence, and what came of it.
#[derive(Clone)]
enum Event {
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

/// Every event once more, with nothing else on the way.
fn alone(model: &mut Model, capacity: usize, events: &[Event], name: &str) {
    let mut cache = model.cache(capacity);
    for (number, event) in events.iter().enumerate() {
        match event {
            Event::Cut(length) => {
                cache.truncate(*length);
            }
            Event::Ran(tokens, expected) => {
                let found = model.forward(tokens, &mut cache).unwrap();
                let Some(expected) = expected else { continue };
                let same = found.iter().zip(expected).all(|(a, b)| a.to_bits() == b.to_bits());
                let far = found
                    .iter()
                    .zip(expected)
                    .map(|(a, b)| (a - b).abs())
                    .fold(0.0, f32::max);
                assert!(same, "{name}: event {number} of {} differs by {far}", events.len());
            }
        }
    }
}

fn check(case: &str, options: LoadOptions, seed: u64, name: &str) {
    let mut model = load(case, options);
    let architecture = model.architecture();
    let known = architecture
        .embedding
        .positions
        .as_ref()
        .map(|table| table.rows - table.offset);
    let capacity = POSITIONS.min(architecture.context).min(known.unwrap_or(POSITIONS));
    let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ seed);
    let new = |model: &Model| Sequence {
        cache: model.cache(capacity),
        events: Vec::new(),
    };
    let mut sequences = vec![new(&model), new(&model)];
    let mut histories = Vec::new();
    for _ in 0..CALLS {
        match random.below(6) {
            0 if sequences.len() < MOST_SEQUENCES => sequences.push(new(&model)),
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
        run(&mut model, &mut sequences, &mut random);
    }
    histories.extend(sequences.into_iter().map(|sequence| sequence.events));
    let compared = histories.iter().flatten();
    let compared = compared.filter(|event| matches!(event, Event::Ran(_, Some(_)))).count();
    assert!(compared > CALLS, "{name}: {compared} logits");
    for events in &histories {
        alone(&mut model, capacity, events, name);
    }
}

/// Golden checkpoints: of each family one plain and one packed.
fn cases() -> Vec<String> {
    let mut cases = Vec::new();
    for entry in std::fs::read_dir(folder("")).unwrap() {
        let entry = entry.unwrap();
        for kind in ["plain", "metal"] {
            if entry.path().join(kind).join("config.json").is_file() {
                cases.push(format!("{}/{kind}", entry.file_name().to_string_lossy()));
            }
        }
    }
    cases.sort();
    cases
}

/// One way to compute over all cases, with a schedule of its own for each.
fn check_all(options: &LoadOptions, name: &str) {
    let cases = cases();
    assert!(cases.len() > 100);
    for (seed, case) in cases.iter().enumerate() {
        check(case, options.clone(), seed as u64, &format!("{case}, {name}"));
    }
}

#[test]
fn sequences_in_f32_equal_each_alone() {
    check_all(&exact(), "exact");
}

#[test]
fn sequences_with_rounded_activations_equal_each_alone() {
    check_all(&LoadOptions::default(), "rounded");
}

#[test]
fn sequences_in_caches_of_bytes_equal_each_alone() {
    let options = LoadOptions {
        cache: Some(CacheType::Int8),
        ..LoadOptions::default()
    };
    check_all(&options, "int8");
}

#[test]
fn sequences_in_f32_over_a_rounded_cache_equal_each_alone() {
    let options = LoadOptions {
        cache: Some(CacheType::Float16),
        ..exact()
    };
    check_all(&options, "f16");
}
