//! Whole conversions whose codes a device searches for: the files are the processor's.

use std::sync::Arc;

use planish_checkpoint::Checkpoint;
use planish_format::{FloatType, Packing};
use planish_kernels::GpuOps;
use planish_quantize::{Output, Recipe, Target, quantize};

use crate::common::folder;
use crate::emulated::{self, EmulatedQueue};

#[test]
fn files_of_the_device_equal_those_of_the_processor() {
    let checkpoint = Checkpoint::open(&folder("llama_tied/plain")).unwrap();
    let place = tempfile::tempdir().unwrap();
    let recipe = Recipe {
        exclude: ["mlp", "q_proj", "o_proj"].map(str::to_owned).to_vec(),
        ..Recipe::new(Target::Metal, Packing::new(4, 16).unwrap())
    };
    let searcher = Arc::new(GpuOps::new(EmulatedQueue, FloatType::F32).unwrap());
    let on_device = Recipe {
        searcher: Some(searcher),
        ..recipe.clone()
    };
    let file = |name: &str, recipe: &Recipe| {
        let output = Output::new(place.path().join(name));
        quantize(&checkpoint, recipe, &output, &mut |_| {}).unwrap();
        std::fs::read(output.folder.join("model.safetensors")).unwrap()
    };
    assert!(file("processor", &recipe) == file("device", &on_device));
    assert!(emulated::has_compiled("search_groups"));
}
