//! The tensors that llama.cpp expects of a model, with their shapes, by config.json: a file that it would not load is not written.

use serde_json::{Map, Value};

use super::keys::{count, head_dim, need};

/// Weights that every layer has.
const OF_LAYER: [&str; 9] = [
    "attn_norm",
    "attn_q",
    "attn_k",
    "attn_v",
    "attn_output",
    "ffn_norm",
    "ffn_gate",
    "ffn_up",
    "ffn_down",
];

/// Sizes of a model.
pub(super) struct Shapes {
    layers: usize,
    vocabulary: usize,
    hidden: usize,
    intermediate: usize,
    head_dim: usize,
    /// Of all heads together.
    queries: usize,
    keys: usize,
}

impl Shapes {
    pub fn of(config: &Map<String, Value>) -> Result<Shapes, String> {
        let heads = need(config, "num_attention_heads")?;
        let key_heads = count(config, "num_key_value_heads")?.unwrap_or(heads);
        let head_dim = head_dim(config)?;
        Ok(Shapes {
            layers: need(config, "num_hidden_layers")?,
            vocabulary: need(config, "vocab_size")?,
            hidden: need(config, "hidden_size")?,
            intermediate: need(config, "intermediate_size")?,
            head_dim,
            queries: heads * head_dim,
            keys: key_heads * head_dim,
        })
    }

    /// That a tensor, `stored` in the file, has the shape that config.json gives it.
    pub fn check(&self, stored: &str, name: &str, shape: &[usize]) -> Result<(), String> {
        let mut parts = stored.rsplit('.');
        let (part, module) = (parts.next(), parts.next().unwrap_or_default());
        if let Some(layer) = parts.next().and_then(|layer| layer.parse::<usize>().ok())
            && layer >= self.layers
        {
            let count = self.layers;
            return Err(format!("`{name}` is beyond the {count} layers of `num_hidden_layers`"));
        }
        let (rows, cols) = match module {
            "token_embd" | "output" => (self.vocabulary, Some(self.hidden)),
            "attn_q" => (self.queries, Some(self.hidden)),
            "attn_k" | "attn_v" => (self.keys, Some(self.hidden)),
            "attn_output" => (self.hidden, Some(self.queries)),
            "ffn_gate" | "ffn_up" => (self.intermediate, Some(self.hidden)),
            "ffn_down" => (self.hidden, Some(self.intermediate)),
            "attn_q_norm" | "attn_k_norm" => (self.head_dim, None),
            _ => (self.hidden, None),
        };
        let expected: Vec<usize> = match part {
            Some("weight") => std::iter::once(rows).chain(cols).collect(),
            _ => vec![rows],
        };
        match shape == expected {
            true => Ok(()),
            false => Err(format!("`{name}`: expected the shape {expected:?}, found {shape:?}")),
        }
    }

    /// That every weight is there.
    pub fn check_names(&self, has: impl Fn(&str) -> bool, tied: bool) -> Result<(), String> {
        let top = ["token_embd", "output_norm", "output"].into_iter();
        let top = top.filter(|&module| module != "output" || !tied).map(str::to_owned);
        let layers = (0..self.layers).flat_map(|layer| OF_LAYER.map(|module| format!("blk.{layer}.{module}")));
        let missing = top
            .chain(layers)
            .map(|module| format!("{module}.weight"))
            .find(|name| !has(name));
        missing.map_or(Ok(()), |name| {
            Err(format!("the model lacks the tensor that is `{name}` in GGUF"))
        })
    }
}
