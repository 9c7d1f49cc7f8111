//! `planish serve` as a process: it says where it is, answers, and ends by a signal with nothing cut.
#![cfg(unix)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

fn serve(flags: &[&str]) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("planish"));
    command.args(["serve", "--port", "0"]).args(flags);
    command.env_remove("PLANISH_API_KEY").stderr(Stdio::piped());
    command
}

#[test]
fn it_answers_until_a_signal_ends_it() {
    let mut server = serve(&["--model-name", "tales", "--api-key", "k"]).spawn().unwrap();
    let mut errors = BufReader::new(server.stderr.take().unwrap());
    let mut line = String::new();
    errors.read_line(&mut line).unwrap();
    let address = line.trim().rsplit_once("http://").expect("an address").1;
    let address = address.strip_suffix("/v1").unwrap().to_owned();
    assert!(line.starts_with("tales on "), "{line}");
    let post = |body: &str| {
        let mut stream = TcpStream::connect(&address).unwrap();
        let head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n";
        let length = body.len();
        write!(stream, "{head}x-api-key: k\r\nContent-Length: {length}\r\n\r\n{body}").unwrap();
        stream
    };
    let read = |mut stream: TcpStream| {
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    };
    let answer = read(post(
        r#"{"model": "tales", "prompt": "Once upon a time", "max_tokens": 5}"#,
    ));
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("\"completion_tokens\":5"),
        "{answer}"
    );
    // What has begun when the signal comes is answered to its end.
    let mut late = post(r#"{"prompt": "Once upon a time", "max_tokens": 60, "stream": true, "temperature": 0}"#);
    let mut begun = [0; 12];
    late.read_exact(&mut begun).unwrap();
    // SAFETY: a signal to a process that is not waited for yet.
    let sent = unsafe { libc::kill(server.id() as i32, libc::SIGTERM) };
    assert_eq!(sent, 0);
    let rest = read(late);
    assert!(
        rest.contains("finish_reason\":\"") && rest.contains("data: [DONE]"),
        "{rest}"
    );
    assert!(server.wait().unwrap().success());
    let mut more = String::new();
    errors.read_to_string(&mut more).unwrap();
    assert_eq!(more, "");
}

#[test]
fn what_would_be_unsafe_is_refused() {
    for (flags, said) in [
        (&["--host", "0.0.0.0"][..], "--api-key or --open"),
        (&["--api-key", ""], "visible ASCII"),
        (&["--host", "nowhere"], "invalid"),
        (&["--queue", "0"], "0"),
    ] {
        let output = serve(flags).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(
            matches!(output.status.code(), Some(1 | 2)) && text.contains(said),
            "{flags:?}: {text}"
        );
    }
}
