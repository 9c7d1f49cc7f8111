//! Values as other libraries hold them, of 16 or 32 bits: widened and narrowed a part at a time, by the thread that needs them.

use std::cell::RefCell;
use std::ops::Range;

use planish_format::{FloatType, memory};

/// Values to read.
#[derive(Clone, Copy, Debug)]
pub enum Floats<'a> {
    /// As they are computed with.
    F32(&'a [f32]),
    /// Little-endian values of a type, at any alignment.
    Bytes(FloatType, &'a [u8]),
}

/// Values to write.
#[derive(Debug)]
pub enum FloatsMut<'a> {
    /// As they are computed.
    F32(&'a mut [f32]),
    /// Little-endian values of a type, at any alignment; rounded to nearest, ties to even.
    Bytes(FloatType, &'a mut [u8]),
}

thread_local! {
    /// The values that this thread widened last.
    static WIDE: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Calls `job` with so many values that are this thread's alone, whatever they hold. `job` must not do so again.
pub(crate) fn with_room<R>(count: usize, job: impl FnOnce(&mut [f32]) -> R) -> R {
    WIDE.with_borrow_mut(|wide| {
        if wide.len() < count {
            memory::resize("products", wide, count, 0.0);
        }
        job(&mut wide[..count])
    })
}

impl Floats<'_> {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Floats::F32(values) => values.len(),
            Floats::Bytes(float_type, bytes) => bytes.len() / float_type.size_bytes(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Calls `job` with some of the values as f32. `job` must not do so again.
    pub(crate) fn with<R>(&self, range: Range<usize>, job: impl FnOnce(&[f32]) -> R) -> R {
        match *self {
            Floats::F32(values) => job(&values[range]),
            Floats::Bytes(..) => with_room(range.len(), |wide| {
                self.widen(range, wide);
                job(wide)
            }),
        }
    }

    /// Some of the values.
    pub(crate) fn widen(&self, range: Range<usize>, into: &mut [f32]) {
        match *self {
            Floats::F32(values) => into.copy_from_slice(&values[range]),
            Floats::Bytes(float_type, bytes) => {
                let size = float_type.size_bytes();
                float_type.decode(&bytes[range.start * size..range.end * size], into);
            }
        }
    }
}

impl FloatsMut<'_> {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            FloatsMut::F32(values) => values.len(),
            FloatsMut::Bytes(float_type, bytes) => bytes.len() / float_type.size_bytes(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
