//! The server as a client meets it, over HTTP.

mod answers;
mod gate;
mod sampling;
mod server;
mod structured;
mod validator;
