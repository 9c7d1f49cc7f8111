//! A model over HTTP, as clients of OpenAI and Anthropic speak: many at once, on one [`planish::Engine`].
//!
//! What is asked is done or refused by name, never passed over in silence. [`Server`] runs on tokio, [`serve`] without.

#![forbid(unsafe_code)]

mod anthropic;
mod error;
mod events;
mod fields;
mod gate;
mod listen;
mod metrics;
mod openai;
mod page;
mod replies;
mod responses;
mod state;
mod status;
mod turns;

use std::net::SocketAddr;
use std::time::Duration;

pub use listen::{Server, serve};

/// How to serve.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerOptions {
    /// Where to listen. Port 0 takes any that is free.
    pub address: SocketAddr,
    /// The name under which clients ask for the model.
    pub model: String,
    /// The key that clients must give as `Authorization: Bearer KEY` or `x-api-key: KEY`.
    pub api_key: Option<String>,
    /// Serve other machines without a key.
    pub open: bool,
    /// Names by which clients may call this machine in `Host`, besides its loopback names and the address.
    pub hosts: Vec<String>,
    /// Origins of web pages that may ask, such as `https://example.org`, besides the server's own.
    pub origins: Vec<String>,
    /// Bytes of a request's body, at most.
    pub most_body: usize,
    /// How long answers may take to end once the shutdown began.
    pub grace: Duration,
}

impl Default for ServerOptions {
    fn default() -> ServerOptions {
        ServerOptions {
            address: SocketAddr::from(([127, 0, 0, 1], 8080)),
            model: "planish".to_owned(),
            api_key: None,
            open: false,
            hosts: Vec::new(),
            origins: Vec::new(),
            most_body: 8 << 20,
            grace: Duration::from_secs(30),
        }
    }
}

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Anybody could use the model.
    #[error("{address} can be reached by other machines: an API key is needed, or leave to be open to all")]
    Open {
        /// The address.
        address: SocketAddr,
    },
    /// A key that no header can carry.
    #[error("the API key must be visible ASCII characters, at least one")]
    Key,
    /// The address cannot be listened on.
    #[error("listening on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The system gives no threads.
    #[error("starting threads: {source}")]
    Threads {
        /// Why.
        source: std::io::Error,
    },
}
