//! Several sequences at once: whatever the schedule of pieces, steps, forks, cuts and drops, every sequence gives what it gives
//! alone, bit for bit, and a prompt what it gives in one piece. On every golden family, in f32 and with rounded activations, for every
//! type of cache.

mod common;
#[path = "common/schedule.rs"]
mod schedule;

use common::{exact, folder, load};
use planish_model::{Cache, CacheType, Chunk, Input, LoadOptions, Model, Want};
use schedule::{Event, Random, schedule};

/// Calls of a schedule.
const CALLS: usize = 24;
/// Positions of a sequence: more than two blocks of keys and values.
const POSITIONS: usize = 150;

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

/// Reads a prompt in pieces that end where `ends` says, then some tokens one by one or in chunks of `steps`; logits after each chunk.
fn read(model: &mut Model, prompt: &[u32], ends: &[usize], after: &[u32], steps: usize) -> Vec<Vec<f32>> {
    let mut cache = model.cache(prompt.len() + after.len());
    model.announce_length(&mut cache, prompt.len());
    let mut found = Vec::new();
    let mut run = |cache: &mut Cache, tokens: &[u32], whole: usize, want: Want<'_>| {
        let input = Input::Piece { tokens, whole };
        let ticket = model.run(&mut [Chunk { cache, input, want }], &mut |row| {
            found.push(row.logits.to_vec());
        });
        assert!(ticket.unwrap().is_none());
    };
    let mut first = 0;
    for &end in ends {
        let want = if end == prompt.len() {
            Want::Logits
        } else {
            Want::Nothing
        };
        run(&mut cache, &prompt[first..end], prompt.len(), want);
        first = end;
    }
    for tokens in after.chunks(steps) {
        run(&mut cache, tokens, 1, Want::Logits);
    }
    found
}

/// A prompt of `length` tokens whole and in pieces, some of them of one token, and what follows step by step and together.
fn cut(model: &mut Model, length: usize, steps: usize, random: &mut Random, name: &str) {
    // Where frequencies follow the length, steps are rotated for one length each.
    let ropes = &model.architecture().ropes;
    let together = if ropes.iter().any(|rope| rope.depends_on_length()) {
        1
    } else {
        7
    };
    let vocabulary = model.architecture().vocabulary;
    let tokens: Vec<u32> = (0..length + steps).map(|_| random.below(vocabulary) as u32).collect();
    let (prompt, after) = tokens.split_at(length);
    let whole = read(model, prompt, &[length], after, 1);
    assert_eq!(whole.len(), 1 + steps);
    let sizes = [1, 1 + length / 9, 1 + length / 2];
    let mut ends = Vec::new();
    while ends.last() != Some(&length) {
        let most = sizes[random.below(3)];
        let size = 1 + random.below(most);
        ends.push(length.min(ends.last().unwrap_or(&0) + size));
    }
    let pieces = read(model, prompt, &ends, after, together);
    assert_eq!(pieces.len(), 1 + steps.div_ceil(together));
    for (index, found) in pieces.iter().enumerate() {
        let expected = &whole[steps.min(index * together)];
        let same = found.iter().zip(expected).all(|(a, b)| a.to_bits() == b.to_bits());
        let far = found
            .iter()
            .zip(expected)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max);
        assert!(
            same,
            "{name}: {length} tokens cut at {ends:?}: logits {index} differ by {far}"
        );
    }
}

/// Positions that a test of this model may use.
fn capacity(model: &Model) -> usize {
    let architecture = model.architecture();
    let known = architecture
        .embedding
        .positions
        .as_ref()
        .map(|table| table.rows - table.offset);
    POSITIONS.min(architecture.context).min(known.unwrap_or(POSITIONS))
}

fn check(case: &str, options: LoadOptions, seed: u64, name: &str) {
    let mut model = load(case, options);
    let capacity = capacity(&model);
    let mut random = Random::new(seed);
    // As many tokens as are computed as steps are, and more.
    let steps = 20.min(capacity / 3);
    for length in [12.min(capacity - steps), capacity - steps] {
        cut(&mut model, length, steps, &mut random, name);
    }
    let histories = schedule(&mut model, capacity, CALLS, seed);
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
