//! One row: weights (cols) <-> codes (cols * bits / 8 bytes), scales and biases (cols / group).
//!
//! Everything here is inlined into the functions of the instruction table, which compile it for their target features.
//! `HALVES` says whether the machine converts f16 (see float.rs).

use crate::affine::{Affine, encode_group, fit};
use crate::bits::{pack, unpack};
use crate::float::{narrow, widen};
use crate::matrix::PackedRow;
use crate::search::{Group, SearchScratch, Weighting, search};
use crate::{Encoder, FloatType, Packing, Rule};

/// A row to encode.
pub(crate) struct EncodeRow<'a> {
    pub packing: Packing,
    pub rule: Rule<'a>,
    pub source_type: FloatType,
    pub scale_type: FloatType,
    /// The weights. // (cols) of `source_type`
    pub source: &'a [u8],
    /// Filled in. // (cols * bits / 8)
    pub codes: &'a mut [u8],
    /// Filled in. // (cols / group) of `scale_type`
    pub scales: &'a mut [u8],
    /// Filled in. // (cols / group) of `scale_type`
    pub biases: &'a mut [u8],
    pub scratch: &'a mut EncodeScratch,
}

/// Room for a row, used again for every row.
pub(crate) struct EncodeScratch {
    weights: Vec<f32>, // (cols)
    codes: Vec<u8>,    // (cols)
    scales: Vec<f32>,  // (cols / group)
    biases: Vec<f32>,  // (cols / group)
    group: SearchScratch,
}

impl EncodeScratch {
    pub(crate) fn new(cols: usize, groups: usize) -> EncodeScratch {
        EncodeScratch {
            weights: vec![0.0; cols],
            codes: vec![0; cols],
            scales: vec![0.0; groups],
            biases: vec![0.0; groups],
            group: SearchScratch::new(cols / groups.max(1)),
        }
    }
}

/// A row to decode.
pub(crate) struct DecodeRow<'a> {
    pub packed: PackedRow<'a>,
    /// Room for the codes, one a byte. // (cols)
    pub codes: &'a mut [u8],
    /// Filled in. // (cols)
    pub weights: &'a mut [f32],
}

/// Fills in codes, scales and biases. False if a weight is NaN or infinite.
#[inline(always)]
pub(crate) fn encode_row<const HALVES: bool>(row: &mut EncodeRow) -> bool {
    let bits = row.packing.bits();
    widen::<HALVES>(row.source_type, row.source, &mut row.scratch.weights);
    match row.rule {
        Rule::Encoder(encoder @ (Encoder::Transformers | Encoder::MlxCpu)) => encode_groups::<false>(row, encoder),
        Rule::Encoder(encoder @ Encoder::MlxMetal) => encode_groups::<true>(row, encoder),
        Rule::Search { importance } => search_groups(row, importance),
    }
    pack(&row.scratch.codes, bits, row.codes);
    narrow::<HALVES>(row.scale_type, &row.scratch.scales, row.scales);
    narrow::<HALVES>(row.scale_type, &row.scratch.biases, row.biases);
    all_finite(&row.scratch.weights)
}

/// Scales, biases and codes, one a byte, in the scratch room.
#[inline(always)]
fn encode_groups<const TIES_AWAY: bool>(row: &mut EncodeRow, encoder: Encoder) {
    let levels = ((1u32 << row.packing.bits()) - 1) as f32;
    let group = row.packing.group();
    let EncodeScratch {
        weights,
        codes,
        scales,
        biases,
        ..
    } = &mut *row.scratch;
    let affines = scales.iter_mut().zip(biases);
    for ((weights, codes), (scale, bias)) in weights
        .chunks_exact(group)
        .zip(codes.chunks_exact_mut(group))
        .zip(affines)
    {
        let affine = fit(encoder, levels, weights);
        encode_group::<TIES_AWAY>(levels, affine, weights, codes);
        (*scale, *bias) = (affine.scale, affine.bias);
    }
}

/// As [`encode_groups`], by search.
#[inline(always)]
fn search_groups(row: &mut EncodeRow, importance: Option<&[f32]>) {
    let size = row.packing.group();
    let EncodeScratch {
        weights,
        codes,
        scales,
        biases,
        group: scratch,
    } = &mut *row.scratch;
    let groups = weights.chunks_exact(size).zip(codes.chunks_exact_mut(size));
    for (index, ((weights, codes), (scale, bias))) in groups.zip(scales.iter_mut().zip(biases)).enumerate() {
        let group = Group {
            bits: row.packing.bits(),
            scale_type: row.scale_type,
            weights,
            weighting: Weighting::Size(importance.map(|columns| &columns[index * size..][..size])),
        };
        let affine = search(&group, scratch, codes);
        (*scale, *bias) = (affine.scale, affine.bias);
    }
}

/// Without an early exit, so that it is vectorized.
#[inline(always)]
pub(crate) fn all_finite(weights: &[f32]) -> bool {
    let largest = weights
        .iter()
        .fold(0, |largest, weight| largest.max(weight.to_bits() & 0x7fff_ffff));
    largest < f32::INFINITY.to_bits()
}

/// Fills in the weights: `scale * code + bias` in `f32`, not fused.
#[inline(always)]
pub(crate) fn decode_row<const HALVES: bool>(row: &mut DecodeRow) {
    let PackedRow {
        packing,
        scale_type,
        codes,
        scales,
        biases,
    } = row.packed;
    unpack(codes, packing.bits(), row.codes);
    let group = packing.group();
    let size = scale_type.size_bytes();
    let affines = scales.chunks_exact(size).zip(biases.chunks_exact(size));
    let groups = row.weights.chunks_exact_mut(group).zip(row.codes.chunks_exact(group));
    for ((weights, codes), (scale, bias)) in groups.zip(affines) {
        let affine = Affine {
            scale: one::<HALVES>(scale_type, scale),
            bias: one::<HALVES>(scale_type, bias),
        };
        for (weight, code) in weights.iter_mut().zip(codes) {
            *weight = f32::from(*code) * affine.scale + affine.bias;
        }
    }
}

/// One value of a type.
#[inline(always)]
fn one<const HALVES: bool>(float_type: FloatType, bytes: &[u8]) -> f32 {
    let mut value = [0.0];
    widen::<HALVES>(float_type, bytes, &mut value);
    value[0]
}
