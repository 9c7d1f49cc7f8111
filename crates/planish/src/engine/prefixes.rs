//! What finished sequences remember, for prompts that begin alike.

use planish_generate::Session;

/// Finished sequences, the one used last at the end. Memory that they share is stored once.
#[derive(Default)]
pub(super) struct Prefixes {
    kept: Vec<Session>,
}

/// Sequences that are remembered, at most: more are not looked through.
const MOST: usize = 256;
/// Fewer tokens than this are not worth remembering.
const LEAST: usize = 16;

/// How much of `prompt` a session could give, its last token left out.
pub(super) fn common(session: &Session, prompt: &[u32]) -> usize {
    let known = session.tokens();
    let usable = &prompt[..prompt.len() - 1];
    let common = known
        .iter()
        .zip(usable)
        .take_while(|(known, token)| known == token)
        .count();
    match session.can_go_back() || common == known.len() {
        true => common,
        false => 0,
    }
}

impl Prefixes {
    /// All of them, the one not used for the longest time first.
    pub(super) fn sessions(&self) -> impl Iterator<Item = &Session> {
        self.kept.iter()
    }

    /// Remembers a sequence whose answer is finished, in place of those that it begins with.
    pub(super) fn keep(&mut self, session: Session) {
        let tokens = session.tokens();
        if tokens.len() < LEAST {
            return;
        }
        let longer = |kept: &&mut Session| kept.can_go_back() && kept.tokens().starts_with(tokens);
        if self.kept.iter_mut().find(longer).is_some() {
            return;
        }
        if session.can_go_back() {
            self.kept.retain(|kept| !tokens.starts_with(kept.tokens()));
        }
        if self.kept.len() == MOST {
            self.forget();
        }
        self.kept.push(session);
    }

    /// Forgets the one that was not used for the longest time.
    pub(super) fn forget(&mut self) {
        if !self.kept.is_empty() {
            self.kept.remove(0);
        }
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        self.kept.clear();
    }

    /// The one that begins as `prompt` for the longest, and how far.
    pub(super) fn best(&self, prompt: &[u32]) -> Option<(usize, usize)> {
        let lengths = self.kept.iter().map(|session| common(session, prompt)).enumerate();
        lengths
            .max_by_key(|&(_, length)| length)
            .filter(|&(_, length)| length > 0)
    }

    /// Takes one out that the prompt goes on with whole, else `None`: others may want what is left of it.
    pub(super) fn take(&mut self, index: usize, length: usize) -> Option<Session> {
        let whole = self.kept[index].tokens().len() == length;
        whole.then(|| self.kept.remove(index))
    }

    /// One of them, now used last.
    pub(super) fn touch(&mut self, index: usize) -> &Session {
        self.kept[index..].rotate_left(1);
        self.kept.last().expect("kept")
    }
}
