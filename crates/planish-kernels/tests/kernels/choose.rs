//! Tokens drawn by their probability, against the formula in f64.

use planish_format::FloatType;
use planish_kernels::launch::{Argmax, Choose, Launch, NO_TOKEN};
use planish_ops::{Draw, choose_reference};

use crate::data::{Random, to_bytes};
use crate::device::{Device, Watch};

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

fn largest(cols: u32) -> Argmax {
    Argmax {
        value: FloatType::F32,
        rows: 1,
        cols,
    }
}

fn launches_of(choose: &Choose) -> Vec<Launch> {
    let searches = choose.searches();
    let mut launches = vec![largest(choose.cols).parts(), choose.weigh(), choose.token()];
    for search in searches {
        launches.extend(choose.search(search));
        launches.push(choose.settle(search));
    }
    launches
}

/// What these tests run.
pub fn launches() -> Vec<Launch> {
    let draws = draws().into_iter();
    draws
        .flat_map(|draw| launches_of(&Choose { cols: 700, draw }))
        .collect()
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
        launch.threadgroups = launch.threadgroups.map(|count| count.min(self.parts));
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

/// The token that the kernels draw.
fn draw(device: &Device, choose: &Choose, logits: &[f32], share: Share) -> u32 {
    let parts = largest(choose.cols);
    let fill = if share.parts == u32::MAX { 0xff } else { 0 };
    let sums = || vec![fill; Choose::SUM_BYTES];
    let found = || vec![0; Choose::FOUND_BYTES];
    // Logits, largest, their indices, thresholds (3), sums and findings of two searches, the token.
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
        vec![0; 4],
    ];
    run(device, &share.of(parts.parts()), &mut all, &[0, 1, 2]);
    let (mut before, mut next, mut floor) = ([6, 7], [8, 9], 3);
    for search in choose.searches() {
        for launch in choose.search(search).into_iter().take(share.digits) {
            run(
                device,
                &share.of(launch),
                &mut all,
                &[0, 1, floor, before[0], before[1], next[0], next[1]],
            );
            std::mem::swap(&mut before, &mut next);
        }
        run(
            device,
            &choose.settle(search),
            &mut all,
            &[before[0], before[1], floor, floor + 1],
        );
        floor += 1;
    }
    run(device, &share.of(choose.weigh()), &mut all, &[0, 1, floor, before[0]]);
    run(device, &choose.token(), &mut all, &[0, 1, floor, before[0], 10]);
    u32::from_le_bytes(all[10][..].try_into().unwrap())
}

/// Where a unit lies between the sums of two tokens, rounding to f32 cannot matter.
fn check(device: &Device, random: &mut Random, draw_by: Draw, cols: u32) {
    let mut logits: Vec<f32> = (0..cols).map(|_| 6.0 * random.value()).collect();
    // Equals at the top, and what is no number.
    if cols > 100 {
        (logits[17], logits[90], logits[91]) = (6.5, 6.5, f32::NAN);
        (logits[5], logits[6]) = (f32::NEG_INFINITY, 6.4);
    }
    let mut same = 0;
    let units = [0.31, 0.999_999_9];
    for unit in units {
        let choose = Choose {
            cols,
            draw: Draw { unit, ..draw_by },
        };
        let found = draw(device, &choose, &logits, WHOLE);
        let near = [unit - 2e-6, unit, unit + 2e-6]
            .map(|unit| choose_reference(&logits, &Draw { unit, ..draw_by }).map_or(NO_TOKEN, |token| token as u32));
        assert!(near.contains(&found), "{found} is none of {near:?}: {choose:?}");
        same += usize::from(near[1] == found);
    }
    assert!(same > 0, "no token is exactly that of the formula: {draw_by:?}");
}

#[test]
fn draws_equal_the_formula() {
    let device = Device::new(&launches(), Watch::Memory);
    let mut random = Random(21);
    for draw in draws() {
        check(&device, &mut random, draw, 700);
    }
    check(&device, &mut random, draws()[2], 3);
    check(&device, &mut random, draws()[4], 20_011);
}

#[test]
fn without_a_number_there_is_no_token() {
    let device = Device::new(&launches(), Watch::Memory);
    let choose = Choose {
        cols: 70,
        draw: draws()[4],
    };
    assert_eq!(draw(&device, &choose, &[f32::NAN; 70], WHOLE), NO_TOKEN);
    assert_eq!(draw(&device, &choose, &[f32::NEG_INFINITY; 70], WHOLE), NO_TOKEN);
}

/// All digits but the first are searched by the same code, and all parts: two of 8 and four of 64 show its races. Watching each
/// thread is slow.
#[test]
fn draws_have_no_races() {
    let device = Device::new(&launches(), Watch::Races);
    let mut random = Random(22);
    let logits: Vec<f32> = (0..700).map(|_| 6.0 * random.value()).collect();
    let draw_by = Draw {
        unit: 0.31,
        ..draws()[4]
    };
    let choose = Choose {
        cols: 700,
        draw: draw_by,
    };
    let token = draw(&device, &choose, &logits, Share { digits: 2, parts: 4 });
    assert!(token < 700, "{token} is none");
}
