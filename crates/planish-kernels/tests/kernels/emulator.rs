//! Compiles programs with the C++ compiler (`CXX`, else `c++`), each in a namespace of its own, together with `driver.cpp`, and
//! runs launches in that process.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::env;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::hash::{Hash, Hasher};
use std::io::{Read, Seek, Write};
use std::path::PathBuf;
use std::process::{self, Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use planish_kernels::launch::{Launch, Program};

const HEADER: &str = include_str!("../../text/emulation.h");
const DRIVER: &str = include_str!("driver.cpp");

/// What the compiler watches for.
#[derive(Clone, Copy, Debug)]
pub enum Watch {
    /// Accesses out of bounds, undefined behaviour.
    Memory,
    /// Accesses of two threads with no barrier between them.
    Races,
}

impl Watch {
    fn flags(self) -> &'static [&'static str] {
        match self {
            Watch::Memory => &["-fsanitize=address,alignment,shift,bounds", "-fno-sanitize-recover=all"],
            Watch::Races => &["-fsanitize=thread"],
        }
    }
}

/// A process that knows some kernels.
pub struct Emulator {
    kernels: Vec<(Program, &'static str)>,
    process: Child,
    /// What the watchers say.
    report: File,
    /// A launch failed.
    stopped: bool,
}

impl Emulator {
    /// Compiles the programs of these launches.
    pub fn new(launches: &[Launch], watch: Watch) -> Emulator {
        let mut kernels: Vec<(Program, &'static str)> = Vec::new();
        for launch in launches {
            let kernel = (launch.program.clone(), launch.kernel);
            if !kernels.contains(&kernel) {
                kernels.push(kernel);
            }
        }
        let program = compile(&source(&kernels), watch.flags());
        let report = tempfile::tempfile().expect("a file for reports");
        let process = Command::new(program)
            // The runtime's own exit code, so that a report fails the test.
            .env("TSAN_OPTIONS", "exitcode=66:halt_on_error=1:report_bugs=1")
            .env("ASAN_OPTIONS", "detect_leaks=0:detect_stack_use_after_return=0")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(report.try_clone().expect("a second handle"))
            .spawn()
            .expect("starting the emulation");
        Emulator {
            kernels,
            process,
            report,
            stopped: false,
        }
    }

    /// Runs a launch; the buffers come back as the kernel left them.
    pub fn run(&mut self, launch: &Launch, buffers: &mut [Vec<u8>]) {
        if let Err(report) = self.try_run(launch, buffers) {
            panic!("{report}\nthe emulation of {} stopped. {launch:?}", launch.kernel);
        }
    }

    /// As [`Emulator::run`]; what the watchers found is the error, and nothing more can be run.
    pub fn try_run(&mut self, launch: &Launch, buffers: &mut [Vec<u8>]) -> Result<(), String> {
        assert_eq!(buffers.len(), launch.buffers as usize, "buffers of {}", launch.kernel);
        let index = self
            .kernels
            .iter()
            .position(|(program, kernel)| *program == launch.program && *kernel == launch.kernel)
            .expect("a kernel that was compiled");
        let mut job = Vec::new();
        let mut number = |value: usize| job.extend((value as u32).to_le_bytes());
        number(index);
        launch.threadgroups.iter().for_each(|&count| number(count as usize));
        number(launch.threads as usize);
        number(launch.constants.len());
        job.extend(&launch.constants);
        job.extend((buffers.len() as u32).to_le_bytes());
        for buffer in buffers.iter() {
            job.extend((buffer.len() as u32).to_le_bytes());
            job.extend(buffer);
        }
        let sent = self.process.stdin.as_mut().expect("piped").write_all(&job);
        let output = self.process.stdout.as_mut().expect("piped");
        let done = sent.is_ok() && buffers.iter_mut().all(|buffer| output.read_exact(buffer).is_ok());
        if done {
            return Ok(());
        }
        self.stopped = true;
        let status = self.process.wait();
        let mut report = Vec::new();
        self.report.rewind().expect("a file that can be read");
        self.report.read_to_end(&mut report).expect("a file that can be read");
        Err(format!("{} ({status:?})", String::from_utf8_lossy(&report)))
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let status = self.process.wait();
        if !self.stopped && !std::thread::panicking() {
            assert!(
                status.as_ref().is_ok_and(|status| status.success()),
                "the emulation ended with {status:?}"
            );
        }
    }
}

/// Header, each program in its namespace, driver, table of kernels.
fn source(kernels: &[(Program, &'static str)]) -> String {
    let mut programs: Vec<&Program> = Vec::new();
    let mut text = HEADER.to_owned();
    let mut table = "const emulation::Entry TABLE[] = {\n".to_owned();
    for (program, kernel) in kernels {
        let known = programs.iter().position(|known| *known == program);
        let index = known.unwrap_or_else(|| {
            write_program(&mut text, program, programs.len());
            programs.push(program);
            programs.len() - 1
        });
        writeln!(table, "    emulation::Call<&program_{index}::{kernel}>::entry,").unwrap();
    }
    text + DRIVER + &table + "};\n"
}

fn write_program(text: &mut String, program: &Program, index: usize) {
    let body = program.file.texts.concat();
    write!(
        text,
        "{}namespace program_{index} {{\n{body}\n}}\n",
        program.define_lines()
    )
    .unwrap();
    let own = body.lines().filter_map(|line| line.trim().strip_prefix("#define "));
    let own = own.map(|line| line.split([' ', '(']).next().unwrap_or_default());
    for name in own.chain(program.defines.iter().map(|(name, _)| *name)) {
        writeln!(text, "#undef {name}").unwrap();
    }
}

/// Programs by the hash of their text; locked while they are compiled.
static PROGRAMS: Mutex<Option<HashMap<u64, Arc<Mutex<()>>>>> = Mutex::new(None);

/// The program's path; compiled unless the same text was before.
fn compile(text: &str, flags: &[&str]) -> PathBuf {
    let compiler = env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
    let mut hasher = DefaultHasher::new();
    (text, flags, &compiler).hash(&mut hasher);
    let hash = hasher.finish();
    let mut programs = PROGRAMS.lock().unwrap_or_else(PoisonError::into_inner);
    let program = Arc::clone(programs.get_or_insert_default().entry(hash).or_default());
    drop(programs);
    let _compiling = program.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("emulation");
    fs::create_dir_all(&folder).expect("a folder for programs");
    let path = folder.join(format!("{hash:016x}"));
    if path.exists() {
        return path;
    }
    // Other test processes may compile the same text; whose program is named last does not matter.
    let number = process::id();
    let source = path.with_extension(format!("{number}.cpp"));
    let unfinished = path.with_extension(format!("{number}.new"));
    fs::write(&source, text).expect("writing the source");
    let output = Command::new(&compiler)
        .args([
            "-std=c++17",
            "-O0",
            "-g1",
            "-fno-strict-aliasing",
            "-ffp-contract=off",
            "-Wall",
            "-Wno-attributes",
        ])
        .args([
            "-Wno-unknown-pragmas",
            "-Wno-unused-function",
            "-Wno-unused-variable",
            "-Wno-shift-count-overflow",
        ])
        .args(flags)
        .arg(&source)
        .arg("-o")
        .arg(&unfinished)
        .output()
        .unwrap_or_else(|error| panic!("the emulation needs a C++ compiler, and {compiler} does not start: {error}"));
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{} does not compile:\n{log}", source.display());
    fs::remove_file(&source).expect("removing the source");
    fs::rename(&unfinished, &path).expect("naming the program");
    path
}
