//! Downloads from a server that speaks the Hub's protocol, well and badly.

mod hub_server;

use std::fs;
use std::path::{Path, PathBuf};

use hub_server::{Behaviour, COMMIT, HubServer};
use planish_checkpoint::hub::{Download, Settings, resolve_with};

const CONFIG: (&str, &[u8]) = ("config.json", b"{\"model_type\": \"llama\"}");
const WEIGHTS: (&str, &[u8]) = ("model.safetensors", &[7; 300_000]);

struct User {
    cache: tempfile::TempDir,
    notices: Vec<String>,
    received_bytes: u64,
}

impl User {
    fn new() -> User {
        User {
            cache: tempfile::tempdir().unwrap(),
            notices: vec![],
            received_bytes: 0,
        }
    }

    fn settings(&self, server: &HubServer) -> Settings {
        Settings {
            cache: self.cache.path().into(),
            endpoint: server.endpoint.clone(),
            token: None,
            offline: false,
        }
    }

    fn get(&mut self, settings: &Settings, model: &str, revision: Option<&str>) -> Result<PathBuf, String> {
        let mut on_download = |step: Download<'_>| match step {
            Download::Notice(text) => self.notices.push(text.into()),
            Download::Received { bytes } => self.received_bytes += bytes,
            Download::Start { .. } | Download::End => {}
        };
        resolve_with(settings, model, revision, &mut on_download).map_err(|error| error.to_string())
    }

    fn blobs(&self) -> Vec<String> {
        names(&self.cache.path().join("models--org--name/blobs"))
    }
}

fn names(folder: &Path) -> Vec<String> {
    fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect()
}

fn misbehaving(behaviour: Behaviour) -> (HubServer, User, Settings) {
    let server = HubServer::start(&[CONFIG, WEIGHTS], behaviour);
    let user = User::new();
    let settings = user.settings(&server);
    (server, user, settings)
}

#[test]
fn a_model_is_fetched_once_into_the_layout_of_python() {
    let (server, mut user, settings) = misbehaving(Behaviour::default());
    let folder = user.get(&settings, "org/name", None).unwrap();
    let repo = user.cache.path().join("models--org--name");
    assert_eq!(folder, repo.join("snapshots").join(COMMIT));
    assert_eq!(fs::read(folder.join("model.safetensors")).unwrap(), WEIGHTS.1);
    assert_eq!(fs::read_to_string(repo.join("refs/main")).unwrap(), COMMIT);
    let link = fs::read_link(folder.join("config.json")).unwrap();
    assert!(link.starts_with("../../blobs"), "{link:?}");
    assert_eq!(user.received_bytes, (WEIGHTS.1.len() + CONFIG.1.len()) as u64);

    let contents = server.requests("GET").len();
    assert_eq!(user.get(&settings, "org/name", None).unwrap(), folder);
    assert_eq!(
        server.requests("GET").len(),
        contents + 1,
        "the second run asks for the listing only"
    );

    let offline = Settings {
        offline: true,
        ..settings.clone()
    };
    assert_eq!(user.get(&offline, "org/name", None).unwrap(), folder);
    assert_eq!(user.get(&offline, "org/name", Some(COMMIT)).unwrap(), folder);
    let error = user.get(&offline, "org/name", Some("v2")).unwrap_err();
    assert!(
        error.starts_with("org/name at revision v2 is not in the cache"),
        "{error}"
    );
}

#[test]
fn revisions_with_slashes_and_unknown_ones() {
    let (_server, mut user, settings) = misbehaving(Behaviour::default());
    user.get(&settings, "org/name", Some("refs/pr/1")).unwrap();
    assert_eq!(
        fs::read_to_string(user.cache.path().join("models--org--name/refs/refs/pr/1")).unwrap(),
        COMMIT
    );
    let error = user.get(&settings, "org/name", Some("v9")).unwrap_err();
    assert_eq!(error, "org/name has no revision v9 (HTTP 404)");
}

#[test]
fn shards_come_from_the_index() {
    let index = br#"{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}"#;
    let files: [(&str, &[u8]); 5] = [
        CONFIG,
        ("model.safetensors.index.json", index),
        ("model-1.safetensors", &[1; 10]),
        ("model-2.safetensors", &[2; 10]),
        ("consolidated.safetensors", &[3; 10]),
    ];
    let server = HubServer::start(&files, Behaviour::default());
    let mut user = User::new();
    let folder = user.get(&user.settings(&server), "org/name", None).unwrap();
    let mut found = names(&folder);
    found.sort();
    let expected = [
        "config.json",
        "model-1.safetensors",
        "model-2.safetensors",
        "model.safetensors.index.json",
    ];
    assert_eq!(found, expected);
}

#[test]
fn one_gguf_file_by_name() {
    let server = HubServer::start(&[("q4.gguf", b"GGUF"), ("q8.gguf", b"GGUG")], Behaviour::default());
    let mut user = User::new();
    let settings = user.settings(&server);
    let path = user.get(&settings, "org/name/q8.gguf", None).unwrap();
    assert_eq!(fs::read(path).unwrap(), b"GGUG");
    let error = user.get(&settings, "org/name/q2.gguf", None).unwrap_err();
    assert_eq!(error, "org/name has no file q2.gguf (HTTP 404)");
}

#[test]
fn the_token_goes_to_the_hub_and_nowhere_else() {
    let content = HubServer::start(&[CONFIG, WEIGHTS], Behaviour::default());
    let redirect_to = Some(content.endpoint.clone());
    let (server, mut user, settings) = misbehaving(Behaviour {
        redirect_to,
        ..Behaviour::default()
    });
    let settings = Settings {
        token: Some("secret".into()),
        ..settings
    };
    let folder = user.get(&settings, "org/name", None).unwrap();
    assert_eq!(fs::read(folder.join("model.safetensors")).unwrap(), WEIGHTS.1);
    for seen in server.seen.lock().unwrap().iter() {
        assert_eq!(seen.headers["authorization"], "Bearer secret", "{}", seen.path);
    }
    let elsewhere = content.seen.lock().unwrap();
    assert_eq!(elsewhere.len(), 2);
    assert!(elsewhere.iter().all(|seen| !seen.headers.contains_key("authorization")));
}

#[test]
fn refusals_are_named() {
    let cases = [
        (
            (401, ""),
            "org/name: not a local path, and the Hub has no such model or it is private (HTTP 401): check the name, or set HF_TOKEN if it is private",
        ),
        (
            (404, "RepoNotFound"),
            "org/name: not a local path, and the Hub has no such model or it is private (HTTP 404): check the name, or set HF_TOKEN if it is private",
        ),
    ];
    for (refuse, message) in cases {
        let (_server, mut user, settings) = misbehaving(Behaviour {
            refuse: Some(refuse),
            refusals: usize::MAX,
            ..Behaviour::default()
        });
        assert_eq!(user.get(&settings, "org/name", None).unwrap_err(), message);
        assert!(names(user.cache.path()).is_empty(), "nothing is left behind");
    }
    let refuse = Some((403, "GatedRepo"));
    let (server, mut user, settings) = misbehaving(Behaviour {
        refuse,
        refusals: usize::MAX,
        ..Behaviour::default()
    });
    let error = user.get(&settings, "org/name", None).unwrap_err();
    let expected = "org/name: access is restricted (HTTP 403): accept its conditions on";
    assert_eq!(
        error,
        format!("{expected} {}/org/name and set HF_TOKEN", server.endpoint)
    );
}

#[test]
fn too_many_requests_are_waited_for_and_then_named() {
    let refuse = Some((429, ""));
    let (_server, mut user, settings) = misbehaving(Behaviour {
        refuse,
        refusals: 3,
        ..Behaviour::default()
    });
    user.get(&settings, "org/name", None).unwrap();
    let (_server, mut user, settings) = misbehaving(Behaviour {
        refuse,
        refusals: usize::MAX,
        ..Behaviour::default()
    });
    let error = user.get(&settings, "org/name", None).unwrap_err();
    assert!(error.contains("too many requests (HTTP 429) after 5 tries"), "{error}");
}

#[test]
fn a_cut_connection_is_resumed_where_it_broke() {
    let behaviour = Behaviour {
        cut_after: Some(100_000),
        cuts: 2,
        ..Behaviour::default()
    };
    let server = HubServer::start(&[("m.gguf", WEIGHTS.1)], behaviour);
    let mut user = User::new();
    let path = user.get(&user.settings(&server), "org/name", None).unwrap();
    assert_eq!(fs::read(path).unwrap(), WEIGHTS.1);
    assert_eq!(user.received_bytes, WEIGHTS.1.len() as u64, "no byte is fetched twice");
    let ranges: Vec<_> = server
        .requests("GET")
        .iter()
        .filter_map(|seen| seen.headers.get("range").cloned())
        .collect();
    assert_eq!(ranges, ["bytes=100000-", "bytes=200000-"]);
    assert_eq!(user.notices.len(), 2);
}

#[test]
fn a_connection_that_stays_cut_ends_with_a_partial_file_that_a_later_run_completes() {
    let behaviour = Behaviour {
        cut_after: Some(0),
        cuts: usize::MAX,
        ..Behaviour::default()
    };
    let server = HubServer::start(&[("m.gguf", WEIGHTS.1)], behaviour);
    let mut user = User::new();
    let settings = user.settings(&server);
    *server.behaviour.lock().unwrap() = Behaviour {
        cut_after: Some(70_000),
        cuts: 1,
        ..Behaviour::default()
    };
    let half = server.behaviour.clone();
    let mut stop_after_first = |step: Download<'_>| {
        if let Download::Notice(_) = step {
            *half.lock().unwrap() = Behaviour {
                cut_after: Some(0),
                cuts: usize::MAX,
                ..Behaviour::default()
            };
        }
    };
    let error = resolve_with(&settings, "org/name", None, &mut stop_after_first)
        .unwrap_err()
        .to_string();
    assert!(
        error.ends_with("the connection broke after 70000 of 300000 bytes: run again to resume"),
        "{error}"
    );
    let blobs = user.blobs();
    assert!(blobs.len() == 1 && blobs[0].ends_with(".incomplete"), "{blobs:?}");
    assert!(names(&user.cache.path().join("models--org--name/snapshots")).is_empty());

    *server.behaviour.lock().unwrap() = Behaviour::default();
    let path = user.get(&settings, "org/name", None).unwrap();
    assert_eq!(fs::read(path).unwrap(), WEIGHTS.1);
    assert_eq!(user.received_bytes, 230_000);
}

#[test]
fn wrong_size_and_wrong_content_are_refused_and_removed() {
    let (_server, mut user, settings) = misbehaving(Behaviour {
        extra_bytes: 5,
        ..Behaviour::default()
    });
    let error = user.get(&settings, "org/name", None).unwrap_err();
    assert!(error.contains("expected 23 bytes, found 28"), "{error}");
    assert!(user.blobs().is_empty());
    let (_server, mut user, settings) = misbehaving(Behaviour {
        corrupt: true,
        ..Behaviour::default()
    });
    let error = user.get(&settings, "org/name", None).unwrap_err();
    assert!(error.contains("expected SHA-256"), "{error}");
    assert!(user.blobs().is_empty());
}

#[test]
fn without_a_network_the_cache_serves_and_an_absent_model_is_named() {
    let (server, mut user, settings) = misbehaving(Behaviour::default());
    let folder = user.get(&settings, "org/name", None).unwrap();
    let refuse = Some((503, ""));
    *server.behaviour.lock().unwrap() = Behaviour {
        refuse,
        refusals: usize::MAX,
        ..Behaviour::default()
    };
    assert_eq!(user.get(&settings, "org/name", None).unwrap(), folder);
    assert_eq!(
        user.notices,
        ["the Hub cannot be reached: using the cached files of org/name"]
    );
    let nobody = Settings {
        endpoint: "http://127.0.0.1:1".into(),
        cache: user.cache.path().join("x"),
        ..settings
    };
    let error = user.get(&nobody, "org/name", None).unwrap_err();
    assert!(error.contains("cannot be reached"), "{error}");
}

#[test]
fn local_paths_are_themselves() {
    let (_server, mut user, settings) = misbehaving(Behaviour::default());
    let folder = user.cache.path().to_str().unwrap().to_owned();
    assert_eq!(user.get(&settings, &folder, None).unwrap(), Path::new(&folder));
    let error = user.get(&settings, &folder, Some("main")).unwrap_err();
    assert!(
        error.ends_with("is a local path: a revision applies to Hub ids only"),
        "{error}"
    );
    let error = user.get(&settings, "./nothing/here", None).unwrap_err();
    assert_eq!(
        error,
        "./nothing/here: no such file or folder, and not a Hub id (org/name)"
    );
}
