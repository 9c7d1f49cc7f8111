//! `planish generate`: one prompt, one answer, streamed to standard output; or a file of prompts.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use planish::{Answer, CausalLM, Constraint, Finish, GenerationConfig, Message, TextAnswer};
use serde_json::json;

use super::answer::{MAX_TIME_IS_OVER, finish_name, statistics, stream};
use super::interrupt;
use super::prompts::{Options, Prompts};
use super::run_flags::{RunFlags, load_with};
use super::sampling_flags::{SamplingFlags, new_tokens};
use super::template_flags::TemplateFlags;
use super::texts::read_standard_input;
use crate::SUCCESS;

/// Flags of `planish generate`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// A folder, a .gguf file, or a Hub id (org/name) [default: the small demo model inside planish]
    pub model: Option<OsString>,
    /// The text to answer, or with --raw to continue; `-` reads it from standard input
    #[arg(
        short,
        long,
        value_name = "TEXT",
        allow_hyphen_values = true,
        required_unless_present = "prompts",
        conflicts_with = "prompts"
    )]
    pub prompt: Option<String>,
    /// A file of prompts, answered side by side: one a line, or a line each of JSON, {"prompt": ...} or {"messages": [...]} with
    /// max_new_tokens, temperature, top_p, top_k, min_p, repetition_penalty and seed of its own; `-` is standard input
    #[arg(long, value_name = "FILE")]
    pub prompts: Option<PathBuf>,
    /// Answers at a time, with --prompts [default: as many as give each the same bits as alone on the CPU]
    #[arg(long, value_name = "N", requires = "prompts", conflicts_with = "prompt", value_parser = clap::value_parser!(u32).range(1..))]
    pub parallel: Option<u32>,
    /// Maximum number of new tokens [default: from generation_config.json, else 512]
    #[arg(short = 'n', long, visible_alias = "max-tokens", value_name = "N", value_parser = new_tokens)]
    pub max_new_tokens: Option<usize>,
    /// A message before the prompt that tells the model how to behave [default: none]
    #[arg(long, visible_alias = "system-prompt", value_name = "TEXT", conflicts_with_all = ["raw", "prompts"])]
    pub system: Option<String>,
    /// Make the answer JSON that the schema in this file allows
    #[arg(long, value_name = "FILE", conflicts_with = "regex")]
    pub json_schema: Option<PathBuf>,
    /// Make the answer all of this regular expression
    #[arg(long, value_name = "REGEX", allow_hyphen_values = true)]
    pub regex: Option<String>,
    /// Continue the text itself, without the model's chat template
    #[arg(long)]
    pub raw: bool,
    /// Print one JSON object instead of the text as it comes; with --prompts, one a line for each answer
    #[arg(long)]
    pub json: bool,
    /// Report rates on standard error even if it is not a terminal
    #[arg(long)]
    pub verbose: bool,
    /// How tokens are chosen.
    #[command(flatten)]
    pub sampling: SamplingFlags,
    /// How the model is run.
    #[command(flatten)]
    pub run: RunFlags,
    /// What the chat template is told.
    #[command(flatten)]
    pub template: TemplateFlags,
}

/// Tokens of an answer at most, where nobody says otherwise.
const NEW_TOKENS: usize = 512;

/// Runs the command.
pub fn run(arguments: &Arguments) -> anyhow::Result<u8> {
    if let Some(file) = &arguments.prompts {
        return answer_file(arguments, file);
    }
    let prompt = prompt_text(arguments.prompt.as_deref().unwrap_or_default())?;
    let options = arguments.run.load_options()?;
    let template = arguments.template.template()?;
    let source = arguments.run.open(arguments.model.as_deref())?;
    let start = Instant::now();
    let model = load_with(&source, options, template)?;
    let load = start.elapsed();
    let tokenizer = model.tokenizer()?;
    let is_chat = tokenizer.has_chat_template() && !arguments.raw;
    if !is_chat && !arguments.raw && arguments.model.is_some() {
        print_no_template();
    }
    if !is_chat && (arguments.system.is_some() || !arguments.template.template_kwargs.is_empty()) {
        eprintln!("note: --system and --template-kwarg have no effect without a chat template");
    }
    let tokens = if is_chat {
        let system = arguments.system.iter().map(|text| Message::new("system", text));
        let messages: Vec<Message> = system.chain([Message::new("user", &prompt)]).collect();
        tokenizer.apply_chat_template_with(&messages, &arguments.template.variables())?
    } else {
        tokenizer.encode(&prompt)?
    };
    let suggested = || model.suggested_max_new_tokens(tokens.len()).unwrap_or(NEW_TOKENS);
    let config = GenerationConfig {
        constraint: arguments.constraint()?,
        ..arguments
            .sampling
            .config(arguments.max_new_tokens.unwrap_or_else(suggested))
    };
    let plan = model.plan(&config)?;
    arguments.sampling.print_idle(&plan);
    // The seed is told, also where nobody gave one.
    let seed = plan.sampling.seed;
    let config = GenerationConfig {
        seed: Some(seed),
        ..config
    };
    let mut silent = io::sink();
    let mut stdout = io::stdout().lock();
    let output: &mut dyn Write = if arguments.json { &mut silent } else { &mut stdout };
    if arguments.model.is_none() {
        // Whoever just tries the program sees a whole story.
        write!(output, "{prompt}")?;
    }
    let mut session = model.session();
    let told = stream(output, |on_step| match is_chat {
        true => session.generate_text(&tokens, &config, on_step),
        false => session.continue_text(&tokens, &config, on_step),
    })?;
    if arguments.json {
        writeln!(stdout, "{}", report(&model, &told, seed, load))?;
    } else {
        writeln!(stdout)?;
    }
    if arguments.verbose || io::stderr().is_terminal() {
        eprintln!("{}; seed {}", statistics(&told.answer), seed);
    }
    explain_end(&told.answer, &model);
    Ok(match told.answer.finish {
        Finish::Interrupted => interrupt::exit_code(),
        _ => SUCCESS,
    })
}

impl Arguments {
    /// What the answer is made to be.
    fn constraint(&self) -> anyhow::Result<Option<Constraint>> {
        let Some(file) = &self.json_schema else {
            return Ok(self.regex.clone().map(Constraint::Regex));
        };
        let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
        let schema = serde_json::from_str(&text).with_context(|| file.display().to_string())?;
        Ok(Some(Constraint::JsonSchema(schema)))
    }
}

/// Answers a file of prompts.
fn answer_file(arguments: &Arguments, file: &Path) -> anyhow::Result<u8> {
    let template = arguments.template.template()?;
    let config = GenerationConfig {
        constraint: arguments.constraint()?,
        ..arguments
            .sampling
            .config(arguments.max_new_tokens.unwrap_or(NEW_TOKENS))
    };
    let mut prompts = Prompts::read(file, &config)?;
    let options = arguments.run.load_options()?;
    let source = arguments.run.open(arguments.model.as_deref())?;
    let model = load_with(&source, options, template)?;
    arguments.sampling.print_idle(&model.plan(&config)?);
    if !arguments.raw && arguments.model.is_some() && !model.tokenizer()?.has_chat_template() {
        print_no_template();
    }
    if let (None, Some(suggested)) = (arguments.max_new_tokens, model.suggested_max_new_tokens(0)) {
        prompts.suggest(NEW_TOKENS, suggested);
    }
    let options = Options {
        raw: arguments.raw,
        json: arguments.json,
        parallel: arguments.parallel.map(|parallel| parallel as usize),
        verbose: arguments.verbose,
        variables: arguments.template.variables(),
    };
    prompts.answer(&model, &options)
}

/// Says why a model that is asked only goes on with the question.
fn print_no_template() {
    eprintln!("note: the model has no chat template: it continues the text as it is (as with --raw)");
}

/// The prompt, read from standard input if it is `-`.
fn prompt_text(prompt: &str) -> anyhow::Result<String> {
    if prompt != "-" {
        return Ok(prompt.to_owned());
    }
    let text = read_standard_input("the prompt on standard input")?;
    // The last line break is the shell's, not the prompt's.
    let without_break = text.strip_suffix('\n').unwrap_or(&text);
    Ok(without_break.strip_suffix('\r').unwrap_or(without_break).to_owned())
}

/// A notice where the answer stops for a reason that the user may not expect.
fn explain_end(answer: &Answer, model: &CausalLM) {
    let context = model.architecture().context;
    match answer.finish {
        Finish::ContextFull => eprintln!("the answer stops here: the model's context of {context} tokens is full"),
        Finish::MaxTime => eprintln!("the answer stops here: {MAX_TIME_IS_OVER}"),
        Finish::EndToken | Finish::StopString | Finish::MaxNewTokens | Finish::Interrupted => {}
    }
}

fn report(model: &CausalLM, told: &TextAnswer, seed: u64, load: Duration) -> serde_json::Value {
    let answer = &told.answer;
    json!({
        "text": told.text,
        "reasoning": Some(&told.reasoning).filter(|text| !text.is_empty()),
        "tokens": answer.tokens,
        "finish": finish_name(answer.finish),
        "prompt_tokens": answer.prompt_tokens,
        "generated_tokens": answer.tokens.len(),
        "seed": seed,
        "prefill_tokens_per_s": answer.prefill_tokens_per_s(),
        "decode_tokens_per_s": answer.decode_tokens_per_s(),
        "first_token_s": answer.prefill.as_secs_f64(),
        "load_s": load.as_secs_f64(),
        "device": model.device(),
        "threads": model.threads(),
    })
}
