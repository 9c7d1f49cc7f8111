//! SentencePiece's byte pair encoding as ranked merges.
//!
//! SentencePiece joins the pair whose token has the best score. Byte pair encoding by ranked merges does the same when every way to
//! cut a token into two tokens is a merge, ranked by the token's score.

/// One way to make a token from two.
struct Merge<'a> {
    left: &'a str,
    right: &'a str,
    score: f32,
    /// Characters of `left`: of the merges of one token, those with the longer left part come first.
    left_length: usize,
}

/// Bytes that may be looked at while tokens are cut: hundreds of times what the vocabularies of models need.
const MOST_BYTES: usize = 1 << 30;

/// That so many tokens, so long, can be cut at every place in about a second: each cut looks at the whole token.
///
/// # Errors
/// Why not, in words that follow the name of a file.
pub fn check_cuts(lengths: impl Iterator<Item = usize>) -> Result<(), String> {
    let squares = lengths.map(|length| length.saturating_mul(length));
    match squares.fold(0, usize::saturating_add) {
        0..=MOST_BYTES => Ok(()),
        _ => Err("tokens so long that nobody can type them".to_owned()),
    }
}

/// The merges that make the tokens of `scored`, best first, out of parts that are `known`.
///
/// # Errors
/// As [`check_cuts`].
pub fn merges_by_score<'a>(
    scored: impl Iterator<Item = (&'a str, f32)> + Clone,
    known: impl Fn(&str) -> bool,
) -> Result<Vec<(&'a str, &'a str)>, String> {
    check_cuts(scored.clone().map(|(token, _)| token.len()))?;
    let mut merges = Vec::new();
    for (token, score) in scored {
        for (left_length, (cut, _)) in token.char_indices().enumerate().skip(1) {
            let (left, right) = token.split_at(cut);
            if known(left) && known(right) {
                merges.push(Merge {
                    left,
                    right,
                    score,
                    left_length,
                });
            }
        }
    }
    merges.sort_by(|one, other| {
        other
            .score
            .total_cmp(&one.score)
            .then(other.left_length.cmp(&one.left_length))
    });
    Ok(merges.into_iter().map(|merge| (merge.left, merge.right)).collect())
}
