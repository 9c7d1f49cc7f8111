//! Constraints on the tokens of a vocabulary, by llguidance.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{TokRxInfo, TokTrie, TokenId, TokenizerEnv};
use llguidance::{Matcher, ParserFactory};
use serde_json::{Value, json};

use crate::foreign::guarded;
use crate::{Constraint, Error, Tokenizer};

/// Compiled grammars that are remembered, at most.
const REMEMBERED: usize = 64;
/// Bytes of a constraint, at most.
const MOST_BYTES: usize = 256 << 10;
/// For compiling one.
const COMPILE_TIME: Duration = Duration::from_secs(10);
/// That are compiled at a time, those that nobody waits for any more among them.
const MOST_COMPILING: usize = 4;
/// Schemas nest.
const STACK_BYTES: usize = 64 << 20;
/// Before the name of a token that no text has.
const SPECIAL: u8 = TokTrie::SPECIAL_TOKEN_MARKER;

/// Compiles constraints for the vocabulary of a model.
pub struct Grammars {
    shared: Arc<Shared>,
    vocabulary: usize,
}

struct Shared {
    factory: ParserFactory,
    /// The one used last at the end.
    known: Mutex<Vec<(Constraint, Grammar)>>,
    compiling: Mutex<usize>,
    compiled: Condvar,
}

/// A constraint that was compiled.
#[derive(Clone)]
pub struct Grammar {
    start: Arc<Mutex<Matcher>>,
    vocabulary: usize,
}

impl PartialEq for Grammar {
    fn eq(&self, other: &Grammar) -> bool {
        Arc::ptr_eq(&self.start, &other.start)
    }
}

impl fmt::Debug for Grammar {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Grammar").finish_non_exhaustive()
    }
}

/// Tokens as the library asks for them.
struct Tokens {
    trie: TokTrie,
    tokenizer: Tokenizer,
}

impl TokenizerEnv for Tokens {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<TokenId> {
        let encode = |text: &str| self.tokenizer.encode_as_text(text).unwrap_or_default();
        self.trie.tokenize_with_greedy_fallback(bytes, encode)
    }

    /// A text in the middle of another may be cut otherwise than alone.
    fn tokenize_is_canonical(&self) -> bool {
        false
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn refused(what: impl fmt::Display) -> Error {
    Error::Constraint(what.to_string())
}

impl Grammars {
    /// For the tokens of a tokenizer, in a model with logits for so many.
    ///
    /// # Errors
    /// [`Error::Constraint`] for a vocabulary that the library cannot work with.
    pub fn new(tokenizer: &Tokenizer, vocabulary: usize) -> Result<Grammars, Error> {
        let word = |id: u32| match tokenizer.token_bytes(id) {
            None => Vec::new(),
            Some(bytes) if tokenizer.is_mark(id) => [&[SPECIAL], bytes.as_slice()].concat(),
            Some(bytes) => bytes,
        };
        let mut words: Vec<Vec<u8>> = (0..vocabulary as u32).map(word).collect();
        // The end of a text, which is of no vocabulary: sessions know their own.
        words.push(Vec::new());
        let make = || -> Result<ParserFactory, Box<dyn std::error::Error + Send + Sync>> {
            let trie = TokTrie::from(&TokRxInfo::new(words.len() as u32, vocabulary as u32), &words);
            let tokens = Tokens {
                trie,
                tokenizer: tokenizer.clone(),
            };
            let mut factory = ParserFactory::new_simple(&(Arc::new(tokens) as _))?;
            factory.quiet();
            let limits = factory.limits_mut();
            limits.verbose_errors = false;
            Ok(factory)
        };
        let factory = guarded(make).map_err(refused)?.map_err(refused)?;
        Ok(Grammars {
            shared: Arc::new(Shared {
                factory,
                known: Mutex::default(),
                compiling: Mutex::new(0),
                compiled: Condvar::new(),
            }),
            vocabulary,
        })
    }

    /// The grammar of a constraint, compiled on a thread of its own in bounded time.
    ///
    /// # Errors
    /// [`Error::Constraint`] for one that is malformed, uses what is not known, or is too large.
    pub fn compile(&self, constraint: &Constraint) -> Result<Grammar, Error> {
        if let Some(known) = self.known(constraint) {
            return Ok(known);
        }
        let bytes = constraint.len();
        if bytes > MOST_BYTES {
            return Err(refused(format!("it has {bytes} bytes, expected at most {MOST_BYTES}")));
        }
        self.shared.take_place()?;
        let (sender, receiver) = mpsc::channel();
        let (shared, own) = (Arc::clone(&self.shared), constraint.clone());
        let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
        let spawned = thread.name("planish-grammar".to_owned()).spawn(move || {
            let compiled = guarded(|| shared.compile(&own));
            shared.leave_place();
            // Whoever asked may have given up.
            let _ = sender.send(compiled);
        });
        if let Err(error) = spawned {
            self.shared.leave_place();
            return Err(refused(format!("no thread for it: {error}")));
        }
        let seconds = COMPILE_TIME.as_secs();
        let compiled = receiver
            .recv_timeout(COMPILE_TIME)
            .map_err(|_| refused(format!("it was not compiled in {seconds} s")))?;
        let matcher = compiled.map_err(refused)??;
        let grammar = Grammar {
            start: Arc::new(Mutex::new(matcher)),
            vocabulary: self.vocabulary,
        };
        let mut known = lock(&self.shared.known);
        if known.len() == REMEMBERED {
            known.remove(0);
        }
        known.push((constraint.clone(), grammar.clone()));
        Ok(grammar)
    }

    fn known(&self, constraint: &Constraint) -> Option<Grammar> {
        let mut known = lock(&self.shared.known);
        let index = known.iter().position(|(other, _)| other == constraint)?;
        known[index..].rotate_left(1);
        known.last().map(|(_, grammar)| grammar.clone())
    }
}

impl Shared {
    /// Waits until few enough are being compiled.
    fn take_place(&self) -> Result<(), Error> {
        let full = |compiling: &mut usize| *compiling >= MOST_COMPILING;
        let waited = self
            .compiled
            .wait_timeout_while(lock(&self.compiling), COMPILE_TIME, full);
        let (mut compiling, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() {
            return Err(refused("too many others are being compiled: try again later"));
        }
        *compiling += 1;
        Ok(())
    }

    fn leave_place(&self) {
        *lock(&self.compiling) -= 1;
        self.compiled.notify_one();
    }

    fn compile(&self, constraint: &Constraint) -> Result<Matcher, Error> {
        let grammar = match constraint {
            Constraint::JsonObject => TopLevelGrammar::from_json_schema(spaced(json!({"type": "object"}))),
            Constraint::JsonSchema(schema) => TopLevelGrammar::from_json_schema(spaced(schema.clone())),
            Constraint::Regex(expression) => TopLevelGrammar::from_regex(expression),
            Constraint::Grammar(grammar) => TopLevelGrammar::from_lark(grammar.clone()),
        };
        let matcher = Matcher::new(self.factory.create_parser(grammar));
        match matcher.get_error() {
            Some(error) => Err(refused(error)),
            None => Ok(matcher),
        }
    }
}

/// The schema, with one way to put spaces: models could go on with them for ever.
pub(crate) fn spaced(schema: Value) -> Value {
    match schema {
        Value::Object(mut schema) => {
            let spaces = json!({"whitespace_flexible": false, "item_separator": ", ", "key_separator": ": "});
            schema.insert("x-guidance".to_owned(), spaces);
            Value::Object(schema)
        }
        other => other,
    }
}

impl Constraint {
    fn len(&self) -> usize {
        match self {
            Constraint::JsonObject => 0,
            Constraint::JsonSchema(schema) => schema.to_string().len(),
            Constraint::Regex(text) | Constraint::Grammar(text) => text.len(),
        }
    }
}

impl Grammar {
    pub(crate) fn begin(&self) -> Position {
        Position {
            matcher: lock(&self.start).deep_clone(),
            vocabulary: self.vocabulary,
        }
    }
}

/// Where an answer is in its grammar.
#[derive(Clone)]
pub(crate) struct Position {
    matcher: Matcher,
    vocabulary: usize,
}

impl fmt::Debug for Position {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Position").finish_non_exhaustive()
    }
}

impl Position {
    /// Writes the tokens that may follow, and those of `ends` where the answer may end.
    pub(crate) fn allow(&mut self, ends: &[u32], words: &mut Vec<u32>) -> Result<(), Error> {
        let mask = self.matcher.compute_mask_or_eos().map_err(refused)?;
        words.clear();
        words.extend_from_slice(&mask.as_slice()[..self.vocabulary.div_ceil(32)]);
        // The end that the library knows is no token.
        if let (Some(last), rest @ 1..) = (words.last_mut(), self.vocabulary % 32) {
            *last &= (1 << rest) - 1;
        }
        let may_end = self.matcher.is_accepting().map_err(refused)?;
        for &end in ends.iter().filter(|end| (**end as usize) < self.vocabulary) {
            let (word, bit) = (&mut words[end as usize / 32], 1 << (end % 32));
            match may_end {
                true => *word |= bit,
                false => *word &= !bit,
            }
        }
        Ok(())
    }

    /// Goes on by a token. Whether nothing can follow.
    pub(crate) fn take(&mut self, token: u32) -> Result<bool, Error> {
        self.matcher.consume_token(token).map_err(refused)?;
        Ok(self.matcher.is_stopped())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FAMILIES, Family, Files, PLAIN, Shape, Tool, ToolChoice, constraint_of_calls};

    fn tokenizer() -> Tokenizer {
        let demo = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/demo/tokenizer.json");
        let files = Files {
            tokenizer: Some(std::fs::read(demo).unwrap()),
            ..Files::default()
        };
        Tokenizer::new(&files).unwrap()
    }

    /// Whether all of the text follows the grammar, and may end there.
    fn follows(grammars: &Grammars, constraint: &Constraint, tokenizer: &Tokenizer, text: &str) -> bool {
        let mut position = grammars.compile(constraint).unwrap().begin();
        let mut words = Vec::new();
        for token in tokenizer.encode_plain(text).unwrap() {
            position.allow(&[], &mut words).unwrap();
            if words[token as usize / 32] & (1 << (token % 32)) == 0 {
                return false;
            }
            if position.take(token).unwrap() {
                return tokenizer.decode(&[token]).is_ok_and(|last| text.ends_with(&last));
            }
        }
        position.allow(&[1], &mut words).unwrap();
        words[0] & 2 != 0
    }

    /// A call with a text and a number, and one without the number, which is needed.
    fn transcripts(family: &Family) -> Option<[String; 2]> {
        let whole = |text: &str| text.to_owned();
        let object = |key: &str, number: &str| format!(r#"{{"name": "say", "{key}": {{"text": "a <b>\\n"{number}}}}}"#);
        let json = |number: &str| format!(r#"{{"text": "a <b>\\n"{number}}}"#);
        let bodies = [", \"times\": 3", ""].map(|number| match family.shape {
            Shape::Object(key) => Some(object(key, number)),
            Shape::List(key) => Some(format!("[{}]", object(key, number))),
            Shape::Named { before, separator, end } => Some(format!("{before}say{separator}{}{end}", json(number))),
            Shape::Tags(marks) => {
                let part = |key: &str, value: &str| {
                    let ((k0, k1), (v0, v1)) = (marks.key, marks.value);
                    format!("{k0}{key}{k1}{v0}{value}{v1}")
                };
                let times = if number.is_empty() {
                    whole("")
                } else {
                    part("times", "3")
                };
                let name = format!("{}say{}", marks.name.0, marks.name.1);
                Some(format!("{name}{}{times}{}", part("text", "a <b>\n"), marks.end))
            }
            Shape::Python => Some(format!(
                "[say(text=\"a <b>\"{})]",
                number.replace("\"times\": ", "times=")
            )),
            Shape::Braces(quote) => {
                let times = if number.is_empty() { "" } else { ",times:3" };
                Some(format!("call:say{{text:{quote}a <b>{quote}{times}}}"))
            }
            Shape::Channels => None,
        });
        let around = |body: String| format!("{}{}{body}{}{}", family.before, family.open, family.close, family.after);
        let [right, wrong] = bodies;
        Some([around(right?), around(wrong?)])
    }

    #[test]
    fn grammars_of_calls_take_what_families_write() {
        let tokenizer = tokenizer();
        let grammars = Grammars::new(&tokenizer, 4096).unwrap();
        let tools = [Tool {
            name: "say".to_owned(),
            description: None,
            parameters: json!({"type": "object", "properties": {"text": {"type": "string"}, "times": {"type": "integer"}},
                "required": ["times"], "additionalProperties": false}),
        }];
        let choice = (&ToolChoice::Required, true);
        for family in FAMILIES.iter().chain([&PLAIN]) {
            let Some([right, wrong]) = transcripts(family) else {
                continue;
            };
            let constraint = constraint_of_calls(&tokenizer, family, &tools, choice, None).unwrap();
            let follows = |text: &str| follows(&grammars, &constraint, &tokenizer, text);
            assert!(follows(&right), "{}: {right} by {constraint:?}", family.name);
            assert!(!follows(&wrong), "{}: {wrong}", family.name);
            assert!(!follows("No."), "{}", family.name);
        }
    }
}
