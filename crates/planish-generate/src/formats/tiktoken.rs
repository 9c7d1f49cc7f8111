//! tiktoken's files: a line for each token, its bytes in base64 and its rank. The file says neither how text is cut nor which special
//! tokens there are; the code of the models that use it does.

use std::collections::{BTreeMap, HashMap};

use tokenizers::AddedToken;
use tokenizers::normalizers::unicode::NFC;

use super::{Draft, Settings, base64, byte_level};
use crate::Error;
use crate::files::OtherTokenizer;

const QWEN: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const KIMI: &str = concat!(
    r"[\p{Han}]+",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

/// Special tokens of Kimi and of Llama 3, reserved ones included.
const RESERVED: u32 = 256;

/// Those of Llama 3.1 to 3.3; Llama 3 has reserved ones in place of some.
const LLAMA3_TOKENS: [&str; 11] = [
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|reserved_special_token_0|>",
    "<|reserved_special_token_1|>",
    "<|finetune_right_pad_id|>",
    "<|step_id|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eom_id|>",
    "<|eot_id|>",
    "<|python_tag|>",
];

/// What a model's code adds to the file.
struct Kind {
    pattern: &'static str,
    normalizes: bool,
    special: fn(u32) -> String,
    count: u32,
    roles: Vec<(&'static str, String)>,
    adds_first: bool,
}

/// Special token `index` of Qwen's first models.
fn qwen(index: u32) -> String {
    match ["<|endoftext|>", "<|im_start|>", "<|im_end|>"].get(index as usize) {
        Some(name) => (*name).into(),
        None => format!("<|extra_{}|>", index - 3),
    }
}

fn llama3(index: u32) -> String {
    match LLAMA3_TOKENS.get(index as usize) {
        Some(name) => (*name).into(),
        None => format!("<|reserved_special_token_{}|>", index - 9),
    }
}

fn kind(file: &OtherTokenizer, settings: &Settings) -> Result<Kind, Error> {
    let is_llama = settings.has_no_own_class() || settings.class() == Some("LlamaTokenizer");
    match settings.class() {
        Some("QWenTokenizer") => Ok(Kind {
            pattern: QWEN,
            normalizes: true,
            special: qwen,
            count: 208,
            roles: vec![("eos_token", qwen(0))],
            adds_first: false,
        }),
        Some("TikTokenTokenizer") => Ok(Kind {
            pattern: KIMI,
            normalizes: false,
            // By their ids, see `read`.
            special: |_| String::new(),
            count: RESERVED,
            roles: Vec::new(),
            adds_first: false,
        }),
        _ if is_llama && settings.model_type.as_deref() == Some("llama") => Ok(Kind {
            pattern: LLAMA3,
            normalizes: false,
            special: llama3,
            count: RESERVED,
            roles: vec![("bos_token", llama3(0)), ("eos_token", llama3(1))],
            adds_first: true,
        }),
        _ => {
            let known = "QWenTokenizer, TikTokenTokenizer (Kimi), models of type llama (Llama 3)";
            Err(settings.unsupported(&file.name, known))
        }
    }
}

pub(super) fn read(file: &OtherTokenizer, settings: &Settings) -> Result<Draft, Error> {
    let ranks = ranks(file)?;
    let kind = kind(file, settings)?;
    let first = ranks.values().max().map_or(0, |last| last + 1);
    let special = |index: u32| match (kind.special)(index) {
        reserved if reserved.is_empty() => format!("<|reserved_token_{}|>", first + index),
        name => name,
    };
    let token = |index: u32| (first + index, AddedToken::from(special(index), true));
    let added: BTreeMap<u32, AddedToken> = (0..kind.count).map(token).collect();
    Ok(Draft {
        file: file.name.clone(),
        model: byte_level::ranked(&file.name, &ranks, 0)?,
        normalizers: if kind.normalizes { vec![NFC.into()] } else { Vec::new() },
        pre_tokenizers: byte_level::cut_by(&file.name, kind.pattern)?,
        decoder: byte_level::decoder(),
        added,
        roles: kind.roles,
        adds: [kind.adds_first, false],
        space_first: false,
    })
}

/// Whether a file of this name, which SentencePiece's files have too, is one of tiktoken's.
pub(super) fn is_text(bytes: &[u8]) -> bool {
    let line = bytes.split(|&byte| byte == b'\n').next().unwrap_or_default();
    std::str::from_utf8(line).is_ok_and(|line| pair(line).is_some())
}

fn pair(line: &str) -> Option<(Vec<u8>, u32)> {
    let (token, rank) = line.trim_end().split_once(' ')?;
    Some((base64::decode(token)?, rank.parse().ok()?))
}

fn ranks(file: &OtherTokenizer) -> Result<HashMap<Vec<u8>, u32>, Error> {
    let bad = |line: usize, what: String| Error::bad_file(&file.name, format!("line {}: {what}", line + 1));
    let text = std::str::from_utf8(&file.bytes).map_err(|error| Error::bad_file(&file.name, error))?;
    let mut ranks = HashMap::new();
    let mut taken = std::collections::HashSet::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let (token, rank) =
            pair(line).ok_or_else(|| bad(number, format!("expected base64 and a rank, found {line:.80?}")))?;
        if rank > i32::MAX as u32 {
            return Err(bad(number, format!("the rank {rank} is no token's")));
        }
        if !taken.insert(rank) || ranks.insert(token, rank).is_some() {
            return Err(bad(number, "a token or a rank that came before".into()));
        }
    }
    if ranks.is_empty() {
        return Err(Error::bad_file(&file.name, "no tokens"));
    }
    Ok(ranks)
}
