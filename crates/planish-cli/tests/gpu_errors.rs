//! What planish says where a GPU cannot be used or fails: a driver and a compiler made for the test (stubs/) answer as told. Every
//! message names a cure, and `--device auto` computes on the processor and says why. Needs a C compiler (`CC`, else `cc`).
#![cfg(all(target_os = "linux", feature = "demo-model"))]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// What stands where planish looks for a library.
#[derive(Clone, Copy)]
enum Library {
    Stub,
    /// A file that no loader takes, before any real one.
    Unloadable,
}

/// A folder of libraries that hides the system's.
struct Machine {
    folder: TempDir,
}

impl Machine {
    fn new(driver: Library, compiler: Library) -> Machine {
        let machine = Machine {
            folder: TempDir::new().expect("a folder"),
        };
        // All names that are tried before the usual ones.
        machine.place(
            "libcuda.c",
            driver,
            &["libcuda.so", "libcuda.so.13", "libcuda.so.12", "libcuda.so.1"],
        );
        machine.place(
            "libnvrtc.c",
            compiler,
            &["libnvrtc.so", "libnvrtc.so.13", "libnvrtc.so.12"],
        );
        machine
    }

    fn place(&self, source: &str, library: Library, names: &[&str]) {
        let path = |name: &str| self.folder.path().join(name);
        let Some((first, others)) = names.split_first() else {
            return;
        };
        match library {
            Library::Stub => compile(
                &Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stubs").join(source),
                &path(first),
            ),
            Library::Unloadable => std::fs::write(path(first), "no library").expect("writing"),
        }
        for other in others {
            std::os::unix::fs::symlink(first, path(other)).expect("a link");
        }
    }

    fn generate(&self, device: &str, settings: &[(&str, &str)]) -> Output {
        Command::new(assert_cmd::cargo::cargo_bin!("planish"))
            .args([
                "generate",
                "--prompt",
                "Once",
                "--max-new-tokens",
                "2",
                "--temperature",
                "0",
                "--device",
                device,
            ])
            .env("LD_LIBRARY_PATH", self.folder.path())
            .env("PLANISH_KERNEL_CACHE", "")
            .env("HF_HUB_OFFLINE", "1")
            .envs(settings.iter().copied())
            .stdin(Stdio::null())
            .output()
            .expect("planish starts")
    }

    /// Fails on the GPU with all these words, and says them under `auto` while the processor computes.
    fn fails(&self, settings: &[(&str, &str)], words: &[&str]) {
        let output = self.generate("cuda", settings);
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{settings:?}: {message}");
        assert!(output.stdout.is_empty(), "{settings:?}");
        for word in words {
            assert!(message.contains(word), "{settings:?}: {word:?} is not in: {message}");
        }
        let output = self.generate("auto", settings);
        let notice = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && !output.stdout.is_empty(),
            "{settings:?}: {notice}"
        );
        for word in words.iter().chain(&["computing on the CPU"]) {
            assert!(
                notice.contains(word),
                "{settings:?}: {word:?} is not in the notice: {notice}"
            );
        }
    }
}

fn compile(source: &Path, library: &PathBuf) {
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let output = Command::new(&compiler)
        .args(["-shared", "-fPIC", "-w", "-o"])
        .args([library, &source.to_owned()])
        .output()
        .unwrap_or_else(|error| panic!("the test needs a C compiler, and {compiler} does not start: {error}"));
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {log}", source.display());
}

const CPU: &str = "--device cpu";

#[test]
fn without_a_driver_auto_computes_in_silence() {
    let machine = Machine::new(Library::Unloadable, Library::Unloadable);
    let output = machine.generate("cuda", &[]);
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(
        message.contains("no NVIDIA driver") && message.contains(CPU),
        "{message}"
    );
    let output = machine.generate("auto", &[]);
    let notice = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !notice.contains("driver"), "{notice}");
}

#[test]
fn drivers_that_show_no_device_or_are_too_old() {
    let machine = Machine::new(Library::Stub, Library::Stub);
    let fail = |what| ("PLANISH_STUB_FAIL", what);
    machine.fails(&[fail("cuInit=100")], &["no device", "CUDA_ERROR_NO_DEVICE", CPU]);
    // The library and the kernel's module are of two versions.
    machine.fails(&[fail("cuInit=803")], &["SYSTEM_DRIVER_MISMATCH", "update", CPU]);
    machine.fails(&[fail("cuDeviceGet=101")], &["no device", CPU]);
    machine.fails(
        &[("PLANISH_STUB_VERSION", "11080")],
        &["CUDA 11.8", "12.0 or later", "update the driver", CPU],
    );
}

#[test]
fn memory_that_is_used_up() {
    let machine = Machine::new(Library::Stub, Library::Stub);
    for call in ["1", "3", "20"] {
        let fail = format!("cuMemAlloc_v2=2@{call}");
        machine.fails(
            &[("PLANISH_STUB_FAIL", &fail)],
            &["Stub GPU is out of memory", "70000000000", "--bits", CPU],
        );
    }
    // Seen before anything is allocated.
    machine.fails(
        &[("PLANISH_STUB_FREE", "1000"), ("PLANISH_STUB_FAIL", "cuMemAlloc_v2=1")],
        &["Stub GPU is out of memory", "1000 of 80000000000 bytes are free", CPU],
    );
}

#[test]
fn compilers_that_are_absent_old_or_refuse() {
    let real = ["/usr/local/cuda", "/opt/cuda"]
        .iter()
        .any(|folder| Path::new(folder).exists());
    // The compiler is found in these folders too.
    if !real {
        let machine = Machine::new(Library::Stub, Library::Unloadable);
        machine.fails(
            &[("CUDA_HOME", "/nowhere")],
            &["NVRTC", "pip install nvidia-cuda-nvrtc", CPU],
        );
    }
    let machine = Machine::new(Library::Stub, Library::Stub);
    machine.fails(
        &[("PLANISH_STUB_COMPILE", "6")],
        &["does not compile for Stub GPU", "words of the stub", "report", CPU],
    );
    machine.fails(&[("PLANISH_STUB_COMPILE", "5")], &["NVRTC 12.0", "sm_90", "newer", CPU]);
    machine.fails(
        &[("PLANISH_STUB_FAIL", "cuModuleLoadData=209")],
        &["NO_BINARY_FOR_GPU", "update the driver", CPU],
    );
}

/// Nothing falls back in the middle of an answer: it ends, and says what to do.
#[test]
fn devices_that_are_lost_while_they_compute() {
    let machine = Machine::new(Library::Stub, Library::Stub);
    for (call, code, name) in [
        ("cuStreamSynchronize", 719, "LAUNCH_FAILED"),
        ("cuMemcpyDtoHAsync_v2", 700, "ILLEGAL_ADDRESS"),
        ("cuMemcpyDtoHAsync_v2", 46, "DEVICE_UNAVAILABLE"),
        ("cuMemcpyDtoHAsync_v2", 214, "ECC_UNCORRECTABLE"),
    ] {
        let fail = format!("{call}={code}");
        let output = machine.generate("cuda", &[("PLANISH_STUB_FAIL", &fail)]);
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{message}");
        for word in ["Stub GPU was lost", name, "start planish again", CPU] {
            assert!(message.contains(word), "{fail}: {word:?} is not in: {message}");
        }
    }
}
