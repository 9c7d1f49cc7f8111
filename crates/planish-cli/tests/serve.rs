//! `planish serve` as a process: it says where it is, answers, and ends by a signal with nothing cut.
#![cfg(unix)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStderr, Command, Stdio};

use serde_json::Value;

fn serve(flags: &[&str]) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("planish"));
    command.args(["serve", "--port", "0"]).args(flags);
    command.env_remove("PLANISH_API_KEY").stderr(Stdio::piped());
    command
}

/// A server that listens, where, the line that said so, and what it says later.
fn start(flags: &[&str]) -> (Child, String, String, BufReader<ChildStderr>) {
    let mut server = serve(flags).spawn().unwrap();
    let mut errors = BufReader::new(server.stderr.take().unwrap());
    // The first line says which model it is.
    let mut line = String::new();
    while !line.contains("http://") {
        line.clear();
        assert_ne!(errors.read_line(&mut line).unwrap(), 0, "it ended");
    }
    let address = line.trim().rsplit_once("http://").expect("an address").1;
    let address = address.strip_suffix("/v1").unwrap().to_owned();
    (server, address, line, errors)
}

#[test]
fn it_answers_until_a_signal_ends_it() {
    let (mut server, address, line, mut errors) = start(&["--model-name", "tales", "--api-key", "k"]);
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

#[test]
fn its_rates_are_measured_by_clients_at_once() {
    let (mut server, address, _, _errors) = start(&["--model-name", "tales", "--api-key", "k"]);
    let folder = tempfile::TempDir::new().unwrap();
    let plot = folder.path().join("rates.svg");
    let bench = |flags: &[&str]| {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("planish"));
        command.args([
            "bench",
            "--serve",
            &format!("http://{address}/v1/"),
            "-p",
            "40",
            "-n",
            "6",
            "-r",
            "2",
        ]);
        command.args(["--concurrency", "1,3"]).args(flags);
        command.env_remove("PLANISH_API_KEY").output().unwrap()
    };
    let output = bench(&["--json", "--api-key", "k", "--svg", plot.to_str().unwrap()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    // The demo model has no chat template: texts are continued.
    assert_eq!(
        (&result["model"], &result["route"]),
        (&"tales".into(), &"/v1/completions".into())
    );
    for (level, clients) in result["levels"].as_array().unwrap().iter().zip([1, 3]) {
        assert_eq!(
            (&level["clients"], &level["answers"]),
            (&clients.into(), &(2 * clients).into())
        );
        assert_eq!(level["mean_answer_tokens"], 6.0);
        let prompt = level["mean_prompt_tokens"].as_f64().unwrap();
        assert!((30.0..50.0).contains(&prompt), "{prompt}");
        for path in [
            "/tokens_per_s",
            "/tokens_per_s_of_each",
            "/prompt_tokens_per_s",
            "/first_token_s/p99",
            "/gap_s/most",
        ] {
            let number = level.pointer(path).and_then(Value::as_f64).unwrap();
            assert!(number > 0.0, "{path}: {level}");
        }
    }
    let svg = std::fs::read_to_string(&plot).unwrap();
    assert_eq!(
        (svg.matches("<polyline").count(), svg.matches("<title>").count()),
        (2, 4)
    );
    let text = String::from_utf8(bench(&["--api-key", "k"]).stdout).unwrap();
    assert_eq!(text.lines().count(), 5, "{text}");
    // What a server refuses is told as it says it.
    let refused = bench(&[]);
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(refused.status.code() == Some(1) && said.contains("API key"), "{said}");
    server.kill().unwrap();
    server.wait().unwrap();
}
