//! Memory of others by address. Python's side holds the tensors while a call lasts.
#![allow(unsafe_code, reason = "a tensor gives its address and nothing that Rust could check")]

use bytes::Bytes;
use planish_cpu::{Floats, FloatsMut};
use planish_format::FloatType;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;

/// An address and the bytes there.
#[derive(Clone, Copy)]
pub struct Span {
    pub address: usize,
    pub bytes: usize,
}

impl Span {
    /// # Errors
    /// If the length overflows, or bytes are said to lie at no address.
    pub fn new(address: usize, counts: &[usize]) -> PyResult<Span> {
        let bytes = counts.iter().try_fold(1usize, |bytes, count| bytes.checked_mul(*count));
        match bytes {
            Some(0) => Ok(Span { address: 1, bytes: 0 }),
            Some(bytes) if address != 0 => Ok(Span { address, bytes }),
            _ => Err(PyValueError::new_err(format!(
                "no tensor of {counts:?} values at {address:#x}"
            ))),
        }
    }

    /// # Safety
    /// The bytes must be there and not change while the slice is used, which must end with the call.
    unsafe fn slice(self) -> &'static [u8] {
        // SAFETY: passed on from the caller.
        unsafe { std::slice::from_raw_parts(std::ptr::with_exposed_provenance(self.address), self.bytes) }
    }

    /// # Safety
    /// As [`Span::slice`], and nobody else may read or write the bytes.
    unsafe fn slice_mut(self) -> &'static mut [u8] {
        // SAFETY: passed on from the caller.
        unsafe { std::slice::from_raw_parts_mut(std::ptr::with_exposed_provenance_mut(self.address), self.bytes) }
    }

    /// The bytes, for the length of a call in which the tensor is held.
    pub fn borrowed(self) -> Bytes {
        // SAFETY: `hook/layout.rs` drops what it makes of them before it returns.
        Bytes::from_static(unsafe { self.slice() })
    }

    /// Writes all bytes.
    pub fn fill(self, from: &[u8]) {
        // SAFETY: a fresh tensor of the caller, held during the call.
        unsafe { self.slice_mut() }.copy_from_slice(from);
    }

    /// Values to read.
    pub fn floats(self, float_type: FloatType) -> Floats<'static> {
        // SAFETY: as in `borrowed`.
        let bytes = unsafe { self.slice() };
        match float_type {
            FloatType::F32 => match bytemuck::try_cast_slice(bytes) {
                Ok(values) => Floats::F32(values),
                Err(_) => Floats::Bytes(float_type, bytes),
            },
            _ => Floats::Bytes(float_type, bytes),
        }
    }

    /// Values to write.
    pub fn floats_mut(self, float_type: FloatType) -> FloatsMut<'static> {
        // SAFETY: as in `fill`.
        let bytes = unsafe { self.slice_mut() };
        match float_type {
            FloatType::F32 if bytes.as_ptr().cast::<f32>().is_aligned() => {
                FloatsMut::F32(bytemuck::cast_slice_mut(bytes))
            }
            _ => FloatsMut::Bytes(float_type, bytes),
        }
    }

    /// 64-bit integers to read.
    pub fn integers(self) -> Vec<i64> {
        // SAFETY: as in `borrowed`.
        let (values, _) = unsafe { self.slice() }.as_chunks::<8>();
        values.iter().map(|eight| i64::from_ne_bytes(*eight)).collect()
    }
}

/// A type by its name in PyTorch.
pub fn float_type(name: &str) -> PyResult<FloatType> {
    match name {
        "float32" => Ok(FloatType::F32),
        "float16" => Ok(FloatType::F16),
        "bfloat16" => Ok(FloatType::BF16),
        _ => Err(PyTypeError::new_err(format!(
            "packed weights compute with float32, float16 and bfloat16, found {name}"
        ))),
    }
}

/// A type by its name in PyTorch.
pub fn float_name(float_type: FloatType) -> &'static str {
    match float_type {
        FloatType::F32 => "float32",
        FloatType::F16 => "float16",
        FloatType::BF16 => "bfloat16",
    }
}

/// Asks the system for huge pages under a tensor that was not written yet.
#[pyfunction]
pub fn advise_huge(address: usize, count: usize) -> PyResult<()> {
    let span = Span::new(address, &[count])?;
    // SAFETY: a fresh tensor of the caller, held during the call; the advice changes no contents.
    planish_cpu::advise_huge(unsafe { span.slice_mut() });
    Ok(())
}
