//! Text to tokens and back.

use std::path::PathBuf;

use planish::{AutoTokenizer, Source};
use pyo3::prelude::*;

use crate::errors::detached;

/// The tokenizer of a model and its chat template.
#[pyclass(frozen, module = "planish")]
struct Tokenizer {
    inner: AutoTokenizer,
}

#[pymethods]
impl Tokenizer {
    #[pyo3(signature = (text, *, add_special_tokens = true))]
    fn encode(&self, py: Python<'_>, text: &str, add_special_tokens: bool) -> PyResult<Vec<u32>> {
        detached(py, || match add_special_tokens {
            true => self.inner.encode(text),
            false => Ok(self.inner.tokenizer().encode_plain(text)?),
        })
    }

    #[pyo3(signature = (ids, *, skip_special_tokens = true))]
    fn decode(&self, py: Python<'_>, ids: Vec<u32>, skip_special_tokens: bool) -> PyResult<String> {
        detached(py, || match skip_special_tokens {
            true => self.inner.decode(&ids),
            false => Ok(self.inner.tokenizer().decode_with_special_tokens(&ids)?),
        })
    }
}

#[pyfunction]
#[pyo3(signature = (path_or_hf_repo = None, *, revision = None))]
fn load_tokenizer(py: Python<'_>, path_or_hf_repo: Option<PathBuf>, revision: Option<String>) -> PyResult<Tokenizer> {
    let inner = detached(py, || {
        let source = match &path_or_hf_repo {
            Some(model) => Source::open_revision(model, revision.as_deref(), &mut |_| {})?,
            None => Source::demo()?,
        };
        AutoTokenizer::from_source(&source)
    })?;
    Ok(Tokenizer { inner })
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Tokenizer>()?;
    module.add_function(wrap_pyfunction!(load_tokenizer, module)?)
}
