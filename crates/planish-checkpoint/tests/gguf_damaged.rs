//! Damaged GGUF files: each is refused in words that name the file, without a panic or a large allocation.

use std::path::{Path, PathBuf};

use planish_checkpoint::{Checkpoint, Error};

fn golden(name: &str) -> Vec<u8> {
    std::fs::read(
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/golden/gguf")
            .join(name),
    )
    .unwrap()
}

/// A place for the damaged copies of one test.
struct Scratch {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

impl Scratch {
    fn new() -> Scratch {
        let folder = tempfile::tempdir().unwrap();
        Scratch {
            path: folder.path().join("damaged.gguf"),
            _folder: folder,
        }
    }

    fn open(&self, content: &[u8]) -> Result<Checkpoint, Error> {
        std::fs::write(&self.path, content).unwrap();
        Checkpoint::open(&self.path)
    }

    fn message(&self, content: &[u8]) -> String {
        match self.open(content) {
            Ok(_) => panic!("a damaged file was opened"),
            Err(error) => error.to_string(),
        }
    }

    /// Opens, reads every weight and rebuilds every file: whatever happens must be a result.
    fn use_all(&self, content: &[u8]) -> bool {
        let Ok(checkpoint) = self.open(content) else {
            return false;
        };
        let weights = checkpoint.entries().iter().all(|entry| checkpoint.read(entry).is_ok());
        let files = checkpoint.files().iter().all(|name| checkpoint.file(name).is_ok());
        weights && files
    }
}

/// Replaces the only occurrence of some bytes by others of the same length.
fn replace(content: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let places: Vec<usize> = (0..content.len() - from.len())
        .filter(|&at| content[at..].starts_with(from))
        .collect();
    assert_eq!(places.len(), 1, "{} occurs {} times", from.escape_ascii(), places.len());
    let mut changed = content.to_vec();
    changed[places[0]..places[0] + to.len()].copy_from_slice(to);
    changed
}

/// The bytes of a string and of what follows it in the header.
fn string_then(text: &str, after: &[u8]) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes(), after].concat()
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let scratch = Scratch::new();
    for (name, step) in [("sentencepiece.gguf", 1), ("types.gguf", 97)] {
        let whole = golden(name);
        assert!(scratch.use_all(&whole), "{name}");
        let file = std::fs::File::options().write(true).open(&scratch.path).unwrap();
        // The last tensor is padded to the alignment; its padding is not missed.
        let padding = 64;
        for length in (0..whole.len() - padding).rev().step_by(step) {
            file.set_len(length as u64).unwrap();
            let Err(error) = Checkpoint::open(&scratch.path) else {
                panic!("{name} cut at {length} was opened");
            };
            let message = error.to_string();
            assert!(message.contains("damaged.gguf: "), "{name} cut at {length}: {message}");
        }
    }
}

#[test]
fn random_changes_never_panic() {
    let scratch = Scratch::new();
    let whole = golden("sentencepiece.gguf");
    let header = 24000; // bytes, about
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as usize
    };
    let mut refused = 0;
    for _ in 0..3000 {
        let mut changed = whole.clone();
        for _ in 0..1 + next() % 3 {
            let at = next() % header;
            changed[at] = match next() % 3 {
                0 => 0xff,
                1 => changed[at] ^ 1 << (next() % 8),
                _ => next() as u8,
            };
        }
        refused += usize::from(!scratch.use_all(&changed));
    }
    // Most changes hit the text of tokens, which may be anything.
    assert!((100..3000).contains(&refused), "{refused} of 3000 were refused");
}

#[test]
fn lengths_and_counts_that_lie() {
    let scratch = Scratch::new();
    let whole = golden("types.gguf");
    let with = |at: usize, bytes: &[u8]| {
        let mut changed = whole.clone();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        changed
    };
    let huge = u64::MAX.to_le_bytes();
    let cases = [
        (with(0, b"GGML"), "not a GGUF file"),
        (with(4, &[1, 0, 0, 0]), "GGUF version 1; versions 2 and 3 are read"),
        (with(4, &[0, 0, 0, 3]), "big-endian"),
        (with(8, &huge), "the file ends inside"),
        (with(16, &huge), "the file ends inside"),
        (with(24, &huge), "the file ends inside a metadata key"),
        (Vec::new(), "the file ends inside the magic number"),
    ];
    for (content, expected) in cases {
        let message = scratch.message(&content);
        assert!(message.contains(expected), "expected `{expected}`, found `{message}`");
    }
}

#[test]
fn tensors_that_lie() {
    let scratch = Scratch::new();
    let whole = golden("types.gguf");
    let norm = |dimensions: u32, cols: u64, kind: u32, offset: u64| {
        let numbers = [&cols.to_le_bytes()[..], &kind.to_le_bytes(), &offset.to_le_bytes()].concat();
        string_then(
            "output_norm.weight",
            &[&dimensions.to_le_bytes()[..], &numbers].concat(),
        )
    };
    let stored = norm(1, 256, 0, 48960);
    let cases = [
        (norm(0, 256, 0, 48960), "expected 1 to 4 dimensions, found 0"),
        (norm(1, 0, 0, 48960), "expected sizes of at least 1, found 0"),
        (norm(1, u64::MAX / 2, 0, 48960), "too large"),
        (
            norm(1, 256, 99, 48960),
            "tensor type 99 (unknown) is not read; those that are: F32, F16, BF16, Q4_0",
        ),
        (norm(1, 256, 16, 48960), "tensor type 16 (IQ2_XXS)"),
        (
            norm(1, 255, 12, 48960),
            "expected columns that are a multiple of 256, found 255",
        ),
        (norm(1, 256, 0, 48961), "expected an offset that is a multiple of 32"),
        (
            norm(1, 256, 0, 0),
            "`token_embd.weight` and `output_norm.weight` overlap",
        ),
        (norm(1, 256, 0, u64::MAX - 31), "too large"),
        (norm(1, 256, 0, 1 << 40), "cut or incomplete"),
    ];
    for (changed, expected) in cases {
        let message = scratch.message(&replace(&whole, &stored, &changed));
        assert!(message.contains("output_norm.weight"), "{message}");
        assert!(message.contains(expected), "expected `{expected}`, found `{message}`");
    }
}

#[test]
fn metadata_that_lies() {
    let scratch = Scratch::new();
    let whole = golden("types.gguf");
    let swap = |from: &str, to: &str| replace(&whole, &string_then(from, &[]), &string_then(to, &[]));
    let u32_value = |key: &str, value: u32| string_then(key, &[&4u32.to_le_bytes()[..], &value.to_le_bytes()].concat());
    let number = |key: &str, from: u32, to: u32| replace(&whole, &u32_value(key, from), &u32_value(key, to));
    let cases = [
        (
            replace(&whole, &string_then("llama", &[]), &string_then("lLama", &[])),
            "GGUF architecture `lLama` is not read; those that are: llama, qwen2, qwen3",
        ),
        (
            swap("llama.block_count", "llama.block_coun_"),
            "metadata key `llama.block_count`: expected a value, found none",
        ),
        (
            number("llama.attention.head_count", 4, 0),
            "`llama.attention.head_count`: expected at least 1, found 0",
        ),
        (
            number("llama.attention.head_count", 4, 8),
            "`blk.0.attn_q.weight`: expected 8 heads of 8 rows, 64 in all, found 32",
        ),
        (
            number("llama.attention.key_length", 8, 7),
            "`llama.attention.key_length`: expected a positive even number, found 7",
        ),
        (
            number("llama.embedding_length", 256, 257),
            "`token_embd.weight`: expected the shape (vocabulary, 257)",
        ),
        (
            swap("blk.0.ffn_gate.weight", "blk.0.ffn_gate.weighs"),
            "`blk.0.ffn_gate.weighs` is not known",
        ),
        (
            swap("blk.1.ffn_gate.weight", "blk.0.ffn_gate.weight"),
            "two tensors are named `blk.0.ffn_gate.weight`",
        ),
    ];
    for (content, expected) in cases {
        let message = scratch.message(&content);
        assert!(message.contains(expected), "expected `{expected}`, found `{message}`");
    }
}

#[test]
fn a_tokenizer_that_is_not_read_is_named_when_asked_for() {
    let scratch = Scratch::new();
    let whole = golden("types.gguf");
    let cases = [
        (
            string_then("smollm", &[]),
            string_then("smollx", &[]),
            "the pre-tokenizer `smollx` is not read; those that are: default",
        ),
        (
            string_then("gpt2", &[]),
            string_then("bert", &[]),
            "the tokenizer `bert` is not read; planish reads gpt2, llama and gemma4",
        ),
    ];
    for (from, to, expected) in cases {
        let checkpoint = scratch.open(&replace(&whole, &from, &to)).unwrap();
        let message = checkpoint.file("tokenizer.json").unwrap_err().to_string();
        assert!(message.contains(expected), "expected `{expected}`, found `{message}`");
    }
}

/// Two names of an architecture stand for the norm before the feed-forward block.
#[test]
fn two_tensors_of_one_weight_are_refused() {
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../planish-model/tests/golden_gguf/exaone4.gguf"
    );
    let mut bytes = std::fs::read(file).unwrap();
    let (from, to) = (b"blk.0.ffn_down.weight", b"blk.0.ffn_norm.weight");
    let at = bytes.windows(from.len()).position(|window| window == from).unwrap();
    bytes[at..at + to.len()].copy_from_slice(to);
    let opened = Checkpoint::from_memory("model", vec![("a.gguf".to_owned(), bytes.into())]);
    let error = opened.err().unwrap().to_string();
    assert!(
        error.contains("two tensors are the weight `model.layers.0.post_"),
        "{error}"
    );
}
