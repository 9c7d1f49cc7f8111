//! HTTP with the Hub: listings, file metadata and resumable downloads, with bounded retries.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;
use std::thread;
use std::time::Duration;

use sha2::{Digest, Sha256};
use ureq::http::Response;
use ureq::{Agent, Body};

use super::answers::{Content, Listing};
use super::{Download, HubError, OnDownload, Settings};

/// Tries for one request, and for a download that makes no progress.
const TRIES: u32 = 5;
/// The longest wait that a server's Retry-After is granted.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
const BUFFER_BYTES: usize = 1 << 17;

pub(super) struct Client {
    agent: Agent,
    endpoint: String,
    token: Option<String>,
}

/// Where a file's bytes are and how many there must be.
pub(super) struct RemoteFile {
    pub content: Content,
    name: String,
    url: String,
}

impl Client {
    pub(super) fn new(settings: &Settings) -> Client {
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(Duration::from_secs(20)))
            .timeout_recv_response(Some(Duration::from_secs(60)))
            .timeout_per_read(Some(Duration::from_secs(60)))
            .user_agent(concat!("planish/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        Client {
            agent,
            endpoint: settings.endpoint.clone(),
            token: settings.token.clone(),
        }
    }

    pub(super) fn listing(&self, id: &str, revision: &str, say: &mut OnDownload) -> Result<Listing, HubError> {
        let url = format!("{}/api/models/{id}/revision/{}", self.endpoint, escape(revision, ""));
        let mut response = self.send("GET", &url, None, say)?;
        self.check(&response, id, &url).map_err(|error| match error {
            HubError::NoSuchFile { .. } => HubError::NoSuchRevision {
                id: id.into(),
                revision: revision.into(),
            },
            other => other,
        })?;
        let text = response
            .body_mut()
            .read_to_vec()
            .map_err(|error| unreachable(&url, error))?;
        let malformed = |found: String| HubError::Protocol {
            url: url.clone(),
            expected: "a model listing",
            found,
        };
        Listing::parse(&text).map_err(malformed)
    }

    pub(super) fn metadata(
        &self,
        id: &str,
        commit: &str,
        file: &str,
        say: &mut OnDownload,
    ) -> Result<RemoteFile, HubError> {
        let url = format!("{}/{id}/resolve/{commit}/{}", self.endpoint, escape(file, "/"));
        let response = self.send("HEAD", &url, None, say)?;
        self.check(&response, id, &url).map_err(|error| match error {
            HubError::NoSuchFile { id, .. } => HubError::NoSuchFile { id, file: file.into() },
            other => other,
        })?;
        let content = Content::of_headers(|name| header(&response, name));
        let content = content.ok_or_else(|| HubError::Protocol {
            url: url.clone(),
            expected: "an etag and a size",
            found: "neither or one".into(),
        })?;
        Ok(RemoteFile {
            content,
            name: file.into(),
            url,
        })
    }

    /// Brings a file to `incomplete`, going on where an earlier run stopped, checks it and renames it to `blob`.
    pub(super) fn download(
        &self,
        remote: &RemoteFile,
        incomplete: &Path,
        blob: &Path,
        say: &mut OnDownload,
    ) -> Result<(), HubError> {
        let mut done = fs::metadata(incomplete).map_or(0, |data| data.len());
        if done > remote.content.size {
            fs::remove_file(incomplete).map_err(HubError::cache(incomplete))?;
            done = 0;
        }
        say(Download::Start {
            file: &remote.name,
            total_bytes: remote.content.size,
            done_bytes: done,
        });
        let mut fruitless = 0;
        while done < remote.content.size || !incomplete.exists() {
            let before = done;
            done = self.receive(remote, incomplete, done, say)?;
            fruitless = if done > before { 0 } else { fruitless + 1 };
            if fruitless >= TRIES {
                return Err(HubError::Cut {
                    url: remote.url.clone(),
                    received: done,
                    expected: remote.content.size,
                });
            }
            if done < remote.content.size {
                say(Download::Notice(&format!(
                    "{}: the connection broke at {done} bytes, resuming",
                    remote.name
                )));
                thread::sleep(Duration::from_millis(100 << fruitless));
            }
        }
        check_content(remote, incomplete, done)?;
        fs::rename(incomplete, blob).map_err(HubError::cache(blob))?;
        say(Download::End);
        Ok(())
    }

    /// One request for the bytes from `done` on; returns how many are there when it ends.
    fn receive(
        &self,
        remote: &RemoteFile,
        incomplete: &Path,
        done: u64,
        say: &mut OnDownload,
    ) -> Result<u64, HubError> {
        let mut response = self.send("GET", &remote.url, (done > 0).then_some(done), say)?;
        let kept = match response.status().as_u16() {
            206 => done,
            200 | 416 => 0,
            status => {
                return Err(HubError::Status {
                    url: remote.url.clone(),
                    status,
                });
            }
        };
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(incomplete)
            .map_err(HubError::cache(incomplete))?;
        file.set_len(kept).map_err(HubError::cache(incomplete))?;
        if response.status() == 416 {
            return Ok(0);
        }
        let announced = header(&response, "content-length").and_then(|text| text.parse::<u64>().ok());
        let found = announced.map_or(remote.content.size, |bytes| bytes.saturating_add(kept));
        if found != remote.content.size {
            drop(file);
            fs::remove_file(incomplete).map_err(HubError::cache(incomplete))?;
            return Err(HubError::WrongSize {
                url: remote.url.clone(),
                expected: remote.content.size,
                found,
            });
        }
        let mut body = response.body_mut().as_reader().take(remote.content.size - kept + 1);
        let received = copy(&mut body, &mut file, say).map_err(HubError::cache(incomplete))?;
        file.sync_data().map_err(HubError::cache(incomplete))?;
        Ok(kept + received)
    }

    /// Sends a request, follows redirects (the token goes to the endpoint's own host only), and tries again when the
    /// network or the server falters.
    fn send(
        &self,
        method: &str,
        url: &str,
        from_byte: Option<u64>,
        say: &mut OnDownload,
    ) -> Result<Response<Body>, HubError> {
        let mut tries = 1;
        loop {
            let result = self.send_once(method, url, from_byte);
            let wait = match &result {
                Ok(response) if response.status() == 429 && tries >= TRIES => {
                    return Err(HubError::RateLimited { url: url.into(), tries });
                }
                Ok(response) if response.status() == 429 || response.status().is_server_error() => {
                    header(response, "retry-after")
                        .and_then(|text| text.parse().ok())
                        .map(Duration::from_secs)
                }
                Ok(_) => return result,
                Err(HubError::Unreachable { .. }) => None,
                Err(_) => return result,
            };
            if tries >= TRIES || matches!(&result, Err(HubError::Unreachable { .. }) if tries >= 2) {
                return result;
            }
            let wait = wait.unwrap_or(Duration::from_millis(250 << tries)).min(LONGEST_WAIT);
            if wait >= Duration::from_secs(2) {
                say(Download::Notice(&format!(
                    "the Hub asks for patience: trying again in {} s",
                    wait.as_secs()
                )));
            }
            thread::sleep(wait);
            tries += 1;
        }
    }

    fn send_once(&self, method: &str, url: &str, from_byte: Option<u64>) -> Result<Response<Body>, HubError> {
        let mut url = url.to_owned();
        for _ in 0..10 {
            let response = self.request(method, &url, from_byte)?;
            let location = header(&response, "location").filter(|_| response.status().is_redirection());
            let Some(location) = location else { return Ok(response) };
            // A large file's HEAD answers with a redirect that carries its size and hash: going on would lose them.
            if method == "HEAD" && header(&response, "x-linked-etag").is_some() {
                return Ok(response);
            }
            url = match location.starts_with('/') {
                true => format!("{}{location}", origin(&url)),
                false => location.to_owned(),
            };
        }
        Err(HubError::Protocol {
            url,
            expected: "a file",
            found: "more than 10 redirects".into(),
        })
    }

    fn request(&self, method: &str, url: &str, from_byte: Option<u64>) -> Result<Response<Body>, HubError> {
        // Compression would hide the size and break resuming.
        let mut request = ureq::http::Request::builder()
            .method(method)
            .uri(url)
            .header("accept-encoding", "identity");
        if let Some(token) = self.token.as_ref().filter(|_| origin(url) == origin(&self.endpoint)) {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if let Some(byte) = from_byte {
            request = request.header("range", format!("bytes={byte}-"));
        }
        let request = request.body(()).map_err(|error| unreachable(url, error.into()))?;
        self.agent.run(request).map_err(|error| unreachable(url, error))
    }

    /// Translates the Hub's refusals; its X-Error-Code says which of several 404s is meant.
    fn check(&self, response: &Response<Body>, id: &str, url: &str) -> Result<(), HubError> {
        let status = response.status().as_u16();
        let code = header(response, "x-error-code").unwrap_or_default();
        let cure = match self.token {
            Some(_) => "check the name, and that your token may read it",
            None => "check the name, or set HF_TOKEN if it is private",
        };
        match (status, code) {
            (200..=399, _) => Ok(()),
            (401 | 403, "GatedRepo") | (403, _) => Err(HubError::Gated {
                id: id.into(),
                status,
                endpoint: self.endpoint.clone(),
            }),
            (401, _) | (404, "RepoNotFound") => Err(HubError::NoSuchModel {
                id: id.into(),
                status,
                cure,
            }),
            (404, "RevisionNotFound" | "EntryNotFound") => Err(HubError::NoSuchFile {
                id: id.into(),
                file: url.into(),
            }),
            (404, _) => Err(HubError::NoSuchModel {
                id: id.into(),
                status,
                cure,
            }),
            _ => Err(HubError::Status {
                url: url.into(),
                status,
            }),
        }
    }
}

/// Copies until the end or the connection breaks; only a failing `file` is an error, for the rest can be resumed.
fn copy(body: &mut dyn Read, file: &mut File, say: &mut OnDownload) -> io::Result<u64> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut received = 0;
    while let Ok(count @ 1..) = body.read(&mut buffer) {
        file.write_all(&buffer[..count])?;
        received += count as u64;
        say(Download::Received { bytes: count as u64 });
    }
    Ok(received)
}

fn check_content(remote: &RemoteFile, path: &Path, found: u64) -> Result<(), HubError> {
    let remove = || fs::remove_file(path).map_err(HubError::cache(path));
    if found != remote.content.size {
        remove()?;
        return Err(HubError::WrongSize {
            url: remote.url.clone(),
            expected: remote.content.size,
            found,
        });
    }
    if remote.content.is_hash {
        let mut hasher = Sha256::new();
        let mut file = File::open(path).map_err(HubError::cache(path))?;
        io::copy(&mut file, &mut HashWriter(&mut hasher)).map_err(HubError::cache(path))?;
        let hash: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        if hash != remote.content.etag.to_lowercase() {
            remove()?;
            return Err(HubError::WrongHash {
                url: remote.url.clone(),
                expected: remote.content.etag.clone(),
                found: hash,
            });
        }
    }
    Ok(())
}

struct HashWriter<'a>(&'a mut Sha256);

impl Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn unreachable(url: &str, error: ureq::Error) -> HubError {
    HubError::Unreachable {
        url: url.into(),
        reason: error.to_string(),
    }
}

fn header<'a>(response: &'a Response<Body>, name: &str) -> Option<&'a str> {
    response.headers().get(name)?.to_str().ok()
}

/// Scheme, host and port of a URL.
fn origin(url: &str) -> &str {
    let start = url.find("://").map_or(0, |place| place + 3);
    url[start..].find('/').map_or(url, |slash| &url[..start + slash])
}

/// Percent-escapes all but unreserved characters and those in `kept`.
fn escape(text: &str, kept: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) || kept.as_bytes().contains(&byte);
    text.bytes()
        .map(|byte| {
            if plain(byte) {
                (byte as char).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}
