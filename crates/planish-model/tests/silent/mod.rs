//! A GPU that takes every launch and computes nothing: what it gives back is zero. It takes no memory of the host, so that what is
//! counted are the operations above it.

use bytes::Bytes;
use planish_gpu::{Error, Features, KernelLanguage, Launch, Memory, Queue, Source};

/// Whether it has all kinds of kernels, or those of every GPU alone.
pub struct SilentQueue {
    pub tensor_cores: bool,
}

impl Queue for SilentQueue {
    type Buffer = ();
    type Kernel = ();
    type Ticket = ();

    fn language(&self) -> KernelLanguage {
        KernelLanguage::Other("")
    }

    fn device(&self) -> &str {
        "silent"
    }

    fn features(&self) -> Features {
        Features {
            simdgroup_matrices: true,
            tensor_cores: self.tensor_cores,
            warpgroups: self.tensor_cores,
            multiprocessors: 3,
        }
    }

    fn memory(&self) -> Result<Memory, Error> {
        Ok(Memory {
            free_bytes: 1 << 30,
            total_bytes: 1 << 30,
            used_bytes: 0,
        })
    }

    fn allocate(&self, _bytes: usize) -> Result<(), Error> {
        Ok(())
    }

    fn place(&self, _bytes: &Bytes) -> Result<((), usize), Error> {
        Ok(((), 0))
    }

    fn upload(&self, _bytes: &[u8], _buffer: &(), _offset: usize) -> Result<(), Error> {
        Ok(())
    }

    fn copy(&self, _from: &(), _to: &(), _bytes: usize) -> Result<(), Error> {
        Ok(())
    }

    fn download(&self, _buffer: &(), _offset: usize, bytes: &mut [u8]) -> Result<(), Error> {
        bytes.fill(0);
        Ok(())
    }

    fn begin_download(&self, _buffer: &(), _offset: usize, _bytes: usize) -> Result<(), Error> {
        Ok(())
    }

    fn finish_download(&self, _ticket: (), bytes: &mut [u8]) -> Result<(), Error> {
        bytes.fill(0);
        Ok(())
    }

    fn compile(&self, _source: &Source<'_>) -> Result<(), Error> {
        Ok(())
    }

    fn launch(&self, _launch: &Launch<'_, SilentQueue>) -> Result<(), Error> {
        Ok(())
    }

    fn wait(&self) -> Result<(), Error> {
        Ok(())
    }
}
