//! What the machine can do at most, measured: bytes read in a second by all threads, and operations of its fastest products with
//! everything in registers. Kernels are judged by their share of these.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::{Cpu, Pool, huge_vec};

/// Bytes that no cache holds; weights of this size come from memory.
pub const MEMORY_BYTES: usize = 1 << 30;

/// A measurement takes at least so long and so many passes.
const LEAST_TIME: Duration = Duration::from_millis(150);
const LEAST_PASSES: usize = 5;
/// A line of the cache.
const LINE: usize = 64;
/// Rounds of a pass of [`operation_rate`].
const ROUNDS: usize = 1 << 18;

/// Bytes per second at which all threads together read `bytes` bytes, each a part of them from its start to its end, again
/// and again: what a pass over weights of that size takes at least. The median of several passes. The memory is freed again.
pub fn read_rate(pool: &Pool, bytes: usize) -> f64 {
    let mut buffer = huge_vec(bytes);
    buffer.resize(bytes.max(LINE), 1);
    let sum = AtomicU64::new(0);
    median_rate(|| {
        pool.run(|slot, slots| {
            sum.fetch_add(read(part(&buffer, slot, slots)), Ordering::Relaxed);
        });
        buffer.len() as f64
    })
}

/// Operations per second (two for each product) of the dot product that all threads' instruction set does fastest, on registers
/// alone.
pub fn operation_rate(cpu: &Cpu) -> f64 {
    let operations = AtomicU64::new(0);
    median_rate(|| {
        operations.store(0, Ordering::Relaxed);
        cpu.pool().run(|_, _| {
            operations.fetch_add(cpu.dot_limit(ROUNDS), Ordering::Relaxed);
        });
        operations.load(Ordering::Relaxed) as f64
    })
}

/// What `pass` returns for a second of its time.
fn median_rate(mut pass: impl FnMut() -> f64) -> f64 {
    pass();
    let start = Instant::now();
    let mut rates = Vec::new();
    while rates.len() < LEAST_PASSES || start.elapsed() < LEAST_TIME {
        let before = Instant::now();
        let done = pass();
        rates.push(done / before.elapsed().as_secs_f64());
    }
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

fn part(buffer: &[u8], slot: usize, slots: usize) -> &[u8] {
    let lines = buffer.len() / LINE;
    &buffer[lines * slot / slots * LINE..lines * (slot + 1) / slots * LINE]
}

/// One word of every line is enough to bring all of it.
fn read(bytes: &[u8]) -> u64 {
    let word =
        |line: &[u8]| u64::from_ne_bytes([line[0], line[1], line[2], line[3], line[4], line[5], line[6], line[7]]);
    bytes
        .chunks_exact(LINE)
        .fold(0u64, |sum, line| sum.wrapping_add(word(line)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instruction_sets;

    #[test]
    fn every_byte_belongs_to_one_thread() {
        let buffer: Vec<u8> = vec![1; LINE * 101];
        for slots in [1, 2, 3, 7, 200] {
            let lengths = (0..slots).map(|slot| part(&buffer, slot, slots).len());
            assert_eq!(lengths.sum::<usize>(), buffer.len());
        }
    }

    #[test]
    fn rates_are_positive_and_finite() -> Result<(), Box<dyn std::error::Error>> {
        for set in instruction_sets() {
            let cpu = Cpu::with_instructions(2, Some(set))?;
            for rate in [read_rate(cpu.pool(), 1 << 20), operation_rate(&cpu)] {
                assert!(rate.is_finite() && rate > 1e6, "{set}: {rate} in a second");
            }
        }
        Ok(())
    }
}
