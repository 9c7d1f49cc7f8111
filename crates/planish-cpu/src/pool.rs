//! A pool of threads for many short jobs: a job is handed over by one store that the spinning workers see.
//!
//! A job is a closure over `slots` numbered 0..threads. The caller takes slot 0, workers claim the others, and what no
//! worker has claimed when the caller is done (asleep, or the machine is busy) the caller runs itself. Workers spin for
//! some microseconds, then offer their core to others between looks, then park.

use std::any::Any;
use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::cores::physical_cores;

/// How long an idle worker spins before it yields its core between looks.
const SPIN: Duration = Duration::from_micros(40);
/// How long an idle worker looks for work at all before it parks.
const LINGER: Duration = Duration::from_micros(1000);

type Job = dyn Fn(usize, usize) + Sync;

/// Keeps its value on cache lines of its own (two: processors fetch pairs of lines).
#[repr(align(128))]
struct Padded<T>(T);

struct Shared {
    /// Generation of the job in the upper half, the next unclaimed slot in the lower.
    ticket: Padded<AtomicU64>,
    /// Slots of the current job that have finished.
    done: Padded<AtomicU32>,
    /// The current job: written only while no slot can be claimed, read only after claiming one.
    job: UnsafeCell<Option<*const Job>>,
    slots: u32,
    asleep: Vec<AtomicBool>,
    closing: AtomicBool,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: `job` is the only field that is not Sync; the ticket protocol above orders its writes and reads, and the
// closure behind it is Sync.
unsafe impl Sync for Shared {}
// SAFETY: as above; the pointer is only followed while the caller of `run` keeps the closure alive.
unsafe impl Send for Shared {}

impl Shared {
    /// Takes the next slot of the current job, if there is one left.
    fn claim(&self) -> Option<usize> {
        let mut ticket = self.ticket.0.load(Ordering::Acquire);
        loop {
            let slot = ticket as u32;
            if slot >= self.slots {
                return None;
            }
            match self
                .ticket
                .0
                .compare_exchange_weak(ticket, ticket + 1, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => return Some(slot as usize),
                Err(now) => ticket = now,
            }
        }
    }

    /// Runs one claimed slot and counts it as done, also when it panics.
    fn execute(&self, slot: usize) {
        // SAFETY: this slot is claimed and not done, so `run` waits for it: the job is set and its closure is alive.
        let job = unsafe { (*self.job.get()).map(|job| &*job) };
        self.guard(|| {
            if let Some(job) = job {
                job(slot, self.slots as usize);
            }
        });
        self.done.0.fetch_add(1, Ordering::Release);
    }

    /// Keeps a panic for the caller of the job.
    fn guard(&self, work: impl FnOnce()) {
        if let Err(payload) = catch_unwind(AssertUnwindSafe(work)) {
            *self.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(payload);
        }
    }

    fn work(&self, worker: usize) {
        while !self.closing.load(Ordering::Acquire) {
            match self.claim() {
                Some(slot) => self.execute(slot),
                None => self.idle(worker),
            }
        }
    }

    fn has_work(&self) -> bool {
        (self.ticket.0.load(Ordering::Relaxed) as u32) < self.slots || self.closing.load(Ordering::Relaxed)
    }

    /// Returns when there may be work: spins, then yields, then parks.
    fn idle(&self, worker: usize) {
        let start = Instant::now();
        loop {
            for _ in 0..64 {
                if self.has_work() {
                    return;
                }
                std::hint::spin_loop();
            }
            let waited = start.elapsed();
            if waited > LINGER {
                break;
            }
            if waited > SPIN {
                std::thread::yield_now();
            }
        }
        self.asleep[worker].store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        while self.asleep[worker].load(Ordering::SeqCst) && !self.has_work() {
            std::thread::park();
        }
        self.asleep[worker].store(false, Ordering::SeqCst);
    }
}

/// Threads of another library, which run jobs in place of a pool's own: two crews on the same cores get in each other's way.
pub trait Crew: Send + Sync {
    /// Calls `job` once for every slot in 0..`slots`, in parallel if that can be, and returns when all are done. `job` does not unwind.
    fn run(&self, slots: usize, job: &(dyn Fn(usize) + Sync));
}

/// Threads that share short jobs with the thread that calls [`Pool::run`].
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Who runs jobs instead of the workers.
    crew: Option<Box<dyn Crew>>,
    /// Held while a job runs; who finds it taken runs its job alone.
    turn: Mutex<()>,
    /// The next chunk of each slot's share.
    next: Vec<Padded<AtomicUsize>>,
}

impl Pool {
    /// A pool of `threads` threads, the caller's included; 0 means one per physical core.
    pub fn new(threads: usize) -> Pool {
        let threads = if threads == 0 { physical_cores() } else { threads };
        Pool::of(threads, threads - 1, None)
    }

    /// A pool without threads of its own, whose jobs have so many slots.
    pub fn of_crew(threads: usize, crew: Box<dyn Crew>) -> Pool {
        Pool::of(threads.max(1), 0, Some(crew))
    }

    fn of(threads: usize, workers: usize, crew: Option<Box<dyn Crew>>) -> Pool {
        let shared = Arc::new(Shared {
            ticket: Padded(AtomicU64::new(threads as u64)),
            done: Padded(AtomicU32::new(0)),
            job: UnsafeCell::new(None),
            slots: threads as u32,
            asleep: (0..workers).map(|_| AtomicBool::new(false)).collect(),
            closing: AtomicBool::new(false),
            panic: Mutex::new(None),
        });
        let spawn = |worker: usize| {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new()
                .name(format!("planish-cpu-{worker}"))
                .spawn(move || shared.work(worker))
        };
        // A system that refuses more threads leaves a smaller crew: the caller runs the slots that nobody claims.
        let workers = (0..workers).map_while(|worker| spawn(worker).ok()).collect();
        Pool {
            shared,
            workers,
            crew,
            turn: Mutex::new(()),
            next: (0..threads).map(|_| Padded(AtomicUsize::new(0))).collect(),
        }
    }

    /// Slots of every job: the threads of the pool, the caller's included.
    pub fn threads(&self) -> usize {
        self.shared.slots as usize
    }

    /// Calls `job(slot, slots)` once for every slot in 0..[`Pool::threads`], in parallel, and returns when all are done.
    ///
    /// Slots must not wait for one another: one thread may run several in turn. A panic in a slot is passed on here. From
    /// inside a job, or while another thread's job runs, all slots run on the calling thread.
    pub fn run(&self, job: impl Fn(usize, usize) + Sync) {
        match self.turn() {
            Some(turn) => self.share(turn, &job),
            None => (0..self.threads()).for_each(|slot| job(slot, self.threads())),
        }
    }

    /// Calls `job(slot, chunk)` for every chunk in 0..`chunks`: each slot takes its share of them in order, then what is left of
    /// others' shares. Weights in order of the chunks are thus read by each thread from one place on.
    ///
    /// `slot` is below [`Pool::threads`] and no two calls with the same slot overlap: it can select scratch memory.
    pub fn chunks(&self, chunks: usize, job: impl Fn(usize, usize) + Sync) {
        let turn = if chunks > 1 { self.turn() } else { None };
        let Some(turn) = turn else {
            return (0..chunks).for_each(|chunk| job(0, chunk));
        };
        let first = |slot: usize| chunks * slot / self.threads();
        for (slot, next) in self.next.iter().enumerate() {
            next.0.store(first(slot), Ordering::Relaxed);
        }
        self.share(turn, &|slot, slots| {
            for owner in (slot..slots).chain(0..slot) {
                let end = first(owner + 1);
                loop {
                    let chunk = self.next[owner].0.fetch_add(1, Ordering::Relaxed);
                    if chunk >= end {
                        break;
                    }
                    job(slot, chunk);
                }
            }
        });
    }

    /// The right to use the other threads, unless there are none or they have a job.
    fn turn(&self) -> Option<MutexGuard<'_, ()>> {
        if self.threads() == 1 {
            None
        } else {
            self.turn.try_lock().ok()
        }
    }

    fn share(&self, turn: MutexGuard<'_, ()>, job: &(dyn Fn(usize, usize) + Sync)) {
        match &self.crew {
            Some(crew) => crew.run(self.threads(), &|slot| self.shared.guard(|| job(slot, self.threads()))),
            None => {
                self.publish(job);
                self.shared.execute(0);
                while let Some(slot) = self.shared.claim() {
                    self.shared.execute(slot);
                }
                self.wait();
            }
        }
        let panicked = self.shared.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(turn);
        if let Some(payload) = panicked {
            resume_unwind(payload);
        }
    }

    /// Makes `job` the current one, slot 0 already claimed by the caller. The caller must wait before `job` ends.
    fn publish<'a>(&self, job: &'a (dyn Fn(usize, usize) + Sync + 'a)) {
        // SAFETY: only the lifetime changes; `run` does not return, nor unwind, before every slot is done.
        let job = unsafe { std::mem::transmute::<*const (dyn Fn(usize, usize) + Sync + 'a), *const Job>(job) };
        // SAFETY: all slots of the last job are claimed and done, so no thread reads `job` until the ticket is renewed,
        // and `turn` keeps other callers out.
        unsafe { *self.shared.job.get() = Some(job) };
        self.shared.done.0.store(0, Ordering::Relaxed);
        let generation = (self.shared.ticket.0.load(Ordering::Relaxed) >> 32).wrapping_add(1);
        self.shared.ticket.0.store((generation << 32) | 1, Ordering::Release);
        fence(Ordering::SeqCst);
        self.wake();
    }

    fn wake(&self) {
        for (worker, asleep) in self.workers.iter().zip(&self.shared.asleep) {
            if asleep.load(Ordering::Relaxed) && asleep.swap(false, Ordering::SeqCst) {
                worker.thread().unpark();
            }
        }
    }

    /// Waits until every slot is done, leaving the core to others when that takes long.
    fn wait(&self) {
        let mut looks = 0u32;
        while self.shared.done.0.load(Ordering::Acquire) < self.shared.slots {
            looks += 1;
            if looks < 2000 {
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        self.wake();
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // A worker never panics outside of `execute`, which catches it.
            let _ = worker.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slot_and_chunk_runs_once() {
        for threads in [1, 2, 3, 7] {
            let pool = Pool::new(threads);
            for round in 0..200 {
                let seen: Vec<AtomicU32> = (0..threads).map(|_| AtomicU32::new(0)).collect();
                pool.run(|slot, slots| {
                    assert_eq!(slots, threads);
                    seen[slot].fetch_add(1, Ordering::Relaxed);
                });
                assert!(seen.iter().all(|count| count.load(Ordering::Relaxed) == 1));
                let chunks: Vec<AtomicU32> = (0..round).map(|_| AtomicU32::new(0)).collect();
                pool.chunks(round, |_, chunk| {
                    chunks[chunk].fetch_add(1, Ordering::Relaxed);
                });
                assert!(chunks.iter().all(|count| count.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn sleeping_workers_wake_up() {
        let pool = Pool::new(3);
        let count = AtomicU32::new(0);
        for _ in 0..5 {
            std::thread::sleep(LINGER * 5);
            pool.run(|_, _| {
                count.fetch_add(1, Ordering::Relaxed);
            });
        }
        assert_eq!(count.into_inner(), 15);
    }

    #[test]
    fn nested_and_concurrent_jobs_finish() {
        let pool = Pool::new(2);
        let count = AtomicU32::new(0);
        let nested = || {
            pool.run(|_, _| {
                pool.run(|_, _| {
                    count.fetch_add(1, Ordering::Relaxed);
                });
            });
        };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..100).for_each(|_| nested()));
            }
        });
        assert_eq!(count.into_inner(), 4 * 100 * 4);
    }

    /// Fresh threads for every job, fewer than slots.
    struct Fresh;

    impl Crew for Fresh {
        fn run(&self, slots: usize, job: &(dyn Fn(usize) + Sync)) {
            let next = AtomicUsize::new(0);
            let work = || {
                loop {
                    let slot = next.fetch_add(1, Ordering::Relaxed);
                    if slot >= slots {
                        break;
                    }
                    job(slot);
                }
            };
            std::thread::scope(|scope| {
                scope.spawn(work);
                work();
            });
        }
    }

    #[test]
    fn a_crew_runs_every_slot_and_its_panics_are_passed_on() {
        let pool = Pool::of_crew(3, Box::new(Fresh));
        let chunks: Vec<AtomicU32> = (0..50).map(|_| AtomicU32::new(0)).collect();
        pool.chunks(50, |_, chunk| {
            chunks[chunk].fetch_add(1, Ordering::Relaxed);
        });
        assert!(chunks.iter().all(|count| count.load(Ordering::Relaxed) == 1));
        let slots = AtomicU32::new(0);
        pool.run(|_, _| {
            slots.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(slots.into_inner(), 3);
        let outcome = catch_unwind(AssertUnwindSafe(|| pool.run(|slot, _| assert!(slot != 1, "guilty"))));
        assert!(outcome.is_err());
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_survives() {
        let pool = Pool::new(2);
        for guilty in 0..2 {
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                pool.run(|slot, _| assert!(slot != guilty, "guilty"));
            }));
            assert!(outcome.is_err());
        }
        let count = AtomicU32::new(0);
        pool.run(|_, _| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(count.into_inner(), 2);
    }
}
