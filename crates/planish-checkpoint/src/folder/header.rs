//! The header of a safetensors file, checked so that every tensor's bytes can be sliced without further tests.
//!
//! `u64` little-endian length N, N bytes of JSON `{name: {dtype, shape, data_offsets: [start, end]}}`, then the data, which the
//! tensors cover without holes or overlaps. Stricter than the safetensors crate in one point: a name may not occur twice.
//! Source: <https://huggingface.co/docs/safetensors>.

use std::collections::HashSet;
use std::fmt;
use std::path::Path;

use safetensors::tensor::TensorInfo;
use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};

use super::tensors::Stored;
use crate::{Dtype, Error};

/// What the format allows at most.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// The tensors of a file, by position; ranges count from the start of the file. `shard` goes into every [`Stored`].
pub(crate) fn parse(path: &Path, file: &[u8], shard: usize) -> Result<Vec<(String, Stored)>, Error> {
    let malformed = |what: String| Error::malformed(path, what);
    let length_bytes = file.first_chunk::<8>();
    let length_bytes = length_bytes.ok_or_else(|| {
        malformed(format!(
            "not a safetensors file: expected at least 8 bytes, found {}",
            file.len()
        ))
    })?;
    let length = u64::from_le_bytes(*length_bytes);
    if length > MAX_HEADER_BYTES {
        return Err(malformed(format!(
            "not a safetensors file: its header would be {length} bytes, at most {MAX_HEADER_BYTES} are allowed"
        )));
    }
    let data_start = 8 + length as usize;
    let header = file.get(8..data_start).ok_or_else(|| {
        malformed(format!(
            "cut short in its header: expected at least {data_start} bytes, found {}",
            file.len()
        ))
    })?;
    let header = std::str::from_utf8(header)
        .map_err(|error| malformed(format!("not a safetensors file: its header is not UTF-8: {error}")))?;
    let Header(mut tensors) = serde_json::from_str(header)
        .map_err(|error| malformed(format!("expected a safetensors header in JSON: {error}")))?;
    tensors.sort_by_key(|(_, info)| info.data_offsets);
    let mut position = 0;
    let mut stored = Vec::with_capacity(tensors.len());
    for (name, info) in tensors {
        let dtype = check(&name, &info, position).map_err(malformed)?;
        let (start, end) = info.data_offsets;
        position = end;
        let range = data_start.saturating_add(start)..data_start.saturating_add(end);
        stored.push((
            name,
            Stored {
                dtype,
                shape: info.shape,
                shard,
                range,
            },
        ));
    }
    let expected = data_start.saturating_add(position);
    if file.len() < expected {
        return Err(malformed(format!(
            "cut short: its header describes {expected} bytes, found {}",
            file.len()
        )));
    }
    if file.len() > expected {
        return Err(malformed(format!(
            "too long: its header describes {expected} bytes, found {}",
            file.len()
        )));
    }
    Ok(stored)
}

/// One tensor that must start at `position` of the data.
fn check(name: &str, info: &TensorInfo, position: usize) -> Result<Dtype, String> {
    let dtype = Dtype::from_safetensors(info.dtype)
        .ok_or_else(|| format!("tensor `{name}`: its type {} is not one that planish reads", info.dtype))?;
    let (start, end) = info.data_offsets;
    if start < position {
        return Err(format!(
            "tensor `{name}`: starts at byte {start} of the data, inside the tensor before, which ends at {position}"
        ));
    }
    if start > position {
        return Err(format!(
            "tensor `{name}`: starts at byte {start} of the data, expected {position}: a hole"
        ));
    }
    let elements = info
        .shape
        .iter()
        .try_fold(1usize, |product, &size| product.checked_mul(size));
    let overflows = || format!("tensor `{name}`: shape {:?} of {dtype} overflows", info.shape);
    let elements = elements
        .filter(|elements| elements.checked_mul(8 * dtype.size_bytes()).is_some())
        .ok_or_else(overflows)?;
    let bytes = dtype.bytes_of(elements).ok_or_else(|| {
        format!(
            "tensor `{name}`: shape {:?} of {dtype} is not of whole bytes",
            info.shape
        )
    })?;
    match end.checked_sub(start) {
        Some(found) if found == bytes => Ok(dtype),
        found => Err(format!(
            "tensor `{name}`: shape {:?} of {dtype} takes {bytes} bytes, found {}",
            info.shape,
            found.map_or(format!("an end {end} before its start {start}"), |found| found
                .to_string())
        )),
    }
}

/// Names and infos in the order of the file.
struct Header(Vec<(String, TensorInfo)>);

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Header, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Header;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an object of tensors by name")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
        let mut names = HashSet::new();
        let mut tensors = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            if !names.insert(name.clone()) {
                return Err(A::Error::custom(format!("tensor `{name}` occurs twice")));
            }
            if name == "__metadata__" {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let info = map
                .next_value()
                .map_err(|error| A::Error::custom(format!("tensor `{name}`: {error}")))?;
            tensors.push((name, info));
        }
        Ok(Header(tensors))
    }
}
