//! Who listens to products hears every linear layer, expert and head of every golden family, with the rows that went through it.

mod common;
#[path = "common/golden.rs"]
mod golden;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};

use common::{exact, folder, load};
use golden::{Golden, error, run};
use planish_checkpoint::Checkpoint;
use planish_format::Packing;
use planish_model::{Architecture, BlockSpec, LoadOptions, Origin, StackPlace, Tap};
use planish_quantize::{Recipe, Target};

/// Rows and sums of squares of each origin.
#[derive(Debug, Default)]
struct Listener {
    origins: Mutex<HashMap<usize, Origin>>,
    heard: Mutex<BTreeMap<Origin, (usize, Vec<f64>)>>,
    unknown: Mutex<BTreeSet<usize>>,
}

impl Tap for Listener {
    fn name(&self, weight: usize, origin: Origin) {
        assert!(origin.part < origin.parts);
        self.origins.lock().unwrap().insert(weight, origin);
    }

    fn inputs(&self, weight: usize, values: &[f32], cols: usize) {
        assert!(values.iter().all(|value| value.is_finite()));
        let Some(origin) = self.origins.lock().unwrap().get(&weight).cloned() else {
            self.unknown.lock().unwrap().insert(weight);
            return;
        };
        let mut heard = self.heard.lock().unwrap();
        let (rows, sums) = heard.entry(origin).or_insert_with(|| (0, vec![0.0; cols]));
        for row in values.chunks_exact(cols) {
            *rows += 1;
            sums.iter_mut()
                .zip(row)
                .for_each(|(sum, value)| *sum += f64::from(value * value));
        }
    }
}

/// What was heard while a case's prompt and steps were computed, with logits for every token.
fn listen(case: &str, threads: usize) -> BTreeMap<Origin, (usize, Vec<f64>)> {
    let listener = Arc::new(Listener::default());
    let golden = Golden::read(case);
    let options = LoadOptions {
        tap: Some(listener.clone()),
        threads: Some(threads),
        ..exact()
    };
    let mut model = load(case, options);
    let (prefill, steps) = run(&mut model, &golden);
    assert!(
        error(&prefill, &golden.prefill) < 1e-4,
        "{case}: listening changes nothing"
    );
    assert!(error(&steps, &golden.steps) < 1e-4, "{case}: listening changes nothing");
    assert!(
        has_turned(model.architecture()) || listener.unknown.lock().unwrap().is_empty(),
        "{case}: a weight without an origin"
    );
    std::mem::take(&mut *listener.heard.lock().unwrap())
}

/// Those whose weights are stored with columns as rows, so that no rows of an entry stand for an output.
const TURNED: [&str; 4] = ["gpt2", "gpt2_scaled", "gpt_oss", "openai_gpt"];

/// Whether some matrices are stored with columns as rows, as latent attention's for queries are.
fn has_turned(architecture: &Architecture) -> bool {
    let turned = |place: &StackPlace| {
        matches!(
            place,
            StackPlace::Columns(_) | StackPlace::Transposed(_) | StackPlace::Mxfp4(_)
        )
    };
    let mut blocks = architecture.layers.iter().flat_map(|layer| layer.blocks());
    blocks.any(|block| match block {
        BlockSpec::LatentAttention(_) => true,
        BlockSpec::Experts(experts) => experts.down.places.iter().any(turned),
        _ => false,
    })
}

/// What belongs to encoders of images and sound, or chooses what layers see: it does not run.
const UNREAD: [&str; 9] = [
    "vision_model.",
    "vision_tower.",
    "multi_modal_projector.",
    "visual.",
    "embed_vision.",
    "embed_tokens_extend.",
    "mm_projector.",
    "vision_embedder.",
    "indexer.",
];

#[test]
fn every_packed_weight_of_every_family_is_heard() {
    let mut cases: Vec<String> = std::fs::read_dir(folder(""))
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_type().unwrap().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    cases.sort();
    for case in cases.iter().filter(|case| !TURNED.contains(&case.as_str())) {
        let name = format!("{case}/plain");
        let checkpoint = Checkpoint::open(&folder(&name)).unwrap();
        let mut recipe = Recipe::new(Target::Metal, Packing::new(4, 8).unwrap());
        (recipe.include_experts, recipe.include_head) = (true, checkpoint.entry("lm_head.weight").is_some());
        let plan = recipe.plan(checkpoint.config(), checkpoint.entries()).unwrap();
        let heard = listen(&name, 1);
        let entries: BTreeSet<&str> = heard.keys().map(|origin| origin.entry.as_str()).collect();
        let packed = plan
            .packings()
            .into_keys()
            .map(|index| checkpoint.entries()[index].name.as_str());
        let is_unread = |entry: &str| UNREAD.iter().any(|part| entry.contains(part));
        // An expert that no row chose is not heard, the others of its layer are.
        let heard_beside = |entry: &str| {
            let experts = entry
                .split_once(".experts.")
                .map(|(layer, _)| format!("{layer}.experts."));
            experts.is_some_and(|experts| entries.iter().any(|entry| entry.starts_with(&experts)))
        };
        let turned = has_turned(&Architecture::of(&checkpoint).unwrap());
        let missing: Vec<&str> = packed
            .filter(|entry| !turned || !entry.contains(".experts."))
            .filter(|entry| !entries.contains(entry) && !heard_beside(entry) && !is_unread(entry))
            .collect();
        assert!(missing.is_empty(), "{case}: nothing was heard of {missing:?}");
        for (origin, (rows, sums)) in &heard {
            let entry = checkpoint.entry(&origin.entry).unwrap();
            assert_eq!(entry.shape.last(), Some(&sums.len()), "{case}: columns of {origin:?}");
            assert!(*rows > 0 && sums.iter().any(|sum| *sum > 0.0), "{case}: {origin:?}");
        }
    }
}

/// Query, key and value, and gate and up, read the same; experts hear as many rows in all as the router chose.
#[test]
fn rows_are_those_that_went_through() {
    let tokens = Golden::read("mixtral/plain").tokens.len();
    let heard = listen("mixtral/plain", 1);
    let of = |part: &str| -> Vec<(usize, &[f64])> {
        let layer = heard
            .iter()
            .filter(|(origin, _)| origin.entry.contains("layers.0.") && origin.entry.contains(part));
        layer.map(|(_, (rows, sums))| (*rows, &sums[..])).collect()
    };
    let [query] = of("q_proj")[..] else { panic!("one query") };
    assert_eq!(query.0, tokens);
    assert_eq!([query], of("k_proj")[..]);
    assert_eq!([query], of("v_proj")[..]);
    let [gate, up, down] = ["w1", "w3", "w2"].map(of);
    assert_eq!(gate, up);
    let rows = |heard: &[(usize, &[f64])]| heard.iter().map(|(rows, _)| rows).sum::<usize>();
    let chosen = Checkpoint::open(&folder("mixtral/plain")).unwrap().config()["num_experts_per_tok"]
        .as_u64()
        .unwrap() as usize;
    assert_eq!((rows(&up), rows(&down)), (tokens * chosen, tokens * chosen));
}

#[test]
fn threads_do_not_matter() {
    for case in ["mixtral/plain", "deepseek_v3/plain", "falcon_h1/plain"] {
        assert_eq!(listen(case, 1), listen(case, 2), "{case}");
    }
}
