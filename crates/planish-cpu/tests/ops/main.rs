//! The operations on the CPU against their references in f64.

mod attention;
mod common;
mod cpu;
mod empty;
mod experts;
mod mix;
mod states;
mod work;
