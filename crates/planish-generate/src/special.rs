//! The special tokens that `tokenizer_config.json` names: text such as `<s>`, each with its role such as `bos_token`.

use std::collections::HashSet;

use serde_json::{Map, Value};
use tokenizers::AddedToken;

use crate::Error;
use crate::files::{Files, parse_object};

/// Roles and texts, in the order of the file: what a chat template sees as `bos_token`, `eos_token` and so on.
#[derive(Clone, Debug, Default)]
pub(crate) struct SpecialTokens {
    /// Role, text.
    pub roles: Vec<(String, String)>,
    /// Tokens that `tokenizer.json` may lack, ordered as transformers adds them.
    pub added: Vec<AddedToken>,
    /// Those of them that `tokenizer_config.json` lists with ids.
    pub listed: Vec<(u32, AddedToken)>,
    /// Their texts.
    known: HashSet<String>,
}

impl SpecialTokens {
    /// Reads `tokenizer_config.json`; `special_tokens_map.json` counts only where that has no `added_tokens_decoder`.
    pub fn read(files: &Files) -> Result<SpecialTokens, Error> {
        const FILE: &str = "tokenizer_config.json";
        let mut config = parse_object(FILE, files.tokenizer_config.as_deref())?;
        if !config.contains_key("added_tokens_decoder") {
            config.extend(parse_object(
                "special_tokens_map.json",
                files.special_tokens_map.as_deref(),
            )?);
        }
        let mut tokens = SpecialTokens::default();
        if let Some(decoder) = config.get("added_tokens_decoder").and_then(Value::as_object) {
            tokens.listed = listed_tokens(decoder, FILE)?;
            tokens.added = tokens.listed.iter().map(|(_, token)| token.clone()).collect();
            tokens.known = tokens.added.iter().map(|token| token.content.clone()).collect();
        }
        for (role, value) in &config {
            if role.ends_with("_token")
                && let Some(token) = parse_token(value)
            {
                tokens.roles.push((role.clone(), token.content.clone()));
                tokens.add(token);
            }
        }
        for key in ["extra_special_tokens", "additional_special_tokens"] {
            match config.get(key) {
                Some(Value::Array(list)) => list.iter().filter_map(parse_token).for_each(|token| tokens.add(token)),
                Some(Value::Object(named)) => {
                    for (role, token) in named
                        .iter()
                        .filter_map(|(role, value)| Some((role, parse_token(value)?)))
                    {
                        tokens.roles.push((role.clone(), token.content.clone()));
                        tokens.add(token);
                    }
                }
                _ => {}
            }
        }
        Ok(tokens)
    }

    /// The text of the token in this role.
    pub fn text(&self, role: &str) -> Option<&str> {
        self.roles
            .iter()
            .find(|(name, _)| name == role)
            .map(|(_, text)| text.as_str())
    }

    /// A role that no file names but the tokenizer's own.
    pub fn add_role(&mut self, role: &str, text: String) {
        self.roles.push((role.to_owned(), text.clone()));
        self.add(AddedToken::from(text, true));
    }

    fn add(&mut self, token: AddedToken) {
        if self.known.insert(token.content.clone()) {
            self.added.push(token);
        }
    }
}

/// `{"2": {"content": "</s>", ..}, ..}` in the order of the ids.
fn listed_tokens(decoder: &Map<String, Value>, file: &str) -> Result<Vec<(u32, AddedToken)>, Error> {
    let mut listed = Vec::with_capacity(decoder.len());
    for (id, value) in decoder {
        let id: u32 = id
            .parse()
            .map_err(|_| Error::bad_file(file, format!("added_tokens_decoder: {id:?} is not a token id")))?;
        let token = parse_token(value)
            .ok_or_else(|| Error::bad_file(file, format!("added_tokens_decoder: token {id} has no content")))?;
        listed.push((id, token));
    }
    listed.sort_by_key(|(id, _)| *id);
    Ok(listed)
}

/// A token written as its text or as an object with flags.
fn parse_token(value: &Value) -> Option<AddedToken> {
    match value {
        Value::String(text) => Some(AddedToken::from(text.clone(), true)),
        Value::Object(fields) => {
            let flag = |key: &str, default| fields.get(key).and_then(Value::as_bool).unwrap_or(default);
            let token = AddedToken::from(fields.get("content")?.as_str()?.to_owned(), flag("special", true));
            let normalized = flag("normalized", token.normalized);
            Some(
                token
                    .lstrip(flag("lstrip", false))
                    .rstrip(flag("rstrip", false))
                    .single_word(flag("single_word", false))
                    .normalized(normalized),
            )
        }
        _ => None,
    }
}
