//! Weights that other quantizers stored, as `quant_method` of config.json names them: each file has one method's tensors.
//!
//! Codes of integers become packed weights of our own format without loss, like GGUF's blocks, when an entry is read; small floats
//! become plain ones.

mod awq;
mod bitsandbytes;
mod columns;
mod compressed;
mod find;
mod fp8;
mod gptq;
mod hqq;
mod integers;
pub(crate) mod modes;
mod mxfp4;
mod scaled;
mod small_floats;
mod torchao;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::Path;

use planish_format::FloatType;

use crate::dialect::Keys;
use crate::folder::tensors::Tensors;
use crate::order::natural_order;
use crate::{Entry, Error, Layout, Tensor, Weight};
use find::Find;

/// A quantizer's way to store weights, with what config.json says of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Method(Kind);

#[derive(Clone, Debug, PartialEq)]
enum Kind {
    Awq(awq::Awq),
    BitsAndBytes(bitsandbytes::BitsAndBytes),
    Compressed(compressed::Compressed),
    Fp8(fp8::Fp8),
    Gptq(gptq::Gptq),
    Hqq(hqq::Hqq),
    Mxfp4(mxfp4::Mxfp4),
    TorchAo(torchao::TorchAo),
}

/// The values of `quant_method` that are read, for messages.
pub(crate) const NAMES: &str = "\"auto-round\", \"awq\", \"bitsandbytes\", \"compressed-tensors\", \"fbgemm_fp8\", \"fp8\", \
                                \"gptq\", \"hqq\", \"modelopt\", \"mxfp4\", \"torchao\"";

impl Method {
    /// The method that a section of config.json names; `None` if it is none of these.
    /// `float_type` is that of plain weights.
    pub(crate) fn read(keys: &Keys, float_type: Option<FloatType>) -> Result<Option<Method>, Error> {
        let kind = match keys.text("quant_method")?.unwrap_or_default() {
            "awq" => Kind::Awq(awq::Awq::read(keys)?),
            "auto-round" | "intel/auto-round" => auto_round(keys)?,
            "bitsandbytes" => Kind::BitsAndBytes(bitsandbytes::BitsAndBytes::read(keys)?),
            "compressed-tensors" => Kind::Compressed(compressed::Compressed::read(keys, float_type)?),
            "fp8" | "fbgemm_fp8" | "modelopt" => Kind::Fp8(fp8::Fp8::read(keys, float_type)?),
            "gptq" => Kind::Gptq(gptq::Gptq::read(keys)?),
            "hqq" => Kind::Hqq(hqq::Hqq::read(keys)),
            "mxfp4" => Kind::Mxfp4(mxfp4::Mxfp4),
            "torchao" => Kind::TorchAo(torchao::TorchAo::new(float_type)),
            _ => return Ok(None),
        };
        Ok(Some(Method(kind)))
    }
}

/// AutoRound writes the tensors of others.
fn auto_round(keys: &Keys) -> Result<Kind, Error> {
    let packing = keys.text("packing_format")?.unwrap_or("auto_round:auto_gptq");
    match packing {
        "auto_round:auto_awq" => Ok(Kind::Awq(awq::Awq::read(keys)?)),
        "auto_round:auto_gptq" => Ok(Kind::Gptq(gptq::Gptq::of(keys, true)?)),
        "auto_round" | "auto_round:gptqmodel" => Ok(Kind::Gptq(gptq::Gptq::of(keys, false)?)),
        other => {
            let what = format!(
                "is \"{other}\", which planish does not read; it reads \"auto_round\", \"auto_round:auto_awq\", \
                 \"auto_round:auto_gptq\" and \"auto_round:gptqmodel\""
            );
            Err(keys.unsupported("packing_format", &what))
        }
    }
}

impl Kind {
    /// The weight that the tensor called `name` begins.
    fn weight(&self, find: &Find, name: &str) -> Result<Option<Found>, Error> {
        match self {
            Kind::Awq(method) => method.weight(find, name),
            Kind::BitsAndBytes(method) => method.weight(find, name),
            Kind::Compressed(method) => method.weight(find, name),
            Kind::Fp8(method) => method.weight(find, name),
            Kind::Gptq(method) => method.weight(find, name),
            Kind::Hqq(method) => method.weight(find, name),
            Kind::Mxfp4(method) => method.weight(find, name),
            Kind::TorchAo(method) => method.weight(find, name),
        }
    }
}

impl Method {
    /// Whether a checkpoint of this method may hold no weight that is stored so.
    fn may_be_plain(&self) -> bool {
        match &self.0 {
            Kind::Compressed(method) => method.is_dense(),
            Kind::Mxfp4(_) => true,
            _ => false,
        }
    }

    /// Whether models take the tensors of a weight as they are stored.
    fn keeps_parts(&self) -> bool {
        matches!(self.0, Kind::Mxfp4(_))
    }
}

/// In words, e.g. `GPTQ, 4 bits, group 128`.
impl fmt::Display for Method {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Awq(method) => method.fmt(out),
            Kind::BitsAndBytes(method) => method.fmt(out),
            Kind::Compressed(method) => method.fmt(out),
            Kind::Fp8(method) => method.fmt(out),
            Kind::Gptq(method) => method.fmt(out),
            Kind::Hqq(method) => method.fmt(out),
            Kind::Mxfp4(method) => method.fmt(out),
            Kind::TorchAo(method) => method.fmt(out),
        }
    }
}

/// A weight whose file spells it otherwise than our format does.
pub(crate) struct Respelled {
    /// The tensors that it is made of.
    pub parts: Vec<String>,
    /// The weight out of their data, in the order of `parts`; else what is wrong, in words.
    pub decode: Box<Decode>,
}

type Decode = dyn Fn(&[Tensor]) -> Result<Weight, String> + Send + Sync;

/// The weights of a method by the names of their entries.
pub(crate) type RespelledByName = HashMap<String, Respelled>;

/// What the tensors of a checkpoint are.
pub(crate) struct Listed {
    pub entries: Vec<Entry>,
    /// Those that must be respelled.
    pub respelled: RespelledByName,
    /// Tensors that are parts of entries, and can be read by themselves.
    pub parts: Vec<Entry>,
}

/// A weight as its header tells it.
struct Found {
    /// Its own name: most often that of a module, and `.weight`.
    name: String,
    shape: Vec<usize>,
    layout: Layout,
    respelled: Respelled,
    /// Tensors that belong to it and say nothing more.
    idle: Vec<String>,
}

/// Every weight once, in the natural order of names.
pub(crate) fn entries(tensors: &Tensors, method: &Method, config_file: &Path) -> Result<Listed, Error> {
    let find = Find { tensors, config_file };
    let mut entries = Vec::new();
    let mut respelled = RespelledByName::new();
    let mut taken = HashSet::new();
    for (name, _) in tensors.iter() {
        let Some(found) = method.0.weight(&find, name)? else {
            continue;
        };
        let name = found.name;
        let parts = &found.respelled.parts;
        let bytes = parts.iter().filter_map(|part| tensors.get(part));
        entries.push(Entry {
            name: name.clone(),
            shape: found.shape,
            layout: found.layout,
            stored_bytes: bytes.map(|stored| stored.size_bytes()).sum(),
        });
        taken.extend(parts.iter().cloned().chain(found.idle));
        respelled.insert(name, found.respelled);
    }
    if respelled.is_empty() && !method.may_be_plain() {
        let what = format!("says that weights are stored as {method}, and no weight is");
        return Err(Error::malformed(config_file, what));
    }
    let mut parts = Vec::new();
    for (name, stored) in tensors.iter() {
        let plain = Entry {
            name: name.to_owned(),
            shape: stored.shape.clone(),
            layout: Layout::Plain(stored.dtype),
            stored_bytes: stored.size_bytes(),
        };
        if taken.contains(name) {
            parts.extend(method.keeps_parts().then_some(plain));
            continue;
        }
        if respelled.contains_key(name) {
            return Err(find.wrong(name, "there is a packed weight of the same name"));
        }
        entries.push(plain);
    }
    entries.sort_by(|left, right| natural_order(&left.name, &right.name));
    Ok(Listed {
        entries,
        respelled,
        parts,
    })
}
