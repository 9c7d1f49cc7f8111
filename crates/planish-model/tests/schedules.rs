//! Several sequences at once: whatever the schedule of pieces, steps, forks, cuts and drops, every sequence gives what it gives
//! alone, bit for bit. On every golden family, in f32 and with rounded activations, for every type of cache.

mod common;
#[path = "common/schedule.rs"]
mod schedule;

use common::{exact, folder, load};
use planish_model::{CacheType, LoadOptions, Model};
use schedule::{Event, schedule};

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

fn check(case: &str, options: LoadOptions, seed: u64, name: &str) {
    let mut model = load(case, options);
    let architecture = model.architecture();
    let known = architecture
        .embedding
        .positions
        .as_ref()
        .map(|table| table.rows - table.offset);
    let capacity = POSITIONS.min(architecture.context).min(known.unwrap_or(POSITIONS));
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
