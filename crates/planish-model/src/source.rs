//! Where weights come from: a checkpoint, read in place or packed or unpacked on the way; or random numbers of a shape.

mod pending;

use std::cell::RefCell;
use std::collections::HashMap;

use planish_checkpoint::{Beside, Checkpoint, Entry, Layout, LowRank, Tensor, Weight};
use planish_format::{FloatType, PackedMatrix, PackedShape, Packing, memory};
use planish_ops::{Matrix, Origin};
use planish_quantize::Recipe;

use crate::cut::cut;
use crate::{Error, LinearSpec, PrefixAlias, StackSpec};
pub(crate) use pending::{PendingLowRank, PendingWeight};
use pending::{Unpacked, plain, transposed};

/// Weights by name, with the shape that the architecture expects.
pub(crate) trait WeightSource {
    /// A weight (rows, cols), packed or plain, cut from where it stands.
    fn matrix(&self, spec: &LinearSpec) -> Result<PendingWeight<'_>, Error>;
    /// A packed weight without the adapter that changes it, and what that adds to its products; `None` where [`WeightSource::matrix`] is
    /// the whole weight.
    fn adapted(&self, _spec: &LinearSpec) -> Result<Option<(PendingWeight<'_>, PendingLowRank<'_>)>, Error> {
        Ok(None)
    }
    /// The matrices of every expert, (rows, cols) each.
    fn stack(&self, spec: &StackSpec) -> Result<Vec<PendingWeight<'_>>, Error>;
    /// The biases of every expert, where there are some. // (experts * rows)
    fn stack_biases(&self, spec: &StackSpec) -> Result<Option<Vec<f32>>, Error>;
    /// Values of a plain tensor of one of these shapes, as f32.
    fn values(&self, name: &str, shapes: &[&[usize]]) -> Result<Vec<f32>, Error>;
    /// Whether there is a tensor of that name.
    fn has(&self, name: &str) -> bool;
    /// A vector as f32. // (size)
    fn vector(&self, name: &str, size: usize) -> Result<Vec<f32>, Error> {
        self.values(name, &[&[size]])
    }
    /// A single value that need not be stored.
    fn scalar(&self, name: &str, default: f32) -> Result<f32, Error> {
        match self.values(name, &[&[], &[1]]) {
            Err(Error::MissingTensor { .. }) => Ok(default),
            stored => Ok(stored?[0]),
        }
    }
    /// Where the rows of a weight stand, unless its columns are stored as rows.
    fn origin(&self, _spec: &LinearSpec) -> Option<Origin> {
        None
    }
    /// As [`WeightSource::origin`], of every expert.
    fn stack_origins(&self, _spec: &StackSpec) -> Option<Vec<Origin>> {
        None
    }
    /// Names of the entries that weights were given of since the last call.
    fn take_names(&self) -> Vec<String> {
        Vec::new()
    }
    /// What was given so far has been copied, or will be read again: its pages may go.
    fn release(&self) {}
    /// Bytes of all weights at least, where that is known before they are read.
    fn bytes(&self) -> Option<u64> {
        None
    }
}

/// The weights of a checkpoint.
pub(crate) struct CheckpointSource<'a> {
    checkpoint: &'a Checkpoint,
    prefix_aliases: &'a [PrefixAlias],
    quantize: Option<(&'a Recipe, HashMap<String, Packing>)>, // by the names of entries
    dequantize: bool,
    unpack: Unpack,
    given: RefCell<Vec<String>>,                         // names of entries
    replaced: Option<&'a HashMap<String, PackedMatrix>>, // by the names of entries
}

/// The type that packed weights are unpacked to.
#[derive(Clone, Copy)]
pub(crate) enum Unpack {
    /// That of the scales, as a dequantized checkpoint would have.
    ScaleType,
    /// f32: no rounding of the products of scales and codes.
    F32,
}

impl Unpack {
    /// What comes nearest to the model where it is computed exactly, else what its files would hold.
    pub(crate) fn of(exact: bool) -> Unpack {
        match exact {
            true => Unpack::F32,
            false => Unpack::ScaleType,
        }
    }
}

impl<'a> CheckpointSource<'a> {
    pub(crate) fn new(
        checkpoint: &'a Checkpoint,
        prefix_aliases: &'a [PrefixAlias],
        quantize: Option<&'a Recipe>,
        (dequantize, unpack): (bool, Unpack),
    ) -> Result<CheckpointSource<'a>, Error> {
        let plan = |recipe: &'a Recipe| {
            let plan = recipe.plan(checkpoint.config(), checkpoint.entries())?;
            let names = |(index, packing): (usize, _)| (checkpoint.entries()[index].name.clone(), packing);
            Ok::<_, Error>((recipe, plan.packings().into_iter().map(names).collect()))
        };
        Ok(CheckpointSource {
            checkpoint,
            prefix_aliases,
            quantize: quantize.map(plan).transpose()?,
            dequantize,
            unpack,
            given: RefCell::default(),
            replaced: None,
        })
    }

    /// A source that packs these entries, and gives all others as they are stored.
    pub(crate) fn packing(
        checkpoint: &'a Checkpoint,
        prefix_aliases: &'a [PrefixAlias],
        quantize: (&'a Recipe, HashMap<String, Packing>),
        exact: bool,
    ) -> CheckpointSource<'a> {
        CheckpointSource {
            checkpoint,
            prefix_aliases,
            quantize: Some(quantize),
            dequantize: false,
            unpack: Unpack::of(exact),
            given: RefCell::default(),
            replaced: None,
        }
    }

    /// With packed weights in place of what the entries of these names hold.
    pub(crate) fn replacing(self, replaced: &'a HashMap<String, PackedMatrix>) -> CheckpointSource<'a> {
        let replaced = Some(replaced);
        CheckpointSource { replaced, ..self }
    }

    /// The data of an entry.
    pub(crate) fn read(&self, entry: &Entry) -> Result<Weight, Error> {
        match self.replaced.and_then(|replaced| replaced.get(&entry.name)) {
            Some(matrix) => Ok(Weight::Packed(matrix.clone())),
            None => Ok(self.checkpoint.read(entry)?),
        }
    }

    /// The tensor of that name or, where there is none, with an alias of its prefix.
    pub(crate) fn find(&self, name: &str) -> Result<Found<'_>, Error> {
        let found = |name: String| {
            let entry = self.checkpoint.entry(&name);
            let entry = entry.or_else(|| self.checkpoint.packed_part(&name))?;
            Some(Found { name, entry })
        };
        let aliased = |known: &PrefixAlias| {
            let rest = name.strip_prefix(&*known.prefix)?;
            found(format!("{}{rest}", known.alias))
        };
        found(name.to_owned())
            .or_else(|| self.prefix_aliases.iter().find_map(aliased))
            .ok_or_else(|| Error::MissingTensor { name: name.to_owned() })
    }

    /// Whether mlx-lm's tensor of that name is packed, and under Hugging Face's name part of a plain one.
    pub(crate) fn has_packed_part(&self, name: &str) -> bool {
        let found = self.find(name);
        found.is_ok_and(|found| self.checkpoint.packed_part(&found.entry.name).is_some())
    }

    /// Bits and group that the recipe has for a weight.
    fn packing_of(&self, name: &str) -> Option<(&Recipe, Packing)> {
        let (recipe, packings) = self.quantize.as_ref()?;
        Some((recipe, *packings.get(name)?))
    }

    /// A weight cut out of an entry, packed or unpacked as this source was told.
    pub(crate) fn finish<'b>(
        &'b self,
        entry: &'b Entry,
        weight: Weight,
        shape: (usize, usize), // (rows, cols)
    ) -> Result<PendingWeight<'b>, Error> {
        let name = &entry.name;
        self.note(name);
        // Columns may have been rows when this was planned.
        let fits = |(_, packing): &(_, Packing)| packing.check_cols(shape.1).is_ok();
        if let Some((recipe, packing)) = self.packing_of(name).filter(fits) {
            return Ok(PendingWeight::ToPack(Unpacked {
                checkpoint: self.checkpoint,
                entry,
                weight,
                shape,
                recipe,
                packing,
            }));
        }
        let ready = |float_type, data| PendingWeight::Ready(Matrix::Plain(plain(shape, float_type, data)));
        match weight {
            Weight::Packed(matrix) if !self.dequantize => Ok(PendingWeight::Ready(Matrix::Packed(matrix))),
            Weight::Plain(tensor) => Ok(ready(float_type(name, &tensor)?, tensor.data)),
            packed => {
                let tensor = self.unpacked(packed);
                self.checkpoint.release(entry);
                Ok(ready(float_type(name, &tensor)?, tensor.data))
            }
        }
    }

    /// As [`CheckpointSource::finish`], for a weight whose columns are stored as rows. // (cols, rows) to (rows, cols)
    pub(crate) fn finish_transposed<'b>(
        &'b self,
        entry: &'b Entry,
        weight: Weight,
        shape: (usize, usize),
    ) -> Result<PendingWeight<'b>, Error> {
        match weight {
            Weight::Packed(matrix) if !self.dequantize && self.packing_of(&entry.name).is_none() => {
                self.note(&entry.name);
                let float_type = self.unpacked_type(&matrix);
                Ok(PendingWeight::Transposed(matrix, float_type))
            }
            weight => self.finish(entry, Weight::Plain(transposed(self.unpacked(weight))), shape),
        }
    }

    /// Notes that a weight of this entry is given.
    fn note(&self, name: &str) {
        let mut given = self.given.borrow_mut();
        if given.last().is_none_or(|last| last != name) {
            given.push(name.to_owned());
        }
    }

    /// The same weight, plain.
    fn unpacked(&self, weight: Weight) -> Tensor {
        match weight {
            Weight::Plain(tensor) => tensor,
            Weight::Packed(matrix) => Tensor::unpacked(&matrix, self.unpacked_type(&matrix)),
        }
    }

    fn unpacked_type(&self, matrix: &PackedMatrix) -> FloatType {
        match self.unpack {
            Unpack::ScaleType => matrix.scale_type,
            Unpack::F32 => FloatType::F32,
        }
    }
}

/// A tensor under the name that it has in the checkpoint.
pub(crate) struct Found<'a> {
    pub(crate) name: String,
    pub(crate) entry: &'a Entry,
}

impl Found<'_> {
    pub(crate) fn check_shape(&self, expected: &[usize]) -> Result<(), Error> {
        match self.entry.shape == expected {
            true => Ok(()),
            false => Err(Error::Shape {
                name: self.name.clone(),
                expected: expected.to_vec(),
                found: self.entry.shape.clone(),
            }),
        }
    }
}

impl WeightSource for CheckpointSource<'_> {
    fn matrix(&self, spec: &LinearSpec) -> Result<PendingWeight<'_>, Error> {
        let found = self.find(&format!("{}.weight", spec.name))?;
        let plain = matches!(self.checkpoint.stored_layout(found.entry), Layout::Plain(_));
        let transposed = spec.transposed && plain;
        found.check_shape(&match transposed {
            true => [spec.cols, spec.stored_rows()],
            false => [spec.stored_rows(), spec.cols],
        })?;
        let entry = found.entry;
        let weight = cut(self.read(entry)?, spec, transposed);
        self.finish(entry, weight, (spec.rows, spec.cols))
    }

    fn adapted(&self, spec: &LinearSpec) -> Result<Option<(PendingWeight<'_>, PendingLowRank<'_>)>, Error> {
        if self.quantize.is_some() || self.dequantize || self.replaced.is_some() {
            return Ok(None);
        }
        let found = self.find(&format!("{}.weight", spec.name))?;
        let Some(Beside { weight, low_rank }) = self.checkpoint.read_beside(found.entry)? else {
            return Ok(None);
        };
        found.check_shape(&[spec.stored_rows(), spec.cols])?;
        let LowRank { a, b, scale } = low_rank;
        let rank = a.shape[0];
        let cols_of_b = LinearSpec {
            cols: rank,
            ..spec.clone()
        };
        let whole = |weight, shape| self.finish(found.entry, weight, shape);
        Ok(Some((
            whole(cut(Weight::Packed(weight), spec, false), (spec.rows, spec.cols))?,
            PendingLowRank {
                a: whole(Weight::Plain(a), (rank, spec.cols))?,
                b: whole(cut(Weight::Plain(b), &cols_of_b, false), (spec.rows, rank))?,
                rank,
                scale,
            },
        )))
    }

    fn stack(&self, spec: &StackSpec) -> Result<Vec<PendingWeight<'_>>, Error> {
        self.read_stack(spec)
    }

    fn stack_biases(&self, spec: &StackSpec) -> Result<Option<Vec<f32>>, Error> {
        self.read_stack_biases(spec)
    }

    fn origin(&self, spec: &LinearSpec) -> Option<Origin> {
        let found = self.find(&format!("{}.weight", spec.name)).ok()?;
        let is_transposed = spec.transposed && matches!(self.checkpoint.stored_layout(found.entry), Layout::Plain(_));
        (!is_transposed).then_some(Origin {
            entry: found.name,
            part: 0,
            parts: 1,
        })
    }

    fn stack_origins(&self, spec: &StackSpec) -> Option<Vec<Origin>> {
        self.find_stack_origins(spec)
    }

    fn take_names(&self) -> Vec<String> {
        self.given.take()
    }

    fn release(&self) {
        self.checkpoint.release_all();
    }

    fn has(&self, name: &str) -> bool {
        self.find(name).is_ok()
    }

    fn values(&self, name: &str, shapes: &[&[usize]]) -> Result<Vec<f32>, Error> {
        let found = self.find(name)?;
        let fits = |shape: &&&[usize]| found.entry.shape == **shape;
        let shape = shapes.iter().find(fits).unwrap_or(&shapes[0]);
        found.check_shape(shape)?;
        match self.checkpoint.read(found.entry)? {
            Weight::Plain(tensor) => {
                let float_type = float_type(name, &tensor)?;
                let mut values = memory::filled("weights", shape.iter().product(), 0.0);
                float_type.decode(&tensor.data, &mut values);
                Ok(values)
            }
            Weight::Packed(_) => Err(Error::PackedVector { name: name.to_owned() }),
        }
    }

    fn bytes(&self) -> Option<u64> {
        let entries = self.checkpoint.entries().iter();
        let packed = self.quantize.as_ref().map(|(_, packed)| packed);
        let bytes = |entry: &Entry| match packed.and_then(|packed| packed.get(&entry.name)) {
            Some(packing) => packed_bytes(entry, *packing),
            None => entry.stored_bytes,
        };
        (!self.dequantize).then(|| entries.map(bytes).sum())
    }
}

/// Of codes, and of scales and biases of 16 bits; as stored where it cannot be packed so.
fn packed_bytes(entry: &Entry, packing: Packing) -> u64 {
    let (rows, cols) = entry.rows_cols();
    let shape = PackedShape::new(rows, cols, packing, FloatType::BF16);
    shape.map_or(entry.stored_bytes, |shape| {
        (shape.code_bytes() + 2 * shape.scale_bytes()) as u64
    })
}

fn float_type(name: &str, tensor: &Tensor) -> Result<FloatType, Error> {
    tensor.dtype.float_type().ok_or_else(|| Error::TensorType {
        name: name.to_owned(),
        found: tensor.dtype,
    })
}

#[cfg(test)]
mod tests {
    use planish_checkpoint::Dtype;

    use super::*;

    #[test]
    fn packed_weights_are_counted_as_they_will_be() {
        let entry = Entry {
            name: "w.weight".to_owned(),
            shape: vec![3, 64],
            layout: Layout::Plain(Dtype::BF16),
            stored_bytes: 384,
        };
        let packing = Packing::new(4, 32).unwrap();
        assert_eq!(packed_bytes(&entry, packing), 3 * (32 + 2 * 4));
    }
}
