//! Reading memory and nothing else: the rate that no kernel can pass.

use super::{File, Launch, Program, constants_of, kernel_file};
use smallvec::smallvec;

const FILE: File = kernel_file!("portable/read", "shared/values");
const THREADS: u32 = 256;
const READ_BYTES: u64 = 16;
const READS_TOGETHER: u64 = 4;

/// Reads a buffer once. Buffers: data ([`Read::bytes`]), folded words ([`Read::folded_bytes`]).
#[derive(Clone, Copy, Debug)]
pub struct Read {
    /// Threadgroups at work.
    pub threadgroups: u32,
    /// Reads of every thread, in fours.
    pub turns: u32,
}

impl Read {
    /// Bytes that are read.
    pub fn bytes(&self) -> u64 {
        u64::from(self.threadgroups * THREADS) * u64::from(self.turns) * READS_TOGETHER * READ_BYTES
    }

    /// Bytes of the folded words.
    pub fn folded_bytes(&self) -> usize {
        self.threadgroups as usize * THREADS as usize * 4
    }

    /// The launch.
    pub fn launch(&self) -> Launch {
        let defines = smallvec![("THREADS", THREADS), ("VALUE", 0)];
        Launch {
            program: Program { file: FILE, defines },
            kernel: "read",
            threadgroups: [self.threadgroups, 1, 1],
            threads: THREADS,
            buffers: 2,
            constants: constants_of(&((self.bytes() / READ_BYTES) as u32)),
            shared_bytes: 0,
        }
    }
}
