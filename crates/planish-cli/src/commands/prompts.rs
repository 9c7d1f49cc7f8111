//! `planish generate --prompts`: a file of prompts, answered side by side and told in order.
//!
//! One prompt a line, or, where the first line begins with `{`, one JSON object a line. Empty lines are passed over.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::ops::ControlFlow;
use std::path::Path;

use anyhow::{Context, anyhow};
use planish::{Answer, CausalLM, GenerationConfig, ManyStep, Message, Request, Step, StopStrings};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::answer::finish_name;
use super::interrupt;
use super::progress::AnswersBar;
use super::texts::{read_standard_input, read_text};
use crate::hints::with_hint;
use crate::{FAILURE, SUCCESS};

/// A line of JSON.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    prompt: Option<String>,
    messages: Option<Vec<LineMessage>>,
    #[serde(alias = "max_tokens")]
    max_new_tokens: Option<usize>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    top_k: Option<usize>,
    min_p: Option<f32>,
    repetition_penalty: Option<f32>,
    seed: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LineMessage {
    role: String,
    content: String,
}

/// A prompt of the file.
struct Prompt {
    line: usize, // from 1
    messages: Vec<Message>,
    config: GenerationConfig,
}

/// How all prompts are answered.
pub struct Options {
    /// Without the model's chat template.
    pub raw: bool,
    /// One JSON object for each answer.
    pub json: bool,
    /// At a time; `None` is what the model likes.
    pub parallel: Option<usize>,
    /// Report rates even if standard error is no terminal.
    pub verbose: bool,
    /// Of the chat template.
    pub variables: Map<String, Value>,
}

/// A file of prompts that was read, with its name.
pub struct Prompts {
    file: String,
    prompts: Vec<Prompt>,
}

impl Prompts {
    /// Reads a file, or standard input if it is `-`; the flags' configuration holds where a line says nothing.
    ///
    /// # Errors
    /// A file that cannot be read or has no prompt; a bad line, named.
    pub fn read(path: &Path, config: &GenerationConfig) -> anyhow::Result<Prompts> {
        let (file, text) = match path.to_str() {
            Some("-") => {
                let text = read_standard_input("the prompts on standard input")?;
                ("standard input".to_owned(), text)
            }
            _ => {
                let text = read_text(path)?;
                (path.display().to_string(), text)
            }
        };
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let lines = || text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let as_json = lines()
            .next()
            .is_some_and(|(_, line)| line.trim_start().starts_with('{'));
        let prompts = lines().map(|(index, line)| {
            let prompt = match as_json {
                true => parse(line, config).with_context(|| place(&file, index + 1))?,
                false if line.trim_start().starts_with("{\"") => {
                    let place = place(&file, index + 1);
                    anyhow::bail!("{place}: looks like JSON, but the first line is not: all lines are JSON, or none")
                }
                false => (vec![Message::new("user", line)], config.clone()),
            };
            Ok::<Prompt, anyhow::Error>(Prompt {
                line: index + 1,
                messages: prompt.0,
                config: prompt.1,
            })
        });
        let prompts: Vec<Prompt> = prompts.collect::<anyhow::Result<_>>()?;
        anyhow::ensure!(!prompts.is_empty(), "{file}: no prompt in it");
        Ok(Prompts { file, prompts })
    }

    /// So many tokens for each answer, where a prompt has the default.
    pub fn suggest(&mut self, default: usize, suggested: usize) {
        let of_default = |prompt: &&mut Prompt| prompt.config.max_new_tokens == default;
        let prompts = self.prompts.iter_mut().filter(of_default);
        prompts.for_each(|prompt| prompt.config.max_new_tokens = suggested);
    }

    /// Answers all prompts, and tells the answers in order.
    ///
    /// # Errors
    /// A prompt that the model cannot answer, named, before anything runs; a failing device; output that cannot be written.
    pub fn answer(&self, model: &CausalLM, options: &Options) -> anyhow::Result<u8> {
        let requests = self.requests(model, options)?;
        let parallel = options.parallel.unwrap_or_else(|| model.batch());
        let start = std::time::Instant::now();
        let watch = interrupt::watch();
        let bar = AnswersBar::new(requests.len());
        let mut finished = BTreeMap::new();
        let mut told = 0;
        let mut written = 0u32;
        let (mut failure, mut failed) = (None, false);
        let answers = model.generate_many(&requests, parallel, &mut |index, step| {
            match step {
                ManyStep::Step(Step::Prefill { .. } | Step::Logprobs(_)) => {}
                ManyStep::Step(Step::Token(_)) => {
                    written += 1;
                    bar.token(written);
                }
                ManyStep::Answer(_) | ManyStep::Failed(_) => {
                    let result = match step {
                        ManyStep::Answer(answer) => Ok(answer.clone()),
                        ManyStep::Failed(error) => Err(with_hint(error)),
                        ManyStep::Step(_) => return ControlFlow::Continue(()),
                    };
                    finished.insert(index, result);
                    bar.answer();
                    // As soon as all before are told.
                    while let Some(answer) = finished.remove(&told) {
                        let result = bar.suspend(|| match &answer {
                            Ok(answer) => self.tell(model, (told, &requests[told]), answer, options),
                            Err(error) => {
                                failed = true;
                                eprintln!("error: {}: {error}", place(&self.file, self.prompts[told].line));
                                Ok(())
                            }
                        });
                        told += 1;
                        if let Err(error) = result {
                            failure = Some(error);
                            return ControlFlow::Break(());
                        }
                    }
                }
            }
            match watch.is_interrupted() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        })?;
        drop(bar);
        if let Some(error) = failure {
            return Err(error);
        }
        if watch.is_interrupted() {
            // What there is of the others.
            for (index, answer) in answers.iter().enumerate().skip(told) {
                let Some(answer) = answer else { break };
                self.tell(model, (index, &requests[index]), answer, options)?;
            }
            return Ok(interrupt::exit_code());
        }
        if options.verbose || io::stderr().is_terminal() {
            let read: usize = requests.iter().map(|request| request.prompt.len()).sum();
            let seconds = start.elapsed().as_secs_f64();
            let rate = f64::from(written) / seconds.max(1e-9);
            let count = requests.len();
            eprintln!("{count} prompts, {read} tokens read, {written} written in {seconds:.2} s: {rate:.1} tokens/s");
        }
        Ok(if failed { FAILURE } else { SUCCESS })
    }

    fn requests(&self, model: &CausalLM, options: &Options) -> anyhow::Result<Vec<Request>> {
        let tokenizer = model.tokenizer()?;
        let templated = tokenizer.has_chat_template() && !options.raw;
        let request = |prompt: &Prompt| -> Result<Request, planish::Error> {
            let tokens = match prompt.messages.as_slice() {
                [message] if !templated && message.role() == "user" => {
                    tokenizer.encode(message.content().unwrap_or_default())?
                }
                messages => tokenizer.apply_chat_template_with(messages, &options.variables)?,
            };
            let mut request = Request {
                prompt: tokens,
                config: prompt.config.clone(),
            };
            // The seed is told, also where nobody gave one.
            request.config.seed = Some(model.check(&request)?.sampling.seed);
            Ok(request)
        };
        let requests = self.prompts.iter().map(|prompt| {
            request(prompt).map_err(|error| anyhow!("{}: {}", place(&self.file, prompt.line), with_hint(&error)))
        });
        requests.collect()
    }

    fn tell(
        &self,
        model: &CausalLM,
        (index, request): (usize, &Request),
        answer: &Answer,
        options: &Options,
    ) -> anyhow::Result<()> {
        let tokenizer = model.tokenizer()?;
        let context = match tokenizer.has_chat_template() && !options.raw {
            true => &[][..],
            false => &request.prompt,
        };
        let (text, _) = tokenizer.answer_text(&answer.tokens, context)?;
        let stops = StopStrings::new(&model.plan(&request.config)?.stop_strings);
        let text = stops.cut(&text);
        let line = self.prompts[index].line;
        let mut stdout = io::stdout().lock();
        match options.json {
            true => writeln!(stdout, "{}", report((line, request), answer, text))?,
            false => writeln!(
                stdout,
                "=== {}\n{}",
                place(&self.file, line),
                text.trim_end_matches('\n')
            )?,
        }
        Ok(stdout.flush()?)
    }
}

fn report((line, request): (usize, &Request), answer: &Answer, text: &str) -> Value {
    json!({
        "line": line,
        "text": text,
        "tokens": answer.tokens,
        "finish": finish_name(answer.finish),
        "prompt_tokens": answer.prompt_tokens,
        "generated_tokens": answer.tokens.len(),
        "seed": request.config.seed,
        "first_token_s": answer.prefill.as_secs_f64(),
        "decode_tokens_per_s": answer.decode_tokens_per_s(),
    })
}

fn place(file: &str, line: usize) -> String {
    format!("{file}, line {line}")
}

/// The messages and the configuration of a line of JSON.
fn parse(line: &str, config: &GenerationConfig) -> anyhow::Result<(Vec<Message>, GenerationConfig)> {
    let line: Line = serde_json::from_str(line)?;
    let messages = match (line.prompt, line.messages) {
        (Some(prompt), None) => vec![Message::new("user", prompt)],
        (None, Some(messages)) if !messages.is_empty() => {
            let message = |message: LineMessage| Message::new(&message.role, message.content);
            messages.into_iter().map(message).collect()
        }
        _ => anyhow::bail!("expected either prompt or messages"),
    };
    let config = GenerationConfig {
        max_new_tokens: line.max_new_tokens.unwrap_or(config.max_new_tokens),
        temperature: line.temperature.or(config.temperature),
        top_p: line.top_p.or(config.top_p),
        top_k: line.top_k.or(config.top_k),
        min_p: line.min_p.or(config.min_p),
        repetition_penalty: line.repetition_penalty.or(config.repetition_penalty),
        seed: line.seed.or(config.seed),
        ..config.clone()
    };
    Ok((messages, config))
}
