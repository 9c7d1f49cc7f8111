//! Every instruction set that the machine has gives the same bits as the scalar loops.

use crate::instructions::{Loops, loops};
use crate::row::{DecodeRow, EncodeRow, EncodeScratch};
use crate::{Encoder, FloatType, Isa, PackedMatrix, PackedShape, Packing, Rule};

const WIDTHS: [u32; 6] = [2, 3, 4, 5, 6, 8];
const GROUPS: [usize; 5] = [8, 24, 32, 64, 128];
const TYPES: [FloatType; 3] = [FloatType::F32, FloatType::F16, FloatType::BF16];
const ENCODERS: [Encoder; 3] = [Encoder::Transformers, Encoder::MlxCpu, Encoder::MlxMetal];

/// Two groups or more, whole words for every width.
fn cols(group: usize) -> usize {
    group * 4
}

/// Weights of many sizes, ties in rounding, both zeros, and now and then NaN and infinity. // (cols)
fn weights(cols: usize, seed: u64, finite: bool) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u32
    };
    let weight = |random: u32| match random % 41 {
        0..20 => (random >> 8) as f32 / 1e6 - 8.0,
        20..30 => ((random >> 8) % 61) as f32 / 4.0 - 7.5,
        30..36 => f32::from_bits(random & 0x807f_ffff),
        36 => -0.0,
        37 => 0.0,
        38 if !finite => f32::NAN,
        39 if !finite => f32::NEG_INFINITY,
        _ => (random >> 8) as f32 * 1e-12,
    };
    (0..cols).map(|_| weight(next())).collect()
}

/// Every instruction set that the machine has: its name and loops.
fn supported() -> impl Iterator<Item = (&'static str, &'static Loops)> {
    Isa::supported().map(|isa| (isa.name(), loops(isa)))
}

fn scalar() -> &'static Loops {
    loops(Isa::Scalar)
}

struct Encoded {
    codes: Vec<u8>,
    scales: Vec<u8>,
    biases: Vec<u8>,
    finite: bool,
}

fn encode(set: &Loops, rule: Rule, shape: PackedShape, source: &[u8]) -> Encoded {
    let (mut codes, mut scales) = (vec![0; shape.code_row_bytes()], vec![0; shape.scale_row_bytes()]);
    let mut biases = scales.clone();
    let mut row = EncodeRow {
        packing: shape.packing,
        rule,
        source_type: shape.scale_type,
        scale_type: shape.scale_type,
        source,
        codes: &mut codes,
        scales: &mut scales,
        biases: &mut biases,
        scratch: &mut EncodeScratch::new(shape.cols, shape.groups()),
    };
    // SAFETY: the callers only pass supported rows of the table.
    let finite = unsafe { (set.encode_row)(&mut row) };
    Encoded {
        codes,
        scales,
        biases,
        finite,
    }
}

/// The three parts again as bits of weights. // (cols)
fn decode(set: &Loops, shape: PackedShape, encoded: &Encoded) -> Vec<u32> {
    let [codes, scales, biases] = [&encoded.codes, &encoded.scales, &encoded.biases].map(|part| part.clone().into());
    let matrix = PackedMatrix::new(shape, codes, scales, biases).expect("lengths fit");
    let (mut room, mut weights) = (vec![0; shape.cols], vec![0.0; shape.cols]);
    let mut row = DecodeRow {
        packed: matrix.row(0),
        codes: &mut room,
        weights: &mut weights,
    };
    // SAFETY: the callers only pass supported rows of the table.
    unsafe { (set.decode_row)(&mut row) };
    weights.into_iter().map(f32::to_bits).collect()
}

/// Every shape of one row that the tests go through.
fn shapes() -> impl Iterator<Item = PackedShape> {
    let packings = WIDTHS
        .into_iter()
        .flat_map(|bits| GROUPS.map(|group| Packing::new(bits, group).expect("fits")));
    packings.flat_map(|packing| {
        TYPES.map(|float_type| PackedShape::new(1, cols(packing.group()), packing, float_type).expect("fits"))
    })
}

#[test]
fn rows_are_the_same_bits() {
    for shape in shapes() {
        let importance: Vec<f32> = (0..shape.cols).map(|col| (col % 7) as f32).collect();
        let searches = [None, Some(&importance[..])].map(|importance| Rule::Search { importance });
        for (rule, finite) in ENCODERS
            .map(Rule::from)
            .into_iter()
            .chain(searches)
            .flat_map(|rule| [(rule, true), (rule, false)])
        {
            let mut source = vec![0; shape.cols * shape.scale_type.size_bytes()];
            shape
                .scale_type
                .encode(&weights(shape.cols, 7 + shape.cols as u64, finite), &mut source);
            let expected = encode(scalar(), rule, shape, &source);
            let expected_weights = decode(scalar(), shape, &expected);
            for (name, set) in supported() {
                let found = encode(set, rule, shape, &source);
                let case = format!("{name} {rule:?} {shape:?} finite {finite}");
                assert_eq!(found.finite, expected.finite, "{case}");
                if finite {
                    assert_eq!(found.codes, expected.codes, "codes, {case}");
                    assert_eq!(found.scales, expected.scales, "scales, {case}");
                    assert_eq!(found.biases, expected.biases, "biases, {case}");
                    assert_eq!(decode(set, shape, &expected), expected_weights, "weights, {case}");
                }
            }
        }
    }
}

#[test]
fn packing_is_the_same_bits() {
    for (name, set) in supported() {
        for (bits, count) in WIDTHS
            .into_iter()
            .flat_map(|bits| [0, 8, 40, 72, 1000].map(|count| (bits, count)))
        {
            let codes: Vec<u8> = (0..count)
                .map(|index| (index * 37 % 251) as u8 & (255 >> (8 - bits)))
                .collect();
            let [mut found, mut expected] = [0, 1].map(|_| vec![0; count / 8 * bits as usize]);
            let mut unpacked = vec![0; count];
            // SAFETY: the sets are supported.
            unsafe {
                (set.pack)(&codes, bits, &mut found);
                (scalar().pack)(&codes, bits, &mut expected);
                (set.unpack)(&found, bits, &mut unpacked);
            }
            assert_eq!(found, expected, "{name} {bits} bits, {count} codes");
            assert_eq!(unpacked, codes, "{name} {bits} bits, {count} codes");
        }
    }
}

/// All 65,536 patterns widened, and values on both sides of every rounding boundary narrowed, against the half crate.
#[test]
fn conversions_agree_with_the_half_crate() {
    let patterns: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
    let near = |pattern: u16| [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff].map(|low| u32::from(pattern) << 16 | low);
    let values: Vec<f32> = (0..=u16::MAX).flat_map(near).map(f32::from_bits).collect();
    for (name, set) in supported() {
        let mut widened = [0, 1].map(|_| vec![0.0; 65_536]);
        let mut narrowed = [0, 1].map(|_| vec![0; values.len() * 2]);
        // SAFETY: the sets are supported.
        unsafe {
            (set.widen)(FloatType::F16, &patterns, &mut widened[0]);
            (set.widen)(FloatType::BF16, &patterns, &mut widened[1]);
            (set.narrow)(FloatType::F16, &values, &mut narrowed[0]);
            (set.narrow)(FloatType::BF16, &values, &mut narrowed[1]);
        }
        for pattern in 0..=u16::MAX {
            let expected = [
                half::f16::from_bits(pattern).to_f32(),
                half::bf16::from_bits(pattern).to_f32(),
            ];
            let found = [widened[0][usize::from(pattern)], widened[1][usize::from(pattern)]];
            for (found, expected) in found.into_iter().zip(expected) {
                let same = found.to_bits() == expected.to_bits() || (found.is_nan() && expected.is_nan());
                assert!(same, "{name} widens {pattern:#06x} to {found}, not {expected}");
            }
        }
        for (index, &value) in values.iter().enumerate() {
            let expected = [
                half::f16::from_f32(value).to_bits(),
                half::bf16::from_f32(value).to_bits(),
            ];
            let found =
                [0, 1].map(|kind| u16::from_le_bytes([narrowed[kind][index * 2], narrowed[kind][index * 2 + 1]]));
            assert_eq!(found, expected, "{name} narrows {value} ({:#010x})", value.to_bits());
        }
    }
}
