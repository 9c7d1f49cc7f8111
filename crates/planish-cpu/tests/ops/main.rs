//! The operations on the CPU against their references in f64.

mod attention;
mod common;
mod cpu;
mod experts;
mod states;
mod work;
