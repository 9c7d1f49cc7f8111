//! Text to tokens and back, and chat templates.

use std::path::PathBuf;
use std::sync::Arc;

use planish::{AutoTokenizer, CausalLM, Error, Message, Source, TemplateInput, Window};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use serde_json::{Map, Value};

use crate::errors::{detached, interruptible, wrong_type};
use crate::options::json;
use crate::progress::Listener;

/// A tokenizer of its own or that of a model.
#[derive(Clone)]
pub enum Held {
    Own(Arc<AutoTokenizer>),
    Of(CausalLM),
}

impl Held {
    fn get(&self) -> Result<&AutoTokenizer, Error> {
        match self {
            Held::Own(tokenizer) => Ok(tokenizer),
            Held::Of(model) => model.tokenizer(),
        }
    }
}

#[pyclass(frozen, subclass, module = "planish")]
pub struct Tokenizer {
    held: Held,
}

impl Tokenizer {
    pub fn new(held: Held) -> Tokenizer {
        Tokenizer { held }
    }

    fn special(&self, role: &str) -> Result<Option<String>, Error> {
        let roles = self.held.get()?.tokenizer().special_tokens();
        Ok(roles
            .iter()
            .find(|(name, _)| name == role)
            .map(|(_, text)| text.clone()))
    }

    fn special_id(&self, role: &str) -> Result<Option<u32>, Error> {
        let text = self.special(role)?;
        let tokenizer = self.held.get()?.tokenizer();
        Ok(text.and_then(|text| tokenizer.id(&text)))
    }
}

#[pymethods]
impl Tokenizer {
    #[pyo3(signature = (text, *, add_special_tokens = true))]
    fn encode(&self, py: Python<'_>, text: &str, add_special_tokens: bool) -> PyResult<Vec<u32>> {
        detached(py, || match add_special_tokens {
            true => self.held.get()?.encode(text),
            false => Ok(self.held.get()?.tokenizer().encode_plain(text)?),
        })
    }

    #[pyo3(signature = (ids, *, skip_special_tokens = true))]
    fn decode(&self, py: Python<'_>, ids: &Bound<'_, PyAny>, skip_special_tokens: bool) -> PyResult<String> {
        let ids = match ids.extract::<u32>() {
            Ok(id) => vec![id],
            Err(_) => token_ids("ids", ids)?,
        };
        detached(py, || match skip_special_tokens {
            true => self.held.get()?.decode(&ids),
            false => Ok(self.held.get()?.tokenizer().decode_with_special_tokens(&ids)?),
        })
    }

    /// Messages through the chat template, as ids or as text; `variables` are further ones of the template.
    fn conversation(
        &self,
        py: Python<'_>,
        messages: &Bound<'_, PyAny>,
        tools: &Bound<'_, PyAny>,
        options: (bool, bool),
        variables: &Bound<'_, PyAny>,
    ) -> PyResult<Py<PyAny>> {
        let (add_generation_prompt, tokenize) = options;
        let Value::Array(list) = json(messages)? else {
            return Err(wrong_type("messages", "a list of dicts", messages));
        };
        let message = |value: Value| match value {
            Value::Object(fields) => Ok(Message::from_fields(fields)),
            _ => Err(PyTypeError::new_err("messages: expected a list of dicts")),
        };
        let messages: Vec<Message> = list.into_iter().map(message).collect::<PyResult<_>>()?;
        let tools = match json(tools)? {
            Value::Null => None,
            Value::Array(tools) => Some(tools),
            _ => return Err(wrong_type("tools", "a list of JSON schemas", tools)),
        };
        let variables: Map<String, Value> = match json(variables)? {
            Value::Object(variables) => variables,
            _ => return Err(wrong_type("variables", "a dict", variables)),
        };
        let input = TemplateInput {
            add_generation_prompt,
            tools,
            variables,
            ..TemplateInput::default()
        };
        if tokenize {
            let ids = detached(py, || self.held.get()?.encode_conversation(&messages, &input))?;
            return Ok(ids.into_pyobject(py)?.unbind());
        }
        let text = detached(py, || self.held.get()?.render_conversation(&messages, &input))?;
        Ok(text.into_pyobject(py)?.into_any().unbind())
    }

    #[pyo3(signature = (context = Vec::new()))]
    fn detokenizer(&self, py: Python<'_>, context: Vec<u32>) -> PyResult<Detokenizer> {
        let window = detached(py, || Ok(Window::after(self.held.get()?.tokenizer(), &context)?))?;
        Ok(Detokenizer {
            held: self.held.clone(),
            window,
        })
    }

    #[getter]
    fn vocab_size(&self, py: Python<'_>) -> PyResult<usize> {
        detached(py, || Ok(self.held.get()?.tokenizer().vocabulary_size()))
    }

    #[getter]
    fn has_chat_template(&self, py: Python<'_>) -> PyResult<bool> {
        detached(py, || Ok(self.held.get()?.has_chat_template()))
    }

    #[getter]
    fn chat_template(&self, py: Python<'_>) -> PyResult<Option<String>> {
        detached(py, || Ok(self.held.get()?.chat_template_text().map(str::to_owned)))
    }

    #[getter]
    fn eos_token(&self, py: Python<'_>) -> PyResult<Option<String>> {
        detached(py, || self.special("eos_token"))
    }

    #[getter]
    fn eos_token_id(&self, py: Python<'_>) -> PyResult<Option<u32>> {
        detached(py, || self.special_id("eos_token"))
    }

    #[getter]
    fn bos_token(&self, py: Python<'_>) -> PyResult<Option<String>> {
        detached(py, || self.special("bos_token"))
    }

    #[getter]
    fn bos_token_id(&self, py: Python<'_>) -> PyResult<Option<u32>> {
        detached(py, || self.special_id("bos_token"))
    }

    fn convert_tokens_to_ids(&self, py: Python<'_>, token: &str) -> PyResult<Option<u32>> {
        detached(py, || Ok(self.held.get()?.tokenizer().id(token)))
    }
}

/// Tokens to text as they come.
#[pyclass(module = "planish")]
pub struct Detokenizer {
    held: Held,
    window: Window,
}

#[pymethods]
impl Detokenizer {
    fn add(&mut self, py: Python<'_>, token: u32) -> PyResult<String> {
        let Detokenizer { held, window } = self;
        detached(py, || Ok(window.push(held.get()?.tokenizer(), token)?))
    }

    fn finish(&mut self, py: Python<'_>) -> PyResult<String> {
        let Detokenizer { held, window } = self;
        detached(py, || Ok(window.finish(held.get()?.tokenizer())?))
    }
}

/// Token ids out of a list, or out of an array that can be made one.
pub fn token_ids(name: &str, value: &Bound<'_, PyAny>) -> PyResult<Vec<u32>> {
    let list = match value.hasattr("tolist")? {
        true => value.call_method0("tolist")?,
        false => value.clone(),
    };
    list.extract()
        .map_err(|_| wrong_type(name, "a list of token ids", value))
}

#[pyfunction]
fn tokenizer(
    py: Python<'_>,
    path: Option<PathBuf>,
    revision: Option<String>,
    token: Option<String>,
    progress: Option<Py<PyAny>>,
) -> PyResult<Tokenizer> {
    let listener = Listener::new(progress);
    let heard = listener.clone();
    let inner = interruptible(py, None, move || {
        let source = open(path, revision.as_deref(), token.as_deref(), &heard)?;
        AutoTokenizer::from_source(&source)
    });
    listener.check()?;
    Ok(Tokenizer::new(Held::Own(Arc::new(inner?))))
}

/// Opens a model by name; without one, the model inside.
pub fn open(
    path: Option<PathBuf>,
    revision: Option<&str>,
    token: Option<&str>,
    listener: &Listener,
) -> Result<Source, Error> {
    match path {
        Some(path) => Source::open_as(path, revision, token, &mut |step| listener.download(step)),
        None => Source::demo(),
    }
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Tokenizer>()?;
    module.add_class::<Detokenizer>()?;
    module.add_function(wrap_pyfunction!(tokenizer, module)?)
}
