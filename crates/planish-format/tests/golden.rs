//! Codes, scales, biases and weights against the peers' own, bit for bit.
//!
//! tests/golden/format.safetensors is made by scripts/golden/format.py, which says what the tensors are; its metadata
//! record the versions of the peers. Every case in the file is compared.

use std::collections::BTreeMap;

use planish_format::{
    Encoder, FloatMatrix, FloatType, PackedMatrix, PackedShape, Packing, code_at, dequantize, quantize,
};
use safetensors::SafeTensors;

static GOLDEN: &[u8] = include_bytes!("golden/format.safetensors");

/// One request of the golden file and where its tensors are.
struct Case {
    name: String,
    encoder: Encoder,
    float_type: FloatType,
    packing: Packing,
}

impl Case {
    /// From "ENCODER/DTYPE/BITS/GROUP".
    fn parse(name: &str) -> Case {
        let [encoder, dtype, bits, group] = name.split('/').collect::<Vec<_>>().try_into().expect("four parts");
        Case {
            name: name.to_string(),
            encoder: match encoder {
                "transformers" => Encoder::Transformers,
                "mlx-cpu" => Encoder::MlxCpu,
                "mlx-metal" => Encoder::MlxMetal,
                other => panic!("unknown encoder {other}"),
            },
            float_type: match dtype {
                "F32" => FloatType::F32,
                "F16" => FloatType::F16,
                "BF16" => FloatType::BF16,
                other => panic!("unknown type {other}"),
            },
            packing: Packing::new(bits.parse().expect("bits"), group.parse().expect("group")).expect("a packing"),
        }
    }

    fn source<'a>(&self, golden: &SafeTensors<'a>) -> FloatMatrix<'a> {
        let tensor = golden.tensor(&format!("input/{:?}", self.float_type)).expect("input");
        FloatMatrix::new(tensor.shape()[0], tensor.shape()[1], self.float_type, tensor.data()).expect("a matrix")
    }

    fn expected(&self, golden: &SafeTensors) -> PackedMatrix {
        let codes = golden.tensor(&format!("{}/codes", self.name)).expect("codes").data();
        let affine = golden.tensor(&format!("{}/affine", self.name)).expect("affine").data();
        let (scales, biases) = affine.split_at(affine.len() / 2);
        let source = self.source(golden);
        let shape = PackedShape::new(source.rows, source.cols, self.packing, self.float_type).expect("a shape");
        let [codes, scales, biases] = [codes, scales, biases].map(|part| part.to_vec().into());
        PackedMatrix::new(shape, codes, scales, biases).expect("a packed matrix")
    }
}

fn golden() -> SafeTensors<'static> {
    SafeTensors::deserialize(GOLDEN).expect("the golden file")
}

/// The cases whose tensor names are `prefix` + case + `suffix`.
fn cases(golden: &SafeTensors, prefix: &str, suffix: &str) -> Vec<Case> {
    let names = golden
        .names()
        .into_iter()
        .filter_map(|name| name.strip_prefix(prefix)?.strip_suffix(suffix));
    names.map(Case::parse).collect()
}

/// What each row is, for messages.
fn row_names() -> Vec<String> {
    let (_, metadata) = SafeTensors::read_metadata(GOLDEN).expect("the golden file");
    let metadata = metadata.metadata().as_ref().expect("metadata");
    let rows = metadata["made with"]
        .lines()
        .find_map(|line| line.strip_prefix("rows: "))
        .expect("rows");
    rows.split("; ").map(str::to_string).collect()
}

/// The first value that differs, as text that says where. // both (rows, values of `size` bytes)
fn first_difference(found: &[u8], expected: &[u8], rows: usize, size: usize) -> Option<String> {
    let index = found
        .chunks(size)
        .zip(expected.chunks(size))
        .position(|(found, expected)| found != expected)?;
    let value = |bytes: &[u8]| format!("{:02x?}", &bytes[index * size..(index + 1) * size]);
    let per_row = expected.len() / size / rows;
    let row = &row_names()[index / per_row];
    Some(format!(
        "row \"{row}\", value {}: found {}, expected {}",
        index % per_row,
        value(found),
        value(expected)
    ))
}

fn unpacked(matrix: &PackedMatrix) -> Vec<u8> {
    let row_codes = |row| (0..matrix.cols).map(move |col| code_at(matrix.row(row).codes, matrix.packing.bits(), col));
    (0..matrix.rows).flat_map(row_codes).collect()
}

#[test]
fn codes_scales_and_biases_equal_the_peers() {
    let golden = golden();
    for case in cases(&golden, "", "/codes") {
        let found = quantize(case.source(&golden), case.packing, case.encoder).expect("quantized");
        let expected = case.expected(&golden);
        let size = case.float_type.size_bytes();
        let differences = [
            (
                "codes",
                first_difference(&unpacked(&found), &unpacked(&expected), expected.rows, 1),
            ),
            (
                "scales",
                first_difference(&found.scales, &expected.scales, expected.rows, size),
            ),
            (
                "biases",
                first_difference(&found.biases, &expected.biases, expected.rows, size),
            ),
        ];
        for (part, difference) in differences {
            assert_eq!(difference, None, "{} of {}", part, case.name);
        }
        assert_eq!(found, expected, "{}", case.name);
    }
}

#[test]
fn dequantized_weights_equal_the_peers() {
    let golden = golden();
    let cases = cases(&golden, "dequantized/", "");
    assert!(!cases.is_empty());
    for case in cases {
        let expected = golden.tensor(&format!("dequantized/{}", case.name)).expect("weights");
        let packed = case.expected(&golden).slice_rows(0..expected.shape()[0]);
        let found = dequantize(&packed, case.float_type);
        let difference = first_difference(&found, expected.data(), packed.rows, case.float_type.size_bytes());
        assert_eq!(difference, None, "{}", case.name);
        assert_eq!(found.len(), expected.data().len());
    }
}

/// The file must hold what is promised: 3 types, all widths (2, 4, 8 for transformers), the usual groups, odd groups.
#[test]
fn the_golden_file_is_whole() {
    let golden = golden();
    let mut groups: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for case in cases(&golden, "", "/codes") {
        let key = format!("{:?} {:?} {}", case.encoder, case.float_type, case.packing.bits());
        groups.entry(key).or_default().push(case.packing.group());
    }
    assert_eq!(
        groups.len(),
        3 * (3 + 6 + 6),
        "encoders, types and widths: {:?}",
        groups.keys()
    );
    for (key, mut found) in groups {
        found.sort();
        let expected = if key.contains("BF16") {
            vec![8, 16, 24, 32, 64, 96, 128]
        } else {
            vec![32, 64, 128]
        };
        assert_eq!(found, expected, "{key}");
    }
}
