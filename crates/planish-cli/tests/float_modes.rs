//! `planish quantize --mode`: checkpoints of MLX whose codes are floats.

mod support;

use planish_checkpoint::Weight;
use planish_format::{FloatMatrix, FloatMode, FloatType, quantize_floats};
use serde_json::json;
use support::{Scratch, llama_config, llama_tensors};

/// planish-format's tests hold the codes to MLX's own.
#[test]
fn modes_of_floats_are_written_as_mlx_names_them() {
    let scratch = Scratch::new();
    scratch.llama("source");
    let source = llama_tensors();
    let modes = [
        ("mxfp4", FloatMode::Mxfp4, 4, 32),
        ("mxfp8", FloatMode::Mxfp8, 8, 32),
        ("nvfp4", FloatMode::Nvfp4, 4, 16),
    ];
    for (name, mode, bits, group) in modes {
        let common = ["quantize", "source", "--format", "mlx", "--mode", name, "--out", name];
        scratch.succeed(&[&common[..], &["--override", "v_proj=6,64", "--exclude", "o_proj"]].concat());
        let config = scratch.config(name);
        let mut expected = json!({"group_size": group, "bits": bits, "mode": name});
        for layer in 0..2 {
            expected[format!("model.layers.{layer}.self_attn.o_proj")] = json!(false);
            let other = json!({"group_size": 64, "bits": 6, "mode": "affine"});
            expected[format!("model.layers.{layer}.self_attn.v_proj")] = other;
        }
        assert_eq!(config["quantization"], expected);
        let file = std::fs::read(scratch.path(name).join("model.safetensors")).unwrap();
        let file = safetensors::SafeTensors::deserialize(&file).unwrap();
        for module in ["model.embed_tokens", "model.layers.1.mlp.down_proj"] {
            let plain = source
                .iter()
                .find(|tensor| tensor.name == format!("{module}.weight"))
                .unwrap();
            let mut bytes = vec![0; plain.values.len() * 2];
            FloatType::BF16.encode(&plain.values, &mut bytes);
            let matrix = FloatMatrix::new(plain.shape[0], plain.shape[1], FloatType::BF16, &bytes).unwrap();
            let packed = quantize_floats(matrix, mode).unwrap();
            let stored = |part: &str| file.tensor(&format!("{module}.{part}")).unwrap();
            assert_eq!(stored("weight").data(), packed.codes, "{name}, {module}");
            assert_eq!(stored("weight").dtype(), safetensors::Dtype::U32);
            assert_eq!(stored("scales").data(), packed.scales, "{name}, {module}");
            assert_eq!(stored("scales").shape(), [plain.shape[0], plain.shape[1] / group]);
            assert!(file.tensor(&format!("{module}.biases")).is_err());
        }
        // Read again: an eighth of the largest weight of a group is the coarsest step of these floats.
        let checkpoint = scratch.open(name);
        let found = checkpoint
            .read(checkpoint.entry("model.embed_tokens.weight").unwrap())
            .unwrap();
        let bytes = match &found {
            Weight::Packed(matrix) => planish_format::dequantize(matrix, FloatType::F32),
            Weight::Plain(tensor) => planish_checkpoint::cast(&tensor.data, FloatType::BF16, FloatType::F32),
        };
        let values = bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
        for (found, expected) in values.zip(&source[0].values) {
            assert!((found - expected).abs() < 0.26, "{name}: {found}, {expected}");
        }
    }
    let refused = |more: &[&str]| scratch.fail(&[&["quantize", "source", "--out", "out"], more].concat());
    let message = refused(&["--mode", "mxfp4"]);
    assert!(
        message.contains("the metal format holds whole numbers only"),
        "{message}"
    );
    let message = refused(&["--mode", "mxfp8", "--format", "mlx", "--bits", "3"]);
    assert!(message.contains("--bits: this mode has 8 bits"), "{message}");
    let message = refused(&["--mode", "nvfp4", "--format", "mlx", "--method", "weighted"]);
    assert!(
        message.contains("--mode: the codes of floats are chosen as MLX does it"),
        "{message}"
    );
}

/// The largest scale of nvfp4 is 448: what MLX would make smaller without a word is refused by name.
#[test]
fn weights_beyond_the_largest_scale_are_told() {
    let scratch = Scratch::new();
    let mut tensors = llama_tensors();
    let name = "model.layers.1.mlp.up_proj.weight";
    let large = tensors.iter_mut().find(|tensor| tensor.name == name).unwrap();
    large.values[2 * 64 + 5] = -3008.0;
    scratch.write("source", &llama_config(), FloatType::BF16, &tensors);
    let quantize = ["quantize", "source", "--format", "mlx", "--out", "out", "--mode"];
    let message = scratch.fail(&[&quantize[..], &["nvfp4"]].concat());
    let expected =
        format!("{name} holds -3008 at row 2, column 5, and nvfp4 holds up to 2688: choose another mode, or --clamp");
    assert!(message.contains(&expected), "{message}");
    for flags in [&["nvfp4", "--clamp"][..], &["mxfp4", "--force"], &["mxfp8", "--force"]] {
        scratch.succeed(&[&quantize[..], flags].concat());
    }
}
