//! Tokens drawn by their probability, against the formula in f64.

use planish_format::FloatType;
use planish_kernels::launch::{Argmax, Choose, Launch, NO_TOKEN, settings_of};
use planish_ops::{Choice, Draw, choose_reference};

use crate::data::{Random, to_bytes};
use crate::device::{Device, Watch};
use crate::places::{bytes_of, words_of};

const PLAIN: Draw = Draw {
    temperature: 1.0,
    top_k: 0,
    top_p: 1.0,
    min_p: 0.0,
    unit: 0.0,
};

fn draws() -> Vec<Draw> {
    vec![
        PLAIN,
        Draw {
            temperature: 0.7,
            top_k: 5,
            ..PLAIN
        },
        Draw { top_p: 0.8, ..PLAIN },
        Draw { min_p: 0.2, ..PLAIN },
        Draw {
            temperature: 1.5,
            top_k: 40,
            top_p: 0.9,
            min_p: 0.01,
            ..PLAIN
        },
        Draw {
            top_k: 1,
            top_p: 0.0,
            ..PLAIN
        },
    ]
}

fn largest(choose: &Choose) -> Argmax {
    Argmax {
        value: FloatType::F32,
        rows: choose.rows,
        cols: choose.cols,
    }
}

/// What these tests run.
pub fn launches() -> Vec<Launch> {
    let choose = Choose { rows: 1, cols: 700 };
    let mut launches = vec![largest(&choose).parts(), choose.weigh(), choose.tokens()];
    for search in choose.searches(draws().iter()) {
        launches.extend(choose.search(search));
        launches.push(choose.settle(search));
    }
    launches
}

/// How much of a draw is run.
#[derive(Clone, Copy)]
struct Share {
    /// Of each threshold.
    digits: usize,
    /// Parts of the logits, each a threadgroup's. Without the others' sums any token may be drawn.
    parts: u32,
}

const WHOLE: Share = Share {
    digits: usize::MAX,
    parts: u32::MAX,
};

impl Share {
    fn of(self, mut launch: Launch) -> Launch {
        launch.threadgroups[0] = launch.threadgroups[0].min(self.parts);
        if launch.kernel == "argmax_parts" {
            launch.threadgroups[1] = launch.threadgroups[1].min(self.parts);
        }
        launch
    }
}

/// Runs a launch on some of the buffers.
fn run(device: &Device, launch: &Launch, all: &mut [Vec<u8>], which: &[usize]) {
    let mut buffers: Vec<Vec<u8>> = which.iter().map(|&index| all[index].clone()).collect();
    device.run(launch, &mut buffers);
    which
        .iter()
        .zip(buffers)
        .for_each(|(&index, buffer)| all[index] = buffer);
}

/// What stands where nothing is drawn.
const UNTOUCHED: u32 = 0x0707_0707;

/// The tokens that the kernels draw: of rows, each of which has a slot.
fn draw(device: &Device, choose: &Choose, logits: &[f32], choices: &[Choice], share: Share) -> Vec<u32> {
    let parts = largest(choose);
    let rows = choose.rows as usize;
    assert_eq!(rows, choices.len());
    let fill = if share.parts == u32::MAX { 0xff } else { 0 };
    let sums = || vec![fill; choose.sum_bytes()];
    let found = || vec![0; choose.found_bytes()];
    let slot = |row: usize| (rows - row) as u32;
    let settings: Vec<u32> = (0..rows).flat_map(|row| settings_of(slot(row), choices[row])).collect();
    // Logits, largest, their indices, thresholds (3), sums and findings of two searches, tokens of rows and of slots, settings.
    let mut all = vec![
        to_bytes(logits, FloatType::F32),
        vec![fill; parts.part_bytes()],
        vec![fill; parts.part_bytes()],
        found(),
        found(),
        found(),
        sums(),
        found(),
        sums(),
        found(),
        vec![7; 4 * rows],
        vec![7; 4 * (rows + 1)],
        bytes_of(&settings),
    ];
    let draws: Vec<Draw> = choices.iter().filter_map(|choice| drawn(*choice)).collect();
    run(device, &share.of(parts.parts()), &mut all, &[0, 1, 2]);
    let (mut before, mut next, mut floor) = ([6, 7], [8, 9], 3);
    for search in choose.searches(draws.iter()) {
        for launch in choose.search(search).take(share.digits) {
            run(
                device,
                &share.of(launch),
                &mut all,
                &[0, 1, 12, floor, before[0], before[1], next[0], next[1]],
            );
            std::mem::swap(&mut before, &mut next);
        }
        run(
            device,
            &choose.settle(search),
            &mut all,
            &[12, before[0], before[1], floor, floor + 1],
        );
        floor += 1;
    }
    run(
        device,
        &share.of(choose.weigh()),
        &mut all,
        &[0, 1, 12, floor, before[0]],
    );
    run(
        device,
        &choose.tokens(),
        &mut all,
        &[0, 1, 12, floor, before[0], 10, 11],
    );
    let (tokens, of_slots) = (words_of(&all[10]), words_of(&all[11]));
    assert_eq!(of_slots[0], UNTOUCHED, "no row has this slot");
    for (row, &token) in tokens.iter().enumerate() {
        assert_eq!(of_slots[slot(row) as usize], token, "row {row}");
    }
    tokens
}

fn drawn(choice: Choice) -> Option<Draw> {
    match choice {
        Choice::Drawn(draw) => Some(draw),
        Choice::Likeliest => None,
    }
}

/// Where a unit lies between the sums of two tokens, rounding to f32 cannot matter. All rows are drawn together, beside one that is not.
fn check(device: &Device, random: &mut Random, draws: &[Draw], cols: u32) {
    let rows = draws.len() + 1;
    let mut logits: Vec<f32> = (0..rows * cols as usize).map(|_| 6.0 * random.value()).collect();
    // Equals at the top, and what is no number.
    for logits in logits.chunks_exact_mut(cols as usize).filter(|row| row.len() > 100) {
        (logits[17], logits[90], logits[91]) = (6.5, 6.5, f32::NAN);
        (logits[5], logits[6]) = (f32::NEG_INFINITY, 6.4);
    }
    let choose = Choose {
        rows: rows as u32,
        cols,
    };
    let mut same = vec![0; draws.len()];
    let units = [0.31, 0.999_999_9];
    for unit in units {
        let at_unit = draws.iter().map(|draw| Choice::Drawn(Draw { unit, ..*draw }));
        let choices: Vec<Choice> = [Choice::Likeliest].into_iter().chain(at_unit).collect();
        let tokens = draw(device, &choose, &logits, &choices, WHOLE);
        assert_eq!(tokens[0], UNTOUCHED, "the likeliest is chosen by another kernel");
        let of_rows = logits.chunks_exact(cols as usize).skip(1).zip(&tokens[1..]);
        for (row, ((logits, &found), draw)) in of_rows.zip(draws).enumerate() {
            let near = [unit - 2e-6, unit, unit + 2e-6]
                .map(|unit| choose_reference(logits, &Draw { unit, ..*draw }).map_or(NO_TOKEN, |token| token as u32));
            assert!(near.contains(&found), "{found} is none of {near:?}: {draw:?} {unit}");
            same[row] += usize::from(near[1] == found);
        }
    }
    for (draw, same) in draws.iter().zip(same) {
        assert!(same > 0, "no token is exactly that of the formula: {draw:?}");
    }
}

#[test]
fn draws_equal_the_formula() {
    let device = Device::new(&launches(), Watch::Memory);
    let mut random = Random(21);
    check(&device, &mut random, &draws(), 700);
    check(&device, &mut random, &draws()[2..3], 3);
    check(&device, &mut random, &draws()[4..5], 20_011);
}

/// A row is drawn as it is alone, bit for bit.
#[test]
fn a_row_is_drawn_as_it_is_alone() {
    const COLS: usize = 700;
    let device = Device::new(&launches(), Watch::Memory);
    let mut random = Random(23);
    let choices: Vec<Choice> = draws()
        .into_iter()
        .map(|draw| {
            let unit = f64::from(random.value()).abs();
            Choice::Drawn(Draw { unit, ..draw })
        })
        .collect();
    let logits: Vec<f32> = (0..choices.len() * COLS).map(|_| 6.0 * random.value()).collect();
    let choose = |rows: usize| Choose {
        rows: rows as u32,
        cols: COLS as u32,
    };
    let together = draw(&device, &choose(choices.len()), &logits, &choices, WHOLE);
    for (row, logits) in logits.chunks_exact(COLS).enumerate() {
        let alone = draw(&device, &choose(1), logits, &choices[row..=row], WHOLE);
        assert_eq!(together[row], alone[0], "{:?}", choices[row]);
    }
}

#[test]
fn without_a_number_there_is_no_token() {
    let device = Device::new(&launches(), Watch::Memory);
    let choose = Choose { rows: 1, cols: 70 };
    let choices = [Choice::Drawn(draws()[4])];
    for logit in [f32::NAN, f32::NEG_INFINITY] {
        assert_eq!(draw(&device, &choose, &[logit; 70], &choices, WHOLE), [NO_TOKEN]);
    }
}

/// All digits but the first are searched by the same code, and all parts: two of 8 and four of 64 show its races. Watching each
/// thread is slow.
#[test]
fn draws_have_no_races() {
    let device = Device::new(&launches(), Watch::Races);
    let mut random = Random(22);
    let logits: Vec<f32> = (0..700).map(|_| 6.0 * random.value()).collect();
    let choice = Choice::Drawn(Draw {
        unit: 0.31,
        ..draws()[4]
    });
    let choose = Choose { rows: 1, cols: 700 };
    let tokens = draw(&device, &choose, &logits, &[choice], Share { digits: 2, parts: 4 });
    assert!(tokens[0] < 700, "{} is none", tokens[0]);
}
