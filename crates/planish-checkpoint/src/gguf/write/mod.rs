//! A checkpoint as one GGUF file (version 3) that llama.cpp loads: names, order of rows, metadata and tokenizer as its converter has
//! them, packed groups as its blocks.
//!
//! The file appears under its name only when it is whole.

mod blocks;
mod keys;
mod sentencepiece;
mod shapes;
mod tokenizer;

use std::io::{BufWriter, Write};
use std::path::Path;

use planish_format::PackedMatrix;

use self::blocks::Block;
use self::keys::Pairs;
use self::shapes::Shapes;
use super::architecture::{self, Architecture};
use super::row_order::RowOrder;
use crate::tensor::rows_cols;
use crate::writer::StagedFile;
use crate::{Checkpoint, Entry, Error, Layout, Weight, cast};

/// How a file begins.
const MAGIC: &[u8] = b"GGUF";

/// Where tensors begin, at multiples of this.
const ALIGNMENT: u64 = 32;

/// What a written file holds.
#[derive(Clone, Debug, Default)]
pub struct GgufWritten {
    /// Weights that are blocks of codes.
    pub packed: usize,
    /// Bytes of all tensors.
    pub bytes: u64,
    /// Packed weights that are floats in the file, with the reason.
    pub unpacked: Vec<(String, String)>,
    /// What else is to be known.
    pub notes: Vec<String>,
}

/// A tensor of the file.
struct Planned<'a> {
    name: String,
    entry: &'a Entry,
    /// Outermost first.
    shape: Vec<usize>,
    block: Block,
    order: RowOrder,
    position: u64,
}

/// Writes `checkpoint` to the file `target`. `on_tensor` is told of each entry that is written; if it says no, there is no file and
/// nothing is returned.
///
/// # Errors
/// An architecture, tokenizer or weight that is not written to GGUF; a file that exists, unless `force`, or cannot be written.
pub fn write_gguf(
    checkpoint: &Checkpoint,
    target: &Path,
    force: bool,
    on_tensor: &mut dyn FnMut(&Entry) -> bool,
) -> Result<Option<GgufWritten>, Error> {
    let refuse = |what: String| Error::unsupported(checkpoint.path(), what);
    StagedFile::check(target, force, MAGIC)?;
    let (architecture, heads) = keys::architecture(checkpoint.config()).map_err(refuse)?;
    let mut pairs = Pairs::default();
    keys::add(checkpoint.config(), architecture, &mut pairs).map_err(refuse)?;
    let factors = keys::rope_factors(checkpoint.config()).map_err(refuse)?;
    let mut written = GgufWritten::default();
    let mut planned: Vec<Planned> = Vec::new();
    let shapes = Shapes::of(checkpoint.config()).map_err(refuse)?;
    // A tied head that is stored all the same is the token table.
    let tied = checkpoint
        .config()
        .get("tie_word_embeddings")
        .and_then(|tied| tied.as_bool())
        == Some(true);
    for entry in checkpoint.entries() {
        if (tied && entry.name == "lm_head.weight") || entry.name.ends_with("rotary_emb.inv_freq") {
            continue;
        }
        let name = stored_name(architecture, &entry.name)
            .ok_or_else(|| refuse(format!("GGUF has no name for the tensor `{}`", entry.name)))?;
        shapes.check(&name, &entry.name, &entry.shape).map_err(refuse)?;
        let (block, reason) = block_of(checkpoint, entry)?;
        written.packed += usize::from(block.is_packed());
        written
            .unpacked
            .extend(reason.map(|reason| (module(entry).to_owned(), reason)));
        planned.push(Planned {
            order: heads.order(architecture, &entry.name),
            name,
            entry,
            shape: entry.shape.clone(),
            block,
            position: 0,
        });
    }
    let has = |name: &str| planned.iter().any(|tensor| tensor.name == name);
    shapes.check_names(has, tied).map_err(refuse)?;
    // The vocabulary has as many tokens as the table has rows, so that it cannot be without bound.
    tokenizer::add(checkpoint, &mut pairs)?;
    let mut end = factors.as_ref().map_or(0, |factors| padded(4 * factors.len() as u64));
    for tensor in &mut planned {
        tensor.position = end;
        let size = tensor
            .block
            .size_bytes(&tensor.shape)
            .ok_or_else(|| refuse("a tensor is too large".to_owned()))?;
        written.bytes += size;
        end += padded(size);
    }
    let mut rounded = 0;
    let staged = StagedFile::create(target, force, MAGIC)?;
    {
        let mut file = BufWriter::new(staged.file());
        let io = Error::io(target);
        file.write_all(&header(&pairs, factors.as_deref(), &planned))
            .map_err(io)?;
        if let Some(factors) = &factors {
            let data: Vec<u8> = factors.iter().flat_map(|factor| factor.to_le_bytes()).collect();
            append(&mut file, &data, target)?;
        }
        for tensor in &planned {
            let (data, inexact) = data(checkpoint, tensor)?;
            rounded += inexact;
            append(&mut file, &data, target)?;
            checkpoint.release(tensor.entry);
            if !on_tensor(tensor.entry) {
                return Ok(None);
            }
        }
        file.flush().map_err(Error::io(target))?;
    }
    checkpoint.check_unchanged()?;
    staged.publish()?;
    if rounded > 0 {
        written.notes.push(format!(
            "{rounded} groups have a scale or bias that half precision does not hold, which was rounded"
        ));
    }
    Ok(Some(written))
}

fn module(entry: &Entry) -> &str {
    entry.name.strip_suffix(".weight").unwrap_or(&entry.name)
}

fn padded(size: u64) -> u64 {
    size.next_multiple_of(ALIGNMENT)
}

fn append(file: &mut impl Write, data: &[u8], target: &Path) -> Result<(), Error> {
    let zeros = [0; ALIGNMENT as usize];
    let padding = (padded(data.len() as u64) - data.len() as u64) as usize;
    file.write_all(data)
        .and_then(|()| file.write_all(&zeros[..padding]))
        .map_err(Error::io(target))
}

/// The name of a tensor in GGUF.
fn stored_name(architecture: &Architecture, name: &str) -> Option<String> {
    let (module, part) = name.rsplit_once('.')?;
    if let Some(stored) = architecture.stored(module, false) {
        return Some(format!("{stored}.{part}"));
    }
    let rest = module.strip_prefix(architecture.layers)?.strip_prefix('.')?;
    let (layer, rest) = rest.split_once('.')?;
    let layer: u32 = layer.parse().ok()?;
    Some(format!("blk.{layer}.{}.{part}", architecture.stored(rest, true)?))
}

/// The type in the file, and why a packed weight is none there.
fn block_of(checkpoint: &Checkpoint, entry: &Entry) -> Result<(Block, Option<String>), Error> {
    match entry.layout {
        // llama.cpp wants norms and biases in f32.
        Layout::Plain(dtype) => match dtype.float_type() {
            Some(_) if entry.shape.len() < 2 => Ok((Block::F32, None)),
            Some(float_type) => Ok((Block::of_floats(float_type), None)),
            None => Err(Error::unsupported(
                checkpoint.path(),
                format!("`{}` is of {dtype}, which GGUF files have no floats of", entry.name),
            )),
        },
        Layout::Packed { .. } => {
            let Weight::Packed(matrix) = checkpoint.read(entry)? else {
                return Err(changed(checkpoint, entry));
            };
            let chosen = Block::of_codes(&matrix);
            checkpoint.release(entry);
            Ok(match chosen {
                Ok(block) => (block, None),
                Err((block, reason)) => (block, Some(reason)),
            })
        }
    }
}

fn changed(checkpoint: &Checkpoint, entry: &Entry) -> Error {
    Error::changed(checkpoint.path(), format!("`{}` is stored otherwise", entry.name))
}

/// The bytes of a tensor, and how many of its groups were rounded.
fn data(checkpoint: &Checkpoint, tensor: &Planned) -> Result<(Vec<u8>, usize), Error> {
    let (rows, cols) = rows_cols(&tensor.shape);
    let changed = || changed(checkpoint, tensor.entry);
    let size = tensor.block.size_bytes(&tensor.shape).ok_or_else(changed)? as usize;
    let row_bytes = size / rows.max(1);
    let mut data = planish_format::memory::filled("weights", size, 0u8);
    // Biases of rows that are reordered are columns of one value.
    let (rows, row_bytes) = match tensor.shape.len() {
        1 => (cols, row_bytes / cols.max(1)),
        _ => (rows, row_bytes),
    };
    let mut place = |row: usize, bytes: &[u8]| {
        let at = tensor.order.stored_row(row) * row_bytes;
        data[at..at + row_bytes].copy_from_slice(bytes);
    };
    let mut rounded = 0;
    match checkpoint.read(tensor.entry)? {
        Weight::Plain(plain) => {
            let float_type = plain.dtype.float_type().ok_or_else(changed)?;
            let bytes = cast(&plain.data, float_type, tensor.block.float_type().ok_or_else(changed)?);
            let all_rows = bytes.chunks(row_bytes.max(1)).enumerate();
            all_rows.for_each(|(row, bytes)| place(row, bytes));
        }
        Weight::Packed(matrix) => {
            let mut bytes = vec![0; row_bytes];
            for row in 0..rows {
                rounded += packed_row(tensor.block, &matrix, row, &mut bytes);
                place(row, &bytes);
            }
        }
    }
    Ok((data, rounded))
}

fn packed_row(block: Block, matrix: &PackedMatrix, row: usize, bytes: &mut [u8]) -> usize {
    match block.float_type() {
        None => block.encode_row(matrix, row, bytes),
        Some(float_type) => {
            let mut values = vec![0.0; matrix.cols];
            matrix.dequantize_row(row, &mut values);
            float_type.encode(&values, bytes);
            0
        }
    }
}

/// All before the tensors.
fn header(pairs: &Pairs, factors: Option<&[f32]>, planned: &[Planned]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(3u32.to_le_bytes());
    let tensors = planned.len() + usize::from(factors.is_some());
    bytes.extend((tensors as u64).to_le_bytes());
    bytes.extend(pairs.count.to_le_bytes());
    bytes.extend(&pairs.bytes);
    let mut describe = |name: &str, shape: &[usize], kind: u32, position: u64| {
        keys::text(&mut bytes, name);
        bytes.extend((shape.len() as u32).to_le_bytes());
        let sizes = shape.iter().rev();
        sizes.for_each(|&size| bytes.extend((size as u64).to_le_bytes()));
        bytes.extend(kind.to_le_bytes());
        bytes.extend(position.to_le_bytes());
    };
    if let Some(factors) = factors {
        describe("rope_freqs.weight", &[factors.len()], Block::F32.id(), 0);
    }
    for tensor in planned {
        describe(&tensor.name, &tensor.shape, tensor.block.id(), tensor.position);
    }
    bytes.resize(padded(bytes.len() as u64) as usize, 0);
    bytes
}

impl Architecture {
    /// The name in GGUF of a module, in a layer or outside of them.
    fn stored(&self, module: &str, in_layer: bool) -> Option<&'static str> {
        let common: &[(&str, &str)] = if in_layer {
            &architecture::LAYER
        } else {
            &architecture::TOP
        };
        let found = self.names.iter().chain(common).find(|(_, name)| *name == module);
        found.map(|(stored, _)| *stored)
    }
}
