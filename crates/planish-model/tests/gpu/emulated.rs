//! A queue without a GPU: each kernel is compiled by the C++ compiler (`CXX`, else `c++`) into a library of its own and run on the
//! processor, with the emulation that planish-ops tests its kernels with.

use std::collections::HashMap;
use std::ffi::c_void;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use planish_gpu::{Argument, Error, Features, KernelLanguage, Launch, Memory, Queue, Source};

/// The words of kernels in C++ for the processor.
const HEADER: &str = include_str!("../../../planish-kernels/text/emulation.h");
/// The scheduler of threads; appended to a kernel's text.
const DRIVER: &str = include_str!("../../../planish-kernels/tests/kernels/driver.cpp");
const ENTRY: &str = "planish_run_emulated";

type Run = unsafe extern "C" fn(*const u32, u32, *const *mut c_void, *const c_void);

/// Memory in whole 16 bytes.
pub struct HostBuffer {
    words: *mut [u128],
}

// SAFETY: the queue runs one launch at a time and hands out no references.
unsafe impl Send for HostBuffer {}
// SAFETY: as above.
unsafe impl Sync for HostBuffer {}

impl HostBuffer {
    fn new(bytes: usize) -> HostBuffer {
        let words = vec![0u128; bytes.div_ceil(16).max(1)].into_boxed_slice();
        HostBuffer {
            words: Box::into_raw(words),
        }
    }

    fn at(&self, offset: usize, bytes: usize) -> *mut u8 {
        assert!(offset + bytes <= 16 * self.words.len());
        self.words.cast::<u8>().wrapping_add(offset)
    }
}

impl Drop for HostBuffer {
    fn drop(&mut self) {
        // SAFETY: made by `Box::into_raw`.
        drop(unsafe { Box::from_raw(self.words) });
    }
}

/// A compiled kernel.
pub struct HostKernel {
    library: libloading::Library,
}

/// A kernel, once somebody has compiled it; locked meanwhile.
type Slot = Arc<Mutex<Option<Arc<HostKernel>>>>;

/// Compiled kernels, shared by all queues of a test program.
static KERNELS: Mutex<Option<HashMap<String, Slot>>> = Mutex::new(None);
/// Whether a kernel of that name was compiled.
pub fn has_compiled(name: &str) -> bool {
    let kernels = KERNELS.lock().unwrap_or_else(PoisonError::into_inner);
    let beginning = format!("{name}\n");
    kernels.iter().flatten().any(|(key, _)| key.starts_with(&beginning))
}

/// A library runs one launch at a time.
static RUNNING: Mutex<()> = Mutex::new(());

/// Runs kernels at once, when they are launched.
pub struct EmulatedQueue;

impl Queue for EmulatedQueue {
    type Buffer = HostBuffer;
    type Kernel = Arc<HostKernel>;
    type Ticket = Vec<u8>;

    fn language(&self) -> KernelLanguage {
        KernelLanguage::Other(HEADER)
    }

    fn device(&self) -> &str {
        "emulated"
    }

    /// The emulation has them all; so few multiprocessors that tiny models share their products out as large ones do.
    fn features(&self) -> Features {
        Features {
            simdgroup_matrices: true,
            tensor_cores: true,
            warpgroups: true,
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

    fn allocate(&self, bytes: usize) -> Result<HostBuffer, Error> {
        Ok(HostBuffer::new(bytes))
    }

    fn place(&self, bytes: &Bytes) -> Result<(HostBuffer, usize), Error> {
        let buffer = HostBuffer::new(bytes.len());
        self.upload(bytes, &buffer, 0)?;
        Ok((buffer, 0))
    }

    fn upload(&self, bytes: &[u8], buffer: &HostBuffer, offset: usize) -> Result<(), Error> {
        // SAFETY: checked by `at`; nothing else touches the buffer now.
        unsafe { buffer.at(offset, bytes.len()).copy_from(bytes.as_ptr(), bytes.len()) };
        Ok(())
    }

    fn copy(&self, from: &HostBuffer, to: &HostBuffer, bytes: usize) -> Result<(), Error> {
        // SAFETY: checked by `at`; nothing else touches the buffers now.
        unsafe { to.at(0, bytes).copy_from(from.at(0, bytes), bytes) };
        Ok(())
    }

    fn download(&self, buffer: &HostBuffer, offset: usize, bytes: &mut [u8]) -> Result<(), Error> {
        // SAFETY: checked by `at`; nothing else touches the buffer now.
        unsafe {
            bytes
                .as_mut_ptr()
                .copy_from(buffer.at(offset, bytes.len()), bytes.len())
        };
        Ok(())
    }

    fn begin_download(&self, buffer: &HostBuffer, offset: usize, bytes: usize) -> Result<Vec<u8>, Error> {
        let mut copied = vec![0; bytes];
        self.download(buffer, offset, &mut copied)?;
        Ok(copied)
    }

    fn finish_download(&self, ticket: Vec<u8>, bytes: &mut [u8]) -> Result<(), Error> {
        bytes.copy_from_slice(&ticket);
        Ok(())
    }

    fn compile(&self, source: &Source<'_>) -> Result<Arc<HostKernel>, Error> {
        let key = format!("{}\n{}", source.entry, source.text);
        let mut kernels = KERNELS.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = Arc::clone(kernels.get_or_insert_default().entry(key).or_default());
        drop(kernels);
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kernel) = &*slot {
            return Ok(Arc::clone(kernel));
        }
        Ok(Arc::clone(slot.insert(Arc::new(compile(source)?))))
    }

    fn launch(&self, launch: &Launch<'_, EmulatedQueue>) -> Result<(), Error> {
        let mut buffers = Vec::new();
        let mut constants = None;
        for argument in launch.arguments {
            match argument {
                Argument::Buffer(buffer, offset) => buffers.push(buffer.at(*offset, 0).cast::<c_void>()),
                Argument::Value(bytes) => constants = Some(*bytes),
            }
        }
        // Fields of a C struct want their alignment.
        let constants: Vec<u32> = constants.unwrap_or_default().chunks_exact(4).map(word).collect();
        let _running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the library has this function of this type.
        let run =
            unsafe { launch.kernel.library.get::<Run>(ENTRY.as_bytes()) }.expect("the entry of an emulated kernel");
        // SAFETY: buffers and constants are what the kernel takes; they live through the call.
        unsafe {
            run(
                launch.grid.as_ptr(),
                launch.threads[0],
                buffers.as_ptr(),
                constants.as_ptr().cast(),
            )
        };
        Ok(())
    }

    fn wait(&self) -> Result<(), Error> {
        Ok(())
    }
}

fn word(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes.try_into().expect("4 bytes"))
}

/// The library of a kernel.
fn compile(source: &Source<'_>) -> Result<HostKernel, Error> {
    let entry = format!(
        r#"
const emulation::Entry TABLE[] = {{ emulation::Call<&{kernel}>::entry }};
extern "C" __attribute__((visibility("default")))
void {ENTRY}(const uint* grid, uint threads, void** buffers, const void* constants) {{
    using namespace emulation;
    if (!shared_memory) shared_memory = (char*)aligned_alloc(1024, MOST_SHARED_BYTES);
    fibers.reserve(1024);
    emulation::entry = TABLE[0], entry_buffers = buffers, entry_constants = constants;
    for (uint z = 0; z < grid[2]; z++)
        for (uint y = 0; y < grid[1]; y++)
            for (uint x = 0; x < grid[0]; x++) run_threadgroup(threads, {{x, y, z}}, {{grid[0], grid[1], grid[2]}});
}}
"#,
        kernel = source.entry
    );
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (text, library) = (folder.path().join("kernel.cpp"), folder.path().join("kernel.so"));
    std::fs::write(&text, [source.text, DRIVER, &entry].concat()).expect("writing a kernel's text");
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
    let output = Command::new(&compiler)
        .args([
            "-std=c++17",
            "-O1",
            "-w",
            "-shared",
            "-fPIC",
            "-fvisibility=hidden",
            "-ffp-contract=off",
            "-o",
        ])
        .args([&library, &text])
        .output()
        .unwrap_or_else(|error| panic!("{compiler}: {error}; these tests need a C++ compiler"));
    if !output.status.success() {
        return Err(Error::Compile {
            name: source.name.to_owned(),
            device: "emulated".to_owned(),
            log: String::from_utf8_lossy(&output.stderr).into_owned(),
        });
    }
    // SAFETY: the library's initializers only set up its own variables. Unix keeps it usable when the file is gone.
    let library = unsafe { libloading::Library::new(&library) }.expect("loading an emulated kernel");
    Ok(HostKernel { library })
}
