//! Whole checkpoints: quantize, convert, dequantize, inspect; and `MetalConfig`.

use std::path::PathBuf;

use planish::{
    CalibratedProgress, CodeChoice, Device, Encoder, FloatMode, FloatType, Method, Output, Override, Packing,
    Quantizing, QuantizingStep, Recipe, Report, Sensitivities, Source, Target, Widths,
};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use serde_json::Value;

use crate::errors::{interruptible, raised, wrong_type, wrong_value};
use crate::options::json;
use crate::progress::Listener;
use crate::tokenizer::open;

#[pyclass(frozen, eq, from_py_object, module = "planish")]
#[derive(Clone, PartialEq)]
pub struct MetalConfig {
    pub inner: planish::MetalConfig,
}

#[pymethods]
impl MetalConfig {
    #[new]
    #[pyo3(signature = (bits = 4, group_size = 64, modules_to_not_convert = None, dequantize = false))]
    fn new(
        py: Python<'_>,
        bits: u32,
        group_size: usize,
        modules_to_not_convert: Option<Vec<String>>,
        dequantize: bool,
    ) -> PyResult<MetalConfig> {
        let inner = planish::MetalConfig {
            bits,
            group_size,
            modules_to_not_convert,
            dequantize,
        };
        inner.validate().map_err(|error| raised(py, &error))?;
        Ok(MetalConfig { inner })
    }

    #[getter]
    fn quant_method(&self) -> &'static str {
        "metal"
    }

    #[getter]
    fn bits(&self) -> u32 {
        self.inner.bits
    }

    #[getter]
    fn group_size(&self) -> usize {
        self.inner.group_size
    }

    #[getter]
    fn modules_to_not_convert(&self) -> Option<Vec<String>> {
        self.inner.modules_to_not_convert.clone()
    }

    #[getter]
    fn dequantize(&self) -> bool {
        self.inner.dequantize
    }

    fn to_dict(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let text = Value::from(self.inner.to_dict()).to_string();
        Ok(py.import("json")?.call_method1("loads", (text,))?.unbind())
    }

    fn to_json_string(&self) -> String {
        self.inner.to_json_string()
    }

    #[staticmethod]
    fn from_dict(py: Python<'_>, config_dict: &Bound<'_, PyAny>) -> PyResult<MetalConfig> {
        let Value::Object(fields) = json(config_dict)? else {
            return Err(wrong_type("config_dict", "a dict", config_dict));
        };
        let inner = planish::MetalConfig::from_dict(&fields).map_err(|error| raised(py, &error))?;
        Ok(MetalConfig { inner })
    }

    fn __repr__(&self) -> String {
        format!("MetalConfig {}", self.inner.to_json_string().trim_end())
    }
}

/// How codes are chosen: the recipe's rule, and what the model runs for.
fn method(name: &str, imatrix: Option<PathBuf>) -> PyResult<(Method, CodeChoice)> {
    let (method, choice) = match (name, imatrix) {
        ("weighted", Some(path)) => return Ok((Method::Search, CodeChoice::Imatrix(path))),
        (_, Some(_)) => return Err(wrong_value("imatrix", "method=\"weighted\" with it", name)),
        ("search", None) => (Method::Search, CodeChoice::ByRecipe),
        ("weighted", None) => (Method::Search, CodeChoice::Weighted),
        ("calibrated", None) => (Method::Search, CodeChoice::Calibrated),
        ("transformers", None) => (Method::Peer(Encoder::Transformers), CodeChoice::ByRecipe),
        ("mlx", None) => (Method::Peer(Encoder::MlxMetal), CodeChoice::ByRecipe),
        ("mlx-cpu", None) => (Method::Peer(Encoder::MlxCpu), CodeChoice::ByRecipe),
        _ => {
            let known = "search, weighted, calibrated, transformers, mlx or mlx-cpu";
            return Err(wrong_value("method", known, name));
        }
    };
    Ok((method, choice))
}

/// What codes of MLX are: none for whole numbers.
fn mode(name: &str) -> PyResult<Option<FloatMode>> {
    Ok(match name {
        "affine" => None,
        "mxfp4" => Some(FloatMode::Mxfp4),
        "mxfp8" => Some(FloatMode::Mxfp8),
        "nvfp4" => Some(FloatMode::Nvfp4),
        other => return Err(wrong_value("mode", "affine, mxfp4, mxfp8 or nvfp4", other)),
    })
}

/// What chooses codes.
fn device(name: &str) -> PyResult<Device> {
    match name {
        "auto" => Ok(Device::Auto),
        "cpu" => Ok(Device::Cpu),
        "cuda" => Ok(Device::Cuda),
        other => Err(wrong_value("device", "auto, cpu or cuda", other)),
    }
}

/// Where a checkpoint comes from and goes to.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Files {
    src: Option<PathBuf>,
    out: PathBuf,
    force: bool,
    resume: bool,
    revision: Option<String>,
    token: Option<String>,
    progress: Option<Py<PyAny>>,
}

#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Packed {
    bits: Option<u32>,
    group_size: Option<usize>,
    format: String,
    mode: String,
    method: String,
    text: Option<String>,
    text_tokens: usize,
    seed: u64,
    imatrix: Option<PathBuf>,
    budget: Option<f64>,
    budget_tokens: usize,
    recipe: Option<String>,
    include: Vec<String>,
    exclude: Vec<String>,
    overrides: Vec<String>,
    dtype: Option<String>,
    device: String,
    allow_nan: bool,
}

/// Bits of codes where nothing is said.
const DEFAULT_BITS: u32 = 4;

impl Packed {
    /// What was asked for, checked as far as that goes without the model.
    fn quantizing(mut self, py: Python<'_>) -> PyResult<Quantizing> {
        let (method, choice) = method(&self.method, self.imatrix.take())?;
        let widths = self.widths(py)?;
        let runs = matches!(choice, CodeChoice::Weighted | CodeChoice::Calibrated) || self.budget.is_some();
        if self.text.is_some() && !runs {
            let with = "method=\"weighted\" or \"calibrated\", or a budget, with it";
            return Err(wrong_value("text", with, "given"));
        }
        let recipe = self.recipe(py, widths.as_ref(), method)?;
        Ok(Quantizing {
            recipe,
            choice,
            widths,
            text: self.text.map(|text| ("a text".to_owned(), text)),
            text_tokens: self.text_tokens,
            seed: self.seed,
            device: device(&self.device)?,
        })
    }

    fn widths(&self, py: Python<'_>) -> PyResult<Option<Widths>> {
        let widths = match (self.budget, &self.recipe) {
            (None, None) => return Ok(None),
            (Some(_), Some(name)) => return Err(wrong_value("recipe", "none beside a budget", name)),
            (Some(bits), None) => Widths::Budget {
                bits,
                tokens: self.budget_tokens,
                known: Sensitivities::default(),
            },
            (None, Some(name)) => Widths::of_recipe(name).map_err(|error| raised(py, &error))?,
        };
        if let Some(bits) = self.bits {
            return Err(wrong_value(
                "bits",
                "none beside a budget or a recipe",
                &bits.to_string(),
            ));
        }
        if let (Widths::File(_), Some(group)) = (&widths, self.group_size) {
            return Err(wrong_value(
                "group_size",
                "none beside a recipe of a file",
                &group.to_string(),
            ));
        }
        if self.format != "mlx" {
            let why = "mlx for widths by layer, since the metal format has one for all";
            return Err(wrong_value("format", why, &self.format));
        }
        Ok(Some(widths))
    }

    fn recipe(&self, py: Python<'_>, widths: Option<&Widths>, method: Method) -> PyResult<Recipe> {
        let target = target("format", &self.format)?;
        let packing = match widths {
            Some(widths) => widths.packing(self.group_size),
            None => Packing::checked(
                self.bits.unwrap_or(DEFAULT_BITS),
                self.group_size.unwrap_or(Packing::DEFAULT_GROUP),
            ),
        };
        let recipe = match mode(&self.mode)? {
            Some(mode) => self.of_floats(mode, widths)?,
            None => Recipe::new(target, packing.map_err(|error| raised(py, &error.into()))?),
        };
        let overrides = self.overrides.iter();
        let overrides = overrides.map(|text| Override::parse(text, recipe.packing));
        let overrides: Result<Vec<Override>, _> = overrides.collect();
        let mut recipe = Recipe {
            exclude: self.exclude.clone(),
            overrides: overrides.map_err(|error| raised(py, &error.into()))?,
            dtype: self.dtype.as_deref().map(float_type).transpose()?,
            method,
            allow_non_finite: self.allow_nan,
            ..recipe
        };
        for part in &self.include {
            match part.as_str() {
                "head" | "lm_head" => recipe.include_head = true,
                "experts" => recipe.include_experts = true,
                other => return Err(wrong_value("include", "head or experts", other)),
            }
        }
        recipe.check().map_err(|error| raised(py, &error.into()))?;
        Ok(recipe)
    }

    /// The modes of floats have bits, groups and a rule of their own.
    fn of_floats(&self, mode: FloatMode, widths: Option<&Widths>) -> PyResult<Recipe> {
        let affine_only = |what: &str, found: &str| {
            let expected = format!("it left out with mode={:?}", self.mode);
            Err(wrong_value(what, &expected, found))
        };
        if self.method != "search" {
            return affine_only("method", &self.method);
        }
        if widths.is_some() {
            return affine_only("budget or recipe", "given");
        }
        if self.format != "mlx" {
            return Err(wrong_value("format", "mlx for codes that are floats", &self.format));
        }
        if let Some(bits) = self.bits.filter(|bits| *bits != mode.bits()) {
            return Err(wrong_value(
                "bits",
                &format!("{} in this mode", mode.bits()),
                &bits.to_string(),
            ));
        }
        if let Some(group) = self.group_size.filter(|group| *group != mode.group()) {
            return Err(wrong_value(
                "group_size",
                &format!("{} in this mode", mode.group()),
                &group.to_string(),
            ));
        }
        Ok(Recipe::of_floats(mode))
    }
}

fn target(name: &str, format: &str) -> PyResult<Target> {
    match format {
        "metal" => Ok(Target::Metal),
        "mlx" => Ok(Target::Mlx),
        other => Err(wrong_value(name, "metal or mlx", other)),
    }
}

fn float_type(name: &str) -> PyResult<FloatType> {
    match name {
        "bfloat16" => Ok(FloatType::BF16),
        "float16" => Ok(FloatType::F16),
        "float32" => Ok(FloatType::F32),
        other => Err(wrong_value("dtype", "bfloat16, float16 or float32", other)),
    }
}

/// Opens the source and writes what `convert` makes of it. Ctrl-C leaves nothing behind.
fn written<'py>(
    py: Python<'py>,
    files: Files,
    convert: impl FnOnce(&Source, &Output, &Listener) -> Result<Report, planish::Error> + Send + 'static,
) -> PyResult<Bound<'py, PyDict>> {
    let listener = Listener::new(files.progress);
    let heard = listener.clone();
    let report = interruptible(py, Some(listener.stop()), move || {
        let source = open(files.src, files.revision.as_deref(), files.token.as_deref(), &heard)?;
        let output = Output {
            force: files.force,
            resume: files.resume,
            stop: heard.stop(),
            ..Output::new(files.out)
        };
        convert(&source, &output, &heard)
    });
    listener.check()?;
    let report = report?;
    let result = PyDict::new(py);
    result.set_item("bits_per_weight", report.bits_per_weight())?;
    result.set_item("packed", report.packed)?;
    result.set_item("plain", report.plain)?;
    result.set_item("notes", report.notes)?;
    result.set_item("source_bytes", report.source_bytes)?;
    result.set_item("output_bytes", report.output_bytes)?;
    result.set_item("weights", report.weights)?;
    Ok(result)
}

#[pyfunction]
fn quantize<'py>(py: Python<'py>, files: Files, packed: Packed) -> PyResult<Bound<'py, PyDict>> {
    let quantizing = packed.quantizing(py)?;
    written(py, files, move |source, output, heard| {
        let mut notes = Vec::new();
        let mut on_step = |step: QuantizingStep<'_>| match step {
            QuantizingStep::OnProcessor(why) => notes.push(format!("codes were chosen on the CPU: {why}")),
            QuantizingStep::Measuring(progress) => heard.tell(progress.done, progress.total, progress.layer),
            QuantizingStep::Widths(allocation) => notes.push(format!("layers: {}", allocation.summary())),
            QuantizingStep::Inputs(progress) => {
                heard.tell(progress.done as u64, progress.total as u64, "inputs of layers")
            }
            QuantizingStep::Seen(text) => notes.push(format!("the model ran over {text}")),
            QuantizingStep::Calibrated(CalibratedProgress::Writing(done, total)) => {
                heard.tell(done as u64, total as u64, "a text of the model's own");
            }
            QuantizingStep::Calibrated(CalibratedProgress::Packing(done, total)) => heard.tell(done, total, "layers"),
            _ => {}
        };
        let report = quantizing.run(source, output, &mut on_step, &mut |progress| heard.conversion(progress));
        report.map(|mut report| {
            report.notes.splice(..0, notes);
            report
        })
    })
}

#[pyfunction]
fn convert<'py>(py: Python<'py>, files: Files, to: &str) -> PyResult<Bound<'py, PyDict>> {
    let target = match to {
        "gguf" => None,
        "metal" | "mlx" => Some(target("to", to)?),
        other => return Err(wrong_value("to", "metal, mlx or gguf", other)),
    };
    written(py, files, move |source, output, heard| {
        let on_progress: &mut planish::OnProgress = &mut |progress| heard.conversion(progress);
        match target {
            Some(target) => planish::convert(source, target, output, on_progress),
            None => planish::convert_to_gguf(source, output, on_progress),
        }
    })
}

#[pyfunction]
fn dequantize<'py>(py: Python<'py>, files: Files, dtype: Option<&str>) -> PyResult<Bound<'py, PyDict>> {
    let float_type = dtype.map(float_type).transpose()?;
    written(py, files, move |source, output, heard| {
        planish::dequantize(source, float_type, output, &mut |progress| heard.conversion(progress))
    })
}

/// What a checkpoint holds, as JSON.
#[pyfunction]
fn inspect(
    py: Python<'_>,
    src: Option<PathBuf>,
    group_size: usize,
    revision: Option<String>,
    token: Option<String>,
    progress: Option<Py<PyAny>>,
) -> PyResult<String> {
    let listener = Listener::new(progress);
    let heard = listener.clone();
    let found = interruptible(py, None, move || {
        let source = open(src, revision.as_deref(), token.as_deref(), &heard)?;
        planish::inspect(&source, group_size, &mut |progress| heard.conversion(progress))
    });
    listener.check()?;
    serde_json::to_string(&found?).map_err(|error| pyo3::exceptions::PyRuntimeError::new_err(error.to_string()))
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<MetalConfig>()?;
    module.add_function(wrap_pyfunction!(quantize, module)?)?;
    module.add_function(wrap_pyfunction!(convert, module)?)?;
    module.add_function(wrap_pyfunction!(dequantize, module)?)?;
    module.add_function(wrap_pyfunction!(inspect, module)?)
}
