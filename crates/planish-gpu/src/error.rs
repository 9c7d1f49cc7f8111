//! What can go wrong with a GPU, each with what can be done about it.

/// Why a GPU cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No driver is installed.
    #[error("no {vendor} driver was found: install it")]
    NoDriver {
        /// Whose driver.
        vendor: &'static str,
    },
    /// The driver sees no device.
    #[error(
        "the {vendor} driver reports no device that can be used ({reason}): check that one is visible (nvidia-smi shows it, \
         CUDA_VISIBLE_DEVICES hides it), and after an update of the driver start the machine again"
    )]
    NoDevice {
        /// Whose driver.
        vendor: &'static str,
        /// The driver's words.
        reason: String,
    },
    /// The driver is older than the calls that planish makes.
    #[error("the driver supports CUDA {found}, planish needs {needed} or later: update the driver")]
    OldDriver {
        /// What is installed.
        found: String,
        /// What would do.
        needed: String,
    },
    /// The run-time compiler is not installed and the kernel is not in the cache.
    #[error(
        "NVRTC, the compiler of CUDA kernels, was not found: install the CUDA toolkit, or `pip install nvidia-cuda-nvrtc` \
         and put its lib folder on LD_LIBRARY_PATH"
    )]
    NoCompiler,
    /// The run-time compiler does not know the device.
    #[error(
        "NVRTC {version} cannot compile for {device} ({architecture}): install a newer CUDA toolkit, or a newer \
         nvidia-cuda-nvrtc by pip"
    )]
    OldCompiler {
        /// Of the compiler.
        version: String,
        /// The device.
        device: String,
        /// What the compiler was asked for.
        architecture: String,
    },
    /// The compiler refuses the text.
    #[error("kernel {name} does not compile for {device}, please report this with the log:\n{log}")]
    Compile {
        /// The kernel.
        name: String,
        /// Compiled for.
        device: String,
        /// The compiler's words.
        log: String,
    },
    /// Compiled code that the driver does not take.
    #[error("the driver of {device} refuses the compiled kernel {name} ({reason}): update the driver")]
    Load {
        /// The kernel.
        name: String,
        /// The device.
        device: String,
        /// The driver's words.
        reason: String,
    },
    /// Nobody has written this kernel yet.
    #[error("{operation} has no GPU kernel yet")]
    NoKernel {
        /// What was asked for.
        operation: &'static str,
    },
    /// Memory is used up.
    #[error(
        "{device} is out of memory: {}. Close other programs that use it, or take fewer bits",
        amounts(*needed_bytes, *free_bytes, *total_bytes)
    )]
    OutOfMemory {
        /// The device.
        device: String,
        /// Asked for; 0 where the device does not say how much it lacks.
        needed_bytes: u64,
        /// Free at that moment.
        free_bytes: u64,
        /// Of the device.
        total_bytes: u64,
    },
    /// The device does not answer any more, or a kernel crashed; nothing on it can be used again.
    #[error(
        "{device} was lost while planish computed on it ({reason}): nothing on it can be used again before a new start"
    )]
    Lost {
        /// The device.
        device: String,
        /// The driver's words.
        reason: String,
    },
    /// A call that should not fail.
    #[error("{device}: {call} failed ({reason}), please report this")]
    Call {
        /// The device.
        device: String,
        /// What was asked of the driver.
        call: &'static str,
        /// Its words.
        reason: String,
    },
}

fn amounts(needed_bytes: u64, free_bytes: u64, total_bytes: u64) -> String {
    let needed = match needed_bytes {
        0 => "more was needed than it had while it computed".to_owned(),
        _ => format!("{needed_bytes} bytes were asked for"),
    };
    format!("{needed}, {free_bytes} of {total_bytes} bytes are free")
}
