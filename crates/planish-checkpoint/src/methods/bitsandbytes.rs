//! bitsandbytes. Of module P, 8 bits: signed bytes `P.weight` and `P.SCB`, 127 times the scale of each row. 4 bits: pairs of codes
//! `P.weight`, the first in the high bits, which `P.weight.quant_map` gives values of (nf4, fp4); `P.weight.absmax` multiplies runs of
//! them, itself perhaps codes of a map; `P.weight.quant_state.bitsandbytes__*` is JSON with shape and type. 4-bit weights become plain.

use std::fmt;

use planish_format::{FloatType, memory};
use serde_json::{Map, Value};

use super::columns::floats;
use super::find::Find;
use super::integers::Integers;
use super::{Found, Respelled};
use crate::dialect::Keys;
use crate::{Dtype, Error, Layout, Tensor, Weight};

/// What config.json says.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct BitsAndBytes {
    four: bool,
}

const STATES: [&str; 2] = ["quant_state.bitsandbytes__nf4", "quant_state.bitsandbytes__fp4"];

impl BitsAndBytes {
    pub fn read(keys: &Keys) -> Result<BitsAndBytes, Error> {
        Ok(BitsAndBytes {
            four: keys
                .boolean("load_in_4bit")?
                .or(keys.boolean("_load_in_4bit")?)
                .unwrap_or(false),
        })
    }

    /// The weight that the tensor called `name` begins.
    pub fn weight(&self, find: &Find, name: &str) -> Result<Option<Found>, Error> {
        let (Some(module), Some(stored)) = (name.strip_suffix(".weight"), find.tensors.get(name)) else {
            return Ok(None);
        };
        match stored.dtype {
            Dtype::I8 => eight(find, module, name).map(Some),
            Dtype::U8 => four(find, module, name).map(Some),
            _ => Ok(None),
        }
    }
}

fn eight(find: &Find, module: &str, name: &str) -> Result<Found, Error> {
    let [_, cols] = find.matrix(name, find.need(name, name)?, &[Dtype::I8])?;
    let integers = Integers {
        module,
        codes: name.to_owned(),
        scales: format!("{module}.SCB"),
        zeros: None,
        cols,
        bits: 8,
        divisor: 127.0,
    };
    let mut found = integers.found(find)?;
    found.idle.push(format!("{module}.weight_format"));
    Ok(found)
}

/// How 4-bit codes become floats.
struct State {
    shape: Vec<usize>,
    block: usize,
    float_type: FloatType,
    /// Weights of a run of `absmax` that share a factor, and what is added.
    nested: Option<(usize, f32)>,
}

impl State {
    fn read(json: &Map<String, Value>) -> Option<State> {
        let size = |value: &Value| {
            usize::try_from(value.as_u64()?)
                .ok()
                .filter(|size| (1..=1 << 40).contains(size))
        };
        let shape: Option<Vec<usize>> = json.get("shape")?.as_array()?.iter().map(size).collect();
        let nested = match json.get("nested_blocksize").filter(|value| !value.is_null()) {
            None => None,
            Some(block) => Some((size(block)?, json.get("nested_offset")?.as_f64()? as f32)),
        };
        Some(State {
            shape: shape?,
            block: size(json.get("blocksize")?)?,
            float_type: match json.get("dtype")?.as_str()? {
                "float32" => FloatType::F32,
                "float16" => FloatType::F16,
                "bfloat16" => FloatType::BF16,
                _ => return None,
            },
            nested,
        })
    }
}

fn four(find: &Find, module: &str, name: &str) -> Result<Found, Error> {
    let part = |part: &str| format!("{name}.{part}");
    let states = STATES.map(part);
    let state = states
        .iter()
        .find(|state| find.tensors.get(state).is_some())
        .unwrap_or(&states[0]);
    find.need(state, name)?;
    let json = serde_json::from_slice::<Map<String, Value>>(&find.read(state)?.data).ok();
    let read = json.as_ref().and_then(State::read);
    let read = read.ok_or_else(|| find.wrong(state, "expected JSON with shape, blocksize and dtype"))?;
    let bytes = find.need(name, name)?.shape.iter().product::<usize>();
    let weights = read
        .shape
        .iter()
        .try_fold(1usize, |weights, &size| weights.checked_mul(size));
    let weights = weights.filter(|weights| weights.div_ceil(2) == bytes).ok_or_else(|| {
        find.wrong(
            name,
            &format!(
                "expected {bytes} bytes for pairs of codes of the shape {:?}",
                read.shape
            ),
        )
    })?;
    let blocks = weights.div_ceil(read.block);
    let mut parts = vec![name.to_owned(), part("quant_map"), part("absmax")];
    find.check_shape(&part("quant_map"), find.need(&part("quant_map"), name)?, &[16])?;
    let absmax = find.need(&part("absmax"), name)?;
    find.check_shape(&part("absmax"), absmax, &[blocks])?;
    if let Some((block, _)) = read.nested {
        find.check_type(&part("absmax"), absmax, &[Dtype::U8])?;
        for (nested, shape) in [("nested_quant_map", 256), ("nested_absmax", blocks.div_ceil(block))] {
            find.check_shape(&part(nested), find.need(&part(nested), name)?, &[shape])?;
            parts.push(part(nested));
        }
    }
    Ok(Found {
        name: format!("{module}.weight"),
        shape: read.shape.clone(),
        layout: Layout::Plain(read.float_type.into()),
        respelled: Respelled {
            parts,
            decode: Box::new(move |parts| decode(&read, parts)),
        },
        idle: vec![state.clone()],
    })
}

fn decode(state: &State, parts: &[Tensor]) -> Result<Weight, String> {
    let [codes, map, absmax, nested @ ..] = parts else {
        return Err("a tensor is missing".to_owned());
    };
    let map = floats(map)?;
    let scales = match (state.nested, nested) {
        (Some((block, offset)), [nested_map, nested_absmax]) => {
            let (map, factors) = (floats(nested_map)?, floats(nested_absmax)?);
            let scale = |(index, &code): (usize, &u8)| map[usize::from(code)] * factors[index / block] + offset;
            absmax.data.iter().enumerate().map(scale).collect()
        }
        _ => floats(absmax)?,
    };
    let weights = state.shape.iter().product();
    let mut values = memory::filled("weights", weights, 0.0);
    for (index, value) in values.iter_mut().enumerate() {
        let byte = codes.data[index / 2];
        let code = if index % 2 == 0 { byte >> 4 } else { byte & 15 };
        *value = map[usize::from(code)] * scales[index / state.block];
    }
    let mut data = memory::filled("weights", weights * state.float_type.size_bytes(), 0);
    state.float_type.encode(&values, &mut data);
    Ok(Weight::Plain(Tensor {
        dtype: state.float_type.into(),
        shape: state.shape.clone(),
        data: data.into(),
    }))
}

impl fmt::Display for BitsAndBytes {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "bitsandbytes, {} bits", if self.four { 4 } else { 8 })
    }
}
