//! One packed weight: its shape, how its bytes lie, and what is computed with them.

use planish_cpu::{Backward, CpuMatrix, Interleaved, Linear, Precision};
use planish_format::{Encoder, FloatMatrix, FloatType, FormatError, PackedMatrix, PackedShape, Packing, quantize};
use pyo3::exceptions::{PyIndexError, PyValueError};
use pyo3::prelude::*;

use super::cpu;
use super::memory::{Span, float_type};
use crate::errors::caught;

/// Addresses of a weight's tensors: codes, scales and biases, or the one that holds them interleaved.
type Parts = Vec<usize>;

/// The shape of a packed weight: rows, columns, bits, group, type of scales. It holds no weights.
#[pyclass(frozen, module = "planish._planish")]
pub struct PackedLayout {
    pub shape: PackedShape,
}

/// The format's words as Python's error.
fn value_error(error: FormatError) -> PyErr {
    PyValueError::new_err(error.to_string())
}

#[pymethods]
impl PackedLayout {
    #[new]
    fn new(rows: usize, cols: usize, bits: u32, group_size: usize, scale_type: &str) -> PyResult<PackedLayout> {
        let packing = Packing::checked(bits, group_size).map_err(value_error)?;
        let shape = PackedShape::new(rows, cols, packing, float_type(scale_type)?).map_err(value_error)?;
        Ok(PackedLayout { shape })
    }

    /// Bytes of codes, scales and biases together, in either arrangement.
    #[getter]
    fn bytes(&self) -> usize {
        self.shape.code_bytes() + 2 * self.shape.scale_bytes()
    }

    /// Whether this machine multiplies faster with 16 rows side by side.
    fn interleaves(&self, parts: Parts, threads: usize) -> PyResult<bool> {
        let CpuMatrix::Packed(matrix) = self.matrix(&parts)? else {
            return Ok(false);
        };
        Ok(cpu(threads)?.interleaves(&matrix))
    }

    /// Writes the three tensors interleaved into one of `bytes` bytes.
    fn interleave(&self, py: Python<'_>, parts: Parts, into: usize) -> PyResult<()> {
        let CpuMatrix::Packed(matrix) = self.matrix(&parts)? else {
            return Err(PyValueError::new_err("expected codes, scales and biases"));
        };
        let into = Span::new(into, &[self.bytes()])?;
        caught(py, || match Interleaved::new(&matrix) {
            Some(interleaved) => {
                into.fill(interleaved.data());
                Ok(())
            }
            None => Err(PyValueError::new_err(format!("{:?} cannot be interleaved", self.shape))),
        })
    }

    /// Writes codes, scales and biases out of the one tensor.
    fn deinterleave(&self, py: Python<'_>, parts: Parts, into: [usize; 3]) -> PyResult<()> {
        let CpuMatrix::Interleaved(interleaved) = self.matrix(&parts)? else {
            return Err(PyValueError::new_err("expected one interleaved tensor"));
        };
        let (codes, scales) = (self.shape.code_bytes(), self.shape.scale_bytes());
        let [codes, scales, biases] = [
            Span::new(into[0], &[codes])?,
            Span::new(into[1], &[scales])?,
            Span::new(into[2], &[scales])?,
        ];
        caught(py, || {
            let matrix = interleaved.in_order();
            codes.fill(&matrix.codes);
            scales.fill(&matrix.scales);
            biases.fill(&matrix.biases);
            Ok(())
        })
    }

    /// `output = input * weight^T + bias`, rows of x and of the output one after the other in their types.
    #[expect(
        clippy::too_many_arguments,
        reason = "addresses and what lies there, one call a layer"
    )]
    fn linear(
        &self,
        py: Python<'_>,
        parts: Parts,
        input: usize,
        input_type: &str,
        m: usize,
        output: usize,
        bias: usize,
        bias_type: &str,
        exact: bool,
        threads: usize,
    ) -> PyResult<()> {
        let matrix = self.matrix(&parts)?;
        let (value, bias_type) = (float_type(input_type)?, float_type(bias_type)?);
        let PackedShape { rows, cols, .. } = self.shape;
        let input = Span::new(input, &[m, cols, value.size_bytes()])?;
        let output = Span::new(output, &[m, rows, value.size_bytes()])?;
        let bias = match bias {
            0 => None,
            address => Some(Span::new(address, &[rows, bias_type.size_bytes()])?),
        };
        let cpu = cpu(threads)?;
        caught(py, || {
            cpu.linear(Linear {
                weight: &matrix,
                bias: bias.map(|bias| bias.floats(bias_type)),
                input: input.floats(value),
                m,
                output: output.floats_mut(value),
                precision: if exact { Precision::Exact } else { Precision::Rounded },
            });
            Ok(())
        })
    }

    /// `output = input * weight`: from the gradient of the output to that of the input.
    #[expect(
        clippy::too_many_arguments,
        reason = "addresses and what lies there, one call a layer"
    )]
    fn backward(
        &self,
        py: Python<'_>,
        parts: Parts,
        input: usize,
        input_type: &str,
        m: usize,
        output: usize,
        threads: usize,
    ) -> PyResult<()> {
        let matrix = self.matrix(&parts)?;
        let value = float_type(input_type)?;
        let PackedShape { rows, cols, .. } = self.shape;
        let input = Span::new(input, &[m, rows, value.size_bytes()])?;
        let output = Span::new(output, &[m, cols, value.size_bytes()])?;
        let cpu = cpu(threads)?;
        caught(py, || {
            cpu.backward(Backward {
                weight: &matrix,
                input: input.floats(value),
                m,
                output: output.floats_mut(value),
            });
            Ok(())
        })
    }

    /// The rows that `count` 64-bit integers at `ids` name, one after the other.
    #[expect(
        clippy::too_many_arguments,
        reason = "addresses and what lies there, one call a layer"
    )]
    fn rows(
        &self,
        py: Python<'_>,
        parts: Parts,
        ids: usize,
        count: usize,
        output: usize,
        output_type: &str,
        threads: usize,
    ) -> PyResult<()> {
        let matrix = self.matrix(&parts)?;
        let value = float_type(output_type)?;
        let output = Span::new(output, &[count, self.shape.cols, value.size_bytes()])?;
        let ids = Span::new(ids, &[count, size_of::<i64>()])?.integers();
        let rows = self.shape.rows;
        let known = |id: &i64| u32::try_from(*id).ok().filter(|id| (*id as usize) < rows);
        let ids: Option<Vec<u32>> = ids.iter().map(known).collect();
        let ids = ids.ok_or_else(|| PyIndexError::new_err(format!("an id is not a row of an embedding of {rows}")))?;
        let cpu = cpu(threads)?;
        caught(py, || {
            cpu.rows(&matrix, &ids, output.floats_mut(value));
            Ok(())
        })
    }
}

impl PackedLayout {
    /// The weight at these addresses, for the length of a call.
    fn matrix(&self, parts: &[usize]) -> PyResult<CpuMatrix> {
        let span = |address, bytes| Span::new(address, &[bytes]).map(Span::borrowed);
        match *parts {
            [packed] => {
                let interleaved = Interleaved::of_data(self.shape, span(packed, self.bytes())?);
                let interleaved = interleaved
                    .ok_or_else(|| PyValueError::new_err(format!("{:?} cannot be interleaved", self.shape)))?;
                Ok(CpuMatrix::Interleaved(interleaved))
            }
            [codes, scales, biases] => {
                let codes = span(codes, self.shape.code_bytes())?;
                let [scales, biases] = [
                    span(scales, self.shape.scale_bytes())?,
                    span(biases, self.shape.scale_bytes())?,
                ];
                let matrix = PackedMatrix::new(self.shape, codes, scales, biases).map_err(value_error)?;
                Ok(CpuMatrix::Packed(matrix))
            }
            _ => Err(PyValueError::new_err(format!(
                "expected the addresses of codes, scales and biases, or of one tensor, found {}",
                parts.len()
            ))),
        }
    }
}

/// Codes, scales and biases of plain weights, chosen as transformers chooses them; scales and biases in the type of the weights.
#[pyfunction]
pub fn quantize_weight(
    py: Python<'_>,
    weight: usize,
    weight_type: &str,
    shape: (usize, usize),
    bits: u32,
    group_size: usize,
    into: [usize; 3],
) -> PyResult<()> {
    let float_type: FloatType = float_type(weight_type)?;
    let packing = Packing::checked(bits, group_size).map_err(value_error)?;
    let packed = PackedShape::new(shape.0, shape.1, packing, float_type).map_err(value_error)?;
    let weight = Span::new(weight, &[shape.0, shape.1, float_type.size_bytes()])?;
    let [codes, scales, biases] = [
        Span::new(into[0], &[packed.code_bytes()])?,
        Span::new(into[1], &[packed.scale_bytes()])?,
        Span::new(into[2], &[packed.scale_bytes()])?,
    ];
    caught(py, || {
        let weight = weight.borrowed();
        let source = FloatMatrix::new(shape.0, shape.1, float_type, &weight).map_err(value_error)?;
        let matrix = quantize(source, packing, Encoder::Transformers).map_err(value_error)?;
        codes.fill(&matrix.codes);
        scales.fill(&matrix.scales);
        biases.fill(&matrix.biases);
        Ok(())
    })
}
