//! `PLANISH_CPU`: a wrong name is refused by every command, and a right one is what runs.

mod support;

use planish_format::Isa;
use serde_json::Value;
use support::Scratch;

const DEMO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/demo-float");

#[test]
fn wrong_names_are_refused_with_those_that_work() {
    let scratch = Scratch::new();
    let unsupported = Isa::ALL.iter().find(|isa| !isa.is_supported()).map(|isa| isa.name());
    for name in ["avx1024", "AVX2", "portable"].into_iter().chain(unsupported) {
        for arguments in [
            &["quantize", DEMO, "--out", "out"][..],
            &["dequantize", DEMO, "--out", "out"],
            &["inspect", DEMO],
            &["generate", DEMO, "--raw", "--prompt", "Once", "--max-new-tokens", "1"],
        ] {
            let output = scratch.command(arguments).env("PLANISH_CPU", name).output().unwrap();
            let message = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(1), "{name} {arguments:?}\n{message}");
            let parts = [
                "error: PLANISH_CPU: ",
                &format!("{name:?}"),
                Isa::best().name(),
                "scalar",
            ];
            for part in parts {
                assert!(message.contains(part), "{part:?} is not in: {message}");
            }
            assert!(scratch.names().is_empty(), "something was left behind");
        }
    }
}

/// Quantizing is the same bits by every instruction set, whose name the report of a run shows.
#[test]
fn every_name_runs() {
    let scratch = Scratch::new();
    let mut packed = None;
    for isa in Isa::supported() {
        let name = isa.name();
        let run = |arguments: &[&str]| {
            let output = scratch.command(arguments).env("PLANISH_CPU", name).output().unwrap();
            assert!(
                output.status.success(),
                "{name}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
            output.stdout
        };
        run(&["quantize", DEMO, "--out", name, "--format", "mlx", "--bits", "3"]);
        let weights = std::fs::read(scratch.path(name).join("model.safetensors")).unwrap();
        assert!(
            *packed.get_or_insert_with(|| weights.clone()) == weights,
            "{name} packs other bits"
        );
        let report = run(&[
            "bench",
            name,
            "--json",
            "--prompt-tokens",
            "4",
            "--generate-tokens",
            "2",
            "--repeat",
            "1",
        ]);
        let report: Value = serde_json::from_slice(&report).unwrap();
        assert_eq!(report["device"], format!("cpu ({name})"));
    }
}
