//! AWQ in the order of its `gemm` kernels, as AutoAWQ writes it. Of module P: `P.qweight` (inputs, outputs / 8), words of eight
//! outputs in the order 0, 2, 4, 6, 1, 3, 5, 7; `P.qzeros` (groups, outputs / 8) likewise; `P.scales` (groups, outputs). Four bits.
//!
//! Products of scales and zero points need f32.

use std::fmt;

use planish_format::{FloatType, memory};
use rayon::prelude::*;

use super::columns::{Order, Sizes, floats};
use super::find::{FLOATS, Find, WORDS};
use super::{Found, Respelled};
use crate::dialect::Keys;
use crate::{Error, Layout, Tensor, Weight};

/// Outputs in a word.
const LANES: usize = 8;
/// Which of them each four bits are, the lowest first.
const ORDER: [usize; LANES] = [0, 2, 4, 6, 1, 3, 5, 7];
const BITS: u32 = 4;

/// What config.json says.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Awq {
    /// -1 for whole rows.
    group: Option<i64>,
}

impl Awq {
    pub fn read(keys: &Keys) -> Result<Awq, Error> {
        for key in ["version", "format"] {
            if let Some(order) = keys.text(key)?.filter(|order| !order.eq_ignore_ascii_case("gemm")) {
                let what = format!("is \"{order}\", whose order of codes planish does not read; it reads \"gemm\"");
                return Err(keys.unsupported(key, &what));
            }
        }
        // Older files say `w_bit` and `q_group_size`.
        for key in ["bits", "w_bit"] {
            if let Some(bits) = keys.integer(key)?.filter(|bits| *bits != u64::from(BITS)) {
                return Err(keys.unsupported(key, &format!("is {bits}; planish reads AWQ with 4")));
            }
        }
        let group = keys.signed("group_size")?;
        Ok(Awq {
            group: group.map_or_else(|| keys.signed("q_group_size"), |group| Ok(Some(group)))?,
        })
    }

    /// The weight that the tensor called `name` begins.
    pub fn weight(&self, find: &Find, name: &str) -> Result<Option<Found>, Error> {
        let Some(module) = name.strip_suffix(".qweight") else {
            return Ok(None);
        };
        let part = |part: &str| format!("{module}.{part}");
        let [cols, words] = find.matrix(name, find.need(name, name)?, &WORDS)?;
        let rows = words * LANES;
        let scales = find.need(&part("scales"), name)?;
        let [groups, scaled] = find.matrix(&part("scales"), scales, &FLOATS)?;
        if scaled != rows {
            find.check_shape(&part("scales"), scales, &[groups, rows])?;
        }
        let zeros = find.need(&part("qzeros"), name)?;
        find.check_type(&part("qzeros"), zeros, &WORDS)?;
        find.check_shape(&part("qzeros"), zeros, &[groups, words])?;
        let scale_type = FloatType::F32;
        let sizes = Sizes::new(rows, cols, BITS, groups, scale_type).map_err(|what| find.wrong(name, &what))?;
        let group = cols / groups;
        if let Some(said) = self.group.filter(|said| *said > 0 && *said as u64 != group as u64) {
            return Err(find.wrong(name, &format!("has groups of {group}, and config.json says {said}")));
        }
        Ok(Some(Found {
            name: format!("{module}.weight"),
            shape: vec![rows, cols],
            layout: Layout::Packed {
                packing: sizes.shape.packing,
                scale_type,
            },
            respelled: Respelled {
                parts: vec![name.to_owned(), part("qzeros"), part("scales")],
                decode: Box::new(move |parts| decode(&sizes, parts)),
            },
            idle: Vec::new(),
        }))
    }
}

impl fmt::Display for Awq {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.group {
            Some(group) if group > 0 => write!(out, "AWQ, 4 bits, group {group}"),
            Some(_) => write!(out, "AWQ, 4 bits, whole rows"),
            None => write!(out, "AWQ, 4 bits"),
        }
    }
}

fn decode(sizes: &Sizes, parts: &[Tensor]) -> Result<Weight, String> {
    let [codes, zeros, scales] = parts else {
        return Err("a tensor is missing".to_owned());
    };
    let words = sizes.shape.rows / LANES;
    let mut zero_points = Vec::with_capacity(sizes.groups * sizes.shape.rows);
    for word in zeros.data.as_chunks::<4>().0 {
        zero_points.extend(outputs(*word).map(f32::from));
    }
    let codes = turned(&codes.data, sizes.shape.cols, words);
    sizes.packed(codes, &floats(scales)?, &zero_points, Order::RowsOfGroups)
}

/// The codes of a word in the order of outputs.
fn outputs(word: [u8; 4]) -> [u8; LANES] {
    let word = u32::from_le_bytes(word);
    let mut codes = [0; LANES];
    for (place, &output) in ORDER.iter().enumerate() {
        codes[output] = (word >> (4 * place) & 15) as u8;
    }
    codes
}

/// Codes with inputs side by side. // (cols, words) to (8 * words, cols / 8)
fn turned(words: &[u8], cols: usize, row_words: usize) -> Vec<u8> {
    let mut turned = memory::filled("weights", words.len(), 0);
    let bytes = cols / 2;
    // Words side by side fill a line of the cache.
    const LANE: usize = 16;
    turned
        .par_chunks_mut(LANE * LANES * bytes)
        .enumerate()
        .for_each(|(lane, turned)| {
            for col in 0..cols {
                let from = &words[(col * row_words + lane * LANE) * 4..];
                let rows = turned.chunks_exact_mut(LANES * bytes);
                for (word, rows) in from.as_chunks::<4>().0.iter().zip(rows) {
                    for (code, row) in outputs(*word).into_iter().zip(rows.chunks_exact_mut(bytes)) {
                        row[col / 2] |= code << (col % 2 * 4);
                    }
                }
            }
        });
    turned
}
