//! Checkpoints that transformers and mlx-lm saved, made by scripts/golden/checkpoints.py.

use std::collections::BTreeMap;
use std::path::Path;

use planish_checkpoint::{Checkpoint, Layout, Weight};

/// Shape of an entry, and bits and group if it is packed.
type Kind = (Vec<usize>, Option<(u32, usize)>);

/// Opens a golden folder and compares the first row of every packed weight with the peer's.
fn check(name: &str) -> BTreeMap<String, Kind> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    let checkpoint = Checkpoint::open(&folder).unwrap_or_else(|error| panic!("{error}"));
    let expected = checkpoint.file("expected.json").unwrap().unwrap();
    let mut expected: BTreeMap<String, Vec<f32>> = serde_json::from_slice(&expected).unwrap();
    let mut found = BTreeMap::new();
    for entry in checkpoint.entries() {
        let packing = match entry.layout {
            Layout::Packed { packing, .. } => Some((packing.bits(), packing.group())),
            _ => None,
        };
        if let Weight::Packed(matrix) = checkpoint.read(entry).unwrap() {
            let row = expected
                .remove(&entry.name)
                .unwrap_or_else(|| panic!("{} is not packed", entry.name));
            let mut ours = vec![0.0; matrix.cols];
            matrix.dequantize_row(0, &mut ours);
            assert_eq!(ours.len(), row.len());
            for (ours, theirs) in ours.iter().zip(&row) {
                assert!(
                    (ours - theirs).abs() <= 1e-6 * theirs.abs().max(0.1),
                    "{}: {ours} {theirs}",
                    entry.name
                );
            }
        }
        found.insert(entry.name.clone(), (entry.shape.clone(), packing));
    }
    assert!(expected.is_empty(), "packed for the peer only: {:?}", expected.keys());
    found
}

#[test]
fn metal_of_transformers() {
    let found = check("metal");
    let layer = |name: &str| &found[&format!("model.layers.0.{name}")];
    assert_eq!(layer("mlp.down_proj.weight"), &(vec![32, 64], Some((4, 32))));
    assert_eq!(
        layer("self_attn.q_proj.bias"),
        &(vec![32], None),
        "the layer's own bias"
    );
    assert_eq!(found["lm_head.weight"], (vec![16, 32], None));
    assert_eq!(found["model.embed_tokens.weight"], (vec![16, 32], None));
    assert_eq!(found.len(), 7 + 4 + 2 + 3);
}

#[test]
fn mixed_of_mlx_lm() {
    let found = check("mlx");
    let layer = |name: &str| &found[&format!("model.layers.0.{name}.weight")];
    assert_eq!(layer("mlp.down_proj"), &(vec![32, 64], Some((6, 64))));
    assert_eq!(layer("self_attn.v_proj"), &(vec![16, 32], Some((8, 32))));
    assert_eq!(layer("self_attn.o_proj"), &(vec![32, 32], None));
    assert_eq!(found["model.embed_tokens.weight"], (vec![16, 32], Some((3, 32))));
    assert_eq!(found.len(), 7 + 1 + 3);
}
