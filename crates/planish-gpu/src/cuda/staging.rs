//! Pinned memory between the program's memory and the device's: two pieces, one filling while the other travels.

use std::ffi::c_void;

use cudarc::driver::{result, sys};

/// Bytes of a piece.
pub(super) const PIECE_BYTES: usize = 8 << 20;
/// So few bytes are copied by the driver before it returns.
const SMALL_BYTES: usize = 32 << 10;

/// Allocated at first use.
#[derive(Default)]
pub(super) struct Staging {
    pieces: [Option<Piece>; 2],
    next: usize,
}

#[derive(Clone, Copy)]
struct Piece {
    memory: *mut u8, // (PIECE_BYTES)
    /// Passed when the last copy from here is done.
    free: sys::CUevent,
}

impl Staging {
    /// Copies `bytes` to the device after all work of the stream; the caller may change them then.
    pub(super) fn upload(
        &mut self,
        bytes: &[u8],
        to: sys::CUdeviceptr,
        stream: sys::CUstream,
    ) -> Result<(), result::DriverError> {
        if bytes.len() <= SMALL_BYTES {
            // SAFETY: the caller checked the size. The driver reads pageable memory this small before it returns.
            return unsafe { result::memcpy_htod_async(to, bytes, stream) };
        }
        let mut to = to;
        for chunk in bytes.chunks(PIECE_BYTES) {
            let piece = self.piece()?;
            // SAFETY: the piece is pinned memory of this size, and no copy from it is under way. The event was made with it.
            unsafe {
                result::event::synchronize(piece.free)?;
                let staged = std::slice::from_raw_parts_mut(piece.memory, chunk.len());
                staged.copy_from_slice(chunk);
                result::memcpy_htod_async(to, staged, stream)?;
                result::event::record(piece.free, stream)?;
            }
            to += chunk.len() as u64;
        }
        Ok(())
    }

    /// Begins a copy of at most [`PIECE_BYTES`] from the device. They are at the pointer once the stream is done, until the next
    /// call.
    pub(super) fn begin_download(
        &mut self,
        bytes: usize,
        from: sys::CUdeviceptr,
        stream: sys::CUstream,
    ) -> Result<*const u8, result::DriverError> {
        assert!(bytes <= PIECE_BYTES);
        let piece = self.piece()?;
        // SAFETY: the piece is pinned memory of this size, and no copy from it is under way.
        unsafe {
            result::event::synchronize(piece.free)?;
            result::memcpy_dtoh_async(std::slice::from_raw_parts_mut(piece.memory, bytes), from, stream)?;
        }
        Ok(piece.memory)
    }

    fn piece(&mut self) -> Result<Piece, result::DriverError> {
        let index = self.next;
        self.next = 1 - index;
        if let Some(piece) = self.pieces[index] {
            return Ok(piece);
        }
        // SAFETY: plain allocations, released once.
        let piece = unsafe {
            Piece {
                memory: result::malloc_host(PIECE_BYTES, 0)?.cast(),
                free: result::event::create(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING)?,
            }
        };
        self.pieces[index] = Some(piece);
        Ok(piece)
    }

    /// Frees the memory. The device must be current and idle.
    pub(super) fn release(&mut self) {
        for piece in &mut self.pieces {
            if let Some(Piece { memory, free }) = piece.take() {
                // SAFETY: freed once; a failure means a lost device.
                unsafe {
                    let _ = result::free_host(memory.cast::<c_void>());
                    let _ = result::event::destroy(free);
                }
            }
        }
        *self = Staging {
            pieces: [None; 2],
            next: 0,
        };
    }
}
