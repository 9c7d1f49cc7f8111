//! GGUF files (versions 2 and 3, little-endian) as a [`Source`] under Hugging Face names.
//!
//! The file is mapped. Float tensors are read in place; block types become packed weights when an entry is read, one tensor
//! at a time. config.json and the tokenizer files are rebuilt from the metadata.

mod architecture;
mod architectures;
mod coded_blocks;
mod config;
mod cursor;
mod fault;
mod header;
mod imatrix;
mod k_blocks;
mod metadata;
mod parts;
mod rope;
mod row_order;
mod simple_blocks;
mod tensor_type;
mod tokenizer;
mod transcode;
mod write;

pub use self::architecture::classes;
pub use self::imatrix::{EntryInputs, Imatrix};
pub use self::write::{GgufWritten, write_gguf};

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use planish_format::FloatType;
use serde_json::{Map, Value};

use self::architecture::{Architecture, Role};
use self::config::{Facts, Sizes};
use self::fault::Fault;
use self::header::{Header, TensorInfo};
use self::row_order::RowOrder;
use self::tensor_type::Encoding;
use crate::folder::map::{MappedFile, Mapping};
use crate::order::natural_order;
use crate::source::{Source, Storage};
use crate::tensor::rows_cols;
use crate::{Dialect, Entry, Error, Layout, Tensor, View, Weight};

/// The data of a GGUF file.
struct GgufFile {
    path: PathBuf,
    /// The first has the metadata.
    files: Vec<MappedFile>,
    header: Header,
    /// Hugging Face name to tensor.
    places: HashMap<String, Place>,
    config: Map<String, Value>,
}

/// Where a weight is.
#[derive(Clone)]
struct Place {
    /// The tensor of the header, or the part of it that one expert has.
    tensor: TensorInfo,
    order: RowOrder,
    /// Undoes what else a converter has done to plain values: rows turned into columns, one added.
    view: View,
}

/// Opens a GGUF file: reads and checks its header, and rebuilds the config.
///
/// # Errors
/// A file that cannot be read, that is cut or damaged, or that holds what planish does not read.
pub(crate) fn open(path: &Path, file: MappedFile) -> Result<Source, Error> {
    let mut header = header::parse(file.bytes()).map_err(|fault| fault.at(path))?;
    let mapped = parts::open(path, file, &mut header)?;
    let opened = opened(&mapped, header).map_err(|fault| fault.at(path))?;
    let files = tokenizer::files(&opened.header.metadata);
    let storage = GgufFile {
        path: path.to_path_buf(),
        files: mapped,
        header: opened.header,
        places: opened.places,
        config: opened.config.clone(),
    };
    Ok(Source {
        path: path.to_path_buf(),
        config: opened.config,
        dialect: Dialect::Plain,
        entries: opened.entries,
        parts: Vec::new(),
        files,
        linked: Vec::new(),
        large: Vec::new(),
        notices: Vec::new(),
        storage: Box::new(storage),
    })
}

/// A parsed file.
struct Opened {
    header: Header,
    entries: Vec<Entry>,
    places: HashMap<String, Place>,
    config: Map<String, Value>,
}

fn opened(files: &[MappedFile], header: Header) -> Result<Opened, Fault> {
    let architecture = architecture::of(&header.metadata)?;
    let sizes = Sizes::read(architecture, &header.metadata)?;
    if sizes.layers > header.tensors.len() {
        let key = format!("{}.block_count", architecture.name);
        let most = format!("at most {} layers, for as many tensors", header.tensors.len());
        return Err(Fault::key(&key, &most, sizes.layers));
    }
    let mut listed = Vec::new();
    let mut places = HashMap::new();
    let mut factors: [Option<Vec<f32>>; 3] = [None, None, None];
    for tensor in &header.tensors {
        let role = architecture.role(&tensor.name).ok_or_else(|| {
            Fault::unsupported(format!(
                "tensor `{}` is not known for the architecture `{}`",
                tensor.name, architecture.name
            ))
        })?;
        let weights = match role {
            Role::Weight(name) => vec![(name, tensor.clone())],
            Role::Experts { before, after } => experts(tensor, &before, &after)?,
            Role::RopeFactors => {
                factors[0] = Some(read_factors(files, tensor)?);
                continue;
            }
            Role::ShortFactors => {
                factors[1] = Some(read_factors(files, tensor)?);
                continue;
            }
            Role::LongFactors => {
                factors[2] = Some(read_factors(files, tensor)?);
                continue;
            }
        };
        for (name, tensor) in weights {
            let place = place_of(architecture, &sizes, tensor, &name)?;
            listed.push(entry_of(name.clone(), &place));
            // Several names of an architecture may stand for one weight.
            if places.insert(name.clone(), place).is_some() {
                return Err(Fault::malformed(format!("two tensors are the weight `{name}`")));
            }
        }
    }
    let [rope_factors, short, long] = factors;
    listed.sort_by(|left, right| natural_order(&left.name, &right.name));
    let facts = Facts {
        architecture,
        metadata: &header.metadata,
        vocab_size: vocab_size(&header, &sizes)?,
        tied: !header.has(&["output.weight"]),
        attention_bias: header.has(&["blk.0.attn_q.bias", "blk.0.attn_qkv.bias"]),
        mlp_bias: header.has(&["blk.0.ffn_up.bias"]),
        output_bias: header.has(&["blk.0.attn_output.bias"]),
        query_norm: header.has(&["blk.0.attn_q_norm.weight"]),
        dtype: dtype_of(&listed),
        rope_factors,
        long_rope: short.zip(long).map(|(short, long)| [short, long]),
    };
    let config = config::rebuild(&facts, &sizes)?;
    Ok(Opened {
        entries: listed,
        places,
        config,
        header,
    })
}

fn entry_of(name: String, place: &Place) -> Entry {
    let tensor = &place.tensor;
    let layout = match &tensor.tensor_type.storage {
        Encoding::Floats(float_type) => Layout::Plain((*float_type).into()),
        Encoding::Codes(codes) => Layout::Packed {
            packing: codes.packing(),
            scale_type: codes.scale_type,
        },
    };
    let mut shape = tensor.shape.clone();
    // Packed, it stays as other layers are.
    if place.view.transposed && matches!(layout, Layout::Plain(_)) {
        shape.reverse();
    }
    // Converters drop sizes of one.
    if name.ends_with("shared_expert_gate.weight") && shape.len() == 1 {
        shape.insert(0, 1);
    }
    Entry {
        name,
        shape,
        layout,
        stored_bytes: tensor.range.len() as u64,
    }
}

/// One tensor for each expert of a stack (experts, rows, cols), with its name.
fn experts(stack: &TensorInfo, before: &str, after: &str) -> Result<Vec<(String, TensorInfo)>, Fault> {
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

fn place_of(architecture: &Architecture, sizes: &Sizes, tensor: TensorInfo, name: &str) -> Result<Place, Fault> {
    let order = row_order_of(architecture, sizes, &tensor, name)?;
    let is_norm = tensor.shape.len() == 1 && name.ends_with("norm.weight");
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
    Ok(Place { tensor, order, view })
}

/// How the rows of a tensor lie, having checked that they are whole heads.
fn row_order_of(
    architecture: &Architecture,
    sizes: &Sizes,
    tensor: &TensorInfo,
    name: &str,
) -> Result<RowOrder, Fault> {
    let heads = if name.contains(".self_attn.q_proj.") {
        sizes.heads
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

fn vocab_size(header: &Header, sizes: &Sizes) -> Result<usize, Fault> {
    let name = "token_embd.weight";
    let embedding = header.tensors.iter().find(|tensor| tensor.name == name);
    let embedding = embedding.ok_or_else(|| Fault::malformed(format!("there is no tensor `{name}`")))?;
    match embedding.shape[..] {
        [rows, cols] if cols == sizes.hidden => Ok(rows),
        _ => Err(Fault::malformed(format!(
            "tensor `{name}`: expected the shape (vocabulary, {}), found {:?}",
            sizes.hidden, embedding.shape
        ))),
    }
}

/// The float type that the matrices of the layers, or their scales, have; f32 holds all others.
fn dtype_of(entries: &[Entry]) -> &'static str {
    let matrices = entries
        .iter()
        .filter(|entry| entry.shape.len() == 2 && (entry.name.contains(".layers.") || entry.name.contains(".h.")));
    let mut float_types = matrices.map(|entry| match entry.layout {
        Layout::Packed { scale_type, .. } => Some(scale_type),
        Layout::Plain(dtype) => dtype.float_type(),
    });
    let first = float_types.next().flatten();
    match first.filter(|first| float_types.all(|other| other == Some(*first))) {
        Some(FloatType::F16) => "float16",
        Some(FloatType::BF16) => "bfloat16",
        _ => "float32",
    }
}

fn read_factors(files: &[MappedFile], tensor: &TensorInfo) -> Result<Vec<f32>, Fault> {
    let Encoding::Floats(FloatType::F32) = tensor.tensor_type.storage else {
        let what = format!(
            "tensor `{}`: expected type F32, found {}",
            tensor.name, tensor.tensor_type.name
        );
        return Err(Fault::unsupported(what));
    };
    let bytes = &files[tensor.part].bytes()[tensor.range.clone()];
    let mut factors = vec![0.0; bytes.len() / 4];
    FloatType::F32.decode(bytes, &mut factors);
    Ok(factors)
}

impl GgufFile {
    fn read_place(&self, place: &Place, shape: &[usize]) -> Result<Weight, Error> {
        let weight = transcode::read(self.files[place.tensor.part].bytes(), &place.tensor, place.order);
        let weight = weight.map_err(|fault| fault.at(&self.path))?;
        Ok(match weight {
            Weight::Plain(tensor) => Weight::Plain(place.view.apply(tensor, shape)),
            packed @ Weight::Packed(_) => packed,
        })
    }
}

impl Storage for GgufFile {
    /// The weight of an entry: mapped floats, or codes that are this call's own.
    fn read(&self, entry: &Entry) -> Result<Weight, Error> {
        let place = self.places.get(&entry.name);
        let place = place.ok_or_else(|| Error::missing(&self.path, format!("there is no weight `{}`", entry.name)))?;
        self.read_place(place, &entry.shape)
    }

    /// A plain tensor, or the codes (as `P.weight`), scales or biases of a packed one.
    fn tensor(&self, name: &str) -> Result<Option<Tensor>, Error> {
        let (weight, part) = match name.strip_suffix(".scales").or(name.strip_suffix(".biases")) {
            Some(module) => (format!("{module}.weight"), &name[module.len()..]),
            None => (name.to_string(), ".weight"),
        };
        let Some(place) = self.places.get(&weight) else {
            return Ok(None);
        };
        let shape = entry_of(weight.clone(), place).shape;
        match self.read_place(place, &shape)? {
            Weight::Plain(tensor) => Ok((part == ".weight").then_some(tensor)),
            Weight::Packed(matrix) => Ok(Some(transcode::part_of(matrix, part))),
        }
    }

    /// A rebuilt file: config.json and those that the source lists.
    fn file(&self, name: &str) -> Result<Option<Bytes>, Error> {
        if name == "config.json" {
            return Ok(Some(tokenizer::to_json(&Value::Object(self.config.clone()))));
        }
        tokenizer::file(&self.header.metadata, name).map_err(|fault| fault.at(&self.path))
    }

    fn mappings(&self) -> Vec<Arc<Mapping>> {
        self.files.iter().filter_map(|file| file.mapping().cloned()).collect()
    }

    /// Gives the mapped pages of an entry back to the system.
    fn release(&self, entry: &Entry) {
        if let Some(place) = self.places.get(&entry.name) {
            self.files[place.tensor.part].release(place.tensor.range.clone());
        }
    }

    /// Gives all mapped pages back to the system.
    fn release_all(&self) {
        self.files.iter().for_each(|file| file.release(0..file.bytes().len()));
    }
}
