//! Quantizing: plain weights (rows, cols) -> codes, scales and biases, rows spread over the threads of the rayon pool.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use rayon::prelude::*;

use crate::instructions::encode_row;
use crate::row::{EncodeRow, EncodeScratch, all_finite};
use crate::{Encoder, FloatMatrix, FloatType, FormatError, Isa, PackedMatrix, PackedShape, Packing, Rule, memory};

/// What [`quantize_with`] needs to know besides the weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QuantizeOptions<'a> {
    /// Bits and group.
    pub packing: Packing,
    /// How codes are chosen.
    pub rule: Rule<'a>,
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
            rule: encoder.into(),
            scale_type,
            allow_non_finite: false,
        },
    )
}

/// Quantizes weights (rows, cols).
///
/// # Errors
/// If the columns do not hold whole groups or whole words, or a weight is NaN or infinite and that is not allowed; if
/// `PLANISH_CPU` names no instruction set of this machine.
///
/// # Panics
/// If there is an importance, and not of `source.cols` columns.
pub fn quantize_with(source: FloatMatrix, options: QuantizeOptions) -> Result<PackedMatrix, FormatError> {
    if let Rule::Search {
        importance: Some(columns),
    } = options.rule
    {
        assert_eq!(columns.len(), source.cols, "the importance of each column");
    }
    Isa::chosen()?;
    let shape = PackedShape::new(source.rows, source.cols, options.packing, options.scale_type)?;
    let mut parts = Parts {
        codes: memory::filled("weights", shape.code_bytes(), 0),
        scales: memory::filled("weights", shape.scale_bytes(), 0),
        biases: memory::filled("weights", shape.scale_bytes(), 0),
    };
    let all_finite = source.data.is_empty() || encode_rows(source, options, shape, &mut parts);
    if !all_finite
        && !options.allow_non_finite
        && let Some((row, col, value)) = first_non_finite(source)
    {
        return Err(FormatError::NonFinite { row, col, value });
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
    let rows = source.data.par_chunks(source.row_bytes()).enumerate();
    let first_of_thread = rows.map_init(
        || vec![0.0; source.cols],
        |weights, (row, bytes)| {
            source.float_type.decode(bytes, weights);
            if all_finite(weights) {
                return None;
            }
            let col = weights.iter().position(|weight| !weight.is_finite())?;
            Some((row, col, weights[col]))
        },
    );
    first_of_thread.find_map_first(|found| found)
}

/// The three parts of a packed matrix while they are filled. // shapes as in [`PackedMatrix`]
struct Parts {
    codes: Vec<u8>,
    scales: Vec<u8>,
    biases: Vec<u8>,
}

/// Fills in the parts. False if a weight is NaN or infinite.
fn encode_rows(source: FloatMatrix, options: QuantizeOptions, shape: PackedShape, parts: &mut Parts) -> bool {
    let all_finite = AtomicBool::new(true);
    let rows = source.data.par_chunks(source.row_bytes());
    let codes = parts.codes.par_chunks_mut(shape.code_row_bytes());
    let scales = parts.scales.par_chunks_mut(shape.scale_row_bytes());
    let biases = parts.biases.par_chunks_mut(shape.scale_row_bytes());
    rows.zip(codes).zip(scales.zip(biases)).for_each_init(
        || EncodeScratch::new(shape.cols, shape.groups()),
        |scratch, ((source_row, codes), (scales, biases))| {
            let finite = encode_row(EncodeRow {
                packing: options.packing,
                rule: options.rule,
                source_type: source.float_type,
                scale_type: options.scale_type,
                source: source_row,
                codes,
                scales,
                biases,
                scratch,
            });
            if !finite {
                all_finite.store(false, Ordering::Relaxed);
            }
        },
    );
    all_finite.into_inner()
}
