//! A loaded model: text, logits, likelihoods.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use planish::{
    AutoModelForCausalLM, CacheType, CausalLM, Device, Engine, EngineOptions, EngineRequest, EvaluationOptions,
    LoadOptions, Packing, Recipe, Refusal, Request,
};
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use crate::array::Array;
use crate::checkpoints::MetalConfig;
use crate::errors::{detached, interruptible, panicked, raised, wrong_type, wrong_value};
use crate::options::config;
use crate::progress::Listener;
use crate::stream::{Failure, Inbox, Sender, Stream};
use crate::tokenizer::{Held, Tokenizer, open, token_ids};

/// A model and the engine that answers on it, which starts with the first answer.
#[pyclass(frozen, module = "planish")]
pub struct Model {
    model: CausalLM,
    engine: Mutex<Option<Arc<Engine>>>,
    /// A process that was forked has no thread of an engine, and perhaps a model that is locked for ever.
    process: u32,
}

/// How to load a model, by the names of `planish.load`.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct LoadArguments {
    device: String,
    threads: Option<usize>,
    exact: bool,
    cache: Option<String>,
    quantization_config: Option<MetalConfig>,
    bits: Option<u32>,
    group_size: usize,
    dequantize: bool,
    revision: Option<String>,
    token: Option<String>,
    progress: Option<Py<PyAny>>,
}

impl LoadArguments {
    fn options(&self, py: Python<'_>) -> PyResult<LoadOptions> {
        if self.bits.is_some() && (self.quantization_config.is_some() || self.dequantize) {
            return Err(PyTypeError::new_err("bits: not with quantization_config or dequantize"));
        }
        if self.threads == Some(0) {
            return Err(wrong_value("threads", "a positive number", "0"));
        }
        let recipe = |bits| -> Result<Recipe, planish::Error> {
            let packing = Packing::checked(bits, self.group_size)?;
            Ok(Recipe::for_loading(packing, Vec::new(), Vec::new())?)
        };
        let recipe = self.bits.map(recipe).transpose().map_err(|error| raised(py, &error))?;
        Ok(LoadOptions {
            device: match self.device.as_str() {
                "auto" => Device::Auto,
                "cpu" => Device::Cpu,
                "cuda" => Device::Cuda,
                "metal" | "mps" => Device::Metal,
                other => return Err(wrong_value("device", "auto, cpu, cuda or metal", other)),
            },
            threads: self.threads,
            exact: self.exact,
            cache: match self.cache.as_deref() {
                None => None,
                Some("float32" | "f32") => Some(CacheType::Float32),
                Some("float16" | "f16") => Some(CacheType::Float16),
                Some("int8") => Some(CacheType::Int8),
                Some(other) => return Err(wrong_value("cache", "float32, float16 or int8", other)),
            },
            quantize: recipe,
            dequantize: self.dequantize,
            ..LoadOptions::default()
        })
    }
}

#[pyfunction]
fn load(py: Python<'_>, path: Option<PathBuf>, arguments: LoadArguments) -> PyResult<(Model, Option<Tokenizer>)> {
    let options = arguments.options(py)?;
    let listener = Listener::new(arguments.progress);
    let heard = listener.clone();
    let (revision, token) = (arguments.revision, arguments.token);
    let metal = arguments.quantization_config.map(|config| config.inner);
    let model = interruptible(py, None, move || {
        let source = open(path, revision.as_deref(), token.as_deref(), &heard)?;
        let mut builder = AutoModelForCausalLM::from_source(&source).options(options);
        if let Some(metal) = metal {
            builder = builder.quantization(metal);
        }
        builder.load()
    });
    listener.check()?;
    let model = model?;
    let tokenizer = model
        .tokenizer()
        .is_ok()
        .then(|| Tokenizer::new(Held::Of(model.clone())));
    let model = Model {
        model,
        engine: Mutex::new(None),
        process: std::process::id(),
    };
    Ok((model, tokenizer))
}

impl Model {
    fn check_process(&self) -> PyResult<()> {
        match self.process == std::process::id() {
            true => Ok(()),
            false => Err(PyRuntimeError::new_err(
                "this process was forked after the model was loaded: load it here, or start processes by \"spawn\"",
            )),
        }
    }

    fn engine(&self, py: Python<'_>) -> PyResult<Arc<Engine>> {
        self.check_process()?;
        // Without the interpreter's lock: whoever starts the engine may wait for the model.
        py.detach(|| {
            let mut engine = self.engine.lock().unwrap_or_else(PoisonError::into_inner);
            if engine.as_ref().is_none_or(|engine| engine.is_closed()) {
                let options = EngineOptions {
                    queue: usize::MAX,
                    ..EngineOptions::default()
                };
                *engine = Some(Arc::new(Engine::start(&self.model, options)));
            }
            engine.clone().ok_or_else(panicked)
        })
    }
}

#[pymethods]
impl Model {
    /// Answers prompts side by side. `options` holds those of a generation for all; of the pairs (ids, goes on with a text) each is a prompt.
    /// `quiet`: pieces are taken when all is there. `rings`: a file descriptor says when there is something.
    #[pyo3(signature = (prompts, options, *, quiet = false, rings = false, logits_processor = None))]
    fn stream(
        &self,
        py: Python<'_>,
        prompts: Vec<(Bound<'_, PyAny>, bool)>,
        options: &Bound<'_, PyDict>,
        quiet: bool,
        rings: bool,
        logits_processor: Option<Py<PyAny>>,
    ) -> PyResult<Stream> {
        let config = config(options)?;
        let tells_likeliest = config.logprobs.is_some_and(|likeliest| likeliest > 0);
        let inbox = Inbox::new(quiet);
        let mut requests = Vec::new();
        for (index, (prompt, continues)) in prompts.iter().enumerate() {
            requests.push(EngineRequest {
                request: Request {
                    prompt: token_ids("prompt", prompt)?,
                    config: config.clone(),
                },
                continues: *continues,
                client: Box::new(Sender::new(&inbox, index, tells_likeliest)),
            });
        }
        let stream = Stream::new(Arc::clone(&inbox), requests.len(), rings)?;
        match logits_processor {
            Some(processor) => self.weigh(py, requests, processor, inbox)?,
            None if requests.is_empty() => {}
            None => {
                let engine = self.engine(py)?;
                let submitted = py.detach(|| engine.submit(requests));
                submitted.map_err(|refusal| match refusal {
                    Refusal::Request(error) => raised(py, &error),
                    refusal => PyRuntimeError::new_err(refusal.to_string()),
                })?;
            }
        }
        Ok(stream)
    }

    #[pyo3(signature = (ids, *, last = false))]
    fn logits(&self, py: Python<'_>, ids: &Bound<'_, PyAny>, last: bool) -> PyResult<Array> {
        self.check_process()?;
        let ids = token_ids("ids", ids)?;
        let (model, vocabulary) = (self.model.clone(), self.model.architecture().vocabulary);
        let rows = if last { 1 } else { ids.len() };
        let values = interruptible(py, None, move || {
            if last || ids.is_empty() {
                return model.logits(&ids);
            }
            let mut values = Vec::with_capacity(rows * vocabulary);
            model.logits_from(&ids, 0, &mut |_, logits| values.extend_from_slice(logits))?;
            Ok(values)
        })?;
        Ok(match last {
            true => Array::new(values, &[vocabulary]),
            false => Array::new(values, &[rows, vocabulary]),
        })
    }

    /// Log-likelihood and whether it is greedy, for each pair of context and continuation.
    #[pyo3(signature = (pairs, progress = None))]
    fn likelihoods(
        &self,
        py: Python<'_>,
        pairs: Vec<(Bound<'_, PyAny>, Bound<'_, PyAny>)>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Vec<(f64, bool)>> {
        self.check_process()?;
        let read = |(context, continuation): &(Bound<'_, PyAny>, Bound<'_, PyAny>)| {
            Ok((token_ids("context", context)?, token_ids("continuation", continuation)?))
        };
        let pairs: Vec<(Vec<u32>, Vec<u32>)> = pairs.iter().map(read).collect::<PyResult<_>>()?;
        let (listener, model, total) = (Listener::new(progress), self.model.clone(), pairs.len());
        let heard = listener.clone();
        let found = interruptible(py, Some(listener.stop()), move || {
            model.likelihoods(&pairs, &mut |done| {
                heard.tell(done as u64, total as u64, "continuations");
                match heard.stop().load(std::sync::atomic::Ordering::Relaxed) {
                    true => ControlFlow::Break(()),
                    false => ControlFlow::Continue(()),
                }
            })
        });
        listener.check()?;
        let found = found?.into_iter().flatten();
        Ok(found.map(|found| (found.log_likelihood, found.is_greedy)).collect())
    }

    /// Perplexity of a text in chunks of tokens, and divergence from a reference.
    fn evaluate<'py>(
        &self,
        py: Python<'py>,
        text: String,
        reference: Option<&Model>,
        context: usize,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyDict>> {
        self.check_process()?;
        let (listener, model) = (Listener::new(progress), self.model.clone());
        let (heard, reference) = (listener.clone(), reference.map(|reference| reference.model.clone()));
        let found = interruptible(py, None, move || {
            let chunks = model.tokenizer()?.chunks(&text, context)?;
            let options = EvaluationOptions {
                reference: reference.as_ref(),
                ..EvaluationOptions::default()
            };
            model.evaluate(&chunks, &options, &mut |progress| {
                heard.tell(progress.done as u64, progress.total as u64, "chunks");
            })
        });
        listener.check()?;
        let found = found?;
        let result = PyDict::new(py);
        result.set_item("perplexity", found.perplexity)?;
        result.set_item("scored_tokens", found.scored_tokens)?;
        result.set_item("interval", found.interval.map(|interval| (interval.low, interval.high)))?;
        let beside = found.comparison;
        result.set_item("reference_perplexity", beside.map(|beside| beside.perplexity))?;
        result.set_item("kl", beside.map(|beside| beside.mean_kl_divergence))?;
        let interval = beside.and_then(|beside| beside.interval);
        result.set_item("kl_interval", interval.map(|interval| (interval.low, interval.high)))?;
        result.set_item("kl_percentile_99", beside.map(|beside| beside.percentile_99))?;
        result.set_item("top1", beside.map(|beside| beside.top1_agreement))?;
        result.set_item("top5", beside.map(|beside| beside.top5_agreement))?;
        Ok(result)
    }

    #[getter]
    fn vocab_size(&self) -> usize {
        self.model.architecture().vocabulary
    }

    #[getter]
    fn context(&self) -> usize {
        self.model.architecture().context
    }

    #[getter]
    fn device(&self) -> String {
        self.model.device().to_owned()
    }

    #[getter]
    fn threads(&self) -> usize {
        self.model.threads()
    }

    /// What the user should know: a GPU that was not taken, wishes of the checkpoint that are not followed.
    #[getter]
    fn notices(&self) -> Vec<String> {
        let notice = self.model.notice().map(ToString::to_string);
        notice
            .into_iter()
            .chain(self.model.generation_notices().iter().cloned())
            .collect()
    }

    /// Bytes: on a device of its own, and what answers remember.
    fn memory<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        self.check_process()?;
        let device = detached(py, || Ok(self.model.device_memory()))?;
        let cache = py.detach(|| {
            let engine = self.engine.lock().unwrap_or_else(PoisonError::into_inner);
            engine.as_ref().map_or(0, |engine| engine.status().cache_bytes)
        });
        let result = PyDict::new(py);
        result.set_item("cache", cache)?;
        result.set_item("process_peak", crate::memory::peak_bytes())?;
        result.set_item("device_weights", device.as_ref().map(|device| device.weights))?;
        result.set_item("device_workspace", device.as_ref().map(|device| device.workspace))?;
        result.set_item("device_sequences", device.as_ref().map(|device| device.sequences))?;
        Ok(result)
    }
}

impl Model {
    /// For the server: a clone of the model.
    pub fn causal_lm(&self) -> PyResult<CausalLM> {
        self.check_process()?;
        Ok(self.model.clone())
    }

    /// Answers one request after the other on a thread, where Python's function sees the logits of each token.
    fn weigh(
        &self,
        py: Python<'_>,
        requests: Vec<EngineRequest>,
        processor: Py<PyAny>,
        inbox: Arc<Inbox>,
    ) -> PyResult<()> {
        self.check_process()?;
        for request in &requests {
            let request = &request.request;
            detached(py, || self.model.check(request).map(drop))?;
        }
        let model = self.model.clone();
        let thread = std::thread::Builder::new().name("planish-answer".to_owned());
        thread.spawn(move || {
            for request in requests {
                let mut weigh = |ids: &[u32], logits: &mut [f32]| {
                    let weighed = Python::attach(|py| processed(py, &processor, ids, logits));
                    match weighed {
                        Ok(()) => ControlFlow::Continue(()),
                        Err(error) => {
                            inbox.fail(Failure::Python(error));
                            ControlFlow::Break(())
                        }
                    }
                };
                if let Err(error) = model.answer_weighed(request, &mut weigh) {
                    inbox.fail(Failure::Library(error.kind(), error.to_string()));
                }
            }
        })?;
        Ok(())
    }
}

/// Hands ids and logits to a function of Python, which changes the logits or returns others.
fn processed(py: Python<'_>, processor: &Py<PyAny>, ids: &[u32], logits: &mut [f32]) -> PyResult<()> {
    let array = Bound::new(py, Array::new(logits.to_vec(), &[logits.len()]))?;
    let result = processor.bind(py).call1((PyList::new(py, ids)?, &array))?;
    if result.is_none() {
        logits.copy_from_slice(&array.get().to_vec());
        return Ok(());
    }
    let expected = "float32 values, one for each token of the vocabulary";
    let buffer = PyBuffer::<f32>::get(&result).map_err(|_| wrong_type("logits_processor", expected, &result))?;
    if buffer.item_count() != logits.len() {
        return Err(wrong_value(
            "logits_processor",
            expected,
            &format!("{} values", buffer.item_count()),
        ));
    }
    buffer.copy_to_slice(py, logits)
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Model>()?;
    module.add_function(wrap_pyfunction!(load, module)?)
}
