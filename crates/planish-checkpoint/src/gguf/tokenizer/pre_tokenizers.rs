//! How text is cut into words before byte pair encoding, by the name in `tokenizer.ggml.pre`.
//!
//! Source of names: the pre-tokenizer types of <https://github.com/ggml-org/llama.cpp/blob/master/src/llama-vocab.cpp>; the
//! patterns are those of the models' own tokenizer.json.

use serde_json::{Value, json};

use super::super::fault::Fault;
use super::super::metadata::Metadata;

const KEY: &str = "tokenizer.ggml.pre";

/// A row of the table.
pub(super) struct PreTokenizer {
    pub names: &'static [&'static str],
    /// Applied in order, each to the pieces of the one before.
    steps: &'static [Step],
    /// Unicode is composed first (NFC).
    pub composed: bool,
    /// A word that is a token as a whole stays one, whatever the merges.
    pub ignore_merges: bool,
    /// The begin token is added unless the file says otherwise.
    pub add_bos: bool,
}

/// One way of cutting.
enum Step {
    /// Every digit alone.
    Digits,
    /// Matches are pieces, and so is what lies between them.
    Pattern(&'static str),
    /// Pattern of GPT-2.
    Gpt2,
}

const LLAMA3: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const QWEN2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const TEKKEN: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const GPT4O: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

/// The first row is for files without the key.
static PRE_TOKENIZERS: [PreTokenizer; 8] = [
    PreTokenizer {
        names: &["default"],
        steps: &[
            Step::Pattern(r"[\p{P}\$\+<=>\^~\|]+"),
            Step::Gpt2,
            Step::Pattern(r"\p{N}+"),
            Step::Pattern("[0-9][0-9][0-9]"),
        ],
        composed: false,
        ignore_merges: false,
        add_bos: false,
    },
    PreTokenizer {
        names: &[
            "gpt-2",
            "phi-2",
            "mpt",
            "olmo",
            "jais",
            "exaone4",
            "trillion",
            "mellum",
            "gigachat",
            "granite-docling",
        ],
        steps: &[Step::Gpt2],
        composed: false,
        ignore_merges: false,
        add_bos: false,
    },
    PreTokenizer {
        names: &[
            "smollm",
            "starcoder",
            "refact",
            "codeshell",
            "exaone",
            "command-r",
            "minerva-7b",
        ],
        steps: &[Step::Digits, Step::Gpt2],
        composed: false,
        ignore_merges: false,
        add_bos: false,
    },
    PreTokenizer {
        names: &[
            "llama-bpe",
            "llama3",
            "llama-v3",
            "falcon3",
            "falcon-h1",
            "pixtral",
            "midm-2.0",
            "lfm2",
        ],
        steps: &[Step::Pattern(LLAMA3)],
        composed: false,
        ignore_merges: true,
        add_bos: true,
    },
    PreTokenizer {
        names: &["dbrx", "smaug-bpe", "chatglm-bpe", "glm4"],
        steps: &[Step::Pattern(LLAMA3)],
        composed: false,
        ignore_merges: false,
        add_bos: false,
    },
    PreTokenizer {
        names: &["qwen2", "deepseek-r1-qwen", "stablelm2", "kormo", "megrez", "hunyuan"],
        steps: &[Step::Pattern(QWEN2)],
        composed: true,
        ignore_merges: false,
        add_bos: false,
    },
    PreTokenizer {
        names: &["tekken"],
        steps: &[Step::Pattern(TEKKEN)],
        composed: false,
        ignore_merges: true,
        add_bos: true,
    },
    PreTokenizer {
        names: &["gpt-4o", "llama4"],
        steps: &[Step::Pattern(GPT4O)],
        composed: false,
        ignore_merges: false,
        add_bos: false,
    },
];

/// The row that a file names.
pub(super) fn of(metadata: &Metadata) -> Result<&'static PreTokenizer, Fault> {
    let name = metadata.text(KEY)?.unwrap_or("default");
    PRE_TOKENIZERS
        .iter()
        .find(|row| row.names.contains(&name))
        .ok_or_else(|| {
            let known: Vec<&str> = PRE_TOKENIZERS.iter().flat_map(|row| row.names).copied().collect();
            Fault::unsupported(format!(
                "metadata key `{KEY}`: the pre-tokenizer `{name}` is not read; those that are: {}",
                known.join(", ")
            ))
        })
}

/// The name of the row that a tokenizer.json is made as.
pub(super) fn name_of(tokenizer: &Value) -> Option<&'static str> {
    let (cuts, ignores) = (cuts(&tokenizer["pre_tokenizer"])?, &tokenizer["model"]["ignore_merges"]);
    let normalized = match &tokenizer["normalizer"] {
        Value::Null => false,
        normalizer if normalizer["type"] == "NFC" => true,
        _ => return None,
    };
    let fits = |row: &&PreTokenizer| {
        self::cuts(&row.to_json()).as_ref() == Some(&cuts)
            && row.composed == normalized
            && row.ignore_merges == (*ignores == true)
    };
    PRE_TOKENIZERS.iter().find(fits).map(|row| row.names[0])
}

/// The patterns that cut, in order; `None` for other kinds of steps.
fn cuts(pre_tokenizer: &Value) -> Option<Vec<&str>> {
    match pre_tokenizer["type"].as_str()? {
        "Sequence" => {
            let steps = pre_tokenizer["pretokenizers"].as_array()?.iter().map(cuts);
            Some(steps.collect::<Option<Vec<_>>>()?.concat())
        }
        "Split" if pre_tokenizer["behavior"] == "Isolated" && pre_tokenizer["invert"] != true => {
            Some(vec![pre_tokenizer["pattern"]["Regex"].as_str()?])
        }
        "Digits" if pre_tokenizer["individual_digits"] == true => Some(vec!["digits"]),
        "ByteLevel" if pre_tokenizer["add_prefix_space"] != true => Some(match pre_tokenizer["use_regex"] == false {
            true => Vec::new(),
            false => vec![GPT2],
        }),
        _ => None,
    }
}

impl PreTokenizer {
    /// As tokenizer.json has it: the steps, then bytes to visible characters.
    pub fn to_json(&self) -> Value {
        let mut steps: Vec<Value> = Vec::new();
        let mut byte_level_cuts = false;
        for step in self.steps {
            // The byte-level step comes last in any case and can cut as GPT-2 does while at it.
            match step {
                Step::Digits => steps.push(json!({ "type": "Digits", "individual_digits": true })),
                Step::Pattern(pattern) => steps.push(split(pattern)),
                Step::Gpt2 if self.is_last(step) => byte_level_cuts = true,
                Step::Gpt2 => steps.push(split(GPT2)),
            }
        }
        steps.push(json!({
            "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": byte_level_cuts
        }));
        match <[Value; 1]>::try_from(steps) {
            Ok([only]) => only,
            Err(steps) => json!({ "type": "Sequence", "pretokenizers": steps }),
        }
    }

    fn is_last(&self, step: &Step) -> bool {
        self.steps.last().is_some_and(|last| std::ptr::eq(last, step))
    }
}

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

fn split(pattern: &str) -> Value {
    json!({ "type": "Split", "pattern": { "Regex": pattern }, "behavior": "Isolated", "invert": false })
}
