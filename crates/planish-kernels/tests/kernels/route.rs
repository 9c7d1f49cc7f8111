//! Routing and sorting by expert.

use planish_format::FloatType;
use planish_kernels::launch::{Launch, Route};
use planish_ops::{ExpertGroups, Routing, Scoring, route_reference};

use crate::data::{Random, TYPES, assert_close, from_bytes, poison, to_bytes};
use crate::device::{Device, Watch};

const TILE: u32 = 32;

pub fn rule(scoring: Scoring, chosen: usize) -> Routing {
    Routing {
        chosen,
        scoring,
        groups: None,
        normalize: None,
        scale: 1.0,
    }
}

/// Every way to score and choose; more and fewer experts than a simdgroup has lanes.
fn problems() -> Vec<Route> {
    let groups = |count, kept, best| Some(ExpertGroups { count, kept, best });
    let rules = [
        (rule(Scoring::Softmax, 2), 8, false),
        (
            Routing {
                normalize: Some(0.0),
                ..rule(Scoring::Softmax, 8)
            },
            60,
            false,
        ),
        (
            Routing {
                groups: groups(4, 2, 1),
                scale: 1.5,
                ..rule(Scoring::Softmax, 3)
            },
            12,
            true,
        ),
        (
            Routing {
                groups: groups(8, 4, 2),
                normalize: Some(1e-20),
                scale: 2.5,
                ..rule(Scoring::Sigmoid, 6)
            },
            96,
            true,
        ),
        (rule(Scoring::SparseMixer { jitter: 0.3 }, 2), 16, false),
        (rule(Scoring::Sigmoid, 33), 40, false),
        (rule(Scoring::SigmoidOfChosen, 3), 20, true),
    ];
    let problems = rules
        .into_iter()
        .enumerate()
        .map(|(index, (rule, experts, corrected))| Route {
            rule,
            value: TYPES[index % 3],
            rows: [7, 33, 1][index % 3],
            experts,
            corrected,
            factors: index % 2 == 1,
            tile: TILE,
        });
    problems.collect()
}

/// What these tests run.
pub fn launches() -> Vec<Launch> {
    let problems = problems();
    problems
        .iter()
        .flat_map(|problem| [problem.launch(), problem.sort()])
        .collect()
}

pub fn words(bytes: &[u8]) -> Vec<u32> {
    bytes
        .as_chunks()
        .0
        .iter()
        .map(|&word| u32::from_le_bytes(word))
        .collect()
}

fn check_choices(device: &Device, random: &mut Random, problem: &Route) {
    let (rows, experts, chosen) = (problem.rows as usize, problem.experts as usize, problem.rule.chosen);
    // Values of 16 bits are often equal, and then the order of a sum decides.
    let logits: Vec<f32> = random.values(rows * experts, problem.value);
    let logits: Vec<f32> = logits.iter().map(|logit| 2.0 * logit).collect();
    let score_correction = match problem.corrected {
        true => random.values(experts, FloatType::F32),
        false => vec![0.0; experts],
    };
    let factors: Vec<f32> = random.values(experts, FloatType::F32);
    let mut buffers = [
        to_bytes(&logits, problem.value),
        to_bytes(&score_correction, FloatType::F32),
        poison(rows * chosen, FloatType::F32),
        poison(rows * chosen, FloatType::F32),
        to_bytes(&factors, FloatType::F32),
    ];
    device.run(&problem.launch(), &mut buffers);
    let (found, weights) = (words(&buffers[2]), from_bytes(&buffers[3], FloatType::F32));
    for (row, logits) in logits.chunks_exact(experts).enumerate() {
        let range = row * chosen..(row + 1) * chosen;
        let expected = route_reference(logits, &score_correction, &problem.rule);
        let expected_experts: Vec<u32> = expected.iter().map(|(expert, _)| *expert as u32).collect();
        assert_eq!(found[range.clone()], expected_experts, "row {row} of {problem:?}");
        let factor = |expert: usize| {
            if problem.factors {
                f64::from(factors[expert])
            } else {
                1.0
            }
        };
        let weighed = expected.iter().map(|&(expert, weight)| weight * factor(expert));
        let expected: Vec<f64> = weighed.collect();
        assert_close(&weights[range], &expected, FloatType::F32, problem);
    }
}

#[test]
fn choices_equal_the_reference() {
    let device = Device::new(&launches(), Watch::Memory);
    let mut random = Random(21);
    problems()
        .iter()
        .for_each(|problem| check_choices(&device, &mut random, problem));
}

/// Every entry is in one tile, of its expert, and tiles without entries say so.
fn check_order(device: &Device, random: &mut Random, problem: &Route) {
    let (entries, experts) = (problem.entries() as usize, problem.experts);
    // Some experts have nothing to do, one has most.
    let chosen: Vec<u32> = (0..entries)
        .map(|_| (random.next() as u32 % experts).min(random.next() as u32 % experts) / 2 * 2)
        .collect();
    let mut buffers = [
        chosen.iter().flat_map(|expert| expert.to_le_bytes()).collect(),
        poison(entries, FloatType::F32),
        poison(3 * problem.tiles() as usize, FloatType::F32),
    ];
    device.run(&problem.sort(), &mut buffers);
    let (order, tiles) = (words(&buffers[1]), words(&buffers[2]));
    let mut next = 0;
    let mut seen = vec![false; entries];
    for tile in tiles.chunks_exact(3) {
        let [expert, first, count] = [tile[0], tile[1], tile[2]];
        assert!(count <= TILE && expert < experts, "{tile:?} of {problem:?}");
        if count == 0 {
            continue;
        }
        assert_eq!(first, next, "{tile:?} of {problem:?}");
        next += count;
        for &entry in &order[first as usize..next as usize] {
            assert_eq!(chosen[entry as usize], expert);
            assert!(!std::mem::replace(&mut seen[entry as usize], true));
        }
    }
    assert_eq!(next as usize, entries);
}

fn check_orders(watch: Watch, problems: &[Route]) {
    let launches: Vec<Launch> = problems.iter().map(Route::sort).collect();
    let device = Device::new(&launches, watch);
    let mut random = Random(22);
    problems
        .iter()
        .for_each(|problem| check_order(&device, &mut random, problem));
}

#[test]
fn entries_are_sorted_by_expert() {
    check_orders(Watch::Memory, &problems());
}

#[test]
fn routing_and_sorting_have_no_races() {
    let problems: Vec<Route> = problems().into_iter().skip(1).step_by(2).collect();
    check_orders(Watch::Races, &problems);
    let launches: Vec<Launch> = problems.iter().map(Route::launch).collect();
    let device = Device::new(&launches, Watch::Races);
    let mut random = Random(23);
    problems
        .iter()
        .for_each(|problem| check_choices(&device, &mut random, problem));
}
