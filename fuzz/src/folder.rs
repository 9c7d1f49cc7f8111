//! A model folder in one input: files one after another, each after a line `@@@ name`. A file of weights may be spelled as the text
//! of its header: then its length is put before it, and as many bytes of data behind it as it tells.

use bytes::Bytes;
use serde_json::Value;

/// The data behind a spelled header, at most.
const MOST_DATA: usize = 1 << 20;

pub struct Folder {
    files: Vec<(String, Bytes)>,
}

impl Folder {
    pub fn of(input: &[u8]) -> Folder {
        let mut files: Vec<(String, Bytes)> = Vec::new();
        let mut rest = input.strip_prefix(b"@@@ ").unwrap_or(input);
        while !rest.is_empty() {
            let end = find(rest, b"\n@@@ ");
            let (file, after) = match end {
                Some(end) => (&rest[..end], &rest[end + 5..]),
                None => (rest, &rest[rest.len()..]),
            };
            let line = find(file, b"\n").unwrap_or(file.len());
            let name = String::from_utf8_lossy(&file[..line]).into_owned();
            let content = file.get(line + 1..).unwrap_or_default();
            let is_spelled = name.ends_with(".safetensors") && content.first() == Some(&b'{');
            let content = if is_spelled {
                with_data(content)
            } else {
                content.to_vec()
            };
            files.push((name, content.into()));
            rest = after;
        }
        Folder { files }
    }

    pub fn get(&self, name: &str) -> Option<Vec<u8>> {
        let found = self.files.iter().find(|(file, _)| file == name);
        found.map(|(_, content)| content.to_vec())
    }

    pub fn text(&self, name: &str) -> String {
        String::from_utf8_lossy(&self.get(name).unwrap_or_default()).into_owned()
    }

    pub fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&self.get(name).unwrap_or_default()).unwrap_or_default()
    }

    pub fn into_files(self) -> Vec<(String, Bytes)> {
        self.files
    }
}

/// A whole file of this header.
fn with_data(header: &[u8]) -> Vec<u8> {
    let parsed: Value = serde_json::from_slice(header).unwrap_or_default();
    let tensors = parsed.as_object().into_iter().flat_map(|tensors| tensors.values());
    let ends = tensors.filter_map(|tensor| tensor["data_offsets"][1].as_u64());
    let data = ends.max().filter(|&end| end <= MOST_DATA as u64).unwrap_or(0) as usize;
    let padding = header.len().next_multiple_of(8) - header.len();
    let mut file = Vec::with_capacity(16 + header.len() + data);
    file.extend_from_slice(&((header.len() + padding) as u64).to_le_bytes());
    file.extend_from_slice(header);
    file.extend_from_slice(&b"        "[..padding]);
    file.extend_from_slice(&filler()[..data]);
    file
}

/// Bytes that are small positive numbers in every float type.
pub fn filler() -> &'static [u8] {
    static FILLER: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    FILLER.get_or_init(|| {
        let mut seed = 1u32;
        let mut word = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            0x3c00 | ((seed >> 16) as u16 & 0x017f)
        };
        (0..MOST_DATA / 2).flat_map(|_| word().to_le_bytes()).collect()
    })
}

fn find(data: &[u8], what: &[u8]) -> Option<usize> {
    data.windows(what.len()).position(|window| window == what)
}
