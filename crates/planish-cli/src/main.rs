//! The program `planish`.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(planish_cli::main(std::env::args_os()))
}
