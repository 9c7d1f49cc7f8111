//! Tensors of Hugging Face that a file has in parts, by the rules for mlx-lm's parts, and those of Qwen3-Next.

use serde_json::{Map, Value};

use crate::assemble::PartsByName;
use crate::mlx::{GRANITE_DOWN, GRANITE_EXPERTS, How, Model, rule};
use crate::order::natural_order;
use crate::{Entry, Layout, Part, View};

/// Keys of the latent vectors, transposed, and values.
pub(super) static LATENT: Model = Model {
    model_types: &[],
    prefixes: &[],
    dropped: &[],
    rules: &[rule(
        How::KeysAndValues,
        "self_attn.kv_b_proj",
        &["self_attn.embed_q", "self_attn.unembed_out"],
    )],
};

/// Gate and up of experts, and of the shared block beside them.
pub(super) static GRANITE: Model = Model {
    model_types: &[],
    prefixes: &[],
    dropped: &[],
    rules: &[
        GRANITE_EXPERTS,
        GRANITE_DOWN,
        rule(
            How::Halves,
            "shared_mlp.input_linear",
            &["shared_mlp.gate_proj", "shared_mlp.up_proj"],
        ),
    ],
};

/// Inputs of Qwen3-Next's delta nets, which hold what each key head has in turn: its query, its key, values and gates. `None` where
/// there are no such parts.
pub(super) fn delta_inputs(config: &Map<String, Value>, stored: &[Entry]) -> Option<(Vec<Entry>, PartsByName)> {
    const PARTS: [&str; 4] = ["q", "k", "v", "z"];
    let heads = config.get("linear_num_key_heads").and_then(Value::as_u64)? as usize;
    let mut joined = PartsByName::new();
    let mut entries = Vec::new();
    for entry in stored {
        let Some((before, letter)) = entry
            .name
            .strip_suffix(".weight")
            .and_then(|name| name.split_once(".in_proj_"))
        else {
            entries.push(entry.clone());
            continue;
        };
        let find = |letter: &str| {
            let name = format!("{before}.in_proj_{letter}.weight");
            stored.iter().position(|other| other.name == name)
        };
        let found: Option<Vec<usize>> = PARTS.iter().map(|letter| find(letter)).collect();
        let Some(found) = found.filter(|_| PARTS.contains(&letter)) else {
            entries.push(entry.clone());
            continue;
        };
        if letter != PARTS[0] {
            continue;
        }
        let parts = found.iter().map(|&entry| {
            let rows = stored[entry].rows_cols().0;
            let view = View::of_blocks(rows / heads, 0..rows / heads);
            rows.is_multiple_of(heads).then_some(Part { entry, view })
        });
        let all = || found.iter().map(|&index| &stored[index]);
        if all().any(|other| other.rows_cols().1 != entry.rows_cols().1) {
            return None;
        }
        let entry = Entry {
            name: format!("{before}.in_proj_qkvz.weight"),
            shape: vec![all().map(|entry| entry.rows_cols().0).sum(), entry.rows_cols().1],
            layout: joined_layout(all().map(|entry| &entry.layout))?,
            stored_bytes: all().map(|entry| entry.stored_bytes).sum(),
        };
        joined.insert(entry.name.clone(), parts.collect::<Option<_>>()?);
        entries.push(entry);
    }
    entries.sort_by(|left, right| natural_order(&left.name, &right.name));
    (!joined.is_empty()).then_some((entries, joined))
}

/// That of all where they are alike, else floats.
fn joined_layout<'a>(mut layouts: impl Iterator<Item = &'a Layout> + Clone) -> Option<Layout> {
    let mut others = layouts.clone();
    let first = layouts.next()?;
    match others.all(|other| other == first) {
        true => Some(first.clone()),
        false => Some(Layout::Plain(planish_format::FloatType::F32.into())),
    }
}
