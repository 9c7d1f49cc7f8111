//! gpt-oss's experts as 4-bit floats: of a stack X, `X_blocks` (experts, rows, columns / 32, 16 bytes of pairs) and `X_scales` (experts,
//! rows, columns / 32), powers of two. To conversions X is plain, (experts, columns, rows) in bfloat16, as transformers unpacks it; models
//! take the blocks as they are stored.

use std::fmt;

use planish_format::{FloatType, dequantize, memory, mxfp4_to_affine};
use rayon::prelude::*;

use super::find::Find;
use super::{Found, Respelled};
use crate::{Dtype, Error, Layout, Tensor, Weight, transpose_columns};

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Mxfp4;

impl Mxfp4 {
    /// The weight that the tensor called `name` begins.
    pub fn weight(&self, find: &Find, name: &str) -> Result<Option<Found>, Error> {
        let Some(stack) = name.strip_suffix("_blocks") else {
            return Ok(None);
        };
        let blocks = find.need(name, name)?;
        find.check_type(name, blocks, &[Dtype::U8])?;
        let [experts, rows, groups, 16] = blocks.shape[..] else {
            let what = format!("expected shape [experts, rows, groups, 16], found {:?}", blocks.shape);
            return Err(find.wrong(name, &what));
        };
        let scales_name = format!("{stack}_scales");
        let scales = find.need(&scales_name, name)?;
        find.check_type(&scales_name, scales, &[Dtype::U8])?;
        find.check_shape(&scales_name, scales, &[experts, rows, groups])?;
        let shape = vec![experts, groups * 32, rows];
        let sizes = shape.clone();
        Ok(Some(Found {
            name: stack.to_owned(),
            shape,
            layout: Layout::Plain(Dtype::BF16),
            respelled: Respelled {
                parts: vec![name.to_owned(), scales_name],
                decode: Box::new(move |parts| decode(&sizes, parts)),
            },
            idle: Vec::new(),
        }))
    }
}

fn decode(shape: &[usize], parts: &[Tensor]) -> Result<Weight, String> {
    let ([blocks, scales], &[_, cols, rows]) = (parts, shape) else {
        return Err("a tensor is missing".to_owned());
    };
    let mut data = memory::filled("weights", 2 * shape.iter().product::<usize>(), 0u8);
    let expert_bytes = (2 * cols * rows).max(1);
    let experts = data.par_chunks_exact_mut(expert_bytes).enumerate();
    let expert = |(expert, out): (usize, &mut [u8])| {
        let part = |tensor: &Tensor, size: usize| tensor.data.slice(expert * size..(expert + 1) * size);
        let matrix = mxfp4_to_affine(
            rows,
            cols,
            &part(blocks, rows * cols / 2),
            &part(scales, rows * cols / 32),
        );
        let floats = dequantize(&matrix.map_err(|error| error.to_string())?, FloatType::BF16);
        let mut turned = memory::with_room("weights", floats.len());
        transpose_columns(&floats, 2 * cols, 2, 0..cols, &mut turned);
        out.copy_from_slice(&turned);
        Ok(())
    };
    experts.map(expert).collect::<Result<(), String>>()?;
    Ok(Weight::Plain(Tensor {
        dtype: Dtype::BF16,
        shape: shape.to_vec(),
        data: data.into(),
    }))
}

impl fmt::Display for Mxfp4 {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "mxfp4")
    }
}
