//! `planish quantize`: layers, config, files, interruption, refusals.

mod support;

use std::path::Path;

use planish_checkpoint::{Dialect, Weight};
use planish_format::{Encoder, FloatMatrix, FloatType, Packing, QuantizeOptions, Rule, quantize_with};
use serde_json::json;
use support::{Scratch, llama_config, llama_tensors, plain};

/// Names of the packed modules of a checkpoint.
fn packed(scratch: &Scratch, name: &str) -> Vec<String> {
    let checkpoint = scratch.open(name);
    let is_packed =
        |entry: &&planish_checkpoint::Entry| matches!(entry.layout, planish_checkpoint::Layout::Packed { .. });
    checkpoint
        .entries()
        .iter()
        .filter(is_packed)
        .map(|entry| entry.module().unwrap().to_owned())
        .collect()
}

/// The weight `name` of checkpoint `model`, against codes, scales and biases made from the source in one piece.
fn assert_packed_from(scratch: &Scratch, model: &str, name: &str, options: QuantizeOptions) {
    let source = llama_tensors().into_iter().find(|tensor| tensor.name == name).unwrap();
    let mut bytes = vec![0; source.values.len() * 2];
    FloatType::BF16.encode(&source.values, &mut bytes);
    let mut decoded = vec![0.0; source.values.len()];
    FloatType::BF16.decode(&bytes, &mut decoded);
    let mut cast = vec![0; decoded.len() * options.scale_type.size_bytes()];
    options.scale_type.encode(&decoded, &mut cast);
    let matrix = FloatMatrix::new(source.shape[0], source.shape[1], options.scale_type, &cast).unwrap();
    let expected = quantize_with(matrix, options).unwrap();
    let checkpoint = scratch.open(model);
    let Weight::Packed(found) = checkpoint.read(checkpoint.entry(name).unwrap()).unwrap() else {
        panic!("plain")
    };
    assert_eq!(found.codes, expected.codes);
    assert_eq!(found.scales, expected.scales);
    assert_eq!(found.biases, expected.biases);
}

#[test]
fn metal_packs_linear_layers_and_lists_the_rest() {
    let scratch = Scratch::new();
    scratch.llama("source");
    let told = scratch.succeed(&["quantize", "source", "--out", "out", "--method", "transformers"]);
    for layer in 0..2 {
        let line = format!("plain: model.layers.{layer}.mlp.down_proj: a group of 64 does not divide its 96 columns");
        assert!(told.contains(&line), "{told}");
    }
    let names = packed(&scratch, "out");
    assert_eq!(names.len(), 12);
    assert!(
        !names
            .iter()
            .any(|name| name.contains("down_proj") || name.contains("embed")),
        "{names:?}"
    );
    let listed = [
        "lm_head",
        "model.layers.0.mlp.down_proj",
        "model.layers.1.mlp.down_proj",
    ];
    let expected = json!({"quant_method": "metal", "bits": 4, "group_size": 64, "modules_to_not_convert": listed});
    assert_eq!(scratch.config("out")["quantization_config"], expected);
    let options = QuantizeOptions {
        packing: Packing::new(4, 64).unwrap(),
        rule: Encoder::Transformers.into(),
        scale_type: FloatType::BF16,
        allow_non_finite: false,
    };
    assert_packed_from(&scratch, "out", "model.layers.1.mlp.up_proj.weight", options);
}

#[test]
fn mlx_packs_embeddings_too_and_holds_overrides() {
    let scratch = Scratch::new();
    scratch.llama("source");
    let flags = [
        "--format",
        "mlx",
        "--method",
        "mlx",
        "--group-size",
        "32",
        "--bits",
        "3",
        "--override",
        "v_proj|down_proj=6",
        "--override",
    ];
    let rest = [
        r"layers\.1\.mlp=none",
        "--dtype",
        "float16",
        "--exclude",
        "model.layers.0.self_attn.q_proj",
    ];
    let arguments: Vec<&str> = ["quantize", "source", "--out", "out"]
        .into_iter()
        .chain(flags)
        .chain(rest)
        .collect();
    scratch.succeed(&arguments);
    let scheme = |bits: u32| json!({"group_size": 32, "bits": bits, "mode": "affine"});
    let mut expected = scheme(3);
    for (module, value) in [
        ("model.layers.0.self_attn.v_proj", scheme(6)),
        ("model.layers.1.self_attn.v_proj", scheme(6)),
        ("model.layers.0.mlp.down_proj", scheme(6)),
        ("model.layers.1.mlp.down_proj", scheme(6)),
        ("model.layers.1.mlp.gate_proj", json!(false)),
        ("model.layers.1.mlp.up_proj", json!(false)),
        ("model.layers.0.self_attn.q_proj", json!(false)),
    ] {
        expected[module] = value;
    }
    let config = scratch.config("out");
    assert_eq!(config["quantization"], expected);
    assert_eq!(config["quantization_config"], expected);
    assert_eq!(config["torch_dtype"], "float16");
    assert_eq!(packed(&scratch, "out").len(), 1 + 14 - 3);
    let options = |bits| QuantizeOptions {
        packing: Packing::new(bits, 32).unwrap(),
        rule: Encoder::MlxMetal.into(),
        scale_type: FloatType::F16,
        allow_non_finite: false,
    };
    assert_packed_from(&scratch, "out", "model.embed_tokens.weight", options(3));
    assert_packed_from(&scratch, "out", "model.layers.0.mlp.down_proj.weight", options(6));
    let norm = scratch.open("out").tensor("model.norm.weight").unwrap();
    assert_eq!(norm.dtype, planish_checkpoint::Dtype::F16);
}

#[test]
fn a_weight_longer_than_one_chunk_is_packed_as_if_whole() {
    let scratch = Scratch::new();
    let long = plain("model.layers.0.self_attn.q_proj.weight", &[70_000, 64], &mut 7);
    scratch.write(
        "source",
        &json!({"model_type": "llama"}),
        FloatType::F32,
        std::slice::from_ref(&long),
    );
    let bytes: Vec<u8> = long.values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let matrix = FloatMatrix::new(70_000, 64, FloatType::F32, &bytes).unwrap();
    let whole = |rule| {
        let options = QuantizeOptions {
            packing: Packing::new(4, 64).unwrap(),
            rule,
            scale_type: FloatType::F32,
            allow_non_finite: false,
        };
        quantize_with(matrix, options).unwrap()
    };
    // All columns of the weight are about as large, so that the search counts them alike.
    for (method, rule) in [
        ("mlx-cpu", Encoder::MlxCpu.into()),
        ("search", Rule::Search { importance: None }),
    ] {
        let expected = whole(rule);
        scratch.succeed(&["quantize", "source", "--out", method, "--method", method]);
        let checkpoint = scratch.open(method);
        let Weight::Packed(found) = checkpoint.read(&checkpoint.entries()[0]).unwrap() else {
            panic!("plain")
        };
        assert!(found.codes == expected.codes && found.scales == expected.scales && found.biases == expected.biases);
    }
}

/// The same bytes for any number of threads; another method, other bytes of the same number; the card says which.
#[test]
fn files_are_searched_for_unless_a_method_is_named() {
    let scratch = Scratch::new();
    scratch.llama("source");
    let weights = |name: &str, flags: &[&str], threads: &str| {
        let arguments: Vec<&str> = ["quantize", "source", "--out", name, "--bits", "2"]
            .iter()
            .chain(flags)
            .copied()
            .collect();
        let output = scratch
            .command(&arguments)
            .env("RAYON_NUM_THREADS", threads)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        std::fs::read(scratch.path(name).join("model.safetensors")).unwrap()
    };
    let default = weights("default", &[], "1");
    assert!(default == weights("search", &["--method", "search"], "3"));
    let peers = weights("peers", &["--method", "transformers"], "2");
    assert!(default != peers && default.len() == peers.len());
    for (name, part) in [
        ("default", "| codes chosen by | search ("),
        ("peers", "| codes chosen by | the rule of transformers |"),
    ] {
        let card = std::fs::read_to_string(scratch.path(name).join("README.md")).unwrap();
        assert!(card.contains(part), "{part:?} is not in:\n{card}");
    }
}

#[test]
fn other_files_and_a_model_card_come_along() {
    let scratch = Scratch::new();
    scratch.llama("source");
    scratch.succeed(&[
        "quantize",
        "source",
        "--out",
        "out",
        "--group-size",
        "32",
        "--bits",
        "8",
    ]);
    assert_eq!(
        std::fs::read(scratch.path("out/tokenizer.json")).unwrap(),
        b"{\"any\": \"thing\"}"
    );
    assert_eq!(
        scratch.config("out")["quantization_config"]["modules_to_not_convert"],
        json!(null)
    );
    let card = std::fs::read_to_string(scratch.path("out/README.md")).unwrap();
    let expected = [
        "---\nlicense: mit\nlibrary_name: transformers\ntags:\n- chat\n- metal\n- 8-bit\n- planish\n---\n",
        "# out\n",
        "packed into 8-bit codes, by groups of 32",
        "## The card of the source\n\nA small model.\n",
    ];
    for part in expected {
        assert!(card.contains(part), "{part:?} is not in:\n{card}");
    }
    scratch.succeed(&[
        "quantize",
        "source",
        "--out",
        "mlx",
        "--format",
        "mlx",
        "--group-size",
        "32",
    ]);
    assert!(matches!(scratch.open("mlx").dialect(), Dialect::Mlx { .. }));
}

#[test]
fn nothing_is_overwritten_without_force() {
    let scratch = Scratch::new();
    scratch.llama("source");
    scratch.succeed(&["quantize", "source", "--out", "out"]);
    let message = scratch.fail(&["quantize", "source", "--out", "out", "--bits", "8"]);
    assert!(
        message.contains("out: exists already") && message.contains("--force"),
        "{message}"
    );
    assert_eq!(scratch.config("out")["quantization_config"]["bits"], 4);
    scratch.succeed(&["quantize", "source", "--out", "out", "--bits", "8", "--force"]);
    assert_eq!(scratch.config("out")["quantization_config"]["bits"], 8);

    std::fs::write(scratch.path("file"), "text").unwrap();
    let message = scratch.fail(&["quantize", "source", "--out", "file", "--force"]);
    assert!(message.contains("file: is a file"), "{message}");
    let message = scratch.fail(&["quantize", "source", "--out", "file/out"]);
    assert!(message.contains("file"), "{message}");
    let message = scratch.fail(&["quantize", "source", "--out", "/proc/planish-out"]);
    assert!(message.contains("/proc"), "{message}");
    assert_eq!(std::fs::read(scratch.path("file")).unwrap(), b"text");
}

#[test]
fn non_finite_weights_are_named() {
    for (value, name) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (f32::NEG_INFINITY, "-inf")] {
        let scratch = Scratch::new();
        let mut tensors = llama_tensors();
        let index = tensors
            .iter()
            .position(|tensor| tensor.name.ends_with("1.self_attn.k_proj.weight"))
            .unwrap();
        tensors[index].values[5 * 64 + 7] = value;
        scratch.write("source", &llama_config(), FloatType::BF16, &tensors);
        let message = scratch.fail(&["quantize", "source", "--out", "out"]);
        let expected = format!("model.layers.1.self_attn.k_proj.weight holds {name} at row 5, column 7");
        assert!(
            message.contains(&expected) && message.contains("--allow-nan"),
            "{message}"
        );
        scratch.succeed(&["quantize", "source", "--out", "out", "--allow-nan"]);
    }
    let scratch = Scratch::new();
    let mut tensors = llama_tensors();
    tensors[0].values[64] = f32::NAN; // an embedding, which stays plain
    scratch.write("source", &llama_config(), FloatType::F32, &tensors);
    let message = scratch.fail(&["quantize", "source", "--out", "out"]);
    assert!(
        message.contains("model.embed_tokens.weight holds NaN at row 1, column 0"),
        "{message}"
    );
}

#[test]
fn a_value_too_large_for_the_type_is_named() {
    let scratch = Scratch::new();
    let mut tensors = llama_tensors();
    tensors[3].values[0] = 1e6;
    scratch.write("source", &llama_config(), FloatType::F32, &tensors);
    let message = scratch.fail(&["quantize", "source", "--out", "out", "--dtype", "float16"]);
    assert!(
        message.contains("1000000 at row 0, column 0, which float16 cannot hold"),
        "{message}"
    );
}

#[test]
fn what_cannot_be_is_refused() {
    let scratch = Scratch::new();
    scratch.llama("source");
    scratch.succeed(&["quantize", "source", "--out", "packed"]);
    for (arguments, part) in [
        (
            &["--bits", "3"][..],
            "the metal format holds 2, 4 and 8 bits, not 3: choose one of these, or --format mlx",
        ),
        (
            &["--override", "q_proj=8"],
            "cannot hold --override: use --format mlx, or --exclude",
        ),
        (
            &["--override", "q_proj=7", "--format", "mlx"],
            "\"q_proj=7\" is not REGEX=BITS[,GROUP]",
        ),
        (
            &["--override", "(=4", "--format", "mlx"],
            "\"(\" is not a regular expression",
        ),
        (
            &["--format", "mlx", "--group-size", "16"],
            "groups of 32, 64 and 128, not 16",
        ),
        (&["--group-size", "0"], "--group-size 0"),
        (&["--group-size", "12"], "--group-size 12"),
        (&["--group-size", "4096"], "none of the 20 tensors would be packed"),
        (&["--exclude", "["], "\"[\" is not a regular expression"),
        (&["--include-head"], "tied to the embeddings"),
        (
            &["--device", "metal"],
            "quantizing computes on cuda or cpu, not on metal; use --device cpu",
        ),
        (
            &["--device", "cuda", "--method", "mlx"],
            "--device: the codes of peers are chosen on the processor",
        ),
    ] {
        let arguments: Vec<&str> = ["quantize", "source", "--out", "out"]
            .iter()
            .chain(arguments)
            .copied()
            .collect();
        let message = scratch.fail(&arguments);
        assert!(message.contains(part), "{arguments:?}: {message}");
    }
    let message = scratch.fail(&["quantize", "packed", "--out", "out"]);
    assert!(message.contains("packed already (metal, 4 bits, group 64)") && message.contains("planish dequantize"));
}

/// With an NVIDIA GPU it packs, without one the message says what to do.
#[test]
fn an_absent_gpu_is_explained() {
    let scratch = Scratch::new();
    scratch.llama("source");
    let output = scratch.run(&["quantize", "source", "--out", "out", "--device", "cuda"]);
    let told = String::from_utf8(output.stderr).unwrap();
    match output.status.code() {
        Some(0) => assert_eq!(packed(&scratch, "out").len(), 12),
        code => {
            assert_eq!(code, Some(1), "{told}");
            assert!(told.contains("--device cpu") && !told.contains("panicked"), "{told}");
            assert_eq!(scratch.names(), ["source"]);
        }
    }
}

#[test]
fn wrong_usage_is_exit_code_2() {
    let scratch = Scratch::new();
    scratch.llama("source");
    for arguments in [
        &["quantize", "source"][..],
        &["quantize", "source", "--out", "out", "--bits", "7"],
        &["quantize", "source", "--out", "out", "--format", "gguf"],
        &["quantize", "source", "--out", "out", "--dtype", "int8"],
        &["convert", "source", "--out", "out"],
    ] {
        assert_eq!(scratch.run(arguments).status.code(), Some(2), "{arguments:?}");
        assert_eq!(scratch.names(), ["source"]);
    }
}

/// A source large enough to be interrupted.
fn large(scratch: &Scratch) {
    let names = (0..8).map(|layer| format!("model.layers.{layer}.mlp.up_proj.weight"));
    let tensors: Vec<_> = names.map(|name| plain(&name, &[8192, 512], &mut 3)).collect();
    scratch.write("source", &llama_config(), FloatType::F32, &tensors);
}

#[test]
fn killed_half_way_nothing_looks_finished_and_the_next_run_works() {
    let scratch = Scratch::new();
    large(&scratch);
    let mut child = scratch
        .command(&["quantize", "source", "--out", "out"])
        .spawn()
        .unwrap();
    let begun = |scratch: &Scratch| scratch.names().iter().any(|name| name.starts_with(".out.planish-"));
    while !begun(&scratch) && child.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
    child.kill().unwrap();
    assert!(
        !child.wait().unwrap().success(),
        "it was done before it could be killed"
    );
    assert!(!scratch.path("out").exists());
    assert!(begun(&scratch), "the killed run leaves its hidden folder");
    scratch.succeed(&["quantize", "source", "--out", "out"]);
    assert_eq!(scratch.names(), ["out", "source"], "and the next run removes it");
    assert_eq!(packed(&scratch, "out").len(), 8);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_leaves_nothing_behind() {
    let scratch = Scratch::new();
    large(&scratch);
    std::fs::create_dir(scratch.path("disk")).unwrap();
    let disk = scratch.path("disk");
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
        .arg(&disk)
        .status();
    if mounted.is_ok_and(|status| status.success()) {
        let message = scratch.fail(&["quantize", "source", "--out", "disk/out"]);
        let left = std::fs::read_dir(&disk).unwrap().count();
        let unmounted = std::process::Command::new("umount").arg(&disk).status().unwrap();
        assert!(
            message.contains("disk/out") && message.contains("No space left on device"),
            "{message}"
        );
        assert_eq!(left, 0, "something was left behind");
        assert!(unmounted.success());
        return;
    }
    // Without the right to mount: files of at most 1 MB, which fails in the same calls.
    let mut command = scratch.command(&["quantize", "source", "--out", "out"]);
    limit_file_size(&mut command, 1 << 20);
    let output = command.output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(
        message.contains("error: out") && message.contains("File too large"),
        "{message}"
    );
    assert_eq!(scratch.names(), ["disk", "source"]);
}

#[cfg(target_os = "linux")]
fn limit_file_size(command: &mut std::process::Command, bytes: u64) {
    use std::os::unix::process::CommandExt;
    let limit = move || {
        let limit = libc::rlimit {
            rlim_cur: bytes,
            rlim_max: bytes,
        };
        // SAFETY: both calls are async-signal-safe and `limit` is a valid structure.
        let failed = unsafe {
            libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
            libc::setrlimit(libc::RLIMIT_FSIZE, &limit)
        };
        if failed == 0 {
            Ok(())
        } else {
            Err(std::io::Error::last_os_error())
        }
    };
    // SAFETY: the closure only makes async-signal-safe calls.
    unsafe { command.pre_exec(limit) };
}

#[test]
fn an_importance_matrix_goes_in_place_of_a_run() {
    let scratch = Scratch::new();
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let [source, matrix] = [
        "planish-model/tests/golden/qwen2_moe_all_layers/plain",
        "planish/tests/golden/imatrix/qwen2_moe_all_layers.gguf",
    ]
    .map(|name| crates.join(name).to_str().unwrap().to_owned());
    let common = [
        "quantize",
        &source,
        "--format",
        "mlx",
        "--bits",
        "2",
        "--group-size",
        "32",
    ];
    let quantize = |more: &[&str]| scratch.succeed(&[&common[..], more].concat());
    quantize(&["--out", "searched"]);
    quantize(&["--out", "weighted", "--method", "weighted", "--imatrix", &matrix]);
    let bytes = |out: &str| std::fs::read(scratch.path(out).join("model.safetensors")).unwrap();
    assert_ne!(bytes("weighted"), bytes("searched"));
    let card = std::fs::read_to_string(scratch.path("weighted/README.md")).unwrap();
    let text = "over the importance matrix qwen2_moe_all_layers.gguf (4 chunks of letters.txt)";
    assert!(card.contains(text), "{card}");
    let message = scratch.fail(&[&common[..], &["--out", "other", "--imatrix", &matrix]].concat());
    assert_eq!(message, "error: --imatrix: only --method weighted weighs inputs");
    assert!(!scratch.path("other").exists());
}
