//! 8-bit floats: DeepSeek's with a scale for each block (`fp8`: `P.weight`, `P.weight_scale_inv`), FBGEMM's with one for each row
//! (`fbgemm_fp8`: `P.weight_scale`), ModelOpt's with one in all (`modelopt`). Scales are floats or powers of two (E8M0). Weights become
//! plain ones of the type that config.json names, else bfloat16, as transformers makes them. How inputs were to be rounded is left out.

use std::fmt;

use planish_format::FloatType;

use super::Found;
use super::find::Find;
use super::scaled::Scaled;
use crate::dialect::Keys;
use crate::{Dtype, Error};

/// What config.json says.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Fp8 {
    block: [usize; 2],
    float_type: FloatType,
}

impl Fp8 {
    pub fn read(keys: &Keys, float_type: Option<FloatType>) -> Result<Fp8, Error> {
        if let Some(algorithm) = keys.text("quant_algo")?.filter(|algorithm| *algorithm != "FP8") {
            let what = format!("is \"{algorithm}\", which planish does not read; it reads \"FP8\"");
            return Err(keys.unsupported("quant_algo", &what));
        }
        let block = match keys.get("weight_block_size") {
            None => [128, 128],
            Some(value) => {
                let size = |index: usize| value.get(index)?.as_u64().filter(|size| (1..=1 << 20).contains(size));
                let sizes = size(0)
                    .zip(size(1))
                    .filter(|_| value.as_array().is_some_and(|sizes| sizes.len() == 2));
                let (high, wide) = sizes.ok_or_else(|| keys.malformed("weight_block_size", "two sizes", value))?;
                [high as usize, wide as usize]
            }
        };
        Ok(Fp8 {
            block,
            float_type: float_type.unwrap_or(FloatType::BF16),
        })
    }

    /// The weight that the tensor called `name` begins.
    pub fn weight(&self, find: &Find, name: &str) -> Result<Option<Found>, Error> {
        float_weight(find, name, Some(self.block), self.float_type)
    }
}

/// A weight of 8-bit floats, if the tensor called `name` is one.
pub(super) fn float_weight(
    find: &Find,
    name: &str,
    block: Option<[usize; 2]>,
    float_type: FloatType,
) -> Result<Option<Found>, Error> {
    let is_small = |name: &str| {
        let stored = find.tensors.get(name);
        stored.is_some_and(|stored| matches!(stored.dtype, Dtype::F8E4M3 | Dtype::F8E5M2))
    };
    let Some(module) = name.strip_suffix(".weight").filter(|_| is_small(name)) else {
        return Ok(None);
    };
    let part = |part: &str| format!("{module}.{part}");
    let names = ["weight_scale_inv", "weight_scale", "scale"].map(part);
    let scales = names
        .iter()
        .find(|scales| find.tensors.get(scales).is_some())
        .unwrap_or(&names[0]);
    let scaled = Scaled {
        module,
        numbers: name.to_owned(),
        scales: scales.clone(),
        block,
        float_type,
    };
    let mut found = scaled.found(find)?;
    // What inputs and outputs would be rounded by.
    found.idle = ["input_scale", "input_scale_ub", "output_scale", "activation_scale"]
        .map(part)
        .into();
    Ok(Some(found))
}

impl fmt::Display for Fp8 {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "FP8")
    }
}
