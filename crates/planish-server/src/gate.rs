//! Who may ask: before a request is looked at, its `Host`, `Origin`, key and type are.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State as Shared};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use subtle::ConstantTimeEq;

use crate::error::ApiError;
use crate::state::State;
use crate::{ServerOptions, anthropic, page};

/// Lets a request pass or refuses it; every answer gets a name, and is counted.
pub(crate) async fn gate(Shared(state): Shared<Arc<State>>, request: Request, next: Next) -> Response {
    let (id, path) = (state.id("req"), request.uri().path().to_owned());
    let origin = request.headers().get(header::ORIGIN).cloned();
    let preflight = request.method() == Method::OPTIONS;
    let anthropic = anthropic::is_client(&path, request.headers());
    let mut response = match check(&state.options, &request) {
        Err(error) => error.into_response(),
        Ok(()) if preflight => StatusCode::NO_CONTENT.into_response(),
        Ok(()) => next.run(request).await,
    };
    state.metrics.count(&path, response.status());
    if anthropic && let Some(error) = response.extensions_mut().remove::<ApiError>() {
        let mut body = error.anthropic();
        body["request_id"] = Value::from(id.as_str());
        let (mut parts, _) = response.into_parts();
        parts.headers.remove(header::CONTENT_LENGTH);
        response = Response::from_parts(parts, Body::from(body.to_string()));
    }
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::try_from(id) {
        headers.insert("request-id", id.clone());
        headers.insert("x-request-id", id);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Some(origin) = origin.filter(|origin| is_listed(&state.options, origin)) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::VARY, HeaderValue::from_static("origin"));
        if preflight {
            let allowed =
                HeaderValue::from_static("anthropic-beta, anthropic-version, authorization, content-type, x-api-key");
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, allowed);
            let methods = HeaderValue::from_static("GET, POST");
            headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
        }
    }
    response
}

fn check(options: &ServerOptions, request: &Request) -> Result<(), ApiError> {
    let headers = request.headers();
    let host = host(headers, request.uri());
    if !is_known(options, host) {
        let message = format!("the Host {host:?} is not served: name it when the server is started");
        return Err(ApiError::new(StatusCode::FORBIDDEN, message));
    }
    if let Some(origin) = headers.get(header::ORIGIN) {
        let own = origin.as_bytes().strip_prefix(b"http://") == Some(host.as_bytes());
        if !own && !is_listed(options, origin) {
            let message = format!("pages of {origin:?} may not ask: name the origin when the server is started");
            return Err(ApiError::new(StatusCode::FORBIDDEN, message));
        }
    }
    if request.method() == Method::OPTIONS {
        return Ok(());
    }
    // Whether a server is well is no secret; the page asks for a key itself.
    let path = request.uri().path();
    if path != "/health" && !page::has(path) {
        check_key(options, headers)?;
    }
    if request.method() == Method::POST && !is_json(headers) {
        let message = "Content-Type must be application/json";
        return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
    }
    Ok(())
}

/// Name and port as the client called them.
fn host<'a>(headers: &'a HeaderMap, uri: &'a Uri) -> &'a str {
    let named = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    named
        .or(uri.authority().map(|authority| authority.as_str()))
        .unwrap_or_default()
}

/// A page of a stranger can make its name stand for this machine; its requests still carry that name.
fn is_known(options: &ServerOptions, host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    let loopback = ["localhost", "127.0.0.1", "::1"].contains(&bare);
    let named = |known: &String| known.eq_ignore_ascii_case(name) || known.eq_ignore_ascii_case(host);
    loopback || bare == options.address.ip().to_string() || options.hosts.iter().any(named)
}

fn is_listed(options: &ServerOptions, origin: &HeaderValue) -> bool {
    options
        .origins
        .iter()
        .any(|listed| listed.as_bytes() == origin.as_bytes())
}

fn check_key(options: &ServerOptions, headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(key) = &options.api_key else { return Ok(()) };
    let bearer = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
    let bearer = bearer.and_then(|value| value.strip_prefix(b"Bearer "));
    let given = bearer.or(headers.get("x-api-key").map(HeaderValue::as_bytes));
    match given {
        Some(given) if bool::from(given.ct_eq(key.as_bytes())) => Ok(()),
        Some(_) => Err(ApiError::new(StatusCode::UNAUTHORIZED, "the API key is wrong")),
        None => {
            let message = "an API key is needed: Authorization: Bearer KEY, or x-api-key: KEY";
            Err(ApiError::new(StatusCode::UNAUTHORIZED, message))
        }
    }
}

/// Forms of web pages cannot send JSON without being asked about first.
fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next());
    kind.is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}
