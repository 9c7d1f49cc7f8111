//! Random shapes, types and sizes of values: finite weights stay finite in whatever is written with exit 0, and metal to MLX and back
//! gives the same bytes. `PLANISH_ROUNDS` models.

#[allow(dead_code, reason = "the fuzz targets use the rest")]
#[path = "../../../fuzz/src/mutate.rs"]
mod mutate;
mod support;

use mutate::Random;
use planish_checkpoint::Checkpoint;
use planish_format::FloatType;
use serde_json::json;
use support::{Plain, Scratch};

const TYPES: [FloatType; 3] = [FloatType::F32, FloatType::F16, FloatType::BF16];

/// A matrix whose values are of one magnitude, of several, or at the ends of the type.
fn tensor(name: String, float_type: FloatType, random: &mut Random) -> Plain {
    let rows = 1 + random.below(48);
    let cols = match random.below(4) {
        0 => 1 + random.below(300),
        _ => 32 * (1 + random.below(8)),
    };
    let largest = match float_type {
        FloatType::F16 => 65504.0f32,
        FloatType::F32 => f32::MAX,
        FloatType::BF16 => 3.38e38,
    };
    let exponent = random.below(76) as i32 - 38;
    let kind = random.below(5);
    let value = |random: &mut Random| {
        let unit = random.below(1 << 20) as f32 / (1 << 19) as f32 - 1.0;
        let value = match kind {
            0 => unit,
            1 => unit * 10f32.powi(random.below(76) as i32 - 38),
            2 if random.below(8) == 0 => largest * unit.signum(),
            3 if random.below(4) > 0 => 0.0,
            _ => unit * 10f32.powi(exponent),
        };
        value.clamp(-largest, largest)
    };
    Plain {
        name,
        shape: vec![rows, cols],
        values: (0..rows * cols).map(|_| value(random)).collect(),
    }
}

/// That every float of a checkpoint is finite, unpacked weights too.
fn check_finite(folder: &std::path::Path, what: &str) {
    let checkpoint = Checkpoint::open(folder).unwrap_or_else(|error| panic!("{what}: {error}"));
    for entry in checkpoint.entries() {
        let suffixes = ["weight", "scales", "biases", "qbiases"];
        let module = entry.name.strip_suffix("weight").unwrap_or(&entry.name);
        for suffix in suffixes {
            let Ok(tensor) = checkpoint.tensor(&format!("{module}{suffix}")) else {
                continue;
            };
            let Some(float_type) = tensor.dtype.float_type() else {
                continue;
            };
            let mut values = vec![0.0; tensor.shape.iter().product()];
            float_type.decode(&tensor.data, &mut values);
            let wrong = values.iter().find(|value| !value.is_finite());
            assert!(wrong.is_none(), "{what}: {module}{suffix} holds {wrong:?}");
        }
    }
}

#[test]
fn finite_weights_stay_finite() {
    let rounds: u64 = std::env::var("PLANISH_ROUNDS").map_or(20, |rounds| rounds.parse().unwrap());
    let (mut written, mut refused, mut round_trips) = (0, 0, 0);
    for round in 0..rounds {
        let random = &mut Random::new(round + 1);
        let scratch = Scratch::new();
        let float_type = TYPES[random.below(3)];
        let names = [
            "model.layers.0.mlp.down_proj.weight",
            "model.layers.0.self_attn.q_proj.weight",
            "model.embed_tokens.weight",
        ];
        let tensors: Vec<Plain> = names[..1 + random.below(3)]
            .iter()
            .map(|name| tensor((*name).to_owned(), float_type, random))
            .collect();
        let config = json!({"model_type": "llama", "architectures": ["LlamaForCausalLM"], "num_hidden_layers": 1});
        scratch.write("source", &config, float_type, &tensors);
        let format = random.pick(&["metal", "mlx"]);
        let bits = if format == "metal" {
            random.pick(&["2", "4", "8"])
        } else {
            random.pick(&["2", "3", "4", "5", "6", "8"])
        };
        let group = random.pick(&["32", "64", "128"]);
        let method = random.pick(&["search", "transformers", "mlx", "mlx-cpu"]);
        let mut arguments = vec![
            "quantize",
            "source",
            "--out",
            "packed",
            "--format",
            format,
            "--bits",
            bits,
            "--group-size",
            group,
            "--method",
            method,
        ];
        if random.below(2) == 0 {
            arguments.extend(["--dtype", random.pick(&["float32", "float16", "bfloat16"])]);
        }
        let what = format!("round {round}: {arguments:?} of {float_type:?}");
        let mut run = |arguments: &[&str]| {
            let output = scratch.run(arguments);
            let stderr = String::from_utf8_lossy(&output.stderr);
            match output.status.code() {
                Some(0) => written += 1,
                Some(1) if !stderr.contains("mistake") => refused += 1,
                code => panic!("{what}, {arguments:?}: exit {code:?}\n{stderr}"),
            }
            output.status.success()
        };
        if !run(&arguments) {
            continue;
        }
        check_finite(&scratch.path("packed"), &what);
        let dtype = random.pick(&["float32", "float16", "bfloat16"]);
        if run(&["dequantize", "packed", "--out", "plain", "--dtype", dtype]) {
            check_finite(&scratch.path("plain"), &what);
        }
        if format == "metal" && run(&["convert", "packed", "--to", "mlx", "--out", "there"]) {
            check_finite(&scratch.path("there"), &what);
            assert!(
                run(&["convert", "there", "--to", "metal", "--out", "back"]),
                "{what}: no way back"
            );
            let weights = |name: &str| std::fs::read(scratch.path(name).join("model.safetensors")).unwrap();
            assert!(
                weights("packed") == weights("back"),
                "{what}: other bytes after metal to MLX and back"
            );
            round_trips += 1;
        }
    }
    println!("{rounds} models: {written} outputs, {refused} refusals, {round_trips} times to MLX and back");
    assert!(written as u64 >= rounds && refused > 0 && round_trips > 0);
}
