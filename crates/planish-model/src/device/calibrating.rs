//! Calibration on a GPU: the numbers of planish-quantize, the kernels of planish-kernels.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use planish_format::{FloatType, PackedMatrix, PackedShape, pack_codes};
use planish_gpu::{Error as DeviceError, Queue};
use planish_kernels::{BasisPlan, CodeValues, GpuBasis, GpuMoments, GpuOps, RowPlan};
use planish_quantize::{Basis, BasisNumbers, Calibrated, Calibrator, Error, InputMoments, REFIT_RIDGE, REFIT_ROUNDS};
use rayon::prelude::*;

/// A GPU that adds up and chooses codes.
pub(crate) struct GpuCalibrator<Q: Queue>(pub(crate) Arc<GpuOps<Q>>);

impl<Q: Queue> fmt::Debug for GpuCalibrator<Q> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "GpuCalibrator({})", self.0.queue().device())
    }
}

fn failed(error: DeviceError) -> Error {
    Error::Device(Box::new(error))
}

impl<Q: Queue> Calibrator for GpuCalibrator<Q> {
    fn name(&self) -> String {
        self.0.queue().device().to_owned()
    }

    fn moments(&self, cols: usize) -> Result<Box<dyn InputMoments>, Error> {
        let moments = GpuMoments::new(Arc::clone(&self.0), cols).map_err(failed)?;
        Ok(Box::new(Moments(moments)))
    }
}

struct Moments<Q: Queue>(GpuMoments<Q>);

impl<Q: Queue> InputMoments for Moments<Q> {
    fn rows(&self) -> u64 {
        self.0.rows()
    }

    fn cols(&self) -> usize {
        self.0.cols()
    }

    fn add(&mut self, inputs: &[f32], original: Option<&[f32]>) -> Result<(), Error> {
        self.0.add(inputs, original).map_err(failed)
    }

    fn copy(&self) -> Result<Box<dyn InputMoments>, Error> {
        Ok(Box::new(Moments(self.0.copy().map_err(failed)?)))
    }

    fn basis(mut self: Box<Self>, group: usize) -> Result<Option<Box<dyn Basis>>, Error> {
        let (rows, cols) = (self.rows(), self.cols());
        if rows == 0 || cols == 0 || !cols.is_multiple_of(group) {
            return Ok(None);
        }
        if !GpuBasis::<Q>::takes(cols, group) {
            let operation = "calibrating rows of so many groups, or groups of more than 256 weights,";
            return Err(failed(DeviceError::NoKernel { operation }));
        }
        let diagonal = self.0.means().map_err(failed)?;
        let Some(numbers) = BasisNumbers::new(&diagonal, rows, group) else {
            return Ok(None);
        };
        let plan = BasisPlan {
            group,
            order: &numbers.order,
            if_zero: numbers.if_zero,
            damping: numbers.damping,
            soft: numbers.soft,
            more: BasisNumbers::MORE,
            tries: BasisNumbers::TRIES,
            share: BasisNumbers::SHARE,
        };
        let basis = self.0.basis(&plan).map_err(failed)?;
        Ok(basis.map(|basis| Box::new(OnGpu(basis)) as Box<dyn Basis>))
    }
}

struct OnGpu<Q: Queue>(GpuBasis<Q>);

impl<Q: Queue> Basis for OnGpu<Q> {
    fn cols(&self) -> usize {
        self.0.cols()
    }

    fn group(&self) -> usize {
        self.0.group()
    }

    fn calibrate(&self, weights: &[f32], searched: &PackedMatrix) -> Result<Calibrated, Error> {
        let plan = RowPlan {
            packing: searched.packing,
            scale_type: searched.scale_type,
            rounds: REFIT_ROUNDS,
            ridge: REFIT_RIDGE,
        };
        let before = unpacked(searched);
        let found = self.0.calibrate(weights, &before, &plan).map_err(failed)?;
        let (mut values, mut error) = (found.values, 0.0);
        let shape = searched.shape();
        let groups = shape.groups();
        for (row, (&own, &other)) in found.errors.iter().zip(&found.errors_before).enumerate() {
            // An error that is no number, or no gain.
            if own < other {
                error += own;
                continue;
            }
            error += other;
            let (codes, scales) = (
                row * shape.cols..(row + 1) * shape.cols,
                row * groups..(row + 1) * groups,
            );
            values.codes[codes.clone()].copy_from_slice(&before.codes[codes]);
            values.scales[scales.clone()].copy_from_slice(&before.scales[scales.clone()]);
            values.biases[scales.clone()].copy_from_slice(&before.biases[scales]);
        }
        Ok(Calibrated {
            packed: packed(shape, &values),
            searched_error: found.errors_before.iter().sum(),
            error,
        })
    }
}

/// Codes one a byte, scales and biases as numbers.
fn unpacked(matrix: &PackedMatrix) -> CodeValues {
    let mut codes = vec![0; matrix.rows * matrix.cols];
    codes
        .par_chunks_exact_mut(matrix.cols)
        .enumerate()
        .for_each(|(row, codes)| matrix.row_codes(row, codes));
    let values = |bytes: &[u8], scale_type: FloatType| {
        let mut values = vec![0.0; bytes.len() / scale_type.size_bytes()];
        scale_type.decode(bytes, &mut values);
        values
    };
    CodeValues {
        codes,
        scales: values(&matrix.scales, matrix.scale_type),
        biases: values(&matrix.biases, matrix.scale_type),
    }
}

fn packed(shape: PackedShape, values: &CodeValues) -> PackedMatrix {
    let mut codes = vec![0; shape.code_bytes()];
    let rows = codes.par_chunks_exact_mut(shape.code_row_bytes());
    rows.zip(values.codes.par_chunks_exact(shape.cols))
        .for_each(|(stream, codes)| pack_codes(codes, shape.packing.bits(), stream));
    let stored = |values: &[f32]| {
        let mut bytes = vec![0; shape.scale_bytes()];
        shape.scale_type.encode(values, &mut bytes);
        Bytes::from(bytes)
    };
    let (scales, biases) = (stored(&values.scales), stored(&values.biases));
    PackedMatrix::new(shape, codes.into(), scales, biases).expect("as many bytes as the shape says")
}
