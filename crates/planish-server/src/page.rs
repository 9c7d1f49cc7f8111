//! The page at `/`: files that are part of the program. They hold no secret, so that they need no key.

use axum::Router;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware;
use axum::response::Response;
use axum::routing::get;

/// Paths and what is there.
const FILES: [(&str, &str, &str); 5] = [
    ("/", "text/html; charset=utf-8", include_str!("page/page.html")),
    ("/page.css", "text/css; charset=utf-8", include_str!("page/page.css")),
    (
        "/page.js",
        "text/javascript; charset=utf-8",
        include_str!("page/page.js"),
    ),
    (
        "/text.js",
        "text/javascript; charset=utf-8",
        include_str!("page/text.js"),
    ),
    (
        "/state.js",
        "text/javascript; charset=utf-8",
        include_str!("page/state.js"),
    ),
];
/// Browsers ask for it unasked.
const ICON: &str = "/favicon.ico";

/// What the page may load and where it may be shown.
const POLICY: &str =
    "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'";

/// Whether a path is one of the page's.
pub(crate) fn has(path: &str) -> bool {
    path == ICON || FILES.iter().any(|(known, ..)| *known == path)
}

pub(crate) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let mut router = Router::new().route(ICON, get(async || StatusCode::NO_CONTENT));
    for (path, kind, text) in FILES {
        let file = async move || ([(header::CONTENT_TYPE, kind)], text);
        router = router.route(path, get(file));
    }
    router.layer(middleware::map_response(async |mut response: Response| {
        for (name, value) in [
            (header::CONTENT_SECURITY_POLICY, POLICY),
            (header::CACHE_CONTROL, "no-cache"),
            (header::REFERRER_POLICY, "no-referrer"),
        ] {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }))
}
