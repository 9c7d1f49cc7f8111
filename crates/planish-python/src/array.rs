//! Floats that Python sees without a copy: by the buffer protocol (numpy, memoryview) and DLPack (torch, jax, cupy).
#![allow(unsafe_code, reason = "arrays whose memory Python shares by C structures")]

use std::ffi::{CStr, c_int, c_void};
use std::ptr;
use std::sync::Arc;

use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyDict};

/// The memory of arrays, which Python may write to by its own rules.
struct Values {
    start: *mut f32,
    length: usize,
}

// SAFETY: plain memory; Rust only copies out of it, while it holds the interpreter's lock.
unsafe impl Send for Values {}
// SAFETY: as above.
unsafe impl Sync for Values {}

impl Drop for Values {
    fn drop(&mut self) {
        // SAFETY: the slice was leaked by `Array::new`, and whoever shared it is gone.
        drop(unsafe { Box::from_raw(ptr::slice_from_raw_parts_mut(self.start, self.length)) });
    }
}

/// float32 values of one or two dimensions, rows one after another.
#[pyclass(frozen, module = "planish")]
pub struct Array {
    values: Arc<Values>,
    shape: Vec<isize>,
    strides: Vec<isize>, // in bytes
}

const FORMAT: &CStr = c"f";
const DLPACK: &CStr = c"dltensor";
const FLOAT_BYTES: usize = size_of::<f32>();

impl Array {
    /// # Panics
    /// If the shape is not that of the values.
    pub fn new(values: Vec<f32>, shape: &[usize]) -> Array {
        assert_eq!(values.len(), shape.iter().product::<usize>());
        let values = Box::leak(values.into_boxed_slice());
        let mut strides: Vec<isize> = Vec::new();
        let mut stride = FLOAT_BYTES;
        for length in shape.iter().rev() {
            strides.insert(0, stride as isize);
            stride *= length;
        }
        Array {
            values: Arc::new(Values {
                start: values.as_mut_ptr(),
                length: values.len(),
            }),
            shape: shape.iter().map(|&length| length as isize).collect(),
            strides,
        }
    }

    /// What it holds now.
    pub fn to_vec(&self) -> Vec<f32> {
        // SAFETY: the memory is of this length and lives as long as `self`. Whoever writes from another thread meanwhile does so without
        // the interpreter's lock, against Python's rules.
        unsafe { std::slice::from_raw_parts(self.values.start, self.values.length) }.to_vec()
    }
}

#[pymethods]
impl Array {
    #[getter]
    fn shape(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        Ok(pyo3::types::PyTuple::new(py, &self.shape)?.into_any().unbind())
    }

    #[getter]
    fn dtype(&self) -> &'static str {
        "float32"
    }

    fn tolist(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        let view = pyo3::types::PyMemoryView::from(slf.as_any())?;
        Ok(view.call_method0("tolist")?.unbind())
    }

    fn __len__(&self) -> usize {
        self.shape[0] as usize
    }

    fn __repr__(&self) -> String {
        let lengths: Vec<String> = self.shape.iter().map(ToString::to_string).collect();
        format!("<planish.Array of float32, {}>", lengths.join(" x "))
    }

    /// # Safety
    /// As CPython's `bf_getbuffer`: `view` is to be filled.
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        if view.is_null() {
            return Err(PyBufferError::new_err("no view to fill"));
        }
        let array = slf.get();
        let wants = |flag: c_int| flags & flag == flag;
        let shape = array.shape.as_ptr().cast_mut();
        let strides = array.strides.as_ptr().cast_mut();
        // SAFETY: CPython hands a view to be filled; what it points to belongs to the array, whose reference the view holds.
        unsafe {
            (*view).buf = array.values.start.cast();
            (*view).len = (array.values.length * FLOAT_BYTES) as isize;
            (*view).readonly = 0;
            (*view).itemsize = FLOAT_BYTES as isize;
            (*view).format = if wants(ffi::PyBUF_FORMAT) {
                FORMAT.as_ptr().cast_mut()
            } else {
                ptr::null_mut()
            };
            (*view).ndim = array.shape.len() as c_int;
            (*view).shape = if wants(ffi::PyBUF_ND) { shape } else { ptr::null_mut() };
            (*view).strides = if wants(ffi::PyBUF_STRIDES) {
                strides
            } else {
                ptr::null_mut()
            };
            (*view).suboffsets = ptr::null_mut();
            (*view).internal = ptr::null_mut();
            (*view).obj = slf.into_any().into_ptr();
        }
        Ok(())
    }

    fn __dlpack_device__(&self) -> (i32, i32) {
        (CPU, 0)
    }

    #[pyo3(signature = (**_options))]
    fn __dlpack__(&self, py: Python<'_>, _options: Option<&Bound<'_, PyDict>>) -> PyResult<Py<PyAny>> {
        let mut lengths: Vec<i64> = self.shape.iter().map(|&length| length as i64).collect();
        let shape = lengths.as_mut_ptr();
        let managed = Box::new(Managed {
            tensor: Tensor {
                data: self.values.start.cast(),
                device: (CPU, 0).into(),
                dimensions: self.shape.len() as i32,
                element: Element {
                    code: FLOAT,
                    bits: 32,
                    lanes: 1,
                },
                shape,
                strides: ptr::null_mut(), // rows one after another
                byte_offset: 0,
            },
            context: Box::into_raw(Box::new(Held {
                _values: Arc::clone(&self.values),
                _shape: lengths,
            }))
            .cast(),
            deleter: Some(delete),
        });
        // SAFETY: makes a capsule of the pointer, which the destructor frees where nobody has taken it; a null result is an error.
        unsafe {
            let capsule = ffi::PyCapsule_New(Box::into_raw(managed).cast(), DLPACK.as_ptr(), Some(forget));
            Ok(Bound::from_owned_ptr_or_err(py, capsule)?
                .cast_into::<PyCapsule>()?
                .into_any()
                .unbind())
        }
    }
}

// The C structures of DLPack 0.x, which its later versions read too (dlpack.h).
const CPU: i32 = 1;
const FLOAT: u8 = 2;

#[repr(C)]
struct Place {
    kind: i32,
    index: i32,
}

impl From<(i32, i32)> for Place {
    fn from((kind, index): (i32, i32)) -> Place {
        Place { kind, index }
    }
}

#[repr(C)]
struct Element {
    code: u8,
    bits: u8,
    lanes: u16,
}

#[repr(C)]
struct Tensor {
    data: *mut c_void,
    device: Place,
    dimensions: i32,
    element: Element,
    shape: *mut i64,
    strides: *mut i64,
    byte_offset: u64,
}

#[repr(C)]
struct Managed {
    tensor: Tensor,
    context: *mut c_void,
    deleter: Option<unsafe extern "C" fn(*mut Managed)>,
}

/// What a tensor that was handed out points to.
struct Held {
    _values: Arc<Values>,
    _shape: Vec<i64>,
}

/// The consumer is done.
unsafe extern "C" fn delete(managed: *mut Managed) {
    // SAFETY: called once, with what `__dlpack__` made of two boxes.
    unsafe {
        let managed = Box::from_raw(managed);
        drop(Box::from_raw(managed.context.cast::<Held>()));
    }
}

/// The capsule goes. Whoever took the tensor out of it has renamed it.
unsafe extern "C" fn forget(capsule: *mut ffi::PyObject) {
    // SAFETY: CPython calls it with the capsule; one that still has its name still owns its tensor.
    unsafe {
        if ffi::PyCapsule_IsValid(capsule, DLPACK.as_ptr()) == 1 {
            let managed = ffi::PyCapsule_GetPointer(capsule, DLPACK.as_ptr());
            if !managed.is_null() {
                delete(managed.cast());
            }
        }
    }
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Array>()
}
