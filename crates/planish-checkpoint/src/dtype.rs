//! Element types of stored tensors, their sizes and their names in safetensors files.

use planish_format::FloatType;
use serde_json::{Map, Value};

/// Element type of a stored tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are the types")]
pub enum Dtype {
    F64,
    F32,
    F16,
    BF16,
    I64,
    I32,
    I16,
    I8,
    U64,
    U32,
    U16,
    U8,
    Bool,
    F8E4M3,
    F8E5M2,
    F8E4M3FNUZ,
    F8E5M2FNUZ,
    F8E8M0,
    F6E2M3,
    F6E3M2,
    F4,
    C64,
}

#[rustfmt::skip]
const ALL: [Dtype; 22] = [
    Dtype::F64, Dtype::F32, Dtype::F16, Dtype::BF16, Dtype::I64, Dtype::I32, Dtype::I16, Dtype::I8, Dtype::U64, Dtype::U32,
    Dtype::U16, Dtype::U8, Dtype::Bool, Dtype::F8E4M3, Dtype::F8E5M2, Dtype::F8E4M3FNUZ, Dtype::F8E5M2FNUZ, Dtype::F8E8M0,
    Dtype::F6E2M3, Dtype::F6E3M2, Dtype::F4, Dtype::C64,
];

impl Dtype {
    /// Bytes of one element; 1 where an element is less than a byte.
    pub fn size_bytes(self) -> usize {
        self.size_bits().div_ceil(8)
    }

    /// Bytes of so many elements; `None` where they are not whole bytes, or overflow.
    pub fn bytes_of(self, elements: usize) -> Option<usize> {
        let bits = elements.checked_mul(self.size_bits())?;
        bits.is_multiple_of(8).then_some(bits / 8)
    }

    fn size_bits(self) -> usize {
        match self {
            Dtype::F64 | Dtype::I64 | Dtype::U64 | Dtype::C64 => 64,
            Dtype::F32 | Dtype::I32 | Dtype::U32 => 32,
            Dtype::F16 | Dtype::BF16 | Dtype::I16 | Dtype::U16 => 16,
            Dtype::I8 | Dtype::U8 | Dtype::Bool => 8,
            Dtype::F8E4M3 | Dtype::F8E5M2 | Dtype::F8E4M3FNUZ | Dtype::F8E5M2FNUZ | Dtype::F8E8M0 => 8,
            Dtype::F6E2M3 | Dtype::F6E3M2 => 6,
            Dtype::F4 => 4,
        }
    }

    /// The float type of this name, if it is one that weights are computed from.
    pub fn float_type(self) -> Option<FloatType> {
        match self {
            Dtype::F32 => Some(FloatType::F32),
            Dtype::F16 => Some(FloatType::F16),
            Dtype::BF16 => Some(FloatType::BF16),
            _ => None,
        }
    }

    /// `None` for types that later versions of the format may have.
    pub(crate) fn from_safetensors(dtype: safetensors::Dtype) -> Option<Dtype> {
        ALL.into_iter().find(|known| known.to_safetensors() == dtype)
    }

    pub(crate) fn to_safetensors(self) -> safetensors::Dtype {
        use safetensors::Dtype as Stored;
        match self {
            Dtype::F64 => Stored::F64,
            Dtype::F32 => Stored::F32,
            Dtype::F16 => Stored::F16,
            Dtype::BF16 => Stored::BF16,
            Dtype::I64 => Stored::I64,
            Dtype::I32 => Stored::I32,
            Dtype::I16 => Stored::I16,
            Dtype::I8 => Stored::I8,
            Dtype::U64 => Stored::U64,
            Dtype::U32 => Stored::U32,
            Dtype::U16 => Stored::U16,
            Dtype::U8 => Stored::U8,
            Dtype::Bool => Stored::BOOL,
            Dtype::F8E4M3 => Stored::F8_E4M3,
            Dtype::F8E5M2 => Stored::F8_E5M2,
            Dtype::F8E4M3FNUZ => Stored::F8_E4M3FNUZ,
            Dtype::F8E5M2FNUZ => Stored::F8_E5M2FNUZ,
            Dtype::F8E8M0 => Stored::F8_E8M0,
            Dtype::F6E2M3 => Stored::F6_E2M3,
            Dtype::F6E3M2 => Stored::F6_E3M2,
            Dtype::F4 => Stored::F4,
            Dtype::C64 => Stored::C64,
        }
    }
}

/// The float type that config.json names, or its `text_config`: transformers 5 writes `dtype`, earlier versions `torch_dtype`.
pub(crate) fn of_config(config: &Map<String, Value>) -> Option<FloatType> {
    let text_config = config.get("text_config").and_then(Value::as_object);
    let mut named = [Some(config), text_config]
        .into_iter()
        .flatten()
        .flat_map(|level| [level.get("dtype"), level.get("torch_dtype")]);
    match named.find_map(|name| name?.as_str())? {
        "float32" => Some(FloatType::F32),
        "float16" => Some(FloatType::F16),
        "bfloat16" => Some(FloatType::BF16),
        _ => None,
    }
}

impl From<FloatType> for Dtype {
    fn from(float_type: FloatType) -> Dtype {
        match float_type {
            FloatType::F32 => Dtype::F32,
            FloatType::F16 => Dtype::F16,
            FloatType::BF16 => Dtype::BF16,
        }
    }
}

/// The name that safetensors files use.
impl std::fmt::Display for Dtype {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.to_safetensors().fmt(out)
    }
}
