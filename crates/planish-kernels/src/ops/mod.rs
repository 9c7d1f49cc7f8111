//! The operations on a GPU, over any [`Queue`]: every method turns its Problem into launches of the kernels of `kernels/`.
//!
//! Activations are of one float type, sums and everything read back or shared by all layers (angles, logits, norm weights) are
//! f32. A failure in the middle of a pass is kept and returned by the next [`Ops::read`](planish_ops::Ops::read).

mod attention;
mod calibrate;
mod choose;
mod experts;
mod linear;
mod pack;
mod place;
mod rows;
mod search;
mod sequences;
mod stack;
mod states;
mod tensor;
mod waist;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use planish_format::FloatType;
use planish_gpu::{Error, Queue, Source};
use planish_ops::Tap;
use rustc_hash::FxHashMap;

use crate::launch::{Launch, NO_TOKEN, Program};
pub use attention::GpuKeyValues;
pub use calibrate::{BasisPlan, CodeValues, FoundRows, GpuBasis, GpuMoments, RowPlan};
pub use choose::GpuChosen;
pub use sequences::GpuSequences;
pub use stack::GpuStack;
pub use tensor::{GpuTensor, GpuWeight};

/// Bytes of a buffer that stands where a kernel needs none.
const NOTHING_BYTES: usize = 256;
/// Buffers of a launch for which no memory is taken: as many as any kernel has.
const MOST_BUFFERS: usize = 16;
/// Sets of rotation frequencies that stay on the device.
const MOST_FREQUENCIES: usize = 8;

/// A GPU.
pub struct GpuOps<Q: Queue> {
    queue: Q,
    /// Of activations.
    value: FloatType,
    /// Of keys and values.
    cached: FloatType,
    /// Bound where a kernel needs no buffer.
    nothing: Q::Buffer,
    kernels: Mutex<Kernels<Q>>,
    failure: Mutex<Option<Error>>,
    /// Rows of a table that [`Embed`](planish_ops::Embed) takes.
    tokens: Mutex<Scratch<Q>>,
    /// The same, where some were chosen on the device.
    known: Mutex<KnownTokens<Q>>,
    /// Plans of products, and what lies between their steps.
    products: linear::Products<Q>,
    /// Between the two steps of attention.
    partial: Mutex<Scratch<Q>>,
    /// Between the kernels of experts.
    routed: Mutex<experts::RoutedScratch<Q>>,
    /// Matrices of heads, transposed for a pass.
    transposed: Mutex<Scratch<Q>>,
    frequencies: Mutex<Vec<Frequencies<Q>>>,
    /// The tensor that the last launch rotated, if it rotated one.
    rotated: Mutex<Option<u64>>,
    /// Who listens to products, but for those with stacks of matrices.
    tap: Option<Arc<dyn Tap>>,
    /// For packing by search.
    searched: Mutex<search::SearchRoom<Q>>,
}

/// The kernels of each program by name. Looked up for every launch: the hash must be quick.
type Kernels<Q> = FxHashMap<Program, Vec<(&'static str, Arc<<Q as Queue>::Kernel>)>>;

/// Memory that grows with what is asked of it.
struct Scratch<Q: Queue> {
    buffer: Option<Q::Buffer>,
    bytes: usize,
}

/// Tokens of rows, [`NO_TOKEN`] where the device chose them.
struct KnownTokens<Q: Queue> {
    /// What the device has.
    words: Vec<u32>,
    scratch: Scratch<Q>,
}

struct Frequencies<Q: Queue> {
    values: Vec<f32>,
    buffer: Arc<Q::Buffer>,
}

impl<Q: Queue> GpuOps<Q> {
    /// Activations, keys and values are of type `value`.
    ///
    /// # Errors
    /// The device is out of memory.
    pub fn new(queue: Q, value: FloatType) -> Result<GpuOps<Q>, Error> {
        Ok(GpuOps {
            nothing: queue.allocate(NOTHING_BYTES)?,
            queue,
            value,
            cached: value,
            kernels: Mutex::default(),
            failure: Mutex::default(),
            tokens: Mutex::new(Scratch::new()),
            known: Mutex::new(KnownTokens {
                words: Vec::new(),
                scratch: Scratch::new(),
            }),
            products: linear::Products::new(),
            partial: Mutex::new(Scratch::new()),
            routed: Mutex::new(experts::RoutedScratch::new()),
            transposed: Mutex::new(Scratch::new()),
            frequencies: Mutex::default(),
            rotated: Mutex::default(),
            tap: None,
            searched: Mutex::new(search::SearchRoom::new()),
        })
    }

    /// Tells `tap` of every product from now on, but for those of experts and heads.
    pub fn with_tap(self, tap: Arc<dyn Tap>) -> GpuOps<Q> {
        GpuOps { tap: Some(tap), ..self }
    }

    /// What computes.
    pub fn queue(&self) -> &Q {
        &self.queue
    }

    /// Type of activations.
    pub fn value(&self) -> FloatType {
        self.value
    }

    /// Launches a kernel, unless something failed before.
    fn run(&self, launch: &Launch, buffers: &[(&Q::Buffer, usize)]) {
        self.run_overlapping(launch, buffers, false);
    }

    /// As [`GpuOps::run`]; `overlaps` as in [`planish_gpu::Launch::overlaps`].
    fn run_overlapping(&self, launch: &Launch, buffers: &[(&Q::Buffer, usize)], overlaps: bool) {
        if launch.threadgroups.contains(&0) {
            return;
        }
        lock(&self.rotated).take();
        if let Err(error) = self.try_run(launch, buffers, overlaps) {
            self.fail(error);
        }
    }

    fn try_run(&self, launch: &Launch, buffers: &[(&Q::Buffer, usize)], overlaps: bool) -> Result<(), Error> {
        if lock(&self.failure).is_some() {
            return Ok(());
        }
        let kernel = self.kernel(launch)?;
        self.run_step(launch, &kernel, buffers.iter().copied(), overlaps)
    }

    /// The compiled kernel of a launch.
    fn kernel(&self, launch: &Launch) -> Result<Arc<Q::Kernel>, Error> {
        let mut kernels = lock(&self.kernels);
        let known = kernels.get(&launch.program).into_iter().flatten();
        if let Some((_, kernel)) = known.into_iter().find(|(name, _)| *name == launch.kernel) {
            return Ok(Arc::clone(kernel));
        }
        let text = launch.program.text(self.queue.language());
        let kernel = Arc::new(self.queue.compile(&Source {
            name: launch.program.file.name(),
            text: &text,
            entry: launch.kernel,
        })?);
        let of_program = kernels.entry(launch.program.clone()).or_default();
        of_program.push((launch.kernel, Arc::clone(&kernel)));
        Ok(kernel)
    }

    /// Keeps the first failure.
    fn fail(&self, error: Error) {
        lock(&self.failure).get_or_insert(error);
    }

    /// What failed since the device was opened.
    fn check_failure(&self) -> Result<(), Error> {
        lock(&self.failure).clone().map_or(Ok(()), Err)
    }

    /// Frequencies on the device, uploaded when they are new.
    fn frequencies(&self, values: &[f32]) -> Result<Arc<Q::Buffer>, Error> {
        let mut known = lock(&self.frequencies);
        if let Some(found) = known.iter().find(|found| found.values == values) {
            return Ok(Arc::clone(&found.buffer));
        }
        if known.len() >= MOST_FREQUENCIES {
            known.remove(0);
        }
        let buffer = Arc::new(self.queue.allocate(4 * values.len())?);
        self.queue.upload(bytemuck::cast_slice(values), &buffer, 0)?;
        known.push(Frequencies {
            values: values.to_vec(),
            buffer: Arc::clone(&buffer),
        });
        Ok(buffer)
    }
}

impl<Q: Queue> Scratch<Q> {
    fn new() -> Scratch<Q> {
        Scratch { buffer: None, bytes: 0 }
    }

    /// At least so many bytes; what was there is lost when it grows.
    fn at_least(&mut self, queue: &Q, bytes: usize) -> Result<&Q::Buffer, Error> {
        if bytes > self.bytes || self.buffer.is_none() {
            self.bytes = bytes.max(NOTHING_BYTES).next_power_of_two();
            self.buffer = None;
        }
        match &mut self.buffer {
            Some(buffer) => Ok(buffer),
            empty => Ok(empty.insert(queue.allocate(self.bytes)?)),
        }
    }
}

impl<Q: Queue> KnownTokens<Q> {
    /// The tokens on the device; nothing is copied while they stay the same.
    fn upload(&mut self, queue: &Q, known: &[Option<u32>]) -> Result<&Q::Buffer, Error> {
        let words = || known.iter().map(|token| token.unwrap_or(NO_TOKEN));
        let is_there = known.len() <= self.words.len() && words().eq(self.words[..known.len()].iter().copied());
        if !is_there {
            self.words.clear();
        }
        let buffer = self.scratch.at_least(queue, 4 * known.len())?;
        if !is_there {
            self.words.extend(words());
            queue.upload(bytemuck::cast_slice(&self.words), buffer, 0)?;
        }
        Ok(buffer)
    }
}

/// A panic elsewhere leaves nothing half done in these.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
