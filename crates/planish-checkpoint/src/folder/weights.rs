//! Entries read from the tensors of safetensors files, mapped or in memory.

use std::path::PathBuf;

use bytes::Bytes;
use planish_format::{PackedMatrix, PackedShape, memory};

use super::tensors::Tensors;
use crate::methods::RespelledByName;
use crate::{Entry, Error, Layout, Tensor, Weight};

/// The tensors of a checkpoint and how its dialect calls the parts of a packed module.
pub(crate) struct Weights {
    /// Where they come from, for messages.
    pub origin: PathBuf,
    /// All tensors.
    pub tensors: Tensors,
    /// Those that must be respelled, by the names of entries.
    pub respelled: RespelledByName,
    /// What follows a module's path in the name of its biases.
    pub biases_suffix: &'static str,
}

impl Weights {
    /// The data of an entry.
    pub fn read(&self, entry: &Entry) -> Result<Weight, Error> {
        if let Some(respelled) = self.respelled.get(&entry.name) {
            let parts: Result<Vec<Tensor>, Error> = respelled.parts.iter().map(|part| self.part(part)).collect();
            let wrong = |what| Error::malformed(&self.origin, format!("tensor `{}`: {what}", entry.name));
            return (respelled.decode)(&parts?).map_err(wrong);
        }
        match &entry.layout {
            Layout::Plain(_) => Ok(Weight::Plain(self.part(&entry.name)?)),
            Layout::Packed { packing, scale_type } => {
                let module = entry.module().unwrap_or(&entry.name);
                let (rows, cols) = entry.rows_cols();
                let invalid = |error| Error::malformed(&self.origin, format!("tensor `{}`: {error}", entry.name));
                let shape = PackedShape::new(rows, cols, *packing, *scale_type).map_err(invalid)?;
                let codes = aligned(self.part(&entry.name)?);
                let scales = aligned(self.part(&format!("{module}.scales"))?);
                let biases = aligned(self.part(&format!("{module}{}", self.biases_suffix))?);
                PackedMatrix::new(shape, codes, scales, biases)
                    .map(Weight::Packed)
                    .map_err(invalid)
            }
        }
    }

    /// Tells the system that the pages of an entry are not needed for now.
    pub fn release(&self, entry: &Entry) {
        if let Some(respelled) = self.respelled.get(&entry.name) {
            return respelled.parts.iter().for_each(|part| self.tensors.release(part));
        }
        let mut names = vec![entry.name.clone()];
        if let (Some(module), false) = (entry.module(), matches!(entry.layout, Layout::Plain(_))) {
            names.push(format!("{module}.scales"));
            names.push(format!("{module}{}", self.biases_suffix));
        }
        for name in &names {
            self.tensors.release(name);
        }
    }

    fn part(&self, name: &str) -> Result<Tensor, Error> {
        let missing = || Error::missing(&self.origin, format!("the checkpoint has no tensor `{name}`"));
        self.tensors.read(name).ok_or_else(missing)
    }
}

/// The data of a tensor at an address that its type asks for. Files by today's writers have it so; older ones are copied.
fn aligned(tensor: Tensor) -> Bytes {
    let data = tensor.data;
    if data.as_ptr().align_offset(tensor.dtype.size_bytes()) == 0 {
        return data;
    }
    let mut words = memory::filled("weights", data.len().div_ceil(8), 0u64);
    bytemuck::cast_slice_mut(&mut words)[..data.len()].copy_from_slice(&data);
    Bytes::from_owner(Words(words)).slice(..data.len())
}

/// Aligned bytes for `Bytes` to own.
struct Words(Vec<u64>);

impl AsRef<[u8]> for Words {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}
