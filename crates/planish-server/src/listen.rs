//! Connections: their number, their times, and how they end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::middleware;
use axum::routing::{get, post};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use planish::Engine;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::error::ApiError;
use crate::state::State;
use crate::{Error, ServerOptions, anthropic, gate, openai, page, responses, status};

/// Connections at a time; others wait to be accepted.
const CONNECTIONS: usize = 1024;
/// For the head of a request to come.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// Bytes of the head of a request.
const HEAD_BYTES: usize = 32 << 10;
/// Threads that read requests and write answers.
const WORKERS: usize = 2;
/// Time between two looks whether the shutdown begins.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// How long what was cut off has to be told to clients.
const TELLING_TIME: Duration = Duration::from_secs(2);

/// A server that listens.
pub struct Server {
    listener: TcpListener,
    state: Arc<State>,
    address: SocketAddr,
}

impl Server {
    /// Checks the options and listens.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn bind(engine: Engine, options: ServerOptions) -> Result<Server, Error> {
        let address = options.address;
        if let Some(key) = &options.api_key
            && (key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()))
        {
            return Err(Error::Key);
        }
        if !address.ip().is_loopback() && options.api_key.is_none() && !options.open {
            return Err(Error::Open { address });
        }
        let failed = |source| Error::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Server {
            listener,
            state: Arc::new(State::new(engine, options)),
            address,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` ends. Answers on their way have the time of grace to end, then they are cut where they are; their
    /// clients are told.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let Server { listener, state, .. } = self;
        let router = router(&state);
        let graceful = GracefulShutdown::new();
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        tokio::pin!(shutdown);
        loop {
            let Ok(permit) = Arc::clone(&room).acquire_owned().await else {
                break;
            };
            let stream = tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    // One connection failed, or files are short: the next may do.
                    Err(_) => {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        continue;
                    }
                },
                () = &mut shutdown => break,
            };
            // Pieces of an answer are sent as they come.
            let _ = stream.set_nodelay(true);
            let mut builder = hyper::server::conn::http1::Builder::new();
            builder
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIME)
                .max_buf_size(HEAD_BYTES);
            let service = TowerToHyperService::new(router.clone());
            let connection = graceful.watch(builder.serve_connection(TokioIo::new(stream), service));
            tokio::spawn(async move {
                // A client that broke its connection is nobody's error.
                let _ = connection.await;
                drop(permit);
            });
        }
        drop(listener);
        state.engine.close();
        let ended = graceful.shutdown();
        tokio::pin!(ended);
        if tokio::time::timeout(state.options.grace, &mut ended).await.is_err() {
            state.cut();
            let _ = tokio::time::timeout(TELLING_TIME, ended).await;
        }
    }
}

/// Binds and runs on threads of its own, for programs without tokio. `ready` is told where it listens; the shutdown begins once
/// `is_over` says so.
///
/// # Errors
/// As [`Server::bind`]; a system that gives no threads.
pub fn serve(
    engine: Engine,
    options: ServerOptions,
    ready: impl FnOnce(SocketAddr),
    is_over: impl Fn() -> bool,
) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .thread_name("planish-http")
        .enable_all()
        .build()
        .map_err(|source| Error::Threads { source })?;
    runtime.block_on(async {
        let server = Server::bind(engine, options).await?;
        ready(server.address());
        let over = async {
            while !is_over() {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        server.run(over).await;
        Ok(())
    })
}

fn router(state: &Arc<State>) -> Router {
    Router::new()
        .route("/v1/chat/completions", post(openai::chat::chat))
        .route("/v1/completions", post(openai::completions::completions))
        .route("/v1/responses", post(responses::responses))
        .route("/v1/messages", post(anthropic::messages))
        .route("/v1/messages/count_tokens", post(anthropic::count_tokens))
        .route("/v1/tokenize", post(openai::tokens::tokenize))
        .route("/v1/detokenize", post(openai::tokens::detokenize))
        .route("/v1/models", get(status::models))
        .route("/v1/models/{*id}", get(status::model))
        .route("/health", get(status::health))
        .route("/metrics", get(status::metrics))
        .merge(page::routes())
        .fallback(async |request: Request| {
            let path = request.uri().path();
            ApiError::new(axum::http::StatusCode::NOT_FOUND, format!("there is no {path} here"))
        })
        .method_not_allowed_fallback(async |request: Request| {
            let (method, path) = (request.method(), request.uri().path());
            ApiError::new(
                axum::http::StatusCode::METHOD_NOT_ALLOWED,
                format!("{method} is no method of {path}"),
            )
        })
        .layer(middleware::from_fn_with_state(Arc::clone(state), gate::gate))
        .with_state(Arc::clone(state))
}
