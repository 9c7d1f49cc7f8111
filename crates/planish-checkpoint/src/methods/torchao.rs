//! torchao, flattened into safetensors. Of module P: `P._weight_qdata`, signed bytes or 8-bit floats (outputs, inputs), with
//! `P._weight_scale` for each row or group and perhaps `P._weight_zero_point`, signed. Its layouts of 4-bit codes are made for single kernels
//! and not read; 4 bits in signed bytes are.

use std::fmt;

use planish_format::FloatType;

use super::Found;
use super::find::Find;
use super::integers::Integers;
use super::scaled::Scaled;
use crate::{Dtype, Error};

/// What config.json says.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct TorchAo {
    float_type: FloatType,
}

impl TorchAo {
    pub fn new(float_type: Option<FloatType>) -> TorchAo {
        TorchAo {
            float_type: float_type.unwrap_or(FloatType::BF16),
        }
    }

    /// The weight that the tensor called `name` begins.
    pub fn weight(&self, find: &Find, name: &str) -> Result<Option<Found>, Error> {
        let Some(module) = name.strip_suffix("._weight_qdata") else {
            return Ok(None);
        };
        let part = |part: &str| format!("{module}._weight_{part}");
        let stored = find.need(name, name)?;
        let mut found = match stored.dtype {
            Dtype::I8 => {
                let [_, cols] = find.matrix(name, stored, &[Dtype::I8])?;
                let integers = Integers {
                    module,
                    codes: name.to_owned(),
                    scales: part("scale"),
                    zeros: Some(part("zero_point")).filter(|zeros| find.tensors.get(zeros).is_some()),
                    cols,
                    bits: 8,
                    divisor: 1.0,
                };
                integers.found(find)?
            }
            Dtype::F8E4M3 | Dtype::F8E5M2 => {
                let scaled = Scaled {
                    module,
                    numbers: name.to_owned(),
                    scales: part("scale"),
                    block: None,
                    float_type: self.float_type,
                };
                scaled.found(find)?
            }
            other => {
                let what =
                    format!("holds {other}, codes in the order of a kernel; planish reads I8, F8_E4M3 and F8_E5M2");
                return Err(find.unsupported(name, &what));
            }
        };
        found.idle.push(part("act_quant_scale"));
        Ok(Some(found))
    }
}

impl fmt::Display for TorchAo {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "torchao")
    }
}
