//! Models to change, and runs that are measured.

pub mod models;
pub mod run;
