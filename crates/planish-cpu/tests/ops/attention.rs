//! Attention on the CPU against its scalar reference in f64: every variant, odd sizes, several threads, every instruction set.

use crate::common::{close, ops, places, random, read, span, tensor};
use half::bf16;
use planish_cpu::{Cpu, CpuOps, KeyValues, Precision, instruction_sets};
use planish_ops::*;

/// One test of attention.
#[derive(Clone, Copy, Debug)]
struct Case {
    before: usize,
    rows: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    value_dim: usize,
    window: Option<usize>,
    softcap: Option<f32>,
    alibi: Option<AlibiRule>,
    sinks: bool,
}

/// Full attention of heads of one size.
fn case(before: usize, rows: usize, (heads, kv_heads): (usize, usize), head_dim: usize) -> Case {
    Case {
        before,
        rows,
        heads,
        kv_heads,
        head_dim,
        value_dim: head_dim,
        window: None,
        softcap: None,
        alibi: None,
        sinks: false,
    }
}

/// The rows of one head. // (positions, width)
fn of_head(all: &[f32], heads: usize, width: usize, head: usize) -> Vec<f32> {
    let rows = all.chunks_exact(heads * width);
    rows.flat_map(|row| &row[head * width..][..width]).copied().collect()
}

/// What the reference says for all rows and heads. // (rows, heads, value_dim)
fn expected(case: &Case, [queries, keys, values]: [&[f32]; 3], [slopes, sinks]: [&[f32]; 2]) -> Vec<f64> {
    let group = case.heads / case.kv_heads;
    let of_heads: Vec<(Vec<f32>, Vec<f32>)> = (0..case.kv_heads)
        .map(|head| {
            let keys = of_head(keys, case.kv_heads, case.head_dim, head);
            (keys, of_head(values, case.kv_heads, case.value_dim, head))
        })
        .collect();
    let one = |(index, query): (usize, &[f32])| {
        let (row, head) = (index / case.heads, index % case.heads);
        let end = case.before + row + 1;
        let (keys, values) = &of_heads[head / group];
        attention_reference(&AttentionHead {
            query,
            keys,
            values,
            seen: case.window.map_or(0, |window| end.saturating_sub(window))..end,
            scale: scale(case),
            softcap: case.softcap,
            alibi: case.alibi.map(|rule| (slopes[head], rule)),
            sink: case.sinks.then_some(sinks[head]),
        })
    };
    queries.chunks_exact(case.head_dim).enumerate().flat_map(one).collect()
}

fn scale(case: &Case) -> f32 {
    (case.head_dim as f32).powf(-0.5)
}

/// The numbers that attention is given.
#[derive(Clone, Copy)]
enum Inputs {
    /// As random as they come.
    Any,
    /// Those that bf16 holds exactly, so that only the rounding on the way is seen.
    Bf16,
    /// Keys and values that a cache of bytes holds: multiples of the largest of a head / 127. Queries that bf16 holds.
    Bytes,
}

/// The multiples of the largest / 127 that are nearest, for each head of each position.
fn to_bytes(numbers: &[f32], head_dim: usize) -> Vec<f32> {
    let heads = numbers.chunks_exact(head_dim).flat_map(|head| {
        let step = head.iter().fold(0.0f32, |largest, number| largest.max(number.abs())) / 127.0;
        head.iter().map(move |number| (number / step).round() * step)
    });
    heads.collect()
}

/// Appends all positions, attends with the last `rows`, and compares.
fn check(case: &Case, ops: CpuOps, inputs: Inputs, tolerance: f64) {
    let positions = case.before + case.rows;
    let (key_cols, value_cols) = (case.kv_heads * case.head_dim, case.kv_heads * case.value_dim);
    let (keys, values) = (
        random(1, positions * key_cols, 1.0),
        random(2, positions * value_cols, 1.0),
    );
    let queries = random(3, case.rows * case.heads * case.head_dim, 1.0);
    let to_bf16 = |numbers: Vec<f32>| numbers.iter().map(|&number| bf16::from_f32(number).to_f32()).collect();
    let [keys, values, queries] = match inputs {
        Inputs::Any => [keys, values, queries],
        Inputs::Bf16 => [keys, values, queries].map(to_bf16),
        Inputs::Bytes => [
            to_bytes(&keys, case.head_dim),
            to_bytes(&values, case.value_dim),
            to_bf16(queries),
        ],
    };
    let (slopes, sinks) = (random(4, case.heads, 0.02), random(5, case.heads, 2.0));
    let mut key_values = ops
        .key_values(KeyValueSizes {
            heads: case.kv_heads,
            head_dim: case.head_dim,
            value_dim: case.value_dim,
            window: case.window,
        })
        .unwrap();
    for (first, count) in [(0, case.before), (case.before, case.rows)] {
        if count == 0 {
            continue;
        }
        let part = |all: &[f32], cols: usize| tensor(&ops, count, cols, &all[first * cols..][..count * cols]);
        ops.append(Append {
            rotation: None,
            places: places(&span(count, first)),
            keys: &mut part(&keys, key_cols),
            values: &part(&values, value_cols),
            key_values: &mut key_values,
        })
        .unwrap();
    }
    let (on_device_slopes, on_device_sinks) = (ops.vector(&slopes).unwrap(), ops.vector(&sinks).unwrap());
    let mut output = ops.tensor(case.rows, case.heads * case.value_dim).unwrap();
    ops.attention(Attention {
        places: places(&span(case.rows, case.before)),
        queries: &tensor(&ops, case.rows, case.heads * case.head_dim, &queries),
        heads: case.heads,
        scale: scale(case),
        temperature_tuning: None,
        window: case.window,
        softcap: case.softcap,
        alibi: case.alibi.map(|rule| Alibi {
            slopes: &on_device_slopes,
            rule,
        }),
        sinks: case.sinks.then_some(&on_device_sinks),
        key_values: &key_values,
        output: &mut output,
    });
    let expected = expected(case, [&queries, &keys, &values], [&slopes, &sinks]);
    close(&read(&ops, &output, case.rows), &expected, tolerance);
}

fn check_all(cases: &[Case]) {
    for case in cases {
        for threads in [1, 2, 5] {
            check(case, ops(threads, Precision::Exact), Inputs::Any, 3e-6);
            for instructions in instruction_sets() {
                let cpu = Cpu::with_instructions(threads, Some(instructions)).unwrap();
                // Many rows are rounded to bf16 there: queries once scaled, and probabilities.
                let many = case.rows * (case.heads / case.kv_heads) >= 16;
                let (inputs, tolerance) = match many && matches!(instructions, "amx" | "avx512vnni") {
                    true => (Inputs::Bf16, 5e-3),
                    false => (Inputs::Any, 1e-3),
                };
                check(case, CpuOps::new(cpu, Precision::Rounded), inputs, tolerance);
                let cpu = Cpu::with_instructions(threads, Some(instructions)).unwrap();
                let ops = CpuOps::new(cpu, Precision::Rounded).with_cache(CacheType::Int8);
                check(
                    case,
                    ops,
                    Inputs::Bytes,
                    if tolerance > 1e-3 { tolerance } else { 1e-5 },
                );
            }
        }
    }
}

fn with_window(window: usize, case: Case) -> Case {
    let window = Some(window);
    Case { window, ..case }
}

#[test]
fn attention_of_every_shape() {
    check_all(&[
        case(0, 1, (9, 3), 64),
        case(0, 63, (4, 4), 16),
        case(0, 130, (9, 3), 64),
        case(64, 64, (8, 1), 80),
        case(1000, 1, (9, 3), 64),
        case(5000, 1, (32, 8), 128),
        with_window(4000, case(5000, 1, (2, 1), 10)),
        with_window(7, case(300, 1, (4, 2), 64)),
        with_window(65, case(200, 150, (6, 2), 24)),
        with_window(1, case(0, 200, (71, 1), 8)),
        case(127, 3, (3, 3), 33),
    ]);
}

/// A few rows, many rows, one row over a long sequence that several threads split.
fn shapes() -> [Case; 4] {
    [
        case(0, 5, (4, 2), 24),
        case(70, 130, (6, 2), 32),
        case(5000, 1, (8, 2), 64),
        with_window(100, case(3000, 2, (8, 8), 40)),
    ]
}

#[test]
fn values_shorter_and_longer_than_keys() {
    for value_dim in [7, 56] {
        check_all(&shapes().map(|case| Case { value_dim, ..case }));
    }
}

#[test]
fn capped_scores() {
    let softcap = Some(1.5);
    check_all(&shapes().map(|case| Case { softcap, ..case }));
}

#[test]
fn linear_biases_of_positions() {
    for rounded in [true, false] {
        let alibi = Some(AlibiRule { factor: 0.25, rounded });
        check_all(&shapes().map(|case| Case { alibi, ..case }));
    }
}

#[test]
fn sinks_take_part_in_the_softmax() {
    check_all(&shapes().map(|case| Case { sinks: true, ..case }));
}

/// The sequence in pieces; positions that no row sees any more are freed on the way.
#[test]
fn windows_free_what_lies_outside() {
    let (heads, head_dim, window, piece, pieces) = (2, 16, 50, 300, 12);
    let (ops, cols) = (ops(2, Precision::Exact), heads * head_dim);
    let sizes = |window| KeyValueSizes {
        heads,
        head_dim,
        value_dim: head_dim,
        window,
    };
    let positions = piece * pieces;
    let [queries, keys, values] = [1, 2, 3].map(|seed| random(seed, positions * cols, 1.0));
    let attend = |key_values: &mut <CpuOps as Ops>::KeyValues, first_position: usize| {
        let part = |all: &[f32]| tensor(&ops, piece, cols, &all[first_position * cols..][..piece * cols]);
        ops.append(Append {
            rotation: None,
            places: places(&span(piece, first_position)),
            keys: &mut part(&keys),
            values: &part(&values),
            key_values: &mut *key_values,
        })
        .unwrap();
        let mut output = ops.tensor(piece, cols).unwrap();
        ops.attention(Attention {
            places: places(&span(piece, first_position)),
            queries: &part(&queries),
            heads,
            scale: 0.25,
            temperature_tuning: None,
            window: Some(window),
            softcap: None,
            alibi: None,
            sinks: None,
            key_values,
            output: &mut output,
        });
        read(&ops, &output, piece)
    };
    let mut all = ops.key_values(sizes(None)).unwrap();
    let mut some = ops.key_values(sizes(Some(window))).unwrap();
    for first_position in (0..positions).step_by(piece) {
        assert_eq!(attend(&mut some, first_position), attend(&mut all, first_position));
    }
    let bytes_of = |positions: usize| positions * 2 * cols * 4;
    assert_eq!(all.bytes(0), bytes_of(positions.next_multiple_of(64)));
    assert!(
        some.bytes(0) <= bytes_of(REWIND + window + piece + 2 * 64),
        "{}",
        some.bytes(0)
    );
    // Back by as much as is promised, and back to the start.
    for first_position in [positions - piece - REWIND, 0, piece] {
        assert_eq!(attend(&mut some, first_position), attend(&mut all, first_position));
    }
}

/// Blocks are used again, and what was in them may be no number: nothing of it reaches a sequence that has not written there.
#[test]
fn nothing_of_an_earlier_sequence() {
    const ROWS: usize = 40;
    let (heads, head_dim) = (4, 64);
    let cols = heads * head_dim;
    let attend = |ops: &CpuOps, earlier: Option<f32>| {
        let sizes = KeyValueSizes {
            heads,
            head_dim,
            value_dim: head_dim,
            window: None,
        };
        let mut key_values = ops.key_values(sizes).unwrap();
        let span = |slot: usize, rows: usize| Span {
            slot,
            first_row: 0,
            rows,
            first_position: 0,
        };
        let append = |key_values: &mut KeyValues, span: Span, keys: &[f32], values: &[f32]| {
            let spans = [span];
            let problem = Append {
                rotation: None,
                places: places(&spans),
                keys: &mut tensor(ops, span.rows, cols, keys),
                values: &tensor(ops, span.rows, cols, values),
                key_values,
            };
            ops.append(problem).unwrap();
        };
        if let Some(value) = earlier {
            let keys = random(1, 64 * cols, 1.0);
            append(&mut key_values, span(0, 64), &keys, &vec![value; 64 * cols]);
            key_values.clear(0);
        }
        let [queries, keys, values] = [2, 3, 4].map(|seed| random(seed, ROWS * cols, 1.0));
        let spans = [span(1, ROWS)];
        append(&mut key_values, spans[0], &keys, &values);
        let mut output = ops.tensor(ROWS, cols).unwrap();
        ops.attention(Attention {
            places: places(&spans),
            queries: &tensor(ops, ROWS, cols, &queries),
            heads,
            scale: 0.125,
            window: None,
            softcap: None,
            alibi: None,
            sinks: None,
            temperature_tuning: None,
            key_values: &key_values,
            output: &mut output,
        });
        read(ops, &output, ROWS)
    };
    for set in instruction_sets() {
        for cache in [CacheType::Float32, CacheType::Float16, CacheType::Int8] {
            let cpu = Cpu::with_instructions(2, Some(set)).unwrap();
            let ops = CpuOps::new(cpu, Precision::Rounded).with_cache(cache);
            let alone = attend(&ops, None);
            assert!(alone.iter().all(|value| value.is_finite()));
            // The last is infinite in f16.
            for earlier in [f32::NAN, f32::INFINITY, 7e4] {
                assert!(attend(&ops, Some(earlier)) == alone, "{set} {cache:?} after {earlier}");
            }
        }
    }
}
