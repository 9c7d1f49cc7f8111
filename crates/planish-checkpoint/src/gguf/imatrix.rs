//! llama.cpp's importance matrices: how large the inputs of weights were, column by column, under Hugging Face names.
//!
//! In GGUF: of each weight `NAME.in_sum2`, F32 (matrices, cols), sums of squares, and `NAME.counts`, F32 (matrices, 1), how many rows
//! were summed. The older form, little-endian: entries i32; of each the length of its name i32, the name, calls i32, values i32, and
//! F32 (matrices, cols), mean squares times calls; perhaps calls i32, the length of the text's name i32, the name.
//! Source: <https://github.com/ggml-org/llama.cpp/blob/master/tools/imatrix/imatrix.cpp>.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use bytes::Bytes;
use planish_format::FloatType;
use serde_json::{Map, Value};

use super::architecture::{self, Architecture, Role};
use super::cursor::Cursor;
use super::fault::Fault;
use super::header;
use super::parts;
use super::tensor_type::Encoding;
use crate::folder::map::MappedFile;
use crate::{Entry, Error, Layout};

const SUMS: &str = ".in_sum2";
const COUNTS: &str = ".counts";
/// Characters of the name of a text that are told.
const LONGEST_NAME: usize = 80;

/// What a file tells of a checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Imatrix {
    /// The name of the text that it was made of, and how long it was, as far as the file says so.
    pub description: String,
    /// By entry of the checkpoint.
    pub inputs: Vec<EntryInputs>,
}

/// What went into one weight.
#[derive(Clone, Debug, PartialEq)]
pub struct EntryInputs {
    /// The entry's name.
    pub entry: String,
    /// Rows of input, or in the older form calls; 0 where there were none, as of an expert that was never chosen.
    pub rows: u64,
    /// Sums of the squares of each column over the rows; means times calls in the older form. // (cols)
    pub squares: Vec<f64>,
}

/// As stored: one matrix, or a stack of experts.
struct Stored {
    name: String,
    /// Of each matrix; the older form has one for all of them.
    rows: Vec<u64>,
    squares: Vec<f64>, // (matrices, cols)
}

/// Entries of a file, and what it says of its text.
struct File {
    entries: Vec<Stored>,
    chunks: Option<u64>,
    text: Option<String>,
}

impl Imatrix {
    /// Reads a file for a checkpoint with these entries, of an architecture that is read from GGUF.
    ///
    /// # Errors
    /// A file that is cut, damaged or empty; an architecture, weight or number of columns that is not that of the checkpoint.
    pub fn read(path: &Path, config: &Map<String, Value>, entries: &[Entry]) -> Result<Imatrix, Error> {
        Imatrix::read_bytes(path, MappedFile::open(path)?.bytes(), config, entries)
    }

    /// As [`Imatrix::read`], of the content of the file.
    ///
    /// # Errors
    /// As [`Imatrix::read`].
    pub fn read_bytes(
        path: &Path,
        bytes: &Bytes,
        config: &Map<String, Value>,
        entries: &[Entry],
    ) -> Result<Imatrix, Error> {
        let stored = match bytes.starts_with(b"GGUF") {
            true => parse_gguf(bytes),
            false => parse_older(bytes),
        };
        let read = stored.and_then(|file| {
            let architecture = architecture::of_config(config)?;
            let translator = Translator::new(architecture, entries);
            let inputs = file.entries.iter().map(|stored| translator.inputs(stored));
            Ok(Imatrix {
                inputs: inputs.collect::<Result<Vec<_>, _>>()?.concat(),
                description: file.description(path),
            })
        });
        read.map_err(|fault| fault.at(path))
    }
}

impl File {
    fn description(&self, path: &Path) -> String {
        let name = |path: &Path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let told = |character: &char| character.is_alphanumeric() || " ._-+".contains(*character);
            name.chars().filter(told).take(LONGEST_NAME).collect::<String>()
        };
        let text = self.text.as_deref().map(|text| name(Path::new(text)));
        let of_text = text.filter(|name| !name.is_empty()).map(|name| format!("of {name}"));
        let chunks = self.chunks.filter(|chunks| *chunks > 0);
        let chunks = chunks.map(|chunks| format!("{chunks} chunks"));
        let facts: Vec<String> = chunks.into_iter().chain(of_text).collect();
        let facts = match facts.is_empty() {
            true => String::new(),
            false => format!(" ({})", facts.join(" ")),
        };
        format!("the importance matrix {}{facts}", name(path))
    }
}

fn parse_gguf(file: &Bytes) -> Result<File, Fault> {
    let header = header::parse(file)?;
    parts::refuse(&header)?;
    let mut parts: BTreeMap<&str, [Option<&header::TensorInfo>; 2]> = BTreeMap::new();
    for tensor in &header.tensors {
        for (index, suffix) in [SUMS, COUNTS].into_iter().enumerate() {
            if let Some(name) = tensor.name.strip_suffix(suffix) {
                parts.entry(name).or_default()[index] = Some(tensor);
            }
        }
    }
    if parts.is_empty() {
        let what = format!("expected tensors `..{SUMS}` and `..{COUNTS}`, as of llama-imatrix, found none");
        return Err(Fault::malformed(what));
    }
    let values = |name: &str, suffix: &str, tensor: Option<&header::TensorInfo>| {
        let tensor = tensor.ok_or_else(|| Fault::malformed(format!("there is no tensor `{name}{suffix}`")))?;
        let Encoding::Floats(FloatType::F32) = tensor.tensor_type.storage else {
            let found = tensor.tensor_type.name;
            let what = format!("tensor `{}`: expected type F32, found {found}", tensor.name);
            return Err(Fault::malformed(what));
        };
        floats(&tensor.name, &file[tensor.range.clone()])
    };
    let entry = |(name, [sums, counts]): (&str, [Option<&header::TensorInfo>; 2])| {
        let (squares, counts) = (values(name, SUMS, sums)?, values(name, COUNTS, counts)?);
        Ok(Stored {
            name: name.to_owned(),
            rows: counts.iter().map(|count| count.round() as u64).collect(),
            squares,
        })
    };
    let texts = header.metadata.texts("imatrix.datasets")?.unwrap_or_default();
    Ok(File {
        entries: parts.into_iter().map(entry).collect::<Result<_, Fault>>()?,
        chunks: header.metadata.count("imatrix.chunk_count")?.map(|count| count as u64),
        text: texts.last().map(|text| (*text).to_owned()),
    })
}

fn parse_older(file: &Bytes) -> Result<File, Fault> {
    let mut cursor = Cursor::new(file);
    let count = |cursor: &mut Cursor, what: &str| {
        let value = cursor.u32(what)? as i32;
        let fault = |_| Fault::malformed(format!("{what}: expected a positive number, found {value}"));
        u64::try_from(value).map_err(fault)
    };
    let text = |cursor: &mut Cursor, what: &str| {
        let length = count(cursor, what)?;
        let bytes = cursor.take(length, what)?;
        let fault = || Fault::malformed(format!("{what} is not UTF-8: this is no importance matrix"));
        String::from_utf8(bytes.to_vec()).map_err(|_| fault())
    };
    let entries = count(&mut cursor, "the number of entries")?;
    if entries == 0 {
        return Err(Fault::malformed("expected entries, found none"));
    }
    let mut stored = Vec::new();
    for index in 1..=entries {
        let name = text(&mut cursor, &format!("the name of entry {index}"))?;
        let calls = count(&mut cursor, &name)?;
        let values = count(&mut cursor, &name)?;
        let bytes = cursor.take(values.saturating_mul(4), &name)?;
        stored.push(Stored {
            squares: floats(&name, &bytes)?,
            rows: vec![calls],
            name,
        });
    }
    // Early files end here.
    let more = cursor.position() < file.len();
    let chunks = more.then(|| count(&mut cursor, "the number of chunks")).transpose()?;
    let more = cursor.position() < file.len();
    let text = more.then(|| text(&mut cursor, "the name of the text")).transpose()?;
    Ok(File {
        entries: stored,
        chunks,
        text,
    })
}

/// Squares or counts of an entry.
fn floats(name: &str, bytes: &[u8]) -> Result<Vec<f64>, Fault> {
    let mut values = vec![0.0; bytes.len() / 4];
    FloatType::F32.decode(bytes, &mut values);
    match values.iter().find(|value| !(value.is_finite() && **value >= 0.0)) {
        None => Ok(values.into_iter().map(f64::from).collect()),
        Some(value) => Err(Fault::malformed(format!(
            "`{name}`: expected sums of squares, found {value}"
        ))),
    }
}

/// From the names of GGUF to entries of a checkpoint.
struct Translator<'a> {
    architecture: &'static Architecture,
    entries: HashMap<&'a str, &'a Entry>,
}

impl Translator<'_> {
    fn new<'a>(architecture: &'static Architecture, entries: &'a [Entry]) -> Translator<'a> {
        Translator {
            architecture,
            entries: entries.iter().map(|entry| (entry.name.as_str(), entry)).collect(),
        }
    }

    /// The entries that a stored one is of: several if it is a stack of experts.
    fn inputs(&self, stored: &Stored) -> Result<Vec<EntryInputs>, Fault> {
        let names = match self.architecture.role(&stored.name) {
            Some(Role::Weight(name)) => vec![name],
            Some(Role::Experts { before, after }) => {
                let names = (0..).map(|expert| format!("{before}{expert}{after}"));
                let mut names: Vec<String> = names
                    .take_while(|name| self.entries.contains_key(name.as_str()))
                    .collect();
                if names.is_empty() {
                    names.push(format!("{before}0{after}"));
                }
                names
            }
            _ => {
                let (name, architecture) = (&stored.name, self.architecture.name);
                let what =
                    format!("`{name}` is not a weight of the checkpoint's architecture, `{architecture}` in GGUF");
                return Err(Fault::malformed(what));
            }
        };
        let matrices = names.len();
        if stored.rows.len() != 1 && stored.rows.len() != matrices {
            let (name, found) = (&stored.name, stored.rows.len());
            return Err(Fault::malformed(format!(
                "`{name}`: expected {matrices} matrices, found {found}"
            )));
        }
        let each = stored.squares.len() / matrices;
        let of_matrix = |(index, name): (usize, String)| {
            let entry = self.entries.get(name.as_str()).ok_or_else(|| {
                Fault::malformed(format!(
                    "`{}` is `{name}` at Hugging Face, which the checkpoint does not have: it is of another model",
                    stored.name
                ))
            })?;
            let (expected, found) = (self.cols(entry), stored.squares.len());
            if found != matrices * expected {
                let all = matrices * expected;
                let what = format!("`{}`: expected {all} columns in all, found {found}", stored.name);
                return Err(Fault::malformed(what));
            }
            let squares = stored.squares[index * each..][..each].to_vec();
            let rows = stored.rows[index.min(stored.rows.len() - 1)];
            // In the older form of the experts that were never chosen.
            let unseen = stored.rows.len() == 1 && squares.iter().all(|square| *square == rows as f64);
            Ok(EntryInputs {
                rows: if unseen { 0 } else { rows },
                entry: name,
                squares,
            })
        };
        names.into_iter().enumerate().map(of_matrix).collect()
    }

    /// Values of one row of input.
    fn cols(&self, entry: &Entry) -> usize {
        let module = entry.name.strip_suffix(".weight").unwrap_or(&entry.name);
        let transposed = self.architecture.transposed.iter().any(|layer| module.ends_with(layer));
        let cols = match transposed && matches!(entry.layout, Layout::Plain(_)) {
            true => entry.shape.first(),
            false => entry.shape.last(),
        };
        cols.copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Dtype;

    fn entry(name: &str, shape: [usize; 2]) -> Entry {
        Entry {
            name: name.to_owned(),
            shape: shape.to_vec(),
            layout: Layout::Plain(Dtype::F32),
            stored_bytes: 4 * (shape[0] * shape[1]) as u64,
        }
    }

    /// A file of the older form.
    fn older(entries: &[(&str, u32, &[f32])], end: &[u8]) -> Vec<u8> {
        let mut bytes = (entries.len() as u32).to_le_bytes().to_vec();
        for (name, calls, values) in entries {
            bytes.extend((name.len() as u32).to_le_bytes());
            bytes.extend(name.bytes());
            bytes.extend(calls.to_le_bytes());
            bytes.extend((values.len() as u32).to_le_bytes());
            bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        }
        bytes.extend(end);
        bytes
    }

    fn read(bytes: &[u8], class: &str, entries: &[Entry]) -> Result<Imatrix, String> {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("im.dat");
        std::fs::write(&path, bytes).unwrap();
        let config = serde_json::json!({ "architectures": [class] });
        let read = Imatrix::read(&path, config.as_object().unwrap(), entries);
        read.map_err(|error| error.to_string().rsplit_once("im.dat: ").unwrap().1.to_owned())
    }

    #[test]
    fn experts_are_told_apart_and_transposed_weights_counted_by_rows() {
        let names = ["0", "1"].map(|expert| format!("model.layers.3.block_sparse_moe.experts.{expert}.w3.weight"));
        let entries = [entry(&names[0], [5, 2]), entry(&names[1], [5, 2])];
        let stored: (&str, u32, &[f32]) = ("blk.3.ffn_up_exps.weight", 4, &[8.0, 2.0, 4.0, 4.0]);
        let end = [&7u32.to_le_bytes()[..], &5u32.to_le_bytes(), b"a/b\n|"].concat();
        let found = read(&older(&[stored], &end), "MixtralForCausalLM", &entries).unwrap();
        let expected = |name: &String, rows, squares: [f64; 2]| EntryInputs {
            entry: name.clone(),
            rows,
            squares: squares.to_vec(),
        };
        let unseen = expected(&names[1], 0, [4.0, 4.0]);
        assert_eq!(found.inputs, [expected(&names[0], 4, [8.0, 2.0]), unseen]);
        assert_eq!(found.description, "the importance matrix im.dat (7 chunks of b)");

        let transposed = [entry("transformer.h.0.mlp.c_fc.weight", [2, 5])];
        let stored: (&str, u32, &[f32]) = ("blk.0.ffn_up.weight", 1, &[3.0, 2.0]);
        let found = read(&older(&[stored], &[]), "GPT2LMHeadModel", &transposed).unwrap();
        assert_eq!(found.description, "the importance matrix im.dat");
        assert_eq!(found.inputs[0].squares, [3.0, 2.0]);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let name = "model.layers.0.self_attn.q_proj.weight";
        let entries = [entry(name, [4, 2])];
        let told = |bytes: &[u8]| read(bytes, "LlamaForCausalLM", &entries).unwrap_err();
        let wrong = |name: &str, values: &[f32]| told(&older(&[(name, 1, values)], &[]));
        assert_eq!(
            wrong("blk.1.attn_q.weight", &[1.0, 2.0]),
            "`blk.1.attn_q.weight` is `model.layers.1.self_attn.q_proj.weight` at Hugging Face, which the checkpoint does not \
             have: it is of another model"
        );
        assert_eq!(
            wrong("blk.0.attn_q.weight", &[1.0; 3]),
            "`blk.0.attn_q.weight`: expected 2 columns in all, found 3"
        );
        assert_eq!(
            wrong("blk.0.attn_q.weight", &[1.0, f32::NAN]),
            "`blk.0.attn_q.weight`: expected sums of squares, found NaN"
        );
        assert_eq!(
            wrong("blk.0.ssm_in.weight", &[1.0]),
            "`blk.0.ssm_in.weight` is not a weight of the checkpoint's architecture, `llama` in GGUF"
        );
        assert_eq!(
            told(&[]),
            "the file ends inside the number of entries: at byte 0 expected 4 more, found 0"
        );
        assert_eq!(told(&[0; 4]), "expected entries, found none");
        let whole = older(&[("blk.0.attn_q.weight", 1, &[1.0, 2.0])], &[]);
        for length in 0..whole.len() {
            told(&whole[..length]);
        }
        let other = read(&whole, "MambaForCausalLM", &entries).unwrap_err();
        assert!(
            other.starts_with("names of the architecture `MambaForCausalLM` are not known"),
            "{other}"
        );
    }
}
