//! A server for a test, and what it is asked with.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use planish::{AutoModelForCausalLM, CausalLM, Engine, EngineOptions, GenerationConfig};
use planish_server::{ServerOptions, serve};
use serde_json::Value;

/// A way to write messages; the demo model has no template of its own.
const TEMPLATE: &str = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:";

pub fn model() -> &'static CausalLM {
    static MODEL: OnceLock<CausalLM> = OnceLock::new();
    MODEL.get_or_init(|| {
        let builder = AutoModelForCausalLM::demo()
            .exact(true)
            .chat_template(TEMPLATE.to_owned());
        builder.load().unwrap()
    })
}

/// A server, until it is dropped.
pub struct Running {
    pub address: SocketAddr,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    pub fn start(options: ServerOptions, engine: EngineOptions) -> Running {
        Running::with(model().clone(), options, engine)
    }

    pub fn with(model: CausalLM, options: ServerOptions, engine: EngineOptions) -> Running {
        let over = Arc::new(AtomicBool::new(false));
        let (sender, receiver) = std::sync::mpsc::channel();
        let ended = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            let engine = Engine::start(&model, engine);
            let is_over = || ended.load(Ordering::Relaxed);
            serve(engine, options, |address| sender.send(address).unwrap(), is_over).unwrap();
        });
        Running {
            address: receiver.recv().unwrap(),
            over,
            thread: Some(thread),
        }
    }

    pub fn usual() -> Running {
        Running::start(options(), EngineOptions::default())
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn get(&self, path: &str) -> (u16, String) {
        let mut response = agent().get(self.url(path)).call().unwrap();
        let status = response.status().as_u16();
        (status, response.body_mut().read_to_string().unwrap())
    }

    pub fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let mut response = agent().post(self.url(path)).send_json(body).unwrap();
        let status = response.status().as_u16();
        (status, response.body_mut().read_json().unwrap())
    }

    /// The events of a stream, without `data: `.
    pub fn stream(&self, path: &str, body: &Value) -> Vec<String> {
        let mut response = agent().post(self.url(path)).send_json(body).unwrap();
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let lines = BufReader::new(response.body_mut().as_reader()).lines();
        let lines = lines.map(|line| line.unwrap()).filter(|line| !line.is_empty());
        lines
            .map(|line| line.strip_prefix("data: ").unwrap().to_owned())
            .collect()
    }

    /// Bytes as they are; all that comes back.
    pub fn raw(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    pub fn end(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

pub fn options() -> ServerOptions {
    ServerOptions {
        address: SocketAddr::from(([127, 0, 0, 1], 0)),
        model: "story".to_owned(),
        ..ServerOptions::default()
    }
}

pub fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder().http_status_as_error(false);
    config.build().into()
}

pub fn alone(prompt: &[u32], config: &GenerationConfig, continues: bool) -> planish::TextAnswer {
    let silent = &mut |_: planish::TextStep<'_>| ControlFlow::Continue(());
    let mut session = model().session();
    match continues {
        true => session.continue_text(prompt, config, silent).unwrap(),
        false => session.generate_text(prompt, config, silent).unwrap(),
    }
}

pub fn config(max_new_tokens: usize) -> GenerationConfig {
    GenerationConfig {
        max_new_tokens,
        temperature: Some(0.0),
        ..GenerationConfig::default()
    }
}
