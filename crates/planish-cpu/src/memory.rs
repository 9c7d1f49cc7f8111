//! Zeros that take no memory before they are written, or an error with the size: for what an operation of [`crate::CpuOps`] makes.
//! Scratch is asked for by planish-format's `memory.rs`.

use std::alloc::{Layout, alloc_zeroed};

use bytemuck::Zeroable;
use planish_format::memory::OutOfMemory;

/// So many zeros.
pub(crate) fn zeros<T: Zeroable>(what: &'static str, len: usize) -> Result<Vec<T>, OutOfMemory> {
    let bytes = len.saturating_mul(size_of::<T>());
    if bytes == 0 {
        return Ok(Vec::new());
    }
    OutOfMemory::look(what, bytes)?;
    let layout = Layout::array::<T>(len).map_err(|_| OutOfMemory::new(what, bytes))?;
    // SAFETY: the layout has a size.
    let memory = unsafe { alloc_zeroed(layout) };
    if memory.is_null() {
        return Err(OutOfMemory::new(what, bytes));
    }
    // SAFETY: memory of just this layout, whose zeros are values of the type.
    Ok(unsafe { Vec::from_raw_parts(memory.cast(), len, len) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_or_an_error_with_the_size() {
        assert_eq!(zeros::<f32>("tests", 3), Ok(vec![0.0; 3]));
        assert_eq!(zeros::<u8>("tests", 0), Ok(Vec::new()));
        for len in [usize::MAX, usize::MAX / 4, isize::MAX as usize / 4, 1 << 50] {
            let error = zeros::<f32>("tests", len).unwrap_err();
            assert_eq!((error.what, error.wanted), ("tests", len.saturating_mul(4)));
        }
    }
}
