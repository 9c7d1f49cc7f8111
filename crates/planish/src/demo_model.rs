//! The small story model inside the program: the folder `models/demo` of the repository, packed to 4 bits, read in place.

use bytes::Bytes;
use planish_checkpoint::Checkpoint;

use crate::Error;

/// Data at an address that packed weights can be read from without a copy.
#[repr(C, align(64))]
struct Aligned<Data: ?Sized>(Data);

static WEIGHTS: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../models/demo/model.safetensors"
)));

/// Every other file that running the model takes.
const FILES: [(&str, &[u8]); 4] = [
    (
        "config.json",
        include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/demo/config.json")),
    ),
    (
        "generation_config.json",
        include_bytes!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../models/demo/generation_config.json"
        )),
    ),
    (
        "tokenizer.json",
        include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/demo/tokenizer.json")),
    ),
    (
        "tokenizer_config.json",
        include_bytes!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../models/demo/tokenizer_config.json"
        )),
    ),
];

/// Stories that the model has not learned from, with `<|end|><|begin|>` between them.
pub const DEMO_HELD_OUT: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/demo/held-out.txt"));

/// Opens the demo model: a Llama of about 7 million parameters that continues little stories in simple English.
///
/// # Errors
/// As [`Checkpoint::from_memory`].
pub fn demo_checkpoint() -> Result<Checkpoint, Error> {
    let mut files = vec![("model.safetensors".to_owned(), Bytes::from_static(&WEIGHTS.0))];
    files.extend(FILES.map(|(name, data)| (name.to_owned(), Bytes::from_static(data))));
    Ok(Checkpoint::from_memory("the demo model", files)?)
}
