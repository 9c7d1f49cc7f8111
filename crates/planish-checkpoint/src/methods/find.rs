//! The tensors of a module, with the messages for those that are missing or of another kind.

use std::path::Path;

use crate::folder::tensors::{Stored, Tensors};
use crate::{Dtype, Error, Tensor};

/// Looks for tensors.
pub(super) struct Find<'a> {
    pub tensors: &'a Tensors,
    pub config_file: &'a Path,
}

impl<'a> Find<'a> {
    /// A tensor that must be there: `of` is the one that asks for it.
    pub fn need(&self, name: &str, of: &str) -> Result<&'a Stored, Error> {
        let found = self.tensors.get(name);
        found.ok_or_else(|| self.wrong(of, &format!("has no tensor `{name}` beside it")))
    }

    /// A matrix of one of these types. // (rows, cols)
    pub fn matrix(&self, name: &str, stored: &Stored, types: &[Dtype]) -> Result<[usize; 2], Error> {
        self.check_type(name, stored, types)?;
        match stored.shape[..] {
            [rows, cols] if rows > 0 && cols > 0 => Ok([rows, cols]),
            _ => Err(self.wrong(
                name,
                &format!("expected two sizes above zero, found {:?}", stored.shape),
            )),
        }
    }

    /// That a tensor has one of these types.
    pub fn check_type(&self, name: &str, stored: &Stored, types: &[Dtype]) -> Result<(), Error> {
        if types.contains(&stored.dtype) {
            return Ok(());
        }
        let types: Vec<String> = types.iter().map(Dtype::to_string).collect();
        let what = format!("expected {}, found {}", types.join(" or "), stored.dtype);
        Err(self.wrong(name, &what))
    }

    /// That a tensor has this shape.
    pub fn check_shape(&self, name: &str, stored: &Stored, expected: &[usize]) -> Result<(), Error> {
        match stored.shape == expected {
            true => Ok(()),
            false => Err(self.wrong(name, &format!("expected shape {expected:?}, found {:?}", stored.shape))),
        }
    }

    /// The data of a tensor that is there.
    pub fn read(&self, name: &str) -> Result<Tensor, Error> {
        let found = self.tensors.read(name);
        found.ok_or_else(|| Error::missing(self.config_file, format!("the checkpoint has no tensor `{name}`")))
    }

    /// What is wrong with a tensor.
    pub fn wrong(&self, name: &str, what: &str) -> Error {
        let file = self
            .tensors
            .get(name)
            .map_or(self.config_file, |stored| self.tensors.file(stored));
        Error::malformed(file, format!("tensor `{name}`: {what}"))
    }

    /// A tensor that is as it should be and cannot be read.
    pub fn unsupported(&self, name: &str, what: &str) -> Error {
        let file = self
            .tensors
            .get(name)
            .map_or(self.config_file, |stored| self.tensors.file(stored));
        Error::unsupported(file, format!("tensor `{name}`: {what}"))
    }
}

/// The types of floats that scales come in.
pub(super) const FLOATS: [Dtype; 3] = [Dtype::F32, Dtype::F16, Dtype::BF16];
/// The types of words of codes.
pub(super) const WORDS: [Dtype; 2] = [Dtype::I32, Dtype::U32];
