//! Options of a generation, by the names of transformers, mlx-lm and OpenAI.

use planish::{Constraint, GenerationConfig};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use serde_json::Value;

use crate::errors::wrong_type;

/// What a dictionary of options asks for; `None` leaves a choice to the checkpoint. Unknown names are refused.
pub fn config(options: &Bound<'_, PyDict>) -> PyResult<GenerationConfig> {
    let mut config = GenerationConfig::default();
    for (name, value) in options.iter() {
        let name: String = name.extract()?;
        if value.is_none() {
            continue;
        }
        let option = (name.as_str(), &value);
        match name.as_str() {
            "max_tokens" | "max_new_tokens" => config.max_new_tokens = read(option, "a whole number")?,
            "do_sample" => config.do_sample = Some(read(option, "a bool")?),
            "temperature" => config.temperature = Some(number(option)?),
            "top_k" => config.top_k = Some(read(option, "a whole number")?),
            "top_p" => config.top_p = Some(number(option)?),
            "min_p" => config.min_p = Some(number(option)?),
            "top_h" => config.top_h = Some(number(option)?),
            "typical_p" => config.typical_p = Some(number(option)?),
            "epsilon_cutoff" => config.epsilon_cutoff = Some(number(option)?),
            "eta_cutoff" => config.eta_cutoff = Some(number(option)?),
            "repetition_penalty" => config.repetition_penalty = Some(number(option)?),
            "presence_penalty" => config.presence_penalty = Some(number(option)?),
            "frequency_penalty" => config.frequency_penalty = Some(number(option)?),
            "seed" => config.seed = Some(read(option, "a whole number")?),
            "eos_token_id" => config.eos_token_id = Some(ids(option)?),
            "stop" | "stop_strings" => config.stop_strings = Some(texts(option)?),
            "min_new_tokens" => config.min_new_tokens = Some(read(option, "a whole number")?),
            "no_repeat_ngram_size" => config.no_repeat_ngram_size = Some(read(option, "a whole number")?),
            "suppress_tokens" => config.suppress_tokens = Some(ids(option)?),
            "begin_suppress_tokens" => config.begin_suppress_tokens = Some(ids(option)?),
            "bad_words_ids" => config.bad_words_ids = Some(read(option, "lists of token ids")?),
            "max_time" => config.max_time = Some(read(option, "a number of seconds")?),
            "logit_bias" => {
                let biases: std::collections::HashMap<u32, f32> = read(option, "a dict of token ids and numbers")?;
                let mut biases: Vec<(u32, f32)> = biases.into_iter().collect();
                biases.sort_by_key(|(token, _)| *token);
                config.logit_bias = Some(biases);
            }
            "logprobs" => config.logprobs = Some(read(option, "a whole number")?),
            "json_schema" => config.constraint = Some(Constraint::JsonSchema(json(&value)?)),
            "regex" => config.constraint = Some(Constraint::Regex(read(option, "a str")?)),
            "grammar" => config.constraint = Some(Constraint::Grammar(read(option, "a str")?)),
            _ => return Err(PyTypeError::new_err(format!("there is no option {name}"))),
        }
    }
    Ok(config)
}

fn read<'py, T: FromPyObjectOwned<'py>>((name, value): (&str, &Bound<'py, PyAny>), expected: &str) -> PyResult<T> {
    value.extract().map_err(|_| wrong_type(name, expected, value))
}

fn number(option: (&str, &Bound<'_, PyAny>)) -> PyResult<f32> {
    read::<f64>(option, "a number").map(|value| value as f32)
}

/// One id or several.
fn ids(option: (&str, &Bound<'_, PyAny>)) -> PyResult<Vec<u32>> {
    match option.1.extract() {
        Ok(id) => Ok(vec![id]),
        Err(_) => read(option, "token ids"),
    }
}

/// One text or several.
fn texts(option: (&str, &Bound<'_, PyAny>)) -> PyResult<Vec<String>> {
    match option.1.cast::<PyString>() {
        Ok(text) => Ok(vec![text.to_string()]),
        Err(_) => read(option, "a str or a list of them"),
    }
}

/// Python's value as JSON.
///
/// # Errors
/// What has no form in JSON.
pub fn json(value: &Bound<'_, PyAny>) -> PyResult<Value> {
    let text: String = value.py().import("json")?.call_method1("dumps", (value,))?.extract()?;
    serde_json::from_str(&text).map_err(|error| pyo3::exceptions::PyValueError::new_err(error.to_string()))
}
