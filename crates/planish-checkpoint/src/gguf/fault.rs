//! What is wrong inside a GGUF file, before the file is named: the parser works on bytes, `at` adds the path.

use std::path::Path;

use crate::Error;

/// Two kinds that users act on differently: a damaged file, and a good one that planish does not read.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Fault {
    Malformed(String),
    Unsupported(String),
}

impl Fault {
    pub fn malformed(what: impl Into<String>) -> Fault {
        Fault::Malformed(what.into())
    }

    pub fn unsupported(what: impl Into<String>) -> Fault {
        Fault::Unsupported(what.into())
    }

    /// A metadata key that lacks, or has another type or value.
    pub fn key(key: &str, expected: &str, found: impl std::fmt::Display) -> Fault {
        Fault::Malformed(format!("metadata key `{key}`: expected {expected}, found {found}"))
    }

    /// Names the file.
    pub fn at(self, path: &Path) -> Error {
        match self {
            Fault::Malformed(what) => Error::malformed(path, what),
            Fault::Unsupported(what) => Error::unsupported(path, what),
        }
    }
}
