//! A system that refuses memory: what the library does with models ends in an error that says so, and what was there before goes on.
//! Refused are large pieces, one after the other, whichever thread asks.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fmt::Debug;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use planish::{
    AutoModelForCausalLM, Device, Encoder, Error, GenerationConfig, LoadOptions, Method, Output, Packing, Recipe,
    Source, Target, convert, dequantize, inspect, quantize,
};

/// Pieces of so many bytes may be refused: tensors, and what is made of them. JSON of headers is smaller where files are written.
static LARGE: AtomicUsize = AtomicUsize::new(RUNNING);
const RUNNING: usize = 24 << 10;
const WRITING: usize = 80 << 10;

/// Large pieces until one is refused; [`NEVER`] refuses none.
static LEFT: AtomicUsize = AtomicUsize::new(NEVER);
const NEVER: usize = usize::MAX;
/// One piece is refused at a time.
static TURN: Mutex<()> = Mutex::new(());

thread_local! {
    static REPORTING: Cell<bool> = const { Cell::new(false) };
}

struct Refusing;

#[global_allocator]
static ALLOCATOR: Refusing = Refusing;

/// Whether this is the piece. `PLANISH_TRACE` shows where it was asked for.
fn refused(bytes: usize) -> bool {
    if bytes < LARGE.load(Ordering::Relaxed) || LEFT.load(Ordering::Relaxed) == NEVER || REPORTING.get() {
        return false;
    }
    let refused = LEFT.fetch_sub(1, Ordering::Relaxed) == 0;
    if refused {
        LEFT.store(NEVER, Ordering::Relaxed);
        REPORTING.set(true);
        if std::env::var_os("PLANISH_TRACE").is_some() {
            eprintln!("{bytes} bytes\n{}", std::backtrace::Backtrace::force_capture());
        }
        REPORTING.set(false);
    }
    refused
}

// SAFETY: passed on to the system's allocator, or null, which an allocator may always return.
unsafe impl GlobalAlloc for Refusing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match refused(layout.size()) {
            true => std::ptr::null_mut(),
            // SAFETY: passed on.
            false => unsafe { System.alloc(layout) },
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        match refused(layout.size()) {
            true => std::ptr::null_mut(),
            // SAFETY: passed on.
            false => unsafe { System.alloc_zeroed(layout) },
        }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        match refused(size) {
            true => std::ptr::null_mut(),
            // SAFETY: passed on.
            false => unsafe { System.realloc(pointer, layout, size) },
        }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Does the work with its first large piece refused, then with a later one, and so on until it asks for no more. Every result must be an
/// error about memory, or what comes without refusals: a piece may be done without. Returns how often it was an error.
fn refuse_each<T: PartialEq + Debug>(name: &str, large: usize, work: &mut dyn FnMut() -> Result<T, Error>) -> usize {
    let _turn = TURN.lock().unwrap();
    LARGE.store(large, Ordering::Relaxed);
    let expected = work().unwrap();
    let (mut errors, mut piece) = (0, 0);
    loop {
        LEFT.store(piece, Ordering::Relaxed);
        let result = work();
        let all_given = LEFT.swap(NEVER, Ordering::Relaxed) != NEVER;
        match result {
            Ok(found) => assert_eq!(found, expected, "{name}: without piece {piece}"),
            Err(error) => {
                let words = error.to_string();
                assert!(
                    words.contains("out of memory: ") && words.contains(" need "),
                    "{name}: {words}"
                );
                errors += 1;
            }
        }
        if all_given {
            return errors;
        }
        // All of the first, then fewer and fewer.
        piece += 1 + piece / 8;
    }
}

fn options(exact: bool) -> LoadOptions {
    LoadOptions {
        device: Device::Cpu,
        threads: Some(2),
        exact,
        ..LoadOptions::default()
    }
}

fn golden(case: &str) -> Source {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../planish-model/tests/golden");
    Source::open(folder.join(case).to_str().unwrap()).unwrap()
}

fn demo(folder: &str) -> Source {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../models")
        .join(folder);
    Source::open(folder.to_str().unwrap()).unwrap()
}

#[test]
fn a_model_answers_or_says_that_memory_ran_out() {
    let config = GenerationConfig {
        max_new_tokens: 3,
        temperature: Some(0.0),
        ..GenerationConfig::default()
    };
    for (source, exact) in [
        (demo("demo"), false),
        (demo("demo"), true),
        (golden("mixtral/metal"), false),
        (golden("deepseek_v2/metal"), false),
    ] {
        let model = || {
            AutoModelForCausalLM::from_source(&source)
                .options(options(exact))
                .load()
        };
        let vocabulary = model().unwrap().architecture().vocabulary as u32;
        let prompt: Vec<u32> = (0..60).map(|index| index * 7 % vocabulary).collect();
        let name = format!("{} {exact}", source.checkpoint().path().display());
        // Scratch is kept: a new model for each.
        let mut kept = None;
        let mut answer = || {
            let held = LEFT.swap(NEVER, Ordering::Relaxed);
            let model = kept.insert(model()?);
            LEFT.store(held, Ordering::Relaxed);
            model.generate(&prompt, &config)
        };
        let errors = refuse_each(&name, RUNNING, &mut answer);
        assert!(errors > 0, "{name} was never refused");
        // The last one, which was given all, still works.
        assert!(kept.unwrap().generate(&prompt, &config).is_ok());
    }
}

#[test]
fn a_session_goes_on_after_memory_ran_out() {
    let _turn = TURN.lock().unwrap();
    LARGE.store(RUNNING, Ordering::Relaxed);
    let source = demo("demo");
    let model = || {
        AutoModelForCausalLM::from_source(&source)
            .options(options(false))
            .load()
    };
    let config = GenerationConfig {
        max_new_tokens: 8,
        temperature: Some(0.0),
        ..GenerationConfig::default()
    };
    let prompt: Vec<u32> = (0..90).collect();
    let expected = model().unwrap().generate(&prompt, &config).unwrap();
    let mut refused = 0;
    for piece in 0..6 {
        let model = model().unwrap();
        let mut session = model.session();
        LEFT.store(piece, Ordering::Relaxed);
        let first = session.generate(&prompt, &config, &mut |_| ControlFlow::Continue(()));
        LEFT.store(NEVER, Ordering::Relaxed);
        refused += usize::from(first.is_err());
        let again = session
            .generate(&prompt, &config, &mut |_| ControlFlow::Continue(()))
            .unwrap();
        assert_eq!(again.tokens, expected[prompt.len()..], "after piece {piece}");
    }
    assert!(refused > 0);
}

#[test]
fn conversions_are_whole_or_an_error() {
    let scratch = tempfile::tempdir().unwrap();
    let out = scratch.path().join("out");
    let output = || Output {
        force: true,
        ..Output::new(&out)
    };
    let size = |path: &str| std::fs::metadata(out.join(path)).map(|metadata| metadata.len()).ok();
    let quiet = &mut |_: planish::Progress<'_>| {};
    let (plain, packed) = (demo("demo-float"), demo("demo"));
    let recipe = Recipe {
        method: Method::Peer(Encoder::Transformers),
        ..Recipe::new(Target::Mlx, Packing::checked(4, 32).unwrap())
    };
    let errors = refuse_each("quantize", WRITING, &mut || {
        quantize(&plain, &recipe, &output(), quiet)?;
        Ok(size("model.safetensors"))
    });
    assert!(errors > 0);
    refuse_each("dequantize", WRITING, &mut || {
        dequantize(&packed, None, &output(), quiet)?;
        Ok(size("model.safetensors"))
    });
    refuse_each("convert", WRITING, &mut || {
        convert(&packed, Target::Metal, &output(), quiet).or_else(|error| {
            match error.to_string().contains("out of memory") {
                true => Err(error),
                false => convert(&packed, Target::Mlx, &output(), quiet),
            }
        })?;
        Ok(size("model.safetensors"))
    });
    let errors = refuse_each("inspect", WRITING, &mut || Ok(inspect(&plain, 32, quiet)?.bytes));
    assert!(errors > 0);
    let left: Vec<_> = std::fs::read_dir(scratch.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["out"]);
}
