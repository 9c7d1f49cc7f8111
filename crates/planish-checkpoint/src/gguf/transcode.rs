//! Tensor data as weights: floats stay in the map, blocks become packed codes, scales and biases; rows in parallel.
//!
//! Nothing is lost: codes are moved, and scales and biases are exact in the type the table gives, so dequantizing the result
//! in f32 gives the very numbers of the original (zeros may differ in sign).

use bytes::Bytes;
use half::f16;
use planish_format::{FloatType, PackedMatrix, PackedShape, memory};
use rayon::prelude::*;

use super::fault::Fault;
use super::header::TensorInfo;
use super::row_order::RowOrder;
use super::tensor_type::{BlockCodes, Encoding, Unpacked};
use crate::{Dtype, Tensor, Weight};

/// Reads a tensor of the mapped file, its rows and columns in Hugging Face order.
pub(super) fn read(file: &Bytes, tensor: &TensorInfo, order: RowOrder, columns: RowOrder) -> Result<Weight, Fault> {
    let stored = Stored::new(file, tensor, order, columns);
    match &tensor.tensor_type.storage {
        Encoding::Floats(float_type) => {
            let dtype = (*float_type).into();
            Ok(Weight::Plain(Tensor {
                dtype,
                shape: tensor.shape.clone(),
                data: stored.floats(),
            }))
        }
        Encoding::Codes(codes) => stored.pack(codes).map(Weight::Packed),
    }
}

/// A tensor as rows of bytes.
struct Stored<'a> {
    tensor: &'a TensorInfo,
    order: RowOrder,
    columns: RowOrder,
    data: Bytes, // (rows, row_bytes)
    rows: usize,
    cols: usize,
    row_bytes: usize,
}

impl<'a> Stored<'a> {
    fn new(file: &Bytes, tensor: &'a TensorInfo, order: RowOrder, columns: RowOrder) -> Stored<'a> {
        // A vector is permuted by element: as many rows of one column.
        let by_element = tensor.shape.len() == 1 && order != RowOrder::AsStored;
        let cols = if by_element {
            1
        } else {
            tensor.shape.last().copied().unwrap_or(1)
        };
        let rows = tensor.shape.iter().product::<usize>() / cols;
        let row_bytes = tensor.tensor_type.row_bytes(cols);
        Stored {
            tensor,
            order,
            columns,
            data: file.slice(tensor.range.clone()),
            rows,
            cols,
            row_bytes,
        }
    }

    /// The bytes of the row that Hugging Face has at `row`.
    fn row(&self, row: usize) -> &[u8] {
        let stored = self.order.stored_row(row);
        &self.data[stored * self.row_bytes..][..self.row_bytes]
    }

    fn floats(&self) -> Bytes {
        if self.order == RowOrder::AsStored && self.columns == RowOrder::AsStored {
            return self.data.clone();
        }
        let mut moved = memory::with_room("weights", self.data.len());
        let size = self.row_bytes / self.cols.max(1);
        for row in 0..self.rows {
            let row = self.row(row);
            match self.columns {
                RowOrder::AsStored => moved.extend_from_slice(row),
                order => (0..self.cols).for_each(|col| {
                    moved.extend_from_slice(&row[order.stored_row(col) * size..][..size]);
                }),
            }
        }
        moved.into()
    }

    fn pack(&self, block_codes: &BlockCodes) -> Result<PackedMatrix, Fault> {
        let packing = block_codes.packing();
        if let RowOrder::Tiled { size, .. } = self.columns
            && !size.is_multiple_of(packing.group())
        {
            return Err(Fault::unsupported(format!(
                "tensor `{}`: heads of {size} columns, which groups of {} cut",
                self.tensor.name,
                packing.group()
            )));
        }
        let shape = PackedShape::new(self.rows, self.cols, packing, block_codes.scale_type)
            .map_err(|error| Fault::malformed(format!("tensor `{}`: {error}", self.tensor.name)))?;
        let mut codes = memory::filled("weights", shape.code_bytes(), 0);
        let mut scales = memory::filled("weights", shape.scale_bytes(), 0);
        let mut biases = memory::filled("weights", shape.scale_bytes(), 0);
        let rows = codes
            .par_chunks_exact_mut(shape.code_row_bytes())
            .zip(scales.par_chunks_exact_mut(shape.scale_row_bytes()))
            .zip(biases.par_chunks_exact_mut(shape.scale_row_bytes()))
            .enumerate();
        let fits = rows
            .map_init(
                || Row::new(shape.cols, shape.groups()),
                |scratch, (row, ((codes, scales), biases))| {
                    scratch.unpack(self.row(row), self.tensor, block_codes);
                    scratch.reorder(self.columns, packing.group());
                    planish_format::pack_codes(&scratch.codes, packing.bits(), codes);
                    write_scales(&scratch.scales, block_codes.scale_type, scales);
                    write_scales(&scratch.biases, block_codes.scale_type, biases);
                    scratch.biases_fit(block_codes.scale_type)
                },
            )
            .reduce(|| true, |all, one| all && one);
        if !fits {
            let what = format!(
                "tensor `{}`: its scales are too large for {:?}",
                self.tensor.name, block_codes.scale_type
            );
            return Err(Fault::unsupported(what));
        }
        let matrix = PackedMatrix::new(shape, codes.into(), scales.into(), biases.into());
        Ok(matrix.expect("the parts were made for the shape"))
    }
}

/// One row taken apart.
struct Row {
    codes: Vec<u8>,   // (cols)
    scales: Vec<f32>, // (cols / group)
    biases: Vec<f32>, // (cols / group)
}

impl Row {
    fn new(cols: usize, groups: usize) -> Row {
        Row {
            codes: vec![0; cols],
            scales: vec![0.0; groups],
            biases: vec![0.0; groups],
        }
    }

    fn unpack(&mut self, bytes: &[u8], tensor: &TensorInfo, block_codes: &BlockCodes) {
        let block = tensor.tensor_type.block;
        let groups = block / block_codes.group;
        let blocks = bytes
            .chunks_exact(tensor.tensor_type.block_bytes)
            .zip(self.codes.chunks_exact_mut(block))
            .zip(self.scales.chunks_exact_mut(groups))
            .zip(self.biases.chunks_exact_mut(groups));
        for (((bytes, codes), scales), biases) in blocks {
            (block_codes.unpack)(bytes, &mut Unpacked { codes, scales, biases });
        }
    }

    /// Whole groups of columns in Hugging Face order.
    fn reorder(&mut self, columns: RowOrder, group: usize) {
        if columns == RowOrder::AsStored {
            return;
        }
        let stored: Vec<usize> = (0..self.scales.len())
            .map(|place| columns.stored_row(place * group) / group)
            .collect();
        let of_groups = |values: &[f32]| stored.iter().map(|&place| values[place]).collect();
        self.scales = of_groups(&self.scales);
        self.biases = of_groups(&self.biases);
        let codes = stored.iter().map(|&place| &self.codes[place * group..][..group]);
        self.codes = codes.flatten().copied().collect();
    }

    /// False if a bias made from a finite scale overflows: weights beyond 65504 in half precision, which no real model has.
    fn biases_fit(&self, scale_type: FloatType) -> bool {
        let infinite = |bias: f32| match scale_type {
            FloatType::F16 => bias.is_finite() && f16::from_f32(bias).is_infinite(),
            FloatType::BF16 => bias.is_infinite(),
            FloatType::F32 => false,
        };
        let overflows = |(&scale, &bias): (&f32, &f32)| scale.is_finite() && infinite(bias);
        !self.scales.iter().zip(&self.biases).any(overflows)
    }
}

/// Writes numbers that the type holds exactly.
fn write_scales(values: &[f32], scale_type: FloatType, out: &mut [u8]) {
    scale_type.encode(values, out);
}

/// One of the three arrays of a packed matrix as a tensor.
pub(super) fn part_of(matrix: PackedMatrix, part: &str) -> Tensor {
    let shape = matrix.shape();
    if part == ".weight" {
        return Tensor {
            dtype: Dtype::U32,
            shape: vec![shape.rows, shape.code_row_bytes() / 4],
            data: matrix.codes,
        };
    }
    let data = if part == ".scales" {
        matrix.scales
    } else {
        matrix.biases
    };
    Tensor {
        dtype: shape.scale_type.into(),
        shape: vec![shape.rows, shape.groups()],
        data,
    }
}
