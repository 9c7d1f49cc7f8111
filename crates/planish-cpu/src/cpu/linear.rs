//! One product for another library: values of its types, a bias, and the way back for gradients.

use planish_ops::PlainMatrix;
use std::ops::Range;
use std::sync::PoisonError;

use bytes::Bytes;
use planish_format::{FloatType, memory, unpack_codes};

use super::narrow::Narrow;
use super::parts::Parts;
use super::{Input, Matmul, Precision};
use crate::Cpu;
use crate::floats::{Floats, FloatsMut};
use crate::interleaved::LANES;
use crate::matrix::CpuMatrix;
use crate::scalar::float_at;
use crate::scratch::WorkerScratch;
use crate::table::PlainProduct;

/// Columns of the weight that a thread turns into rows at once, or a group where that is more.
const TURNED_COLS: usize = 64;

/// `output = input * weight^T + bias`.
pub struct Linear<'a> {
    /// // (rows, cols)
    pub weight: &'a CpuMatrix,
    /// // (rows)
    pub bias: Option<Floats<'a>>,
    /// x, row-major. // (m, cols)
    pub input: Floats<'a>,
    /// Rows of x.
    pub m: usize,
    /// Row-major, overwritten. // (m, rows)
    pub output: FloatsMut<'a>,
    /// How packed weights are multiplied.
    pub precision: Precision,
}

/// `output = input * weight`, in f32: what a gradient of [`Linear`]'s output says about its input.
pub struct Backward<'a> {
    /// // (rows, cols)
    pub weight: &'a CpuMatrix,
    /// Row-major. // (m, rows)
    pub input: Floats<'a>,
    /// Rows of the input.
    pub m: usize,
    /// Row-major, overwritten. // (m, cols)
    pub output: FloatsMut<'a>,
}

impl Cpu {
    /// Multiplies x with a weight; the same sums as [`Cpu::matmul`], with 16-bit values widened and narrowed by the threads that
    /// use them.
    ///
    /// Panics when shapes and lengths contradict each other.
    pub fn linear(&self, problem: Linear<'_>) {
        let Linear {
            weight,
            bias,
            input,
            m,
            output,
            precision,
        } = problem;
        weight.check();
        let (rows, cols) = (weight.rows(), weight.cols());
        assert_eq!(input.len(), m * cols, "values of {m} rows of x");
        let mut wide = Vec::new();
        let plain = matches!(weight, CpuMatrix::Plain(_));
        let input = match input {
            // Kernels of plain weights read x where it is, and who listens wants floats.
            Floats::Bytes(..) if plain || self.tap().is_some() => self.widened(input, &mut wide),
            _ => input,
        };
        match (output, bias, input) {
            (FloatsMut::F32(output), None, Floats::F32(input)) => self.matmul(Matmul {
                weights: &[weight],
                input,
                m,
                outputs: &mut [output],
                precision,
            }),
            (output, bias, input) => {
                if let (Some(tap), Floats::F32(values)) = (self.tap(), input) {
                    tap.inputs(weight.address(), values, cols);
                }
                let narrow = Narrow::new(output, (m, rows), bias);
                let mut scratch = self.take_scratch();
                if input.is_empty() {
                    narrow.fill_zeros(&mut WorkerScratch::default());
                } else {
                    let values = input;
                    let input = Input { values, m, precision };
                    self.multiply(&Parts::of_one(&[weight], narrow), &input, &mut scratch);
                }
                self.return_scratch(scratch);
            }
        }
    }

    /// Multiplies with a weight from the other side.
    ///
    /// Panics when shapes and lengths contradict each other.
    pub fn backward(&self, problem: Backward<'_>) {
        let Backward {
            weight,
            input,
            m,
            output,
        } = problem;
        weight.check();
        let (rows, cols) = (weight.rows(), weight.cols());
        assert_eq!(input.len(), m * rows, "values of {m} rows of the gradient");
        let mut wide = Vec::new();
        let Floats::F32(input) = self.widened(input, &mut wide) else {
            unreachable!("widened")
        };
        let narrow = Narrow::new(output, (m, cols), None);
        let group = weight.group();
        let step = TURNED_COLS.next_multiple_of(group);
        let scratch = self.take_scratch();
        self.pool().chunks(cols.div_ceil(step), |slot, chunk| {
            let turned = chunk * step..((chunk + 1) * step).min(cols);
            let mut scratch = scratch.workers[slot].lock().unwrap_or_else(PoisonError::into_inner);
            let matrix = PlainMatrix {
                rows: turned.len(),
                cols: rows,
                float_type: FloatType::F32,
                data: columns(weight, turned.clone()),
            };
            // SAFETY: columns are given to one call.
            unsafe {
                narrow.fill(turned.clone(), &mut scratch, |output, scratch| {
                    let product = PlainProduct {
                        matrix: &matrix,
                        input,
                        m,
                        output: output.after(turned.start),
                    };
                    (self.set().plain)(&product, 0..turned.len(), scratch);
                });
            }
        });
        self.return_scratch(scratch);
    }

    /// All values as f32.
    fn widened<'a>(&self, values: Floats<'a>, wide: &'a mut Vec<f32>) -> Floats<'a> {
        if let Floats::F32(_) = values {
            return values;
        }
        *wide = memory::filled("products", values.len(), 0.0);
        values.widen(0..values.len(), wide);
        Floats::F32(wide)
    }
}

/// Columns of a weight as rows of f32, whole groups of packed ones. // (columns, rows)
fn columns(weight: &CpuMatrix, wanted: Range<usize>) -> Bytes {
    let rows = weight.rows();
    let mut turned: Vec<u8> = memory::filled("products", wanted.len() * rows * size_of::<f32>(), 0);
    let (into, _) = turned.as_chunks_mut::<4>();
    let group = weight.group();
    let mut codes = memory::filled("products", wanted.len(), 0u8);
    let mut values = memory::filled("products", LANES * wanted.len(), 0.0f32);
    // 16 rows at once, so that a line of the result is written whole.
    for first in (0..rows).step_by(LANES) {
        let count = LANES.min(rows - first);
        for (lane, values) in values.chunks_exact_mut(wanted.len()).enumerate().take(count) {
            let row = first + lane;
            match weight {
                CpuMatrix::Plain(matrix) => {
                    for (value, col) in values.iter_mut().zip(wanted.clone()) {
                        *value = float_at(&matrix.data, matrix.float_type, row * matrix.cols + col);
                    }
                }
                CpuMatrix::Interleaved(matrix) => matrix.part_of_row(row, wanted.clone(), values),
                CpuMatrix::Packed(matrix) => {
                    let bits = matrix.packing.bits();
                    let at = (row * matrix.cols + wanted.start) / 8 * bits as usize;
                    unpack_codes(
                        &matrix.codes[at..][..wanted.len() / 8 * bits as usize],
                        bits,
                        &mut codes,
                    );
                    let groups = values.chunks_exact_mut(group).zip(codes.chunks_exact(group));
                    for (index, (values, codes)) in groups.enumerate() {
                        let at = (row * matrix.cols + wanted.start) / group + index;
                        let scale = float_at(&matrix.scales, matrix.scale_type, at);
                        let bias = float_at(&matrix.biases, matrix.scale_type, at);
                        for (value, &code) in values.iter_mut().zip(codes) {
                            *value = scale * f32::from(code) + bias;
                        }
                    }
                }
            }
        }
        for (col, into) in into.chunks_exact_mut(rows).enumerate() {
            for (lane, into) in into[first..first + count].iter_mut().enumerate() {
                *into = values[lane * wanted.len() + col].to_le_bytes();
            }
        }
    }
    turned.into()
}
