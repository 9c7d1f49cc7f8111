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
mod mixed;
mod mixed_architectures;
mod parted;
mod parts;
mod place;
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
use self::place::{Place, delta_inputs, experts, is_beyond, place_of};
use self::tensor_type::Encoding;
use crate::assemble::PartsByName;
use crate::folder::map::{MappedFile, Mapping};
use crate::mlx::translate_by;
use crate::order::natural_order;
use crate::source::{Source, Storage};
use crate::{Dialect, Entry, Error, Layout, Tensor, Weight};

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

/// Entries under their Hugging Face names, where those of the source are parts of them.
type Translated = Option<(Vec<Entry>, PartsByName)>;

/// Opens a GGUF file: reads and checks its header, and rebuilds the config.
///
/// # Errors
/// A file that cannot be read, that is cut or damaged, or that holds what planish does not read.
pub(crate) fn open(path: &Path, file: MappedFile) -> Result<(Source, Translated), Error> {
    let mut header = header::parse(file.bytes()).map_err(|fault| fault.at(path))?;
    let mapped = parts::open(path, file, &mut header)?;
    let opened = opened(&mapped, header).map_err(|fault| fault.at(path))?;
    let model = opened.architecture.parted;
    let translated = match model {
        Some(model) => translate_by(model, &opened.config, &opened.entries),
        None => parted::delta_inputs(&opened.config, &opened.entries),
    };
    let files = tokenizer::files(&opened.header.metadata);
    let storage = GgufFile {
        path: path.to_path_buf(),
        files: mapped,
        header: opened.header,
        places: opened.places,
        config: opened.config.clone(),
    };
    let source = Source {
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
    };
    Ok((source, translated))
}

/// A parsed file.
struct Opened {
    architecture: &'static Architecture,
    header: Header,
    entries: Vec<Entry>,
    places: HashMap<String, Place>,
    config: Map<String, Value>,
}

fn opened(files: &[MappedFile], header: Header) -> Result<Opened, Fault> {
    let architecture = architecture::of(&header)?;
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
        if is_beyond(&tensor.name, sizes.layers) {
            continue;
        }
        let role = architecture.role(&tensor.name).ok_or_else(|| {
            Fault::unsupported(format!(
                "tensor `{}` is not known for the architecture `{}`",
                tensor.name, architecture.name
            ))
        })?;
        let weights = match role {
            Role::Weight(name) if name.ends_with(".in_proj_qkv.weight") && !architecture.tiled_heads => {
                delta_inputs(&header.metadata, architecture, tensor, &name)?
            }
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
            let place = place_of(architecture, &header.metadata, &sizes, tensor, &name)?;
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
        attention_bias: header.has_in_layers("attn_q.bias") || header.has_in_layers("attn_qkv.bias"),
        mlp_bias: header.has_in_layers("ffn_up.bias"),
        output_bias: header.has_in_layers("attn_output.bias"),
        query_norm: header.has_in_layers("attn_q_norm.weight"),
        header: &header,
        dtype: dtype_of(&listed),
        rope_factors,
        long_rope: short.zip(long).map(|(short, long)| [short, long]),
    };
    let config = config::rebuild(&facts, &sizes)?;
    Ok(Opened {
        architecture,
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
    // Converters drop and add sizes of one.
    if name.ends_with("shared_expert_gate.weight") && shape.len() == 1 {
        shape.insert(0, 1);
    }
    let is_convolution = [".conv1d.weight", ".conv.conv.weight"]
        .iter()
        .any(|end| name.ends_with(end));
    if is_convolution && shape.len() == 2 {
        shape.insert(1, 1);
    }
    // Mamba 2 has one number for each head, and groups of its norm.
    let is_vector = [".mamba.A_log", ".mamba.D", ".mamba.norm.weight"]
        .iter()
        .any(|end| name.ends_with(end));
    if is_vector {
        shape = vec![shape.iter().product()];
    }
    Entry {
        name,
        shape,
        layout,
        stored_bytes: tensor.range.len() as u64,
    }
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

/// The values of which a tensor of f32 has the negative exponentials.
fn logarithms(tensor: &Tensor, shape: &[usize]) -> Tensor {
    let mut values = planish_format::memory::filled("weights", tensor.data.len() / 4, 0.0f32);
    FloatType::F32.decode(&tensor.data, &mut values);
    let data: Vec<u8> = values.iter().flat_map(|value| (-value).ln().to_le_bytes()).collect();
    Tensor {
        dtype: tensor.dtype,
        shape: shape.to_vec(),
        data: data.into(),
    }
}

impl GgufFile {
    fn read_place(&self, place: &Place, shape: &[usize]) -> Result<Weight, Error> {
        let file = self.files[place.tensor.part].bytes();
        let weight = transcode::read(file, &place.tensor, place.order, place.columns);
        let weight = weight.map_err(|fault| fault.at(&self.path))?;
        Ok(match weight {
            Weight::Plain(tensor) if place.log => Weight::Plain(logarithms(&tensor, shape)),
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
