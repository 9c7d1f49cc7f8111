//! Mistral's `tekken.json`: a pattern, the bytes of tokens in the order of their ranks, and special tokens, which come first.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;
use tokenizers::AddedToken;

use super::{Draft, base64, byte_level};
use crate::Error;
use crate::files::{OtherTokenizer, parse_object};

/// The special tokens of files that list none.
const OLD: [&str; 20] = [
    "<unk>",
    "<s>",
    "</s>",
    "[INST]",
    "[/INST]",
    "[AVAILABLE_TOOLS]",
    "[/AVAILABLE_TOOLS]",
    "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]",
    "[TOOL_CALLS]",
    "[IMG]",
    "<pad>",
    "[IMG_BREAK]",
    "[IMG_END]",
    "[PREFIX]",
    "[MIDDLE]",
    "[SUFFIX]",
    "[SYSTEM_PROMPT]",
    "[/SYSTEM_PROMPT]",
    "[TOOL_CONTENT]",
];

/// Each gets a name, whether the file has one or not; Mistral's have 1000.
const MOST_SPECIAL: u32 = 1 << 16;

pub(super) fn read(file: &OtherTokenizer) -> Result<Draft, Error> {
    let content = parse_object(&file.name, Some(&file.bytes))?;
    let bad = |what: String| Error::bad_file(&file.name, what);
    let config = &content.get("config").cloned().unwrap_or_default();
    let pattern = config["pattern"]
        .as_str()
        .ok_or_else(|| bad("config.pattern: expected a text".into()))?;
    let count = |key: &str| {
        let found = &config[key];
        let number = found.as_u64().and_then(|number| u32::try_from(number).ok());
        number.ok_or_else(|| bad(format!("config.{key} is {found}, expected a whole number")))
    };
    let (size, special_size) = (count("default_vocab_size")?, count("default_num_special_tokens")?);
    if special_size > MOST_SPECIAL {
        return Err(bad(format!(
            "config.default_num_special_tokens is {special_size}, expected at most {MOST_SPECIAL}"
        )));
    }
    let special = special_tokens(content.get("special_tokens"), special_size).map_err(bad)?;
    let listed = content.get("vocab").and_then(Value::as_array);
    let listed = listed.ok_or_else(|| bad("vocab: expected a list".into()))?;
    let used = size.checked_sub(special_size).map(|used| used as usize);
    let used = used.filter(|&used| used <= listed.len()).ok_or_else(|| {
        bad(format!(
            "config.default_vocab_size is {size}, expected {special_size} special tokens and at most {} others",
            listed.len()
        ))
    })?;
    let mut ranks = HashMap::with_capacity(used);
    for (rank, token) in listed[..used].iter().enumerate() {
        let bytes = token["token_bytes"].as_str().and_then(base64::decode);
        let bytes = bytes.ok_or_else(|| bad(format!("vocab: token {rank} has no token_bytes in base64")))?;
        if token["rank"].as_u64().is_some_and(|found| found != rank as u64) {
            return Err(bad(format!("vocab: token {rank} has the rank {}", token["rank"])));
        }
        if ranks.insert(bytes, rank as u32).is_some() {
            return Err(bad(format!("vocab: token {rank} came before")));
        }
    }
    let role = |text: &str| {
        special
            .values()
            .any(|token| token.content == text)
            .then(|| text.to_owned())
    };
    let roles = [
        ("bos_token", "<s>"),
        ("eos_token", "</s>"),
        ("pad_token", "<pad>"),
        ("unk_token", "<unk>"),
    ];
    Ok(Draft {
        file: file.name.clone(),
        model: byte_level::ranked(&file.name, &ranks, special_size)?,
        normalizers: Vec::new(),
        pre_tokenizers: byte_level::cut_by(&file.name, pattern)?,
        decoder: byte_level::decoder(),
        roles: roles
            .into_iter()
            .filter_map(|(name, text)| Some((name, role(text)?)))
            .collect(),
        added: special,
        adds: [true, false],
        space_first: false,
    })
}

/// Those of the file, and names for the rest.
fn special_tokens(listed: Option<&Value>, size: u32) -> Result<BTreeMap<u32, AddedToken>, String> {
    let mut texts = BTreeMap::new();
    match listed {
        None | Some(Value::Null) => {
            for (rank, text) in (0..size).zip(OLD) {
                texts.insert(rank, text.to_owned());
            }
        }
        Some(listed) => {
            for token in listed.as_array().ok_or("special_tokens: expected a list")? {
                let rank = token["rank"].as_u64().and_then(|rank| u32::try_from(rank).ok());
                let rank = rank.filter(|&rank| rank < size);
                let (Some(rank), Some(text)) = (rank, token["token_str"].as_str()) else {
                    return Err(format!(
                        "special_tokens: expected a text and a rank below {size}, found {token}"
                    ));
                };
                if texts.insert(rank, text.to_owned()).is_some() {
                    return Err(format!("special_tokens: the rank {rank} twice"));
                }
            }
        }
    }
    let text = |rank: u32| texts.remove(&rank).unwrap_or_else(|| format!("<SPECIAL_{rank}>"));
    let mut text = text;
    Ok((0..size)
        .map(|rank| (rank, AddedToken::from(text(rank), true)))
        .collect())
}
