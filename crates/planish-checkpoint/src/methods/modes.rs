//! MLX's modes of small floats. Of module P: `P.weight`, words of 4- or 8-bit floats, and `P.scales`, a byte for each group: powers of two
//! (mxfp4, mxfp8), or 8-bit floats (nvfp4). 4-bit floats become packed codes of 5 bits without loss, 8-bit ones plain.

use planish_format::{FloatType, PackedShape, float4_packing, float4_to_affine, memory};

use super::Respelled;
use super::small_floats::{e4m3, e8m0};
use crate::tensor::rows_cols;
use crate::{Dtype, Layout, Mode, Tensor, Weight};

/// A weight of this shape, as plain floats, and how it is read; else what is wrong, in words.
pub(crate) fn respelled(mode: Mode, module: &str, shape: &[usize]) -> Result<(Layout, Respelled), String> {
    let (rows, cols) = rows_cols(shape);
    let parts = vec![format!("{module}.weight"), format!("{module}.scales")];
    let (group, scale): (usize, fn(u8) -> f32) = match mode {
        Mode::Mxfp8 => {
            let shape = shape.to_vec();
            let respelled = Respelled {
                parts,
                decode: Box::new(move |parts| plain(&shape, parts)),
            };
            return Ok((Layout::Plain(Dtype::BF16), respelled));
        }
        Mode::Nvfp4 => (16, e4m3),
        Mode::Affine | Mode::Mxfp4 => (32, e8m0),
    };
    let packing = float4_packing(group).ok_or("a group that the format lacks")?;
    // Half a scale, and six times it, are exact.
    let scale_type = FloatType::BF16;
    PackedShape::new(rows, cols, packing, scale_type).map_err(|error| error.to_string())?;
    let decode = move |parts: &[Tensor]| {
        let [codes, scales] = parts else {
            return Err("a tensor is missing".to_owned());
        };
        let scales: Vec<f32> = scales.data.iter().map(|&byte| scale(byte)).collect();
        let matrix = float4_to_affine(rows, cols, &codes.data, (group, &scales), scale_type);
        let matrix = matrix.map_err(|error| error.to_string())?;
        match matrix
            .biases
            .as_chunks::<2>()
            .0
            .iter()
            .any(|bias| bias[1] & 0x7f == 0x7f && bias[0] & 0x80 != 0)
        {
            true => Err("has a scale too large for BF16".to_owned()),
            false => Ok(Weight::Packed(matrix)),
        }
    };
    let respelled = Respelled {
        parts,
        decode: Box::new(decode),
    };
    Ok((Layout::Packed { packing, scale_type }, respelled))
}

/// 8-bit floats with a power of two for each 32 of them: products that bf16 holds exactly, but for those below its least normal number.
fn plain(shape: &[usize], parts: &[Tensor]) -> Result<Weight, String> {
    let [numbers, scales] = parts else {
        return Err("a tensor is missing".to_owned());
    };
    let mut values = memory::filled("weights", numbers.data.len(), 0.0);
    for ((values, numbers), &scale) in values
        .chunks_exact_mut(32)
        .zip(numbers.data.chunks_exact(32))
        .zip(scales.data.iter())
    {
        let scale = e8m0(scale);
        values
            .iter_mut()
            .zip(numbers)
            .for_each(|(value, &number)| *value = e4m3(number) * scale);
    }
    let mut data = memory::filled("weights", 2 * values.len(), 0);
    FloatType::BF16.encode(&values, &mut data);
    Ok(Weight::Plain(Tensor {
        dtype: Dtype::BF16,
        shape: shape.to_vec(),
        data: data.into(),
    }))
}
