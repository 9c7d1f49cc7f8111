//! The tensors of a checkpoint under Hugging Face's names, for a model of transformers: GGUF files, and what MLX folders rename.

use std::path::PathBuf;

use planish_checkpoint::{Checkpoint, Dtype, Entry, Layout, Weight};
use pyo3::exceptions::{PyKeyError, PyValueError};
use pyo3::prelude::*;

use super::memory::{Span, float_name};
use crate::errors::{caught, raised, unsupported};

/// A GGUF file or a folder, opened; weights are read from it one by one.
#[pyclass(frozen, module = "planish._planish")]
pub struct PackedCheckpoint {
    checkpoint: Checkpoint,
}

/// Shape, type, and of packed weights (bits, group).
type Description = (Vec<usize>, String, Option<(u32, usize)>);

#[pymethods]
impl PackedCheckpoint {
    #[new]
    fn new(py: Python<'_>, path: PathBuf) -> PyResult<PackedCheckpoint> {
        let checkpoint = py.detach(|| Checkpoint::open(&path));
        let checkpoint = checkpoint.map_err(|error| raised(py, &error.into()))?;
        Ok(PackedCheckpoint { checkpoint })
    }

    /// Names of the weights, in the file's order.
    fn names(&self) -> Vec<String> {
        self.checkpoint
            .entries()
            .iter()
            .map(|entry| entry.name.clone())
            .collect()
    }

    /// Names of those that mlx-lm stores otherwise than Hugging Face.
    fn rearranged(&self) -> Vec<String> {
        self.checkpoint.rearranged().map(str::to_owned).collect()
    }

    /// Shape of a weight, the type of its values or scales by PyTorch's name, and of a packed one bits and group.
    fn describe(&self, py: Python<'_>, name: &str) -> PyResult<Description> {
        let entry = self.entry(name)?;
        Ok(match entry.layout {
            Layout::Plain(dtype) => {
                let dtype = plain_name(dtype).ok_or_else(|| unsupported(py, format!("{name}: values of {dtype}")))?;
                (entry.shape.clone(), dtype.to_owned(), None)
            }
            Layout::Packed { packing, scale_type } => {
                let packing = (packing.bits(), packing.group());
                (entry.shape.clone(), float_name(scale_type).to_owned(), Some(packing))
            }
            Layout::Unsupported(ref scheme) => {
                return Err(unsupported(py, format!("{name}: packed as {:?}", scheme.mode)));
            }
        })
    }

    /// Writes a weight's bytes to the addresses: values, or codes, scales and biases.
    fn read(&self, py: Python<'_>, name: &str, into: Vec<usize>) -> PyResult<()> {
        let entry = self.entry(name)?;
        caught(py, || {
            let weight = self
                .checkpoint
                .read(entry)
                .map_err(|error| PyValueError::new_err(error.to_string()))?;
            let parts = match weight {
                Weight::Plain(tensor) => vec![tensor.data],
                Weight::Packed(matrix) => vec![matrix.codes, matrix.scales, matrix.biases],
            };
            if parts.len() != into.len() {
                return Err(PyValueError::new_err(format!(
                    "{name}: {} parts, not {}",
                    parts.len(),
                    into.len()
                )));
            }
            for (part, address) in parts.iter().zip(into) {
                Span::new(address, &[part.len()])?.fill(part);
            }
            self.checkpoint.release(entry);
            Ok(())
        })
    }
}

impl PackedCheckpoint {
    fn entry(&self, name: &str) -> PyResult<&Entry> {
        let missing = || PyKeyError::new_err(format!("{}: no weight {name}", self.checkpoint.path().display()));
        self.checkpoint.entry(name).ok_or_else(missing)
    }
}

/// A type of plain values by PyTorch's name.
fn plain_name(dtype: Dtype) -> Option<&'static str> {
    Some(match dtype {
        Dtype::F64 => "float64",
        Dtype::F32 => "float32",
        Dtype::F16 => "float16",
        Dtype::BF16 => "bfloat16",
        Dtype::I64 => "int64",
        Dtype::I32 => "int32",
        Dtype::I16 => "int16",
        Dtype::I8 => "int8",
        Dtype::U8 => "uint8",
        Dtype::Bool => "bool",
        _ => return None,
    })
}
