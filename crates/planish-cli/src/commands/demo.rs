//! `planish demo`: a guided minute. Shows the demo model, quantizes its original at 8, 4 and 2 bits, compares sizes, errors
//! and perplexities on stories it has not learned from, and lets each version write a story.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context;
use console::style;
use planish::{
    AutoModelForCausalLM, CausalLM, DEMO_HELD_OUT, Encoder, Evaluation, EvaluationOptions, Finish, GenerationConfig,
    Method, Output, Packing, Recipe, Source, Target, dequantize, inspect, quantize, relative_error,
};
use serde_json::json;
use tempfile::TempDir;

use super::answer::stream;
use super::demo_chart::{Row, chart};
use super::inspect::summary;
use super::interrupt;
use super::source::{demo, open};
use crate::SUCCESS;

/// Flags of `planish demo`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// The demo model before it was packed [default: models/demo-float if there is such a folder, else the packed one,
    /// dequantized]
    #[arg(long, value_name = "DIR")]
    original: Option<PathBuf>,
    /// How the stories begin
    #[arg(long, value_name = "TEXT", default_value = "Once upon a time")]
    prompt: String,
    /// The same seed gives the same stories
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// Threads of the CPU [default: one per physical core]
    #[arg(short, long, value_name = "N")]
    threads: Option<usize>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

const ORIGINAL: &str = "models/demo-float";
const WIDTHS: [u32; 3] = [8, 4, 2];
const GROUP: usize = Packing::DEFAULT_GROUP;
/// Held-out text that is scored: more would change the perplexities little.
const HELD_OUT_BYTES: usize = 20_000;
const BETWEEN_STORIES: &str = "<|end|><|begin|>";
const STORY_TOKENS: usize = 240;

/// A version of the model, loaded, and what was measured of it.
struct Version {
    row: Row,
    bits: Option<u32>,
    model: CausalLM,
    story: String,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> anyhow::Result<u8> {
    anyhow::ensure!(
        arguments.threads != Some(0),
        "--threads 0: there must be at least one thread"
    );
    let start = Instant::now();
    // What is told on the way: nothing where one JSON object is asked for.
    let (mut silent, mut stdout) = (io::sink(), io::stdout());
    let output: &mut dyn Write = if arguments.json { &mut silent } else { &mut stdout };
    let folder = TempDir::new().context("a folder for the quantized versions")?;
    let (original, named) = open_original(arguments, folder.path())?;
    let inspection = inspect(&original, GROUP, &mut |_| {})?;
    writeln!(
        output,
        "{}",
        style("1. A language model of our own that tells stories").bold()
    )?;
    writeln!(output, "{}", summary(&inspection))?;
    hint(output, &named, |name| format!("planish inspect {name}"))?;

    writeln!(output, "{}", style("2. The same model in fewer bits").bold())?;
    let stories = held_out(DEMO_HELD_OUT);
    let (mut versions, mut scored) = (Vec::new(), 0);
    for bits in [None].into_iter().chain(WIDTHS.map(Some)) {
        let (version, tokens) = make(arguments, &original, bits, folder.path(), &stories)?;
        scored = tokens;
        versions.push(version);
    }
    let rows: Vec<&Row> = versions.iter().map(|version| &version.row).collect();
    write!(output, "{}", chart(&rows))?;
    writeln!(
        output,
        "error: of the packed layers, relative root mean square; the other tensors stay as they are\n\
         perplexity: on {} stories ({scored} tokens) that the model has not learned from; 1 is certainty",
        stories.len()
    )?;
    hint(output, &named, |name| {
        format!("planish quantize {name} --bits 4 --out demo-4bit")
    })?;

    writeln!(output, "{}", style("3. A story by each, same seed").bold())?;
    for version in &mut versions {
        if tell(arguments, version, output)? == Finish::Interrupted {
            return Ok(interrupt::exit_code());
        }
    }
    hint(output, &named, |_| {
        format!("planish generate demo-4bit --prompt {:?}", arguments.prompt)
    })?;
    writeln!(output, "All this took {:.1} s.", start.elapsed().as_secs_f64())?;
    if arguments.json {
        println!(
            "{}",
            report(arguments, &versions, (stories.len(), scored), named.as_deref())
        );
    }
    Ok(SUCCESS)
}

/// The command that does the same, if the original is a folder that the reader has; then an empty line.
fn hint(output: &mut dyn Write, named: &Option<String>, command: impl Fn(&str) -> String) -> io::Result<()> {
    if let Some(name) = named {
        writeln!(output, "{}", style(format!("   {}", command(name))).dim())?;
    }
    writeln!(output)
}

/// The float model, and its folder if it is the reader's.
fn open_original(arguments: &Arguments, folder: &Path) -> anyhow::Result<(Source, Option<String>)> {
    let given = arguments.original.as_deref();
    let found = given.or_else(|| Some(Path::new(ORIGINAL)).filter(|path| path.is_dir()));
    if let Some(path) = found {
        let name = path.to_string_lossy().into_owned();
        return Ok((open(path.as_os_str(), None)?, Some(name)));
    }
    eprintln!(
        "There is no folder {ORIGINAL} here (--original names another): the packed demo model is dequantized instead."
    );
    let output = Output::new(folder.join("float"));
    dequantize(&demo()?, None, &output, &mut |_| {})?;
    Ok((reopen(&output)?, None))
}

/// What was just written.
fn reopen(output: &Output) -> anyhow::Result<Source> {
    let folder = output
        .folder
        .to_str()
        .context("a temporary folder whose name is not UTF-8")?;
    Ok(Source::open(folder)?)
}

/// Whole stories from the beginning of the held-out text.
fn held_out(text: &str) -> Vec<&str> {
    let mut bytes = 0;
    text.split(BETWEEN_STORIES)
        .take_while(|story| {
            bytes += story.len();
            bytes <= HELD_OUT_BYTES
        })
        .collect()
}

/// Quantizes the original (or takes it as it is), loads and scores it; also returns how many tokens were scored.
fn make(
    arguments: &Arguments,
    original: &Source,
    bits: Option<u32>,
    folder: &Path,
    stories: &[&str],
) -> anyhow::Result<(Version, usize)> {
    let load = |source: &Source| {
        let builder = AutoModelForCausalLM::from_source(source);
        match arguments.threads {
            Some(threads) => builder.threads(threads).load(),
            None => builder.load(),
        }
    };
    let (model, name, bytes, error) = match bits {
        None => {
            let entries = original.checkpoint().entries();
            let bytes = entries.iter().map(|entry| entry.stored_bytes).sum();
            (load(original)?, "float".to_owned(), bytes, None)
        }
        Some(bits) => {
            // The rule that the model was trained with, and that its card has numbers of.
            let recipe = Recipe {
                method: Method::Peer(Encoder::Transformers),
                ..Recipe::new(Target::Metal, Packing::checked(bits, GROUP)?)
            };
            let output = Output::new(folder.join(bits.to_string()));
            let report = quantize(original, &recipe, &output, &mut |_| {})?;
            let packed = reopen(&output)?;
            let error = relative_error(original, &packed)?;
            (load(&packed)?, format!("{bits} bits"), report.output_bytes, Some(error))
        }
    };
    let score = score(&model, stories)?;
    let row = Row {
        name,
        bytes,
        error,
        perplexity: score.perplexity,
    };
    let version = Version {
        row,
        bits,
        model,
        story: String::new(),
    };
    Ok((version, score.scored_tokens))
}

/// Each story from its beginning, its end token included.
fn score(model: &CausalLM, stories: &[&str]) -> anyhow::Result<Evaluation> {
    let tokenizer = model.tokenizer()?;
    let mut chunks = Vec::new();
    for story in stories {
        let mut tokens = tokenizer.encode(story)?;
        tokens.extend(tokenizer.tokenizer().eos_id());
        chunks.push(tokens);
    }
    let options = EvaluationOptions {
        from_start: true,
        ..EvaluationOptions::default()
    };
    Ok(model.evaluate(&chunks, &options, &mut |_| {})?)
}

/// Writes a story as it comes.
fn tell(arguments: &Arguments, version: &mut Version, output: &mut dyn Write) -> anyhow::Result<Finish> {
    let config = GenerationConfig {
        max_new_tokens: STORY_TOKENS,
        seed: Some(arguments.seed),
        ..GenerationConfig::default()
    };
    let tokens = version.model.tokenizer()?.encode(&arguments.prompt)?;
    writeln!(output, "{}", style(format!("-- {} --", version.row.name)).cyan())?;
    write!(output, "{}", arguments.prompt)?;
    let mut session = version.model.session();
    let told = stream(output, |on_step| session.generate_text(&tokens, &config, on_step))?;
    let cut = if told.answer.finish == Finish::EndToken {
        ""
    } else {
        " ..."
    };
    writeln!(output, "{cut}\n")?;
    version.story = arguments.prompt.clone() + &told.text;
    Ok(told.answer.finish)
}

fn report(
    arguments: &Arguments,
    versions: &[Version],
    scored: (usize, usize),
    named: Option<&str>,
) -> serde_json::Value {
    let versions = versions.iter().map(|version| {
        json!({
            "bits": version.bits,
            "bytes": version.row.bytes,
            "relative_rms_error": version.row.error,
            "perplexity": version.row.perplexity,
            "story": version.story,
        })
    });
    json!({
        "original": named,
        "group_size": GROUP,
        "held_out_stories": scored.0,
        "held_out_tokens": scored.1,
        "seed": arguments.seed,
        "versions": versions.collect::<Vec<_>>(),
    })
}
