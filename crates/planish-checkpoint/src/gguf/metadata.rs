//! The key-value part of a GGUF header: typed values, checked when the file is opened, arrays left in the map.
//!
//! Source: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

use std::collections::HashMap;

use bytes::Bytes;

use super::cursor::Cursor;
use super::fault::Fault;

/// Arrays within arrays within ..: real files have one level.
const DEEPEST: usize = 4;

/// A metadata value.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Unsigned(u64),
    Signed(i64),
    F32(f32),
    F64(f64),
    Bool(bool),
    Text(Bytes),
    Array(Array),
}

/// An array of one element type, as stored.
#[derive(Clone, Debug)]
pub(super) struct Array {
    pub kind: Kind,
    pub count: usize,
    bytes: Bytes,
}

/// The type of a value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    Text,
    Array,
    U64,
    I64,
    F64,
}

impl Kind {
    fn read(cursor: &mut Cursor, key: &str) -> Result<Kind, Fault> {
        const KINDS: [Kind; 13] = [
            Kind::U8,
            Kind::I8,
            Kind::U16,
            Kind::I16,
            Kind::U32,
            Kind::I32,
            Kind::F32,
            Kind::Bool,
            Kind::Text,
            Kind::Array,
            Kind::U64,
            Kind::I64,
            Kind::F64,
        ];
        let id = cursor.u32("a value type")?;
        let kind = KINDS.get(id as usize).copied();
        kind.ok_or_else(|| Fault::key(key, "a value type from 0 to 12", id))
    }

    /// Bytes of one value; `None` for strings and arrays.
    fn size_bytes(self) -> Option<u64> {
        match self {
            Kind::U8 | Kind::I8 | Kind::Bool => Some(1),
            Kind::U16 | Kind::I16 => Some(2),
            Kind::U32 | Kind::I32 | Kind::F32 => Some(4),
            Kind::U64 | Kind::I64 | Kind::F64 => Some(8),
            Kind::Text | Kind::Array => None,
        }
    }
}

/// Reads one value and moves past it.
pub(super) fn read_value(cursor: &mut Cursor, key: &str) -> Result<Value, Fault> {
    match Kind::read(cursor, key)? {
        Kind::Text => Ok(Value::Text(cursor.string(key)?)),
        Kind::Array => Ok(Value::Array(read_array(cursor, key, DEEPEST)?)),
        kind => {
            let bytes = cursor.take(kind.size_bytes().unwrap_or(0), key)?;
            Ok(scalar(kind, &bytes))
        }
    }
}

/// Checks that all elements lie within the file; a count that lies runs into its end.
fn read_array(cursor: &mut Cursor, key: &str, deepest: usize) -> Result<Array, Fault> {
    if deepest == 0 {
        return Err(Fault::key(key, &format!("at most {DEEPEST} levels of arrays"), "more"));
    }
    let kind = Kind::read(cursor, key)?;
    let count = cursor.u64(key)?;
    let start = cursor.position();
    match kind.size_bytes() {
        Some(size) => drop(cursor.take(count.saturating_mul(size), key)?),
        None => {
            for _ in 0..count {
                match kind {
                    Kind::Text => drop(cursor.string(key)?),
                    _ => drop(read_array(cursor, key, deepest - 1)?),
                }
            }
        }
    }
    // Every element took at least one byte of the file, so the count fits.
    Ok(Array {
        kind,
        count: count as usize,
        bytes: cursor.since(start),
    })
}

/// One number or truth value from exactly its bytes.
fn scalar(kind: Kind, bytes: &[u8]) -> Value {
    let mut wide = [0; 8];
    wide[..bytes.len()].copy_from_slice(bytes);
    let unsigned = u64::from_le_bytes(wide);
    match kind {
        Kind::I8 => Value::Signed(i64::from(unsigned as i8)),
        Kind::I16 => Value::Signed(i64::from(unsigned as i16)),
        Kind::I32 => Value::Signed(i64::from(unsigned as i32)),
        Kind::I64 => Value::Signed(unsigned as i64),
        Kind::F32 => Value::F32(f32::from_bits(unsigned as u32)),
        Kind::F64 => Value::F64(f64::from_bits(unsigned)),
        Kind::Bool => Value::Bool(unsigned != 0),
        _ => Value::Unsigned(unsigned),
    }
}

impl Array {
    /// The elements of an array of numbers or truth values.
    pub fn scalars(&self) -> impl Iterator<Item = Value> + '_ {
        let size = self.kind.size_bytes().unwrap_or(1) as usize;
        self.bytes.chunks_exact(size).map(|bytes| scalar(self.kind, bytes))
    }

    /// The elements of an array of strings, as bytes.
    fn texts(&self) -> impl Iterator<Item = &[u8]> + '_ {
        let mut left = &self.bytes[..];
        std::iter::from_fn(move || {
            let (length, rest) = left.split_first_chunk::<8>()?;
            let (text, rest) = rest.split_at_checked(u64::from_le_bytes(*length) as usize)?;
            left = rest;
            Some(text)
        })
    }
}

impl Value {
    /// The type in words, for messages.
    fn describe(&self) -> String {
        match self {
            Value::Unsigned(value) => format!("the integer {value}"),
            Value::Signed(value) => format!("the integer {value}"),
            Value::F32(value) => format!("the float {value}"),
            Value::F64(value) => format!("the float {value}"),
            Value::Bool(value) => format!("{value}"),
            Value::Text(_) => "a string".into(),
            Value::Array(array) => format!("an array of {} values", array.count),
        }
    }

    pub fn integer(&self) -> Option<i64> {
        match self {
            Value::Unsigned(value) => i64::try_from(*value).ok(),
            Value::Signed(value) => Some(*value),
            _ => None,
        }
    }

    /// A float as people wrote it: 1e-5 stored in 32 bits gives 1e-5, not 9.999999747378752e-6.
    fn float(&self) -> Option<f64> {
        match self {
            Value::F32(value) => value.to_string().parse().ok(),
            Value::F64(value) => Some(*value),
            _ => None,
        }
    }
}

/// All keys of a file.
#[derive(Debug, Default)]
pub(super) struct Metadata {
    values: HashMap<String, Value>,
}

/// Getters give `None` for an absent key and a fault for one of another type.
impl Metadata {
    pub fn insert(&mut self, key: String, value: Value) -> Result<(), Fault> {
        match self.values.insert(key.clone(), value) {
            None => Ok(()),
            Some(_) => Err(Fault::key(&key, "one value", "two")),
        }
    }

    pub fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key)
    }

    /// True if the value of a key is the integer -1, with or without sign, which some writers use for "none".
    pub fn is_none_marker(&self, key: &str) -> bool {
        matches!(self.get(key), Some(Value::Signed(-1) | Value::Unsigned(0xffff_ffff)))
    }

    /// The value of a key that must be there.
    pub fn need<T>(&self, key: &str, value: Option<T>) -> Result<T, Fault> {
        value.ok_or_else(|| Fault::key(key, "a value", "none"))
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        convert: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, Fault> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match convert(value) {
            Some(converted) => Ok(Some(converted)),
            None => Err(Fault::key(key, expected, value.describe())),
        }
    }

    /// A count or size: not negative, at most 2^31 - 1, which is what every reader can hold.
    pub fn count(&self, key: &str) -> Result<Option<usize>, Fault> {
        self.typed(key, "an integer from 0 to 2147483647", |value| small(value.integer()?))
    }

    /// A count that some models give per layer; all layers must agree.
    pub fn uniform_count(&self, key: &str) -> Result<Option<usize>, Fault> {
        let Some(Value::Array(array)) = self.get(key) else {
            return self.count(key);
        };
        let mut counts = array.scalars().map(|value| small(value.integer()?));
        let first = counts.next().flatten();
        if first.is_none() || counts.any(|count| count != first) {
            return Err(Fault::unsupported(format!(
                "metadata key `{key}`: expected the same integer for every layer, found an array of {} values that differ",
                array.count
            )));
        }
        Ok(first)
    }

    /// A finite number.
    pub fn float(&self, key: &str) -> Result<Option<f64>, Fault> {
        self.typed(key, "a finite float", |value| {
            value.float().filter(|value| value.is_finite())
        })
    }

    pub fn flag(&self, key: &str) -> Result<Option<bool>, Fault> {
        self.typed(key, "true or false", |value| match value {
            Value::Bool(value) => Some(*value),
            _ => None,
        })
    }

    pub fn text(&self, key: &str) -> Result<Option<&str>, Fault> {
        self.typed(key, "a UTF-8 string", |value| match value {
            Value::Text(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        })
    }

    /// An array of strings.
    pub fn texts(&self, key: &str) -> Result<Option<Vec<&str>>, Fault> {
        self.typed(key, "an array of UTF-8 strings", |value| match value {
            Value::Array(array) if array.kind == Kind::Text => {
                array.texts().map(|bytes| std::str::from_utf8(bytes).ok()).collect()
            }
            _ => None,
        })
    }

    /// An array of integers.
    pub fn integers(&self, key: &str) -> Result<Option<Vec<i64>>, Fault> {
        self.typed(key, "an array of integers", |value| match value {
            Value::Array(array) if array.kind.size_bytes().is_some() => {
                array.scalars().map(|value| value.integer()).collect()
            }
            _ => None,
        })
    }

    /// An array of 32-bit floats.
    pub fn floats(&self, key: &str) -> Result<Option<Vec<f32>>, Fault> {
        self.typed(key, "an array of 32-bit floats", |value| match value {
            Value::Array(array) if array.kind == Kind::F32 => array
                .scalars()
                .map(|value| match value {
                    Value::F32(value) => Some(value),
                    _ => None,
                })
                .collect(),
            _ => None,
        })
    }
}

fn small(value: i64) -> Option<usize> {
    i32::try_from(value).ok().and_then(|value| usize::try_from(value).ok())
}
