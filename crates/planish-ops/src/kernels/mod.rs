//! GPU kernels: their text, and for each a problem struct that makes its [`Launch`].
//!
//! The text is in the Metal Shading Language (`kernels/*.metal`); `kernels/README.md` is the contract with the hosts that run it.

mod matvec;
mod norm;
mod program;
mod rows;
mod weights;

pub use matvec::{Matvec, Repeat};
pub use norm::Norm;
pub use program::{Dialect, File, Launch, Program, value_number};
pub use rows::Rows;
pub use weights::WeightKind;
