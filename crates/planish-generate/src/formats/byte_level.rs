//! Byte-level byte pair encoding: every byte has a letter, and tokens are words of such letters.

use std::collections::HashMap;

use planish_checkpoint::check_cuts;
use tokenizers::decoders::DecoderWrapper;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::tokenizer::normalizer::SplitDelimiterBehavior;

use super::Model;
use crate::Error;

/// The letters of all bytes, as GPT-2 has them: printable ones stand for themselves, the others for letters from 256 on.
pub(crate) fn letters() -> [char; 256] {
    let mut next = 256;
    std::array::from_fn(|byte| match byte {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => char::from(byte as u8),
        _ => {
            next += 1;
            char::from_u32(next - 1).unwrap_or_default()
        }
    })
}

/// The model of tokens with ranks, which are their ids from `first` on: the pair whose token has the lowest rank is joined.
pub(super) fn ranked(file: &str, ranks: &HashMap<Vec<u8>, u32>, first: u32) -> Result<Model, Error> {
    check_cuts(ranks.keys().map(Vec::len)).map_err(|what| Error::bad_file(file, what))?;
    let letters = letters();
    let spelled = |bytes: &[u8]| -> String { bytes.iter().map(|&byte| letters[usize::from(byte)]).collect() };
    let mut merges: Vec<(u32, u32, &[u8], &[u8])> = Vec::new();
    for (token, &rank) in ranks {
        for cut in 1..token.len() {
            let (left, right) = token.split_at(cut);
            if let (Some(&left_rank), true) = (ranks.get(left), ranks.contains_key(right)) {
                merges.push((rank, left_rank, left, right));
            }
        }
    }
    merges.sort_unstable();
    Ok(Model::Bpe {
        vocabulary: ranks
            .iter()
            .map(|(token, rank)| (spelled(token), first + rank))
            .collect(),
        merges: merges
            .into_iter()
            .map(|(_, _, left, right)| (spelled(left), spelled(right)))
            .collect(),
        unknown: None,
        whole_first: true,
    })
}

/// Cuts a text by `pattern`, and what is between its matches.
pub(super) fn cut_by(file: &str, pattern: &str) -> Result<Vec<PreTokenizerWrapper>, Error> {
    let pattern = SplitPattern::Regex(pattern.into());
    let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false)
        .map_err(|error| Error::bad_file(file, format!("its pattern: {error}")))?;
    Ok(vec![split.into(), ByteLevel::new(false, true, false).into()])
}

pub(super) fn decoder() -> DecoderWrapper {
    ByteLevel::default().into()
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_byte_has_the_letter_of_the_library() {
        let mut ours = super::letters();
        ours.sort_unstable();
        let mut theirs: Vec<char> = tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet()
            .into_iter()
            .collect();
        theirs.sort_unstable();
        assert_eq!(ours.as_slice(), theirs);
        assert_eq!(super::letters()[b' ' as usize], '\u{120}');
    }
}
