//! Where the values of a weight are in the file, and how they lie there.

use planish_format::FloatType;

use super::architecture::Architecture;
use super::config::{Keys, Sizes};
use super::fault::Fault;
use super::header::TensorInfo;
use super::metadata::Metadata;
use super::mixed::DeltaHeads;
use super::row_order::RowOrder;
use super::tensor_type::Encoding;
use crate::View;
use crate::tensor::rows_cols;

/// Where a weight is.
#[derive(Clone)]
pub(super) struct Place {
    /// The tensor of the header, or the part of it that belongs to an expert.
    pub tensor: TensorInfo,
    pub order: RowOrder,
    pub columns: RowOrder,
    /// Undoes what else a converter has done to plain values: transposed matrices, norms with 1 added.
    pub view: View,
    /// The file has what is the negative exponential of the values.
    pub log: bool,
}

/// One tensor for each expert of a stack (experts, rows, cols), with its name.
pub(super) fn experts(stack: &TensorInfo, before: &str, after: &str) -> Result<Vec<(String, TensorInfo)>, Fault> {
    let [count, rows, cols] = stack.shape[..] else {
        let what = format!(
            "tensor `{}`: expected the shape (experts, rows, columns), found {:?}",
            stack.name, stack.shape
        );
        return Err(Fault::malformed(what));
    };
    let bytes = stack.range.len() / count.max(1);
    if bytes == 0 {
        let what = format!(
            "tensor `{}`: expected weights of {count} experts, found none",
            stack.name
        );
        return Err(Fault::malformed(what));
    }
    let one = |expert: usize| {
        let start = stack.range.start + expert * bytes;
        let tensor = TensorInfo {
            shape: vec![rows, cols],
            range: start..start + bytes,
            ..stack.clone()
        };
        (format!("{before}{expert}{after}"), tensor)
    };
    Ok((0..count).map(one).collect())
}

/// Whether a tensor is of a layer that is not read.
pub(super) fn is_beyond(name: &str, layers: usize) -> bool {
    let layer = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.'));
    let layer = layer.and_then(|(layer, _)| layer.parse::<usize>().ok());
    layer.is_some_and(|layer| layer >= layers)
}

pub(super) fn place_of(
    architecture: &'static Architecture,
    metadata: &Metadata,
    sizes: &Sizes,
    tensor: TensorInfo,
    name: &str,
) -> Result<Place, Fault> {
    let (order, columns) = match architecture.tiled_heads {
        true if name.contains(".linear_attn.") => tiled_order(architecture, metadata, &tensor, name)?,
        _ => (row_order_of(architecture, sizes, &tensor, name)?, RowOrder::AsStored),
    };
    let is_norm =
        tensor.shape.len() == 1 && name.ends_with("norm.weight") && !name.ends_with("linear_attn.norm.weight");
    let log = name.ends_with(".A_log");
    if log && !matches!(tensor.tensor_type.storage, Encoding::Floats(FloatType::F32)) {
        let what = format!(
            "tensor `{}`: expected type F32, found {}",
            tensor.name, tensor.tensor_type.name
        );
        return Err(Fault::unsupported(what));
    }
    let module = name.strip_suffix(".weight").unwrap_or_default();
    let rows = rows_cols(&tensor.shape).0;
    let view = View {
        transposed: architecture.transposed.iter().any(|layer| module.ends_with(layer)) && tensor.shape.len() == 2,
        add: if architecture.norms_less_one && is_norm {
            -1.0
        } else {
            0.0
        },
        ..View::whole(rows)
    };
    Ok(Place {
        tensor,
        order,
        columns,
        view,
        log,
    })
}

/// Queries, keys and values of a delta net as tensors of their own, which are parts of one at Hugging Face.
pub(super) fn delta_inputs(
    metadata: &Metadata,
    architecture: &'static Architecture,
    tensor: &TensorInfo,
    name: &str,
) -> Result<Vec<(String, TensorInfo)>, Fault> {
    let prefix = architecture.name;
    let heads = DeltaHeads::read(&Keys { prefix, metadata })?;
    let (keys, values) = (heads.keys * heads.key_dim, heads.values * heads.value_dim);
    let [rows, cols] = tensor.shape[..] else {
        let what = format!("tensor `{}`: expected a matrix, found {:?}", tensor.name, tensor.shape);
        return Err(Fault::malformed(what));
    };
    if rows != 2 * keys + values {
        let what = format!(
            "tensor `{}`: expected {} rows, found {rows}",
            tensor.name,
            2 * keys + values
        );
        return Err(Fault::malformed(what));
    }
    let row_bytes = tensor.range.len() / rows;
    let stem = name.strip_suffix("qkv.weight").unwrap_or(name);
    let part = |(letter, first, rows): (&str, usize, usize)| {
        let start = tensor.range.start + first * row_bytes;
        let part = TensorInfo {
            shape: vec![rows, cols],
            range: start..start + rows * row_bytes,
            ..tensor.clone()
        };
        (format!("{stem}{letter}.weight"), part)
    };
    let parts = [("q", 0, keys), ("k", keys, keys), ("v", 2 * keys, values)];
    Ok(parts.map(part).to_vec())
}

/// The order of rows and of columns of a delta net's tensor.
fn tiled_order(
    architecture: &'static Architecture,
    metadata: &Metadata,
    tensor: &TensorInfo,
    name: &str,
) -> Result<(RowOrder, RowOrder), Fault> {
    let prefix = architecture.name;
    let heads = DeltaHeads::read(&Keys { prefix, metadata })?;
    let tiled = |first: usize, size: usize| RowOrder::Tiled {
        first,
        keys: heads.keys,
        shared: heads.values / heads.keys,
        size,
    };
    let (queries_and_keys, as_stored) = (2 * heads.keys * heads.key_dim, RowOrder::AsStored);
    let (_, part) = name.split_once(".linear_attn.").unwrap_or_default();
    let (order, columns) = match part.split('.').next().unwrap_or_default() {
        "in_proj_qkv" | "conv1d" => (tiled(queries_and_keys, heads.value_dim), as_stored),
        "in_proj_z" => (tiled(0, heads.value_dim), as_stored),
        "in_proj_a" | "in_proj_b" | "A_log" | "dt_bias" => (tiled(0, 1), as_stored),
        "out_proj" => (as_stored, tiled(0, heads.value_dim)),
        _ => return Ok((as_stored, as_stored)),
    };
    let of_heads = |order: RowOrder, found: usize| match order {
        RowOrder::Tiled { first, size, .. } if first + heads.values * size != found => Err(Fault::malformed(format!(
            "tensor `{}`: expected {} rows or columns, found {found}",
            tensor.name,
            first + heads.values * size
        ))),
        _ => Ok(order),
    };
    let cols = tensor.shape.last().copied().unwrap_or(1);
    Ok((of_heads(order, tensor.shape[0])?, of_heads(columns, cols)?))
}

/// How the rows of a tensor lie, having checked that they are whole heads.
fn row_order_of(
    architecture: &Architecture,
    sizes: &Sizes,
    tensor: &TensorInfo,
    name: &str,
) -> Result<RowOrder, Fault> {
    let heads = if architecture.latent || architecture.heads_differ() {
        return Ok(RowOrder::AsStored);
    } else if name.contains(".self_attn.q_proj.") {
        sizes.heads * if architecture.gated_queries { 2 } else { 1 }
    } else if name.contains(".self_attn.k_proj.") {
        sizes.key_value_heads
    } else if architecture.joined_heads && name.contains(".query_key_value.") {
        3 * sizes.heads
    } else {
        return Ok(RowOrder::AsStored);
    };
    let (expected, found) = (heads * sizes.head_dim, tensor.shape[0]);
    if expected != found {
        let what = format!(
            "tensor `{}`: expected {heads} heads of {} rows, {expected} in all, found {found}",
            tensor.name, sizes.head_dim
        );
        return Err(Fault::malformed(what));
    }
    let head_dim = sizes.head_dim;
    Ok(match (architecture.neighbours, architecture.joined_heads) {
        (true, _) => RowOrder::Neighbours { head_dim },
        (false, true) => RowOrder::Apart {
            heads: sizes.heads,
            head_dim,
        },
        (false, false) => RowOrder::AsStored,
    })
}
