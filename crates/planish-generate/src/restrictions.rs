//! Which tokens may not be chosen, or more or less readily, because of what was said.

use crate::warpers::Growth;

/// Tokens that may not be chosen, or more or less readily.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Restrictions {
    /// Never.
    pub suppressed: Vec<u32>,
    /// Not first.
    pub suppressed_first: Vec<u32>,
    /// The last token of each, where the others stand before it.
    pub bad_words: Vec<Vec<u32>>,
    /// One that would make a run of so many tokens come again, the prompt included; 0 allows all.
    pub repeat_none_of: usize,
    /// An end token, before so many tokens.
    pub least_tokens: usize,
    /// The same, prompt and answer together.
    pub least_length: usize,
    /// One that would make a run of so many tokens of the prompt come again; 0 allows all.
    pub repeat_none_of_prompt: usize,
    /// What is added to the logit of the last token of each, where the others stand before it.
    pub biases: Vec<(Vec<u32>, f32)>,
    /// What is added to the logits of tokens, whatever stands before them.
    pub token_biases: Vec<(u32, f32)>,
    /// Logits of the prompt's tokens are multiplied by this if positive, else divided. `None` is 1.
    pub prompt_penalty: Option<f32>,
    /// The only token that may follow a prompt of one.
    pub forced_first: Option<u32>,
    /// The only tokens that may be the last that fits, all equally likely.
    pub forced_last: Vec<u32>,
    /// How ends grow likelier.
    pub end_growth: Option<Growth>,
}

impl Restrictions {
    /// Whether they depend on what was said.
    pub(crate) fn depend_on_tokens(&self, prompt: usize) -> bool {
        !self.suppressed_first.is_empty()
            || self.bad_words.iter().any(|word| word.len() > 1)
            || self.repeat_none_of > 0
            || self.least_tokens > 0
            || self.least_length > prompt
            || self.repeat_none_of_prompt > 0
            || self.end_growth.is_some()
            || self.forces()
    }

    fn forces(&self) -> bool {
        self.forced_first.is_some() || !self.forced_last.is_empty()
    }

    /// The only tokens that may follow `tokens`, where `most` are all that there may be. Empty is any.
    pub(crate) fn forced(&self, tokens: usize, most: usize) -> &[u32] {
        match &self.forced_first {
            Some(first) if tokens == 1 => std::slice::from_ref(first),
            _ if tokens.checked_add(1) == Some(most) => &self.forced_last,
            _ => &[],
        }
    }

    /// Calls `add` with every token whose logit is changed after `tokens`.
    pub(crate) fn biased(&self, tokens: &[u32], add: &mut dyn FnMut(u32, f32)) {
        for (run, bias) in &self.biases {
            if let Some((&last, before)) = run.split_last()
                && tokens.ends_with(before)
            {
                add(last, *bias);
            }
        }
    }

    /// Calls `forbid` with every token that may not follow `tokens`, of which `prompt` were given, but for those that never may.
    pub(crate) fn forbidden(&self, tokens: &[u32], prompt: usize, ends: &[u32], forbid: &mut dyn FnMut(u32)) {
        let written = tokens.len() - prompt;
        // What is forced to be first is not what is chosen first.
        let first = usize::from(prompt == 1 && self.forced_first.is_some());
        if written == first {
            self.suppressed_first.iter().for_each(|&token| forbid(token));
        }
        if written < self.least_tokens || tokens.len() < self.least_length {
            ends.iter().for_each(|&token| forbid(token));
        }
        for word in &self.bad_words {
            if let Some((&last, before)) = word.split_last()
                && !before.is_empty()
                && tokens.ends_with(before)
            {
                forbid(last);
            }
        }
        for (size, said) in [
            (self.repeat_none_of, tokens),
            (self.repeat_none_of_prompt, &tokens[..prompt]),
        ] {
            if size > 0 && tokens.len() + 1 >= size {
                let before = &tokens[tokens.len() + 1 - size..];
                let again = said.windows(size).filter(|run| run.starts_with(before));
                again.filter_map(|run| run.last()).for_each(|&token| forbid(token));
            }
        }
    }
}
