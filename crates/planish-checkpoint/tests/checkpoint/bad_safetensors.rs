//! Damaged and hostile safetensors files.

use std::str::FromStr;

use crate::sample::{Sample, file, given, safetensors};

/// Opens a folder whose `model.safetensors` is this; the message without its path.
#[track_caller]
fn refusal(content: &[u8]) -> String {
    let sample = Sample::new();
    sample.write("model.safetensors", content);
    let message = sample.refusal();
    let rest = message.strip_prefix("DIR/model.safetensors: ");
    rest.unwrap_or_else(|| panic!("does not name the file: {message}"))
        .to_string()
}

/// As [`refusal`], with a header and so many bytes of data.
#[track_caller]
fn header_refusal(header: &str, data_bytes: usize) -> String {
    refusal(&file(header, &vec![0; data_bytes]))
}

#[test]
fn not_safetensors() {
    assert_eq!(
        refusal(b""),
        "not a safetensors file: expected at least 8 bytes, found 0"
    );
    assert_eq!(
        refusal(b"1234567"),
        "not a safetensors file: expected at least 8 bytes, found 7"
    );
    let zip = b"PK\x03\x04\x00\x00\x08\x08model/data.pkl";
    assert_eq!(
        refusal(zip),
        "not a safetensors file: its header would be 578712552184433488 bytes, at most 100000000 are allowed"
    );
    assert_eq!(
        refusal(&[&16u64.to_le_bytes()[..], b"{\"short\": \"\xff\xff\xff\"}"].concat()[..24]),
        "not a safetensors file: its header is not UTF-8: invalid utf-8 sequence of 1 bytes from index 11"
    );
}

#[test]
fn header_lengths() {
    assert_eq!(
        refusal(&u64::MAX.to_le_bytes()),
        "not a safetensors file: its header would be 18446744073709551615 bytes, at most 100000000 are allowed"
    );
    assert_eq!(
        refusal(&1000u64.to_le_bytes()),
        "cut short in its header: expected at least 1008 bytes, found 8"
    );
}

#[test]
fn header_json() {
    assert_eq!(
        header_refusal("{\"a\": ", 0),
        "expected a safetensors header in JSON: tensor `a`: EOF while parsing a value at line 1 column 6"
    );
    assert_eq!(
        header_refusal("[1]", 0),
        "expected a safetensors header in JSON: invalid type: sequence, expected an object of tensors by name at line 1 column 0"
    );
    assert_eq!(
        header_refusal(r#"{"a": {"dtype": "F33", "shape": [], "data_offsets": [0, 4]}}"#, 4)
            .split(", expected")
            .next(),
        Some("expected a safetensors header in JSON: tensor `a`: unknown variant `F33`")
    );
    assert_eq!(
        header_refusal(r#"{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}"#, 4)
            .split(" at line")
            .next(),
        Some("expected a safetensors header in JSON: tensor `a`: invalid value: integer `-1`, expected usize")
    );
    assert_eq!(
        header_refusal(r#"{"a": {"dtype": "F32", "shape": [1]}}"#, 4)
            .split(" at line")
            .next(),
        Some("expected a safetensors header in JSON: tensor `a`: missing field `data_offsets`")
    );
    assert_eq!(
        header_refusal(
            r#"{"a": {"dtype": "F32", "shape": [99999999999999999999999], "data_offsets": [0, 4]}}"#,
            4
        )
        .split(" at line")
        .next(),
        Some("expected a safetensors header in JSON: tensor `a`: invalid type: floating point `1e+23`, expected usize")
    );
}

#[test]
fn names_that_occur_twice() {
    let info = r#"{"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}"#;
    let message = header_refusal(&format!(r#"{{"a": {info}, "a": {info}}}"#), 1);
    assert_eq!(
        message.split(" at line").next(),
        Some("expected a safetensors header in JSON: tensor `a` occurs twice")
    );
}

#[test]
fn overlaps_and_holes() {
    let a = r#""a": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}"#;
    let second = |range: &str, size: usize| {
        format!(r#"{{{a}, "b": {{"dtype": "U8", "shape": [{size}], "data_offsets": {range}}}}}"#)
    };
    assert_eq!(
        header_refusal(&second("[2, 6]", 4), 6),
        "tensor `b`: starts at byte 2 of the data, inside the tensor before, which ends at 4"
    );
    assert_eq!(
        header_refusal(&second("[6, 10]", 4), 10),
        "tensor `b`: starts at byte 6 of the data, expected 4: a hole"
    );
    assert_eq!(
        header_refusal(&second("[4, 2]", 4), 6),
        "tensor `b`: shape [4] of U8 takes 4 bytes, found an end 2 before its start 4"
    );
    let past = second(&format!("[4, {}]", u64::MAX), 4);
    assert_eq!(
        header_refusal(&past, 6),
        "tensor `b`: shape [4] of U8 takes 4 bytes, found 18446744073709551611"
    );
}

#[test]
fn shapes() {
    let tensor = |dtype: &str, shape: &str, end: usize| {
        format!(r#"{{"a": {{"dtype": "{dtype}", "shape": {shape}, "data_offsets": [0, {end}]}}}}"#)
    };
    assert_eq!(
        header_refusal(&tensor("F32", "[3]", 8), 8),
        "tensor `a`: shape [3] of F32 takes 12 bytes, found 8"
    );
    assert_eq!(
        header_refusal(&tensor("F32", "[4294967296, 4294967296]", 0), 0),
        "tensor `a`: shape [4294967296, 4294967296] of F32 overflows"
    );
    assert_eq!(
        header_refusal(&tensor("F32", "[4611686018427387904]", 0), 0),
        "tensor `a`: shape [4611686018427387904] of F32 overflows"
    );
    assert_eq!(
        header_refusal(&tensor("F4", "[3]", 2), 2),
        "tensor `a`: shape [3] of F4 is not of whole bytes"
    );
    for (dtype, shape, bytes) in [
        ("C64", "[2]", 16),
        ("F8_E8M0", "[3]", 3),
        ("F4", "[4, 2]", 4),
        ("F6_E2M3", "[4]", 3),
    ] {
        let sample = Sample::new();
        let content = file(&tensor(dtype, shape, bytes), &vec![7; bytes]);
        sample.write("model.safetensors", &content);
        let stored = sample.open().tensor("a").unwrap();
        assert_eq!((stored.dtype.to_string().as_str(), stored.data.len()), (dtype, bytes));
    }
}

#[test]
fn cut_and_overlong_files() {
    let whole = safetensors(&[given("a", "F32", &[4]), given("b", "F32", &[4])]);
    for length in 0..whole.len() {
        let message = refusal(&whole[..length]);
        assert!(message.contains("found") || message.contains("EOF"), "{message}");
    }
    let size = whole.len();
    assert_eq!(
        refusal(&whole[..size - 1]),
        format!("cut short: its header describes {size} bytes, found {}", size - 1)
    );
    assert_eq!(
        refusal(&[&whole[..], b"x"].concat()),
        format!("too long: its header describes {size} bytes, found {}", size + 1)
    );
}

/// Whatever the safetensors crate refuses, planish refuses; the other way round only for names that occur twice.
#[test]
fn as_strict_as_the_safetensors_crate() {
    let info = |dtype: &str, shape: &str, offsets: &str| {
        format!(r#"{{"dtype": "{dtype}", "shape": {shape}, "data_offsets": {offsets}}}"#)
    };
    let starts = ["[0, 4]", "[0, 0]", "[4, 8]", "[4, 4]", "[8, 4]", "[0, 8]"];
    for first in starts {
        for second in starts {
            for shape in ["[]", "[0]", "[1]", "[2]", "[1, 0, 3]"] {
                for data_bytes in [0, 4, 8] {
                    let (a, b) = (info("F32", shape, first), info("F32", "[1]", second));
                    let content = file(&format!(r#"{{"a": {a}, "b": {b}}}"#), &vec![0; data_bytes]);
                    let theirs = safetensors::SafeTensors::deserialize(&content).is_ok();
                    let sample = Sample::new();
                    sample.write("model.safetensors", &content);
                    let ours = planish_checkpoint::Checkpoint::open(sample.folder()).is_ok();
                    assert_eq!(ours, theirs, "{}", String::from_utf8_lossy(&content));
                }
            }
        }
    }
    assert!(
        usize::from_str("18446744073709551615").is_ok(),
        "the limits above are those of 64 bits"
    );
}
