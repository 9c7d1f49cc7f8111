//! tokenizer_config.json (special tokens, chat template) and generation_config.json (where generation stops).

use serde_json::{Map, Value, json};

use super::super::fault::Fault;
use super::super::metadata::Metadata;
use super::vocabulary::{Vocabulary, special_id};

const TEMPLATE: &str = "tokenizer.chat_template";

/// tokenizer_config.json for the class that reads any tokenizer.json.
pub(super) fn tokenizer_config(metadata: &Metadata, vocabulary: &Vocabulary) -> Result<Value, Fault> {
    let mut config = Map::new();
    let mut set = |key: &str, value: Value| drop(config.insert(key.into(), value));
    set("tokenizer_class", json!("PreTrainedTokenizerFast"));
    set("add_bos_token", json!(vocabulary.add_bos));
    set("add_eos_token", json!(vocabulary.add_eos));
    set("bos_token", json!(vocabulary.text(vocabulary.bos)));
    set("eos_token", json!(vocabulary.text(vocabulary.eos)));
    set("unk_token", json!(vocabulary.text(vocabulary.unknown)));
    set("pad_token", json!(vocabulary.text(vocabulary.padding)));
    set("clean_up_tokenization_spaces", json!(false));
    if let Some(architecture) = metadata.text("general.architecture")? {
        set(
            "model_max_length",
            json!(metadata.count(&format!("{architecture}.context_length"))?),
        );
    }
    set("added_tokens_decoder", added_tokens(vocabulary));
    if let Some(template) = chat_template(metadata)? {
        set("chat_template", template);
    }
    Ok(Value::Object(config))
}

fn added_tokens(vocabulary: &Vocabulary) -> Value {
    let added = (0..vocabulary.tokens.len()).filter(|&id| vocabulary.is_added(id));
    let described = added.map(|id| {
        let token = json!({
            "content": vocabulary.tokens[id], "lstrip": false, "normalized": false, "rstrip": false, "single_word": false,
            "special": vocabulary.is_special(id),
        });
        (id.to_string(), token)
    });
    Value::Object(described.collect())
}

/// One template is a string; several are a list of names and templates, as transformers has it.
fn chat_template(metadata: &Metadata) -> Result<Option<Value>, Fault> {
    let default = metadata.text(TEMPLATE)?;
    let names = metadata.texts("tokenizer.chat_templates")?.unwrap_or_default();
    let mut templates: Vec<Value> = Vec::new();
    for name in names {
        let key = format!("{TEMPLATE}.{name}");
        let template = metadata.need(&key, metadata.text(&key)?)?;
        templates.push(json!({ "name": name, "template": template }));
    }
    match default {
        Some(default) if templates.is_empty() => Ok(Some(json!(default))),
        Some(default) => {
            templates.insert(0, json!({ "name": "default", "template": default }));
            Ok(Some(Value::Array(templates)))
        }
        None => Ok((!templates.is_empty()).then_some(Value::Array(templates))),
    }
}

/// Control tokens that end a turn or a text in the models that have them.
const ENDS: [&str; 7] = [
    "<|eot_id|>",
    "<|eom_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|end_of_text|>",
];

/// generation_config.json: begin, end and padding tokens.
pub(super) fn generation_config(metadata: &Metadata, vocabulary: &Vocabulary) -> Result<Value, Fault> {
    let mut ends: Vec<usize> = vocabulary.eos.into_iter().collect();
    for name in ["eot", "eom"] {
        ends.extend(special_id(metadata, name, vocabulary.tokens.len())?);
    }
    let by_text = ENDS.iter().filter_map(|token| vocabulary.ids.get(token).copied());
    ends.extend(by_text.filter(|&id| vocabulary.is_special(id)));
    let mut seen = std::collections::HashSet::new();
    ends.retain(|id| seen.insert(*id));

    let mut config = Map::new();
    if let Some(bos) = vocabulary.bos {
        config.insert("bos_token_id".into(), json!(bos));
    }
    match ends[..] {
        [] => {}
        [one] => drop(config.insert("eos_token_id".into(), json!(one))),
        _ => drop(config.insert("eos_token_id".into(), json!(ends))),
    }
    if let Some(padding) = vocabulary.padding {
        config.insert("pad_token_id".into(), json!(padding));
    }
    Ok(Value::Object(config))
}
