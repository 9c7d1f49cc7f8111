//! Whole checkpoints: quantize, convert, dequantize, inspect; and `MetalConfig`.

use std::path::PathBuf;

use planish::{Encoder, FloatType, Method, Output, Override, Packing, Recipe, Report, Source, Target};
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

/// The rules that need no run of the model; the others are the program's.
fn method(name: &str) -> PyResult<Method> {
    Ok(match name {
        "search" => Method::Search,
        "transformers" => Method::Peer(Encoder::Transformers),
        "mlx" => Method::Peer(Encoder::MlxMetal),
        "mlx-cpu" => Method::Peer(Encoder::MlxCpu),
        "weighted" | "calibrated" => {
            let only = format!(
                "search, transformers, mlx or mlx-cpu (`planish quantize --method {name}` runs the model over a text)"
            );
            return Err(wrong_value("method", &only, name));
        }
        _ => return Err(wrong_value("method", "search, transformers, mlx or mlx-cpu", name)),
    })
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
    bits: u32,
    group_size: usize,
    format: String,
    method: String,
    include: Vec<String>,
    exclude: Vec<String>,
    overrides: Vec<String>,
    dtype: Option<String>,
}

impl Packed {
    fn recipe(&self, py: Python<'_>) -> PyResult<Recipe> {
        let made = || -> Result<_, planish::Error> {
            let packing = Packing::checked(self.bits, self.group_size)?;
            let overrides = self.overrides.iter().map(|text| Override::parse(text, packing));
            Ok((packing, overrides.collect::<Result<Vec<_>, _>>()?))
        };
        let (packing, overrides) = made().map_err(|error| raised(py, &error))?;
        let mut recipe = Recipe {
            exclude: self.exclude.clone(),
            overrides,
            dtype: self.dtype.as_deref().map(float_type).transpose()?,
            method: method(&self.method)?,
            ..Recipe::new(target("format", &self.format)?, packing)
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
    convert: impl FnOnce(&Source, &Output, &mut planish::OnProgress) -> Result<Report, planish::Error> + Send + 'static,
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
        convert(&source, &output, &mut |progress| heard.conversion(progress))
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
    let recipe = packed.recipe(py)?;
    written(py, files, move |source, output, on_progress| {
        planish::quantize(source, &recipe, output, on_progress)
    })
}

#[pyfunction]
fn convert<'py>(py: Python<'py>, files: Files, to: &str) -> PyResult<Bound<'py, PyDict>> {
    let target = target("to", to)?;
    written(py, files, move |source, output, on_progress| {
        planish::convert(source, target, output, on_progress)
    })
}

#[pyfunction]
fn dequantize<'py>(py: Python<'py>, files: Files, dtype: Option<&str>) -> PyResult<Bound<'py, PyDict>> {
    let float_type = dtype.map(float_type).transpose()?;
    written(py, files, move |source, output, on_progress| {
        planish::dequantize(source, float_type, output, on_progress)
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
