//! The largest logit: ties, infinities and NaN included.

use planish_kernels::launch::{Argmax, Launch, NO_TOKEN, settings_of};
use planish_ops::Choice;

use crate::data::{Random, TYPES, to_bytes};
use crate::device::{Device, Watch};
use crate::places::{bytes_of, words_of};

fn problems() -> Vec<Argmax> {
    let shapes = [1, 255, 33_000].into_iter().zip(TYPES);
    shapes.map(|(cols, value)| Argmax { value, rows: 3, cols }).collect()
}

/// What these tests run.
pub fn launches() -> Vec<Launch> {
    let problems = problems().into_iter();
    problems
        .flat_map(|problem| [problem.parts(), problem.tokens()])
        .collect()
}

/// Of the sequences of three rows.
const SLOTS: [u32; 3] = [4, 0, 2];

fn settings() -> Vec<u8> {
    bytes_of(&SLOTS.map(|slot| settings_of(slot, Choice::Likeliest)).concat())
}

fn check(device: &Device, random: &mut Random, problem: &Argmax) {
    let cols = problem.cols as usize;
    let mut logits = random.values(3 * cols, problem.value);
    // A tie at the top of row 1, with NaN beside it; nothing but NaN in row 2.
    let places = [cols / 3, cols / 2, cols - 1];
    places.iter().for_each(|place| logits[cols + place] = 2.0);
    if cols > 1 {
        logits[cols] = f32::NAN;
    }
    logits[2 * cols..].fill(f32::NAN);

    let parts = vec![0xff; problem.part_bytes()];
    let mut buffers = [to_bytes(&logits, problem.value), parts.clone(), parts];
    device.run(&problem.parts(), &mut buffers);
    let [_, values, indices] = buffers;
    let mut buffers = [values, indices, settings(), vec![7; 12], vec![7; 20]];
    device.run(&problem.tokens(), &mut buffers);

    let first = &logits[..cols];
    let largest = first.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let expected = [
        first.iter().position(|&logit| logit == largest).unwrap_or_default(),
        places[0],
        NO_TOKEN as usize,
    ];
    let found: Vec<usize> = words_of(&buffers[3]).into_iter().map(|token| token as usize).collect();
    assert_eq!(found, expected, "{problem:?}");
    let of_slots = words_of(&buffers[4]);
    for slot in 0..5 {
        let row = SLOTS.iter().position(|&other| other == slot);
        let expected = row.map_or(0x0707_0707, |row| expected[row] as u32);
        assert_eq!(of_slots[slot as usize], expected, "slot {slot} of {problem:?}");
    }
}

#[test]
fn argmax_finds_the_first_of_the_largest() {
    let device = Device::new(&launches(), Watch::Memory);
    let mut random = Random(11);
    problems()
        .iter()
        .for_each(|problem| check(&device, &mut random, problem));
}

/// Four of the parts, and the largest of them: watching each thread is slow.
#[test]
fn argmax_has_no_races() {
    let device = Device::new(&launches(), Watch::Races);
    let problem = problems()[1];
    let logits = Random(11).values(3 * problem.cols as usize, problem.value);
    let parts = vec![0; problem.part_bytes()];
    let mut buffers = [to_bytes(&logits, problem.value), parts.clone(), parts];
    let mut launch = problem.parts();
    launch.threadgroups[1] = 4;
    device.run(&launch, &mut buffers);
    let [_, values, indices] = buffers;
    device.run(
        &problem.tokens(),
        &mut [values, indices, settings(), vec![0xff; 12], vec![0xff; 20]],
    );
}
