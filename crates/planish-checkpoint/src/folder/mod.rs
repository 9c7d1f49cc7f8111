//! A Hugging Face folder: config.json, safetensors (one file or shards), and whatever lies beside them.

pub(crate) mod files;
pub(crate) mod header;
pub(crate) mod map;
pub(crate) mod paths;
pub(crate) mod shards;
pub(crate) mod tensors;

use std::path::Path;

use bytes::Bytes;
use planish_format::{PackedMatrix, PackedShape};
use serde_json::{Map, Value};

use crate::source::{self, Source};
use crate::{Dialect, Entry, Error, Layout, Tensor, Weight, modules};
use paths::Root;
use tensors::Tensors;

/// Reads the data of a folder.
pub(crate) struct Reader {
    root: Root,
    tensors: Tensors,
    biases_suffix: &'static str,
}

/// Opens a folder: reads config.json and the headers, checks that they agree.
pub(crate) fn open(folder: &Path) -> Result<Source, Error> {
    let root = Root::new(folder)?;
    let config_file = folder.join("config.json");
    let config = read_object(&root, "config.json")?
        .ok_or_else(|| Error::missing(&config_file, "a Hugging Face model folder has one"))?;
    let dialect = Dialect::from_config(&config, &config_file)?;
    let tensors = shards::open(&root)?;
    let entries = modules::entries(&tensors, &dialect, &config_file)?;
    let files = files::carried(&root)?;
    let biases_suffix = dialect.biases_suffix().unwrap_or_default();
    let reader = source::Reader::Folder(Reader {
        root,
        tensors,
        biases_suffix,
    });
    Ok(Source {
        path: folder.to_path_buf(),
        config,
        dialect,
        entries,
        files,
        reader,
    })
}

/// A JSON file of the folder that must hold an object; `None` if there is no such file.
pub(crate) fn read_object(root: &Root, name: &str) -> Result<Option<Map<String, Value>>, Error> {
    let Some(data) = files::read(root, name)? else {
        return Ok(None);
    };
    let path = root.join(name);
    match serde_json::from_slice(&data) {
        Ok(Value::Object(object)) => Ok(Some(object)),
        Ok(other) => Err(Error::malformed(
            &path,
            format!("expected a JSON object, found {}", kind(&other)),
        )),
        Err(error) => Err(Error::malformed(&path, format!("expected JSON: {error}"))),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

impl Reader {
    pub fn read(&self, entry: &Entry) -> Result<Weight, Error> {
        match &entry.layout {
            Layout::Plain(_) => Ok(Weight::Plain(self.part(&entry.name)?)),
            Layout::Packed { packing, scale_type } => {
                let module = entry.module().unwrap_or(&entry.name);
                let (rows, cols) = entry.rows_cols();
                let invalid = |error| Error::malformed(self.root.folder(), format!("tensor `{}`: {error}", entry.name));
                let shape = PackedShape::new(rows, cols, *packing, *scale_type).map_err(invalid)?;
                let codes = aligned(self.part(&entry.name)?);
                let scales = aligned(self.part(&format!("{module}.scales"))?);
                let biases = aligned(self.part(&format!("{module}{}", self.biases_suffix))?);
                PackedMatrix::new(shape, codes, scales, biases)
                    .map(Weight::Packed)
                    .map_err(invalid)
            }
            Layout::Unsupported(scheme) => {
                let what = format!(
                    "tensor `{}` is packed with mode {}, which planish does not read; it reads affine",
                    entry.name,
                    scheme.mode.name()
                );
                Err(Error::unsupported(self.root.folder(), what))
            }
        }
    }

    pub fn tensor(&self, name: &str) -> Result<Option<Tensor>, Error> {
        Ok(self.tensors.read(name))
    }

    pub fn file(&self, name: &str) -> Result<Option<Bytes>, Error> {
        files::read(&self.root, name)
    }

    pub fn release(&self, entry: &Entry) {
        let mut names = vec![entry.name.clone()];
        if let (Some(module), false) = (entry.module(), matches!(entry.layout, Layout::Plain(_))) {
            names.push(format!("{module}.scales"));
            names.push(format!("{module}{}", self.biases_suffix));
        }
        for name in &names {
            self.tensors.release(name);
        }
    }

    fn part(&self, name: &str) -> Result<Tensor, Error> {
        let missing = || Error::missing(self.root.folder(), format!("the checkpoint has no tensor `{name}`"));
        self.tensors.read(name).ok_or_else(missing)
    }
}

/// The data of a tensor at an address that its type asks for. Files by today's writers have it so; older ones are copied.
fn aligned(tensor: Tensor) -> Bytes {
    let data = tensor.data;
    if data.as_ptr().align_offset(tensor.dtype.size_bytes()) == 0 {
        return data;
    }
    let mut words = vec![0u64; data.len().div_ceil(8)];
    bytemuck::cast_slice_mut(&mut words)[..data.len()].copy_from_slice(&data);
    Bytes::from_owner(Words(words)).slice(..data.len())
}

/// Aligned bytes for `Bytes` to own.
struct Words(Vec<u64>);

impl AsRef<[u8]> for Words {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}
