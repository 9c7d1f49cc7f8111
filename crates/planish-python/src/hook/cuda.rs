//! Packed weights in the memory of PyTorch's CUDA tensors: the kernels of planish on PyTorch's stream, in the primary context that both
//! have. What a call needs beside its operands comes as a tensor too, so that a CUDA graph of PyTorch may capture it.
#![allow(unsafe_code, reason = "a tensor gives its address and nothing that Rust could check")]

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use planish::DeviceError;
use planish_format::{FloatType, PackedShape};
use planish_gpu::{CudaKernel, CudaQueue, Features, GuestLaunch, KernelLanguage, Queue, Source};
use planish_kernels::launch::{Launch, Product, ProductBuffer, ProductPlan, Program, Rows, TensorWeight, WeightKind};
use pyo3::exceptions::{PyMemoryError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;

use super::layout::PackedLayout;
use super::memory::{Span, float_type};
use crate::errors::caught;

/// Kernels read as many bytes at once.
const ALIGNMENT: usize = 16;
/// Plans that are kept: more than a model needs whose prompts have many lengths.
const MOST_PLANS: usize = 4096;

/// The number of a GPU, and a stream of PyTorch's on it.
type Place = (usize, usize);

/// A GPU with what was compiled for it.
struct Gpu {
    queue: CudaQueue,
    features: Features,
    kernels: Mutex<HashMap<(Program, &'static str), CudaKernel>>,
    plans: Mutex<HashMap<Product, Arc<Planned>>>,
}

/// A plan with its compiled kernels.
struct Planned {
    plan: ProductPlan,
    kernels: Vec<CudaKernel>, // (steps)
}

/// Those that were asked for, by number.
static GPUS: Mutex<Vec<(usize, Arc<Gpu>)>> = Mutex::new(Vec::new());

/// A panic elsewhere leaves nothing half done in these.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn raised(error: DeviceError) -> PyErr {
    let text = error.to_string();
    match error {
        DeviceError::OutOfMemory { .. } => PyMemoryError::new_err(text),
        _ => PyRuntimeError::new_err(text),
    }
}

fn gpu(device: usize) -> PyResult<Arc<Gpu>> {
    let mut known = lock(&GPUS);
    if let Some((_, gpu)) = known.iter().find(|(number, _)| *number == device) {
        return Ok(Arc::clone(gpu));
    }
    let queue = CudaQueue::of_device(device).map_err(raised)?;
    let gpu = Arc::new(Gpu {
        features: queue.features(),
        queue,
        kernels: Mutex::default(),
        plans: Mutex::default(),
    });
    known.push((device, Arc::clone(&gpu)));
    Ok(gpu)
}

/// The address of a tensor on a GPU.
fn address(address: usize, counts: &[usize]) -> PyResult<u64> {
    let span = Span::new(address, counts)?;
    if span.bytes > 0 && !span.address.is_multiple_of(ALIGNMENT) {
        return Err(PyValueError::new_err(format!(
            "a tensor at {:#x}: expected a multiple of {ALIGNMENT} bytes",
            span.address
        )));
    }
    Ok(span.address as u64)
}

fn count(name: &str, count: usize) -> PyResult<u32> {
    // Kernels count in 32 bits, some of them signed.
    let fits = u32::try_from(count).ok().filter(|count| *count <= i32::MAX as u32);
    fits.ok_or_else(|| PyValueError::new_err(format!("{name} is {count}, expected less than 2^31")))
}

fn kind(shape: PackedShape) -> WeightKind {
    WeightKind {
        packing: Some(shape.packing),
        float_type: shape.scale_type,
    }
}

/// `inputs` rows of a type through a weight.
fn product(shape: PackedShape, value: FloatType, inputs: usize, tiled: bool, added: bool) -> PyResult<Product> {
    Ok(Product {
        weight: kind(shape),
        value,
        output: value,
        rows: count("rows", shape.rows)?,
        cols: count("columns", shape.cols)?,
        inputs: count("rows of the input", inputs)?,
        added,
        stored: !tiled,
        overlaps: false,
    })
}

/// The weight in the order of tensor cores, if it has one that serves inputs of all types.
fn tiles(shape: PackedShape) -> PyResult<Option<TensorWeight>> {
    let (rows, cols) = (count("rows", shape.rows)?, count("columns", shape.cols)?);
    let weight = TensorWeight::new(shape.packing, shape.scale_type, rows, cols);
    Ok(weight.filter(|_| shape.scale_type != FloatType::F32))
}

/// The same of a weight that lies in that order.
fn tiles_of(shape: PackedShape) -> PyResult<TensorWeight> {
    let none = || PyValueError::new_err(format!("{shape:?} has no order of tensor cores"));
    tiles(shape)?.ok_or_else(none)
}

/// Addresses of codes, scales and biases; of tiles and their scales where there is one part.
fn places(shape: PackedShape, parts: &[usize]) -> PyResult<[u64; 3]> {
    match *parts {
        [packed] => {
            let weight = tiles_of(shape)?;
            let tiles = address(packed, &[weight.tile_bytes() + weight.scale_bytes()])?;
            let scales = tiles + weight.tile_bytes() as u64;
            Ok([tiles, scales, scales])
        }
        [codes, scales, biases] => Ok([
            address(codes, &[shape.code_bytes()])?,
            address(scales, &[shape.scale_bytes()])?,
            address(biases, &[shape.scale_bytes()])?,
        ]),
        _ => Err(PyValueError::new_err(format!(
            "expected the addresses of codes, scales and biases, or of one tensor, found {}",
            parts.len()
        ))),
    }
}

impl Gpu {
    fn kernel(&self, launch: &Launch) -> Result<CudaKernel, DeviceError> {
        let key = (launch.program.clone(), launch.kernel);
        if let Some(kernel) = lock(&self.kernels).get(&key) {
            return Ok(*kernel);
        }
        let kernel = self.queue.compile_for_guest(&Source {
            name: launch.program.file.name(),
            text: &launch.program.text(KernelLanguage::Cuda),
            entry: launch.kernel,
        })?;
        lock(&self.kernels).insert(key, kernel);
        Ok(kernel)
    }

    fn planned(&self, product: &Product) -> Result<Arc<Planned>, DeviceError> {
        if let Some(planned) = lock(&self.plans).get(product) {
            return Ok(Arc::clone(planned));
        }
        let (_, plan) = product.choose(&self.features);
        let kernels = plan.steps.iter().map(|step| self.kernel(&step.launch));
        let planned = Arc::new(Planned {
            kernels: kernels.collect::<Result<_, _>>()?,
            plan,
        });
        let mut plans = lock(&self.plans);
        if plans.len() >= MOST_PLANS {
            plans.clear();
        }
        plans.insert(*product, Arc::clone(&planned));
        Ok(planned)
    }

    fn launch(&self, stream: usize, launch: &Launch, addresses: &[u64]) -> Result<(), DeviceError> {
        self.start(stream, launch, &self.kernel(launch)?, addresses)
    }

    fn start(&self, stream: usize, launch: &Launch, kernel: &CudaKernel, addresses: &[u64]) -> Result<(), DeviceError> {
        assert_eq!(addresses.len(), launch.buffers as usize, "buffers of {}", launch.kernel);
        if launch.threadgroups.contains(&0) {
            return Ok(());
        }
        let launch = GuestLaunch {
            kernel,
            grid: launch.threadgroups,
            threads: [launch.threads, 1, 1],
            threadgroup_bytes: launch.shared_bytes,
            addresses,
            constants: &launch.constants,
        };
        // SAFETY: `planish/transformers` gives its current stream and tensors on that device, of the sizes that were checked; their
        // memory is PyTorch's, which reuses it only for what comes later on the stream.
        unsafe { self.queue.launch_on(stream, &launch) }
    }
}

/// Bytes of a weight in the order of tensor cores; none where products read codes, scales and biases as they are stored.
#[pyfunction]
pub fn cuda_bytes(layout: &PackedLayout) -> PyResult<Option<usize>> {
    Ok(tiles(layout.shape)?.map(|weight| weight.tile_bytes() + weight.scale_bytes()))
}

/// Writes the three tensors in the order of tensor cores into one of `cuda_bytes` bytes.
#[pyfunction]
pub fn cuda_repack(
    py: Python<'_>,
    layout: &PackedLayout,
    place: Place,
    parts: [usize; 3],
    into: usize,
) -> PyResult<()> {
    let weight = tiles_of(layout.shape)?;
    let [codes, scales, biases] = places(layout.shape, &parts)?;
    let [tiles, tile_scales, _] = places(layout.shape, &[into])?;
    let addresses = [codes, scales, biases, tiles, tile_scales];
    on(py, place, |gpu| gpu.launch(place.1, &weight.repack(), &addresses))
}

/// Writes codes, scales and biases out of the one tensor.
#[pyfunction]
pub fn cuda_restore(
    py: Python<'_>,
    layout: &PackedLayout,
    place: Place,
    packed: usize,
    into: [usize; 3],
) -> PyResult<()> {
    let weight = tiles_of(layout.shape)?;
    let [tiles, tile_scales, _] = places(layout.shape, &[packed])?;
    let [codes, scales, biases] = places(layout.shape, &into)?;
    let addresses = [tiles, tile_scales, codes, scales, biases];
    on(py, place, |gpu| gpu.launch(place.1, &weight.restore(), &addresses))
}

/// Bytes that `cuda_linear` needs beside its operands.
#[pyfunction]
pub fn cuda_scratch(
    layout: &PackedLayout,
    device: usize,
    tiled: bool,
    input_type: &str,
    m: usize,
    added: bool,
) -> PyResult<usize> {
    let product = product(layout.shape, float_type(input_type)?, m, tiled, added)?;
    let plan = &gpu(device)?.planned(&product).map_err(raised)?.plan;
    Ok(plan.arranged_bytes.next_multiple_of(256) + plan.partial_bytes)
}

/// `output = input * weight^T + bias` on the stream, rows of x and of the output one after the other in their type; the bias is of f32.
#[pyfunction]
#[expect(
    clippy::too_many_arguments,
    reason = "addresses and what lies there, one call a layer"
)]
pub fn cuda_linear(
    py: Python<'_>,
    layout: &PackedLayout,
    place: Place,
    parts: Vec<usize>,
    input: usize,
    input_type: &str,
    m: usize,
    output: usize,
    bias: usize,
    scratch: usize,
) -> PyResult<()> {
    let (shape, value) = (layout.shape, float_type(input_type)?);
    let product = product(shape, value, m, parts.len() == 1, bias != 0)?;
    let [codes, scales, biases] = places(shape, &parts)?;
    let input = address(input, &[m, shape.cols, value.size_bytes()])?;
    let output = address(output, &[m, shape.rows, value.size_bytes()])?;
    let added = match bias {
        0 => input,
        bias => address(bias, &[shape.rows, size_of::<f32>()])?,
    };
    if m == 0 {
        return Ok(());
    }
    caught(py, || {
        let gpu = gpu(place.0)?;
        let Planned { plan, kernels } = &*gpu.planned(&product).map_err(raised)?;
        if scratch == 0 && plan.arranged_bytes + plan.partial_bytes > 0 {
            return Err(PyValueError::new_err(format!("{m} rows of input need scratch memory")));
        }
        let arranged = scratch as u64;
        let partial = arranged + plan.arranged_bytes.next_multiple_of(256) as u64;
        for (step, kernel) in plan.steps.iter().zip(kernels) {
            let mut addresses = [0; 8];
            for (address, buffer) in addresses.iter_mut().zip(&step.buffers) {
                *address = match buffer {
                    ProductBuffer::Codes => codes,
                    ProductBuffer::Scales => scales,
                    ProductBuffer::Biases => biases,
                    ProductBuffer::Input | ProductBuffer::Nothing => input,
                    ProductBuffer::Arranged => arranged,
                    ProductBuffer::Partial => partial,
                    ProductBuffer::Added => added,
                    ProductBuffer::Output => output,
                };
            }
            gpu.start(place.1, &step.launch, kernel, &addresses[..step.buffers.len()])
                .map_err(raised)?;
        }
        Ok(())
    })
}

/// The rows that `count` 32-bit integers at `ids` name, or the first `count` where there are none, one after the other.
#[pyfunction]
#[expect(
    clippy::too_many_arguments,
    reason = "addresses and what lies there, one call a layer"
)]
pub fn cuda_rows(
    py: Python<'_>,
    layout: &PackedLayout,
    place: Place,
    parts: [usize; 3],
    ids: usize,
    count: usize,
    output: usize,
    output_type: &str,
) -> PyResult<()> {
    let (shape, value) = (layout.shape, float_type(output_type)?);
    let [codes, scales, biases] = places(shape, &parts)?;
    let output = address(output, &[count, shape.cols, value.size_bytes()])?;
    let rows = Rows {
        weight: kind(shape),
        value,
        rows: self::count("rows", shape.rows)?,
        cols: self::count("columns", shape.cols)?,
        factor: 1.0,
    };
    let number = self::count("ids", count)?;
    if ids == 0 {
        if count != shape.rows {
            return Err(PyValueError::new_err(format!("{count} rows of {}", shape.rows)));
        }
        let addresses = [codes, scales, biases, output];
        return on(py, place, |gpu| gpu.launch(place.1, &rows.dequantize(), &addresses));
    }
    let ids = Span::new(ids, &[count, size_of::<u32>()])?.address as u64;
    let addresses = [codes, scales, biases, ids, output];
    on(py, place, |gpu| gpu.launch(place.1, &rows.embed(number), &addresses))
}

/// Works on a GPU without the interpreter's lock.
fn on(py: Python<'_>, place: Place, work: impl FnOnce(&Gpu) -> Result<(), DeviceError> + Send) -> PyResult<()> {
    caught(py, || work(&*gpu(place.0)?).map_err(raised))
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(cuda_bytes, module)?)?;
    module.add_function(wrap_pyfunction!(cuda_repack, module)?)?;
    module.add_function(wrap_pyfunction!(cuda_restore, module)?)?;
    module.add_function(wrap_pyfunction!(cuda_scratch, module)?)?;
    module.add_function(wrap_pyfunction!(cuda_linear, module)?)?;
    module.add_function(wrap_pyfunction!(cuda_rows, module)?)
}
