//! Small answers: copies into pinned memory that are waited for one by one, while later work goes on.

use std::ffi::c_void;

use cudarc::driver::{result, sys};

use crate::{MOST_TICKETS, TICKET_BYTES};

/// Slots that take turns, allocated at first use.
#[derive(Default)]
pub(super) struct Tickets {
    memory: Option<*mut u8>, // (MOST_TICKETS, TICKET_BYTES)
    done: Vec<sys::CUevent>, // (MOST_TICKETS)
    next: usize,
}

/// A slot that is being filled.
#[derive(Debug)]
pub struct CudaTicket {
    pub(super) slot: usize,
    pub(super) bytes: usize,
}

impl Tickets {
    /// Begins a copy after all work of the stream.
    pub(super) fn begin(
        &mut self,
        from: sys::CUdeviceptr,
        bytes: usize,
        stream: sys::CUstream,
    ) -> Result<CudaTicket, result::DriverError> {
        assert!(bytes <= TICKET_BYTES);
        let memory = self.memory()?;
        let slot = self.next;
        self.next = (slot + 1) % MOST_TICKETS;
        // SAFETY: the slot is pinned memory of this size, whose last copy was waited for: there are no more open tickets than slots.
        // The event was made with it.
        unsafe {
            let to = std::slice::from_raw_parts_mut(memory.add(slot * TICKET_BYTES), bytes);
            result::memcpy_dtoh_async(to, from, stream)?;
            result::event::record(self.done[slot], stream)?;
        }
        Ok(CudaTicket { slot, bytes })
    }

    /// Waits for the copy.
    pub(super) fn finish(&mut self, ticket: &CudaTicket, bytes: &mut [u8]) -> Result<(), result::DriverError> {
        assert_eq!(bytes.len(), ticket.bytes);
        let memory = self.memory()?;
        // SAFETY: the event lives; after it the copy is done, and the slot holds so many bytes.
        unsafe {
            result::event::synchronize(self.done[ticket.slot])?;
            let slot = memory.add(ticket.slot * TICKET_BYTES);
            bytes.copy_from_slice(std::slice::from_raw_parts(slot, ticket.bytes));
        }
        Ok(())
    }

    fn memory(&mut self) -> Result<*mut u8, result::DriverError> {
        if let Some(memory) = self.memory {
            return Ok(memory);
        }
        for _ in self.done.len()..MOST_TICKETS {
            self.done
                .push(result::event::create(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING)?);
        }
        // SAFETY: a plain allocation, released once.
        let memory = unsafe { result::malloc_host(MOST_TICKETS * TICKET_BYTES, 0)? }.cast();
        self.memory = Some(memory);
        Ok(memory)
    }

    /// Frees the memory. The device must be current and idle.
    pub(super) fn release(&mut self) {
        // SAFETY: freed once; a failure means a lost device.
        unsafe {
            if let Some(memory) = self.memory.take() {
                let _ = result::free_host(memory.cast::<c_void>());
            }
            for event in self.done.drain(..) {
                let _ = result::event::destroy(event);
            }
        }
    }
}
