//! Quantizing: plain weights (rows, cols) -> codes, scales and biases, rows spread over the threads of the rayon pool.

use bytes::Bytes;
use rayon::prelude::*;

use crate::affine::{Affine, codes, fit};
use crate::bits::pack8;
use crate::{Encoder, FloatMatrix, FloatType, FormatError, PackedMatrix, PackedShape, Packing};

/// What [`quantize_with`] needs to know besides the weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuantizeOptions {
    /// Bits and group.
    pub packing: Packing,
    /// How codes are chosen.
    pub encoder: Encoder,
    /// Type in which scales and biases are stored; the peers take that of the weights.
    pub scale_type: FloatType,
    /// Take NaN and infinite weights for what they are. What their group decodes to is then not specified.
    pub allow_non_finite: bool,
}

/// Quantizes as the peers do: scales and biases in the type of the weights.
///
/// # Errors
/// If the columns do not hold whole groups or whole words, or a weight is NaN or infinite.
pub fn quantize(source: FloatMatrix, packing: Packing, encoder: Encoder) -> Result<PackedMatrix, FormatError> {
    let scale_type = source.float_type;
    quantize_with(
        source,
        QuantizeOptions {
            packing,
            encoder,
            scale_type,
            allow_non_finite: false,
        },
    )
}

/// Quantizes weights (rows, cols).
///
/// # Errors
/// If the columns do not hold whole groups or whole words, or a weight is NaN or infinite and that is not allowed.
pub fn quantize_with(source: FloatMatrix, options: QuantizeOptions) -> Result<PackedMatrix, FormatError> {
    let shape = PackedShape::new(source.rows, source.cols, options.packing, options.scale_type)?;
    if !options.allow_non_finite
        && let Some((row, col, value)) = first_non_finite(source)
    {
        return Err(FormatError::NonFinite { row, col, value });
    }
    let mut parts = Parts {
        codes: vec![0; shape.code_bytes()],
        scales: vec![0; shape.scale_bytes()],
        biases: vec![0; shape.scale_bytes()],
    };
    if shape.code_bytes() > 0 {
        match options.packing.bits() {
            2 => encode_rows::<2>(source, options, shape, &mut parts),
            3 => encode_rows::<3>(source, options, shape, &mut parts),
            4 => encode_rows::<4>(source, options, shape, &mut parts),
            5 => encode_rows::<5>(source, options, shape, &mut parts),
            6 => encode_rows::<6>(source, options, shape, &mut parts),
            _ => encode_rows::<8>(source, options, shape, &mut parts),
        }
    }
    PackedMatrix::new(
        shape,
        Bytes::from(parts.codes),
        Bytes::from(parts.scales),
        Bytes::from(parts.biases),
    )
}

/// Row, column and value of the first weight, in row order, that is NaN or infinite.
pub fn first_non_finite(source: FloatMatrix) -> Option<(usize, usize, f32)> {
    if source.data.is_empty() {
        return None;
    }
    source
        .data
        .par_chunks(source.row_bytes())
        .enumerate()
        .find_map_first(|(row, bytes)| {
            let mut weights = vec![0.0; source.cols];
            source.float_type.decode(bytes, &mut weights);
            let col = weights.iter().position(|weight| !weight.is_finite())?;
            Some((row, col, weights[col]))
        })
}

/// The three parts of a packed matrix while they are filled. // shapes as in [`PackedMatrix`]
struct Parts {
    codes: Vec<u8>,
    scales: Vec<u8>,
    biases: Vec<u8>,
}

fn encode_rows<const BITS: usize>(
    source: FloatMatrix,
    options: QuantizeOptions,
    shape: PackedShape,
    parts: &mut Parts,
) {
    let rows = source.data.par_chunks(source.row_bytes());
    let codes = parts.codes.par_chunks_mut(shape.code_row_bytes());
    let scales = parts.scales.par_chunks_mut(shape.scale_row_bytes());
    let biases = parts.biases.par_chunks_mut(shape.scale_row_bytes());
    rows.zip(codes).zip(scales.zip(biases)).for_each_init(
        || {
            (
                vec![0.0; source.cols],
                vec![0.0; shape.groups()],
                vec![0.0; shape.groups()],
            )
        },
        |(weights, row_scales, row_biases), ((bytes, codes), (scales, biases))| {
            source.float_type.decode(bytes, weights);
            let groups = weights.chunks_exact(options.packing.group());
            let code_groups = codes.chunks_exact_mut(options.packing.group() / 8 * BITS);
            for (group, (weights, codes)) in groups.zip(code_groups).enumerate() {
                let affine = encode_group::<BITS>(options.encoder, weights, codes);
                row_scales[group] = affine.scale;
                row_biases[group] = affine.bias;
            }
            options.scale_type.encode(row_scales, scales);
            options.scale_type.encode(row_biases, biases);
        },
    );
}

#[inline(always)]
fn encode_group<const BITS: usize>(encoder: Encoder, weights: &[f32], stream: &mut [u8]) -> Affine {
    let levels = ((1u32 << BITS) - 1) as f32;
    let affine = fit(encoder, levels, weights);
    for (eight, packed) in weights.as_chunks::<8>().0.iter().zip(stream.as_chunks_mut::<BITS>().0) {
        *packed = pack8::<BITS>(codes(encoder, levels, affine, eight));
    }
    affine
}
