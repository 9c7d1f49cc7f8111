//! compressed-tensors, as LLM Compressor writes it. Of module P: integers in words `P.weight_packed` (outputs, inputs * bits / 32) or
//! signed bytes `P.weight`, with `P.weight_scale` (outputs, groups) and perhaps `P.weight_zero_point`; 8-bit floats `P.weight` with
//! `P.weight_scale`, one in all, for each row or block. How inputs were to be rounded is left out.

use std::fmt;

use planish_format::FloatType;

use super::Found;
use super::find::{Find, WORDS};
use super::fp8::float_weight;
use super::integers::Integers;
use crate::dialect::Keys;
use crate::{Dtype, Error};

/// What config.json says.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Compressed {
    format: String,
    float_type: FloatType,
}

/// The formats that are read.
const FORMATS: [&str; 6] = [
    "pack-quantized",
    "int-quantized",
    "float-quantized",
    "naive-quantized",
    "mixed-precision",
    "dense",
];

impl Compressed {
    pub fn read(keys: &Keys, float_type: Option<FloatType>) -> Result<Compressed, Error> {
        let format = keys.text("format")?.unwrap_or("dense");
        if !FORMATS.contains(&format) {
            let what = format!(
                "is \"{format}\", which planish does not read; it reads {}",
                FORMATS.join(", ")
            );
            return Err(keys.unsupported("format", &what));
        }
        let sparse = keys
            .get("sparsity_config")
            .and_then(|section| section.get("format")?.as_str());
        if let Some(sparse) = sparse.filter(|sparse| *sparse != "dense") {
            return Err(keys.unsupported(
                "sparsity_config.format",
                &format!("is \"{sparse}\"; planish reads \"dense\""),
            ));
        }
        Ok(Compressed {
            format: format.to_owned(),
            float_type: float_type.unwrap_or(FloatType::BF16),
        })
    }

    /// Whether weights are floats as they were.
    pub fn is_dense(&self) -> bool {
        self.format == "dense"
    }

    /// The weight that the tensor called `name` begins.
    pub fn weight(&self, find: &Find, name: &str) -> Result<Option<Found>, Error> {
        let mut found = match find.tensors.get(name) {
            _ if name.ends_with(".weight_packed") => Some(packed(find, name)?),
            Some(stored) if stored.dtype == Dtype::I8 && name.ends_with(".weight") => Some(bytes(find, name)?),
            _ => float_weight(find, name, None, self.float_type)?,
        };
        if let Some(found) = &mut found {
            let module = found.name.strip_suffix(".weight").unwrap_or_default().to_owned();
            // What inputs and outputs would be rounded by, and a zero point of zero.
            let idle = [
                "input_scale",
                "input_zero_point",
                "input_global_scale",
                "weight_zero_point",
                "weight_shape",
            ];
            found.idle.extend(idle.map(|part| format!("{module}.{part}")));
        }
        Ok(found)
    }
}

fn packed(find: &Find, name: &str) -> Result<Found, Error> {
    let module = name.strip_suffix(".weight_packed").unwrap_or(name);
    let part = |part: &str| format!("{module}.{part}");
    let stored = find.need(name, name)?;
    let [rows, words] = find.matrix(name, stored, &WORDS)?;
    check_order(find, module)?;
    let shape = find.need(&part("weight_shape"), name)?;
    find.check_type(&part("weight_shape"), shape, &[Dtype::I64, Dtype::I32])?;
    find.check_shape(&part("weight_shape"), shape, &[2])?;
    let width = shape.dtype.size_bytes();
    let said: Vec<u64> = find
        .read(&part("weight_shape"))?
        .data
        .chunks_exact(width)
        .map(number)
        .collect();
    let cols = usize::try_from(said[1])
        .ok()
        .filter(|cols| said[0] == rows as u64 && (1..=words * 32).contains(cols));
    let fits = |cols: usize| {
        let bits = (words * 32 / cols) as u32;
        (cols * bits as usize == words * 32).then_some((cols, bits))
    };
    let (cols, bits) = cols.and_then(fits).ok_or_else(|| {
        let what = format!("expected {rows} rows of {words} whole words, found the shape {said:?}");
        find.wrong(&part("weight_shape"), &what)
    })?;
    let zeros = Some(part("weight_zero_point")).filter(|zeros| find.tensors.get(zeros).is_some());
    let integers = Integers {
        module,
        codes: name.to_owned(),
        scales: part("weight_scale"),
        zeros,
        cols,
        bits,
        divisor: 1.0,
    };
    integers.found(find)
}

fn bytes(find: &Find, name: &str) -> Result<Found, Error> {
    let module = name.strip_suffix(".weight").unwrap_or(name);
    check_order(find, module)?;
    let [_, cols] = find.matrix(name, find.need(name, name)?, &[Dtype::I8])?;
    let zeros = format!("{module}.weight_zero_point");
    let integers = Integers {
        module,
        codes: name.to_owned(),
        scales: format!("{module}.weight_scale"),
        zeros: Some(zeros).filter(|zeros| find.tensors.get(zeros).is_some()),
        cols,
        bits: 8,
        divisor: 1.0,
    };
    integers.found(find)
}

/// That the inputs of a group lie side by side.
fn check_order(find: &Find, module: &str) -> Result<(), Error> {
    let index = format!("{module}.weight_g_idx");
    match find.tensors.get(&index) {
        None => Ok(()),
        Some(_) => Err(find.unsupported(
            &index,
            "inputs of a group need not lie side by side (`actorder` group), and planish \
                                                 reads groups that do",
        )),
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .rev()
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

impl fmt::Display for Compressed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "compressed-tensors, {}", self.format)
    }
}
