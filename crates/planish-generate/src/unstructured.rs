//! A build that makes answers have no form says so.

use crate::{Constraint, Error, Tokenizer};

/// Compiles nothing.
pub struct Grammars;

/// There is none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Grammar {}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Position {}

impl Grammars {
    /// For any tokens.
    ///
    /// # Errors
    /// None.
    pub fn new(_: &Tokenizer, _: usize) -> Result<Grammars, Error> {
        Ok(Grammars)
    }

    /// # Errors
    /// [`Error::Constraint`]
    pub fn compile(&self, _: &Constraint) -> Result<Grammar, Error> {
        Err(Error::Constraint("this build lacks the feature structured".to_owned()))
    }
}

impl Grammar {
    pub(crate) fn begin(&self) -> Position {
        match *self {}
    }
}

impl Position {
    pub(crate) fn allow(&mut self, _: &[u32], _: &mut Vec<u32>) -> Result<(), Error> {
        match *self {}
    }

    pub(crate) fn take(&mut self, _: u32) -> Result<bool, Error> {
        match *self {}
    }
}
