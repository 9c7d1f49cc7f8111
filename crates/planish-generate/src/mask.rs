//! Tokens that may be chosen, for good and for one choice.

/// The tokens that may be chosen, where not all may.
#[derive(Clone, Debug)]
pub(crate) struct Mask {
    pub words: Vec<u32>, // bit `token % 32` of word `token / 32`
    /// As they were before all but some tokens were forbidden for the next one.
    before: Vec<u32>,
    /// Those that are forbidden for the next token only.
    now: Vec<u32>,
}

impl Mask {
    /// Everything but what never may be chosen.
    pub(crate) fn new(vocabulary: usize, never: impl Iterator<Item = u32>) -> Mask {
        let mut mask = Mask {
            words: vec![u32::MAX; vocabulary.div_ceil(32)],
            before: Vec::new(),
            now: Vec::new(),
        };
        never.for_each(|token| {
            mask.clear(token);
        });
        mask
    }

    /// Whether the token was allowed before.
    fn clear(&mut self, token: u32) -> bool {
        let Some(word) = self.words.get_mut(token as usize / 32) else {
            return false;
        };
        let bit = 1 << (token % 32);
        let was = *word & bit != 0;
        *word &= !bit;
        was
    }

    /// Forbids one for the next token.
    pub(crate) fn forbid_now(&mut self, token: u32) {
        if self.clear(token) {
            self.now.push(token);
        }
    }

    /// Forbids all others for the next token.
    pub(crate) fn allow_only(&mut self, tokens: &[u32]) {
        let all = self.words.len() * 32;
        let mut known = tokens.iter().filter(|token| (**token as usize) < all).peekable();
        if known.peek().is_some() {
            self.before.clone_from(&self.words);
            self.words.fill(0);
            for token in known {
                self.words[*token as usize / 32] |= 1 << (token % 32);
            }
        }
    }

    /// Allows what was forbidden for one token only.
    pub(crate) fn allow_again(&mut self) {
        if !self.before.is_empty() {
            std::mem::swap(&mut self.words, &mut self.before);
            self.before.clear();
        }
        for token in self.now.drain(..) {
            self.words[token as usize / 32] |= 1 << (token % 32);
        }
    }
}
