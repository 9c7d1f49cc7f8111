//! Which programs can read a packed checkpoint, where it is not simply the dialect's own library.

use planish_checkpoint::Checkpoint;
use serde_json::{Map, Value};

use crate::layers::{Classifier, Role};
use crate::{Error, Plan, Remedy, Target, mlx_models};

/// What the user should know of the loaders of the output, one sentence each.
pub(crate) fn notes(target: Target, checkpoint: &Checkpoint, plan: &Plan) -> Vec<String> {
    let model_type = checkpoint
        .config()
        .get("model_type")
        .and_then(Value::as_str)
        .unwrap_or("unknown");
    match target {
        Target::Mlx if !mlx_models::has(model_type) => vec![format!(
            "mlx-lm 0.32 has no model of the type `{model_type}`: planish reads this checkpoint, mlx-lm does not"
        )],
        Target::Mlx => Vec::new(),
        Target::Metal => packed_experts(checkpoint, plan).into_iter().collect(),
    }
}

fn packed_experts(checkpoint: &Checkpoint, plan: &Plan) -> Option<String> {
    let entries = checkpoint.entries();
    let classifier = Classifier::new(checkpoint.config(), entries);
    let packings = plan.packings();
    let mut packed = (0..entries.len()).filter(|index| packings.contains_key(index));
    let expert = packed.find(|&index| classifier.role(&entries[index]) == Role::Expert)?;
    let stacked = entries[expert].shape.len() == 3;
    let who = match stacked {
        true => "planish reads them, transformers does not",
        false => {
            "planish reads them, and so does transformers where it unpacks while loading, which is everywhere but on Apple GPUs"
        }
    };
    Some(format!("the experts are packed: {who}"))
}

/// Refuses what would load and compute something else.
///
/// # Errors
/// [`Error::Inexpressible`].
pub(crate) fn check(target: Target, config: &Map<String, Value>) -> Result<(), Error> {
    let is_falcon_h1 = config.get("model_type").and_then(Value::as_str) == Some("falcon_h1");
    if target == Target::Metal || !is_falcon_h1 {
        return Ok(());
    }
    let is_one = |value: &Value| value.as_f64().is_none_or(|value| value == 1.0);
    let all_one = |value: &Value| {
        value
            .as_array()
            .map_or(is_one(value), |values| values.iter().all(is_one))
    };
    let multiplier = config
        .iter()
        .find(|(key, value)| (key.contains("multiplier")) && !all_one(value));
    match multiplier {
        None => Ok(()),
        Some((key, value)) => {
            let what = format!(
                "mlx-lm multiplies `{key}` = {value} into float weights of Falcon-H1 as it loads them, and expects packed ones \
                 to be so already, which planish does not do: use mlx_lm.convert"
            );
            Err(Error::inexpressible(what, Remedy::Dialect(Target::Metal)))
        }
    }
}
