//! GPTQ, as AutoGPTQ, GPTQModel and AutoRound write it. Of module P: `P.qweight` (inputs * bits / 32, outputs), each column one
//! stream of bits like our rows; `P.qzeros` (groups, outputs * bits / 32), each row one stream; `P.scales` (groups, outputs);
//! `P.g_idx` (inputs), the group of each input.
//!
//! Format v1 stores zero points less one, v2 as they are. With `sym` a zero point is half of the range, so that its product with a
//! scale has the scale's own type; others need f32.

use std::fmt;

use planish_format::{FloatType, unpack_codes};

use super::columns::{Order, Sizes, floats, transposed_words};
use super::find::{FLOATS, Find, WORDS};
use super::{Found, Respelled};
use crate::dialect::Keys;
use crate::{Dtype, Error, Layout, Tensor, Weight};

/// What config.json says.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Gptq {
    bits: Option<u64>,
    /// -1 for whole rows.
    group: Option<i64>,
    /// All zero points are half of the range.
    symmetric: bool,
    /// Zero points are stored less one.
    less_one: bool,
    /// Modules may differ.
    dynamic: bool,
}

impl Gptq {
    pub fn read(keys: &Keys) -> Result<Gptq, Error> {
        let key = ["checkpoint_format", "format"].into_iter().find(|key| keys.has(key));
        let format = key.map_or(Ok(None), |key| keys.text(key))?.unwrap_or("gptq");
        let less_one = match format {
            "gptq" => true,
            "gptq_v2" => false,
            other => {
                let what = format!("is \"{other}\", which planish does not read; it reads \"gptq\" and \"gptq_v2\"");
                return Err(keys.unsupported(key.unwrap_or("format"), &what));
            }
        };
        Gptq::of(keys, less_one)
    }

    /// With zero points less one or not, as another key says.
    pub fn of(keys: &Keys, less_one: bool) -> Result<Gptq, Error> {
        if let Some(words) = keys.text("pack_dtype")?.filter(|words| *words != "int32") {
            return Err(keys.unsupported(
                "pack_dtype",
                &format!("is \"{words}\"; planish reads codes in int32 words"),
            ));
        }
        let dynamic = keys.has("dynamic") || keys.has("extra_config");
        Ok(Gptq {
            bits: keys.integer("bits")?,
            group: keys.signed("group_size")?,
            // Modules that differ may differ in this.
            symmetric: keys.boolean("sym")?.unwrap_or(true) && !dynamic,
            less_one,
            dynamic,
        })
    }

    /// The weight that the tensor called `name` begins.
    pub fn weight(&self, find: &Find, name: &str) -> Result<Option<Found>, Error> {
        let Some(module) = name.strip_suffix(".qweight") else {
            return Ok(None);
        };
        let part = |part: &str| format!("{module}.{part}");
        let [words, rows] = find.matrix(name, find.need(name, name)?, &WORDS)?;
        let scales = find.need(&part("scales"), name)?;
        let [groups, scaled] = find.matrix(&part("scales"), scales, &FLOATS)?;
        let zeros = find.need(&part("qzeros"), name)?;
        let [zero_groups, zero_words] = find.matrix(&part("qzeros"), zeros, &WORDS)?;
        if !rows.is_multiple_of(8) {
            return Err(find.wrong(
                name,
                &format!("expected outputs that are a multiple of 8, found {rows}"),
            ));
        }
        if scaled != rows {
            find.check_shape(&part("scales"), scales, &[groups, rows])?;
        }
        let bits = (2..=8u32).find(|bits| rows * *bits as usize == zero_words * 32 && zero_groups == groups);
        let bits = bits.filter(|bits| matches!(bits, 2 | 3 | 4 | 8)).ok_or_else(|| {
            let what = format!(
                "expected zero points of 2, 3, 4 or 8 bits for each of the {groups} x {rows} in `{}`, found {:?} words",
                part("scales"),
                zeros.shape
            );
            find.wrong(&part("qzeros"), &what)
        })?;
        let cols = words * 32 / bits as usize;
        let float_type = scales.dtype.float_type().unwrap_or(FloatType::F32);
        let scale_type = if self.symmetric { float_type } else { FloatType::F32 };
        let sizes = Sizes::new(rows, cols, bits, groups, scale_type).map_err(|what| find.wrong(name, &what))?;
        self.check_config(find, name, bits, cols / groups)?;
        let mut parts = vec![name.to_owned(), part("qzeros"), part("scales")];
        let mut order: Vec<usize> = (0..groups).collect();
        if let Some(index) = find.tensors.get(&part("g_idx")) {
            find.check_type(&part("g_idx"), index, &[Dtype::I32])?;
            find.check_shape(&part("g_idx"), index, &[cols])?;
            order = group_order(&find.read(&part("g_idx"))?, groups)
                .ok_or_else(|| find.unsupported(&part("g_idx"), SCATTERED))?;
            parts.push(part("g_idx"));
        }
        let less_one = self.less_one;
        let decode = move |parts: &[Tensor]| decode(&sizes, less_one, &order, parts);
        Ok(Some(Found {
            name: format!("{module}.weight"),
            shape: vec![rows, cols],
            layout: Layout::Packed {
                packing: sizes.shape.packing,
                scale_type,
            },
            respelled: Respelled {
                parts,
                decode: Box::new(decode),
            },
            idle: Vec::new(),
        }))
    }

    /// That the tensors are what config.json says, where it speaks of all alike.
    fn check_config(&self, find: &Find, name: &str, bits: u32, group: usize) -> Result<(), Error> {
        let says_bits = self.bits.is_none_or(|said| said == u64::from(bits));
        let says_group = self.group.is_none_or(|said| said <= 0 || said as u64 == group as u64);
        if self.dynamic || (says_bits && says_group) {
            return Ok(());
        }
        let what = format!(
            "has {bits} bits in groups of {group}, and config.json says {} bits in groups of {}",
            self.bits.unwrap_or_default(),
            self.group.unwrap_or_default()
        );
        Err(find.wrong(name, &what))
    }
}

const SCATTERED: &str = "inputs of one group do not lie side by side (`desc_act`), and planish reads groups that do: quantize the \
                         model again with `desc_act` false or `static_groups` true";

impl fmt::Display for Gptq {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "GPTQ")?;
        if let Some(bits) = self.bits {
            write!(out, ", {bits} bits")?;
        }
        match self.group {
            Some(group) if group > 0 => write!(out, ", group {group}"),
            Some(_) => write!(out, ", whole rows"),
            None => Ok(()),
        }
    }
}

/// Which stored group each run of inputs has; `None` if inputs of one run have several.
fn group_order(index: &Tensor, groups: usize) -> Option<Vec<usize>> {
    let index = index.data.as_chunks::<4>().0;
    let group_of = |bytes: &[u8; 4]| {
        usize::try_from(i32::from_le_bytes(*bytes))
            .ok()
            .filter(|group| *group < groups)
    };
    let run = |run: &[[u8; 4]]| {
        let first = group_of(run.first()?)?;
        run.iter().all(|other| group_of(other) == Some(first)).then_some(first)
    };
    index.chunks_exact(index.len() / groups).map(run).collect()
}

fn decode(sizes: &Sizes, less_one: bool, order: &[usize], parts: &[Tensor]) -> Result<Weight, String> {
    let [codes, zeros, scales, ..] = parts else {
        return Err("a tensor is missing".to_owned());
    };
    let (rows, bits) = (sizes.shape.rows, sizes.shape.packing.bits());
    let words = codes.data.len() / 4 / rows;
    let stored_zeros = zero_points(&zeros.data, rows, bits, less_one);
    let stored_scales = floats(scales)?;
    let ordered = |values: &[f32]| -> Vec<f32> {
        order
            .iter()
            .flat_map(|&group| &values[group * rows..(group + 1) * rows])
            .copied()
            .collect()
    };
    let codes = transposed_words(&codes.data, words, rows);
    sizes.packed(
        codes,
        &ordered(&stored_scales),
        &ordered(&stored_zeros),
        Order::RowsOfGroups,
    )
}

/// The zero points of each group. // (groups, rows)
fn zero_points(words: &[u8], rows: usize, bits: u32, less_one: bool) -> Vec<f32> {
    let group_bytes = rows / 8 * bits as usize;
    let mut values = vec![0; rows];
    let mut zeros = Vec::with_capacity(words.len() / group_bytes.max(1) * rows);
    for group in words.chunks_exact(group_bytes) {
        let group = match less_one && bits != 3 {
            true => one_more(group, bits),
            false => group.to_vec(),
        };
        unpack_codes(&group, bits, &mut values);
        let own = |&value: &u8| match less_one && bits == 3 {
            true => f32::from((value + 1) & 7),
            false => f32::from(value),
        };
        zeros.extend(values.iter().map(own));
    }
    zeros
}

/// One added to each value of a word at once: writers take one away so, and a zero point of 0 borrows from the next.
fn one_more(words: &[u8], bits: u32) -> Vec<u8> {
    let ones = (0..32).step_by(bits as usize).fold(0u32, |ones, bit| ones | 1 << bit);
    let add = |word: &[u8; 4]| u32::from_le_bytes(*word).wrapping_add(ones).to_le_bytes();
    words.as_chunks::<4>().0.iter().flat_map(add).collect()
}
