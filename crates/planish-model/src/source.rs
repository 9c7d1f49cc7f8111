//! Where weights come from: a checkpoint, read in place or packed or unpacked on the way; or random numbers of a shape.

use std::collections::HashMap;

use planish_checkpoint::{Checkpoint, Entry, Layout, Tensor, View, Weight};
use planish_format::{FloatType, PackedMatrix, PackedShape, Packing};
use planish_ops::{Matrix, Packable, PlainMatrix};
use planish_quantize::{Recipe, pack_weight};

use crate::cut::cut;
use crate::{Error, LinearSpec, PrefixAlias, StackSpec};

/// Weights by name, with the shape that the architecture expects.
pub(crate) trait WeightSource {
    /// A weight (rows, cols), packed or plain, cut from where it stands.
    fn matrix(&self, spec: &LinearSpec) -> Result<Supply<'_>, Error>;
    /// The matrices of every expert, (rows, cols) each.
    fn stack(&self, spec: &StackSpec) -> Result<Vec<Supply<'_>>, Error>;
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
    /// What was given so far has been copied, or will be read again: its pages may go.
    fn release(&self) {}
    /// Bytes of all weights at least, where that is known before they are read.
    fn bytes(&self) -> Option<u64> {
        None
    }
}

/// A weight on its way to the device. // (rows, cols)
pub(crate) enum Supply<'a> {
    /// As it stays.
    Ready(Matrix),
    /// To be packed, by the device or the host.
    ToPack(ToPack<'a>),
    /// Packed, its columns stored as rows, and the type to unpack it to. // (cols, rows)
    Transposed(PackedMatrix, FloatType),
}

/// A weight that the recipe packs.
pub(crate) struct ToPack<'a> {
    checkpoint: &'a Checkpoint,
    entry: &'a Entry,
    weight: Weight,
    shape: (usize, usize), // (rows, cols)
    recipe: &'a Recipe,
    packing: Packing,
}

impl Supply<'_> {
    /// What a device may pack.
    pub(crate) fn packable(&self) -> Option<Packable> {
        let Supply::ToPack(ToPack {
            weight: Weight::Plain(tensor),
            shape: (rows, cols),
            recipe,
            packing,
            ..
        }) = self
        else {
            return None;
        };
        let float_type = tensor.dtype.float_type()?;
        Some(Packable {
            plain: PlainMatrix {
                rows: *rows,
                cols: *cols,
                float_type,
                data: tensor.data.clone(),
            },
            packing: *packing,
            encoder: recipe.encoder,
            scale_type: recipe.dtype.unwrap_or(float_type),
            allow_non_finite: recipe.allow_non_finite,
        })
    }

    /// The weight as it stays, packed here if it must be.
    pub(crate) fn on_host(self) -> Result<Matrix, Error> {
        let matrix = match self {
            Supply::Ready(matrix) => return Ok(matrix),
            Supply::Transposed(matrix, float_type) => {
                let Tensor { shape, data, .. } = transposed(Tensor::unpacked(&matrix, float_type));
                return Ok(Matrix::Plain(PlainMatrix {
                    rows: shape[0],
                    cols: shape[1],
                    float_type,
                    data,
                }));
            }
            Supply::ToPack(ref to_pack) => {
                pack_weight(&to_pack.entry.name, &to_pack.weight, to_pack.packing, to_pack.recipe)?
            }
        };
        self.release();
        Ok(Matrix::Packed(matrix))
    }

    /// What a device may multiply by without unpacking it. // (cols, rows)
    pub(crate) fn transposed(&self) -> Option<Matrix> {
        match self {
            Supply::Transposed(matrix, _) => Some(Matrix::Packed(matrix.clone())),
            _ => None,
        }
    }

    /// Says that plain values are not needed again.
    pub(crate) fn release(&self) {
        if let Supply::ToPack(ToPack { checkpoint, entry, .. }) = self {
            checkpoint.release(entry);
        }
    }
}

/// The weights of a checkpoint.
pub(crate) struct CheckpointSource<'a> {
    checkpoint: &'a Checkpoint,
    prefix_aliases: &'a [PrefixAlias],
    quantize: Option<(&'a Recipe, HashMap<String, Packing>)>, // by the names of entries
    dequantize: bool,
    unpack: Unpack,
}

/// The type that packed weights are unpacked to.
#[derive(Clone, Copy)]
pub(crate) enum Unpack {
    /// That of the scales, as a dequantized checkpoint would have.
    ScaleType,
    /// f32: no rounding of the products of scales and codes.
    F32,
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
        })
    }

    /// The data of an entry.
    pub(crate) fn read(&self, entry: &Entry) -> Result<Weight, Error> {
        Ok(self.checkpoint.read(entry)?)
    }

    /// The tensor of that name or, where there is none, with an alias of its prefix.
    pub(crate) fn find(&self, name: &str) -> Result<Found<'_>, Error> {
        let found = |name: String| {
            let entry = self.checkpoint.entry(&name)?;
            Some(Found { name, entry })
        };
        let aliased = |known: &PrefixAlias| {
            let rest = name.strip_prefix(known.prefix)?;
            found(format!("{}{rest}", known.alias))
        };
        found(name.to_owned())
            .or_else(|| self.prefix_aliases.iter().find_map(aliased))
            .ok_or_else(|| Error::MissingTensor { name: name.to_owned() })
    }

    /// Bits and group that the recipe has for a weight.
    fn packing(&self, name: &str) -> Option<(&Recipe, Packing)> {
        let (recipe, packings) = self.quantize.as_ref()?;
        Some((recipe, *packings.get(name)?))
    }

    /// A weight cut out of an entry, packed or unpacked as this source was told.
    pub(crate) fn finish<'b>(
        &'b self,
        entry: &'b Entry,
        weight: Weight,
        (rows, cols): (usize, usize),
    ) -> Result<Supply<'b>, Error> {
        let name = &entry.name;
        // Columns may have been rows when this was planned.
        let fits = |(_, packing): &(_, Packing)| packing.check_cols(cols).is_ok();
        if let Some((recipe, packing)) = self.packing(name).filter(fits) {
            return Ok(Supply::ToPack(ToPack {
                checkpoint: self.checkpoint,
                entry,
                weight,
                shape: (rows, cols),
                recipe,
                packing,
            }));
        }
        let plain = |float_type, data| {
            Supply::Ready(Matrix::Plain(PlainMatrix {
                rows,
                cols,
                float_type,
                data,
            }))
        };
        match weight {
            Weight::Packed(matrix) if !self.dequantize => Ok(Supply::Ready(Matrix::Packed(matrix))),
            Weight::Plain(tensor) => Ok(plain(float_type(name, &tensor)?, tensor.data)),
            packed => {
                let tensor = self.unpacked(packed);
                self.checkpoint.release(entry);
                Ok(plain(float_type(name, &tensor)?, tensor.data))
            }
        }
    }

    /// As [`CheckpointSource::finish`], for a weight whose columns are stored as rows. // (cols, rows) to (rows, cols)
    pub(crate) fn finish_transposed<'b>(
        &'b self,
        entry: &'b Entry,
        weight: Weight,
        shape: (usize, usize),
    ) -> Result<Supply<'b>, Error> {
        match weight {
            Weight::Packed(matrix) if !self.dequantize && self.packing(&entry.name).is_none() => {
                let float_type = self.unpacked_type(&matrix);
                Ok(Supply::Transposed(matrix, float_type))
            }
            weight => self.finish(entry, Weight::Plain(transposed(self.unpacked(weight))), shape),
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

/// A plain tensor with columns as rows. // (cols, rows) to (rows, cols)
fn transposed(tensor: Tensor) -> Tensor {
    let (cols, rows) = tensor.rows_cols();
    View::transpose(cols).apply(tensor, &[rows, cols])
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
    fn matrix(&self, spec: &LinearSpec) -> Result<Supply<'_>, Error> {
        let found = self.find(&format!("{}.weight", spec.name))?;
        let plain = matches!(found.entry.layout, Layout::Plain(_));
        let transposed = spec.transposed && plain;
        found.check_shape(&match transposed {
            true => [spec.cols, spec.stored_rows()],
            false => [spec.stored_rows(), spec.cols],
        })?;
        let entry = found.entry;
        let weight = cut(self.checkpoint.read(entry)?, spec, transposed);
        self.finish(entry, weight, (spec.rows, spec.cols))
    }

    fn stack(&self, spec: &StackSpec) -> Result<Vec<Supply<'_>>, Error> {
        self.read_stack(spec)
    }

    fn stack_biases(&self, spec: &StackSpec) -> Result<Option<Vec<f32>>, Error> {
        self.read_stack_biases(spec)
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
                let mut values = vec![0.0; shape.iter().product()];
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
