//! Packed weights that lie in the memory of PyTorch's tensors: products, gradients, lookups, codes of plain weights, and the tensors
//! of GGUF files. `planish/transformers` calls it with addresses, which is what a tensor gives without copies.

mod checkpoint;
mod crew;
#[cfg(any(target_os = "linux", target_os = "windows"))]
mod cuda;
mod layout;
mod memory;

use std::sync::{Arc, PoisonError, RwLock};

use planish_cpu::Cpu;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<layout::PackedLayout>()?;
    module.add_class::<checkpoint::PackedCheckpoint>()?;
    #[cfg(any(target_os = "linux", target_os = "windows"))]
    cuda::register(module)?;
    module.add_function(wrap_pyfunction!(crew::use_openmp, module)?)?;
    module.add_function(wrap_pyfunction!(memory::advise_huge, module)?)?;
    module.add_function(wrap_pyfunction!(layout::quantize_weight, module)?)
}

/// The threads that compute, as many as PyTorch's.
static CPU: RwLock<Option<Arc<Cpu>>> = RwLock::new(None);

/// The threads, begun anew when PyTorch's number has changed.
fn cpu(threads: usize) -> PyResult<Arc<Cpu>> {
    let threads = threads.max(1);
    let right = |cpu: &&Arc<Cpu>| cpu.pool().threads() == threads;
    if let Some(cpu) = CPU
        .read()
        .unwrap_or_else(PoisonError::into_inner)
        .as_ref()
        .filter(right)
    {
        return Ok(Arc::clone(cpu));
    }
    let mut current = CPU.write().unwrap_or_else(PoisonError::into_inner);
    if let Some(cpu) = current.as_ref().filter(right) {
        return Ok(Arc::clone(cpu));
    }
    let cpu = match crew::OpenMp::loaded() {
        Some(crew) => Cpu::with_crew(threads, Box::new(crew)),
        None => Cpu::new(threads),
    };
    let cpu = Arc::new(cpu.map_err(|error| PyValueError::new_err(error.to_string()))?);
    *current = Some(Arc::clone(&cpu));
    Ok(cpu)
}
