//! What finished sequences remember, for prompts that begin alike.

use planish_generate::Session;
use planish_model::Model;

/// Finished sequences, the one used last at the end. Memory that they share is stored once.
#[derive(Default)]
pub(super) struct Prefixes {
    kept: Vec<Session>,
}

/// Sequences that are remembered, at most: more are not looked through.
const MOST: usize = 256;
/// Fewer tokens than this are not worth remembering.
const LEAST: usize = 16;

/// How many tokens a prompt begins with as these do, its last one left out.
pub(super) fn begins(known: &[u32], prompt: &[u32]) -> usize {
    let both = known.iter().zip(&prompt[..prompt.len() - 1]);
    both.take_while(|(known, token)| known == token).count()
}

/// How much of `prompt` a session could give, its last token left out: what is as the prompt would compute it, or a conversation that
/// the prompt goes on with.
pub(super) fn common(session: &Session, prompt: &[u32], model: &Model) -> usize {
    let common = begins(session.tokens(), prompt);
    let as_computed = common > session.prompt_tokens() || model.reads_alike(session.prompt_tokens(), prompt.len());
    match as_computed && (session.can_go_back() || common == session.tokens().len()) {
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
        // A state is of the end of its sequence alone.
        let same = |kept: &Session| kept.can_go_back() || kept.tokens().len() == tokens.len();
        if let Some(index) = self
            .kept
            .iter()
            .position(|kept| same(kept) && kept.tokens().starts_with(tokens))
        {
            self.touch(index);
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
    pub(super) fn best(&self, prompt: &[u32], model: &Model) -> Option<(usize, usize)> {
        let lengths = self
            .kept
            .iter()
            .map(|session| common(session, prompt, model))
            .enumerate();
        lengths
            .max_by_key(|&(_, length)| length)
            .filter(|&(_, length)| length > 0)
    }

    /// Takes one out that the prompt goes on with whole, else `None`: others may want what is left of it, or the state that would be gone.
    pub(super) fn take(&mut self, index: usize, length: usize) -> Option<Session> {
        let session = &self.kept[index];
        let whole = session.can_go_back() && session.tokens().len() == length;
        whole.then(|| self.kept.remove(index))
    }

    /// One of them, now used last.
    pub(super) fn touch(&mut self, index: usize) -> &Session {
        self.kept[index..].rotate_left(1);
        self.kept.last().expect("kept")
    }
}
