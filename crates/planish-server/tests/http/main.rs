//! The server as a client meets it, over HTTP.

mod answers;
mod anthropic;
mod calls;
mod gate;
mod page;
mod responses;
mod sampling;
mod server;
mod structured;
mod tools;
mod validator;
