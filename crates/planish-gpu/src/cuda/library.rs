//! Finding NVIDIA's libraries: the driver where the system has it, NVRTC also in the toolkit's usual folders.

use std::env;
use std::path::PathBuf;
use std::sync::OnceLock;

/// Whether the driver's library can be opened.
pub(super) fn is_driver_present() -> bool {
    // SAFETY: opens the driver's library and closes it again.
    unsafe { cudarc::driver::sys::is_culib_present() }
}

/// Whether NVRTC can be opened. A library in the toolkit's folders is opened here and kept, so that its name is known to
/// the loader from then on.
pub(super) fn is_compiler_present() -> bool {
    static PRESENT: OnceLock<bool> = OnceLock::new();
    *PRESENT.get_or_init(|| {
        // SAFETY: opens the library and closes it again.
        if unsafe { cudarc::nvrtc::sys::is_culib_present() } {
            return true;
        }
        for path in compiler_paths() {
            // SAFETY: NVRTC's initializers have no preconditions.
            if let Ok(library) = unsafe { libloading::Library::new(path) } {
                std::mem::forget(library);
                // SAFETY: as above.
                return unsafe { cudarc::nvrtc::sys::is_culib_present() };
            }
        }
        false
    })
}

fn compiler_paths() -> Vec<PathBuf> {
    let homes = ["CUDA_HOME", "CUDA_PATH"]
        .into_iter()
        .filter_map(env::var_os)
        .map(PathBuf::from);
    let homes = homes.chain([PathBuf::from("/usr/local/cuda"), PathBuf::from("/opt/cuda")]);
    homes
        .flat_map(|home| {
            ["lib64", "targets/x86_64-linux/lib", "targets/sbsa-linux/lib", "lib"].map(|folder| home.join(folder))
        })
        .flat_map(|folder| ["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"].map(|name| folder.join(name)))
        .filter(|path| path.exists())
        .collect()
}
