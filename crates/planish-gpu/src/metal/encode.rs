//! The command buffer that launches go into, and waiting for it.

use std::ffi::c_void;
use std::ptr::NonNull;

use objc2::rc::{Retained, autoreleasepool};
use objc2::runtime::ProtocolObject;
use objc2_foundation::NSError;
use objc2_metal::{
    MTLBarrierScope, MTLCommandBuffer, MTLCommandBufferError, MTLCommandBufferStatus, MTLCommandEncoder,
    MTLCommandQueue, MTLComputeCommandEncoder, MTLDispatchType, MTLSize,
};

use super::MetalQueue;
use crate::{Argument, Error, Launch};

/// More launches than a token of any model has: a long prompt is handed over in pieces of this.
const MOST_LAUNCHES: usize = 2048;

type CommandBuffer = Retained<ProtocolObject<dyn MTLCommandBuffer>>;
/// Work that was handed over.
pub(super) type Committed = CommandBuffer;
type ComputeEncoder = Retained<ProtocolObject<dyn MTLComputeCommandEncoder>>;

/// Launches that are not yet done.
#[derive(Default)]
pub(super) struct Encoder {
    open: Option<(CommandBuffer, ComputeEncoder)>,
    launches: usize,
    /// Handed over, oldest first.
    committed: Vec<CommandBuffer>,
}

impl Encoder {
    pub(super) fn launch(
        &mut self,
        queue: &ProtocolObject<dyn MTLCommandQueue>,
        device: &str,
        launch: &Launch<'_, MetalQueue>,
    ) -> Result<(), Error> {
        let first = self.open.is_none();
        if first {
            // A thread of Rust has no pool that is emptied: what Metal puts into one would stay.
            self.open = Some(autoreleasepool(|_| open(queue, device))?);
        }
        if let Some((_, encoder)) = &self.open {
            if !first && !launch.overlaps {
                encoder.memoryBarrierWithScope(MTLBarrierScope::Buffers);
            }
            encode(encoder, launch);
        }
        self.launches += 1;
        if self.launches >= MOST_LAUNCHES {
            self.commit();
        }
        Ok(())
    }

    fn commit(&mut self) {
        if let Some((buffer, encoder)) = self.open.take() {
            encoder.endEncoding();
            buffer.commit();
            self.committed.push(buffer);
        }
        self.launches = 0;
    }

    /// Hands everything over; what comes back is done last. Says what failed of what is done.
    pub(super) fn hand_over(&mut self, device: &str) -> Result<Option<Committed>, Error> {
        self.commit();
        let is_done = |buffer: &CommandBuffer| {
            matches!(
                buffer.status(),
                MTLCommandBufferStatus::Completed | MTLCommandBufferStatus::Error
            )
        };
        let done = self.committed.iter().take_while(|buffer| is_done(buffer)).count();
        let last = self.committed.last().cloned();
        let mut outcome = Ok(last);
        for buffer in self.committed.drain(..done) {
            if let (Ok(_), Err(error)) = (&outcome, wait(&buffer, device)) {
                outcome = Err(error);
            }
        }
        outcome
    }

    /// Hands everything over and waits for it. What failed is still to be told.
    pub(super) fn settle(&mut self) {
        self.commit();
        self.committed.iter().for_each(|buffer| buffer.waitUntilCompleted());
    }

    /// Hands everything over and waits for it.
    pub(super) fn finish(&mut self, device: &str) -> Result<(), Error> {
        self.commit();
        let mut outcome = Ok(());
        for buffer in self.committed.drain(..) {
            outcome = outcome.and(wait(&buffer, device));
        }
        outcome
    }
}

/// Waits until it is done.
pub(super) fn wait(buffer: &Committed, device: &str) -> Result<(), Error> {
    buffer.waitUntilCompleted();
    match buffer.status() {
        MTLCommandBufferStatus::Error => Err(autoreleasepool(|_| failure(device, buffer.error().as_deref()))),
        _ => Ok(()),
    }
}

fn open(queue: &ProtocolObject<dyn MTLCommandQueue>, device: &str) -> Result<(CommandBuffer, ComputeEncoder), Error> {
    let fail = |call| Error::Call {
        device: device.to_owned(),
        call,
        reason: "Metal returned nothing".to_owned(),
    };
    let buffer = queue.commandBuffer().ok_or_else(|| fail("making a command buffer"))?;
    let encoder = buffer
        .computeCommandEncoderWithDispatchType(MTLDispatchType::Concurrent)
        .ok_or_else(|| fail("making an encoder"))?;
    Ok((buffer, encoder))
}

fn encode(encoder: &ProtocolObject<dyn MTLComputeCommandEncoder>, launch: &Launch<'_, MetalQueue>) {
    encoder.setComputePipelineState(&launch.kernel.pipeline);
    for (index, argument) in launch.arguments.iter().enumerate() {
        match argument {
            // SAFETY: the caller of `Queue::launch` gives arguments that fit the kernel; the command buffer keeps it alive.
            Argument::Buffer(buffer, offset) => unsafe {
                encoder.setBuffer_offset_atIndex(Some(&buffer.buffer), *offset, index);
            },
            // SAFETY: the bytes are copied at once.
            Argument::Value(bytes) => unsafe {
                encoder.setBytes_length_atIndex(NonNull::from(&bytes[0]).cast::<c_void>(), bytes.len(), index);
            },
        }
    }
    if launch.threadgroup_bytes > 0 {
        // Metal wants whole 16 bytes.
        let bytes = (launch.threadgroup_bytes as usize).next_multiple_of(16);
        // SAFETY: the kernel declares the memory at this index.
        unsafe { encoder.setThreadgroupMemoryLength_atIndex(bytes, 0) };
    }
    encoder.dispatchThreadgroups_threadsPerThreadgroup(size(launch.grid), size(launch.threads));
}

fn size([x, y, z]: [u32; 3]) -> MTLSize {
    MTLSize {
        width: x as usize,
        height: y as usize,
        depth: z as usize,
    }
}

fn failure(device: &str, error: Option<&NSError>) -> Error {
    let device = device.to_owned();
    let reason = error.map_or_else(
        || "no reason given".to_owned(),
        |error| error.localizedDescription().to_string(),
    );
    match error.map(|error| MTLCommandBufferError(error.code().unsigned_abs())) {
        Some(MTLCommandBufferError::OutOfMemory) => Error::OutOfMemory {
            device,
            needed_bytes: 0,
            free_bytes: 0,
            total_bytes: 0,
        },
        _ => Error::Lost { device, reason },
    }
}
