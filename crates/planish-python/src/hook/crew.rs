//! PyTorch's own threads. Between two products of planish come operations of PyTorch, whose OpenMP threads go on looking for work for a
//! while; a second crew on the same cores would wait for them and they for it.
#![allow(unsafe_code, reason = "a function of OpenMP's library is known by its address only")]

use std::ffi::{c_uint, c_void};
use std::sync::atomic::{AtomicUsize, Ordering};

use planish_cpu::Crew;
use pyo3::prelude::*;

/// `GOMP_parallel(function, data, threads, flags)` of the library that PyTorch computes with.
type Parallel = unsafe extern "C" fn(extern "C" fn(*mut c_void), *mut c_void, c_uint, c_uint);

/// Where it is; 0 if it is not there.
static ADDRESS: AtomicUsize = AtomicUsize::new(0);

/// Runs products on the threads of OpenMP from now on: the address of `GOMP_parallel`, which this process must have.
#[pyfunction]
pub fn use_openmp(address: usize) {
    ADDRESS.store(address, Ordering::Relaxed);
}

/// The threads of OpenMP, of the process that asked for them: a fork has none.
pub struct OpenMp {
    parallel: Parallel,
    process: u32,
}

/// A job and the next slot of it.
struct Shared<'a> {
    job: &'a (dyn Fn(usize) + Sync),
    slots: usize,
    next: AtomicUsize,
}

impl Shared<'_> {
    /// A team may have fewer threads than were asked for.
    fn work(&self) {
        loop {
            let slot = self.next.fetch_add(1, Ordering::Relaxed);
            if slot >= self.slots {
                break;
            }
            (self.job)(slot);
        }
    }
}

extern "C" fn work(shared: *mut c_void) {
    // SAFETY: `run` gives this address to no other function and waits for all threads.
    unsafe { &*shared.cast_const().cast::<Shared<'_>>() }.work();
}

impl OpenMp {
    /// Those of the library that [`use_openmp`] told of.
    pub fn loaded() -> Option<OpenMp> {
        let address = ADDRESS.load(Ordering::Relaxed);
        let process = std::process::id();
        (address != 0).then(|| OpenMp {
            // SAFETY: the address of that function, by the caller's promise.
            parallel: unsafe {
                std::mem::transmute::<*const c_void, Parallel>(std::ptr::with_exposed_provenance(address))
            },
            process,
        })
    }
}

impl Crew for OpenMp {
    fn run(&self, slots: usize, job: &(dyn Fn(usize) + Sync)) {
        let shared = Shared {
            job,
            slots,
            next: AtomicUsize::new(0),
        };
        if std::process::id() == self.process {
            let data = (&raw const shared).cast_mut().cast();
            // SAFETY: the function of that name; `shared` lives until all threads are done, and jobs do not unwind.
            unsafe { (self.parallel)(work, data, slots as c_uint, 0) };
        }
        shared.work();
    }
}
