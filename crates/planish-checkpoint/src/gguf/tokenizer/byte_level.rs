//! Byte-level BPE (`gpt2`): tokens are bytes spelled as visible characters, and the file lists the merges.

use serde_json::{Value, json};

use super::super::fault::Fault;
use super::super::metadata::Metadata;
use super::vocabulary::Vocabulary;
use super::{Parts, pre_tokenizers};

const MERGES: &str = "tokenizer.ggml.merges";

pub(super) fn parts<'a>(metadata: &'a Metadata, vocabulary: &Vocabulary<'a>) -> Result<Parts<'a>, Fault> {
    let row = pre_tokenizers::of(metadata)?;
    let merges = metadata.need(MERGES, listed_merges(metadata, vocabulary)?)?;
    Ok(Parts {
        normalizer: if row.composed {
            json!({ "type": "NFC" })
        } else {
            Value::Null
        },
        pre_tokenizer: row.to_json(),
        decoder: json!({ "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true }),
        unk_token: None,
        byte_fallback: false,
        ignore_merges: row.ignore_merges,
        merges,
    })
}

/// The merges that the file lists, best first: two tokens that together are a third.
pub(super) fn listed_merges<'a>(
    metadata: &'a Metadata,
    vocabulary: &Vocabulary<'a>,
) -> Result<Option<Vec<(&'a str, &'a str)>>, Fault> {
    let Some(lines) = metadata.texts(MERGES)? else {
        return Ok(None);
    };
    let mut joined = String::new();
    let mut merges = Vec::with_capacity(lines.len());
    for line in lines {
        // A token may begin with a space, hence the search from its second character on.
        let first = line.chars().next().map_or(0, char::len_utf8);
        let cut = line[first..].find(' ').map(|cut| cut + first);
        let (left, right) = cut.map_or((line, ""), |cut| (&line[..cut], &line[cut + 1..]));
        joined.clear();
        joined.push_str(left);
        joined.push_str(right);
        if !(vocabulary.ids.contains_key(left)
            && vocabulary.ids.contains_key(right)
            && vocabulary.ids.contains_key(&*joined))
        {
            return Err(Fault::key(
                MERGES,
                "pairs of tokens that make a third",
                format!("`{line}`"),
            ));
        }
        merges.push((left, right));
    }
    Ok(Some(merges))
}
