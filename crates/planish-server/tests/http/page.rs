//! The files of the page.

use planish::EngineOptions;
use planish_server::ServerOptions;

use crate::server::{Running, agent, options};

#[test]
fn the_page_needs_no_key_and_loads_nothing_else() {
    let options = ServerOptions {
        api_key: Some("secret".to_owned()),
        ..options()
    };
    let server = Running::start(options, EngineOptions::default());
    assert_eq!((server.get("/v1/models").0, server.get("/favicon.ico").0), (401, 204));
    for (path, kind) in [
        ("/", "text/html"),
        ("/page.css", "text/css"),
        ("/page.js", "text/javascript"),
        ("/text.js", "text/javascript"),
        ("/state.js", "text/javascript"),
    ] {
        let mut response = agent().get(server.url(path)).call().unwrap();
        let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
        assert!(header("content-type").starts_with(kind), "{path}");
        assert!(
            header("content-security-policy").starts_with("default-src 'self';"),
            "{path}"
        );
        let text = response.body_mut().read_to_string().unwrap();
        assert!(!text.is_empty());
        // Nothing from elsewhere, nothing that the policy forbids, no text that becomes markup.
        for word in [
            "innerHTML",
            "outerHTML",
            "insertAdjacent",
            "document.write",
            "<style",
            " style=",
            "onclick=\"",
            "eval(",
        ] {
            assert!(!text.contains(word), "{path} has {word}");
        }
        for (at, _) in text.match_indices("http") {
            let rest = &text[at..];
            assert!(
                rest.starts_with("http://www.w3.org/2000/svg") || rest.starts_with("https?:"),
                "{path}: {:.40}",
                rest
            );
        }
    }
}
