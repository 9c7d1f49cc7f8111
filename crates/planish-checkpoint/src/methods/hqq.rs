//! HQQ. Of module P: `P.W_q`, codes of groups along the inputs (`axis` 1), a group a row: of several runs of rows each is some bits of the
//! bytes, the first highest; `P.scale` and `P.zero`, floats, one for each group; `P.shape`, and settings one a tensor.
//!
//! Zero points are not whole, so `scale * code - scale * zero` may round once more than HQQ does.

use std::fmt;

use planish_format::{FloatType, memory, pack_codes};

use super::columns::{Order, Sizes, floats};
use super::find::{FLOATS, Find};
use super::{Found, Respelled};
use crate::dialect::Keys;
use crate::{Dtype, Error, Layout, Tensor, Weight};

/// What config.json says.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Hqq;

/// What a module's settings are called; they are read and stored for HQQ alone.
const SETTINGS: [&str; 15] = [
    "nbits",
    "group_size",
    "axis",
    "packing",
    "unpack_view_dtype",
    "view_as_float",
    "quant_scale",
    "quant_zero",
    "compute_dtype",
    "offload_meta",
    "encoded_state_dict",
    "stores_quant_config",
    "channel_wise",
    "optimize",
    "round_zero",
];

impl Hqq {
    pub fn read(_: &Keys) -> Hqq {
        Hqq
    }

    /// The weight that the tensor called `name` begins.
    pub fn weight(&self, find: &Find, name: &str) -> Result<Option<Found>, Error> {
        let Some(module) = name.strip_suffix(".W_q") else {
            return Ok(None);
        };
        let part = |part: &str| format!("{module}.{part}");
        for (setting, expected) in [("axis", 1), ("view_as_float", 0), ("quant_scale", 0), ("quant_zero", 0)] {
            let Some(found) = setting_of(find, &part(setting))? else {
                continue;
            };
            if found != expected {
                let what = format!("is {found}; planish reads weights of HQQ with {expected}");
                return Err(find.unsupported(&part(setting), &what));
            }
        }
        let codes = find.need(name, name)?;
        let [packed_rows, group] = find.matrix(name, codes, &[Dtype::U8])?;
        let shape = shape_of(find, &part("shape"), name)?;
        let scales = find.need(&part("scale"), name)?;
        let zeros = find.need(&part("zero"), name)?;
        for (name, stored) in [(part("scale"), scales), (part("zero"), zeros)] {
            find.check_type(&name, stored, &FLOATS)?;
        }
        let [rows, cols] = shape;
        let weights = rows.checked_mul(cols).unwrap_or_default();
        let groups = weights / group;
        let bits = [8u32, 4, 2]
            .into_iter()
            .find(|bits| packed_rows * (8 / *bits as usize) == groups);
        let bits = bits.filter(|_| groups * group == weights).ok_or_else(|| {
            let what = format!(
                "expected {groups} groups of {group} for the shape {shape:?} in 8, 4 or 2 bits, found {packed_rows} rows of bytes"
            );
            find.unsupported(name, &what)
        })?;
        for (name, stored) in [(part("scale"), scales), (part("zero"), zeros)] {
            if stored.shape.iter().product::<usize>() != groups {
                find.check_shape(&name, stored, &[groups, 1])?;
            }
        }
        let scale_type = FloatType::F32;
        let row_groups = Some(groups / rows).filter(|count| count * rows == groups);
        let sizes = row_groups.ok_or_else(|| format!("expected whole groups of {group} in each row of {cols}"));
        let sizes = sizes.and_then(|groups| Sizes::new(rows, cols, bits, groups, scale_type));
        let sizes = sizes.map_err(|what| find.wrong(name, &what))?;
        let mut idle: Vec<String> = SETTINGS.map(part).into();
        idle.push(part("shape"));
        Ok(Some(Found {
            name: format!("{module}.weight"),
            shape: vec![rows, cols],
            layout: Layout::Packed {
                packing: sizes.shape.packing,
                scale_type,
            },
            respelled: Respelled {
                parts: vec![name.to_owned(), part("scale"), part("zero")],
                decode: Box::new(move |parts| decode(&sizes, parts)),
            },
            idle,
        }))
    }
}

/// A setting that is a number or a boolean; `None` if there is no such tensor.
fn setting_of(find: &Find, name: &str) -> Result<Option<u64>, Error> {
    if find.tensors.get(name).is_none() {
        return Ok(None);
    }
    let tensor = find.read(name)?;
    let size = tensor.dtype.size_bytes();
    if tensor.data.len() != size || tensor.dtype.float_type().is_some() {
        return Err(find.wrong(
            name,
            &format!("expected one whole number, found {} {:?}", tensor.dtype, tensor.shape),
        ));
    }
    Ok(Some(
        tensor
            .data
            .iter()
            .rev()
            .fold(0, |number, byte| number << 8 | u64::from(*byte)),
    ))
}

fn shape_of(find: &Find, name: &str, of: &str) -> Result<[usize; 2], Error> {
    let stored = find.need(name, of)?;
    find.check_shape(name, stored, &[2])?;
    find.check_type(name, stored, &[Dtype::I64, Dtype::I32])?;
    let data = find.read(name)?.data;
    let mut sizes = data.chunks_exact(stored.dtype.size_bytes()).map(|bytes| {
        let number = bytes
            .iter()
            .rev()
            .fold(0u64, |number, byte| number << 8 | u64::from(*byte));
        usize::try_from(number).ok().filter(|size| (1..=1 << 40).contains(size))
    });
    match (sizes.next().flatten(), sizes.next().flatten()) {
        (Some(rows), Some(cols)) => Ok([rows, cols]),
        _ => Err(find.wrong(name, "expected two sizes above zero")),
    }
}

fn decode(sizes: &Sizes, parts: &[Tensor]) -> Result<Weight, String> {
    let [codes, scales, zeros] = parts else {
        return Err("a tensor is missing".to_owned());
    };
    let shape = sizes.shape;
    let bits = shape.packing.bits();
    let run = codes.data.len();
    let mut packed = memory::filled("weights", shape.code_bytes(), 0);
    let mut row_codes = vec![0; shape.cols];
    for (row, packed) in packed.chunks_exact_mut(shape.code_row_bytes()).enumerate() {
        for (col, code) in row_codes.iter_mut().enumerate() {
            let place = row * shape.cols + col;
            let shift = 8 - bits * (place / run + 1) as u32;
            *code = codes.data[place % run] >> shift & ((1u32 << bits) - 1) as u8;
        }
        pack_codes(&row_codes, bits, packed);
    }
    sizes.packed(packed, &floats(scales)?, &floats(zeros)?, Order::GroupsOfRows)
}

impl fmt::Display for Hqq {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "HQQ")
    }
}
