//! A weight that is tried in another form changes the logits as it does in a model that is loaded with it, in every golden family,
//! and what was tried leaves no trace.

#[path = "common/files.rs"]
mod files;

use std::collections::HashMap;

use files::{exact, folder};
use planish_checkpoint::Checkpoint;
use planish_format::Packing;
use planish_model::{LoadOptions, Model, Trials};
use planish_quantize::{Recipe, Target};

/// Cases that the metal rules pack nothing of: their columns are stored as rows.
const UNPACKED: [&str; 3] = ["gpt2", "gpt_oss", "openai_gpt"];
/// Entries of a case that are tried.
const TRIED: usize = 2;

/// The bits of the logits after all tokens of all pieces.
fn logits_of(model: &mut Model, pieces: &[Vec<u32>]) -> Vec<u32> {
    let mut all = Vec::new();
    for piece in pieces {
        let mut cache = model.cache(piece.len());
        let mut each = |_, logits: &[f32]| all.extend(logits.iter().map(|logit| logit.to_bits()));
        model.forward_all(piece, &mut cache, &mut each).unwrap();
    }
    all
}

fn one_thread() -> LoadOptions {
    LoadOptions {
        threads: Some(1),
        ..exact()
    }
}

/// The recipe that packs this entry alone.
fn alone(recipe: &Recipe, names: &[String], name: &str) -> Recipe {
    let others = names.iter().filter(|other| *other != name);
    let module = |name: &String| format!("^{}$", name.strip_suffix(".weight").unwrap_or(name));
    Recipe {
        exclude: others.map(module).collect(),
        ..recipe.clone()
    }
}

fn check(case: &str) {
    let checkpoint = Checkpoint::open(&folder(case)).unwrap();
    let mut model = Model::load(&checkpoint, &one_thread()).unwrap();
    let vocabulary = model.architecture().vocabulary;
    let tokens: Vec<u32> = (0..14)
        .map(|index| (17 * index * index + 5) % vocabulary as u32)
        .collect();
    // Two pieces of different lengths: what the first leaves in caches and states is not the second's.
    let pieces = [tokens.clone(), tokens[..6].to_vec()];
    let plain = logits_of(&mut model, &pieces);
    let mut trials = Trials::new(&checkpoint, &one_thread(), &pieces).unwrap();
    let mut found = Vec::new();
    trials
        .reference(&mut |row| found.extend(row.logits.iter().map(|logit| logit.to_bits())))
        .unwrap();
    assert!(found == plain, "{case}: the model as it is");

    let packing = Packing::new(8, 8).unwrap();
    let mut recipe = Recipe::new(Target::Metal, Packing::new(4, 8).unwrap());
    (recipe.include_experts, recipe.include_head) = (true, checkpoint.entry("lm_head.weight").is_some());
    let Ok(plan) = recipe.plan(checkpoint.config(), checkpoint.entries()) else {
        assert!(
            UNPACKED.iter().any(|start| case.starts_with(start)),
            "{case}: packs nothing"
        );
        return;
    };
    let names: Vec<String> = {
        let mut packed: Vec<usize> = plan.packings().into_keys().collect();
        packed.sort_unstable();
        packed
            .into_iter()
            .map(|index| checkpoint.entries()[index].name.clone())
            .collect()
    };
    let place = |trials: &Trials<'_>, name: &String| trials.place(&[name]);
    let mut read: Vec<&String> = names.iter().filter(|name| place(&trials, name).is_some()).collect();
    read.sort_by_key(|name| place(&trials, name));
    assert!(!read.is_empty(), "{case}: nothing is read");
    let step = (read.len() / TRIED).max(1);
    let tried: Vec<&String> = read.iter().step_by(step).copied().collect();
    // Rising, and back to the first.
    for name in tried.iter().chain(tried.first()) {
        let alone = alone(&recipe, &names, name);
        let options = LoadOptions {
            quantize: Some(alone.clone()),
            ..one_thread()
        };
        let mut expected_model = Model::load(&checkpoint, &options).unwrap();
        let expected = logits_of(&mut expected_model, &pieces);
        let mut found = Vec::new();
        let packings = HashMap::from([((*name).clone(), recipe.packing)]);
        let mut each = |row: planish_model::Row<'_>| found.extend(row.logits.iter().map(|logit| logit.to_bits()));
        trials.run(&recipe, packings, &mut each).unwrap();
        assert!(found == expected, "{case}: {name} alone");
        // An expert that no token chose changes nothing.
        let differs = found != plain || name.contains(".experts.");
        assert!(differs, "{case}: {name} changes nothing");
    }
    // Another width is another change, and the model is as it was.
    let mut others = Vec::new();
    let packings = HashMap::from([(tried[0].clone(), packing)]);
    trials
        .run(&recipe, packings, &mut |row| others.extend_from_slice(row.logits))
        .unwrap();
    let mut after = Vec::new();
    trials
        .reference(&mut |row| after.extend(row.logits.iter().map(|logit| logit.to_bits())))
        .unwrap();
    assert!(after == plain, "{case}: the trials left a trace");
    let differs = others
        .iter()
        .zip(&plain)
        .any(|(other, plain)| other.to_bits() != *plain);
    let differs = differs || tried[0].contains(".experts.");
    assert!(differs, "{case}: {} in 8 bits changes nothing", tried[0]);
}

#[test]
fn every_family_can_be_tried_part_by_part() {
    let mut cases: Vec<String> = std::fs::read_dir(folder(""))
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_type().unwrap().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    cases.sort();
    assert!(cases.len() > 80, "only {} cases", cases.len());
    cases.iter().for_each(|case| check(&format!("{case}/plain")));
}

#[test]
fn a_piece_that_cannot_be_run_is_refused() {
    let checkpoint = Checkpoint::open(&folder("llama_tied/plain")).unwrap();
    let error = Trials::new(&checkpoint, &one_thread(), &[vec![1, 9_999_999]])
        .err()
        .unwrap();
    assert!(error.to_string().contains("9999999"), "{error}");
    assert!(Trials::new(&checkpoint, &one_thread(), &[vec![]]).is_err());
}
