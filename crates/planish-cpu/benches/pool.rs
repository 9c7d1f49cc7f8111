//! An empty job on all threads of the pool: what every operation that is shared pays.
//!
//! `cargo bench -p planish-cpu --bench pool`; `PLANISH_THREADS` sets the threads. "one after the other": workers still look for
//! work; "after a pause": they have gone to sleep; "contended": for each thread of the pool another one computes all the time, so
//! that a worker may have no core when a job comes, and the caller runs its share.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use planish_cpu::Pool;

/// Longer than workers stay awake.
const PAUSE: Duration = Duration::from_millis(3);

fn hand_over(criterion: &mut Criterion) {
    let threads = std::env::var("PLANISH_THREADS").ok();
    let pool = Pool::new(threads.and_then(|threads| threads.parse().ok()).unwrap_or(0));
    let mut group = criterion.benchmark_group(format!("hand-over to {} threads", pool.threads()));
    let job = || pool.run(|slot, _| _ = black_box(slot));
    group.bench_function("one after the other", |bencher| bencher.iter(job));
    group.bench_function("after a pause", |bencher| {
        bencher.iter_custom(|rounds| {
            let timed = (0..rounds).map(|_| {
                std::thread::sleep(PAUSE);
                let start = Instant::now();
                job();
                start.elapsed()
            });
            timed.sum()
        });
    });
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..pool.threads() {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        group.bench_function("contended", |bencher| bencher.iter(job));
        over.store(true, Ordering::Relaxed);
    });
    group.finish();
}

fn settings() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1500))
        .sample_size(20)
}

criterion_group!(name = benches; config = settings(); targets = hand_over);
criterion_main!(benches);
