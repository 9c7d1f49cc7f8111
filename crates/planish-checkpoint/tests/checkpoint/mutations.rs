//! Small valid folders with bytes changed at random: opening and reading everything never panics.

use planish_checkpoint::Checkpoint;
use proptest::prelude::*;
use serde_json::json;

use crate::sample::{Sample, given, packed, safetensors};

/// One change of a file.
#[derive(Clone, Debug)]
enum Change {
    Set(usize, u8),
    Insert(usize, u8),
    Remove(usize),
    Cut(usize),
    /// A token of the header's language at any place.
    Splice(usize, &'static str),
}

fn change() -> impl Strategy<Value = Change> {
    let tokens = [
        "0",
        "9",
        "99999999999",
        "18446744073709551615",
        "-1",
        "[",
        "]",
        "{",
        "}",
        "\"",
        ",",
        ":",
        "null",
        "1e9",
        ".weight",
        ".scales",
        "U32",
        "F16",
        "\\u0000",
    ];
    let at = any::<usize>();
    prop_oneof![
        (at, any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        (at, any::<u8>()).prop_map(|(at, byte)| Change::Insert(at, byte)),
        at.prop_map(Change::Remove),
        at.prop_map(Change::Cut),
        (at, proptest::sample::select(tokens.to_vec())).prop_map(|(at, token)| Change::Splice(at, token)),
    ]
}

/// Applies changes within the first `reach` bytes; the rest is plain data.
fn apply(mut content: Vec<u8>, changes: &[Change], reach: usize) -> Vec<u8> {
    for change in changes {
        let place = |at: usize| at % content.len().clamp(1, reach);
        match *change {
            _ if content.is_empty() => {}
            Change::Set(at, byte) => {
                let at = place(at);
                content[at] = byte
            }
            Change::Insert(at, byte) => content.insert(place(at), byte),
            Change::Remove(at) => {
                content.remove(place(at));
            }
            Change::Cut(at) => content.truncate(place(at)),
            Change::Splice(at, token) => {
                let at = place(at);
                let end = (at + token.len()).min(content.len());
                content.splice(at..end, token.bytes());
            }
        }
    }
    content
}

fn read_everything(sample: &Sample) -> bool {
    let Ok(checkpoint) = Checkpoint::open(sample.folder()) else {
        return false;
    };
    for entry in checkpoint.entries() {
        if let Ok(planish_checkpoint::Weight::Packed(matrix)) = checkpoint.read(entry)
            && matrix.rows > 0
        {
            matrix.dequantize_row(matrix.rows - 1, &mut vec![0.0; matrix.cols]);
        }
        checkpoint.release(entry);
    }
    true
}

fn valid() -> (Sample, Vec<u8>) {
    let sample = Sample::new();
    sample.config(json!({"quantization": {"bits": 4, "group_size": 32}}));
    let mut tensors = packed("a", "biases", [2, 64], [4, 32]);
    tensors.push(given("norm", "F32", &[3]));
    (sample, safetensors(&tensors))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 700, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn safetensors_files(changes in prop::collection::vec(change(), 1..6)) {
        let (sample, content) = valid();
        let header_bytes = 8 + u64::from_le_bytes(content[..8].try_into().unwrap()) as usize;
        sample.write("model.safetensors", &apply(content, &changes, header_bytes + 4));
        read_everything(&sample);
    }

    #[test]
    fn configs(changes in prop::collection::vec(change(), 1..4)) {
        let (sample, content) = valid();
        sample.write("model.safetensors", &content);
        let config = br#"{"quantization": {"bits": 4, "group_size": 32, "mode": null, "b": {"bits": 8}, "norm": false}}"#;
        sample.write("config.json", &apply(config.to_vec(), &changes, config.len()));
        read_everything(&sample);
    }
}

#[test]
fn unchanged_it_opens() {
    let (sample, content) = valid();
    sample.write("model.safetensors", &content);
    assert!(read_everything(&sample));
}
