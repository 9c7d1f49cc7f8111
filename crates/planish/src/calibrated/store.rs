//! What a run keeps in a hidden folder beside its output: the text, the codes of every layer that is done, the hidden states behind
//! the last. With these another run goes on; the conversion at the end reads the codes. Every file has its name only when whole.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use planish_checkpoint::{Checksum, Error as CheckpointError, Run};
use planish_format::{FloatType, PackedMatrix, PackedShape, Packing};
use planish_quantize::{ChosenCodes, Error as QuantizeError, Output, UnseenParts};
use serde_json::{Value, json};

use crate::Error;

use super::outcome::{Outcome, Verdict};
use super::streams::Streams;
use super::writing::Text;

/// What the folder is called, behind the name of the output.
const SUFFIX: &str = ".planish-calibration";
const RUN: &str = "run.json";
const TEXT: &str = "text.json";
const STREAMS: &str = "streams";

/// The folder of one run.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    kept: bool,
    _lock: File,
}

/// A layer that is done.
#[derive(Clone, Debug, Default)]
pub struct LayerFile {
    pub outcomes: Vec<Outcome>,
    pub kept: Vec<(String, PackedMatrix)>,
}

/// Whether a run to this output left something.
pub fn is_unfinished(output: &Path) -> bool {
    folder_of(output).join(STREAMS).is_file()
}

fn folder_of(output: &Path) -> PathBuf {
    let name = output.file_name().unwrap_or_default().to_string_lossy();
    output.with_file_name(format!(".{name}{SUFFIX}"))
}

fn layer_name(layer: usize) -> String {
    format!("layer-{layer}")
}

impl Store {
    /// A folder for this run: what an earlier one with the same identity left where it is to be gone on with, else an empty one.
    pub fn open(output: &Output, identity: Run) -> Result<Store, Error> {
        let folder = folder_of(&output.folder);
        let at = |error| Error::from(CheckpointError::io(&folder)(error));
        fs::create_dir_all(&folder).map_err(at)?;
        let lock = File::create(folder.join("lock")).map_err(at)?;
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) => {
                return Err(at(io::Error::new(
                    io::ErrorKind::WouldBlock,
                    "another run is writing it now",
                )));
            }
            // A file system without locks.
            Err(TryLockError::Error(_)) | Ok(()) => {}
        }
        let store = Store {
            folder: folder.clone(),
            kept: output.resume,
            _lock: lock,
        };
        let identity = json!(identity);
        match store.read(RUN)? {
            Some(found) if output.resume => {
                let found: Value = serde_json::from_slice(&found).unwrap_or_default();
                if let Some(what) = difference(&found, &identity) {
                    return Err(Error::from(CheckpointError::OtherRun {
                        path: output.folder.clone(),
                        what,
                    }));
                }
                return Ok(store);
            }
            Some(_) => store.clear().map_err(at)?,
            None => {}
        }
        store.write(RUN, &[identity.to_string().as_bytes()])?;
        Ok(store)
    }

    fn clear(&self) -> io::Result<()> {
        for item in fs::read_dir(&self.folder)? {
            let item = item?;
            if item.file_name() != "lock" {
                fs::remove_file(item.path())?;
            }
        }
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let path = self.path(name);
        match fs::read(&path) {
            Ok(data) => Ok(Some(data)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(CheckpointError::io(&path)(error).into()),
        }
    }

    fn write(&self, name: &str, parts: &[&[u8]]) -> Result<(), Error> {
        let (path, unnamed) = (self.path(name), self.path(&format!("{name}.part")));
        let write = || {
            let mut file = File::create(&unnamed)?;
            parts.iter().try_for_each(|part| file.write_all(part))?;
            file.sync_all()?;
            fs::rename(&unnamed, &path)
        };
        Ok(write().map_err(CheckpointError::io(&path))?)
    }

    fn malformed(&self, name: &str) -> Error {
        let what = "is not as it was written: remove its folder".to_owned();
        let path = self.path(name);
        Error::from(CheckpointError::Malformed { path, what })
    }

    /// The text of the run that this one goes on with.
    pub fn text(&self) -> Result<Option<Text>, Error> {
        let Some(data) = self.read(TEXT)? else {
            return Ok(None);
        };
        let parse = || {
            let value: Value = serde_json::from_slice(&data).ok()?;
            Some(Text {
                description: value["description"].as_str()?.to_owned(),
                pieces: pieces(&value["pieces"])?,
                held_out: pieces(&value["held_out"])?,
            })
        };
        parse().map(Some).ok_or_else(|| self.malformed(TEXT))
    }

    pub fn keep_text(&self, text: &Text) -> Result<(), Error> {
        let Text {
            description,
            pieces,
            held_out,
        } = text;
        let value = json!({"description": description, "pieces": pieces, "held_out": held_out});
        self.write(TEXT, &[value.to_string().as_bytes()])
    }

    /// The hidden states behind the last layer that is done.
    pub fn streams(&self, text: &Text) -> Result<Option<Streams>, Error> {
        let Some(data) = self.read(STREAMS)? else {
            return Ok(None);
        };
        let parse = || {
            let (header, mut rest) = header(&data)?;
            let cols = header["cols"].as_u64()? as usize;
            let mut take = |tokens: &Vec<u32>| {
                let (own, others) = rest.split_at_checked(tokens.len().checked_mul(cols * 4)?)?;
                rest = others;
                let mut values = vec![0.0; own.len() / 4];
                FloatType::F32.decode(own, &mut values);
                Some(values)
            };
            let all = [&text.pieces[..], &text.held_out].concat();
            let streams = Streams {
                layer: header["layer"].as_u64()? as usize,
                plain: all.iter().map(&mut take).collect::<Option<_>>()?,
                calibrated: all.iter().map(&mut take).collect::<Option<_>>()?,
                searched: text.held_out.iter().map(&mut take).collect::<Option<_>>()?,
            };
            rest.is_empty().then_some(streams)
        };
        parse().map(Some).ok_or_else(|| self.malformed(STREAMS))
    }

    /// Keeps hidden states, where another run is to go on.
    pub fn keep_streams(&self, streams: &Streams, cols: usize) -> Result<(), Error> {
        if !self.kept {
            return Ok(());
        }
        let header = head(&json!({"layer": streams.layer, "cols": cols}));
        let all = streams.plain.iter().chain(&streams.calibrated).chain(&streams.searched);
        let bytes = |values: &Vec<f32>| {
            let mut bytes = vec![0; values.len() * 4];
            FloatType::F32.encode(values, &mut bytes);
            bytes
        };
        let data: Vec<Vec<u8>> = std::iter::once(header).chain(all.map(bytes)).collect();
        self.write(STREAMS, &data.iter().map(Vec::as_slice).collect::<Vec<_>>())
    }

    pub fn keep_layer(&self, layer: usize, file: &LayerFile) -> Result<(), Error> {
        let entry = |(name, matrix): &(String, PackedMatrix)| {
            let (bits, group) = (matrix.packing.bits(), matrix.packing.group());
            let scale_type = matrix.scale_type.size_bytes() * if matrix.scale_type == FloatType::BF16 { 10 } else { 1 };
            json!([name, matrix.rows, matrix.cols, bits, group, scale_type])
        };
        let outcomes: Vec<Value> = file.outcomes.iter().map(Outcome::to_json).collect();
        let entries: Vec<Value> = file.kept.iter().map(entry).collect();
        let header = head(&json!({"entries": entries, "outcomes": outcomes}));
        let parts = file
            .kept
            .iter()
            .flat_map(|(_, matrix)| [&matrix.codes, &matrix.scales, &matrix.biases]);
        let all: Vec<&[u8]> = std::iter::once(&header[..])
            .chain(parts.map(|part| &part[..]))
            .collect();
        self.write(&layer_name(layer), &all)
    }

    /// What came of the first layers.
    pub fn outcomes(&self, layers: usize) -> Result<Vec<Outcome>, Error> {
        let mut outcomes = Vec::new();
        for layer in 0..layers {
            let name = layer_name(layer);
            let path = self.path(&name);
            let header = File::open(&path).and_then(|mut file| read_header(&mut file));
            let header = header.map_err(CheckpointError::io(&path))?;
            let listed = || {
                let list = header["outcomes"].as_array()?.iter();
                list.map(Outcome::from_json).collect::<Option<Vec<_>>>()
            };
            outcomes.extend(listed().ok_or_else(|| self.malformed(&name))?);
        }
        Ok(outcomes)
    }

    /// The codes of all layers, for a conversion; none where they are not used.
    pub fn into_codes(self, layers: usize, verdict: Verdict) -> Result<Codes, Error> {
        let mut places = BTreeMap::new();
        let mut checksum = Checksum::default();
        checksum.update(verdict.description.as_bytes());
        for layer in (0..layers).filter(|_| verdict.used) {
            let name = layer_name(layer);
            let path = self.path(&name);
            let mut file = File::open(&path).map_err(CheckpointError::io(&path))?;
            let header = read_header(&mut file).map_err(CheckpointError::io(&path))?;
            let mut position = file.stream_position().map_err(CheckpointError::io(&path))?;
            for entry in header["entries"].as_array().into_iter().flatten() {
                let (name, shape) = shape(entry).ok_or_else(|| self.malformed(&name))?;
                checksum.update(name.as_bytes());
                let place = Place {
                    path: path.clone(),
                    position,
                    shape,
                };
                position += place.bytes();
                places.insert(name, place);
            }
            let mut rest = vec![0; 1 << 20];
            loop {
                match file.read(&mut rest).map_err(CheckpointError::io(&path))? {
                    0 => break,
                    count => checksum.update(&rest[..count]),
                }
            }
        }
        Ok(Codes {
            store: self,
            places,
            verdict,
            checksum: format!("{:016x}", checksum.value()),
        })
    }

    /// Removes everything: nothing is to be gone on with.
    pub fn done(mut self) {
        self.kept = false;
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if !self.kept {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

fn pieces(value: &Value) -> Option<Vec<Vec<u32>>> {
    let token = |token: &Value| u32::try_from(token.as_u64()?).ok();
    let piece = |piece: &Value| piece.as_array()?.iter().map(token).collect();
    value.as_array()?.iter().map(piece).collect()
}

/// The first of what two runs do not have in common.
fn difference(found: &Value, wanted: &Value) -> Option<String> {
    let (found_list, wanted_list) = (found.as_array()?, wanted.as_array()?);
    let differs = wanted_list
        .iter()
        .zip(found_list)
        .find(|(wanted, found)| wanted != found);
    match differs {
        Some((wanted, found)) => Some(format!(
            "{} was {}, is {}",
            words(&wanted[0]),
            words(&found[1]),
            words(&wanted[1])
        )),
        None if wanted_list.len() != found_list.len() => Some("it was made of other files".to_owned()),
        None => None,
    }
}

fn words(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// A length and JSON in front of data.
fn head(value: &Value) -> Vec<u8> {
    let text = value.to_string();
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

fn header(data: &[u8]) -> Option<(Value, &[u8])> {
    let (length, rest) = data.split_first_chunk::<8>()?;
    let (text, rest) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
    Some((serde_json::from_slice(text).ok()?, rest))
}

fn read_header(file: &mut File) -> io::Result<Value> {
    let mut length = [0; 8];
    file.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length).min(file.metadata()?.len());
    let mut text = vec![0; length as usize];
    file.read_exact(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

/// Name and shape of an entry of a layer's file.
fn shape(entry: &Value) -> Option<(String, PackedShape)> {
    let number = |index: usize| usize::try_from(entry[index].as_u64()?).ok();
    let scale_type = match number(5)? {
        4 => FloatType::F32,
        2 => FloatType::F16,
        _ => FloatType::BF16,
    };
    let packing = Packing::new(u32::try_from(number(3)?).ok()?, number(4)?)?;
    let shape = PackedShape::new(number(1)?, number(2)?, packing, scale_type).ok()?;
    Some((entry[0].as_str()?.to_owned(), shape))
}

/// Where an entry's codes, scales and biases lie.
#[derive(Clone, Debug)]
struct Place {
    path: PathBuf,
    position: u64,
    shape: PackedShape,
}

impl Place {
    fn bytes(&self) -> u64 {
        (self.shape.code_bytes() + 2 * self.shape.scale_bytes()) as u64
    }

    fn read(&self) -> io::Result<PackedMatrix> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(self.position))?;
        let mut data = vec![0; self.bytes() as usize];
        file.read_exact(&mut data)?;
        let data = Bytes::from(data);
        let (codes, scales) = (self.shape.code_bytes(), self.shape.scale_bytes());
        let parts = [0..codes, codes..codes + scales, codes + scales..data.len()].map(|range| data.slice(range));
        let [codes, scales, biases] = parts;
        PackedMatrix::new(self.shape, codes, scales, biases).map_err(io::Error::other)
    }
}

/// The codes of a run that went over all layers.
#[derive(Debug)]
pub struct Codes {
    store: Store,
    places: BTreeMap<String, Place>,
    verdict: Verdict,
    checksum: String,
}

impl Codes {
    /// They are written: nothing is to be gone on with.
    pub fn done(self) {
        self.store.done();
    }
}

impl ChosenCodes for Codes {
    fn description(&self) -> String {
        self.verdict.description.clone()
    }

    fn checksum(&self) -> String {
        self.checksum.clone()
    }

    fn notes(&self) -> Vec<String> {
        self.verdict.notes.clone()
    }

    fn unseen(&self, entry: &str) -> UnseenParts {
        match self.verdict.unseen.get(entry) {
            // Searched for as everything is.
            _ if !self.verdict.used => (BTreeSet::new(), 1),
            Some(parts) => parts.clone(),
            None => (BTreeSet::from([0]), 1),
        }
    }

    fn of(&self, entry: &str) -> Result<Option<PackedMatrix>, QuantizeError> {
        let place = self.places.get(entry);
        let read = |place: &Place| {
            place
                .read()
                .map_err(CheckpointError::io(&place.path))
                .map_err(QuantizeError::from)
        };
        place.map(read).transpose()
    }
}
