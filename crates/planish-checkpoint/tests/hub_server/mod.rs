//! A server on the loopback interface that speaks the Hub's protocol and can be told to misbehave.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use sha2::{Digest, Sha256};

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What the server does instead of answering well.
#[derive(Clone, Default)]
pub struct Behaviour {
    /// Status and X-Error-Code for every request.
    pub refuse: Option<(u16, &'static str)>,
    /// Refuses only this many requests.
    pub refusals: usize,
    /// Breaks the connection of each content request after so many bytes.
    pub cut_after: Option<usize>,
    /// How many content requests are cut.
    pub cuts: usize,
    /// Sends so many bytes more than announced by HEAD.
    pub extra_bytes: usize,
    /// Sends other bytes than the hash in the etag promises.
    pub corrupt: bool,
    /// Large files are redirected to this host, as to a content network.
    pub redirect_to: Option<String>,
}

/// One request as it arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    pub path: String,
    pub headers: HashMap<String, String>,
}

#[derive(Clone)]
pub struct HubServer {
    pub endpoint: String,
    pub files: Arc<HashMap<String, Vec<u8>>>,
    pub behaviour: Arc<Mutex<Behaviour>>,
    pub seen: Arc<Mutex<Vec<Seen>>>,
}

impl HubServer {
    /// Serves `org/name` with these files on a free port until the test process ends.
    pub fn start(files: &[(&str, &[u8])], behaviour: Behaviour) -> HubServer {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = HubServer {
            endpoint: format!("http://{}", listener.local_addr().unwrap()),
            files: Arc::new(
                files
                    .iter()
                    .map(|(name, data)| ((*name).to_owned(), data.to_vec()))
                    .collect(),
            ),
            behaviour: Arc::new(Mutex::new(behaviour)),
            seen: Arc::default(),
        };
        let handler = server.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let handler = handler.clone();
                thread::spawn(move || handler.answer(stream));
            }
        });
        server
    }

    pub fn requests(&self, method: &str) -> Vec<Seen> {
        self.seen
            .lock()
            .unwrap()
            .iter()
            .filter(|seen| seen.method == method)
            .cloned()
            .collect()
    }

    /// One request a connection; errors of the socket are the client's concern.
    fn answer(&self, stream: TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream.try_clone().ok()?);
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let mut words = line.split_whitespace();
        let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
        let mut headers = HashMap::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            let Some((name, value)) = line.trim().split_once(": ") else {
                break;
            };
            headers.insert(name.to_lowercase(), value.to_owned());
        }
        let seen = Seen { method, path, headers };
        self.seen.lock().unwrap().push(seen.clone());
        self.respond(stream, &seen)
    }

    fn respond(&self, mut stream: TcpStream, seen: &Seen) -> Option<()> {
        let behaviour = self.behaviour.lock().unwrap().clone();
        if let Some((status, code)) = behaviour.refuse.filter(|_| behaviour.refusals > 0) {
            self.behaviour.lock().unwrap().refusals -= 1;
            return head(
                &mut stream,
                status,
                &[("X-Error-Code", code), ("Retry-After", "0"), ("Content-Length", "0")],
            );
        }
        if seen.path.starts_with("/api/models/org/name/revision/") {
            return self.listing(&mut stream, seen);
        }
        let Some(file) = seen.path.strip_prefix(&format!("/org/name/resolve/{COMMIT}/")) else {
            return head(
                &mut stream,
                404,
                &[("X-Error-Code", "RepoNotFound"), ("Content-Length", "0")],
            );
        };
        let Some(data) = self.files.get(file) else {
            return head(
                &mut stream,
                404,
                &[("X-Error-Code", "EntryNotFound"), ("Content-Length", "0")],
            );
        };
        let hash: String = Sha256::digest(data).iter().map(|byte| format!("{byte:02x}")).collect();
        let etag = format!("\"{hash}\"");
        let size = data.len().to_string();
        if let Some(other) = &behaviour.redirect_to {
            let location = format!("{other}{}", seen.path);
            let headers = [
                ("Location", location.as_str()),
                ("X-Linked-Etag", &etag),
                ("X-Linked-Size", &size),
                ("Content-Length", "0"),
            ];
            return head(&mut stream, 302, &headers);
        }
        if seen.method == "HEAD" {
            return head(
                &mut stream,
                200,
                &[("ETag", &etag), ("X-Repo-Commit", COMMIT), ("Content-Length", &size)],
            );
        }
        self.content(&mut stream, seen, data, &behaviour)
    }

    fn listing(&self, stream: &mut TcpStream, seen: &Seen) -> Option<()> {
        let revision = seen.path.rsplit('/').next()?;
        if !["main", "refs%2Fpr%2F1", COMMIT].contains(&revision) {
            return head(
                stream,
                404,
                &[("X-Error-Code", "RevisionNotFound"), ("Content-Length", "0")],
            );
        }
        let mut names: Vec<&String> = self.files.keys().collect();
        names.sort();
        let siblings: Vec<_> = names
            .iter()
            .map(|name| serde_json::json!({"rfilename": name}))
            .collect();
        let body = serde_json::json!({"sha": COMMIT, "siblings": siblings}).to_string();
        head(stream, 200, &[("Content-Length", &body.len().to_string())])?;
        stream.write_all(body.as_bytes()).ok()
    }

    fn content(&self, stream: &mut TcpStream, seen: &Seen, data: &[u8], behaviour: &Behaviour) -> Option<()> {
        let range = seen
            .headers
            .get("range")
            .and_then(|text| text.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
        let start: usize = range.unwrap_or(0);
        let mut body = data[start..].to_vec();
        body.extend(vec![0; behaviour.extra_bytes]);
        if behaviour.corrupt {
            body.iter_mut().for_each(|byte| *byte ^= 0x55);
        }
        let status = if range.is_some() { 206 } else { 200 };
        head(stream, status, &[("Content-Length", &body.len().to_string())])?;
        let cut = behaviour.cut_after.filter(|_| behaviour.cuts > 0);
        if let Some(bytes) = cut {
            self.behaviour.lock().unwrap().cuts -= 1;
            body.truncate(bytes);
        }
        stream.write_all(&body).ok()
    }
}

fn head(stream: &mut TcpStream, status: u16, headers: &[(&str, &str)]) -> Option<()> {
    let lines: String = headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    write!(stream, "HTTP/1.1 {status} Status\r\nConnection: close\r\n{lines}\r\n").ok()
}
