//! Rows of integers with a scale, and perhaps a zero point, for each group: words of codes that lie as ours do, or signed bytes.

use planish_format::{FloatType, memory};

use super::columns::{Order, Sizes, floats, transposed_words};
use super::find::{FLOATS, Find, WORDS};
use super::{Found, Respelled};
use crate::{Dtype, Error, Layout, Tensor, Weight};

/// Where the codes of a weight are, and what they mean.
pub(super) struct Integers<'a> {
    /// Without `.weight`.
    pub module: &'a str,
    /// Codes in words (rows, cols * bits / 32), or signed bytes (rows, cols).
    pub codes: String,
    /// (rows, groups), or one for each row.
    pub scales: String,
    /// Signed bytes as the scales; or words of codes, (rows * bits / 32, groups). None where they are half of the range.
    pub zeros: Option<String>,
    /// Columns, where only the header of another tensor tells.
    pub cols: usize,
    pub bits: u32,
    /// What scales are divided by: weights are `scale / divisor * code`.
    pub divisor: f32,
}

/// How the codes of a matrix are stored.
#[derive(Clone, Copy, Debug)]
struct Decode {
    sizes: Sizes,
    signed_bytes: bool,
    divisor: f32,
}

impl Integers<'_> {
    /// The weight, or what is wrong with its tensors.
    pub fn found(self, find: &Find) -> Result<Found, Error> {
        let codes = find.need(&self.codes, &self.codes)?;
        let signed_bytes = codes.dtype == Dtype::I8;
        let types = [&WORDS[..], &[Dtype::I8]].concat();
        let [rows, _] = find.matrix(&self.codes, codes, &types)?;
        let row_words = self.cols * self.bits as usize / 32;
        let expected = [rows, if signed_bytes { self.cols } else { row_words }];
        find.check_shape(&self.codes, codes, &expected)?;
        let scales = find.need(&self.scales, &self.codes)?;
        find.check_type(&self.scales, scales, &FLOATS)?;
        let groups = match scales.shape[..] {
            [] | [1] if rows == 1 => 1,
            [scaled] if scaled == rows => 1,
            [scaled, groups] if scaled == rows => groups,
            _ => {
                let what = format!("expected shape [{rows}, groups], found {:?}", scales.shape);
                return Err(find.wrong(&self.scales, &what));
            }
        };
        let mut parts = vec![self.codes.clone(), self.scales.clone()];
        let mut scale_type = scales.dtype.float_type().unwrap_or(FloatType::F32);
        if let Some(zeros) = &self.zeros {
            let stored = find.need(zeros, &self.codes)?;
            find.check_type(zeros, stored, &types)?;
            match stored.dtype {
                Dtype::I8 => find.check_shape(zeros, stored, &scales.shape)?,
                _ if rows.is_multiple_of(32) => {
                    find.check_shape(zeros, stored, &[rows * self.bits as usize / 32, groups])?;
                }
                _ => {
                    return Err(
                        find.unsupported(zeros, &format!("expected rows that are a multiple of 32, found {rows}"))
                    );
                }
            }
            parts.push(zeros.clone());
            scale_type = FloatType::F32;
        }
        if self.divisor != 1.0 {
            scale_type = FloatType::F32;
        }
        let sizes = Sizes::new(rows, self.cols, self.bits, groups, scale_type);
        let sizes = sizes.map_err(|what| find.wrong(&self.codes, &what))?;
        let decode = Decode {
            sizes,
            signed_bytes,
            divisor: self.divisor,
        };
        Ok(Found {
            name: format!("{}.weight", self.module),
            shape: vec![rows, self.cols],
            layout: Layout::Packed {
                packing: sizes.shape.packing,
                scale_type,
            },
            respelled: Respelled {
                parts,
                decode: Box::new(move |parts| decode.weight(parts)),
            },
            idle: Vec::new(),
        })
    }
}

impl Decode {
    fn weight(&self, parts: &[Tensor]) -> Result<Weight, String> {
        let [codes, scales, zeros @ ..] = parts else {
            return Err("a tensor is missing".to_owned());
        };
        let sizes = &self.sizes;
        let mut scales = floats(scales)?;
        if self.divisor != 1.0 {
            scales.iter_mut().for_each(|scale| *scale *= 1.0 / self.divisor);
        }
        let bits = sizes.shape.packing.bits();
        let zeros = match zeros {
            [] => memory::filled("weights", scales.len(), (1u32 << (bits - 1)) as f32),
            [zeros, ..] => zero_points(zeros, bits, sizes),
        };
        let codes = match self.signed_bytes {
            true => packed_bytes(&codes.data, bits, sizes)?,
            false => codes.data.to_vec(),
        };
        sizes.packed(codes, &scales, &zeros, Order::GroupsOfRows)
    }
}

/// Signed bytes as codes of these bits.
fn packed_bytes(bytes: &[u8], bits: u32, sizes: &Sizes) -> Result<Vec<u8>, String> {
    let middle = 1u8 << (bits - 1);
    let codes: Vec<u8> = bytes.iter().map(|byte| byte.wrapping_add(middle)).collect();
    if let Some(code) = codes.iter().find(|code| bits < 8 && **code >> bits != 0) {
        return Err(format!(
            "holds {}, which is no number of {bits} bits",
            code.wrapping_sub(middle) as i8
        ));
    }
    if bits == 8 {
        return Ok(codes);
    }
    let mut packed = memory::filled("weights", sizes.shape.code_bytes(), 0);
    let rows = packed.chunks_exact_mut(sizes.shape.code_row_bytes());
    for (packed, codes) in rows.zip(codes.chunks_exact(sizes.shape.cols)) {
        planish_format::pack_codes(codes, bits, packed);
    }
    Ok(packed)
}

/// // (rows, groups)
fn zero_points(zeros: &Tensor, bits: u32, sizes: &Sizes) -> Vec<f32> {
    let middle = (1u32 << (bits - 1)) as f32;
    if zeros.dtype == Dtype::I8 {
        return zeros.data.iter().map(|&byte| f32::from(byte as i8) + middle).collect();
    }
    let rows = sizes.shape.rows;
    let words = zeros.data.len() / 4 / sizes.groups;
    let turned = transposed_words(&zeros.data, words, sizes.groups);
    let mut values = vec![0; rows];
    let mut points = vec![0.0; rows * sizes.groups];
    for (group, words) in turned.chunks_exact(words * 4).enumerate() {
        planish_format::unpack_codes(words, bits, &mut values);
        for (row, value) in values.iter().enumerate() {
            points[row * sizes.groups + group] = f32::from(*value);
        }
    }
    points
}
