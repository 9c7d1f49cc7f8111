//! Checkpoints whose config ties the output head to the embedding, and that store a head all the same. transformers computes with the
//! stored one, mlx-lm with the embedding: where both are equal one of them is enough, and where they differ a config for MLX must not
//! say that they are tied.

use planish_checkpoint::{Checkpoint, Entry, Weight};
use serde_json::{Map, Value};

use crate::layers::{Classifier, Role};
use crate::plan::OutputTensor;
use crate::{Error, Target};

const KEY: &str = "tie_word_embeddings";

/// Whether the config says so; that of a language model in another counts where the outer says nothing.
pub(crate) fn is_tied(config: &Map<String, Value>) -> bool {
    let says = |config: &Map<String, Value>| config.get(KEY).and_then(Value::as_bool);
    let text = config.get("text_config").and_then(Value::as_object);
    says(config).or_else(|| says(text?)).unwrap_or(false)
}

/// A head that is stored though it is tied.
pub(crate) enum StoredHead {
    /// There is none.
    None,
    /// The same values as the embedding: the index of its entry.
    Same(usize),
    /// Other values.
    Other,
}

impl StoredHead {
    /// Looks for it, and compares it with the embedding.
    pub(crate) fn of(checkpoint: &Checkpoint) -> Result<StoredHead, Error> {
        if !is_tied(checkpoint.config()) {
            return Ok(StoredHead::None);
        }
        let entries = checkpoint.entries();
        let classifier = Classifier::new(checkpoint.config(), entries);
        let of_role = |role: Role| {
            entries
                .iter()
                .enumerate()
                .filter(move |(_, entry)| classifier.role(entry) == role)
        };
        let heads = of_role(Role::Head);
        let classifier = Classifier::new(checkpoint.config(), entries);
        for (index, head) in heads {
            let mut tables = entries
                .iter()
                .filter(|entry| classifier.role(entry) == Role::Embedding && entry.shape == head.shape);
            let Some(table) = tables.next() else { continue };
            return Ok(match same(checkpoint, head, table)? {
                true => StoredHead::Same(index),
                false => StoredHead::Other,
            });
        }
        Ok(StoredHead::None)
    }

    /// Leaves out a head that is a copy.
    pub(crate) fn drop_copy(&self, tensors: &mut Vec<OutputTensor>) {
        if let StoredHead::Same(index) = self {
            tensors.retain(|tensor| tensor.parts.iter().any(|part| part.entry != *index));
        }
    }

    /// The config for this target: one for MLX says what is computed.
    pub(crate) fn config(&self, mut config: Map<String, Value>, target: Target) -> Map<String, Value> {
        if let (StoredHead::Other, Target::Mlx) = (self, target) {
            if let Some(Value::Object(text)) = config.get_mut("text_config")
                && text.contains_key(KEY)
            {
                text.insert(KEY.to_owned(), false.into());
            }
            config.insert(KEY.to_owned(), false.into());
        }
        config
    }
}

fn same(checkpoint: &Checkpoint, left: &Entry, right: &Entry) -> Result<bool, Error> {
    let equal = match (checkpoint.read(left)?, checkpoint.read(right)?) {
        (Weight::Plain(left), Weight::Plain(right)) => left.dtype == right.dtype && left.data == right.data,
        (Weight::Packed(left), Weight::Packed(right)) => {
            let kind = (left.packing, left.scale_type) == (right.packing, right.scale_type);
            kind && left.codes == right.codes && left.scales == right.scales && left.biases == right.biases
        }
        _ => false,
    };
    checkpoint.release(left);
    checkpoint.release(right);
    Ok(equal)
}
