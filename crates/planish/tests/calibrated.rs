//! Packing by what goes into the layers: closer than by search, the same bytes for any number of threads, for every kind of layer.
#![cfg(feature = "demo-model")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use planish::{
    AutoModelForCausalLM, AutoTokenizer, CalibratedOptions, CalibratedProgress, CalibrationText, CausalLM,
    CheckpointError, DEMO_HELD_OUT, Device, Error, EvaluationOptions, Output, Packing, QuantizeError, Recipe, Report,
    Source, Target, dequantize, evaluate_all, is_unfinished, quantize, quantize_calibrated,
};
use serde_json::Value;
use tempfile::TempDir;

fn plain(scratch: &Path) -> Source {
    let folder = scratch.join("plain");
    dequantize(&Source::demo().unwrap(), None, &Output::new(&folder), &mut |_| {}).unwrap();
    Source::open(folder.to_str().unwrap()).unwrap()
}

/// Pieces of the held-out text, `length` tokens each.
fn pieces(length: usize) -> Vec<Vec<u32>> {
    AutoTokenizer::demo().unwrap().chunks(DEMO_HELD_OUT, length).unwrap()
}

fn options(pieces: Vec<Vec<u32>>, threads: usize) -> CalibratedOptions {
    CalibratedOptions {
        text: CalibrationText::Pieces {
            pieces,
            description: "stories".to_owned(),
        },
        threads: Some(threads),
        calibrator: None,
        device: Device::Cpu,
    }
}

/// Packs the first layers, few of them to be fast.
fn recipe(bits: u32, layers: usize) -> Recipe {
    let plain = [
        "model.embed_tokens",
        "lm_head",
        &format!(r"model\.layers\.[{layers}-7]\."),
    ];
    Recipe {
        exclude: plain.map(str::to_owned).to_vec(),
        ..Recipe::new(Target::Mlx, Packing::checked(bits, 64).unwrap())
    }
}

fn calibrated(source: &Source, options: &CalibratedOptions, output: &Output) -> Result<Report, Error> {
    quantize_calibrated(source, &recipe(2, 2), options, output, &mut |_| {}, &mut |_| {})
}

fn load(folder: &Path) -> CausalLM {
    let builder = AutoModelForCausalLM::from_pretrained(folder.to_str().unwrap());
    builder.device(Device::Cpu).exact(true).load().unwrap()
}

fn weights(folder: &Path) -> Vec<u8> {
    std::fs::read(folder.join("model.safetensors")).unwrap()
}

#[test]
fn the_story_model_comes_closer() {
    let scratch = TempDir::new().unwrap();
    let source = plain(scratch.path());
    let all = pieces(256);
    let (seen, unseen) = (all[..12].to_vec(), &all[20..24]);
    let [found, searched] = ["found", "searched"].map(|name| Output::new(scratch.path().join(name)));
    let report = calibrated(&source, &options(seen, 2), &found).unwrap();
    quantize(&source, &recipe(2, 2), &searched, &mut |_| {}).unwrap();
    assert_eq!(weights(&searched.folder).len(), weights(&found.folder).len());
    let models = [&found, &searched].map(|output| load(&output.folder));
    let reference = load(source.checkpoint().path());
    let options = EvaluationOptions {
        reference: Some(&reference),
        ..EvaluationOptions::default()
    };
    let judged = evaluate_all(&models.each_ref(), unseen, &options, &mut |_| {}).unwrap();
    let divergence = |index: usize| judged[index].comparison.unwrap().mean_kl_divergence;
    assert!(
        divergence(0) < 0.9 * divergence(1),
        "{} calibrated, {} searched",
        divergence(0),
        divergence(1)
    );
    let note = report.notes.iter().find(|note| note.contains("held-out tokens"));
    assert!(
        note.is_some_and(|note| note.ends_with("the calibrated codes are kept")),
        "{:?}",
        report.notes
    );
    let card = std::fs::read_to_string(found.folder.join("README.md")).unwrap();
    assert!(
        card.contains("over stories (2560 tokens, 2 more pieces held out)"),
        "{card}"
    );
    let left = std::fs::read_dir(scratch.path())
        .unwrap()
        .map(|item| item.unwrap().file_name());
    let hidden: Vec<_> = left.filter(|name| name.to_string_lossy().starts_with('.')).collect();
    assert!(hidden.is_empty(), "{hidden:?}");
}

#[test]
fn threads_do_not_matter() {
    let scratch = TempDir::new().unwrap();
    let source = plain(scratch.path());
    // Three pieces: none is held out, so the codes are those of the inputs.
    let chosen = pieces(64)[..3].to_vec();
    let run = |threads: usize| {
        let output = Output::new(scratch.path().join(threads.to_string()));
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| calibrated(&source, &options(chosen.clone(), threads), &output).unwrap());
        weights(&output.folder)
    };
    let one = run(1);
    assert!(one == run(2), "one thread and two give the same bytes");
    let searched = Output::new(scratch.path().join("searched"));
    quantize(&source, &recipe(2, 2), &searched, &mut |_| {}).unwrap();
    assert!(one != weights(&searched.folder), "codes by inputs are others");
}

#[test]
fn a_text_that_misleads_is_found_out() {
    let scratch = TempDir::new().unwrap();
    let source = plain(scratch.path());
    let stories = pieces(64);
    // One word again and again says nothing of stories; the held-out pieces are stories.
    let mut misleading = vec![vec![stories[0][5]; 96]; 3];
    misleading.extend(stories[..2].to_vec());
    let output = Output::new(scratch.path().join("out"));
    let report = calibrated(&source, &options(misleading, 2), &output).unwrap();
    let note = report.notes.iter().find(|note| note.contains("held-out tokens"));
    assert!(
        note.is_some_and(|note| note.ends_with("the searched codes are kept")),
        "{:?}",
        report.notes
    );
    let searched = Output::new(scratch.path().join("searched"));
    quantize(&source, &recipe(2, 2), &searched, &mut |_| {}).unwrap();
    assert!(weights(&output.folder) == weights(&searched.folder));
    let card = std::fs::read_to_string(output.folder.join("README.md")).unwrap();
    assert!(card.contains("did not help"), "{card}");
}

#[test]
fn a_run_that_was_stopped_is_gone_on_with() {
    let scratch = TempDir::new().unwrap();
    let source = plain(scratch.path());
    let chosen = options(pieces(48)[..5].to_vec(), 2);
    let whole = Output::new(scratch.path().join("whole"));
    calibrated(&source, &chosen, &whole).unwrap();
    let output = Output {
        resume: true,
        ..Output::new(scratch.path().join("out"))
    };
    let seen = AtomicUsize::new(0);
    let run = |stop_at: usize| {
        let mut on_calibration = |progress| {
            let CalibratedProgress::Packing(done, total) = progress else {
                panic!("the text was given")
            };
            let share = (done * 100 / total) as usize;
            seen.fetch_min(share, Ordering::Relaxed);
            output.stop.store(share >= stop_at, Ordering::Relaxed);
        };
        seen.store(100, Ordering::Relaxed);
        quantize_calibrated(
            &source,
            &recipe(2, 2),
            &chosen,
            &output,
            &mut on_calibration,
            &mut |_| {},
        )
    };
    assert!(!is_unfinished(&output.folder));
    let stopped = run(60).unwrap_err();
    assert!(
        matches!(stopped, Error::Quantize(QuantizeError::Stopped { .. })),
        "{stopped}"
    );
    assert!(is_unfinished(&output.folder) && !output.folder.exists());
    let others = options(pieces(48)[..6].to_vec(), 2);
    let refused = calibrated(&source, &others, &output).unwrap_err();
    let Error::Checkpoint(CheckpointError::OtherRun { what, .. }) = &refused else {
        panic!("{refused}")
    };
    assert!(what.starts_with("the calibration text was 5 pieces"), "{what}");
    run(101).unwrap();
    assert!(seen.load(Ordering::Relaxed) >= 50, "it went on at {seen:?} %");
    assert!(weights(&output.folder) == weights(&whole.folder));
    assert!(!is_unfinished(&output.folder));
    let exists = calibrated(&source, &chosen, &output).unwrap_err();
    assert!(
        matches!(exists, Error::Checkpoint(CheckpointError::OutputExists { .. })),
        "{exists}"
    );
}

#[test]
fn what_the_model_writes_is_a_text() {
    let scratch = TempDir::new().unwrap();
    let source = plain(scratch.path());
    let chosen = CalibratedOptions {
        text: CalibrationText::OwnWriting {
            seed: 3,
            tokens: 128,
            longest: 32,
        },
        threads: Some(2),
        calibrator: None,
        device: Device::Cpu,
    };
    let output = Output::new(scratch.path().join("out"));
    let mut written = 0;
    let mut on_calibration = |progress| {
        if let CalibratedProgress::Writing(done, _) = progress {
            written = done;
        }
    };
    quantize_calibrated(
        &source,
        &recipe(3, 1),
        &chosen,
        &output,
        &mut on_calibration,
        &mut |_| {},
    )
    .unwrap();
    assert!(written >= 128 + 64, "{written} tokens");
    let card = std::fs::read_to_string(output.folder.join("README.md")).unwrap();
    assert!(card.contains("over its own writing, seeds 3 to "), "{card}");
}

fn golden(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../planish-model/tests/golden")
        .join(case)
        .join("plain")
}

/// Attention, latent attention, experts of all ways to be stored, recurrent layers, convolutions, columns before rows.
#[test]
fn every_kind_of_layer_is_packed_and_runs() {
    let cases = [
        "llama_tied",
        "gemma3_text",
        "mixtral",
        "olmoe",
        "qwen3_moe",
        "deepseek_v3",
        "granitemoehybrid_experts",
        "qwen3_next",
        "falcon_h1",
        "lfm2",
        "phi3_crossing",
        "gpt_neox",
        // Whose experts are not heard: their columns are stored as rows.
        "gpt_oss",
    ];
    let scratch = TempDir::new().unwrap();
    for case in cases {
        let source = Source::open_path(&golden(case)).unwrap();
        let vocabulary = source.architecture().unwrap().vocabulary as u32;
        let piece = |seed: u32| (0..24).map(|at| (seed * 31 + at * at * 7 + at) % vocabulary).collect();
        let recipe = Recipe {
            include_experts: true,
            ..Recipe::new(Target::Metal, Packing::checked(4, 8).unwrap())
        };
        let output = Output::new(scratch.path().join(case));
        let chosen = options((0..6).map(piece).collect(), 2);
        let report = quantize_calibrated(&source, &recipe, &chosen, &output, &mut |_| {}, &mut |_| {});
        let report = report.unwrap_or_else(|error| panic!("{case}: {error}"));
        assert!(report.packed > 0, "{case}");
        let gain = report
            .notes
            .iter()
            .find(|note| note.starts_with("the mean square error of the layers' outputs is"));
        assert!(gain.is_some(), "{case}: {:?}", report.notes);
        let judged = report.notes.iter().any(|note| note.contains("held-out tokens"));
        assert!(judged, "{case}: {:?}", report.notes);
        let builder = AutoModelForCausalLM::from_pretrained(output.folder.to_str().unwrap()).device(Device::Cpu);
        let logits = builder.load().unwrap().logits(&[1, 2, 3, 4]).unwrap();
        assert!(logits.iter().all(|logit| logit.is_finite()), "{case}");
        // Half of its rows are used twice.
        let latent = report
            .unseen
            .iter()
            .any(|name| name.contains("self_attn.kv_b_proj.weight"));
        assert_eq!(latent, case == "deepseek_v3", "{case}: {:?}", report.unseen);
    }
}

/// One token again and again goes to the same experts: the others are named and searched for.
#[test]
fn experts_that_see_nothing_are_named() {
    let scratch = TempDir::new().unwrap();
    let metal = (Target::Metal, 8);
    for (case, experts, (target, group)) in [
        ("mixtral", "block_sparse_moe.experts.{", metal),
        ("olmoe", "mlp.experts.{", metal),
        ("qwen3_moe", "mlp.experts.{", metal),
        // Whose experts' columns are stored as rows.
        ("gpt_oss", "mlp.experts.gate_up_proj", (Target::Mlx, 32)),
    ] {
        let source = Source::open_path(&golden(case)).unwrap();
        let recipe = Recipe {
            include_experts: true,
            ..Recipe::new(target, Packing::checked(4, group).unwrap())
        };
        let chosen = options(vec![vec![5; 48]; 3], 2);
        let [found, searched] =
            ["found", "searched"].map(|name| Output::new(scratch.path().join(format!("{case}-{name}"))));
        let report = quantize_calibrated(&source, &recipe, &chosen, &found, &mut |_| {}, &mut |_| {}).unwrap();
        quantize(&source, &recipe, &searched, &mut |_| {}).unwrap();
        assert!(
            report.unseen.iter().any(|name| name.contains(experts)),
            "{case}: {:?}",
            report.unseen
        );
        let note = report
            .notes
            .iter()
            .find(|note| note.starts_with("too little is known of what goes into `"));
        assert!(note.is_some(), "{case}: {:?}", report.notes);
        let card = std::fs::read_to_string(found.folder.join("README.md")).unwrap();
        for name in &report.unseen {
            assert!(card.contains(&format!("- `{name}`\n")), "{case}: {name} in {card}");
        }
        let (found, searched) = (tensors(&found.folder), tensors(&searched.folder));
        let same = found.iter().filter(|(name, data)| searched[*name] == **data).count();
        assert!(
            same > 0 && same < found.len(),
            "{case}: {same} of {} tensors as searched for",
            found.len()
        );
    }
}

/// Bytes of each tensor.
fn tensors(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let data = weights(folder);
    let (length, rest) = data.split_first_chunk::<8>().unwrap();
    let (header, rest) = rest.split_at(u64::from_le_bytes(*length) as usize);
    let header: BTreeMap<String, Value> = serde_json::from_slice(header).unwrap();
    let bytes = |tensor: &Value| {
        let [from, to] = [0, 1].map(|end| tensor["data_offsets"][end].as_u64().unwrap() as usize);
        rest[from..to].to_vec()
    };
    let named = header.iter().filter(|(name, _)| *name != "__metadata__");
    named.map(|(name, tensor)| (name.clone(), bytes(tensor))).collect()
}
