//! Small numbers with a scale for each block, as plain floats: `weight = scale * number`, computed in f32 and rounded once.

use planish_format::{FloatType, memory};
use rayon::prelude::*;

use super::columns::floats;
use super::find::{FLOATS, Find};
use super::small_floats::{e8m0, table};
use super::{Found, Respelled};
use crate::tensor::rows_cols;
use crate::{Dtype, Error, Layout, Tensor, Weight};

/// Rows and columns that share a scale.
type Block = [usize; 2];

/// Where the numbers of a weight are, and what multiplies them.
pub(super) struct Scaled<'a> {
    /// Without `.weight`.
    pub module: &'a str,
    /// The tensor of the numbers. // (.., rows, cols)
    pub numbers: String,
    /// The tensor of their scales.
    pub scales: String,
    /// The blocks that the method has, where scales are neither one, nor one for each row.
    pub block: Option<Block>,
    /// What the weights become.
    pub float_type: FloatType,
}

impl Scaled<'_> {
    /// The weight, or what is wrong with its tensors.
    pub fn found(self, find: &Find) -> Result<Found, Error> {
        let numbers = find.need(&self.numbers, &self.numbers)?;
        let scales = find.need(&self.scales, &self.numbers)?;
        let types = [&FLOATS[..], &[Dtype::F8E8M0, Dtype::U8]].concat();
        find.check_type(&self.scales, scales, &types)?;
        let (rows, cols) = rows_cols(&numbers.shape);
        let block = self.block_of(numbers.shape.len(), (rows, cols), &scales.shape);
        let block = block.filter(|_| rows > 0 && cols > 0).ok_or_else(|| {
            let what = format!(
                "expected one scale, one for each row or one for each block of {:?}, found shape {:?}",
                numbers.shape, scales.shape
            );
            find.wrong(&self.scales, &what)
        })?;
        let float_type = self.float_type;
        Ok(Found {
            name: format!("{}.weight", self.module),
            shape: numbers.shape.clone(),
            layout: Layout::Plain(float_type.into()),
            respelled: Respelled {
                parts: vec![self.numbers, self.scales],
                decode: Box::new(move |parts| decode(block, float_type, parts)),
            },
            idle: Vec::new(),
        })
    }

    /// The block that a scale of this shape stands for.
    fn block_of(&self, sizes: usize, (rows, cols): (usize, usize), scales: &[usize]) -> Option<Block> {
        let count: usize = scales.iter().product();
        if sizes != 2 {
            return None;
        }
        if count == 1 {
            return Some([rows, cols]);
        }
        if count == rows && (scales.len() == 1 || scales.last() == Some(&1)) {
            return Some([1, cols]);
        }
        let &[block_rows, block_cols] = scales else { return None };
        let by_method = self.block.filter(|[high, wide]| {
            *high > 0 && *wide > 0 && [rows.div_ceil(*high), cols.div_ceil(*wide)] == [block_rows, block_cols]
        });
        by_method.or_else(|| {
            let whole =
                block_rows > 0 && block_cols > 0 && rows.is_multiple_of(block_rows) && cols.is_multiple_of(block_cols);
            whole.then(|| [rows / block_rows, cols / block_cols])
        })
    }
}

/// The values of scales: floats, or powers of two by their exponents.
pub(super) fn scale_values(tensor: &Tensor) -> Result<Vec<f32>, String> {
    match tensor.dtype {
        Dtype::F8E8M0 | Dtype::U8 => Ok(tensor.data.iter().map(|&byte| e8m0(byte)).collect()),
        Dtype::F8E4M3 => Ok(tensor
            .data
            .iter()
            .map(|&byte| super::small_floats::e4m3(byte))
            .collect()),
        _ => floats(tensor),
    }
}

fn decode([high, wide]: Block, float_type: FloatType, parts: &[Tensor]) -> Result<Weight, String> {
    let [numbers, scales] = parts else {
        return Err("a tensor is missing".to_owned());
    };
    let (rows, cols) = numbers.rows_cols();
    let table = table(numbers.dtype).ok_or_else(|| format!("expected numbers of 8 bits, found {}", numbers.dtype))?;
    let scales = scale_values(scales)?;
    let row_scales = cols.div_ceil(wide);
    let row_bytes = cols * float_type.size_bytes();
    let mut data = memory::filled("weights", rows * row_bytes, 0);
    data.par_chunks_exact_mut(row_bytes).enumerate().for_each_init(
        || vec![0.0; cols],
        |values, (row, out)| {
            let scales = &scales[row / high * row_scales..][..row_scales];
            let numbers = &numbers.data[row * cols..][..cols];
            for ((values, numbers), scale) in values.chunks_mut(wide).zip(numbers.chunks(wide)).zip(scales) {
                for (value, &number) in values.iter_mut().zip(numbers) {
                    *value = table[usize::from(number)] * scale;
                }
            }
            float_type.encode(values, out);
        },
    );
    Ok(Weight::Plain(Tensor {
        dtype: float_type.into(),
        shape: numbers.shape.clone(),
        data: data.into(),
    }))
}
