//! A program is a kernel file with defines; a launch is one kernel of it with a grid and constants.

use planish_format::FloatType;
use planish_gpu::KernelLanguage;
use smallvec::SmallVec;

/// Names and values. As many as kernels have take no memory.
pub type Defines = SmallVec<[(&'static str, u32); 24]>;
/// The bytes of a C struct. Those of all kernels but a few take no memory.
pub type Constants = SmallVec<[u8; 128]>;

/// Spells the words of the kernels.
fn header(language: KernelLanguage) -> &'static str {
    match language {
        KernelLanguage::Metal => include_str!("../../text/metal.h"),
        KernelLanguage::Cuda => concat!(
            include_str!("../../text/cuda/cuda.h"),
            include_str!("../../text/hopper/hopper.h")
        ),
        KernelLanguage::Other(header) => header,
    }
}

/// A kernel file.
#[derive(Clone, Copy, Debug)]
pub struct File {
    /// Its folder and name in `text`, without `.metal`: the folder says where it runs.
    pub path: &'static str,
    /// Shared files it needs, then itself.
    pub texts: &'static [&'static str],
}

/// What a kernel file runs on, by its folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunsOn {
    /// `portable`: every GPU.
    AnyGpu,
    /// `cuda`: GPUs of NVIDIA with tensor cores.
    Cuda,
    /// `hopper`: those whose warpgroups multiply.
    Hopper,
}

/// The file at a path in `text`, after the files it needs.
macro_rules! kernel_file {
    ($path:literal $(, $needed:literal)*) => {
        $crate::launch::File {
            path: $path,
            texts: &[
                $(include_str!(concat!("../../text/", $needed, ".metal")),)*
                include_str!(concat!("../../text/", $path, ".metal")),
            ],
        }
    };
}
pub(super) use kernel_file;

impl File {
    /// Its name, without the folder.
    pub fn name(&self) -> &'static str {
        self.path.rsplit('/').next().unwrap_or(self.path)
    }

    /// What it runs on.
    ///
    /// # Panics
    /// If its folder is none of those of kernel files.
    pub fn runs_on(&self) -> RunsOn {
        match self.path.split('/').next() {
            Some("portable") => RunsOn::AnyGpu,
            Some("cuda") => RunsOn::Cuda,
            Some("hopper") => RunsOn::Hopper,
            _ => panic!("no folder says where {} runs", self.path),
        }
    }
}

impl PartialEq for File {
    fn eq(&self, other: &File) -> bool {
        self.path == other.path
    }
}

impl Eq for File {}

impl std::hash::Hash for File {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.path.hash(state);
    }
}

/// A kernel file specialised by defines: what a host compiles, and the key of its cache.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Program {
    /// The kernel file.
    pub file: File,
    /// Names and values.
    pub defines: Defines,
}

impl Program {
    /// The whole source: defines, header, text.
    pub fn text(&self, language: KernelLanguage) -> String {
        let mut text = self.define_lines();
        text.push_str(header(language));
        self.file.texts.iter().for_each(|part| text.push_str(part));
        text
    }

    /// `#define NAME value` lines.
    pub fn define_lines(&self) -> String {
        let lines = self.defines.iter();
        lines.map(|(name, value)| format!("#define {name} {value}\n")).collect()
    }
}

/// One kernel with its grid. Buffers are bound in the order of the problem's documentation.
#[derive(Clone, Debug, PartialEq)]
pub struct Launch {
    /// What to compile.
    pub program: Program,
    /// Name of the kernel in the program.
    pub kernel: &'static str,
    /// Threadgroups. // (x, y, z)
    pub threadgroups: [u32; 3],
    /// Threads of a threadgroup, a multiple of 32.
    pub threads: u32,
    /// Buffers to bind before the constants.
    pub buffers: u32,
    /// The constants: the bytes of a C struct of 4-byte fields.
    pub constants: Constants,
    /// Dynamic shared memory in bytes; 0 everywhere but in kernels for CUDA alone.
    pub shared_bytes: u32,
}

/// What `VALUE`, `WEIGHT` and `CACHE` say.
pub fn value_number(float_type: FloatType) -> u32 {
    match float_type {
        FloatType::F32 => 0,
        FloatType::F16 => 1,
        FloatType::BF16 => 2,
    }
}

/// The constants that a struct is.
pub(super) fn constants_of(problem: &impl bytemuck::Pod) -> Constants {
    Constants::from_slice(bytemuck::bytes_of(problem))
}
