//! `planish serve`: a model over HTTP, for many clients at once.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use planish::{Engine, EngineOptions};
use planish_server::{ServerOptions, serve};

use super::interrupt;
use super::run_flags::{RunFlags, load_with};
use super::texts::read_text;

/// Flags of `planish serve`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// A folder, a .gguf file, or a Hub id (org/name) [default: the small demo model inside planish]
    pub model: Option<OsString>,
    /// The address to listen on; one that other machines reach needs --api-key or --open
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub host: IpAddr,
    /// The port to listen on; 0 takes any that is free
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    pub port: u16,
    /// The key that clients must send [default: PLANISH_API_KEY, else none]
    #[arg(long, value_name = "KEY")]
    pub api_key: Option<String>,
    /// Let other machines in without a key
    #[arg(long)]
    pub open: bool,
    /// Another name of this machine that clients may call it by (repeatable)
    #[arg(long = "allow-host", value_name = "NAME")]
    pub hosts: Vec<String>,
    /// A web page's origin that may ask, such as https://example.org (repeatable)
    #[arg(long = "allow-origin", value_name = "ORIGIN")]
    pub origins: Vec<String>,
    /// The model's name for clients [default: the last part of MODEL]
    #[arg(long, visible_alias = "served-model-name", value_name = "NAME")]
    pub model_name: Option<String>,
    /// Answers side by side [default: as many as give each the same bits as alone on the CPU]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub parallel: Option<u32>,
    /// Requests that may wait; more are told to come again
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    pub queue: u32,
    /// Memory for what sequences remember, in MiB: running answers, and prompts that may begin alike [default: a quarter of what is
    /// free, all but a tenth on a GPU]
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u32).range(1..))]
    pub cache_memory: Option<u32>,
    /// A request's largest body, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub max_body: u32,
    /// Seconds that answers have to end once the server is to stop
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub grace: u32,
    /// A chat template (Jinja) in place of the model's own
    #[arg(long, value_name = "FILE")]
    pub chat_template: Option<std::path::PathBuf>,
    /// How the model is run.
    #[command(flatten)]
    pub run: RunFlags,
}

/// Runs the command, until a signal ends it.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let options = arguments.run.load_options()?;
    let template = arguments.chat_template.as_deref().map(read_text).transpose()?;
    let server = ServerOptions {
        address: SocketAddr::new(arguments.host, arguments.port),
        model: arguments.name(),
        api_key: arguments
            .api_key
            .clone()
            .or_else(|| std::env::var("PLANISH_API_KEY").ok()),
        open: arguments.open,
        hosts: arguments.hosts.clone(),
        origins: arguments.origins.clone(),
        most_body: (arguments.max_body as usize) << 20,
        grace: Duration::from_secs(arguments.grace.into()),
    };
    let source = arguments.run.open(arguments.model.as_deref())?;
    let model = load_with(&source, options, template)?;
    // Without it nothing that is asked could be answered.
    model.tokenizer()?;
    let engine = EngineOptions {
        answers: arguments.parallel.map(|count| count as usize),
        queue: arguments.queue as usize,
        cache_bytes: arguments.cache_memory.map(|size| u64::from(size) << 20),
        ..EngineOptions::default()
    };
    let (device, name) = (model.device().to_owned(), server.model.clone());
    let watch = interrupt::watch();
    serve(
        Engine::start(&model, engine),
        server,
        |address| eprintln!("{name} on {device} at http://{address}/v1"),
        || watch.is_interrupted(),
    )?;
    Ok(())
}

impl Arguments {
    /// What clients call the model.
    fn name(&self) -> String {
        if let Some(name) = &self.model_name {
            return name.clone();
        }
        let Some(model) = &self.model else {
            return "planish-demo".to_owned();
        };
        let path = std::path::Path::new(model);
        let name = path.file_name().unwrap_or(model).to_string_lossy();
        name.trim_end_matches(".gguf").to_owned()
    }
}
