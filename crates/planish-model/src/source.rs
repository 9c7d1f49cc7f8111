//! Where weights come from: a checkpoint, read in place or packed or unpacked on the way; or random numbers of a shape.

use planish_checkpoint::{Checkpoint, Dtype, Entry, Layout, Tensor, Weight};
use planish_format::{FloatType, Packing, dequantize};
use planish_ops::{Matrix, PlainMatrix};
use planish_quantize::{Action, Plan, Recipe, pack_weight};

use crate::cut::cut;
use crate::{Error, LinearSpec};

/// Weights by name, with the shape that the architecture expects.
pub(crate) trait WeightSource {
    /// A weight (rows, cols), packed or plain, cut from where it stands.
    fn matrix(&self, spec: &LinearSpec) -> Result<Matrix, Error>;
    /// Values of a plain tensor of one of these shapes, as f32.
    fn values(&self, name: &str, shapes: &[&[usize]]) -> Result<Vec<f32>, Error>;
    /// A vector as f32. // (size)
    fn vector(&self, name: &str, size: usize) -> Result<Vec<f32>, Error> {
        self.values(name, &[&[size]])
    }
}

/// The weights of a checkpoint.
pub(crate) struct CheckpointSource<'a> {
    checkpoint: &'a Checkpoint,
    quantize: Option<(&'a Recipe, Plan)>,
    dequantize: Option<Unpack>,
}

/// The type that packed weights are unpacked to.
#[derive(Clone, Copy)]
pub(crate) enum Unpack {
    /// That of the scales, as a dequantized checkpoint would have.
    ScaleType,
    /// f32: no rounding of the products of scales and codes.
    Single,
}

impl<'a> CheckpointSource<'a> {
    pub(crate) fn new(
        checkpoint: &'a Checkpoint,
        quantize: Option<&'a Recipe>,
        dequantize: Option<Unpack>,
    ) -> Result<CheckpointSource<'a>, Error> {
        let plan = |recipe: &'a Recipe| {
            recipe
                .plan(checkpoint.config(), checkpoint.entries())
                .map(|plan| (recipe, plan))
        };
        Ok(CheckpointSource {
            checkpoint,
            quantize: quantize.map(plan).transpose()?,
            dequantize,
        })
    }

    fn entry(&self, name: &str) -> Result<&Entry, Error> {
        let missing = || Error::MissingTensor { name: name.to_owned() };
        self.checkpoint.entry(name).ok_or_else(missing)
    }

    fn entry_of_shape(&self, name: &str, expected: &[usize]) -> Result<&Entry, Error> {
        let entry = self.entry(name)?;
        if entry.shape != expected {
            let (expected, found) = (expected.to_vec(), entry.shape.clone());
            return Err(Error::Shape {
                name: name.to_owned(),
                expected,
                found,
            });
        }
        Ok(entry)
    }

    /// Bits and group that the recipe has for a weight.
    fn packing(&self, name: &str) -> Option<(&Recipe, Packing)> {
        let (recipe, plan) = self.quantize.as_ref()?;
        match plan.action(name)? {
            Action::Pack(packing) => Some((recipe, packing)),
            Action::Keep(_) => None,
        }
    }
}

impl WeightSource for CheckpointSource<'_> {
    fn matrix(&self, spec: &LinearSpec) -> Result<Matrix, Error> {
        let name = format!("{}.weight", spec.name);
        let plain = matches!(self.entry(&name)?.layout, Layout::Plain(_));
        let shape = match spec.transposed && plain {
            true => [spec.cols, spec.stored_rows()],
            false => [spec.stored_rows(), spec.cols],
        };
        let entry = self.entry_of_shape(&name, &shape)?;
        let weight = cut(self.checkpoint.read(entry)?, spec);
        if let Some((recipe, packing)) = self.packing(&name) {
            let matrix = pack_weight(&name, &weight, packing, recipe)?;
            self.checkpoint.release(entry);
            return Ok(Matrix::Packed(matrix));
        }
        let plain = |float_type, data| {
            Matrix::Plain(PlainMatrix {
                rows: spec.rows,
                cols: spec.cols,
                float_type,
                data,
            })
        };
        match (weight, self.dequantize) {
            (Weight::Plain(tensor), _) => Ok(plain(float_type(&name, &tensor)?, tensor.data)),
            (Weight::Packed(matrix), None) => Ok(Matrix::Packed(matrix)),
            (Weight::Packed(matrix), Some(unpack)) => {
                let float_type = match unpack {
                    Unpack::ScaleType => matrix.scale_type,
                    Unpack::Single => FloatType::F32,
                };
                let data = dequantize(&matrix, float_type).into();
                self.checkpoint.release(entry);
                Ok(plain(float_type, data))
            }
        }
    }

    fn values(&self, name: &str, shapes: &[&[usize]]) -> Result<Vec<f32>, Error> {
        let found = &self.entry(name)?.shape;
        let shape = shapes.iter().find(|shape| *found == **shape).unwrap_or(&shapes[0]);
        match self.checkpoint.read(self.entry_of_shape(name, shape)?)? {
            Weight::Plain(tensor) => {
                let float_type = float_type(name, &tensor)?;
                let mut values = vec![0.0; shape.iter().product()];
                float_type.decode(&tensor.data, &mut values);
                Ok(values)
            }
            Weight::Packed(_) => Err(Error::PackedVector { name: name.to_owned() }),
        }
    }
}

fn float_type(name: &str, tensor: &Tensor) -> Result<FloatType, Error> {
    match tensor.dtype {
        Dtype::F32 => Ok(FloatType::F32),
        Dtype::F16 => Ok(FloatType::F16),
        Dtype::BF16 => Ok(FloatType::BF16),
        found => Err(Error::TensorType {
            name: name.to_owned(),
            found,
        }),
    }
}
