//! Kernel text to machine code of one GPU, by NVRTC.

use std::ffi::{CStr, CString, c_char};

use cudarc::nvrtc::{result, sys};

use super::library;
use crate::{Error, Source};

/// For GPUs of this capability. Hopper and later have instructions that only code for exactly that chip may use.
pub(super) fn options(capability: u32) -> Vec<String> {
    let exact = if capability >= 90 { "a" } else { "" };
    vec![
        format!("--gpu-architecture=sm_{capability}{exact}"),
        "--std=c++17".to_owned(),
        "--device-as-default-execution-space".to_owned(),
        // Metal's attributes are unknown here, and ignored.
        "--diag-suppress=1835".to_owned(),
    ]
}

/// A cubin.
pub(super) fn compile(source: &Source<'_>, options: &[String], device: &str) -> Result<Vec<u8>, Error> {
    if !library::is_compiler_present() {
        return Err(Error::NoCompiler);
    }
    let fail = |log: String| Error::Compile {
        name: source.name.to_owned(),
        device: device.to_owned(),
        log,
    };
    let text = CString::new(source.text).map_err(|_| fail("the text holds a zero byte".to_owned()))?;
    let program = Program::new(&text).map_err(|error| fail(error.to_string()))?;
    // SAFETY: the program lives.
    if let Err(error) = unsafe { result::compile_program(program.0, options) } {
        return Err(match error.0 {
            sys::nvrtcResult::NVRTC_ERROR_INVALID_OPTION => Error::OldCompiler {
                version: version(),
                device: device.to_owned(),
                architecture: options.first().cloned().unwrap_or_default(),
            },
            _ => fail(format!("{error}\n{}", program.log())),
        });
    }
    program.code().map_err(|error| fail(error.to_string()))
}

/// Whether the kernel says itself from where on it needs what earlier kernels wrote.
pub(super) fn waits_for_previous(source: &Source<'_>) -> bool {
    let name = format!("{})", source.entry);
    let mut kernels = source.text.split("\nKERNEL");
    let own = kernels.find(|text| {
        let declared = text.split('(').nth(1).and_then(|rest| rest.lines().next());
        declared.is_some_and(|declared| declared.trim().rsplit([' ', ',']).next() == Some(name.as_str()))
    });
    own.is_some_and(|text| text.contains("    wait_for_previous();"))
}

fn version() -> String {
    let (mut major, mut minor) = (0, 0);
    // SAFETY: writes two integers.
    match unsafe { sys::nvrtcVersion(&mut major, &mut minor) }.result() {
        Ok(()) => format!("{major}.{minor}"),
        Err(error) => error.to_string(),
    }
}

struct Program(sys::nvrtcProgram);

impl Program {
    fn new(text: &CStr) -> Result<Program, result::NvrtcError> {
        result::create_program(text, Some(c"planish.cu")).map(Program)
    }

    fn log(&self) -> String {
        // SAFETY: the program lives.
        let log = unsafe { result::get_program_log(self.0) }.unwrap_or_default();
        let bytes: Vec<u8> = log
            .into_iter()
            .map(|letter| letter as u8)
            .take_while(|&byte| byte != 0)
            .collect();
        String::from_utf8_lossy(&bytes).trim().to_owned()
    }

    fn code(&self) -> Result<Vec<u8>, result::NvrtcError> {
        let mut bytes = 0;
        // SAFETY: the program lives; writes one integer.
        unsafe { sys::nvrtcGetCUBINSize(self.0, &mut bytes) }.result()?;
        let mut code = vec![0u8; bytes];
        // SAFETY: room for as many bytes as it said.
        unsafe { sys::nvrtcGetCUBIN(self.0, code.as_mut_ptr().cast::<c_char>()) }.result()?;
        Ok(code)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: destroyed once.
        let _ = unsafe { result::destroy_program(self.0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_that_wait_are_told_apart() {
        let text = "#define KERNEL(name) name\n\nKERNEL(first)(\n    int a)\n{\n    wait_for_previous();\n}\n\
                    KERNEL(second)(\n    int a)\n{\n}\nKERNEL_OF(32, third)(\n    int a)\n{\n    wait_for_previous();\n}\n";
        let waits = ["first", "second", "third", "ird", "none"].map(|entry| {
            waits_for_previous(&Source {
                name: "test",
                text,
                entry,
            })
        });
        assert_eq!(waits, [true, false, true, false, false]);
    }
}
