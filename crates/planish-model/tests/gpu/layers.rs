//! One layer at a time on a device: what comes out and what is heard are the processor's.

use std::collections::HashMap;

use planish_checkpoint::Checkpoint;
use planish_format::{FloatMatrix, FloatType, PackedMatrix, Packing, quantize};
use planish_model::{Device, Heard, LayerRunner, Origin};

use crate::common::folder;
use crate::emulated::EmulatedQueue;

/// More rows than a block of keys has.
const TOKENS: usize = 70;
const PACKED: &str = "model.layers.0.self_attn.k_proj.weight";

fn close(found: &[f32], expected: &[f32]) -> bool {
    let largest = expected.iter().fold(0.0f32, |most, value| most.max(value.abs()));
    let pairs = found.iter().zip(expected);
    found.len() == expected.len() && pairs.into_iter().all(|(a, b)| (a - b).abs() < 1e-4 * largest)
}

#[test]
fn layers_of_the_device_are_those_of_the_processor() {
    let checkpoint = Checkpoint::open(&folder("llama_tied/plain")).unwrap();
    let processor = LayerRunner::new(&checkpoint, Some(2), Device::Cpu).unwrap();
    let device = LayerRunner::on(&checkpoint, EmulatedQueue).unwrap();
    let vocabulary = processor.architecture().vocabulary as u32;
    let tokens: Vec<u32> = (0..TOKENS as u32).map(|at| (at * 37 + 5) % vocabulary).collect();
    let entry = checkpoint.entry(PACKED).unwrap();
    let (rows, cols) = entry.rows_cols();
    let values: Vec<u8> = (0..rows * cols)
        .flat_map(|at| ((at * 29 % 64) as f32 / 640.0 - 0.05).to_le_bytes())
        .collect();
    let matrix = FloatMatrix::new(rows, cols, FloatType::F32, &values).unwrap();
    let encoder = planish_format::Encoder::Transformers;
    let packed = quantize(matrix, Packing::new(4, 8).unwrap(), encoder).unwrap();
    let replaced = HashMap::from([(PACKED.to_owned(), packed)]);
    let run = |runner: &LayerRunner<'_>, replaced: &HashMap<String, PackedMatrix>| -> (Vec<f32>, Vec<Heard>) {
        let hidden = runner
            .embed(std::slice::from_ref(&tokens), &HashMap::new())
            .unwrap()
            .remove(0);
        let mut layer = runner.load(0, replaced).unwrap();
        // The sequence that was there before is forgotten.
        runner.run(&mut layer, &hidden, &|_| false).unwrap();
        let wanted = |origin: &Origin| !origin.entry.contains("v_proj");
        let (found, heard) = runner.run(&mut layer, &hidden, &wanted).unwrap();
        // Heard alone, without the steps that follow.
        let early = |origin: &Origin| wanted(origin) && origin.entry.contains("self_attn");
        let alone = runner.hear(&mut layer, &hidden, &early).unwrap();
        alone.iter().zip(&heard).for_each(|(alone, heard)| {
            assert_eq!((&alone.origins, &alone.rows), (&heard.origins, &heard.rows));
        });
        assert!(!alone.is_empty() && alone.len() < heard.len());
        (found, heard)
    };
    for replaced in [HashMap::new(), replaced] {
        let (expected, all) = run(&processor, &replaced);
        let (found, heard) = run(&device, &replaced);
        assert!(close(&found, &expected));
        assert_eq!(heard.len(), all.len());
        for (heard, expected) in heard.iter().zip(&all) {
            assert_eq!(heard.origins, expected.origins);
            assert!(close(&heard.rows, &expected.rows), "{:?}", heard.origins);
        }
        let mut rows = Vec::new();
        device
            .logits(&found, &mut |_, logits| rows.push(logits.to_vec()))
            .unwrap();
        processor
            .logits(&expected, &mut |row, logits| assert!(close(&rows[row], logits)))
            .unwrap();
        assert_eq!(rows.len(), TOKENS);
    }
}
