//! The header of a GGUF file: magic, version, metadata and the list of tensors with checked places.
//!
//! Layout: `GGUF`, version u32, tensors u64, keys u64, keys, tensors, padding to the alignment, data. Little-endian.
//! Source: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

use std::collections::HashSet;
use std::ops::Range;

use bytes::Bytes;

use super::cursor::Cursor;
use super::fault::Fault;
use super::metadata::{Metadata, read_value};
use super::tensor_type::{self, TensorType};

const DEFAULT_ALIGNMENT: usize = 32;
const MOST_DIMENSIONS: u32 = 4;

/// Everything in front of the data.
#[derive(Debug)]
pub(super) struct Header {
    pub metadata: Metadata,
    pub tensors: Vec<TensorInfo>,
}

impl Header {
    /// Whether there is a tensor of one of these names.
    pub fn has(&self, names: &[&str]) -> bool {
        self.tensors.iter().any(|tensor| names.contains(&tensor.name.as_str()))
    }

    /// Whether any layer has a tensor of this name, the layer left out.
    pub fn has_in_layers(&self, name: &str) -> bool {
        let of_layer = |tensor: &TensorInfo| {
            tensor
                .name
                .strip_prefix("blk.")?
                .split_once('.')
                .map(|(_, rest)| rest == name)
        };
        self.tensors.iter().any(|tensor| of_layer(tensor) == Some(true))
    }
}

/// One tensor of the file.
#[derive(Clone, Debug)]
pub(super) struct TensorInfo {
    /// The name in the file: `blk.0.attn_q.weight`.
    pub name: String,
    /// Sizes, outermost first (the file has them innermost first).
    pub shape: Vec<usize>,
    pub tensor_type: &'static TensorType,
    /// Which file of a split model it is in, from 0.
    pub part: usize,
    /// Where its data lies in the file.
    pub range: Range<usize>,
}

/// Reads and checks the header; afterwards every range lies in the file and no two overlap.
pub(super) fn parse(file: &Bytes) -> Result<Header, Fault> {
    let mut cursor = Cursor::new(file);
    check_magic_and_version(&mut cursor)?;
    let tensor_count = cursor.u64("the number of tensors")?;
    let key_count = cursor.u64("the number of metadata keys")?;
    let metadata = parse_metadata(&mut cursor, key_count)?;

    let mut unplaced = Vec::new();
    let mut names = HashSet::new();
    for _ in 0..tensor_count {
        let info = parse_tensor(&mut cursor)?;
        if !names.insert(info.name.clone()) {
            return Err(Fault::malformed(format!("two tensors are named `{}`", info.name)));
        }
        unplaced.push(info);
    }
    let alignment = alignment(&metadata)?;
    let data_start = cursor.position().next_multiple_of(alignment);
    let tensors = place(
        unplaced,
        &Data {
            start: data_start,
            end: file.len(),
            alignment,
        },
    )?;
    Ok(Header { metadata, tensors })
}

fn check_magic_and_version(cursor: &mut Cursor) -> Result<(), Fault> {
    let magic = cursor.take(4, "the magic number")?;
    if magic != b"GGUF"[..] {
        let found = magic.escape_ascii();
        return Err(Fault::malformed(format!(
            "not a GGUF file: expected the bytes `GGUF` first, found `{found}`"
        )));
    }
    match cursor.u32("the version")? {
        2 | 3 => Ok(()),
        version if version.swap_bytes() <= 3 => Err(Fault::unsupported(
            "a big-endian GGUF file; only little-endian ones are read",
        )),
        version => Err(Fault::unsupported(format!(
            "GGUF version {version}; versions 2 and 3 are read"
        ))),
    }
}

fn parse_metadata(cursor: &mut Cursor, key_count: u64) -> Result<Metadata, Fault> {
    let mut metadata = Metadata::default();
    for _ in 0..key_count {
        let key = cursor.name("a metadata key")?;
        let value = read_value(cursor, &key)?;
        metadata.insert(key, value)?;
    }
    Ok(metadata)
}

fn alignment(metadata: &Metadata) -> Result<usize, Fault> {
    let key = "general.alignment";
    match metadata.count(key)? {
        None => Ok(DEFAULT_ALIGNMENT),
        Some(alignment) if alignment.is_power_of_two() => Ok(alignment),
        Some(alignment) => Err(Fault::key(key, "a power of two", alignment)),
    }
}

/// A tensor as listed: its offset is not checked yet.
struct Listed {
    name: String,
    shape: Vec<usize>,
    tensor_type: &'static TensorType,
    size_bytes: usize,
    offset: u64,
}

fn parse_tensor(cursor: &mut Cursor) -> Result<Listed, Fault> {
    let name = cursor.name("a tensor name")?;
    let dimensions = cursor.u32(&name)?;
    if dimensions == 0 || dimensions > MOST_DIMENSIONS {
        let what = format!("tensor `{name}`: expected 1 to {MOST_DIMENSIONS} dimensions, found {dimensions}");
        return Err(Fault::malformed(what));
    }
    let mut shape = Vec::new();
    for _ in 0..dimensions {
        let size = cursor.u64(&name)?;
        match usize::try_from(size) {
            Ok(size) if size > 0 => shape.push(size),
            _ => {
                return Err(Fault::malformed(format!(
                    "tensor `{name}`: expected sizes of at least 1, found {size}"
                )));
            }
        }
    }
    shape.reverse();
    let id = cursor.u32(&name)?;
    let offset = cursor.u64(&name)?;
    let tensor_type = tensor_type::by_id(id).map_err(|what| Fault::unsupported(format!("tensor `{name}`: {what}")))?;
    let size_bytes = tensor_type
        .size_bytes(&shape)
        .map_err(|what| Fault::malformed(format!("tensor `{name}`: {what}")))?;
    Ok(Listed {
        name,
        shape,
        tensor_type,
        size_bytes,
        offset,
    })
}

/// The part of the file behind the header.
struct Data {
    start: usize,
    end: usize,
    alignment: usize,
}

/// Turns offsets into ranges of the file.
fn place(listed: Vec<Listed>, data: &Data) -> Result<Vec<TensorInfo>, Fault> {
    let mut tensors = Vec::with_capacity(listed.len());
    for Listed {
        name,
        shape,
        tensor_type,
        size_bytes,
        offset,
    } in listed
    {
        let start = usize::try_from(offset)
            .ok()
            .and_then(|offset| data.start.checked_add(offset));
        let range = start.and_then(|start| Some(start..start.checked_add(size_bytes)?));
        let range =
            range.ok_or_else(|| Fault::malformed(format!("tensor `{name}`: its offset {offset} is too large")))?;
        if !offset.is_multiple_of(data.alignment as u64) {
            return Err(Fault::malformed(format!(
                "tensor `{name}`: expected an offset that is a multiple of {}, found {offset}",
                data.alignment
            )));
        }
        if range.end > data.end {
            return Err(Fault::malformed(format!(
                "tensor `{name}`: expected its data at bytes {} to {}, found the end of the file at {}: it is cut or incomplete",
                range.start, range.end, data.end
            )));
        }
        tensors.push(TensorInfo {
            name,
            shape,
            tensor_type,
            part: 0,
            range,
        });
    }
    refuse_overlaps(&tensors)?;
    Ok(tensors)
}

fn refuse_overlaps(tensors: &[TensorInfo]) -> Result<(), Fault> {
    let mut by_place: Vec<&TensorInfo> = tensors.iter().collect();
    by_place.sort_by_key(|tensor| tensor.range.start);
    for pair in by_place.windows(2) {
        if pair[1].range.start < pair[0].range.end {
            let what = format!("the data of tensors `{}` and `{}` overlap", pair[0].name, pair[1].name);
            return Err(Fault::malformed(what));
        }
    }
    Ok(())
}
