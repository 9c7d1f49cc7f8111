//! The weights of all experts out of a checkpoint: views of the mapping wherever rows lie side by side.

use planish_checkpoint::{Dtype, Entry, Layout, Tensor, Weight};
use planish_format::{PackedMatrix, mxfp4_to_affine};
use planish_ops::Origin;

use crate::cut::cut;
use crate::source::{CheckpointSource, PendingWeight, WeightSource};
use crate::{Error, FusedStack, LinearSpec, StackPlace, StackSpec, Stored};

impl StackPlace {
    /// A tensor that is there if this is the place.
    fn tensor(&self, source: &CheckpointSource<'_>) -> String {
        match self {
            StackPlace::Each(path) => format!("{}.weight", path.replace("{}", "0")),
            StackPlace::Fused(fused)
            | StackPlace::Columns(fused)
            | StackPlace::Either(fused)
            | StackPlace::Joined(fused)
            | StackPlace::Transposed(fused) => source.fused_name(fused),
            StackPlace::Mxfp4(fused) => format!("{}_blocks", fused.name),
        }
    }
}

impl FusedStack {
    /// One expert's part as a layer of its own.
    fn linear(&self, spec: &StackSpec) -> LinearSpec {
        LinearSpec {
            stored: Stored::Rows {
                total: self.total,
                ranges: self.rows.ranges(spec.rows),
            },
            ..LinearSpec::new(&self.name, spec.rows, spec.cols)
        }
    }
}

impl CheckpointSource<'_> {
    /// The place that the checkpoint has, one that is packed before one that would have to be unpacked; else the usual one.
    fn stack_place<'b>(&self, spec: &'b StackSpec) -> Option<&'b StackPlace> {
        let find = |has: &dyn Fn(&str) -> bool| spec.places.iter().find(|place| has(&place.tensor(self)));
        find(&|name| self.has_packed_part(name))
            .or_else(|| find(&|name| self.has(name)))
            .or(spec.places.first())
    }

    /// Where the rows of every expert stand. `None` where rows are columns, or what is stored is not what is multiplied by.
    pub(crate) fn find_stack_origins(&self, spec: &StackSpec) -> Option<Vec<Origin>> {
        let entry = |name: &str| Some(self.find(name).ok()?.name);
        let place = self.stack_place(spec)?;
        let origin = |expert: usize| match place {
            StackPlace::Either(fused) if self.has_columns(spec, fused) => None,
            StackPlace::Each(path) => Some(Origin {
                entry: entry(&format!("{}.weight", path.replace("{}", &expert.to_string())))?,
                part: 0,
                parts: 1,
            }),
            StackPlace::Fused(fused) | StackPlace::Either(fused) | StackPlace::Joined(fused) => Some(Origin {
                entry: entry(&self.fused_name(fused))?,
                part: expert,
                parts: spec.experts,
            }),
            StackPlace::Columns(_) | StackPlace::Transposed(_) | StackPlace::Mxfp4(_) => None,
        };
        (0..spec.experts).map(origin).collect()
    }

    /// The matrices of every expert.
    pub(crate) fn read_stack(&self, spec: &StackSpec) -> Result<Vec<PendingWeight<'_>>, Error> {
        match self.stack_place(spec) {
            None => Ok(Vec::new()),
            Some(StackPlace::Each(path)) => self.each(spec, path),
            Some(StackPlace::Fused(fused)) => self.fused(spec, fused, false),
            Some(StackPlace::Columns(fused)) => self.fused(spec, fused, true),
            Some(StackPlace::Either(fused)) => self.fused(spec, fused, self.has_columns(spec, fused)),
            Some(StackPlace::Joined(fused)) => self.joined(spec, fused),
            Some(StackPlace::Transposed(fused)) => self.transposed(spec, fused),
            Some(StackPlace::Mxfp4(fused)) => self.mxfp4(spec, fused),
        }
    }

    /// The biases of every expert, if they have some. // (experts * rows)
    pub(crate) fn read_stack_biases(&self, spec: &StackSpec) -> Result<Option<Vec<f32>>, Error> {
        let present = |fused: &&FusedStack| self.has(&fused.name);
        let Some(fused) = spec.biases.iter().find(present).or(spec.biases.first()) else {
            return Ok(None);
        };
        let stored = self.values(&fused.name, &[&[spec.experts, fused.total]])?;
        let ranges = fused.rows.ranges(spec.rows);
        let of_expert = |values: &[f32]| -> Vec<f32> {
            ranges
                .iter()
                .flat_map(|range| &values[range.clone()])
                .copied()
                .collect()
        };
        Ok(Some(stored.chunks_exact(fused.total).flat_map(of_expert).collect()))
    }

    fn fused_name(&self, fused: &FusedStack) -> String {
        match self.has(&fused.name) {
            true => fused.name.clone(),
            false => format!("{}.weight", fused.name),
        }
    }

    /// Whether a stack stands with columns before rows, by its shape alone.
    fn has_columns(&self, spec: &StackSpec, fused: &FusedStack) -> bool {
        let columns = [spec.experts, spec.cols, fused.total];
        let found = self.find(&self.fused_name(fused));
        spec.cols != fused.total && found.is_ok_and(|found| found.entry.shape == columns)
    }

    fn each(&self, spec: &StackSpec, path: &str) -> Result<Vec<PendingWeight<'_>>, Error> {
        let linear = |expert: usize| LinearSpec::new(path.replace("{}", &expert.to_string()), spec.rows, spec.cols);
        (0..spec.experts).map(|expert| self.matrix(&linear(expert))).collect()
    }

    fn fused(&self, spec: &StackSpec, fused: &FusedStack, columns: bool) -> Result<Vec<PendingWeight<'_>>, Error> {
        let name = self.fused_name(fused);
        let columns = columns && matches!(self.find(&name)?.entry.layout, Layout::Plain(_));
        let stored = match columns {
            true => [spec.experts, spec.cols, fused.total],
            false => [spec.experts, fused.total, spec.cols],
        };
        let found = self.find(&name)?;
        found.check_shape(&stored)?;
        let entry = found.entry;
        let weight = self.read(entry)?;
        let linear = fused.linear(spec);
        let shape = (spec.rows, spec.cols);
        (0..spec.experts)
            .map(|expert| {
                self.finish(
                    entry,
                    cut(of_expert(&weight, expert, spec.experts), &linear, columns),
                    shape,
                )
            })
            .collect()
    }

    fn joined(&self, spec: &StackSpec, fused: &FusedStack) -> Result<Vec<PendingWeight<'_>>, Error> {
        let found = self.find(&self.fused_name(fused))?;
        found.check_shape(&[spec.experts * fused.total, spec.cols])?;
        let weight = self.read(found.entry)?;
        let linear = fused.linear(spec);
        let part = |expert| cut(of_expert(&weight, expert, spec.experts), &linear, false);
        (0..spec.experts)
            .map(|expert| self.finish(found.entry, part(expert), (spec.rows, spec.cols)))
            .collect()
    }

    /// Rows are columns; packed ones stay so where the device takes them.
    fn transposed(&self, spec: &StackSpec, fused: &FusedStack) -> Result<Vec<PendingWeight<'_>>, Error> {
        let found = self.find(&self.fused_name(fused))?;
        found.check_shape(&[spec.experts * fused.total, spec.rows])?;
        let weight = self.read(found.entry)?;
        let stored = LinearSpec {
            stored: Stored::Rows {
                total: fused.total,
                ranges: fused.rows.ranges(spec.cols),
            },
            ..LinearSpec::new(&fused.name, spec.cols, spec.rows)
        };
        let part = |expert| cut(of_expert(&weight, expert, spec.experts), &stored, false);
        (0..spec.experts)
            .map(|expert| self.finish_transposed(found.entry, part(expert), (spec.rows, spec.cols)))
            .collect()
    }

    fn mxfp4(&self, spec: &StackSpec, fused: &FusedStack) -> Result<Vec<PendingWeight<'_>>, Error> {
        let (experts, total, groups) = (spec.experts, fused.total, spec.cols / 32);
        let name = format!("{}_blocks", fused.name);
        let (blocks_entry, blocks) = self.bytes(&name, &[experts, total, groups, 16])?;
        let (_, scales) = self.bytes(&format!("{}_scales", fused.name), &[experts, total, groups])?;
        let linear = fused.linear(spec);
        let of_expert = |expert: usize| {
            let part = |tensor: &Tensor| {
                let size = tensor.data.len() / experts;
                tensor.data.slice(expert * size..(expert + 1) * size)
            };
            let matrix = mxfp4_to_affine(total, spec.cols, &part(&blocks), &part(&scales));
            let matrix: PackedMatrix = matrix.map_err(|error| Error::Codes {
                name: name.clone(),
                error,
            })?;
            self.finish(
                blocks_entry,
                cut(Weight::Packed(matrix), &linear, false),
                (spec.rows, spec.cols),
            )
        };
        (0..experts).map(of_expert).collect()
    }
}

impl CheckpointSource<'_> {
    /// A tensor of bytes.
    fn bytes(&self, name: &str, shape: &[usize]) -> Result<(&Entry, Tensor), Error> {
        let found = self.find(name)?;
        found.check_shape(shape)?;
        let entry = found.entry;
        match self.read(entry)? {
            Weight::Plain(tensor) if tensor.dtype == Dtype::U8 => Ok((entry, tensor)),
            Weight::Plain(tensor) => Err(Error::TensorType {
                name: name.to_owned(),
                found: tensor.dtype,
            }),
            Weight::Packed(_) => Err(Error::PackedVector { name: name.to_owned() }),
        }
    }
}

/// The part of a stacked weight that belongs to one of its experts.
fn of_expert(weight: &Weight, expert: usize, experts: usize) -> Weight {
    match weight {
        Weight::Plain(tensor) => {
            let size = tensor.data.len() / experts;
            Weight::Plain(Tensor {
                dtype: tensor.dtype,
                shape: tensor.shape[1..].to_vec(),
                data: tensor.data.slice(expert * size..(expert + 1) * size),
            })
        }
        Weight::Packed(matrix) => {
            let rows = matrix.rows / experts;
            Weight::Packed(matrix.slice_rows(expert * rows..(expert + 1) * rows))
        }
    }
}
