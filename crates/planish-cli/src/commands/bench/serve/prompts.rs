//! Prompts of so many tokens for a server whose tokenizer is not known here.

use super::client::Server;

/// Words that tokenizers of all kinds know.
const WORDS: [&str; 32] = [
    "time",
    "year",
    "people",
    "way",
    "day",
    "man",
    "thing",
    "woman",
    "life",
    "child",
    "world",
    "school",
    "state",
    "family",
    "student",
    "group",
    "country",
    "problem",
    "hand",
    "part",
    "place",
    "case",
    "week",
    "company",
    "system",
    "program",
    "question",
    "work",
    "government",
    "number",
    "night",
    "point",
];

/// How many words have so many tokens.
pub(super) struct Sizes {
    words: usize,
}

impl Sizes {
    /// Asks the server how long two prompts are, and supposes a straight line. The tokens of every prompt are counted later all the same.
    pub(super) fn measure(server: &Server, tokens: usize) -> anyhow::Result<Sizes> {
        let mut sizes = Sizes { words: 16 };
        let few = server.prompt_tokens(&sizes.prompt(u64::MAX))?;
        sizes.words = 80;
        let many = server.prompt_tokens(&sizes.prompt(u64::MAX - 1))?;
        let of_word = (many.saturating_sub(few) as f64 / 64.0).max(0.1);
        let others = few as f64 - 16.0 * of_word;
        sizes.words = ((tokens as f64 - others) / of_word).round().max(1.0) as usize;
        Ok(sizes)
    }

    /// A prompt that begins otherwise than those of other numbers.
    pub(super) fn prompt(&self, number: u64) -> String {
        let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let words = (0..self.words).map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            WORDS[(state >> 59) as usize]
        });
        words.collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn prompts_have_their_words_and_begin_otherwise() {
        let sizes = Sizes { words: 40 };
        let prompts: Vec<String> = (0..64u64)
            .flat_map(|a| [a, a << 20, a << 40])
            .map(|n| sizes.prompt(n))
            .collect();
        assert!(prompts.iter().all(|prompt| prompt.split(' ').count() == 40));
        let beginnings = |words: usize| -> HashSet<Vec<&str>> {
            prompts
                .iter()
                .map(|prompt| prompt.split(' ').take(words).collect())
                .collect()
        };
        // Number 0 comes three times.
        assert_eq!(beginnings(8).len(), prompts.len() - 2);
    }
}
