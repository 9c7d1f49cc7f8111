//! What other compilers say of the kernels' text: NVRTC compiles all of it for several GPUs, and clang checks the address spaces
//! by OpenCL C++, which has Metal's. Both run where they are installed (`.ci/run` installs them): `cargo test -- --ignored`.

use std::env;
use std::ffi::{CString, c_char, c_int, c_void};
use std::io::Write;
use std::process::{Command, Stdio};
use std::ptr::null_mut;

use libloading::{Library, Symbol};
use planish_kernels::launch::{KernelLanguage, Launch, Program, RunsOn};

use crate::{
    adjust, argmax, attention, attention_tiles, calibrated, choose, elementwise, experts, matmul, matvec, mix,
    multiply, norm, places, quantize, rope, route, rows, search, stack, stack_tensor, states, tensor, tensor_attention,
    warpgroup,
};

const CHECK_HEADER: &str = include_str!("../../text/address_spaces.h");
const SPACES: [&str; 4] = ["device", "threadgroup", "thread", "constant"];

/// Every program that the emulation runs, once.
fn programs() -> Vec<Program> {
    let launches: [Vec<Launch>; 25] = [
        adjust::launches(),
        argmax::launches(),
        attention::launches(),
        attention_tiles::launches(),
        calibrated::launches(),
        choose::launches(),
        elementwise::launches(),
        experts::launches(),
        matmul::launches(),
        matvec::launches(),
        mix::launches(),
        multiply::launches(),
        norm::launches(),
        places::launches(),
        quantize::launches(),
        rope::launches(),
        route::launches(),
        rows::launches(),
        search::launches(),
        stack::launches(),
        stack_tensor::launches(),
        states::launches(),
        tensor::launches(),
        tensor_attention::launches(),
        warpgroup::launches(),
    ];
    let mut programs: Vec<Program> = Vec::new();
    for launch in launches.into_iter().flatten() {
        if !programs.contains(&launch.program) {
            programs.push(launch.program);
        }
    }
    programs
}

/// Metal has no pointer without an address space, while the compilers here would take one.
#[test]
fn every_pointer_names_its_address_space() {
    for program in programs() {
        let text = program.file.texts.concat();
        let code: String = text
            .lines()
            .map(|line| line.split("//").next().unwrap_or_default())
            .collect();
        let structs = code
            .split("struct ")
            .skip(1)
            .filter_map(|rest| rest.split([' ', ';']).next());
        let mut types: Vec<&str> = structs.collect();
        types.extend([
            "float", "uint", "uchar", "ushort", "uint2", "uint4", "float2", "float4", "f16", "f32", "T",
        ]);
        types.extend(["value_t", "weight_t", "output_t", "cache_t", "simdgroup_float8x8"]);
        for (place, _) in code.match_indices(['*', '&']) {
            let before = code[..place].trim_end_matches([' ', '(']);
            let word = before
                .rsplit(|letter: char| !letter.is_alphanumeric() && letter != '_')
                .next();
            if word.is_none_or(|word| !types.contains(&word)) {
                continue; // a product
            }
            let declaration = before.rsplit(['(', ',', ';', '{', '}', '<']).next().unwrap_or_default();
            let named = declaration.split_whitespace().any(|word| SPACES.contains(&word));
            assert!(
                named,
                "{}: no address space in `{}`",
                program.file.name(),
                declaration.trim()
            );
        }
    }
}

#[test]
#[ignore = "needs clang 14 or later"]
fn clang_finds_no_address_space_mixed_up() {
    let compiler = env::var("CLANG").unwrap_or_else(|_| "clang".to_owned());
    for program in programs() {
        if program.file.runs_on() != RunsOn::AnyGpu {
            continue;
        }
        let text = program.define_lines() + CHECK_HEADER + &program.file.texts.concat();
        let mut process = Command::new(&compiler)
            .args([
                "-x",
                "clcpp",
                "-cl-std=CLC++",
                "-target",
                "spir64",
                "-fsyntax-only",
                "-w",
                "-",
            ])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("clang");
        let mut input = process.stdin.take().expect("piped");
        input.write_all(text.as_bytes()).expect("clang reads");
        drop(input);
        let output = process.wait_with_output().expect("clang ends");
        let log = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program:?}:\n{log}");
    }
}

#[test]
#[ignore = "needs NVRTC: PLANISH_NVRTC, or libnvrtc.so.13 or .12 among the system's libraries"]
fn nvrtc_compiles_every_kernel() {
    const MOST: usize = 12; // programs of a file
    let compiler = Nvrtc::open();
    let programs = programs();
    for (index, program) in programs.iter().enumerate() {
        let of_file = programs.iter().filter(|other| other.file == program.file).count();
        if !index.is_multiple_of(of_file.div_ceil(MOST)) {
            continue;
        }
        // Tensor cores take bf16 from sm_80 on; the rest is for any GPU.
        let architecture = match (index % 5, program.file.runs_on()) {
            (_, RunsOn::Hopper) => "sm_90a",
            (0, RunsOn::Cuda) => "sm_80",
            (0, RunsOn::AnyGpu) => "sm_75",
            _ => "sm_90a",
        };
        if let Err(log) = compiler.compile(&program.text(KernelLanguage::Cuda), architecture) {
            panic!("{architecture}, {program:?}:\n{log}");
        }
    }
}

#[test]
#[ignore = "needs NVRTC, as above"]
fn nvrtc_refuses_a_wrong_text() {
    let compiler = Nvrtc::open();
    assert!(compiler.compile("KERNEL(nothing)", "sm_90a").is_err());
}

type Handle = *mut c_void;

/// NVRTC, opened at run time.
struct Nvrtc {
    library: Library,
}

impl Nvrtc {
    fn open() -> Nvrtc {
        let named = env::var("PLANISH_NVRTC");
        let names = named
            .as_deref()
            .map_or(vec!["libnvrtc.so.13", "libnvrtc.so.12"], |name| vec![name]);
        // SAFETY: NVIDIA's compiler; opening it runs no code of ours.
        let opened = names.iter().find_map(|name| unsafe { Library::new(*name) }.ok());
        Nvrtc {
            library: opened.unwrap_or_else(|| panic!("none of {names:?} can be opened")),
        }
    }

    fn compile(&self, text: &str, architecture: &str) -> Result<(), String> {
        type Create = unsafe extern "C" fn(*mut Handle, *const c_char, *const c_char, c_int, Handle, Handle) -> c_int;
        type Compile = unsafe extern "C" fn(Handle, c_int, *const *const c_char) -> c_int;
        type LogSize = unsafe extern "C" fn(Handle, *mut usize) -> c_int;
        type Log = unsafe extern "C" fn(Handle, *mut c_char) -> c_int;
        type Destroy = unsafe extern "C" fn(*mut Handle) -> c_int;
        let text = CString::new(text).expect("no zero byte");
        let options = [
            "-default-device",
            "--std=c++17",
            &format!("--gpu-architecture={architecture}"),
        ]
        .map(|option| CString::new(option).expect("no zero byte"));
        let pointers: Vec<*const c_char> = options.iter().map(|option| option.as_ptr()).collect();
        let mut program = null_mut();
        // SAFETY: the types are those of nvrtc.h; the program lives until it is destroyed, the log has room for its size.
        unsafe {
            let create: Symbol<'_, Create> = self.symbol(b"nvrtcCreateProgram");
            let compile: Symbol<'_, Compile> = self.symbol(b"nvrtcCompileProgram");
            let log_size: Symbol<'_, LogSize> = self.symbol(b"nvrtcGetProgramLogSize");
            let get_log: Symbol<'_, Log> = self.symbol(b"nvrtcGetProgramLog");
            let destroy: Symbol<'_, Destroy> = self.symbol(b"nvrtcDestroyProgram");
            assert_eq!(
                create(
                    &mut program,
                    text.as_ptr(),
                    c"kernel.cu".as_ptr(),
                    0,
                    null_mut(),
                    null_mut()
                ),
                0
            );
            let result = compile(program, pointers.len() as c_int, pointers.as_ptr());
            let mut size = 0;
            log_size(program, &mut size);
            let mut log = vec![0u8; size];
            get_log(program, log.as_mut_ptr().cast());
            destroy(&mut program);
            match result {
                0 => Ok(()),
                _ => Err(String::from_utf8_lossy(&log).into_owned()),
            }
        }
    }

    /// # Safety
    /// `T` must be the function's type.
    unsafe fn symbol<T>(&self, name: &[u8]) -> Symbol<'_, T> {
        // SAFETY: promised by the caller.
        unsafe { self.library.get(name) }.expect("a function of NVRTC")
    }
}
