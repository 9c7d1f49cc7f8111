//! Where weights come from: a checkpoint, read in place or packed or unpacked on the way; or random numbers of a shape.

use std::collections::HashMap;

use planish_checkpoint::{Checkpoint, Dtype, Entry, Layout, Tensor, Weight};
use planish_format::{FloatType, Packing, dequantize};
use planish_ops::{Matrix, PlainMatrix};
use planish_quantize::{Action, Recipe, Step, pack_weight};

use crate::cut::cut;
use crate::{Error, LinearSpec, Spelling, StackSpec};

/// Weights by name, with the shape that the architecture expects.
pub(crate) trait WeightSource {
    /// A weight (rows, cols), packed or plain, cut from where it stands.
    fn matrix(&self, spec: &LinearSpec) -> Result<Matrix, Error>;
    /// The matrices of every expert, (rows, cols) each.
    fn stack(&self, spec: &StackSpec) -> Result<Vec<Matrix>, Error>;
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
    /// Bytes of all weights, where that is known before they are read.
    fn bytes(&self) -> Option<u64> {
        None
    }
}

/// The weights of a checkpoint.
pub(crate) struct CheckpointSource<'a> {
    checkpoint: &'a Checkpoint,
    spellings: &'a [Spelling],
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
    Single,
}

impl<'a> CheckpointSource<'a> {
    pub(crate) fn new(
        checkpoint: &'a Checkpoint,
        spellings: &'a [Spelling],
        quantize: Option<&'a Recipe>,
        (dequantize, unpack): (bool, Unpack),
    ) -> Result<CheckpointSource<'a>, Error> {
        let plan = |recipe: &'a Recipe| {
            let plan = recipe.plan(checkpoint.config(), checkpoint.entries())?;
            let packing = |step: Step| match step.action {
                Action::Pack(packing) => Some((step.entry.name, packing)),
                Action::Keep(_) => None,
            };
            Ok::<_, Error>((recipe, plan.steps.into_iter().filter_map(packing).collect()))
        };
        Ok(CheckpointSource {
            checkpoint,
            spellings,
            quantize: quantize.map(plan).transpose()?,
            dequantize,
            unpack,
        })
    }

    /// The data of an entry.
    pub(crate) fn read(&self, entry: &Entry) -> Result<Weight, Error> {
        Ok(self.checkpoint.read(entry)?)
    }

    /// The tensor of that name or, where there is none, of another spelling of it.
    pub(crate) fn find(&self, name: &str) -> Result<Found<'_>, Error> {
        let found = |name: String| {
            let entry = self.checkpoint.entry(&name)?;
            Some(Found { name, entry })
        };
        let respelled = |spelling: &Spelling| {
            let rest = name.strip_prefix(spelling.usual)?;
            found(format!("{}{rest}", spelling.other))
        };
        found(name.to_owned())
            .or_else(|| self.spellings.iter().find_map(respelled))
            .ok_or_else(|| Error::MissingTensor { name: name.to_owned() })
    }

    /// Bits and group that the recipe has for a weight.
    fn packing(&self, name: &str) -> Option<(&Recipe, Packing)> {
        let (recipe, packings) = self.quantize.as_ref()?;
        Some((recipe, *packings.get(name)?))
    }

    /// A weight cut out of an entry, packed or unpacked as this source was told.
    pub(crate) fn finish(&self, entry: &Entry, weight: Weight, (rows, cols): (usize, usize)) -> Result<Matrix, Error> {
        let name = &entry.name;
        // Columns may have been rows when this was planned.
        let fits = |(_, packing): &(_, Packing)| packing.check_cols(cols).is_ok();
        if let Some((recipe, packing)) = self.packing(name).filter(fits) {
            let matrix = pack_weight(name, &weight, packing, recipe)?;
            self.checkpoint.release(entry);
            return Ok(Matrix::Packed(matrix));
        }
        let plain = |float_type, data| {
            Matrix::Plain(PlainMatrix {
                rows,
                cols,
                float_type,
                data,
            })
        };
        match weight {
            Weight::Packed(matrix) if !self.dequantize => Ok(Matrix::Packed(matrix)),
            Weight::Plain(tensor) => Ok(plain(float_type(name, &tensor)?, tensor.data)),
            packed => {
                let tensor = self.unpacked(packed);
                self.checkpoint.release(entry);
                Ok(plain(float_type(name, &tensor)?, tensor.data))
            }
        }
    }

    /// The same weight, plain.
    pub(crate) fn unpacked(&self, weight: Weight) -> Tensor {
        match weight {
            Weight::Plain(tensor) => tensor,
            Weight::Packed(matrix) => {
                let float_type = match self.unpack {
                    Unpack::ScaleType => matrix.scale_type,
                    Unpack::Single => FloatType::F32,
                };
                Tensor {
                    dtype: float_type.into(),
                    shape: vec![matrix.rows, matrix.cols],
                    data: dequantize(&matrix, float_type).into(),
                }
            }
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
    fn matrix(&self, spec: &LinearSpec) -> Result<Matrix, Error> {
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

    fn stack(&self, spec: &StackSpec) -> Result<Vec<Matrix>, Error> {
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
        let as_stored = self.quantize.is_none() && !self.dequantize;
        as_stored.then(|| entries.map(|entry| entry.stored_bytes).sum())
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
