//! Which tensor goes where: files of bounded size in the order of the plan, aligned positions within each.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use safetensors::tensor::{Metadata, TensorInfo};

use super::{Planned, WriterOptions};
use crate::Error;
use crate::checksum::Checksum;

/// A safetensors file to be written.
#[derive(Debug)]
pub(super) struct Shard {
    pub name: String,
    /// Length and JSON, padded so that the data starts at a multiple of 8.
    pub header: Vec<u8>,
    /// Header and data.
    pub size_bytes: u64,
}

/// Where the data of a tensor goes.
#[derive(Debug)]
pub(super) struct Place {
    pub shard: usize,
    /// From the start of the file.
    pub position: u64,
    pub size_bytes: u64,
    pub written_bytes: u64,
    /// Of what is written.
    pub checksum: Checksum,
}

/// A planned tensor with its size.
struct Sized {
    tensor: Planned,
    size_bytes: usize,
}

/// Files and places for all tensors. `target` is for messages.
pub(super) fn shards(
    target: &Path,
    planned: Vec<Planned>,
    options: &WriterOptions,
) -> Result<(Vec<Shard>, HashMap<String, Place>), Error> {
    let groups = split(target, planned, options.max_shard_bytes)?;
    let count = groups.len();
    let mut shards = Vec::with_capacity(count);
    let mut places = HashMap::new();
    for (index, mut group) in groups.into_iter().enumerate() {
        group.sort_by_key(|sized| std::cmp::Reverse(sized.tensor.dtype.size_bytes()));
        let (shard, positions) = lay_out(target, name(index, count), &group, options.format)?;
        for (sized, position) in group.into_iter().zip(positions) {
            let place = Place {
                shard: index,
                position,
                size_bytes: sized.size_bytes as u64,
                written_bytes: 0,
                checksum: Checksum::default(),
            };
            let name = sized.tensor.name;
            if places.insert(name.clone(), place).is_some() {
                return Err(Error::output(
                    target,
                    format!("two tensors would have the name `{name}`"),
                ));
            }
        }
        shards.push(shard);
    }
    Ok((shards, places))
}

fn name(index: usize, count: usize) -> String {
    match count {
        1 => "model.safetensors".to_string(),
        _ => format!("model-{:05}-of-{count:05}.safetensors", index + 1),
    }
}

/// Cuts the plan where the next tensor would make a file too large. No tensors make one empty file.
fn split(target: &Path, planned: Vec<Planned>, max_shard_bytes: u64) -> Result<Vec<Vec<Sized>>, Error> {
    let mut groups = vec![Vec::new()];
    let mut filled = 0u64;
    let mut names = HashSet::new();
    for tensor in planned {
        if !names.insert(tensor.name.clone()) {
            return Err(Error::output(
                target,
                format!("two tensors would have the name `{}`", tensor.name),
            ));
        }
        let size = tensor
            .shape
            .iter()
            .try_fold(1usize, |size, &next| size.checked_mul(next));
        let size_bytes = size
            .and_then(|elements| tensor.dtype.bytes_of(elements))
            .ok_or_else(|| {
                let what = format!(
                    "tensor `{}`: shape {:?} of {} overflows",
                    tensor.name, tensor.shape, tensor.dtype
                );
                Error::output(target, what)
            })?;
        if filled > 0 && filled.saturating_add(size_bytes as u64) > max_shard_bytes {
            groups.push(Vec::new());
            filled = 0;
        }
        filled += size_bytes as u64;
        if let Some(group) = groups.last_mut() {
            group.push(Sized { tensor, size_bytes });
        }
    }
    Ok(groups)
}

/// The header of one file and the positions of its tensors.
fn lay_out(target: &Path, name: String, group: &[Sized], format: &str) -> Result<(Shard, Vec<u64>), Error> {
    let mut end = 0;
    let mut infos = Vec::with_capacity(group.len());
    for Sized { tensor, size_bytes } in group {
        let data_offsets = (end, end + size_bytes);
        let info = TensorInfo {
            dtype: tensor.dtype.to_safetensors(),
            shape: tensor.shape.clone(),
            data_offsets,
        };
        infos.push((tensor.name.clone(), info));
        end += size_bytes;
    }
    let metadata = HashMap::from([("format".to_string(), format.to_string())]);
    let starts: Vec<usize> = infos.iter().map(|(_, info)| info.data_offsets.0).collect();
    let invalid = |error: String| Error::output(target, format!("{name}: {error}"));
    let metadata = Metadata::new(Some(metadata), infos).map_err(|error| invalid(error.to_string()))?;
    let mut json = serde_json::to_vec(&metadata).map_err(|error| invalid(error.to_string()))?;
    json.resize(json.len().next_multiple_of(8), b' ');
    let mut header = (json.len() as u64).to_le_bytes().to_vec();
    header.extend(json);
    let data_start = header.len() as u64;
    let positions = starts.into_iter().map(|start| data_start + start as u64).collect();
    Ok((
        Shard {
            name,
            size_bytes: data_start + end as u64,
            header,
        },
        positions,
    ))
}
